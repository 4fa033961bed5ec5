// Whether everybody can read and use the page: contrast, keyboard, phone, motion; text that is no markup; a server without a stream.
// The documents are made up (fixture.mjs), the page and its policy are the agent's own.

import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { open, sees } from "./browser.mjs";
import { calm, night, odd, serve } from "./fixture.mjs";

const AXE = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PICTURES = path.join(import.meta.dirname, "../../docs/img");
// Colours are measured and pictures taken where nothing is on its way from one colour to another.
const STILL = { reducedMotion: "reduce" };
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

export async function readable(browser, address) {
  const answer = await fetch(address);
  const headers = { "content-type": "text/html; charset=utf-8", "content-security-policy": answer.headers.get("content-security-policy") };
  const current = { status: night() };
  const server = await serve({ headers, body: await answer.text() }, current);
  const visitRaw = (status, options) => {
    current.status = status;
    return open(browser, server.url, options);
  };
  const visit = async (status, options) => {
    const view = await visitRaw(status, options);
    const shown = () => view.page.evaluate(() => document.querySelectorAll("article").length);
    await sees("the cards", async () => ((n) => n === status.feeds.length || n)(await shown()));
    return view;
  };
  try {
    for (const colorScheme of ["light", "dark"]) {
      for (const status of [night(), odd()]) await passesTheRules(await visit(status, { colorScheme, ...STILL }));
    }
    for (const colorScheme of ["light", "dark"]) await passesTheRules(await loses(await visit(night(), { colorScheme, ...STILL })));
    await staysText(await visit(odd()));
    await worksByKeyboard(await visit(night()));
    await remembersTheTheme(await visit(night()));
    for (const width of [360, 320]) await fitsAPhone(await visit(odd(), { viewport: { width, height: 740 }, hasTouch: true, isMobile: true }));
    await followsTheStream(await visit(night()), current, server);
    for (const status of [{}, { feeds: [] }, { feeds: [{}], version: 7 }]) await bears(await visitRaw(status));
    await keepsStill(await visit(night(), STILL));
    await pollsWithoutAStream(await ((current.streams = false), visit(calm())), current);
    current.streams = true;
    if (process.env.OPSHIP_BLESS) await takePictures(visit);
  } finally {
    server.close();
  }
}

const unfold = (page) => page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));

async function clean({ context, wrong, refused }) {
  assert.deepEqual([wrong, await refused()], [[], []], "errors, refusals or requests to elsewhere");
  await context.close();
}

/** The rules of WCAG 2.2 AA, contrast among them, with everything unfolded. */
async function passesTheRules(view) {
  await unfold(view.page);
  await view.page.evaluate(AXE);
  const found = await view.page.evaluate((values) => axe.run(document, { runOnly: { type: "tag", values } }), RULES);
  const told = ({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html.slice(0, 120)} ${node.any[0]?.message ?? ""}`).join("\n  ")}`;
  assert.deepEqual(found.violations.map(told), []);
  assert.deepEqual(found.incomplete.filter(({ id }) => id === "color-contrast").map(told), [], "contrast that could not be measured");
  const measured = found.passes.find(({ id }) => id === "color-contrast").nodes.length;
  assert.ok(measured > 60, `only ${measured} texts were measured`);
  await view.context.close();
}

/** The page as it is while the agent cannot be reached: no colour says that all is well. */
async function loses(view) {
  const { page } = view;
  const background = (one) => page.evaluate((one) => getComputedStyle(document.querySelector(one)).backgroundColor, one);
  await page.route("**/status.json", (route) => route.abort());
  await page.evaluate(() => lose(new Error()));
  assert.equal(await background("#health"), await background(".badge"), "health and feeds in the same colour of nothing");
  assert.match(await page.evaluate(() => getComputedStyle(document.querySelector("#state"), "::before").content), /Last known/);
  return view;
}

async function staysText(view) {
  const { page } = view;
  assert.equal(await page.locator("main img, main script").count(), 0);
  assert.match(await page.locator("#summary").textContent(), /^<img src=x onerror/);
  assert.equal(await page.title(), "Broken - opship");
  const bare = page.locator("article").last();
  assert.equal(await bare.locator("[data-slot=health]").textContent(), "–");
  assert.deepEqual([...new Set(await bare.locator(".figures dd").allTextContents())], ["–"], "what is not told is a dash");
  const names = await page.locator(".badge").allTextContents();
  assert.deepEqual(names.slice(0, 9), ["Good", "Starting", "Catching up", "Standby", "Waiting", "Broken", "Stopped", "Silent", "dozing"]);
  await clean(view);
}

/** Tab alone comes to every control, each shows that it has the focus, and each does its work. */
async function worksByKeyboard(view) {
  const { page } = view;
  const controls = await page.evaluate(() => {
    const all = [...document.querySelectorAll("a[href], button, summary, [tabindex='0']")].filter((one) => one.checkVisibility());
    all.forEach((one, number) => (one.dataset.number = number));
    return all.length;
  });
  const reached = [];
  for (let i = 0; i < controls; i++) {
    await page.keyboard.press("Tab");
    const [number, outline] = await page.evaluate(() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return [document.activeElement.dataset.number, `${outlineStyle} ${outlineWidth}`];
    });
    assert.equal(outline, "solid 3px", `control ${number} shows its focus`);
    reached.push(Number(number));
  }
  assert.deepEqual(reached, Array.from({ length: controls }, (_, i) => i), "in the order of the page");

  await page.locator("#theme").focus();
  await page.keyboard.press("Space");
  assert.equal(await page.locator("#theme").textContent(), "Theme: light");
  await page.locator("#unwell a").first().focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "apac / signinattempts");
  await page.locator("#config summary").focus();
  await page.keyboard.press("Enter");
  assert.ok(await page.locator("#config-text").isVisible());
  await clean(view);
}

