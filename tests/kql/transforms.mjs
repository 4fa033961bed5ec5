// The transformKql of data collection rules: only some of KQL is allowed there, and what comes out must fit the table.
import fs from 'node:fs';
import path from 'node:path';
import { analyse, database } from './kusto.mjs';
import { SCHEMA } from './rows.mjs';

// Data from MicrosoftDocs/azure-monitor-docs, data-collection-transformations-kql.md (CC BY 4.0).
const ALLOWED = JSON.parse(fs.readFileSync(path.join(import.meta.dirname, 'dcr_transform_kql_allowed.json'), 'utf8'));
const NOT_SENT = ['TimeGenerated', 'TenantId', 'SourceSystem', 'Type', '_ResourceId', '_ItemId'];
const STREAM = Object.fromEntries(Object.entries(SCHEMA).filter(([column]) => !NOT_SENT.includes(column)));

/** What is wrong with a transformation of the stream into the table. */
export function transformProblems(kql) {
  const { problems, columns } = analyse(kql, database({ source: STREAM }));
  const bare = kql.replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/g, '""');
  const found = [...problems];
  if (!/\bsource\b/.test(bare)) found.push('a transformation reads source');
  for (const [, operator] of bare.matchAll(/\|\s*([a-z][a-z-]*)/gi)) {
    if (!ALLOWED.tabular_operators.includes(operator)) found.push(`operator ${operator} is not allowed`);
  }
  for (const [, name] of bare.matchAll(/\b([a-z_]\w*)\s*\(/gi)) {
    if (!['in', 'and', 'or', 'not', 'on', 'by', 'extend', 'where', 'project', 'datetime', 'timespan'].includes(name) && !ALLOWED.functions.includes(name)) {
      found.push(`function ${name} is not allowed`);
    }
  }
  if (columns?.TimeGenerated !== 'datetime') found.push('TimeGenerated must come out as a datetime');
  for (const [column, type] of Object.entries(columns ?? {})) {
    if (SCHEMA[column] !== type) found.push(`column ${column} comes out as ${type}, the table has ${SCHEMA[column] ?? 'no such column'}`);
  }
  return found;
}

/** Every transformation that an ARM template can deploy, nested templates included: a choice by a parameter gives each of its outcomes. */
export function transformsOf(template) {
  return (template.resources ?? []).flatMap(({ type, properties }) => {
    if (type === 'Microsoft.Resources/deployments') return transformsOf(properties.template ?? {});
    if (type !== 'Microsoft.Insights/dataCollectionRules') return [];
    return properties.dataFlows.filter((flow) => flow.transformKql).flatMap(({ transformKql }) => outcomes(transformKql, template));
  });
}

/** What a template string may become: a literal, or an expression of `format`, `if`, `concat`, `variables` and `parameters`. */
function outcomes(text, template) {
  if (!text.startsWith('[') || text.startsWith('[[')) return [text];
  const tokens = text.slice(1, -1).match(/'(?:[^']|'')*'|[\w.]+|[()[\],]/g);
  const expect = (token) => { if (tokens.shift() !== token) throw new Error(`cannot read ${text}`); };
  /** One argument or expression as the list of its outcomes. */
  const value = () => {
    const token = tokens.shift();
    if (token.startsWith("'")) return [token.slice(1, -1).replaceAll("''", "'")];
    expect('(');
    const given = [];
    while (tokens[0] !== ')') { given.push(value()); if (tokens[0] === ',') tokens.shift(); }
    expect(')');
    return indexed(call(token, given));
  };
  /** `[key]` behind an object: each of its values, because the key is chosen by whoever deploys. */
  const indexed = (found) => {
    if (tokens[0] !== '[') return found;
    expect('[');
    value();
    expect(']');
    return found.flatMap((object) => Object.values(object));
  };
  const call = (name, given) => {
    if (name === 'variables') return [template.variables[given[0][0]]];
    if (name === 'if') return [...given[1], ...given[2]];
    if (name === 'parameters' || name === 'equals' || name === 'not') return ['chosen by whoever deploys'];
    const all = given.reduce((rows, choices) => rows.flatMap((row) => choices.map((choice) => [...row, choice])), [[]]);
    if (name === 'concat') return all.map((parts) => parts.join(''));
    if (name === 'format') return all.map(([form, ...parts]) => form.replace(/\{(\d+)\}/g, (_, at) => parts[at]));
    throw new Error(`cannot work out ${name} in ${text}`);
  };
  return value();
}
