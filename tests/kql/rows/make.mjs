#!/usr/bin/env node
// Writes scenes.ndjson: hand-made rows of the rare cases that a seed does not give, each scene with a near miss beside it.
// Times count back from the minute after the last shipped row came; that minute is "now" for every query that is run.
import fs from 'node:fs';
import path from 'node:path';
import { PLACES, id, person, writers } from './write.mjs';

const HERE = import.meta.dirname;
const MINUTE = 60_000;
export const readRows = (name) => fs.readFileSync(path.join(HERE, name), 'utf8').trim().split('\n').map((line) => JSON.parse(line));

export function nowOf(shipped) {
  const last = shipped.map((row) => Date.parse(row.TimeGenerated)).reduce((a, b) => Math.max(a, b));
  return Math.ceil(last / MINUTE) * MINUTE;
}

/** Rows of the rare cases, each with a near miss beside it. */
export function scenes(now) {
  const { rows, row, audit, about, onUser, group, use, signIn, health, many } = writers(now);

  // Mass item usage: thirty items over the full hour; near miss: thirty uses of one item; twenty-four items.
  many(30, (n) => use(95 - 2 * n, 'Mass', n % 2 ? 'reveal' : 'secure-copy', `mass ${n}`));
  many(30, (n) => use(60 - n, 'Repeat', 'reveal', 'one item'));
  many(24, (n) => use(50 - n, 'Below', 'reveal', `below ${n}`));
  // A device, then an export the same day; near miss: the export came first.
  audit(300, 'Device', 'create', 'device');
  audit(30, 'Device', 'export', 'vault');
  audit(40, 'Careful', 'export', 'vault');
  audit(20, 'Careful', 'create', 'device');
  // Failures from a new country, then success; near miss: two failures; a country used before; somebody never seen before; a home not used for
  // eight days.
  signIn(9000, 'Traveller', 'DE', 'success', 'credentials_ok');
  many(3, (n) => signIn(60 - n, 'Stranger', 'NZ', 'credentials_failed', 'password_secret_bad', '192.0.2.33'));
  signIn(40, 'Stranger', 'NZ', 'success', 'credentials_ok', '192.0.2.33');
  signIn(8 * 1440, 'Homely', 'DE', 'success', 'credentials_ok', '192.0.2.34');
  signIn(9 * 1440, 'Homely', 'PL', 'success', 'credentials_ok', '192.0.2.35');
  many(3, (n) => signIn(60 - n, 'Homely', 'DE', 'credentials_failed', 'password_secret_bad', '192.0.2.34'));
  signIn(40, 'Homely', 'DE', 'success', 'credentials_ok', '192.0.2.34');
  many(3, (n) => signIn(60 - n, 'Traveller', 'NZ', 'credentials_failed', 'password_secret_bad'));
  signIn(40, 'Traveller', 'NZ', 'success', 'credentials_ok');
  many(2, (n) => signIn(60 - n, 'Clumsy', 'NZ', 'credentials_failed', 'password_secret_bad'));
  signIn(40, 'Clumsy', 'NZ', 'success', 'credentials_ok');
  signIn(3000, 'Resident', 'DE', 'success', 'credentials_ok');
  many(4, (n) => signIn(60 - n, 'Resident', 'DE', 'credentials_failed', 'password_secret_bad'));
  signIn(40, 'Resident', 'DE', 'success', 'credentials_ok');
  // Spraying: one address, six people, one success; near miss: four people.
  many(6, (n) => signIn(10 - n / 10, `Sprayed${n}`, 'PL', 'credentials_failed', 'password_secret_bad', '203.0.113.66'));
  signIn(9, 'Sprayed2', 'PL', 'success', 'credentials_ok', '203.0.113.66');
  many(4, (n) => signIn(10 - n / 10, `Missed${n}`, 'PL', 'credentials_failed', 'password_secret_bad', '203.0.113.67'));
  // Near miss: six colleagues mistype behind their office's address, three of them get in at last; and a week ago everybody did.
  many(6, (n) => signIn(10 - n / 10, `Typo${n}`, 'PL', 'credentials_failed', 'password_secret_bad', '203.0.113.68'));
  many(3, (n) => signIn(8 - n / 10, `Typo${n}`, 'PL', 'success', 'credentials_ok', '203.0.113.68'));
  many(6, (n) => signIn(7 * 1440 - n, `Office${n}`, 'PL', 'success', 'credentials_ok', '203.0.113.69'));
  many(6, (n) => signIn(10 - n / 10, `Office${n}`, 'PL', 'credentials_failed', 'password_secret_bad', '203.0.113.69'));
  // Second factor: five failures, then in; near miss: four; a slow phone at home.
  signIn(3000, 'Slowphone', 'DE', 'success', 'credentials_ok', '192.0.2.36');
  many(5, (n) => signIn(30 - n, 'Slowphone', 'DE', 'mfa_failed', 'totp_bad', '192.0.2.36'));
  signIn(5, 'Slowphone', 'DE', 'success', 'mfa_ok', '192.0.2.36');
  many(5, (n) => signIn(30 - n, 'Tired', 'DE', 'mfa_failed', 'duo_timeout', '192.0.2.31'));
  signIn(5, 'Tired', 'DE', 'success', 'mfa_ok', '192.0.2.31');
  many(4, (n) => signIn(30 - n, 'Awake', 'DE', 'mfa_failed', 'totp_bad', '192.0.2.32'));
  signIn(5, 'Awake', 'DE', 'success', 'mfa_ok', '192.0.2.32');
  // Second factor off: for somebody else, for oneself, for the account; near miss: switched on.
  audit(12, 'Admin', 'disblmfa', 'user', onUser('Victim'));
  audit(11, 'Own', 'disblmfa', 'user', onUser('Own'));
  audit(10, 'Admin', 'disblduo', 'account');
  audit(9, 'Own', 'enblmfa', 'user', onUser('Own'));
  // The same once more, but it came 21 hours late; near miss: a second copy of one that came five hours ago.
  audit(1300, 'Late', 'disblmfa', 'user', onUser('Late'), { late: 1295 });
  const told = audit(300, 'Told', 'disblmfa', 'user', onUser('Told'));
  rows.push({ ...told, TimeGenerated: new Date(now - 5 * MINUTE).toISOString() });
  // Groups: oneself as manager; near miss: leaving; joining a group that nobody listed.
  audit(8, 'Climber', 'role', 'gm', { ...about('Climber'), aux_info: 'A', ...group('Owners') });
  audit(6.5, 'Admin', 'join', 'gm', { ...about('Newcomer'), ...group('Marketing') });
  audit(6.6, 'Admin', 'join', 'gm', { ...about('Newcomer'), object_uuid: id('group', 'listed') });
  audit(7, 'Climber', 'leave', 'gm', { ...about('Climber'), object_uuid: id('group', 'owners') });
  // Own grant, then use; near miss: granted to somebody else; used before.
  audit(200, 'Grabber', 'grant', 'uva', { ...about('Grabber'), object_uuid: id('vault', 'board') });
  many(3, (n) => use(100 - n, 'Grabber', 'reveal', `board ${n}`, 'board', { late: 60 }));
  use(400, 'Grabber', 'reveal', 'board early', 'board');
  audit(200, 'Kind', 'grant', 'uva', { ...about('Guest'), object_uuid: id('vault', 'kind') });
  use(100, 'Kind', 'reveal', 'kind', 'kind', { late: 60 });
  // Near miss: the person's own new vault.
  audit(210, 'Maker', 'create', 'vault', { object_uuid: id('vault', 'made') });
  audit(200, 'Maker', 'grant', 'uva', { ...about('Maker'), object_uuid: id('vault', 'made') });
  use(100, 'Maker', 'reveal', 'made', 'made', { late: 60 });
  // Service account and token; recovery started and completed, and only started.
  audit(12, 'Builder', 'create', 'sa', { aux_uuid: undefined });
  audit(11, 'Builder', 'create', 'satoken', { aux_uuid: id('sa', 'ci') });
  audit(200, 'Admin', 'beginr', 'user', onUser('Lost'));
  audit(10, 'Admin', 'completr', 'user', onUser('Lost'));
  audit(10, 'Admin', 'beginr', 'user', onUser('Waiting'));
  // Impossible travel: Berlin to Auckland in an hour; near miss: Berlin to Poznań, 240 km.
  signIn(80, 'Jumper', 'DE', 'success', 'credentials_ok', '192.0.2.41');
  signIn(20, 'Jumper', 'NZ', 'success', 'credentials_ok', '192.0.2.42');
  signIn(25, 'Commuter', 'DE', 'success', 'credentials_ok', '192.0.2.43');
  signIn(20, 'Commuter', 'PL', 'success', 'credentials_ok', '192.0.2.44');
  // Firewall, single sign-on, domains, reports (five views; near miss: four), links (ten; near miss: nine).
  audit(6, 'Admin', 'updatfw', 'account');
  signIn(6, 'Reported', 'PL', 'firewall_reported_success', 'country_blocked');
  // Near miss: the second of its reason and country.
  signIn(5, 'Likewise', 'PL', 'firewall_reported_success', 'country_blocked');
  audit(5, 'Admin', 'disblsso', 'sso');
  audit(4, 'Admin', 'uvrfydmn', 'account');
  many(5, (n) => audit(15 - n / 2, 'Reader', 'view', 'report', { object_uuid: undefined }));
  many(4, (n) => audit(15 - n / 2, 'Glancer', 'view', 'report', { object_uuid: undefined }));
  // Near miss: somebody who reads them each week.
  for (const day of [3, 7]) audit(day * 1440, 'Auditor', 'view', 'report', { object_uuid: undefined });
  many(6, (n) => audit(15 - n / 2, 'Auditor', 'view', 'report', { object_uuid: undefined }));
  many(10, (n) => audit(15 - n / 2, 'Sharer', 'share', 'item'));
  many(9, (n) => audit(15 - n / 2, 'Polite', 'share', 'item'));
  // Reactivated and at work; near miss: at work before.
  audit(300, 'Admin', 'reactive', 'user', onUser('Sleeper'));
  many(5, (n) => use(40 - n, 'Sleeper', 'reveal', `sleeper ${n}`));
  audit(30, 'Admin', 'reactive', 'user', onUser('Early'));
  many(5, (n) => use(40 - n, 'Early', 'reveal', `early ${n}`));
  // Near miss: back from leave, filling in passwords.
  audit(300, 'Admin', 'reactive', 'user', onUser('Parent'));
  many(9, (n) => use(40 - n, 'Parent', 'fill', `parent ${n}`));
  // Lock-out: five people suspended; near miss: four. Destroyed vaults: five.
  many(5, (n) => audit(12 - n / 10, 'Raider', 'suspend', 'user', onUser(`Locked${n}`)));
  many(4, (n) => audit(12 - n / 10, 'Hirer', 'suspend', 'user', onUser(`Left${n}`)));
  many(5, (n) => audit(12 - n / 10, 'Raider', 'delete', 'vault', { object_uuid: id('vault', 'gone', n) }));
  // Duplicates: one event twice, one three times, in their first form again; a stub whose whole row came later, and one that stays a stub.
  const copies = (count, ago, who) => {
    const first = use(ago, who, 'other', 'copied');
    many(count - 1, (n) => rows.push({ ...first, TimeGenerated: new Date(Date.parse(first.TimeGenerated) + (n + 1) * MINUTE).toISOString() }));
  };
  copies(2, 44, 'Twice');
  copies(3, 33, 'Thrice');
  const stub = { details: { opship: { stub: 'over 1,000,000 bytes', bytes: '1200000', sha256: 'a'.repeat(64) } } };
  row('auditevents', 55, { action: 'share', object_type: 'item', ...stub }, { uuid: id('replayed'), late: 1 });
  audit(55, 'Large', 'share', 'item', {}, { uuid: id('replayed'), late: 20 });
  row('auditevents', 50, { action: 'patch', object_type: 'items', ...stub }, { uuid: id('stays') });
  // Rows without an id: both stay.
  many(2, () => row('itemusages', 45, { action: 'other', ...{ uuid_s: undefined } }));
  // Late: an account whose ten audit events came an hour after they happened; near miss: one that is on time, one that has just begun.
  for (const account of ['slow', 'prompt']) audit(1000, 'Slow', 'patch', 'items', { account_uuid: id('account', account) });
  many(10, (n) => audit(90 - n, 'Slow', 'patch', 'items', { account_uuid: id('account', 'begun') }, { late: 60 }));
  many(10, (n) => audit(90 - n, 'Slow', 'patch', 'items', { account_uuid: id('account', 'slow') }, { late: 60 }));
  many(10, (n) => audit(30 - n, 'Prompt', 'patch', 'items', { account_uuid: id('account', 'prompt') }));
  // Near miss: late already an hour ago, and told then.
  audit(1000, 'Slow', 'patch', 'items', { account_uuid: id('account', 'told') });
  many(10, (n) => audit(150 - n, 'Slow', 'patch', 'items', { account_uuid: id('account', 'told') }, { late: 60 }));
  many(10, (n) => audit(90 - n, 'Slow', 'patch', 'items', { account_uuid: id('account', 'told') }, { late: 60 }));
  // Heartbeats: good; silent for two hours; silent for longer, which was told; in trouble; out of trouble again. A stream that was there on seven days and is gone.
  many(3, (n) => health(10 + 5 * n, 'good'));
  health(121, 'silent');
  health(300, 'long silent');
  health(30, 'troubled');
  health(10, 'troubled', 'credentials_failed', 'API Key Invalid');
  health(15, 'recovered', 'source_failed', 'Events API not readable');
  health(5, 'recovered');
  // Near miss: one that is quiet on this day of each week; one that was told.
  health(10, 'office');
  health(10, 'gone');
  for (const [account, days, first] of [['good', 7, 1.1], ['office', 5, 2.5], ['gone', 7, 1.5]]) many(days, (n) => row('signinattempts', 1440 * (n + first), {
    account_uuid: id('account', account), category: 'success', action_type: 'credentials_ok', country: 'DE', location: PLACES.DE, target_user: person('Daily'),
    client: { app_name: '1Password for Mac', os_name: 'MacOSX', ip_address: '192.0.2.50' },
  }));
  // Eight people from one address around a full hour; near miss: what a first start brings of the weeks before.
  const past = Math.floor(now / MINUTE) % 60;
  many(8, (n) => signIn(past + 64 - n, `Straddled ${n}`, 'DE', 'credentials_failed', 'password_secret_bad', '192.0.2.60', { late: past + 59 - n }));
  audit(20 * 1440, 'History', 'export', 'vault', {}, { late: 20 * 1440 - 5 });
  audit(20 * 1440, 'History', 'disblduo', 'account', {}, { late: 20 * 1440 - 5 });
  return rows;
}

export const scenesText = () => scenes(nowOf(readRows('shipped.ndjson'))).map((row) => `${JSON.stringify(row)}\n`).join('');

if (process.argv[1] && fs.realpathSync(process.argv[1]) === import.meta.filename) {
  fs.writeFileSync(path.join(HERE, 'scenes.ndjson'), scenesText());
}
