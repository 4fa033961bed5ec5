// Reads the queries: one file each, front matter in its leading comment lines (`// key: value`, continued by `//   more`).
import fs from 'node:fs';
import path from 'node:path';

export const ROOT = path.resolve(import.meta.dirname, '..');
const LISTS = ['tactics', 'techniques', 'details'];

/** Splits a file into its front matter and its query. A key that may repeat (`entity`) is always a list. */
export function parse(text, file) {
  const lines = text.split('\n');
  const meta = { entity: [] };
  let at = 0;
  for (let key; lines[at]?.startsWith('//'); at += 1) {
    const continued = /^\/\/ {3}(\S.*)$/.exec(lines[at]);
    const begun = /^\/\/ (\w+): (.*)$/.exec(lines[at]);
    if (continued && key && key !== 'entity') meta[key] += ` ${continued[1].trim()}`;
    else if (!begun) throw new Error(`${file}:${at + 1}: front matter is "// key: value": ${lines[at]}`);
    else if ((key = begun[1]) === 'entity') meta.entity.push(entity(begun[2], `${file}:${at + 1}`));
    else if (key in meta) throw new Error(`${file}:${at + 1}: ${key} stands there twice`);
    else meta[key] = begun[2].trim();
  }
  for (const key of LISTS) meta[key] = (meta[key] ?? '').split(',').map((word) => word.trim()).filter(Boolean);
  return { meta, query: lines.slice(at).join('\n').trim() };
}

/** `Account Name=UserName UPNSuffix=UserDomain`: an entity type, its identifiers, and the columns they are read from. */
function entity(text, place) {
  const [type, ...fields] = text.trim().split(/\s+/);
  const mappings = fields.map((field) => field.split('='));
  if (!mappings.length || mappings.some((pair) => pair.length !== 2)) throw new Error(`${place}: no entity mapping: ${text}`);
  return { entityType: type, fieldMappings: mappings.map(([identifier, columnName]) => ({ identifier, columnName })) };
}

/** All content, by kind; `overrides` replaces the text of a file (path from here -> text), for tests of the checks. */
export function load(overrides = {}, root = ROOT) {
  const read = (folder) => fs.readdirSync(path.join(root, folder)).filter((name) => name.endsWith('.kql')).sort().map((name) => {
    const file = `${folder}/${name}`;
    const text = overrides[file] ?? fs.readFileSync(path.join(root, file), 'utf8');
    return { name: path.basename(name, '.kql'), kind: folder, file, ...parse(text, file) };
  });
  const content = {};
  for (const kind of ['functions', 'parsers', 'rules', 'hunting', 'workbook']) content[kind] = read(kind);
  return content;
}

export const queries = (content) => Object.values(content).flat();
export const callables = (content) => [...content.functions, ...content.parsers];

/**
 * What a function is called inside a rule that carries it. Never by its alias: aliases of saved functions are resolved by their text, wherever it
 * stands (Azure-Sentinel 6797, 13587), so that the rule would have two of one name and be switched off.
 */
export const within = (name) => `opship${name.replaceAll('OnePassword', '')}`;

/** The query with every function it calls, directly or not, put before it as `let`: it runs where nothing is saved. */
export function standalone(query, content) {
  const known = new Map(callables(content).map((one) => [one.name, one]));
  const lets = new Map();
  const renamed = (text) => text.replace(/\b\w+\b/g, (word) => (known.has(word) ? within(word) : word));
  const collect = (text, above) => {
    for (const [, name] of text.matchAll(/\b(\w+)\s*\(/g)) {
      const found = known.get(name);
      if (!found || lets.has(name)) continue;
      if (above.includes(name)) throw new Error(`${name} calls itself`);
      collect(found.query, [...above, name]);
      lets.set(name, `let ${within(name)} = (${found.meta.parameters ?? ''}) {\n${renamed(found.query)}\n};`);
    }
  };
  collect(query, []);
  return [...lets.values(), renamed(query)].join('\n');
}
