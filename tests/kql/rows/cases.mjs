// For each rule what it is for, and what looks like it and is everyday life: the first must raise its alert, the second none.
import { id, writers } from './write.mjs';

const DAY = 1440;
const REFUSED = ['credentials_failed', 'password_secret_bad'];
const PASSED = ['success', 'credentials_ok'];

export const CASES = {
  AccessRemovedInBulk: {
    attack: ({ many, audit, id: of }) => many(5, (n) => audit(12 - n / 10, 'Raider', 'delete', 'vault', { object_uuid: of('vault', 'gone', n) })),
    benign: ({ many, audit, onUser }) => many(4, (n) => audit(12 - n / 10, 'Hirer', 'suspend', 'user', onUser(`Left${n}`))),
  },
  DormantAccountAwakened: {
    attack: ({ many, audit, use, onUser }) => { audit(300, 'Admin', 'reactive', 'user', onUser('Sleeper')); many(6, (n) => use(40 - n, 'Sleeper', 'reveal', `s${n}`)); },
    benign: ({ many, audit, use, onUser }) => { audit(300, 'Admin', 'reactive', 'user', onUser('Parent')); many(12, (n) => use(40 - n, 'Parent', 'fill', `p${n}`)); },
  },
  FailuresThenNewCountry: {
    attack: ({ many, signIn }) => {
      signIn(6 * DAY, 'Traveller', 'DE', ...PASSED, '192.0.2.101');
      many(3, (n) => signIn(60 - n, 'Traveller', 'NZ', ...REFUSED, '198.51.100.1'));
      signIn(40, 'Traveller', 'NZ', ...PASSED, '198.51.100.1');
    },
    // A home that was quiet for eight days, and somebody whose first sign-in this is.
    benign: ({ many, signIn }) => {
      signIn(8 * DAY, 'Homely', 'DE', ...PASSED, '192.0.2.102');
      signIn(3 * DAY, 'Homely', 'PL', ...PASSED, '192.0.2.107');
      for (const who of ['Homely', 'Firsttimer']) {
        many(4, (n) => signIn(60 - n, who, 'DE', ...REFUSED, '192.0.2.102'));
        signIn(40, who, 'DE', ...PASSED, '192.0.2.102');
      }
    },
  },
  FirewallChanged: {
    attack: ({ audit }) => audit(6, 'Admin', 'updatfw', 'account'),
    benign: ({ signIn }) => [2000, 300, 8, 6].map((ago) => signIn(ago, `Abroad${ago}`, 'PL', 'firewall_reported_success', 'country_blocked', '192.0.2.103')),
  },
  GroupMembershipGranted: {
    attack: ({ audit, about, group }) => audit(8, 'Climber', 'role', 'gm', { ...about('Climber'), aux_info: 'A', ...group('Owners') }),
    benign: ({ many, audit, about, group }) => many(9, (n) => audit(8 - n / 10, 'Onboarder', 'join', 'gm', { ...about(`Newcomer${n}`), ...group('Marketing') })),
  },
  HealthDuplicates: {
    attack: (w) => copies(w, 3),
    benign: (w) => copies(w, 2),
  },
  HealthLag: {
    attack: (w) => lagging(w, 'slow', [90]),
    benign: (w) => lagging(w, 'told', [150, 90]),
  },
  HealthNoHeartbeat: {
    attack: ({ health }) => health(100, 'silent'),
    benign: ({ health }) => [health(300, 'long silent'), health(50, 'slow timer')],
  },
  HealthStreamQuiet: {
    attack: (w) => daily(w, 'quiet', 7, 1.1),
    // Gone for a day and a half, which was told; quiet on this day of each week.
    benign: (w) => { daily(w, 'gone', 7, 1.5); daily(w, 'office', 5, 2.5); },
  },
  HealthStubs: {
    attack: ({ row }) => row('auditevents', 50, { action: 'patch', object_type: 'items', ...STUB }, { uuid: id('stays') }),
    benign: ({ row, audit }) => {
      row('auditevents', 55, { action: 'share', object_type: 'item', ...STUB }, { uuid: id('replayed') });
      audit(55, 'Large', 'share', 'item', {}, { uuid: id('replayed'), late: 20 });
    },
  },
  HealthTrouble: {
    attack: ({ health }) => health(10, 'troubled', 'credentials_failed', 'API Key Invalid'),
    benign: ({ health }) => [health(15, 'recovered', 'source_failed', 'Events API not readable'), health(5, 'recovered')],
  },
  ImpossibleTravel: {
    attack: ({ signIn }) => [signIn(80, 'Jumper', 'DE', ...PASSED, '192.0.2.104'), signIn(20, 'Jumper', 'NZ', ...PASSED, '198.51.100.2')],
    // At home, then through the company's VPN, from which the others come too.
    benign: ({ many, signIn }) => {
      many(5, (n) => signIn(3 * DAY - n, `Tunnel${n}`, 'NZ', ...PASSED, '198.51.100.3'));
      signIn(30, 'Tunnel1', 'DE', ...PASSED, '192.0.2.105');
      signIn(20, 'Tunnel1', 'NZ', ...PASSED, '198.51.100.3');
    },
  },
  ItemsSharedOutside: {
    attack: ({ many, audit }) => many(10, (n) => audit(15 - n / 2, 'Sharer', 'share', 'item')),
    benign: ({ many, audit }) => many(9, (n) => audit(15 - n / 2, 'Polite', 'share', 'item')),
  },
  MassItemUsage: {
    attack: ({ many, use }) => many(26, (n) => use(50 - n, 'Mass', 'reveal', `m${n}`)),
    benign: ({ many, use }) => { many(24, (n) => use(50 - n, 'Below', 'reveal', `b${n}`)); many(60, (n) => use(55 - n / 2, 'Browser', 'fill', `f${n}`)); },
  },
  NewDeviceThenExport: {
    attack: ({ audit, use }) => { audit(300, 'Device', 'create', 'device'); use(30, 'Device', 'export', 'all'); },
    benign: ({ audit, use }) => { use(300, 'Careful', 'export', 'all'); audit(30, 'Careful', 'create', 'device'); },
  },
  OwnVaultGrantThenUse: {
    attack: ({ audit, about, use }) => { audit(200, 'Grabber', 'grant', 'uva', { ...about('Grabber'), object_uuid: id('vault', 'board') }); use(100, 'Grabber', 'reveal', 'b', 'board', { late: 60 }); },
    benign: ({ audit, about, use }) => {
      audit(210, 'Maker', 'create', 'vault', { object_uuid: id('vault', 'made') });
      audit(209, 'Maker', 'grant', 'uva', { ...about('Maker'), object_uuid: id('vault', 'made') });
      use(100, 'Maker', 'reveal', 'm', 'made', { late: 60 });
    },
  },
  PasswordSpray: {
    attack: ({ many, signIn }) => { many(6, (n) => signIn(10 - n / 10, `Sprayed${n}`, 'PL', ...REFUSED, '203.0.113.66')); signIn(9, 'Sprayed2', 'PL', ...PASSED, '203.0.113.66'); },
    // Colleagues behind the office's address: most get in at last; or single sign-on is down for all who came from there last week.
    benign: ({ many, signIn }) => {
      many(5, (n) => signIn(20 - n / 10, `Monday${n}`, 'PL', ...REFUSED, '203.0.113.68'));
      many(3, (n) => signIn(15 - n / 10, `Monday${n}`, 'PL', ...PASSED, '203.0.113.68'));
      many(6, (n) => signIn(7 * DAY - n, `Office${n}`, 'DE', ...PASSED, '203.0.113.69'));
      many(6, (n) => signIn(20 - n / 10, `Office${n}`, 'DE', 'sso_failed', 'sso_user_mismatch', '203.0.113.69'));
    },
  },
  RecoveryUsed: {
    attack: ({ many, audit, onUser }) => many(3, (n) => audit(12 - n, 'Taker', 'completr', 'user', onUser(`Lost${n}`))),
    benign: ({ audit, onUser }) => audit(12, 'Helpdesk', 'cancelr', 'user', onUser('Found')),
  },
  ReportsViewed: {
    attack: ({ many, audit }) => many(5, (n) => audit(15 - n / 2, 'Reader', 'view', 'report', { object_uuid: undefined })),
    benign: ({ many, audit }) => {
      for (const day of [3, 7]) audit(day * DAY, 'Auditor', 'view', 'report', { object_uuid: undefined });
      many(6, (n) => audit(15 - n / 2, 'Auditor', 'view', 'report', { object_uuid: undefined }));
    },
  },
  SecondFactorFatigue: {
    attack: ({ many, signIn }) => { many(5, (n) => signIn(30 - n, 'Tired', 'NZ', 'mfa_failed', 'duo_timeout', '198.51.100.4')); signIn(5, 'Tired', 'NZ', 'success', 'mfa_ok', '198.51.100.4'); },
    benign: ({ many, signIn }) => {
      signIn(6 * DAY, 'Slowphone', 'DE', ...PASSED, '192.0.2.106');
      many(6, (n) => signIn(30 - n, 'Slowphone', 'DE', 'mfa_failed', 'totp_bad', '192.0.2.106'));
      signIn(5, 'Slowphone', 'DE', 'success', 'mfa_ok', '192.0.2.106');
    },
  },
  SecondFactorWeakened: {
    attack: ({ audit, onUser }) => audit(12, 'Admin', 'disblmfa', 'user', onUser('Victim')),
    benign: ({ audit, onUser }) => { audit(12, 'Newphone', 'disblmfa', 'user', onUser('Newphone')); audit(10, 'Newphone', 'enblmfa', 'user', onUser('Newphone')); },
  },
  ServiceAccountToken: {
    attack: ({ audit }) => audit(11, 'Builder', 'create', 'satoken', { aux_uuid: id('sa', 'ci') }),
    benign: ({ audit }) => [audit(11, 'Builder', 'tverify', 'satoken'), audit(10, 'Builder', 'trevoke', 'satoken')],
  },
  SingleSignOnChanged: {
    attack: ({ audit }) => audit(5, 'Admin', 'disblsso', 'sso'),
    benign: ({ audit }) => audit(5, 'Admin', 'enblsso', 'sso'),
  },
  VaultExported: {
    attack: ({ audit }) => audit(10, 'Leaver', 'export', 'vault'),
    // What a first start brings of the weeks before.
    benign: ({ audit }) => audit(20 * DAY, 'History', 'export', 'vault', {}, { late: 20 * DAY - 5 }),
  },
};

