// The content against the table, the schemas and the limits of Microsoft Sentinel; then seeded mistakes, each of which must be found.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { template as deployed } from '../../deploy/sentinel/build/arm.mjs';
import { outputs, stale } from '../../deploy/sentinel/build/build.mjs';
import { ROOT, load, queries, standalone } from '../../deploy/sentinel/build/content.mjs';
import { aliases, arm, asim, ids, metadata, minutes, semantics, vocabulary } from './checks.mjs';
import { analyse, database } from './kusto.mjs';
import { SCHEMA, TABLE } from './rows.mjs';
import { transformProblems, transformsOf } from './transforms.mjs';

const PROJECT = path.resolve(ROOT, '../..');
const source = (file) => fs.readFileSync(path.join(PROJECT, file), 'utf8');
const simulator = source('src/sim/vocabulary.rs') + source('src/sim/author.rs');
const words = new Set([...simulator.matchAll(/"([a-z0-9_-]+)"/g)].map(([, word]) => word));
const content = load();
const { complaints, columns } = semantics(content);

test('every query is accepted by the engine, over the table and the functions', () => {
  assert.deepEqual(complaints, []);
  console.log(`${Object.keys(columns).length} queries checked by the engine`);
});
test('every query says what it is for, and every rule keeps the limits', () => assert.deepEqual(metadata(content, columns), []));
test('every word compared with an action, category or type is one the API says', () => assert.deepEqual(vocabulary(content, words), []));
test('the ASIM parsers have the standard parameters and mandatory fields', () => assert.deepEqual(asim(content, columns), []));
test('every reason of a sign-in has its words in the Authentication parser', () => {
  const listed = /SIGNIN_TROUBLES[^;]*;|SIGNIN_SUCCESSES[^;]*;/g;
  const pairs = [...source('src/sim/vocabulary.rs').matchAll(listed)].map(([text]) => text).join('');
  const types = [...pairs.matchAll(/"\w+", "(\w+)"/g), ...pairs.matchAll(/"(\w+_ok|federated)"/g)].map(([, type]) => type);
  const parser = content.parsers.find(({ name }) => name === 'vimAuthenticationOnePassword').query;
  assert.ok(types.length >= 30);
  assert.deepEqual(types.filter((type) => !parser.includes(`"${type}"`)), []);
});
/** The queries of the alerts, by name. */
function alertsOf(document) {
  const found = {};
  const walk = (node) => {
    if (Array.isArray(node)) node.forEach(walk);
    else if (node && typeof node === 'object') {
      if (node.type === 'Microsoft.Insights/scheduledQueryRules') found[node.name] = node.properties.criteria.allOf.map(({ query }) => query).join('\n');
      Object.values(node).forEach(walk);
    }
  };
  walk(document);
  return found;
}
test('no rule and no alert has the name of a saved function, and whoever calls one only calls it', () => {
  const alerts = alertsOf(JSON.parse(source('deploy/arm/azuredeploy.json')));
  assert.ok(Object.keys(alerts).length >= 5);
  assert.deepEqual(aliases(deployed(content), alerts), []);
});
test('ids are the same in each case of the workspace\'s id, and nobody else\'s', () => assert.deepEqual(ids(deployed(content)), []));
test('the template has each resource once', () => assert.deepEqual(arm(content), []));
test('the generated files are up to date', () => assert.deepEqual(stale(), []));
test('the checks know the columns the program writes, no more and no less', () => {
  const table = source('src/flow/decode.rs');
  const types = { Text: 'string', DateTime: 'datetime', Int: 'int', Dynamic: 'dynamic' };
  const written = [...table.matchAll(/^ {4}"\w+" => "(\w+)" (\w+),$/gm)].map(([, column, kind]) => [column, types[kind]]);
  const added = { TimeGenerated: 'datetime', SourceSystem: 'string', log_source: 'string' };
  const system = { TenantId: 'string', Type: 'string', _ResourceId: 'string', _ItemId: 'string' };
  assert.equal(written.length + Object.keys(added).length, 33);
  assert.deepEqual({ ...SCHEMA }, { ...Object.fromEntries(written), ...added, ...system });
});
test('the transformations of the data collection rules are allowed and fit the table', () => {
  const templates = ['deploy/arm/azuredeploy.json', 'docs/azure/rule.json'].filter((file) => fs.existsSync(path.join(PROJECT, file)));
  const all = templates.flatMap((file) => {
    const kql = transformsOf(template(JSON.parse(source(file))));
    assert.ok(kql.length > 0, `no transformation in ${file}`);
    return kql.map((one) => ({ file, kql: one }));
  });
  assert.deepEqual(all.flatMap(({ file, kql }) => transformProblems(kql).map((problem) => `${file}: ${kql}: ${problem}`)), []);
  console.log(`${all.length} transformations checked: ${all.map(({ kql }) => kql).join('; ')}`);
});

