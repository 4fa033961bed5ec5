// The tables of docs/sentinel.md, between their markers.
import fs from 'node:fs';
import path from 'node:path';
import { ROOT } from './content.mjs';
import { tabs } from './workbook.mjs';

const row = (...cells) => `| ${cells.map((cell) => String(cell).replaceAll('|', '\\|')).join(' | ')} |`;
const table = (head, rows) => [row(...head), row(...head.map(() => '---')), ...rows].join('\n');
const period = (iso) => iso.replace(/^PT?/, '').toLowerCase();
const entities = (meta) => [...new Set(meta.entity.map((one) => one.entityType))].join(', ');

function rules(content, health) {
  const chosen = content.rules.filter((one) => one.name.startsWith('Health') === health);
  return table(
    ['Rule', 'Severity', 'Runs, looks back', 'Tactics', 'Techniques', 'Entities', 'Fires when'],
    chosen.map(({ name, meta }) => row(
      `[${meta.title}](../deploy/sentinel/rules/${name}.kql)`, meta.severity + (meta.severityColumn ? ', by row' : ''),
      `${period(meta.frequency)}, ${period(meta.period)}`, meta.tactics.join(', '), meta.techniques.join(', '), entities(meta), meta.description,
    )),
  );
}

/** What tests/kql/office.mjs counted over a simulated week, beside the most that a rule may raise there. */
function week(content) {
  const counted = JSON.parse(fs.readFileSync(path.join(ROOT, '../../tests/kql/office.json'), 'utf8'));
  const lines = content.rules.map(({ name, meta }) => row(meta.title, counted.rules[name].alerts, counted.rules[name].incidents, meta.weekly));
  const sum = (key) => Object.values(counted.rules).reduce((all, one) => all + one[key], 0);
  return [
    row('Rule', 'Alerts', 'Incidents', 'At most'), row('---', '---', '---', '---'), ...lines, row('All', sum('alerts'), sum('incidents'), ''),
  ].join('\n');
}

const TABLES = {
  week,
  'health rules': (content) => rules(content, true),
  'detection rules': (content) => rules(content, false),
  hunting: (content) => table(['Query', 'Tactics', 'Techniques', 'Finds'], content.hunting.map(({ name, meta }) =>
    row(`[${meta.title}](../deploy/sentinel/hunting/${name}.kql)`, meta.tactics.join(', '), meta.techniques.join(', '), meta.description))),
  functions: (content) => table(['Function', 'Gives'], [...content.functions, ...content.parsers].map(({ name, kind, meta }) =>
    row(`[\`${name}\`](../deploy/sentinel/${kind}/${name}.kql)`, meta.description))),
  workbook: (content) => table(['Tab', 'Tiles'], tabs(content.workbook).map((tab) =>
    row(tab, content.workbook.filter((tile) => tile.meta.tab === tab).map((tile) => tile.meta.title).join('; ')))),
};

/** The document with each table between `<!-- generated: NAME -->` and `<!-- end -->` written anew. */
export function document(old, content) {
  let text = old;
  for (const [name, write] of Object.entries(TABLES)) {
    const begin = `<!-- generated: ${name} -->`;
    const [before, rest] = text.split(begin);
    if (rest === undefined) throw new Error(`docs/sentinel.md has no ${begin}`);
    text = `${before}${begin}\n\n${write(content)}\n\n${rest.slice(rest.indexOf('<!-- end -->'))}`;
  }
  return text;
}
