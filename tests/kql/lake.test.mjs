// The variant for the data lake finds what the one for the workspace finds, and says nothing that the lake does not know.
// https://learn.microsoft.com/azure/sentinel/datalake/kql-queries: no saved functions, no ingestion_time().
import assert from 'node:assert/strict';
import test from 'node:test';
import { callables, load } from '../../deploy/sentinel/build/content.mjs';
import { now, runWorlds } from './rows.mjs';
import { id, writers } from './rows/write.mjs';

const content = load();
const query = (name) => content.hunting.find((one) => one.name === name).query;
const DAY = 1440;

/** What the lake would refuse in a query. */
const refused = (text) => [...callables(content).map(({ name }) => name), 'ingestion_time', 'IngestedAt', '_GetWatchlist']
  .filter((name) => new RegExp(`\\b${name}\\b`).test(text));

test('the lake\'s query calls no saved function and asks for no time of ingestion', () => {
  const lake = content.hunting.filter(({ name }) => name.endsWith('Lake'));
  assert.equal(lake.length, 1);
  for (const one of lake) assert.deepEqual(refused(one.query), []);
});
test('a query that the lake refuses is found', () => {
  assert.deepEqual(refused(query('DormantAccounts')), ['OnePasswordActivity']);
  assert.deepEqual(refused(`${query('DormantAccountsLake')}\n| extend At = ingestion_time()`), ['ingestion_time']);
});
test('both find who wakes up after ninety days, and nobody else', () => {
  const { rows, audit, use, signIn } = writers(now());
  audit(120 * DAY, 'Rip', 'patch', 'items');
  const woke = use(2 * DAY, 'Rip', 'reveal', 'one');
  rows.push({ ...woke, TimeGenerated: new Date(now() - 60_000).toISOString() });
  audit(80 * DAY, 'Nap', 'patch', 'items');
  signIn(DAY, 'Nap', 'DE', 'success', 'credentials_ok');
  use(DAY, 'New', 'reveal', 'two');
  const found = runWorlds({ here: { rows, queries: { workspace: query('DormantAccounts'), lake: query('DormantAccountsLake') } } }, content).here;
  assert.deepEqual(found.lake.map(({ UserUuid, Events }) => [UserUuid, Events]), [[id('person', 'Rip'), 1]]);
  assert.deepEqual(found.lake, found.workspace);
});
