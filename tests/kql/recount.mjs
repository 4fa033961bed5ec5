// The answers of the queries, counted again from the rows by plain loops: nothing here reads a query.
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const TAKEN = ['reveal', 'secure-copy', 'export', 'share'];
const LET_IN = ['success', 'firewall_reported_success'];
const REFUSED = ['credentials_failed', 'mfa_failed', 'sso_failed'];
/** Hourly rules look at rows of the last 65 minutes, quarter-hourly ones at those of the last 20. */
const FRESH = { hourly: 65 * 60_000, quarterly: 20 * 60_000, sixHourly: 365 * 60_000 };
const signInsOf = (events) => events.filter((event) => event.stream === 'signinattempts');

const groups = (items, key) => {
  const found = new Map();
  for (const item of items) found.set(key(item), [...(found.get(key(item)) ?? []), item]);
  return found;
};
const distinct = (items, key) => new Set(items.map(key).filter((value) => value !== undefined && value !== '')).size;
const isStub = (row) => Boolean(row.details?.opship?.stub);
const hourOf = (event) => Math.floor(event.at / HOUR) * HOUR;
const dayOf = (event) => Math.floor(event.at / DAY) * DAY;

/** One row an event: whole before stub, then the earliest; rows without an id all stay. */
export function deduplicated(rows) {
  const events = rows.filter((row) => row.log_source !== 'healthevents');
  const byId = groups(events.filter((row) => row.uuid_s), (row) => row.uuid_s);
  const best = [...byId.values()].map((copies) => [...copies].sort((a, b) =>
    isStub(a) - isStub(b) || Date.parse(a.TimeGenerated) - Date.parse(b.TimeGenerated))[0]);
  return [...best, ...events.filter((row) => !row.uuid_s)];
}

function plain(row) {
  const who = row.actor_details ?? row.user ?? row.target_user ?? {};
  return {
    row, at: Date.parse(row.timestamp), came: Date.parse(row.TimeGenerated), stream: row.log_source, action: row.action, type: row.object_type,
    object: row.object_uuid, who: row.actor_uuid ?? who.uuid ?? '', mail: (who.email ?? '').toLowerCase(), ip: row.client?.ip_address ?? row.session?.ip,
    subject: row.aux_details?.uuid ? row.aux_uuid : row.object_type === 'user' ? row.object_uuid : undefined,
    country: row.country ?? row.location?.country, category: row.category, outcome: row.action_type, vault: row.vault_uuid, item: row.item_uuid,
  };
}

