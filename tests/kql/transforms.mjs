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

/** Every transformation under a folder: strings that begin with `source`, in ARM templates (expressions too) and in Bicep. */
export function transformsBelow(folder) {
  const files = fs.readdirSync(folder, { recursive: true }).filter((name) => /\.(json|bicep)$/.test(name) && !name.startsWith('sentinel'));
  return files.flatMap((file) => {
    const text = fs.readFileSync(path.join(folder, file), 'utf8');
    const quoted = [...text.matchAll(/(["'])(source(?: *\|(?:(?!\1|\\"|').)*)?)\1/g)].map(([, , kql]) => kql);
    return quoted.filter((kql) => kql.includes('|')).map((kql) => ({ file, kql }));
  });
}