const STUB = { details: { opship: { stub: 'over 1,000,000 bytes', bytes: '1200000', sha256: 'a'.repeat(64) } } };

function copies({ use, rows, many }, count) {
  const first = use(44, `Copied${count}`, 'other', 'copied', 'shared');
  many(count - 1, (n) => rows.push({ ...first, TimeGenerated: new Date(Date.parse(first.TimeGenerated) + (n + 1) * 60_000).toISOString() }));
}

function lagging({ audit, many }, account, batches) {
  const more = { account_uuid: id('account', account) };
  audit(1000, 'Slow', 'patch', 'items', more);
  for (const ago of batches) many(10, (n) => audit(ago - n, 'Slow', 'patch', 'items', more, { late: 60 }));
}

function daily({ audit, health, many }, account, days, first) {
  health(10, account);
  many(days, (n) => audit(DAY * (n + first), 'Daily', 'patch', 'items', { account_uuid: id('account', account) }));
}

/** The rows of one side, and what each rule's scene is about: the ids in its rows. */
export function caseRows(now, side) {
  const write = { ...writers(now), id };
  const scenes = {};
  for (const [rule, sides] of Object.entries(CASES)) {
    const before = write.rows.length;
    sides[side](write);
    scenes[rule] = new Set(write.rows.slice(before).flatMap((row) => [row.uuid_s, row.account_uuid]));
  }
  // An agent that is well, so that nothing is silent by itself.
  write.health(10, 'good');
  return { rows: write.rows, scenes };
}

