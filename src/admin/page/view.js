"use strict";
// Shows one `Status` document (src/admin/status.rs). It comes over /events, or from /status.json when that is not to be had. Whatever
// it holds goes in as text. A field that is missing is shown as a dash.

const DASH = "–";
const SILENCE_MAX = 15e3; // a stream that says nothing for so long is asked about
const POLL_EVERY = 3e3; // without a stream, and while the agent cannot be reached
const STREAM_AGAIN = 30e3; // after a stream that never said anything; one that did is opened again with the next poll
const ANSWER_MAX = 5e3;
const REDRAW = 100; // a busy agent has more news than an eye can follow
const ERRORS_SHOWN = 5;
const ERRORS_MAX = 50;
const BARS_MAX = 120;
const SPANS = [30, 60, 120, 180, 360]; // minutes that the charts may show

const CIRCLE = "M8 1.5a6.5 6.5 0 1 1 0 13a6.5 6.5 0 0 1 0-13z";
const ICONS = {
  good: CIRCLE + "M5 8.2l2.1 2.1L11 6",
  starting: "M3 8h.01M8 8h.01M13 8h.01",
  "catching-up": "M3 3.5L7.5 8L3 12.5M8.5 3.5L13 8l-4.5 4.5",
  standby: "M5.5 3v10M10.5 3v10",
  waiting: "M8 1.8l6.7 12H1.3zM8 6v3.5M8 11.7v.1",
  broken: "M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8H5.3L1.5 10.7V5.3zM5.7 5.7l4.6 4.6M10.3 5.7l-4.6 4.6",
  stopped: "M3.5 3.5h9v9h-9z",
  silent: CIRCLE + "M6 6.3a2 2 0 1 1 2.6 1.9c-.5.2-.6.5-.6 1.1M8 11.5v.1",
  live: "M8 8h.01M5 11a4.2 4.2 0 0 1 0-6M11 5a4.2 4.2 0 0 1 0 6M2.8 13.2a7.3 7.3 0 0 1 0-10.4M13.2 2.8a7.3 7.3 0 0 1 0 10.4",
  polling: "M13.5 8A5.5 5.5 0 1 1 11.9 4.1M13.5 1.5v3.5H10",
  lost: CIRCLE + "M3.5 3.5l9 9",
};
// The worst first: what a feed's health is called and which tone it has.
const HEALTH = {
  broken: ["Broken", "bad"],
  silent: ["Silent", "warn"],
  waiting: ["Waiting", "warn"],
  stopped: ["Stopped", "idle"],
  starting: ["Starting", "busy"],
  "catching-up": ["Catching up", "busy"],
  standby: ["Standby", "idle"],
  good: ["Good", "good"],
};
const CALM = new Set(["good", "standby", "catching-up"]);
const NEEDS_NOBODY = new Set([...CALM, "starting"]);
const LINK = {
  connecting: ["Connecting", "idle", "starting"],
  live: ["Live", "good", "live"],
  polling: [`Asks every ${POLL_EVERY / 1e3} s: no live stream`, "busy", "polling"],
  lost: ["Connection lost", "bad", "lost"],
};

const byId = (id) => document.getElementById(id);
const known = (value) => value !== undefined && value !== null;
const listOf = (value) => (Array.isArray(value) ? value : []);
const number = (value) => (known(value) ? Number(value).toLocaleString("en") : DASH);
const count = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;
const healthOf = (feed) => HEALTH[feed.health] ?? [String(feed.health ?? DASH), "warn"];
const iconOf = (feed) => (feed.health in HEALTH ? feed.health : "silent");
const nameOf = (feed) => `${feed.account ?? DASH}/${feed.stream ?? DASH}`;

// --- the page's own small tools ---

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (known(text)) node.textContent = text;
  return node;
}

