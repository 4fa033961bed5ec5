// Runs queries over rows with DuckDB, through run.py.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
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

export const functionsOf = (content, watchlist = WATCHLIST) =>
  [watchlist, ...callables(content).map(({ name, meta, query }) => ({ name, parameters: meta.parameters ?? '', body: query }))];

/** What a script beside this one answers to a task; rows of a task go through files that are gone afterwards. */
export function ask(script, task) {
  const done = spawnSync(PYTHON, [path.join(HERE, script)], { input: JSON.stringify(task), encoding: 'utf8', maxBuffer: 1 << 28 });
  if (done.status !== 0) throw new Error(`${script}: ${done.error ?? done.stderr}`);
  return JSON.parse(done.stdout);
}

export function withRows(rows, use) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'opship-kql-'));
  try {
    const file = path.join(folder, 'rows.ndjson');
    fs.writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    return use(file);
  } finally { fs.rmSync(folder, { recursive: true }); }
}

/**
 * `{ world: { queries, rows or files, schema, now, functions } }` -> `{ world: { file: [row, ...] } }`; a query that cannot run fails the whole.
 * What a world does not say is as in the workspace.
 */
export function runWorlds(worlds, content) {
  const filled = (world) => ({
    schema: SCHEMA, now: new Date(world.at ?? now()).toISOString(), files: FILES.map((file) => path.join(HERE, 'rows', file)), ...world,
  });
  const asked = (left, ready) => {
    if (!left.length) return ask('run.py', { table: TABLE, functions: functionsOf(content), worlds: Object.fromEntries(ready) });
    const [[name, { rows, ...world }], ...others] = left;
    if (!rows) return asked(others, [...ready, [name, filled(world)]]);
    return withRows(rows, (file) => asked(others, [...ready, [name, filled({ files: [file], ...world })]]));
  };
  const results = asked(Object.entries(worlds), []);
  const refused = Object.entries(results).flatMap(([world, all]) => Object.entries(all).filter(([, result]) => result.refused)
    .map(([name, result]) => `${world}: ${name}: ${result.refused}`));
  if (refused.length) throw new Error(refused.join('\n'));
  const named = ({ columns, rows }) => rows.map((row) => Object.fromEntries(columns.map((column, at) => [column, row[at]])));
  const byFile = (all) => Object.fromEntries(Object.entries(all).map(([name, result]) => [name, named(result)]));
  return Object.fromEntries(Object.entries(results).map(([world, all]) => [world, byFile(all)]));
}

/** `{ file: query }` over the committed rows -> `{ file: [row, ...] }`. */
export const run = (queries, content) => runWorlds({ here: { queries } }, content).here;

/** What to run of a piece of content: a function is called. */
export const runnable = ({ kind, name, query }) => (['functions', 'parsers'].includes(kind) ? `${name}()` : query);
