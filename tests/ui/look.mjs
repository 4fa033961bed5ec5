// Looks at the status page of a running agent as a person would. `node look.mjs SCENE` with PAGE, the page's address, in the
// environment; tests/binary/page.rs starts it, and does on its word what only the agent's keeper can do.

import assert from "node:assert/strict";
import fs from "node:fs";
import readline from "node:readline";
import { open, sees, withBrowser } from "./browser.mjs";
import { readable } from "./readable.mjs";

const { PAGE, SIM, TOKEN, OUT } = process.env;
const done = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Asks the agent's keeper for a thing, and waits until it is done. */
async function keeper(what) {
  console.log(what);
  assert.equal((await done.next()).value, "done", what);
}

const text = (locator) => locator.textContent();
const card = (page, stream) => page.locator("article", { has: page.getByRole("heading", { name: stream }) });
const slot = (page, stream, name) => card(page, stream).locator(`[data-slot=${name}]`);
const figure = async (locator) => Number((await text(locator)).replaceAll(",", ""));
const isNow = async (locator, wanted) => ((seen) => seen === wanted || seen)(await text(locator));
const holds = async (locator, part) => ((seen) => seen.includes(part) || seen)(await text(locator));
const state = (page, stream, wanted) => sees(`${stream} is ${wanted}`, () => isNow(slot(page, stream, "health"), wanted));
const linked = (page, wanted) => sees(`the connection: ${wanted}`, () => isNow(page.locator("#link-text"), wanted));