async function remembersTheTheme(view) {
  const { page } = view;
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  await page.locator("#theme").click();
  await page.locator("#theme").click();
  assert.equal(await page.locator("#theme").textContent(), "Theme: dark");
  const dark = await background();
  assert.notEqual(dark, light);
  await page.reload();
  assert.deepEqual([await page.locator("#theme").textContent(), await background()], ["Theme: dark", dark]);
  await clean(view);
}

async function fitsAPhone(view) {
  await unfold(view.page);
  const [needs, has] = await view.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(needs <= has, `${needs} px of content on ${has} px`);
  await clean(view);
}

async function keepsStill(view) {
  const moving = await view.page.evaluate(() => {
    const moves = ({ transitionDuration, animationName }) => transitionDuration !== "0s" || animationName !== "none";
    return [...document.querySelectorAll("*")].filter((one) => moves(getComputedStyle(one))).length;
  });
  assert.equal(moving, 0);
  await clean(view);
}

/** News come without a reload, and the focus stays where it is; another version of the agent brings another page. */
async function followsTheStream(view, current, server) {
  const { page } = view;
  await page.evaluate(() => (window.loadedOnce = true));
  const link = page.locator("#unwell a").last();
  await link.focus();
  const name = await link.textContent();
  const feeds = current.status.feeds.map((feed, i) => (i ? feed : { ...feed, health: "stopped" }));
  const tell = (changes) => ((current.status = { ...current.status, ...changes }), server.push());
  tell({ feeds });
  await sees("one more link", async () => ((n) => n === 3 || n)(await page.locator("#unwell a").count()));
  assert.equal(await page.evaluate(() => document.activeElement.textContent), name);
  tell({ feeds: feeds.slice(1) });
  await sees("one card less", async () => ((n) => n === 5 || n)(await page.locator("article").count()));
  assert.equal(await page.evaluate(() => window.loadedOnce), true);
  const again = page.waitForEvent("load");
  tell({ version: "9.9.9" });
  await again;
  await sees("the new version", async () => (await page.locator("#version").textContent()) === "9.9.9");
  await clean(view);
}

/** A document that lacks nearly everything is shown as far as it goes. */
async function bears(view) {
  const { page } = view;
  const feeds = await page.evaluate(() => fetch("status.json").then((answer) => answer.json())).then((status) => status.feeds?.length ?? 0);
  await sees("the state", async () => ["No feeds", "–"].includes(await page.locator("#state").textContent()));
  assert.equal(await page.locator("#summary").textContent(), "–");
  assert.equal(await page.locator("article").count(), feeds);
  await clean(view);
}

async function pollsWithoutAStream(view, current) {
  const { page } = view;
  await sees("that it asks", async () => /^Asks every/.test(await page.locator("#link-text").textContent()));
  current.status = { ...current.status, summary: "Told by the next answer." };
  await sees("the next answer", async () => (await page.locator("#summary").textContent()) === "Told by the next answer.");
  assert.ok(view.wrong.every((line) => line.includes("404")), String(view.wrong));
  await view.context.close();
}

const AT_NIGHT = Date.parse("2026-11-23T03:07:12Z");

async function takePictures(visit) {
  fs.mkdirSync(PICTURES, { recursive: true });
  const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, ...STILL };
  const wide = { viewport: { width: 1280, height: 966 }, ...STILL };
  for (const [name, options] of [["dark", wide], ["light", wide], ["phone", phone]]) {
    const colorScheme = name === "light" ? "light" : "dark";
    const { page, context } = await visit(night(AT_NIGHT), { ...options, colorScheme });
    await sees("the stream", async () => (await page.locator("#link-text").textContent()) === "Live");
    await page.screenshot({ path: path.join(PICTURES, `status-${name}.png`) });
    await context.close();
  }
}
