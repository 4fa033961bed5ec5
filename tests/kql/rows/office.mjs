// A simulated company in three offices: what its people, its help desk and its agent do on ordinary days, typos, holidays and onboarding among it.
// Deterministic: one seed, one company. Nobody in it attacks anybody.
import { id } from './write.mjs';

const [MINUTE, HOUR, DAY] = [60_000, 3_600_000, 86_400_000];
const ACCOUNT = id('account', 'office');
const place = (country, city, latitude, longitude) => ({ country, region: city, city, latitude, longitude });
const OFFICES = [
  { share: 0.45, zone: 1, exit: '203.0.113.10', place: place('DE', 'Berlin', 52.52, 13.405), other: place('DE', 'Munich', 48.137, 11.575) },
  { share: 0.35, zone: 0, exit: '203.0.113.20', place: place('GB', 'London', 51.507, -0.128), other: place('GB', 'Edinburgh', 55.953, -3.188) },
  { share: 0.2, zone: -5, exit: '203.0.113.30', place: place('US', 'New York', 40.713, -74.006), other: place('US', 'Chicago', 41.878, -87.63) },
];
const VPN = { exit: '203.0.113.99', place: place('NL', 'Amsterdam', 52.37, 4.895) };
const HOLIDAYS = [place('ES', 'Palma', 39.57, 2.65), place('IT', 'Rome', 41.9, 12.5), place('PT', 'Lisbon', 38.72, -9.14)];