const ODD = [null, '', 0, -1, 'x', [], {}, [1, 'two', null], { uuid: null }, { uuid: { deep: [] }, email: 7, name: [] }, 'null', '{', true, 1e308];

/** Rows of which some column is missing, null, or of a kind that nobody expects: each column in turn, over rows that would raise an alert. */
export function badRows(now, columns) {
  const { rows } = caseRows(now, 'attack');
  const said = ['TimeGenerated', 'log_source'];
  const byColumn = columns.filter((column) => !said.includes(column));
  const odd = byColumn.flatMap((column, at) => ODD.map((value, n) => ({ ...rows[(at * ODD.length + n) % rows.length], [column]: value })));
  const bare = ['auditevents', 'signinattempts', 'itemusages', '', 'unknown'].flatMap((log_source) =>
    Array.from({ length: 30 }, (_, n) => ({ TimeGenerated: rows[n % rows.length].TimeGenerated, log_source })));
  // Who and when: without one of them there is nothing to tell anybody, but how late a row came.
  const unlike = [
    { actor_uuid: null, actor_details: 'x', user: [], target_user: null, details: 7 }, { timestamp: 'yesterday', details: null },
    { timestamp: null, details: [] },
  ];
  const nobody = rows.filter(({ log_source, account_uuid }) => log_source !== 'healthevents' && account_uuid !== id('account', 'slow'))
    .flatMap((row, n) => unlike.map((odd, k) => ({ ...row, ...odd, uuid_s: id('bad', n, k) })));
  return { odd, bare: [...bare, ...nobody] };
}