/** Query file -> the keys its rows must have, each once. */
export function answers(rows, now) {
  const whole = deduplicated(rows);
  const events = whole.map(plain);
  const isRecent = (event) => event.at > now - 5 * DAY;
  const fresh = (event, run) => event.came > now - FRESH[run] && isRecent(event);
  const letIn = signInsOf(events).filter(({ category, who }) => who && LET_IN.includes(category));
  const audit = events.filter((event) => event.stream === 'auditevents');
  const uses = events.filter((event) => event.stream === 'itemusages');
  const signIns = events.filter((event) => event.stream === 'signinattempts');
  const health = rows.filter((row) => row.log_source === 'healthevents');
  const doing = (...actions) => audit.filter((event) => actions.includes(event.action));
  const ids = (chosen) => chosen.map((event) => event.row.uuid_s);
  const tally = (chosen, key) => [...groups(chosen, key)].map(([name, members]) => `${name}=${members.length}`);
  /** Keys of the groups of which `test` holds and a row is fresh. */
  const bursts = (chosen, key, run, test) => [...groups(chosen.filter(isRecent), key)]
    .filter(([, members]) => test(members) && members.some((event) => fresh(event, run))).map(([name]) => name);
  /** Keys of the pairs of an earlier and a later event, at most `span` apart, with a fresh one among them. */
  const pairs = (earlier, later, same, span, run, key) => later.flatMap((second) => earlier
    .filter((first) => same(first, second) && second.at >= first.at && second.at - first.at <= span && (fresh(first, run) || fresh(second, run)))
    .map((first) => key(first, second)));
  const once = (keys) => [...new Set(keys)];
  const ofPerson = (first, second) => first.who === second.who;

  return {
    'functions/OnePasswordEvents_Deduplicated.kql': whole.map((row) => `${row.uuid_s ?? ''} ${isStub(row)}`),
    'functions/OnePasswordDuplicates.kql': [...groups(rows.filter((row) => row.uuid_s), (row) => row.uuid_s)]
      .filter(([, copies]) => copies.length > 1).map(([id, copies]) => `${id}=${copies.length}`),
    ...healthAnswers(rows, health, whole, now),

    'rules/MassItemUsage.kql': once([0, HOUR / 2].flatMap((shift) => bursts(
      uses.filter((use) => TAKEN.includes(use.action)), (use) => `${use.who} ${hourOf({ at: use.at + shift })}`, 'hourly',
      (members) => distinct(members, (use) => use.item) >= 25,
    )).map((key) => key.split(' ')[0])),
    'rules/VaultExported.kql': bursts(
      doing('export').filter(({ type }) => type === 'vault'), (event) => `${event.who} ${dayOf(event)}`, 'quarterly', () => true,
    ).map((key) => key.split(' ')[0]),
    'rules/NewDeviceThenExport.kql': once(pairs(
      doing('create').filter(({ type }) => type === 'device'),
      events.filter(({ action, type, stream }) => action === 'export' && (type === 'vault' || stream === 'itemusages')),
      ofPerson, DAY, 'hourly', (first) => first.who,
    )),
    'rules/FailuresThenNewCountry.kql': newCountries(signIns, letIn, fresh),
    'rules/PasswordSpray.kql': once([0, HOUR / 2].flatMap((shift) => bursts(
      signIns, (event) => `${event.ip} ${hourOf({ at: event.at + shift }) - shift}`, 'hourly',
      (members) => sprayed(members, letIn, hourOf({ at: members[0].at + shift }) - shift),
    )).map((key) => key.split(' ')[0])),
    'rules/SecondFactorFatigue.kql': [...groups(pairs(
      signIns.filter((event) => event.category === 'mfa_failed' && !knownPlace(event, letIn)), signIns.filter(({ outcome }) => outcome === 'mfa_ok'),
      ofPerson, HOUR, 'hourly', (first, second) => `${second.who} ${second.at}`,
    ), (key) => key)].filter(([, found]) => found.length >= 5).map(([key]) => key.split(' ')[0]),
    'rules/SecondFactorWeakened.kql': doing('disblmfa', 'disblduo').filter((event) => fresh(event, 'quarterly'))
      .map((event) => [event, event.action === 'disblduo' || event.type === 'account'])
      .filter(([event, whole]) => whole || !doing('enblmfa').some(({ subject, at }) => subject === event.subject && at >= event.at))
      .map(([event, whole]) => `${event.row.uuid_s} ${whole ? 'High' : 'Medium'}`),
    'rules/GroupMembershipGranted.kql': doing('join', 'role').filter((event) => event.type === 'gm' && fresh(event, 'quarterly'))
      .filter(({ row }) => ['owners', 'administrators', 'security'].includes((row.object_details?.name ?? '').toLowerCase()))
      .map((event) => `${event.row.uuid_s} ${event.who === event.subject ? 'High' : 'Medium'}`),
    'rules/OwnVaultGrantThenUse.kql': once(pairs(
      doing('grant', 'update').filter((event) => event.type === 'uva' && event.who === event.subject
        && !doing('create').some(({ who, type, object }) => who === event.who && type === 'vault' && object === event.object)),
      uses.filter(({ action }) => [...TAKEN, 'server-fetch', 'fill'].includes(action)),
      (first, second) => ofPerson(first, second) && first.object === second.vault, DAY, 'hourly', (first, second) => `${second.who} ${second.vault}`,
    )),
    'rules/ServiceAccountToken.kql': ids(doing('create').filter((event) => ['sa', 'satoken'].includes(event.type) && fresh(event, 'quarterly'))),
    'rules/RecoveryUsed.kql': [...groups(doing('beginr', 'completr'), (event) => `${event.who} ${event.subject ?? ''}`)]
      .filter(([, members]) => members.some((event) => fresh(event, 'quarterly')))
      .map(([key, members]) => [key, members, distinct(doing('completr').filter(({ who }) => who === members[0].who), ({ subject }) => subject)])
      .map(([key, members, people]) => `${key} ${people >= 3 ? 'High' : members.some(({ action }) => action === 'completr') ? 'Medium' : 'Low'}`),
    'rules/ImpossibleTravel.kql': travellers(letIn, isRecent, fresh),
    'rules/FirewallChanged.kql': [
      ...ids(doing('updatfw').filter((event) => fresh(event, 'quarterly'))),
      ...[...groups(signIns.filter((event) => event.category === 'firewall_reported_success' && isRecent(event)), ({ outcome, country }) => `${outcome} ${country}`)]
        .map(([, all]) => all.reduce((a, b) => (b.came < a.came ? b : a))).filter((event) => fresh(event, 'quarterly')).map(({ row }) => row.uuid_s),
    ],
    'rules/SingleSignOnChanged.kql': ids(doing(
      'disblsso', 'chngpsso', 'chngasso', 'chngdsso', 'addgsso', 'delgsso', 'vrfydmn', 'uvrfydmn', 'dvrfydmn',
    ).filter((event) => fresh(event, 'quarterly'))),
    'rules/DormantAccountAwakened.kql': doing('reactive').filter((event) => event.type === 'user' && isRecent(event)).flatMap((first) => {
      const taken = uses.filter(({ who, action, at }) => who === first.subject && [...TAKEN, 'server-fetch'].includes(action)
        && at >= first.at && at <= first.at + DAY);
      return distinct(taken, ({ item }) => item) >= 5 && [first, ...taken].some((event) => fresh(event, 'hourly')) ? [`${first.subject} ${first.mail}`] : [];
    }),
    'rules/ReportsViewed.kql': bursts(doing('view').filter(({ type }) => type === 'report'), (event) => `${event.who} ${dayOf(event)}`, 'hourly',
      (members) => members.length >= 5 && distinct(doing('view').filter(({ type, who, at }) => type === 'report' && who === members[0].who
        && at < dayOf(members[0])), dayOf) < 2).map((key) => key.split(' ')[0]),
    'rules/ItemsSharedOutside.kql': bursts(doing('share').filter(({ type }) => type === 'item'), (event) => `${event.who} ${dayOf(event)}`, 'hourly',
      (members) => members.length >= 10).map((key) => key.split(' ')[0]),
    'rules/AccessRemovedInBulk.kql': once([0, HOUR / 2].flatMap((shift) => bursts(
      doing('suspend', 'delete', 'purge').filter(({ type }) => ['user', 'vault', 'items', 'item'].includes(type)),
      (event) => `${event.who} ${event.type === 'user' ? 'people' : 'vaults and items'}/${hourOf({ at: event.at + shift })}`, 'quarterly',
      (members) => distinct(members, ({ object }) => object) >= 5,
    )).map((key) => key.split('/')[0])),

    'hunting/GuestActivity.kql': tally(
      events.filter(({ row }) => (row.actor_type ?? row.user_type) === 'external_user'), (event) => `${event.who}`),
    'hunting/RareItemReaders.kql': [...groups(uses.filter(({ vault }) => vault), ({ vault }) => vault)].filter(([, members]) => distinct(members, ({ who }) => who) === 1)
      .map(([vault, members]) => `${vault}=${members.length}`),
    'workbook/20-SignInMap.kql': tally(signIns.filter(({ row }) => row.location?.latitude !== undefined), ({ country, row }) => `${country} ${row.location.city}`),
    'workbook/21-SignInOutcomes.kql': tally(signIns, ({ category }) => category),
    'workbook/40-ItemUsageByAction.kql': tally(uses, ({ action }) => action),
    'workbook/41-ItemUsageByApp.kql': tally(uses, ({ row }) => row.client?.app_name ?? ''),
    'workbook/53-RowsIngested.kql': tally(rows, (row) => `${row.log_source} ${new Date(hourOf({ at: Date.parse(row.TimeGenerated) })).toISOString()}`),
    'parsers/vimAuthenticationOnePassword.kql': signIns.map(({ row, category }) => `${row.uuid_s} ${LET_IN.includes(category) ? 'Success' : 'Failure'}`),
    'parsers/vimAuditEventOnePassword.kql': [...audit, ...uses].map(({ row }) => `${row.uuid_s ?? ''} ${row.action}`),
  };
}

