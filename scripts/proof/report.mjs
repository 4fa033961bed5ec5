#!/usr/bin/env node
// Writes the figures of docs/proof/*.csv into docs/PROOF.md, between the markers `<!-- figures: NAME -->` and `<!-- /figures -->`.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const page = 'docs/PROOF.md';

/** The lines of a record as objects; numbers where a column holds nothing else. */
function record(name) {
  const path = `docs/proof/${name}.csv`;
  if (!existsSync(path)) return [];
  const [head, ...lines] = readFileSync(path, 'utf8').trim().split('\n');
  const columns = head.split(',');
  const value = (text) => (text !== '' && Number.isFinite(Number(text)) ? Number(text) : text);
  return lines.map((line) => Object.fromEntries(line.split(',').map((text, i) => [columns[i], i === 0 ? text : value(text)])));
}

const sum = (rows, column) => rows.reduce((total, row) => total + Number(row[column] ?? 0), 0);
const big = (number) => Math.round(number).toLocaleString('en-US');
const commits = (rows) => [...new Set(rows.map((row) => row.commit))].join(', ');
const hours = (seconds) => (seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);

function table(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function seeds() {
  const rows = record('seeds');
  if (rows.length === 0) return 'No record yet.';
  const total = rows.reduce((all, row) => all + row.to - row.from, 0);
  const kinds = new Map();
  for (const part of rows.flatMap((row) => String(row.faults).split(' '))) {
    const [, kind, times, seeds] = part.match(/^(\w+)=(\d+)\/(\d+)$/) ?? [];
    const so_far = kinds.get(kind) ?? [0, 0];
    kinds.set(kind, [so_far[0] + Number(times), so_far[1] + Number(seeds)]);
  }
  const figures = [
    ['seeds', big(total)],
    ['events', big(sum(rows, 'events'))],
    ['ticks', big(sum(rows, 'ticks'))],
    ['calls to the outside, there and back', big(sum(rows, 'steps'))],
    ['POSTs', big(sum(rows, 'posts'))],
    ['commits, each checked', big(sum(rows, 'commits'))],
    ['simulated time', `${big(sum(rows, 'days') / 365.25)} years`],
    ['crashes', big(kinds.get('Crash')?.[0] ?? 0)],
    ['**lost**', `**${big(sum(rows, 'lost'))}**`],
    ['copies, each explained by the ledger', big(sum(rows, 'copies') - sum(rows, 'excused'))],
    ['**copies without a trace**', `**${big(sum(rows, 'untraceable'))}**`],
    ['copies whose ledger frames went with a store that fell back', big(sum(rows, 'excused'))],
    ['events behind the floor of a feed that lost its checkpoint and its fallback copy', big(sum(rows, 'let_go'))],
    ['wall time, two cores', hours(sum(rows, 'seconds'))],
    ['commit', commits(rows)],
  ];
  const struck = [...kinds].map(([kind, [times, met]]) => [kind, big(times), `${((100 * met) / total).toFixed(1)} %`]);
  return `${table(['figure', 'sum'], figures)}\n\n${table(['fault or circumstance', 'times', 'seeds that met it'], struck)}`;
}

function kill9() {
  const rows = record('kill9');
  if (rows.length === 0) return 'No record yet.';
  const line = (store, of) => {
    const [kills, left] = [sum(of, 'kills'), sum(of, 'intents_left')];
    const cells = [big(kills), `${big(left)} (${Math.round((100 * left) / kills)} %)`, big(sum(of, 'generated')), `**${sum(of, 'lost')}**`];
    return [store, ...cells, big(sum(of, 'copies')), `**${sum(of, 'untraceable')}**`, hours(sum(of, 'seconds'))];
  };
  const stores = [...new Set(rows.map((row) => row.store))];
  const lines = stores.map((store) => line(store, rows.filter((row) => row.store === store)));
  const head = ['store', 'kills', 'left an intent', 'events', 'lost', 'copies', 'without a trace', 'time'];
  return `${table(head, [...lines, line('both', rows)])}\n\nCommit ${commits(rows)}.`;
}

function fuzz() {
  const rows = record('fuzz');
  if (rows.length === 0) return 'No record yet.';
  const targets = [...new Set(rows.map((row) => row.target))];
  const lines = targets.map((target) => {
    const of = rows.filter((row) => row.target === target);
    return [target, hours(sum(of, 'seconds')), big(sum(of, 'executions')), sum(of, 'crashes'), of.at(-1).coverage, of.at(-1).corpus];
  });
  return `${table(['target', 'time', 'executions', 'crashes', 'edges covered', 'corpus'], lines)}\n\nCommit ${commits(rows)}.`;
}

/** Any record whose lines say enough by themselves. */
function plain(name) {
  const rows = record(name);
  if (rows.length === 0) return 'No record yet.';
  return table(Object.keys(rows[0]), rows.map((row) => Object.values(row)));
}

const parts = { seeds, kill9, fuzz, soak: () => plain('soak'), lines: () => plain('lines'), coverage: () => plain('coverage') };
let text = readFileSync(page, 'utf8');
for (const [name, part] of Object.entries(parts)) {
  const between = new RegExp(`(<!-- figures: ${name} -->\n)[\\s\\S]*?(<!-- /figures -->)`);
  if (!between.test(text)) throw new Error(`${page} has no place for the figures: ${name}`);
  text = text.replace(between, (_, open, close) => `${open}\n${part()}\n\n${close}`);
}
writeFileSync(page, text);
