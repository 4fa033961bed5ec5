// One headless Chromium with an empty profile, and pages that write down whatever goes wrong in them.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { chromium } from "playwright-core";

const home = path.join(import.meta.dirname, "node_modules/.chromium");
// The package's own is for Linux on x86-64; elsewhere a Chromium of the machine does.
const OTHER = process.env.OPSHIP_CHROMIUM;
const executablePath = OTHER ?? path.join(home, "chromium");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
const PATIENCE = 40e3; // a loaded machine takes its time

/** Runs `look` with a browser that is gone afterwards, with its files. */
export async function withBrowser(look) {
  if (!fs.existsSync(executablePath)) throw new Error("Chromium is not installed: run scripts/browser");
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "opship-browser-"));
  const own = OTHER ? {} : { LD_LIBRARY_PATH: path.join(home, "lib"), FONTCONFIG_FILE: path.join(home, "fonts.conf") };
  const env = { PATH: process.env.PATH, HOME: folder, TMPDIR: folder, ...own };
  const args = [...FLAGS, "--disable-component-update", "--disable-sync"];
  const browser = await chromium.launch({ executablePath, args, env, artifactsDir: folder });
  try {
    return await look(browser);
  } finally {
    await browser.close();
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/** A page at `url` and the list of what went wrong in it: errors, refusals by its policy, requests to elsewhere. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en-GB", ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => request.url().startsWith(new URL("/", url).href) || request.url().startsWith("data:") || wrong.push(`a request to ${request.url()}`));
  await page.addInitScript(() => {
    window.refused = [];
    document.addEventListener("securitypolicyviolation", (event) => window.refused.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  page.setDefaultTimeout(PATIENCE);
  const answer = await page.goto(url);
  return { page, context, answer, wrong, refused: () => page.evaluate(() => window.refused) };
}

/** Looks again and again until it sees what it is to see. */
export async function sees(what, look, deadline = PATIENCE) {
  const begun = Date.now();
  for (;;) {
    const seen = await look();
    if (seen === true) return;
    assert.ok(Date.now() - begun < deadline, `${what}: not within ${deadline / 1e3} s; last seen: ${JSON.stringify(seen)}`);
    await pause(50);
  }
}