function healthAnswers(rows, health, whole, now) {
  const came = (row) => Date.parse(row.TimeGenerated);
  const beats = health.filter((row) => !row.category);
  const last = (account) => Math.max(...beats.filter((row) => row.account_uuid === account).map(came));
  const lags = groups(
    whole.filter((row) => ['auditevents', 'signinattempts'].includes(row.log_source)), (row) => `${row.account_uuid} ${row.log_source}`,
  );
  const middle = (sorted) => sorted[Math.ceil(sorted.length / 2) - 1];
  const late = (all, then) => {
    const recent = all.filter((row) => came(row) > then - FRESH.hourly && came(row) <= then);
    return recent.length >= 10 && middle(recent.map((row) => came(row) - Date.parse(row.timestamp)).sort((a, b) => a - b)) > HOUR / 2;
  };
  const quiet = (all, then) => all.some((row) => Date.parse(row.timestamp) > then - 8 * DAY && Date.parse(row.timestamp) < then - 7 * DAY)
    && Math.max(...all.map((row) => Date.parse(row.timestamp))) < then - DAY;
  const streams = groups(whole.filter((row) => Date.parse(row.timestamp) > now - 9 * DAY), (row) => `${row.account_uuid} ${row.log_source}`);
  const copies = [...groups(rows.filter((row) => row.uuid_s), (row) => row.uuid_s)]
    .map(([, all]) => all.filter((row) => !isStub(row))).filter((all) => all.length > 1);
  return {
    'rules/HealthNoHeartbeat.kql': [...groups(beats, (row) => row.account_uuid).keys()]
      .filter((account) => last(account) < now - HOUR && last(account) > now - HOUR - FRESH.hourly),
    'rules/HealthTrouble.kql': health.filter((row) => row.category && came(row) > now - FRESH.quarterly && !(last(row.account_uuid) >= came(row)))
      .map((row) => `${row.account_uuid} ${row.category}`),
    'rules/HealthDuplicates.kql': [...groups(copies.filter((all) => Math.max(...all.map(came)) > now - FRESH.hourly), ([row]) =>
      `${row.account_uuid} ${row.log_source}`)].filter(([, all]) => all.some((one) => one.length > 2)).map(([key, all]) =>
      `${key}=${all.reduce((sum, one) => sum + one.length - 1, 0)}`),
    'rules/HealthLag.kql': [...lags].filter(([, all]) => late(all, now) && !late(all, now - HOUR) && Math.min(...all.map(came)) < now - 2 * HOUR)
      .map(([key]) => key),
    'rules/HealthStreamQuiet.kql': [...streams].filter(([key, all]) => quiet(all, now) && !quiet(all, now - FRESH.sixHourly)
      && distinct(all.filter((row) => Date.parse(row.timestamp) > now - 8 * DAY), (row) => row.timestamp.slice(0, 10)) >= 5
      && last(key.split(' ')[0]) > now - DAY).map(([key]) => key),
    'rules/HealthStubs.kql': whole.filter((row) => isStub(row) && came(row) > now - FRESH.hourly).map((row) => row.uuid_s),
  };
}

