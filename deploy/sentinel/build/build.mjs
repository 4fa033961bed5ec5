#!/usr/bin/env node
// Writes deploy/sentinel/sentinel.json and the tables of docs/sentinel.md from the queries; with --check only says what is stale.
import fs from 'node:fs';
import path from 'node:path';
import { template } from './arm.mjs';
import { ROOT, load } from './content.mjs';
import { document } from './docs.mjs';

/** Path from the project's root -> text, as it has to be. */
export function outputs(content = load(), root = path.resolve(ROOT, '../..')) {
  const docs = 'docs/sentinel.md';
  return {
    'deploy/sentinel/sentinel.json': `${JSON.stringify(template(content), null, 2)}\n`,
    [docs]: document(fs.readFileSync(path.join(root, docs), 'utf8'), content),
  };
}

/** The files that are not as they have to be. */
export function stale(wanted = outputs(), root = path.resolve(ROOT, '../..')) {
  const kept = (file) => { try { return fs.readFileSync(path.join(root, file), 'utf8'); } catch { return null; } };
  return Object.keys(wanted).filter((file) => kept(file) !== wanted[file]);
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === import.meta.filename) {
  const [wanted, root] = [outputs(), path.resolve(ROOT, '../..')];
  const changed = stale(wanted);
  if (process.argv.includes('--check')) {
    changed.forEach((file) => console.error(`${file} is stale: run deploy/sentinel/build/build.mjs`));
    process.exit(changed.length ? 1 : 0);
  }
  changed.forEach((file) => { fs.writeFileSync(path.join(root, file), wanted[file]); console.log(`wrote ${file}`); });
}
