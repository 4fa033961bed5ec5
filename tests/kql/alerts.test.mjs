// Titles, details and incidents of the alerts, within the service's limits; then seeded mistakes, each of which must be found.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { template } from '../../deploy/sentinel/build/arm.mjs';
import { ROOT, load } from '../../deploy/sentinel/build/content.mjs';
import { alertProblems, incidentProblems, rendered } from './alerts.mjs';
import { semantics } from './checks.mjs';
import { analyse, database } from './kusto.mjs';
import { standalone } from '../../deploy/sentinel/build/content.mjs';
import { SCHEMA, TABLE } from './rows.mjs';

const content = load();
const { columns } = semantics(content, ({ kind }) => kind === 'rules');
const problems = (from) => from.rules.flatMap((rule) => alertProblems(rule, columns[rule.file]));
const document = template(content);

test('the title and the details of every alert keep the limits', () => assert.deepEqual(problems(content), []));
test('every rule makes incidents, and says whether they may be merged', () => assert.deepEqual(incidentProblems(document), []));
test('the template carries the titles and the details', () => {
  for (const { name, meta } of content.rules) {
    const { properties } = document.resources.find((one) => one.name.includes(`opship ${name}'`));
    assert.deepEqual(Object.keys(properties.customDetails), meta.details);
    assert.equal(properties.alertDetailsOverride.alertDisplayNameFormat, meta.alert);
  }
});
test('the widest title and details are within the limits', () => {
  for (const { file, meta } of content.rules) {
    const widest = (column) => (/Email$/.test(column) ? 'm'.repeat(254) : columns[file][column] === 'string' ? 'x'.repeat(64) : '2026-11-23T01:16:00.0000000Z');
    const { title, details } = rendered(meta, Object.fromEntries(Object.keys(columns[file]).map((column) => [column, widest(column)])));
    assert.ok(Buffer.byteLength(title) <= 256 && Buffer.byteLength(JSON.stringify(details)) <= 2048, file);
  }
});

/** A rule as it is deployed, over a table that is seconds old (Azure-Sentinel 10340) or has other types. */
const deployed = (rule, schema) => analyse(standalone(rule.query, content), database(schema ? { [TABLE]: schema } : {})).problems;
const typed = (type) => Object.fromEntries(Object.keys(SCHEMA).map((column) => [column, column === 'TimeGenerated' ? 'datetime' : type]));
const few = content.rules.filter(({ name }) => ['VaultExported', 'HealthNoHeartbeat', 'HealthDuplicates', 'HealthLag'].includes(name));

test('a rule is accepted whatever the types of the table\'s columns, and before the table has any', () => {
  for (const schema of [{ TimeGenerated: 'datetime' }, typed('string'), typed('dynamic'), { ...SCHEMA, aux_id: 'long', user: 'string', timestamp: 'string' }]) {
    for (const rule of few) assert.deepEqual(deployed(rule, schema), [], rule.file);
  }
});
test('the base function casts every column that the program writes, to its type', () => {
  const { query } = content.functions.find(({ name }) => name === 'OnePasswordRows');
  const own = Object.entries(SCHEMA).filter(([column]) => !['TenantId', 'SourceSystem', 'Type', '_ResourceId', '_ItemId', 'TimeGenerated'].includes(column));
  for (const [column, type] of own) {
    assert.match(query, new RegExp(`\\b${column}: ${type}\\b`));
    assert.match(query, new RegExp(`\\b${column} = ${{ string: 'tostring', datetime: 'todatetime', int: 'toint', dynamic: 'todynamic' }[type]}\\(.*column_ifexists\\("${column}"`));
  }
  const readers = [...content.functions, ...content.parsers, ...content.rules, ...content.hunting, ...content.workbook]
    .filter(({ query: text, name }) => name !== 'OnePasswordRows' && new RegExp(`^\\s*\\(?${TABLE}`, 'm').test(text));
  assert.deepEqual(readers.map(({ file }) => file).filter((file) => !file.endsWith('Lake.kql')), []);
});

const mistaken = (file, from, to) => {
  const text = fs.readFileSync(path.join(ROOT, file), 'utf8');
  assert.ok(text.includes(from), `${file} does not contain ${from}`);
  return load({ [file]: text.replace(from, to) });
};
const found = (all, what) => assert.ok(all.some((one) => what.test(one)), `${what} is not among ${JSON.stringify(all)}`);
const EXPORTED = 'rules/VaultExported.kql';

test('a title with too many fields, of no column, too long or without a field is found', () => {
  const titled = (title) => problems(mistaken(EXPORTED, 'alert: {{UserName}} exported {{VaultCount}} vaults', `alert: ${title}`));
  found(titled('{{UserName}} {{UserEmail}} {{VaultCount}} {{Exports}}'), /VaultExported.*4 fields/);
  found(titled('{{User}} exported'), /VaultExported.*User is no column/);
  found(titled(`{{UserName}} ${'x'.repeat(200)}`), /VaultExported.*may exceed 256 bytes/);
  found(titled('a vault was exported'), /VaultExported.*names nothing/);
  found(titled('{{UserName} exported'), /VaultExported.*(brace|names nothing)/);
});
test('details that are lists, too many, too long, of no column, or do not begin with the event are found', () => {
  const detailed = (details) => problems(mistaken(EXPORTED, 'details: EventUuid, UserUuid', `details: ${details}`));
  found(detailed('EventUuid, Vaults'), /VaultExported.*Vaults is no scalar but dynamic/);
  found(detailed('UserUuid, EventUuid'), /VaultExported.*must be the first/);
  found(detailed('EventUuid, Whoever'), /VaultExported.*Whoever is no column/);
  found(detailed(`EventUuid, ${Array.from({ length: 21 }, () => 'UserUuid').join(', ')}`), /VaultExported.*are the limit/);
  found(detailed(`EventUuid, ${Array.from({ length: 7 }, () => 'UserEmail').join(', ')}`), /VaultExported.*bytes, 2048/);
});
test('a rule that makes no incident, or may be merged against its choice, is found', () => {
  const changed = (change) => { const one = template(content); one.resources.filter(({ kind }) => kind === 'Scheduled').forEach(({ properties }) => change(properties)); return incidentProblems(one); };
  found(changed((one) => { one.incidentConfiguration.createIncident = false; }), /makes no incident/);
  found(changed((one) => { one.description = 'Plain.'; }), /no tag of choice/);
  found(changed((one) => { one.description = one.description.replace('#DONT_CORR# ', ''); }), /opship: .*never correlated/);
});
test('a base function without the casts, or that needs the table, is found', () => {
  const bare = mistaken('functions/OnePasswordRows.kql', 'details = todynamic(tostring(column_ifexists("details", dynamic(null))))', 'details');
  const rule = bare.rules.find(({ name }) => name === 'VaultExported');
  const said = analyse(standalone(rule.query, bare), database({ [TABLE]: { TimeGenerated: 'datetime' } })).problems;
  found(said, /KS142.*details/);
});
