// Runs queries over the committed rows with DuckDB, through run.py.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { callables } from '../../deploy/sentinel/build/content.mjs';
import { WATCHLIST } from './kusto.mjs';
import { nowOf, readRows } from './rows/make.mjs';

const HERE = import.meta.dirname;
const PYTHON = process.env.KQL_PYTHON ?? path.resolve(HERE, '../../target/kql-venv/bin/python');
export const TABLE = 'OnePasswordEventLogs_CL';
export const SCHEMA = JSON.parse(fs.readFileSync(path.join(HERE, 'schema.json'), 'utf8'));
const FILES = ['shipped.ndjson', 'scenes.ndjson'];

export const allRows = () => FILES.flatMap(readRows);
export const now = () => nowOf(readRows(FILES[0]));

/** `{ file: query }` -> `{ file: [row, ...] }`; a query that cannot run fails the whole. */
export function run(queries, content, files = FILES.map((file) => path.join(HERE, 'rows', file))) {
  const functions = [WATCHLIST, ...callables(content).map(({ name, meta, query }) => ({ name, parameters: meta.parameters ?? '', body: query }))];
  const task = { now: new Date(now()).toISOString(), table: TABLE, schema: SCHEMA, files, functions, queries };
  const done = spawnSync(PYTHON, [path.join(HERE, 'run.py')], { input: JSON.stringify(task), encoding: 'utf8', maxBuffer: 1 << 28 });
  if (done.status !== 0) throw new Error(`run.py: ${done.error ?? done.stderr}`);
  const results = JSON.parse(done.stdout);
  const refused = Object.entries(results).filter(([, result]) => result.refused).map(([name, result]) => `${name}: ${result.refused}`);
  if (refused.length) throw new Error(refused.join('\n'));
  const named = ({ columns, rows }) => rows.map((row) => Object.fromEntries(columns.map((column, at) => [column, row[at]])));
  return Object.fromEntries(Object.entries(results).map(([name, result]) => [name, named(result)]));
}

/** What to run of a piece of content: a function is called. */
export const runnable = ({ kind, name, query }) => (['functions', 'parsers'].includes(kind) ? `${name}()` : query);