/** A template as it is; the body of a rule as the template that would deploy it. */
function template(document) {
  return document.resources ? document : { resources: [{ type: 'Microsoft.Insights/dataCollectionRules', ...document }] };
}

/** The content with one file changed, and that file alone through the engine. */
function mistaken(file, from, to) {
  const text = fs.readFileSync(path.join(ROOT, file), 'utf8');
  assert.ok(text.includes(from), `${file} does not contain ${from}`);
  const changed = load({ [file]: text.replace(from, to) });
  return { changed, engine: () => semantics(changed, (one) => one.file === file) };
}
const found = (all, what) => assert.ok(all.some((one) => what.test(one)), `${what} is not among ${JSON.stringify(all)}`);

test('an unknown column in a rule is found', () => {
  found(mistaken('rules/VaultExported.kql', 'dcount(ObjectUuid)', 'dcount(VaultId)').engine().complaints, /VaultExported.*KS142.*VaultId/);
});
test('an unknown column of the table in a function is found', () => {
  found(mistaken('functions/OnePasswordHealth.kql', 'account_uuid', 'accountUuid').engine().complaints, /OnePasswordHealth.*KS142.*accountUuid/);
});
test('a wrong function name is found', () => {
  found(mistaken('workbook/51-Troubles.kql', 'OnePasswordHealth()', 'OnePasswordHealt()').engine().complaints, /51-Troubles.*OnePasswordHealt/);
});
test('a syntax error is found', () => {
  assert.notDeepEqual(mistaken('hunting/OldClients.kql', '| sort by', '| sort bye').engine().complaints, []);
});
test('a rule without an entity mapping is found', () => {
  const { changed } = mistaken('rules/PasswordSpray.kql', '// entity: IP Address=IpAddress\n', '');
  assert.deepEqual(metadata(changed), ['rules/PasswordSpray.kql: no entity mapping']);
});
test('an entity mapped from a column that the rule does not give is found', () => {
  const { changed } = mistaken('rules/PasswordSpray.kql', 'Address=IpAddress', 'Address=Ip');
  found(metadata(changed, columns), /PasswordSpray.*mapped from Ip, which is no column/);
});
test('a rule without a tactic is found', () => {
  const { changed } = mistaken('rules/PasswordSpray.kql', '// tactics: CredentialAccess\n', '');
  found(metadata(changed), /PasswordSpray.*no tactic/);
});
test('a technique that belongs to another tactic is found', () => {
  const { changed } = mistaken('rules/PasswordSpray.kql', 'T1110.003', 'T1485');
  found(metadata(changed), /PasswordSpray.*T1485 belongs to none/);
});
test('a rule that runs too often for its look-back, and one that misses rows between its runs, are found', () => {
  found(metadata(mistaken('rules/VaultExported.kql', 'PT36H', 'P3D').changed), /VaultExported.*hourly at most/);
  found(metadata(mistaken('rules/VaultExported.kql', 'Fresh = 20m', 'Fresh = 15m').changed), /VaultExported.*Fresh must be/);
  found(metadata(mistaken('rules/VaultExported.kql', 'PT36H', 'PT1H').changed), /VaultExported.*late sweep/);
});
test('a rule over the event time of some installations is found', () => {
  found(metadata(mistaken('rules/ReportsViewed.kql', 'NewestRow > ago', 'TimeGenerated > ago').changed), /ReportsViewed.*TimeGenerated/);
});
test('an action that the API never says is found', () => {
  const { changed } = mistaken('rules/RecoveryUsed.kql', '"beginr", "completr")', '"beginr", "completer")');
  assert.deepEqual(vocabulary(changed, words), ['rules/RecoveryUsed.kql: the API never says "completer"']);
});
test('a parser that lost a mandatory field or a parameter is found', () => {
  const dvc = mistaken('parsers/vimAuditEventOnePassword.kql', 'Dvc = "1Password", Operation', 'Operation');
  found(asim(dvc.changed, dvc.engine().columns), /vimAuditEvent.*Dvc must be a string column/);
  found(asim(mistaken('parsers/vimAuthenticationOnePassword.kql', 'srchostname_has_any:dynamic=dynamic([]),', '').changed, columns), /parameters are/);
});
test('a rule, an alert or a tile with the name of a saved function is found, in a comment too', () => {
  const rule = mistaken('rules/VaultExported.kql', 'OnePasswordActivity()', 'OnePasswordActivity() // not OnePasswordHealth');
  assert.deepEqual(aliases(deployed(rule.changed)), []);
  const document = deployed(content);
  document.resources.find(({ kind }) => kind === 'Scheduled').properties.query += '\n// see OnePasswordHealth';
  found(aliases(document), /has the name of the saved function OnePasswordHealth/);
  found(aliases(deployed(content), { silence: 'let OnePasswordHealth = 1;' }), /silence.*OnePasswordHealth/);
  const tile = mistaken('workbook/51-Troubles.kql', 'OnePasswordHealth()', 'OnePasswordHealth() // OnePasswordActivity tells more');
  found(aliases(deployed(tile.changed)), /51-Troubles: mentions the saved function OnePasswordActivity/);
  const anew = mistaken('hunting/OldClients.kql', 'OnePasswordActivity()', 'let OnePasswordActivity = () { print 1 };\nOnePasswordActivity()');
  found(aliases(deployed(anew.changed)), /writes the saved function OnePasswordActivity anew/);
});
test('an id that depends on the case, that somebody may have, or that cannot be changed is found', () => {
  const changed = (change) => { const document = deployed(content); document.resources.forEach((one) => { one.name = change(one.name); }); return ids(document); };
  found(changed((name) => name.replace('toLower(', 'string(')), /guid of an id in any case/);
  found(changed((name) => name.replace('/opship-', '/')), /somebody else may have/);
  found(changed((name) => name.replace("parameters('ruleIdSalt')", "'x'")), /no salt/);
});
test('a stale template is found', () => {
  const { changed } = mistaken('rules/PasswordSpray.kql', 'PeopleMin = 5', 'PeopleMin = 6');
  assert.deepEqual(stale(outputs(changed)), ['deploy/sentinel/sentinel.json']);
});
test('transformations that Azure refuses, or that do not fit the table, are found', () => {
  found(transformProblems('source | summarize count() by uuid_s'), /operator summarize/);
  found(transformProblems('source | extend TimeGenerated = coalesce(timestamp, now())'), /function coalesce/);
  found(transformProblems('source'), /TimeGenerated must come out/);
  found(transformProblems('source | extend TimeGenerated = now(), aux_id = tostring(aux_id)'), /aux_id comes out as string/);
  found(transformProblems('source | extend TimeGenerated = now(), uuid_s = uuid'), /KS142/);
});
test('a transformation chosen by a parameter is checked in each of its forms', () => {
  const rule = (transformKql) => ({ type: 'Microsoft.Insights/dataCollectionRules', properties: { dataFlows: [{ transformKql }] } });
  const nested = { variables: { stamp: { a: 'now()', b: 'timestamp' } }, resources: [
    rule("[format('source | extend TimeGenerated = {0}{1}', variables('stamp')[parameters('which')], if(parameters('old'), ' | project-away user', ''))]"),
  ] };
  const form = (stamp, end = '') => `source | extend TimeGenerated = ${stamp}${end}`;
  assert.deepEqual(transformsOf({ resources: [rule('source'), { type: 'Microsoft.Resources/deployments', properties: { template: nested } }] }), [
    'source', form('now()', ' | project-away user'), form('now()'), form('timestamp', ' | project-away user'), form('timestamp'),
  ]);
});
test('durations are read', () => assert.deepEqual(['PT15M', 'PT36H', 'P14D', 'P1DT2H'].map(minutes), [15, 2160, 20160, 1560]));
test('a rule as it is deployed is whole: the engine accepts it where nothing is saved', () => {
  const bare = database({ [TABLE]: SCHEMA });
  for (const { file, query } of content.rules.filter(({ name }) => ['HealthTrouble', 'ImpossibleTravel'].includes(name))) {
    assert.deepEqual(analyse(standalone(query, content), bare), { problems: [], columns: columns[file] });
  }
});
test('a rule carries the functions it needs, and nothing else', () => {
  const rule = content.rules.find(({ name }) => name === 'VaultExported');
  const lets = [...standalone(rule.query, content).matchAll(/^let (opship\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(lets, ['opshipRows', 'opshipEvents_Deduplicated', 'opshipActivity']);
  assert.equal(queries(content).length, new Set(queries(content).map(({ name }) => name)).size);
});
