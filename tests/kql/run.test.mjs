// Queries run on rows the program shipped, and on scenes beside them; what they find is compared with a recount.
import assert from 'node:assert/strict';
import test from 'node:test';
import { load, queries } from '../../deploy/sentinel/build/content.mjs';
import { asimValues } from './checks.mjs';
import { KEYS, answers, byPerson } from './recount.mjs';
import { allRows, now, run, runnable } from './rows.mjs';
import { readRows, scenesText } from './rows/make.mjs';

const content = load();
const expected = answers(allRows(), now());
const chosen = queries(content).filter(({ file }) => file in expected);
const NONE = 'datetime(null), datetime(null)';
/** The parsers with filters, by position: the people of one name, failures only; what one person did, of one kind. */
const FILTERED = {
  failures: `vimAuthenticationOnePassword(${NONE}, dynamic(["resident"]), dynamic([]), dynamic([]), dynamic([]), dynamic(["Logon"]), dynamic([]), "Failure")`,
  since: `vimAuthenticationOnePassword(datetime(${new Date(now() - 30 * 60_000).toISOString()}))`,
  created: 'vimAuditEventOnePassword(datetime(null), datetime(null), dynamic([]), dynamic(["builder"]), dynamic(["create"]), dynamic(["Create"]))',
  nobody: `vimAuditEventOnePassword(${NONE}, dynamic([]), dynamic([]), dynamic([]), dynamic(["Delete"]), "Failure")`,
};
const found = run({ ...Object.fromEntries(chosen.map((one) => [one.file, runnable(one)])), ...FILTERED }, content);

test('the scenes are the ones that make.mjs writes', () => {
  assert.equal(readRows('scenes.ndjson').map((row) => `${JSON.stringify(row)}\n`).join(''), scenesText());
});

test('at least twelve queries, every rule among them, are run and recounted', () => {
  assert.deepEqual(Object.keys(expected).filter((file) => !(file in found)), []);
  assert.deepEqual(content.rules.map(({ file }) => file).filter((file) => !(file in expected)), []);
  console.log(`${chosen.length} queries run on ${allRows().length} rows: ${chosen.map(({ file }) => file).join(' ')}`);
});

for (const { file, kind } of chosen) {
  test(`${file} finds what a recount of the rows finds`, () => {
    const keys = found[file].map(KEYS[file] ?? byPerson).sort();
    assert.ok(keys.length > 0, 'a query that finds nothing shows nothing');
    assert.deepEqual(keys, [...expected[file]].sort());
    if (kind === 'rules') assert.ok(keys.length < 60, 'a rule that fires for everybody is no rule');
  });
}

for (const { file, name, meta } of content.parsers.filter(({ file }) => file in found)) {
  test(`${name} gives no value that ASIM does not allow`, () => assert.deepEqual(asimValues(meta.schema, found[file]), []));
}

test('the filters of the parsers leave what they name, and nothing else', () => {
  const resident = found.failures.map(({ TargetUsername, EventResult }) => `${TargetUsername} ${EventResult}`);
  assert.deepEqual(resident, Array(4).fill('resident@example.org Failure'));
  const late = new Set(allRows().filter((row) => row.log_source === 'signinattempts' && Date.parse(row.TimeGenerated) >= now() - 30 * 60_000).map((row) => row.uuid_s));
  assert.deepEqual(found.since.map(({ EventUid }) => EventUid).sort(), [...late].sort());
  assert.deepEqual(found.created.map(({ ActorUsername, OriginalObjectType }) => `${ActorUsername} ${OriginalObjectType}`).sort(), [
    'builder@example.org sa', 'builder@example.org satoken',
  ]);
  assert.deepEqual(found.nobody, []);
});