function shape(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function setIcon(box, name) {
  if (box.dataset.icon === name) return;
  box.dataset.icon = name;
  const stroke = { fill: "none", stroke: "currentColor", "stroke-width": "1.7", "stroke-linecap": "round", "stroke-linejoin": "round" };
  const svg = shape("svg", { viewBox: "0 0 16 16", ...stroke });
  svg.append(shape("path", { d: ICONS[name] }));
  box.replaceChildren(svg);
}

function tone(node, name) {
  if (name) node.dataset.tone = name;
  else delete node.dataset.tone;
}

// Rebuilds a list only when it would read differently: nothing jumps under a finger or a screen reader.
const written = new WeakMap();
function list(parent, items, build) {
  const text = JSON.stringify(items);
  if (written.get(parent) === text) return;
  written.set(parent, text);
  parent.replaceChildren(...items.map(build));
}

// --- time: that of the agent, carried on by the clock of this machine; it stands still while the connection is lost ---

const clock = { agent: 0, here: 0 };
const clocks = new Map();
const now = () => (clock.agent ? clock.agent + (mode === "lost" ? 0 : Date.now() - clock.here) : NaN);
const at = (time) => (known(time) ? Date.parse(time) : NaN);

/** A text that goes on with the clock. */
function running(node, text) {
  clocks.set(node, text);
  put(node, text());
}

function moveClocks() {
  for (const [node, text] of clocks) {
    if (node.isConnected) put(node, text());
    else clocks.delete(node);
  }
}

function duration(ms) {
  if (!Number.isFinite(ms)) return DASH;
  const s = Math.max(0, Math.round(ms / 1e3));
  const [m, h, d] = [Math.floor(s / 60), Math.floor(s / 3600), Math.floor(s / 86400)];
  if (s < 60) return `${s} s`;
  if (s < 600) return s % 60 ? `${m} min ${s % 60} s` : `${m} min`;
  if (m < 60) return `${m} min`;
  if (h < 24) return m % 60 ? `${h} h ${m % 60} min` : `${h} h`;
  return d < 14 && h % 24 ? `${d} d ${h % 24} h` : `${number(d)} d`;
}

const ago = (time) => (known(time) ? `${duration(now() - at(time))} ago` : DASH);
const utc = (time) => (Number.isFinite(at(time)) ? new Date(at(time)).toISOString().slice(0, 19).replace("T", " ") : DASH);
const hour = (ms) => new Date(ms).toISOString().slice(11, 16);

function countdown(time) {
  if (!known(time)) return DASH;
  return at(time) - now() < 500 ? "now" : `in ${duration(at(time) - now())}`;
}

function expiry(time) {
  if (!known(time)) return [DASH];
  const left = at(time) - now();
  if (left <= 0) return ["expired", "bad"];
  return left < 14 * 864e5 ? [`soon: ${duration(left)}`, "warn"] : [duration(left)];
}

// --- the whole ---

function show(status) {
  const feeds = listOf(status.feeds);
  put(byId("version"), status.version ?? "");
  running(byId("uptime"), () => (known(status.started) ? `up ${duration(now() - at(status.started))}` : ""));
  put(byId("now"), utc(status.now));
  byId("now").dateTime = status.now ?? "";
  showHealth(status, feeds);
  showTotals(feeds);
  showFeeds(feeds);
  showErrors(feeds);
  byId("config").hidden = !known(status.config);
  byId("no-config").hidden = known(status.config);
  put(byId("config-text"), status.config ?? "");
}

function showHealth(status, feeds) {
  const rank = (feed) => (feed.health in HEALTH ? Object.keys(HEALTH).indexOf(feed.health) : 1.5);
  const sorted = feeds.toSorted((a, b) => rank(a) - rank(b));
  const worst = sorted[0];
  let [word, hue, icon] = worst ? [...healthOf(worst), iconOf(worst)] : ["No feeds", "warn", "silent"];
  if (worst && CALM.has(worst.health) && status.ready) [word, hue, icon] = ["All is well", "good", "good"];
  else if (worst && hue === "good") [word, hue, icon] = ["Not ready", "warn", "waiting"];
  tone(byId("health"), hue);
  setIcon(byId("health").querySelector(".icon"), icon);
  put(byId("state"), word);
  put(byId("summary"), status.summary ?? DASH);
  document.title = `${word} - opship`;
  showFavicon(hue, icon);
  const unwell = sorted.filter((feed) => !NEEDS_NOBODY.has(feed.health));
  const held = document.activeElement?.getAttribute("href");
  byId("unwell").hidden = !unwell.length;
  list(byId("unwell"), unwell.map(({ account, stream, health }) => ({ account, stream, health })), (feed) => {
    const item = make("li");
    const [symbol, link] = [make("span", "icon"), make("a", "", nameOf(feed))];
    symbol.ariaHidden = "true";
    tone(item, healthOf(feed)[1]);
    setIcon(symbol, iconOf(feed));
    link.href = `#${idOf(feed)}`;
    item.append(symbol, link, make("span", "", healthOf(feed)[0].toLowerCase()));
    return item;
  });
  if (held && document.activeElement === document.body) document.querySelector(`#unwell a[href="${held}"]`)?.focus();
}

function showFavicon(hue, icon) {
  const colour = { good: "#2e9e68", busy: "#3f87d6", warn: "#d98a1c", bad: "#d9443b", idle: "#7d8b99" }[hue];
  const line = `stroke='${colour}' stroke-width='2' stroke-linecap='round' stroke-linejoin='round'`;
  const svg = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='none' ${line}><path d='${ICONS[icon]}'/></svg>`;
  const link = document.querySelector("link[rel=icon]");
  const href = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  if (link.getAttribute("href") !== href) link.setAttribute("href", href);
}

function showTotals(feeds) {
  const slot = (name) => document.querySelector(`.totals [data-slot=${name}]`);
  const sum = (field) => (feeds.some((feed) => known(feed[field])) ? feeds.reduce((n, feed) => n + (feed[field] ?? 0), 0) : undefined);
  const lags = feeds.map((feed) => feed.lag_seconds).filter(known);
  const tokens = feeds.map((feed) => feed.token_expires).filter(known).sort((a, b) => at(a) - at(b));
  const well = feeds.filter((feed) => CALM.has(feed.health)).length;
  put(slot("well"), `${well} of ${feeds.length}`);
  const recent = feeds.flatMap((feed) => listOf(feed.minutes)).filter((minute) => minute.at * 1e3 > now() - 36e5);
  put(slot("hour"), number(recent.reduce((n, minute) => n + (minute.rows ?? 0), 0)));
  put(slot("lag"), lags.length ? duration(Math.max(...lags) * 1e3) : DASH);
  put(slot("doubts"), number(sum("in_doubt_batches")));
  put(slot("dead"), number(sum("dead_letters")));
  tone(slot("dead"), sum("dead_letters") ? "warn" : "");
  running(slot("token"), () => expiry(tokens[0])[0]);
  tone(slot("token"), expiry(tokens[0])[1]);
}

// --- the feeds ---

const cards = new Map();
const idOf = (feed) => `feed-${encodeURIComponent(nameOf(feed))}`;

function showFeeds(feeds) {
  const span = spanOf(feeds);
  const names = feeds.map(nameOf);
  for (const [name, card] of cards) if (!names.includes(name)) card.node.remove(), cards.delete(name);
  for (const feed of feeds) {
    const card = cards.get(nameOf(feed)) ?? newCard(feed);
    showFeed(card, feed);
    showCharts(card, feed, span);
  }
}

function newCard(feed) {
  const node = byId("card").content.cloneNode(true).querySelector("article");
  const slots = {};
  for (const slot of node.querySelectorAll("[data-slot]")) slots[slot.dataset.slot] = slot;
  const title = node.querySelector("h3");
  title.id = idOf(feed);
  node.setAttribute("aria-labelledby", title.id);
  put(slots.account, `${feed.account ?? DASH} / `);
  put(slots.stream, feed.stream ?? DASH);
  byId("cards").append(node);
  const card = { node, slots, icon: node.querySelector(".badge .icon") };
  cards.set(nameOf(feed), card);
  return card;
}

function showFeed({ node, slots, icon }, feed) {
  const [word, hue] = healthOf(feed);
  tone(node, hue);
  setIcon(icon, iconOf(feed));
  put(slots.health, word);
  running(slots.since, () => (known(feed.since) ? `for ${duration(now() - at(feed.since))}, since ${utc(feed.since)}` : DASH));
  slots["reason-box"].hidden = !known(feed.reason);
  put(slots.reason, feed.reason ?? "");
  slots["remedy-line"].hidden = !known(feed.remedy);
  put(slots.remedy, feed.remedy ?? "");
  put(slots.lag, known(feed.lag_seconds) ? duration(feed.lag_seconds * 1e3) : DASH);
  running(slots["last-good"], () => ago(feed.last_good));
  running(slots["next-tick"], () => countdown(feed.next_tick));
  put(slots.rows, number(feed.rows));
  put(slots.late, number(feed.late));
  put(slots.pages, number(feed.pages));
  running(slots.token, () => expiry(feed.token_expires)[0]);
  tone(slots.token, expiry(feed.token_expires)[1]);
  put(slots.doubts, known(feed.in_doubt_batches) ? count(feed.in_doubt_batches, "batch", "batches") : DASH);
  put(slots.dead, number(feed.dead_letters));
  tone(slots.dead, feed.dead_letters ? "warn" : "");
  slots["dead-note"].hidden = !feed.dead_letters;
  showDoubts(slots, feed);
  put(slots.newest, utc(feed.newest_shipped));
  put(slots["last-good-at"], utc(feed.last_good));
  put(slots.checkpoint, utc(feed.checkpoint_written));
  put(slots["token-at"], utc(feed.token_expires));
  const intent = feed.open_intent;
  put(slots.intent, intent ? `${intent.batch_id ?? DASH}: ${intent.kind ?? DASH}, ${count(intent.rows, "row")}, attempt ${number(intent.attempt)}` : "none");
  put(slots.gone, number(feed.in_doubt_gone));
}

function showDoubts(slots, feed) {
  const doubts = listOf(feed.last_doubts).toSorted((a, b) => at(b.at) - at(a.at));
  slots["doubts-box"].hidden = !doubts.length;
  const all = `In doubt: ${count(feed.in_doubt_batches ?? doubts.length, "batch", "batches")}, ${count(feed.in_doubt_rows, "row")}`;
  put(slots["doubts-title"], doubts.length < feed.in_doubt_batches ? `${all}; the latest ${doubts.length}` : all);
  list(slots["doubts-list"], doubts, (doubt) => {
    const item = make("li");
    const facts = `${count(doubt.rows, "row")}, attempt ${number(doubt.attempt)}, ${utc(doubt.at)}`;
    item.append(make("p", "id", doubt.batch_id ?? DASH), make("p", "quiet", facts), make("p", "", doubt.why ?? DASH));
    return item;
  });
}

// --- the charts: rows and lag by the minute, on one axis for all feeds ---

function spanOf(feeds) {
  const first = Math.min(...feeds.map((feed) => listOf(feed.minutes)[0]?.at ?? Infinity));
  const minutes = (now() / 1e3 - first) / 60;
  return SPANS.find((span) => minutes <= span) ?? SPANS.at(-1);
}

function showCharts({ slots }, feed, span) {
  const last = Math.floor(now() / 6e4);
  const minutes = new Map(listOf(feed.minutes).map((minute) => [Math.floor(minute.at / 60), minute]));
  const axis = Array.from({ length: span }, (_, i) => last - span + 1 + i);
  const rows = axis.map((minute) => minutes.get(minute)?.rows ?? 0);
  let lag = null;
  // A minute without a tick says nothing new.
  const lags = axis.map((minute) => (lag = minutes.has(minute) ? minutes.get(minute).lag_seconds ?? null : lag));
  const told = lags.filter(known);
  const over = `over the last ${duration(span * 6e4)}`;
  const [peak, sum, worst] = [Math.max(...rows), rows.reduce((a, b) => a + b, 0), Math.max(...told)];
  const when = (values, value) => hour(axis[values.lastIndexOf(value)] * 6e4);
  const none = minutes.size ? "" : "no history yet";
  put(slots["rows-peak"], none || `peak ${number(peak)}, ${number(sum)} in ${duration(span * 6e4)}`);
  put(slots["lag-peak"], none || (told.length ? `peak ${duration(worst * 1e3)}` : DASH));
  put(slots.axis, `${duration(span * 6e4)} ago`);
  drawBars(slots["rows-chart"], rows, Math.max(5, peak));
  drawLine(slots["lag-chart"], lags, Math.max(60, worst));
  const rowsTold = `${number(sum)} in all, at most ${number(peak)} at ${when(rows, peak)}, ${number(rows.at(-1))} in this minute.`;
  const lagTold = told.length ? `at most ${duration(worst * 1e3)} at ${when(lags, worst)}, latest ${duration(told.at(-1) * 1e3)}.` : "not known.";
  slots["rows-chart"].setAttribute("aria-label", `Rows a minute ${over}: ${none || rowsTold}`);
  slots["lag-chart"].setAttribute("aria-label", `Lag ${over}: ${none || lagTold}`);
}

const height = (value, top) => (39 - (value / top) * 37).toFixed(1);

/** A bar for some minutes is as high as the highest of them. */
function drawBars(svg, values, top) {
  const each = Math.ceil(values.length / BARS_MAX);
  const width = (360 * each) / values.length;
  let bars = "";
  for (let i = 0; i * each < values.length; i++) {
    const value = Math.max(...values.slice(i * each, (i + 1) * each));
    if (value) bars += `M${(i * width).toFixed(1)} 40V${height(value, top)}h${(width * 0.75).toFixed(2)}V40z`;
  }
  drawPath(svg, "bars", bars);
}

/** Steps from left to right; a gap where a value is not known. */
function drawLine(svg, values, top) {
  const width = 360 / values.length;
  let [line, area] = ["", ""];
  values.forEach((value, i) => {
    if (!known(value)) return;
    const [from, to] = [(i * width).toFixed(1), ((i + 1) * width).toFixed(1)];
    line += `${i && known(values[i - 1]) ? "L" : "M"}${from} ${height(value, top)}H${to}`;
    if (value) area += `M${from} 40V${height(value, top)}H${to}V40z`;
  });
  drawPath(svg, "area", area);
  drawPath(svg, "line", line);
}

function drawPath(svg, name, d) {
  const path = svg.querySelector(`.${name}`) ?? svg.appendChild(shape("path", { class: name }));
  if (path.getAttribute("d") !== d) path.setAttribute("d", d);
}

// --- the errors ---

function showErrors(feeds) {
  const of = (feed) => listOf(feed.errors).map((error) => ({ ...error, feed: nameOf(feed) }));
  const errors = feeds.flatMap(of).sort((a, b) => at(b.at) - at(a.at)).slice(0, ERRORS_MAX);
  byId("no-errors").hidden = errors.length > 0;
  byId("older").hidden = errors.length <= ERRORS_SHOWN;
  put(byId("older").querySelector("summary"), count(errors.length - ERRORS_SHOWN, "older error"));
  list(byId("errors"), errors.slice(0, ERRORS_SHOWN), errorItem);
  list(byId("older").querySelector("ol"), errors.slice(ERRORS_SHOWN), errorItem);
}

function errorItem(error) {
  const item = make("li");
  const [when, what] = [make("div", "when"), make("div")];
  const past = make("p");
  when.append(make("p", "", utc(error.at)), past);
  running(past, () => ago(error.at) + (error.times > 1 ? `, ${number(error.times)} times` : ""));
  what.append(make("p", "where", error.feed), make("p", "", error.what ?? DASH));
  if (known(error.remedy)) {
    const remedy = make("p", "remedy");
    remedy.append(make("strong", "", "What to do:"), ` ${error.remedy}`);
    what.append(remedy);
  }
  what.append(make("p", "quiet", `Waits for ${error.waiting_for ?? DASH}`));
  item.append(when, what);
  return item;
}