function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Rows of `people` over the days before `end`, oldest first as they came. */
export function officeRows({ people: count, days, end, seed = 1 }) {
  const next = random(seed);
  const chance = (probability) => next() < probability;
  const between = (low, high) => low + next() * (high - low);
  const whole = (low, high) => Math.floor(between(low, high + 1));
  /** How often something happens today that happens `perHundred` times a day among a hundred people. */
  const times = (perHundred) => { const mean = (perHundred * count) / 100; return Math.floor(mean) + (chance(mean % 1) ? 1 : 0); };
  const rows = [];
  const person = (name) => ({ uuid: id('office', name), name, email: `${name}@example.com` });
  const row = (stream, at, fields, late = between(1, 6) * MINUTE) => {
    if (at + late > end) return;
    rows.push({
      TimeGenerated: new Date(at + late).toISOString(), account_uuid: ACCOUNT, log_source: stream, timestamp: new Date(at).toISOString(),
      uuid_s: id('office event', seed, rows.length), ...fields,
    });
  };
  const staff = Array.from({ length: count }, (_, n) => {
    const name = `person${n}`;
    let left = next();
    const office = OFFICES.find(({ share }) => (left -= share) < 0) ?? OFFICES[0];
    return {
      name, office, home: `198.18.${n >> 8}.${n & 255}`, remote: chance(0.3), vpn: chance(0.25), developer: chance(0.3),
      clumsy: chance(0.05), mobile: `198.19.${n >> 8}.${n & 255}`,
    };
  });
  const [admin, helpdesk, auditor] = ['admin', 'helpdesk', 'auditor'].map((name) => ({ name, office: OFFICES[0], home: OFFICES[0].exit }));
  const any = () => staff[whole(0, count - 1)];
  const usual = (who) => (who.remote ? who.home : who.office.exit);
  const signIn = (at, who, ip, where, category = 'success', action_type = 'credentials_ok') => row('signinattempts', at, {
    category, action_type, country: where.country, location: where, session_uuid: id('session', rows.length), target_user: person(who.name), user_type: 'user',
    client: { app_name: '1Password for Mac', app_version: '8', os_name: 'MacOSX', platform_name: 'MacBook', ip_address: ip },
  });
  const audit = (at, who, action, object_type, more = {}) => row('auditevents', at, {
    action, object_type, actor_uuid: id('office', who.name), actor_details: person(who.name), actor_type: 'user', object_uuid: id(object_type, rows.length),
    session: { uuid: id('visit', who.name), device_uuid: id('device', who.name), ip: usual(who) }, location: who.office.place, ...more,
  });
  const about = ({ name }) => ({ aux_uuid: id('office', name), aux_details: person(name) });
  const onUser = ({ name }) => ({ object_uuid: id('office', name), object_details: person(name) });
  const use = (at, who, action, item, late, vault = id('vault', who.office.place.city)) => row('itemusages', at, {
    action, user: person(who.name), user_type: 'user', item_uuid: id('item', item), vault_uuid: vault, used_version: 1,
    client: { app_name: '1Password for Mac', os_name: 'MacOSX', platform_name: 'MacBook', ip_address: usual(who) }, location: who.office.place,
  }, late);

  /** A sign-in with the mistakes that people make before it: a few typos, a code too late, rarely many. */
  const arrive = (at, who, ip, where) => {
    const typos = chance(0.004) ? whole(3, 5) : chance(0.15) ? whole(1, 2) : 0;
    for (let n = 0; n < typos; n += 1) signIn(at - (typos - n) * 30_000, who, ip, where, 'credentials_failed', 'password_secret_bad');
    const codes = who.clumsy && chance(0.1) ? whole(5, 7) : chance(0.03) ? whole(1, 2) : 0;
    for (let n = 0; n < codes; n += 1) signIn(at + n * 20_000, who, ip, where, 'mfa_failed', 'totp_bad');
    signIn(at + 3 * MINUTE, who, ip, where, 'success', 'mfa_ok');
  };
  const workday = (day, who) => {
    const morning = day + (8.5 - who.office.zone + between(-0.7, 1.5)) * HOUR;
    if (chance(0.35)) arrive(morning, who, usual(who), who.office.place);
    if (who.vpn && chance(0.2)) signIn(morning + between(5, 60) * MINUTE, who, VPN.exit, VPN.place);
    if (chance(0.02)) signIn(morning + between(1, 6) * HOUR, who, who.mobile, who.office.other);
    const late = chance(0.1) ? between(1, 40) * HOUR : undefined;
    for (let n = whole(2, 12); n > 0; n -= 1) use(morning + between(0, 8) * HOUR, who, 'fill', `${who.name} ${whole(0, 40)}`, late);
    for (let n = whole(0, who.developer ? 8 : 3); n > 0; n -= 1) {
      use(morning + between(0, 8) * HOUR, who, chance(0.5) ? 'reveal' : 'secure-copy', `${who.name} ${whole(0, 40)}`, late);
    }
    if (chance(0.002)) travel(morning, who);
    if (chance(0.003)) arrive(morning + 4 * HOUR, who, `198.51.100.${whole(1, 200)}`, HOLIDAYS[whole(0, 2)]);
  };
  /** From one office to another by aeroplane, and a sign-in at either end. */
  const travel = (morning, who) => {
    const there = OFFICES[(OFFICES.indexOf(who.office) + 1) % 3];
    signIn(morning, who, who.home, who.office.place);
    signIn(morning + (there.zone === -5 || who.office.zone === -5 ? 9.5 : 3.5) * HOUR, who, `192.0.2.${whole(1, 200)}`, there.place);
  };
  const desk = (day, weekday) => {
    const work = () => day + between(8, 16) * HOUR;
    for (let n = times(0.4); n > 0; n -= 1) onboard(work(), { name: `hire${rows.length}`, office: OFFICES[whole(0, 2)], home: '198.18.250.1' });
    for (let n = times(0.3); n > 0; n -= 1) { const [at, who] = [work(), any()]; audit(at, admin, 'suspend', 'user', onUser(who)); audit(at + MINUTE, admin, 'leave', 'gm', about(who)); }
    for (let n = times(1.5); n > 0; n -= 1) audit(work(), admin, 'join', 'gm', { ...about(any()), object_details: { name: 'Project team' } });
    for (let n = times(2); n > 0; n -= 1) audit(work(), admin, 'grant', 'uva', { ...about(any()) });
    for (let n = times(0.1); n > 0; n -= 1) { const [at, who] = [work(), any()]; audit(at, helpdesk, 'beginr', 'user', onUser(who)); audit(at + between(10, 120) * MINUTE, helpdesk, 'completr', 'user', onUser(who)); }
    for (let n = times(0.3); n > 0; n -= 1) { const [at, who] = [work(), any()]; audit(at, who, 'disblmfa', 'user', onUser(who)); audit(at + 2 * MINUTE, who, 'enblmfa', 'user', onUser(who)); }
    for (let n = times(0.02); n > 0; n -= 1) { const who = any(); audit(work(), who, 'disblmfa', 'user', onUser(who)); }
    for (let n = times(1); n > 0; n -= 1) audit(work(), any(), 'create', 'device');
    for (let n = times(0.05); n > 0; n -= 1) audit(work(), any(), 'export', 'vault');
    for (let n = times(0.8); n > 0; n -= 1) ownVault(work(), any());
    for (let n = times(0.07); n > 0; n -= 1) audit(work(), any(), 'create', 'satoken', { aux_uuid: id('sa', 'ci') });
    for (let n = times(2); n > 0; n -= 1) audit(work(), any(), 'share', 'item');
    for (let n = times(0.04); n > 0; n -= 1) reveal(work(), any(), 30);
    for (let n = times(0.02); n > 0; n -= 1) { const [at, who] = [work(), any()]; audit(at, admin, 'reactive', 'user', onUser(who)); reveal(at + HOUR, who, 3); }
    if (weekday % 3 === 1) for (let n = 0; n < 7; n += 1) audit(day + 9 * HOUR + n * 2 * MINUTE, auditor, 'view', 'report', { object_uuid: undefined });
    if (weekday === 3) yearly(day);
  };
  const onboard = (at, who) => {
    audit(at, admin, 'invite', 'user', onUser(who));
    for (const name of ['Team Members', 'Sales', 'Everybody']) audit(at + 3 * MINUTE, admin, 'join', 'gm', { ...about(who), object_details: { name } });
    audit(at + 30 * MINUTE, who, 'create', 'device');
    audit(at + 31 * MINUTE, who, 'enblmfa', 'user', onUser(who));
    arrive(at + 32 * MINUTE, who, who.office.exit, who.office.place);
  };
  const ownVault = (at, who) => {
    const vault = id('vault', 'own', rows.length);
    audit(at, who, 'create', 'vault', { object_uuid: vault });
    audit(at + MINUTE, who, 'grant', 'uva', { ...about(who), object_uuid: vault });
    use(at + 20 * MINUTE, who, 'reveal', vault, undefined, vault);
  };
  const reveal = (at, who, items) => { for (let n = 0; n < items; n += 1) use(at + n * 90_000, who, 'reveal', `${who.name} rotation ${n}`); };
  /** What happens once a week in a company of five hundred: an outage of single sign-on, a firewall, a group for single sign-on, people who leave together. */
  const yearly = (day) => {
    for (const who of staff.filter(({ remote, office }) => !remote && office === OFFICES[1])) {
      if (!chance(0.4)) continue;
      signIn(day + (9 + between(0, 0.7)) * HOUR, who, who.office.exit, who.office.place, 'sso_failed', 'sso_user_mismatch');
      signIn(day + (10 + between(0, 1)) * HOUR, who, who.office.exit, who.office.place, 'success', 'federated');
    }
    if (count < 200) return;
    audit(day + 11 * HOUR, admin, 'updatfw', 'account');
    audit(day + 12 * HOUR, admin, 'addgsso', 'sso');
    audit(day + 13 * HOUR, admin, 'join', 'gm', { ...about(any()), object_details: { name: 'Administrators' } });
    for (let n = 0; n < 6; n += 1) audit(day + 14 * HOUR + n * 4 * MINUTE, admin, 'suspend', 'user', onUser(any()));
    for (let n = 0; n < 12; n += 1) audit(day + 15 * HOUR + n * MINUTE, staff[7], 'share', 'item');
    for (let n = 0; n < 8; n += 1) signIn(day + (10 + n / 2) * HOUR, any(), `198.51.100.${220 + n}`, HOLIDAYS[0], 'firewall_reported_success', 'country_blocked');
  };

  const first = Math.floor(end / DAY) * DAY - days * DAY;
  for (let day = first; day < end; day += DAY) {
    const weekday = new Date(day).getUTCDay();
    const working = weekday % 6 !== 0;
    for (const who of staff) if (chance(working ? 0.93 : 0.06)) workday(day, who);
    if (working) desk(day, weekday);
    // The agent: a heartbeat each quarter of an hour, forty minutes of maintenance each Sunday, and a batch sent twice each Tuesday.
    for (let at = day; at < day + DAY; at += 15 * MINUTE) {
      if (weekday !== 0 || at - day < 12 * HOUR || at - day > 12.5 * HOUR) row('healthevents', at, { uuid_s: undefined }, 0);
    }
    if (weekday === 2) rows.slice(-400).filter(({ uuid_s }) => uuid_s).forEach((one) => rows.push({ ...one, TimeGenerated: new Date(Math.min(end, Date.parse(one.TimeGenerated) + 5 * MINUTE)).toISOString() }));
  }
  return rows.sort((a, b) => (a.TimeGenerated < b.TimeGenerated ? -1 : 1));
}
