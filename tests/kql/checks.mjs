// What the content has to satisfy; each check returns its complaints as lines that name the file.
import fs from 'node:fs';
import path from 'node:path';
import { callables, queries, standalone } from '../../deploy/sentinel/build/content.mjs';
import { template } from '../../deploy/sentinel/build/arm.mjs';
import { analyse, database, syntax } from './kusto.mjs';
import { SCHEMA, TABLE } from './rows.mjs';

const read = (name) => JSON.parse(fs.readFileSync(path.join(import.meta.dirname, name), 'utf8'));
const ATTACK = read('attack.json');
const ASIM = read('asim.json');
const TACTICS = new Set(Object.values(ATTACK).flat());
const SEVERITIES = ['Informational', 'Low', 'Medium', 'High'];
const ENTITIES = { Account: ['Name', 'UPNSuffix', 'FullName'], IP: ['Address'], CloudApplication: ['Name', 'InstanceName', 'AppId'] };
const QUERY_CHARACTERS_MAX = 10_000;
const MINUTE = 1;
const [HOUR, DAY] = [60 * MINUTE, 1440 * MINUTE];

/** Minutes of an ISO 8601 duration of days, hours and minutes. */
export function minutes(iso) {
  const parts = /^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?)?$/.exec(iso ?? '');
  return parts ? Number(parts[1] ?? 0) * DAY + Number(parts[2] ?? 0) * HOUR + Number(parts[3] ?? 0) : NaN;
}

/**
 * Every query by Microsoft's engine: complaints, and columns by file. A function is analysed once, where it is declared; whoever calls it sees an
 * empty table of its columns, because the engine would analyse the body anew at each call.
 */
export function semantics(content, only = () => true) {
  const [analysed, complaints, columns] = [new Map(), [], {}];
  const globals = (calls) => database({ [TABLE]: SCHEMA }, calls.map((name) => {
    const declared = Object.entries(analysed.get(name).columns ?? {}).map(([column, type]) => `['${column}']: ${type}`);
    return { name, parameters: analysed.get(name).parameters, body: `datatable(${declared.join(', ')}) []` };
  }));
  const callable = (one) => {
    if (analysed.has(one.name)) return;
    const calls = called(one.query, content);
    callables(content).filter(({ name }) => calls.includes(name)).forEach(callable);
    const declared = `let ${one.name} = (${one.meta.parameters ?? ''}) {\n${one.query}\n};\n${one.name}()`;
    analysed.set(one.name, { ...analyse(declared, globals(calls)), parameters: one.meta.parameters });
  };
  callables(content).forEach(callable);
  for (const { kind, name, file, query } of queries(content).filter(only)) {
    const found = analysed.has(name) ? analysed.get(name) : analyse(query, globals(called(query, content)));
    // What a rule is deployed as has its functions before it.
    if (kind === 'rules') found.problems.push(...syntax(standalone(query, content)));
    complaints.push(...found.problems.map((problem) => `${file}: ${problem}`));
    columns[file] = found.columns ?? {};
  }
  return { complaints, columns };
}

/** The functions of the content that a text calls itself. */
const called = (text, content) => callables(content).map(({ name }) => name).filter((name) => new RegExp(`\\b${name}\\s*\\(`).test(text));

/** Front matter: what every kind of content must say of itself. */
export function metadata(content, columns = {}) {
  const complaints = [];
  for (const one of queries(content)) {
    const say = (text) => complaints.push(`${one.file}: ${text}`);
    for (const key of one.kind === 'workbook' ? ['title', 'tab', 'show', 'width'] : ['title', 'description']) {
      if (!one.meta[key]) say(`no ${key}`);
    }
    if (one.kind === 'rules') rule(one, columns[one.file], content, say);
    if (['rules', 'hunting'].includes(one.kind)) mitre(one.meta, say);
    if (!['functions', 'parsers'].includes(one.kind) && /\bTimeGenerated\b/.test(one.query)) {
      say('TimeGenerated is the event time in some installations: use IngestedAt or EventTime');
    }
  }
  return complaints;
}

function rule({ meta, query }, columns, content, say) {
  if (!SEVERITIES.includes(meta.severity)) say(`no such severity: ${meta.severity}`);
  if (!meta.entity.length) say('no entity mapping');
  for (const { entityType, fieldMappings } of meta.entity) {
    for (const { identifier, columnName } of fieldMappings) {
      if (!ENTITIES[entityType]?.includes(identifier)) say(`no such entity identifier: ${entityType} ${identifier}`);
      if (columns && !(columnName in columns)) say(`entity ${entityType} is mapped from ${columnName}, which is no column of the result`);
    }
  }
  if (meta.severityColumn && columns && columns[meta.severityColumn] !== 'string') say(`severityColumn ${meta.severityColumn} is no text column`);
  const [every, back] = [minutes(meta.frequency), minutes(meta.period)];
  if (!(every >= 5 && every <= 14 * DAY)) say(`frequency ${meta.frequency} is not between five minutes and fourteen days`);
  if (!(back >= every && back <= 14 * DAY)) say(`period ${meta.period} is not between the frequency and fourteen days`);
  if (back >= 2 * DAY && every < HOUR) say('a rule that looks back two days or more runs hourly at most');
  const fresh = /let Fresh = (\d+)m;/.exec(query);
  if (fresh && Number(fresh[1]) !== every + 5) say(`Fresh must be the frequency and five minutes, ${every + 5}m`);
  if (fresh && back < DAY + HOUR) say('a rule over new rows must look back further than the late sweep, a day and an hour at least');
  const length = standalone(query, content).length;
  if (length > QUERY_CHARACTERS_MAX) say(`the deployed query has ${length} characters, ${QUERY_CHARACTERS_MAX} are the limit`);
}