/** First success of a person from a country, with three failures from there in the day before it, of somebody let in before them. */
function newCountries(signIns, letIn, fresh) {
  const firsts = [...groups(letIn.filter(({ country }) => country), ({ who, country }) => `${who} ${country}`)]
    .map(([key, all]) => [key, all.reduce((a, b) => (b.at < a.at ? b : a))]);
  return firsts.filter(([, first]) => {
    const failed = signIns.filter(({ who, country, category, at }) =>
      who === first.who && country === first.country && REFUSED.includes(category) && at <= first.at && first.at - at <= DAY);
    return failed.length >= 3 && [first, ...failed].some((event) => fresh(event, 'hourly'))
      && letIn.some(({ who, country, at }) => who === first.who && country && failed.every((event) => at < event.at));
  }).map(([key]) => key);
}

/** Five people failed, most of them in vain, where fewer had been let in before. */
function sprayed(members, letIn, hour) {
  const failed = distinct(members.filter(({ category }) => REFUSED.includes(category)), ({ who }) => who);
  const passed = distinct(members.filter(({ category }) => category === 'success'), ({ who }) => who);
  const known = distinct(letIn.filter(({ ip, at, category }) => ip === members[0].ip && at < hour && category === 'success'), ({ who }) => who);
  return failed >= 5 && passed * 2 < failed && known < failed;
}

const isExit = (ip, letIn) => distinct(letIn.filter((event) => event.ip === ip), ({ who }) => who) >= 5;
const knownPlace = (failed, letIn) => isExit(failed.ip, letIn) || letIn.some(({ who, ip, at }) => who === failed.who && ip === failed.ip && at <= failed.at);

