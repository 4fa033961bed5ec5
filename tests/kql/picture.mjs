// Draws the workbook's tiles from the committed rows as an HTML page: the queries are the workbook's, the drawing is ours, not Azure's.
import { load } from '../../deploy/sentinel/build/content.mjs';
import { tabs } from '../../deploy/sentinel/build/workbook.mjs';
import { allRows, run } from './rows.mjs';

const COLOURS = ['#2f6fed', '#12a594', '#e5484d', '#f5a524', '#8e4ec6', '#30a46c', '#d6409f', '#0091ff', '#978365', '#6e7781', '#b0b8c4', '#3e63dd'];
const ROWS_SHOWN = 8;
const escaped = (value) => String(value).replace(/[&<>"]/g, (one) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[one]);
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const colour = (at) => COLOURS[at % COLOURS.length];

function text(value) {
  if (value === null) return '';
  if (typeof value === 'number') return Number.isInteger(value) ? value.toLocaleString('en') : value.toFixed(1);
  return escaped(/^\d{4}-\d\d-\d\dT/.test(value) ? value.slice(0, 19).replace('T', ' ') : value);
}

/** Name and number columns of a chart's rows: the first text column and the first number column. */
function series(rows) {
  const columns = Object.keys(rows[0]);
  const number = columns.find((column) => typeof rows[0][column] === 'number');
  const name = columns.find((column) => column !== number);
  return rows.map((row) => ({ name: row[name] || '(none)', value: row[number] }));
}

const DRAW = {
  tiles: (rows) => `<div class=tiles>${rows.map(({ Name, Value }) => `<div><b>${text(Value)}</b><span>${escaped(Name)}</span></div>`).join('')}</div>`,
  table(rows) {
    const columns = Object.keys(rows[0]);
    const line = (row) => `<tr>${columns.map((column) => `<td${typeof row[column] === 'number' ? ' class=n' : ''}>${text(row[column])}</td>`).join('')}</tr>`;
    const more = rows.length > ROWS_SHOWN ? `<p class=more>and ${rows.length - ROWS_SHOWN} more</p>` : '';
    const heads = columns.map((column) => `<th${typeof rows[0][column] === 'number' ? ' class=n' : ''}>${escaped(column)}</th>`).join('');
    return `<table><tr>${heads}</tr>${rows.slice(0, ROWS_SHOWN).map(line).join('')}</table>${more}`;
  },
  barchart(rows) {
    const bars = series(rows);
    const most = Math.max(...bars.map(({ value }) => value));
    return bars.map(({ name, value }, at) =>
      `<div class=bar><span>${escaped(name)}</span><i style="width:${(60 * value) / most}%;background:${colour(at)}"></i><b>${text(value)}</b></div>`).join('');
  },
  piechart(rows) {
    const parts = series(rows);
    const all = sum(parts.map(({ value }) => value));
    let from = 0;
    const arcs = parts.map(({ value }, at) => {
      const share = (100 * value) / all;
      from += share;
      return `<circle r=15.9155 cx=21 cy=21 fill=none stroke="${colour(at)}" stroke-width=7 stroke-dasharray="${share} ${100 - share}" stroke-dashoffset="${25 - from + share}"/>`;
    });
    const legend = parts.map(({ name, value }, at) => `<li><i style="background:${colour(at)}"></i>${escaped(name)} <b>${text(value)}</b></li>`).join('');
    return `<div class=pie><svg viewBox="0 0 42 42">${arcs.join('')}</svg><ul>${legend}</ul></div>`;
  },
  timechart(rows) {
    const [time, number, name] = ['Hour', 'Events' in rows[0] ? 'Events' : 'Rows', 'Stream' in rows[0] ? 'Stream' : 'log_source'];
    const at = (row) => Date.parse(row[time]);
    const shown = rows.filter((row) => at(row) > Math.max(...rows.map(at)) - 3.2 * 86_400_000);
    const [first, last, most] = [Math.min(...shown.map(at)), Math.max(...shown.map(at)), Math.max(...shown.map((row) => row[number]))];
    const hours = Math.max(1, (last - first) / 3_600_000);
    const names = [...new Set(shown.map((row) => row[name]))];
    const height = (value) => 150 - (140 * Math.sqrt(value)) / Math.sqrt(most);
    const lines = names.map((one, place) => {
      const points = new Map(shown.filter((row) => row[name] === one).map((row) => [Math.round((at(row) - first) / 3_600_000), row[number]]));
      const path = Array.from({ length: hours + 1 }, (_, hour) => `${(600 * hour) / hours},${height(points.get(hour) ?? 0)}`).join(' ');
      return `<polyline points="${path}" fill=none stroke="${colour(place)}" stroke-width=1.6 />`;
    });
    const legend = names.map((one, place) => `<li><i style="background:${colour(place)}"></i>${escaped(one)}</li>`).join('');
    const day = (moment) => new Date(moment).toISOString().slice(0, 16).replace('T', ' ');
    return `<svg class=time viewBox="0 0 600 152" preserveAspectRatio=none>${lines.join('')}</svg>
      <p class=axis><span>${day(first)}</span><span>peak ${text(most)} an hour, square-root scale</span><span>${day(last)}</span></p><ul class=legend>${legend}</ul>`;
  },
  map(rows) {
    const [x, y] = [(longitude) => (longitude + 180) * 2, (latitude) => (90 - latitude) * 2];
    const grid = [-120, -60, 0, 60, 120].map((one) => `<path d="M${x(one)} 0V300"/>`).join('') + [60, 30, 0, -30].map((one) => `<path d="M0 ${y(one)}H720"/>`).join('');
    const labels = [];
    const dots = rows.map(({ Latitude, Longitude, SignIns, Failures, City, Country }) => {
      const radius = 3 + 1.6 * Math.sqrt(SignIns);
      const label = { x: x(Longitude), y: y(Latitude) + 4 };
      while (labels.some((other) => Math.abs(other.x - label.x) < 90 && Math.abs(other.y - label.y) < 10)) label.y += 10;
      labels.push(label);
      const side = label.x > 640 ? `x=${label.x - radius - 5} text-anchor=end` : `x=${label.x + radius + 5}`;
      // Few fonts have every script.
      const name = City && !/[^\u0000-\u024f]/.test(City) ? City : Country;
      return `<circle cx=${label.x} cy=${y(Latitude)} r=${radius} fill="hsl(${120 - (120 * Failures) / SignIns} 65% 45%)" fill-opacity=.75 />
        <text ${side} y=${label.y}>${escaped(name)} ${SignIns}</text>`;
    });
    return `<svg class=map viewBox="0 0 720 300"><g stroke=#dde3ea>${grid}</g>${dots.join('')}</svg><p class=axis><span>size: sign-ins; green to red: share of failures</span></p>`;
  },
};

export function page(content = load()) {
  const results = run(Object.fromEntries(content.workbook.map(({ file, query }) => [file, query])), content);
  const tile = ({ file, meta }) => {
    const rows = results[file];
    return `<section style="width:calc(${meta.width}% - 12px)"><h3>${escaped(meta.title)}</h3>${rows.length ? DRAW[meta.show](rows) : '<p>no rows</p>'}</section>`;
  };
  const parts = tabs(content.workbook).map((tab) => `<h2>${tab}</h2><div class=tab>${content.workbook.filter(({ meta }) => meta.tab === tab).map(tile).join('')}</div>`);
  return `<!doctype html><meta charset=utf-8><style>${STYLE}</style>
    <header><b>1Password events (opship)</b><span>rendered from ${allRows().length} demo rows, not by Azure</span></header>${parts.join('')}`;
}

const STYLE = `
  body { margin: 0; padding: 20px 24px; width: 1392px; font: 13px/1.45 "DejaVu Sans", sans-serif; color: #1b2530; background: #f3f5f8 }
  header { display: flex; justify-content: space-between; align-items: baseline; font-size: 22px } header span { font-size: 14px; color: #b42318 }
  h2 { margin: 22px 0 8px; font-size: 16px; border-bottom: 2px solid #2f6fed; padding-bottom: 4px } h3 { margin: 0 0 8px; font-size: 13px }
  .tab { display: flex; flex-wrap: wrap; gap: 12px } section { box-sizing: border-box; background: #fff; border: 1px solid #dde3ea; border-radius: 6px; padding: 12px; overflow: hidden }
  .tiles { display: flex; gap: 12px } .tiles div { flex: 1; border: 1px solid #dde3ea; border-radius: 4px; padding: 8px 12px } .tiles b { display: block; font-size: 24px; color: #2f6fed }
  table { border-collapse: collapse; width: 100%; font-size: 11px } td, th { text-align: left; padding: 3px 8px 3px 0; border-bottom: 1px solid #eef1f5; white-space: nowrap } .n { text-align: right }
  .more, .axis { margin: 6px 0 0; color: #6e7781; font-size: 11px } .axis { display: flex; justify-content: space-between }
  .bar { display: flex; align-items: center; gap: 8px; margin: 3px 0; font-size: 11px } .bar span { width: 150px; text-align: right } .bar i { height: 12px; border-radius: 2px }
  .pie { display: flex; gap: 20px; align-items: center } .pie svg { width: 170px } ul { list-style: none; margin: 0; padding: 0; font-size: 11px } li i { display: inline-block; width: 9px; height: 9px; margin-right: 6px }
  .legend { display: flex; gap: 16px } .time { width: 100%; height: 170px; background: #fafbfc } .map { width: 100%; background: #f4f8fc } .map text { font-size: 9px }`;

process.stdout.write(page());