function mitre(meta, say) {
  if (!meta.tactics.length) say('no tactic');
  if (!meta.techniques.length) say('no technique');
  for (const tactic of meta.tactics.filter((name) => !TACTICS.has(name))) say(`no such tactic: ${tactic}`);
  const fits = meta.techniques.map((technique) => [technique, ATTACK[technique.split('.')[0]] ?? []]);
  for (const [technique, tactics] of fits) {
    if (!tactics.some((tactic) => meta.tactics.includes(tactic))) say(`${technique} belongs to none of the tactics`);
  }
  for (const tactic of meta.tactics) {
    if (TACTICS.has(tactic) && !fits.some(([, tactics]) => tactics.includes(tactic))) say(`no technique belongs to ${tactic}`);
  }
}

/** Words compared with an action, category or type must be words the API says, by the simulator's vocabulary. */
export function vocabulary(content, known) {
  const compared = /\b(?:Action|Operation|Category|Outcome|ObjectType|OriginalObjectType)\s*(?:==|!=|!?in)\s*(\([^()]*\)|"[^"]*")/g;
  return queries(content).flatMap(({ file, query }) => [...query.matchAll(compared)].flatMap(([, words]) =>
    [...words.matchAll(/"([^"]*)"/g)].map(([, word]) => word).filter((word) => !known.has(word)).map((word) => `${file}: the API never says "${word}"`)));
}

/** Parameters and mandatory fields of the ASIM parsers. */
export function asim(content, columns) {
  const complaints = [];
  for (const { name, file, meta } of content.parsers) {
    const schema = ASIM[meta.schema];
    if (!schema) { complaints.push(`${file}: no such ASIM schema: ${meta.schema}`); continue; }
    const parameters = (meta.parameters ?? '').split(',').map((one) => one.trim().split('=')[0]).join(' ');
    const wanted = name.startsWith('vim') ? schema.parameters : 'disabled:bool pack:bool';
    if (parameters !== wanted) complaints.push(`${file}: parameters are ${parameters}, not ${wanted}`);
    for (const [field, type] of Object.entries({ ...ASIM.common, ...schema.fields })) {
      if (columns[file]?.[field] !== type) complaints.push(`${file}: ${field} must be a ${type} column, is ${columns[file]?.[field]}`);
    }
  }
  return complaints;
}

/** Values of the rows a parser gave that ASIM does not allow. */
export function asimValues(schema, rows) {
  const { values, version } = ASIM[schema];
  const fixed = { EventSchema: [schema], EventSchemaVersion: [version], EventCount: [1] };
  return Object.entries({ ...values, ...fixed }).flatMap(([field, allowed]) =>
    [...new Set(rows.map((row) => row[field]))].filter((value) => !allowed.includes(value)).map((value) => `${field}: ${value}`));
}

/** Aliases of saved functions are resolved by their text, in comments too: a rule must not have one of them, and who calls one only calls it. */
export function aliases(document, alerts = {}) {
  const { resources } = document;
  const names = resources.map(({ properties }) => properties.functionAlias).filter(Boolean);
  const mentioned = (query) => names.filter((name) => new RegExp(`\\b${name}\\b`).test(query));
  const complaints = [];
  const rules = resources.filter(({ kind }) => kind === 'Scheduled').map(({ properties }) => [properties.displayName, properties.query]);
  for (const [title, query] of [...rules, ...Object.entries(alerts)]) {
    complaints.push(...mentioned(query).map((name) => `${title}: has the name of the saved function ${name}`));
  }
  const tiles = resources.filter(({ type }) => type === 'Microsoft.Insights/workbooks')
    .flatMap(({ properties }) => JSON.parse(properties.serializedData).items).filter(({ type }) => type === 3)
    .map(({ content, name }) => [name, content.query]);
  const searches = resources.filter(({ type }) => type.endsWith('/savedSearches')).map(({ properties }) => [properties.displayName, properties.query]);
  for (const [title, query] of [...searches, ...tiles]) {
    for (const name of mentioned(query)) {
      if (new RegExp(`\\blet\\s+${name}\\b`).test(query)) complaints.push(`${title}: writes the saved function ${name} anew`);
      const said = query.match(new RegExp(`\\b${name}\\b`, 'g')).length;
      const calls = (query.replace(/\/\/.*$/gm, '').replace(/"[^"\n]*"/g, '""').match(new RegExp(`\\b${name}\\s*\\(`, 'g')) ?? []).length;
      if (said !== calls) complaints.push(`${title}: mentions the saved function ${name} without calling it`);
    }
  }
  return complaints;
}

/** Ids that the same deployment finds again, whatever the case of the workspace's id, and that nobody else has. */
export function ids(document) {
  return document.resources.flatMap(({ type, name }) => {
    if (type.endsWith('/savedSearches')) return name.includes("'/opship-") ? [] : [`${name}: an id that somebody else may have`];
    const bare = /guid\((?!toLower\()/.test(name) ? [`${name}: guid of an id in any case`] : [];
    return type.endsWith('/alertRules') && !name.includes('ruleIdSalt') ? [...bare, `${name}: no salt`] : bare;
  });
}

/** The template: names once each, no dangling dependency on a saved function in a rule. */
export function arm(content) {
  const { resources } = template(content);
  const names = resources.map(({ type, name }) => `${type} ${name}`);
  const rules = resources.filter(({ kind }) => kind === 'Scheduled');
  return [
    ...names.filter((name, at) => names.indexOf(name) !== at).map((name) => `${name} stands there twice`),
    ...rules.filter(({ properties }) => properties.techniques.some((technique) => !/^T\d{4}$/.test(technique))).map(({ name }) => `${name}: technique`),
  ];
}
