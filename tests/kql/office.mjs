#!/usr/bin/env node
// How many alerts the rules raise over ordinary days of a company. As a program: a week of 500 people, written to office.json, which is what
// docs/sentinel.md shows; takes minutes. Imported: the same over fewer people and days, for the test.
import fs from 'node:fs';
import path from 'node:path';
import { load } from '../../deploy/sentinel/build/content.mjs';
import { minutes } from './checks.mjs';
import { SCHEMA, TABLE, ask, functionsOf, withRows } from './rows.mjs';
import { officeRows } from './rows/office.mjs';

/** A Monday's first minute: the end of the week that is looked at. */
export const END = Date.parse('2026-11-23T00:00:00Z');
const DAY = 86_400_000;
const HOURS_GROUPED = 6;

/** `{ rule: alerts }` of the last `watched` days; the days before are what the rules know. `more` are rows of somebody else. */
export function replay({ people, days, watched, end = END, seed = 1, more = [] }, content = load()) {
  const rows = [...officeRows({ people, days, end, seed }), ...more];
  const rules = content.rules.map(({ name, query, meta }) => ({ name, query, every: minutes(meta.frequency), back: minutes(meta.period) }));
  const iso = (time) => new Date(time).toISOString();
  const alerts = withRows(rows, (file) => ask('replay.py', {
    table: TABLE, schema: SCHEMA, file, functions: functionsOf(content), rules, from: iso(end - watched * DAY), to: iso(end),
  }));
  return { rows: rows.length, alerts };
}

/** Incidents of a rule's alerts: those of the same entities within six hours of each other are one, as the template groups them. */
export function incidents(alerts, meta) {
  const latest = new Map();
  return alerts.filter(({ at, row }) => {
    const key = JSON.stringify(meta.entity.flatMap(({ fieldMappings }) => fieldMappings.map(({ columnName }) => row[columnName])));
    const before = latest.get(key);
    latest.set(key, Date.parse(at));
    return before === undefined || Date.parse(at) - before > HOURS_GROUPED * 3_600_000;
  }).length;
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === import.meta.filename) {
  const asked = { people: 500, days: 14, watched: 7, seed: 1 };
  const content = load();
  const { rows, alerts } = replay(asked, content);
  const rules = Object.fromEntries(content.rules.map(({ name, meta }) => [name, { alerts: alerts[name].length, incidents: incidents(alerts[name], meta) }]));
  fs.writeFileSync(path.join(import.meta.dirname, 'office.json'), `${JSON.stringify({ ...asked, rows, rules }, null, 2)}\n`);
  console.table(rules);
  if (process.argv.includes('--show')) for (const [name, all] of Object.entries(alerts)) all.slice(0, 6).forEach((one) => console.log(name, JSON.stringify(one).slice(0, 500)));
}
