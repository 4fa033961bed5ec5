// Each rule on an attack and on everyday life; on rows of any kind; on tables of other types; and what its alerts say.
import assert from 'node:assert/strict';
import test from 'node:test';
import { load } from '../../deploy/sentinel/build/content.mjs';
import { rendered } from './alerts.mjs';
import { WATCHLIST } from './kusto.mjs';
import { SCHEMA, functionsOf, now, runWorlds, runnable } from './rows.mjs';
import { CASES, badRows, caseRows } from './rows/cases.mjs';
import { id, writers } from './rows/write.mjs';

const content = load();
const at = now();
const rules = Object.fromEntries(content.rules.map(({ name, query }) => [name, query]));
const parsers = Object.fromEntries(content.parsers.map((one) => [one.name, runnable(one)]));
const [attack, benign] = [caseRows(at, 'attack'), caseRows(at, 'benign')];
const bad = badRows(at, Object.keys(SCHEMA));
// An agent that is well: its silence would be told, and rightly.
const heartbeat = writers(at).health(10, 'good');

/** What an old or foreign table has: other types everywhere, or the columns of the first definition alone. */
const FOREIGN = Object.fromEntries(Object.entries(SCHEMA).map(([column, type]) => [
  column, column === 'TimeGenerated' ? type : { dynamic: 'string', int: 'string', datetime: 'string' }[type] ?? type,
]));
const NEWER = ['account_uuid', 'actor_type', 'actor_account_uuid', 'user_type', 'user_account_uuid'];
const WITHOUT = Object.fromEntries(Object.entries(SCHEMA).filter(([column]) => ![...NEWER, 'details', 'aux_id', 'vault_uuid', 'location'].includes(column)));
const listed = (groups) => functionsOf(content, { ...WATCHLIST, body: `datatable(SearchKey: string) [${groups.map((one) => `"${one}"`).join(', ')}]` });
const seeded = (name, from, to) => { assert.ok(rules[name].includes(from), `${name}: ${from}`); return { [name]: rules[name].replace(from, to) }; };
const only = (...names) => Object.fromEntries(names.map((name) => [name, rules[name]]));

const found = runWorlds({
  attack: { rows: attack.rows, queries: { ...rules, ...parsers } },
  benign: { rows: benign.rows, queries: rules },
  bare: { rows: [...bad.bare, heartbeat], queries: { ...rules, ...parsers } },
  odd: { rows: [...bad.odd, heartbeat], queries: { ...rules, ...parsers } },
  foreign: { rows: attack.rows, schema: FOREIGN, queries: { ...rules, ...parsers } },
  without: { rows: attack.rows, schema: WITHOUT, queries: { ...rules, ...parsers } },
  listed: { rows: benign.rows, functions: listed([id('group', 'marketing')]), queries: only('GroupMembershipGranted') },
  exits: { rows: attack.rows, functions: listed(['203.0.113.66', '192.0.2.104']), queries: only('PasswordSpray', 'ImpossibleTravel') },
  empty: { rows: [{ ...heartbeat, log_source: 'none' }], at: Date.parse('2026-11-23T06:30:00Z'), queries: only('HealthNoHeartbeat') },
  laterThatDay: { rows: [{ ...heartbeat, log_source: 'none' }], at: Date.parse('2026-11-23T07:30:00Z'), queries: only('HealthNoHeartbeat') },
  // The mistakes that these rules were made with.
  mistaken: {
    rows: benign.rows,
    queries: {
      ...seeded('FailuresThenNewCountry', 'isnotempty(Country) and', 'EventTime > ago(Recent) and isnotempty(Country) and'),
      ...seeded('PasswordSpray', '| where KnownPeople < People', ''), ...seeded('GroupMembershipGranted', '| where tolower(ObjectUuid) in (Privileged)', '| where true or tolower(ObjectUuid) in (Privileged)'),
      ...seeded('HealthNoHeartbeat', ' and LastHeartbeat > ago(Silence + Fresh)', ''), ...seeded('HealthLag', '| join kind=leftanti (Late | where Told == 1) on AccountUuid, Stream\n', ''),
    },
  },
}, content);

test('every rule has an attack and a benign scene', () => assert.deepEqual(Object.keys(CASES).sort(), Object.keys(rules).sort()));

for (const { name, meta } of content.rules) {
  test(`${name} tells its attack, and nothing of everyday life`, () => {
    const about = found.attack[name].filter((row) => attack.scenes[name].has(row.EventUuid ?? row.AccountUuid));
    assert.ok(about.length > 0, `no alert about its scene among ${JSON.stringify(found.attack[name]).slice(0, 400)}`);
    assert.deepEqual(found.benign[name], []);
    for (const row of about) {
      const { title, details } = rendered(meta, row);
      assert.deepEqual([title.includes('{{'), Buffer.byteLength(title) <= 256, Buffer.byteLength(JSON.stringify(details)) <= 2048], [false, true, true]);
    }
  });
}

test('rows without a person or a time, and rows with nothing but a stream, raise no alert', () => {
  assert.deepEqual(Object.fromEntries(Object.entries(found.bare).filter(([name, rows]) => name in rules && rows.length)), {});
  for (const name of Object.keys(parsers)) assert.ok(Array.isArray(found.bare[name]));
});

test('rows with values of any kind in any column break no rule and no parser', () => {
  assert.ok(bad.odd.length > 400);
  assert.deepEqual(Object.keys(found.odd).sort(), [...Object.keys(rules), ...Object.keys(parsers)].sort());
});

test('a table with other types gives the same answers, one without columns gives no error', () => {
  for (const name of [...Object.keys(rules), ...Object.keys(parsers)]) {
    assert.equal(found.foreign[name].length, found.attack[name].length, name);
    assert.ok(Array.isArray(found.without[name]));
  }
  assert.ok(found.without.VaultExported.length > 0);
});

test('a watchlist names the privileged groups and the exits', () => {
  assert.equal(found.benign.GroupMembershipGranted.length, 0);
  assert.equal(found.listed.GroupMembershipGranted.length, 9);
  assert.deepEqual([found.exits.PasswordSpray, found.exits.ImpossibleTravel], [[], []]);
});

test('a workspace without any heartbeat is told once a day', () => {
  assert.deepEqual([found.empty.HealthNoHeartbeat.length, found.laterThatDay.HealthNoHeartbeat.length], [1, 0]);
});

test('the mistakes that cried wolf are found', () => {
  assert.deepEqual(Object.entries(found.mistaken).filter(([, rows]) => rows.length === 0), []);
});