/** People with two sign-ins further apart than an aeroplane flies; the distance by the law of cosines. */
function travellers(letIn, isRecent, fresh) {
  const radians = (degrees) => (degrees * Math.PI) / 180;
  const kilometres = (a, b) => 6371 * Math.acos(Math.min(1, Math.sin(radians(a.latitude)) * Math.sin(radians(b.latitude))
    + Math.cos(radians(a.latitude)) * Math.cos(radians(b.latitude)) * Math.cos(radians(a.longitude - b.longitude))));
  const placed = letIn.filter((event) => event.row.location?.latitude !== undefined && isRecent(event) && !isExit(event.ip, letIn));
  const people = placed.flatMap((later) => placed.filter((earlier) => {
    const span = later.at - earlier.at;
    if (earlier.who !== later.who || span <= 0 || span >= 12 * HOUR) return false;
    const far = kilometres(earlier.row.location, later.row.location);
    return far > (earlier.country === later.country ? 1500 : 500) && far > (900 * span) / HOUR && (fresh(earlier, 'hourly') || fresh(later, 'hourly'));
  }).map(() => later.who));
  return [...new Set(people)];
}

/** Query file -> the key of one of its rows, for the comparison. */
export const KEYS = {
  'functions/OnePasswordEvents_Deduplicated.kql': (row) => `${row.uuid_s} ${row.IsStub}`,
  'functions/OnePasswordDuplicates.kql': (row) => `${row.EventUuid}=${row.Copies}`,
  'rules/HealthNoHeartbeat.kql': (row) => row.AccountUuid,
  'rules/HealthTrouble.kql': (row) => `${row.AccountUuid} ${row.State}`,
  'rules/HealthDuplicates.kql': (row) => `${row.AccountUuid} ${row.Stream}=${row.ExtraRows}`,
  'rules/HealthLag.kql': (row) => `${row.AccountUuid} ${row.Stream}`,
  'rules/HealthStreamQuiet.kql': (row) => `${row.AccountUuid} ${row.Stream}`,
  'rules/HealthStubs.kql': (row) => row.EventUuid,
  'rules/FailuresThenNewCountry.kql': (row) => `${row.UserUuid} ${row.Country}`,
  'rules/PasswordSpray.kql': (row) => row.IpAddress,
  'rules/SecondFactorWeakened.kql': (row) => `${row.EventUuid} ${row.AlertSeverity}`,
  'rules/GroupMembershipGranted.kql': (row) => `${row.EventUuid} ${row.AlertSeverity}`,
  'rules/OwnVaultGrantThenUse.kql': (row) => `${row.UserUuid} ${row.VaultUuid}`,
  'rules/ServiceAccountToken.kql': (row) => row.EventUuid,
  'rules/RecoveryUsed.kql': (row) => `${row.UserUuid} ${row.SubjectUuid} ${row.AlertSeverity}`,
  'rules/FirewallChanged.kql': (row) => row.EventUuid,
  'rules/SingleSignOnChanged.kql': (row) => row.EventUuid,
  'rules/DormantAccountAwakened.kql': (row) => `${row.UserUuid} ${row.ByEmail}`,
  'rules/AccessRemovedInBulk.kql': (row) => `${row.UserUuid} ${row.What}`,
  'hunting/GuestActivity.kql': (row) => `${row.UserUuid}=${row.Events}`,
  'hunting/RareItemReaders.kql': (row) => `${row.VaultUuid}=${row.Uses}`,
  'workbook/20-SignInMap.kql': (row) => `${row.Country} ${row.City}=${row.SignIns}`,
  'workbook/21-SignInOutcomes.kql': (row) => `${row.Category}=${row.SignIns}`,
  'workbook/40-ItemUsageByAction.kql': (row) => `${row.Action}=${row.Uses}`,
  'workbook/41-ItemUsageByApp.kql': (row) => `${row.App}=${row.Uses}`,
  'workbook/53-RowsIngested.kql': (row) => `${row.log_source} ${row.Hour}=${row.Rows}`,
  'parsers/vimAuthenticationOnePassword.kql': (row) => `${row.EventUid} ${row.EventResult}`,
  'parsers/vimAuditEventOnePassword.kql': (row) => `${row.EventUid} ${row.Operation}`,
};
export const byPerson = (row) => row.UserUuid;