async function simulator(method, path, body) {
  const answer = await fetch(`${SIM}/sim/${path}`, { method, body: body && JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.text()}`);
}
const fault = (on, what, more) => simulator("POST", "faults", [{ on, what, ...more }]);

/** Nothing went wrong in the page; and what it holds is left where secrets are searched for. */
async function wasClean({ page, wrong, refused }, name) {
  assert.deepEqual([wrong, await refused()], [[], []], "errors, refusals or requests to elsewhere");
  fs.writeFileSync(`${OUT}/${name}.html`, (await page.content()) + JSON.stringify(await page.evaluate(() => shown)));
}

const STREAMS = ["auditevents", "itemusages", "signinattempts"];

async function live(browser) {
  const view = await open(browser, PAGE);
  const { page, answer } = view;
  assert.ok((await answer.body()).length < 60_000, "the page is one light file");
  await linked(page, "Live");
  for (const stream of STREAMS) await state(page, stream, "Good");
  const sum = async () => (await Promise.all(STREAMS.map((stream) => figure(slot(page, stream, "rows"))))).reduce((a, b) => a + b);
  await sees("600 rows", async () => ((n) => n === 600 || n)(await sum()));
  assert.equal(await text(page.locator("#state")), "All is well");
  assert.match(await text(page.locator("#version")), /^\d+\.\d+\.\d+/);
  assert.match(await text(page.locator("#uptime")), /^up \d+/);
  assert.match(await page.locator("[data-slot=rows-chart]").first().getAttribute("aria-label"), /^Rows a minute over the last 30 min: \d+ in all/);
  assert.match(await text(slot(page, "itemusages", "last-good")), /^\d+ s ago$/);
  assert.match(await text(slot(page, "itemusages", "next-tick")), /^(now|in \d+ s)$/);
  assert.match(await text(page.locator("#config-text")), /\[accounts\.default\]/);
  await page.evaluate(() => (window.loadedOnce = true));

  const before = await figure(slot(page, "auditevents", "rows"));
  await simulator("POST", "events", { stream: "auditevents", count: 25 });
  await sees("25 rows more", async () => ((n) => n === before + 25 || n)(await figure(slot(page, "auditevents", "rows"))));

  await fault("ingestion", { "accept-then-status": { status: 500 } }, { count: 1 });
  await simulator("POST", "events", { stream: "itemusages", count: 7 });
  await sees("a batch in doubt", () => isNow(slot(page, "itemusages", "doubts-title"), "In doubt: 1 batch, 7 rows"));
  await slot(page, "itemusages", "doubts-title").click();
  await sees("why", () => holds(slot(page, "itemusages", "doubts-list"), "500"));
  assert.ok(await slot(page, "itemusages", "doubts-list").isVisible());

  await breaksAndIsMended(page);
  assert.equal(await page.evaluate(() => window.loadedOnce), true, "the page was never loaded again");
  assert.ok(await slot(page, "itemusages", "doubts-list").isVisible(), "what was unfolded stays so");
  await wasClean(view, "live");
}

/** When the feed's state began, as the page tells it. */
const since = async (page, stream) => (await text(slot(page, stream, "since"))).split("since ")[1];

async function breaksAndIsMended(page) {
  const wellSince = await since(page, "auditevents");
  await fault("itemusages", { page: "empty-object" });
  await state(page, "itemusages", "Waiting");
  assert.equal(await text(page.locator("#state")), "Waiting");
  assert.ok(await slot(page, "itemusages", "reason").isVisible());
  const waitsSince = await since(page, "itemusages");
  const errors = page.locator("#errors");
  await sees("the error", () => holds(errors, "default/itemusages"));
  await sees("how often", () => text(errors).then((seen) => /, \d+ times/.test(seen) || seen));

  assert.equal(await since(page, "itemusages"), waitsSince, "tries in between do not begin it anew");

  await fault("signinattempts", { status: { status: 400 } });
  await state(page, "signinattempts", "Broken");
  await sees("what to do", () => text(slot(page, "signinattempts", "remedy")).then((remedy) => remedy.length > 20 || remedy));
  assert.deepEqual(await page.locator("#unwell li").allTextContents(), ["default/signinattemptsbroken", "default/itemusageswaiting"]);
  assert.equal(await page.title(), "Broken - opship");

  await simulator("DELETE", "faults");
  await state(page, "itemusages", "Good");
  assert.equal(await slot(page, "itemusages", "reason").isVisible(), false);
  assert.equal(await text(slot(page, "auditevents", "health")), "Good", "a feed that fails never stops another");
  assert.equal(await since(page, "auditevents"), wellSince, "many ticks later it is well since the same moment");
}

/** Killed, back again, frozen, thawed: the page tells each by itself. */
async function lost(browser) {
  const { page, wrong, refused } = await open(browser, PAGE);
  await linked(page, "Live");
  await state(page, "auditevents", "Good");
  await keeper("stop");
  await linked(page, "Connection lost");
  assert.equal(await text(page.locator("#lost-what")), "The agent does not answer.");
  await sees("how old it is", () => text(page.locator("#lost-age")).then((age) => /^What you see is [1-9]\d* s old\. Trying/.test(age) || age));
  assert.equal(await page.title(), "Connection lost - opship");
  assert.equal(await text(slot(page, "auditevents", "health")), "Good", "the last that was known stays");
  await keeper("start");
  await linked(page, "Live");
  assert.equal(await page.locator("#lost").isVisible(), false);

  await keeper("freeze");
  await linked(page, "Connection lost");
  await keeper("thaw");
  await linked(page, "Live");
  const told = wrong.filter((line) => !/Failed to load resource: net::ERR_/.test(line));
  assert.deepEqual([told, await refused()], [[], []]);
}

/** Without the token there is nothing to see; a browser sends it as a password, a script as a bearer token. */
async function guarded(browser) {
  const stranger = await fetch(PAGE);
  assert.equal(stranger.status, 401);
  assert.match(stranger.headers.get("www-authenticate"), /Basic/);
  assert.ok(!(await stranger.text()).includes("feeds"));
  const keys = [{ httpCredentials: { username: "opship", password: TOKEN } }, { extraHTTPHeaders: { authorization: `Bearer ${TOKEN}` } }];
  for (const [number, key] of keys.entries()) {
    const view = await open(browser, PAGE, key);
    await linked(view.page, "Live");
    await state(view.page, "auditevents", "Good");
    await wasClean({ ...view, wrong: view.wrong.filter((line) => !line.includes("401")) }, `guarded-${number}`);
    await view.context.close();
  }
}

const scenes = { live, lost, guarded, readable: (browser) => readable(browser, PAGE) };
await withBrowser(scenes[process.argv[2]]);
process.exit(0);
