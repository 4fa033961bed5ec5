// The soak itself: the program between a simulator with faults and a person who looks at it every two seconds.
// `schedule.every` is at least 1 s: with three feeds that is three polls a second, each with its overlap sweep.
import { spawn } from "node:child_process";
import { appendFileSync, closeSync, existsSync, fstatSync, mkdirSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { plot } from "./plot.mjs";

const [minutes, commit] = [Number(process.argv[2]), process.argv[3]];
const SAMPLE_MS = 2000;
/// Allocators, caches and connection pools fill at first; shorter runs look at their second half.
const WARM_UP_S = 180;
const SLOPE_MAX = 1;
const SLOPE_COUNTS_FROM_MINUTES = 20;
const FDS_GROWTH_MAX = 5;
/// The simulator makes two events a second: more would fill the ledger's cache, which has a limit, and look like a leak.
const LIVE = "2";
const FAULTS = [
  { on: "events", probability: 0.02, what: { status: { status: 429, retry_after: { seconds: 2 } } } },
  { on: "events", probability: 0.02, what: { status: { status: 503 } } },
  { on: "events", probability: 0.05, what: { delay: { ms: 700 } } },
  { on: "events", probability: 0.01, what: "reset-in-body" },
  { on: "events", body: "cursor", probability: 0.005, what: { status: { status: 400 } } },
  { on: "ingestion", probability: 0.02, what: { status: { status: 503 } } },
  { on: "ingestion", probability: 0.02, what: { status: { status: 429, retry_after: { seconds: 1 } } } },
  { on: "ingestion", probability: 0.02, what: "accept-then-reset" },
  { on: "ingestion", probability: 0.02, what: { delay: { ms: 900 } } },
];

const home = "target/soak";
rmSync(home, { recursive: true, force: true });
for (const folder of [home, "docs/img"]) mkdirSync(folder, { recursive: true });
writeFileSync(`${home}/faults.json`, JSON.stringify(FAULTS));

const binary = "target/release/opship";
const children = [];
const start = (args, env, stdio) => {
  const child = spawn(binary, args, { env, stdio });
  child.ended = new Promise((resolve) => child.on("exit", (code) => resolve(code)));
  children.push(child);
  return child;
};
process.on("exit", () => children.forEach((child) => child.exitCode === null && child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));

const rowsOut = `${home}/rows.ndjson`;
const sim = start(
  ["sim", "--history", "1000", "--live", LIVE, "--late-share", "0.05", "--late-max", "30s", "--faults", `${home}/faults.json`, "--rows-out", rowsOut],
  {},
  ["ignore", "pipe", openSync(`${home}/sim.log`, "w")],
);
const lines = createInterface({ input: sim.stdout });
const { url, environment } = JSON.parse((await lines[Symbol.asyncIterator]().next()).value);
const control = async (method, path) => (await fetch(`${url}/sim/${path}`, { method })).text();

writeFileSync(`${home}/opship.toml`, `[schedule]\nevery = "1s"\n[store]\nkind = "file"\npath = "${home}/state"\n`);
/// The agent's own count: nobody but root may look into the process.
async function descriptors() {
  const metrics = await (await fetch(`http://${admin}/metrics`)).text();
  return Number(/^process_open_fds (\d+)/m.exec(metrics)[1]);
}

const agent = start(["run", "--config", `${home}/opship.toml`], {
  ...environment,
  OPSHIP_LOG__LEVEL: "info,opship::agent::run=debug",
  OPSHIP_LOG__FORMAT: "json",
  OPSHIP_ADMIN__LISTEN: "127.0.0.1:0",
}, ["ignore", "ignore", "pipe"]);

let [polls, tasks, admin] = [0, 0, ""];
const log = openSync(`${home}/agent.log`, "w");
createInterface({ input: agent.stderr }).on("line", (line) => {
  if (line.includes('"opship starts"')) admin = new URL(JSON.parse(line).admin).host;
  if (!line.includes('"tick done"')) return void appendFileSync(log, `${line}\n`);
  polls += 1;
  tasks = JSON.parse(line).tasks;
});

/// The time of the newest event among the accepted rows, read on from where it was.
const newest = { at: 0, offset: 0, rest: "" };
function lagSeconds() {
  if (existsSync(rowsOut)) {
    const file = openSync(rowsOut);
    const more = Buffer.alloc(fstatSync(file).size - newest.offset);
    newest.offset += readSync(file, more, 0, more.length, newest.offset);
    closeSync(file);
    const rows = (newest.rest + more.toString()).split("\n");
    newest.rest = rows.pop();
    for (const row of rows) {
      const { log_source, timestamp } = JSON.parse(row);
      if (log_source !== "healthevents") newest.at = Math.max(newest.at, Date.parse(timestamp) || 0);
    }
  }
  return newest.at === 0 ? 0 : (Date.now() - newest.at) / 1000;
}

async function sample(began) {
  const status = readFileSync(`/proc/${agent.pid}/status`, "utf8");
  const number = (name) => Number(new RegExp(`^${name}:\\s*(\\d+)`, "m").exec(status)[1]);
  const fds = await descriptors();
  const seconds = (Date.now() - began) / 1000;
  return { seconds, rss_mib: number("VmRSS") / 1024, fds, threads: number("Threads"), tasks, lag_s: lagSeconds(), polls };
}

const began = Date.now();
const samples = [];
writeFileSync(`${home}/soak.csv`, "seconds,rss_mib,fds,threads,tasks,lag_s,polls\n");
while (Date.now() - began < minutes * 60_000) {
  await sleep(SAMPLE_MS);
  if (agent.exitCode !== null || sim.exitCode !== null) {
    console.error(`a process ended by itself, see ${home}/agent.log and ${home}/sim.log`);
    process.exit(1);
  }
  const now = await sample(began);
  samples.push(now);
  appendFileSync(`${home}/soak.csv`, Object.values(now).map((value) => Number(value.toFixed(2))).join(",") + "\n");
}

await control("DELETE", "faults");
await control("POST", "generator/stop");
const none = (missing) => Object.values(JSON.parse(missing)).every((uuids) => uuids.length === 0);
for (let i = 0; i < 120 && !none(await control("GET", "missing")); i += 1) await sleep(1000);
const compared = JSON.parse(await control("GET", "compare"));
agent.kill("SIGTERM");
const code = await agent.ended;
sim.kill("SIGTERM");
await sim.ended;

const warmUp = minutes * 60 > 2 * WARM_UP_S ? WARM_UP_S : minutes * 30;
const steady = samples.filter((one) => one.seconds >= warmUp);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const percentile = (values, share) => values.toSorted((a, b) => a - b)[Math.ceil(values.length * share) - 1];
const [x, y] = [mean(steady.map((one) => one.seconds)), mean(steady.map((one) => one.rss_mib))];
const up = steady.reduce((sum, one) => sum + (one.seconds - x) * (one.rss_mib - y), 0);
const across = steady.reduce((sum, one) => sum + (one.seconds - x) ** 2, 0);
const slope = (up / across) * 3600;
const third = Math.ceil(steady.length / 3);
const fds = (part) => percentile(part.map((one) => one.fds), 0.5);
const growth = fds(steady.slice(-third)) - fds(steady.slice(0, third));
const max = (name) => Math.max(...samples.map((one) => one[name]));

const result = {
  commit, minutes, polls, rows: compared.rows, lost: compared.lost, copies: compared.duplicated,
  rss_start_mib: samples[0].rss_mib.toFixed(1), rss_max_mib: max("rss_mib").toFixed(1), slope_mib_per_hour: slope.toFixed(2),
  fds_max: max("fds"), threads_max: max("threads"), lag_p99_s: percentile(steady.map((one) => one.lag_s), 0.99).toFixed(1),
};
const folder = process.env.OPSHIP_PROOF_DIR;
const record = `${folder}/soak.csv`;
if (!existsSync(record)) writeFileSync(record, `${Object.keys(result).join(",")}\n`);
appendFileSync(record, `${Object.values(result).join(",")}\n`);
const picture = folder.endsWith("docs/proof") ? "docs/img/soak.png" : `${home}/soak.png`;
writeFileSync(picture, plot(samples, `OPSHIP ${commit}: ${minutes} MIN, ${polls} POLLS, ${result.rows} ROWS, ${result.lost} LOST, RSS ${result.slope_mib_per_hour} MIB/H`));
for (const [name, value] of Object.entries(result)) console.log(`${name.padEnd(20)}${value}`);
console.log(`slope: least squares over everything after the first ${warmUp} s; ${(polls / minutes / 60).toFixed(1)} polls a second`);

const failures = [
  [result.lost > 0 || compared.invented > 0, "events were lost or invented"],
  [minutes >= SLOPE_COUNTS_FROM_MINUTES && slope >= SLOPE_MAX, `memory grows by ${slope.toFixed(2)} MiB an hour`],
  [growth > FDS_GROWTH_MAX, `file descriptors grew by ${growth}`],
  [code !== 0, `the agent ended with ${code}`],
].filter(([failed]) => failed);
failures.forEach(([, why]) => console.error(`failed: ${why}`));
process.exit(failures.length > 0 ? 1 : 0);
