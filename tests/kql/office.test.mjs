// A day of 50 people in three offices, and the record of a week of 500: no rule raises more alerts than it says it may.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { load } from '../../deploy/sentinel/build/content.mjs';
import { END, incidents, replay } from './office.mjs';
import { officeRows } from './rows/office.mjs';
import { id } from './rows/write.mjs';

const content = load();
const record = JSON.parse(fs.readFileSync(path.join(import.meta.dirname, 'office.json'), 'utf8'));
const DAY = 86_400_000;
/** A Wednesday: the day without single sign-on. */
const WEDNESDAY_OVER = END - 4 * DAY;
const ALERTS_A_DAY_MAX = 4;

/** Rules that raised more alerts than they may, and those that say no number. */
const loud = (counts, rules = content.rules) => rules.filter(({ name, meta }) => !(counts[name] <= Number(meta.weekly))).map(({ name }) => name);

/** Somebody from outside tries six people of the company at noon. */
const outsider = Array.from({ length: 6 }, (_, n) => {
  const at = (minute) => new Date(WEDNESDAY_OVER - DAY / 2 + minute * 60_000).toISOString();
  return {
    TimeGenerated: at(n + 2), timestamp: at(n), log_source: 'signinattempts', uuid_s: `OUTSIDER${n}`, category: 'credentials_failed', action_type: 'password_secret_bad',
    target_user: { uuid: id('office', `person${n}`), email: `person${n}@example.com` }, client: { ip_address: '198.51.100.250' },
  };
});

test('a day of 50 people raises few alerts, of no rule more than a week of 500 may, and the one attack of the day is told', () => {
  const { rows, alerts } = replay({ people: 50, days: 8, watched: 1, end: WEDNESDAY_OVER, more: outsider }, content);
  assert.deepEqual([...new Set(alerts.PasswordSpray.map(({ row }) => row.IpAddress))], ['198.51.100.250']);
  alerts.PasswordSpray = [];
  const counts = Object.fromEntries(Object.entries(alerts).map(([name, all]) => [name, all.length]));
  console.log(`${rows} rows, alerts of the day: ${JSON.stringify(Object.fromEntries(Object.entries(counts).filter(([, count]) => count)))}`);
  assert.ok(rows > 3000);
  assert.deepEqual(loud(counts), []);
  assert.ok(Object.values(counts).reduce((sum, count) => sum + count) <= ALERTS_A_DAY_MAX);
});
test('the recorded week of 500 people has every rule, none above its number', () => {
  assert.deepEqual([record.people, record.watched, Object.keys(record.rules).sort()], [500, 7, content.rules.map(({ name }) => name).sort()]);
  assert.deepEqual(loud(Object.fromEntries(Object.entries(record.rules).map(([name, { alerts }]) => [name, alerts]))), []);
});
test('the company is the same each time', () => {
  const asked = { people: 5, days: 3, end: END };
  assert.deepEqual(officeRows(asked), officeRows(asked));
});
test('a rule that is too loud, or says no number, is found', () => {
  assert.deepEqual(loud({ ...Object.fromEntries(content.rules.map(({ name }) => [name, 0])), PasswordSpray: 99 }), ['PasswordSpray']);
  assert.deepEqual(loud({ VaultExported: 0 }, [{ name: 'VaultExported', meta: {} }]), ['VaultExported']);
});
test('alerts of the same entities within six hours are one incident', () => {
  const meta = { entity: [{ fieldMappings: [{ columnName: 'Who' }] }] };
  const at = (hour, Who) => ({ at: new Date(END + hour * 3_600_000).toISOString(), row: { Who } });
  assert.equal(incidents([at(0, 'a'), at(1, 'a'), at(2, 'b'), at(9, 'a')], meta), 3);
});
