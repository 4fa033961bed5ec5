// A status document with every state in it, and a server that gives the agent's page other documents than the agent would.

import http from "node:http";

const STREAMS = ["auditevents", "itemusages", "signinattempts"];
const MINUTES = 6 * 60;

/** The same numbers every time. */
function dice(seed) {
  return () => ((seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648);
}

/** A feed that is well, with hours of history. */
export function feed(account, stream, now, changes = {}) {
  const time = (seconds) => new Date(now + seconds * 1e3).toISOString();
  const roll = dice([...`${account}/${stream}`].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7) % 65_521);
  const weight = { auditevents: 9, itemusages: 26, signinattempts: 5 }[stream] ?? 7;
  const begin = Math.floor(now / 6e4) - MINUTES + 1;
  const minutes = Array.from({ length: MINUTES }, (_, i) => {
    const day = 0.55 + 0.45 * Math.sin(i / 70 + weight);
    return { at: (begin + i) * 60, rows: Math.floor(weight * day * roll() * roll() * 3), lag_seconds: Math.floor(roll() * 3) };
  });
  const rows = Math.floor(41_112 + weight * 7013 * (0.6 + roll()));
  return {
    account, stream, health: "good", since: time(-19_020), reason: null, remedy: null, last_good: time(-14), next_tick: time(46),
    lag_seconds: 14, newest_shipped: time(-33), pages: Math.floor(3190 + 900 * roll()), rows, late: Math.floor(rows * weight * 0.0009), in_doubt_batches: 0,
    in_doubt_rows: 0, in_doubt_gone: 0, last_doubts: [], dead_letters: 0, open_intent: null, token_expires: time(83 * 86_400),
    checkpoint_written: time(-14), errors: [], minutes, ...changes,
  };
}

const CONFIG = `[accounts.emea]
token = "keyvault:https://contoso-soc.vault.azure.net/secrets/op-events-emea"
events_url = "https://events.1password.eu"
api = "v2"
streams = ["auditevents", "itemusages", "signinattempts"]

[schedule]
cron = "0 * * * * *"
overlap = "5m"
lookback = "30d"

[sink]
kind = "azure"
endpoint = "https://soc-logs-x1y2.westeurope-1.ingest.monitor.azure.com"
dcr_immutable_id = "dcr-2f1c3a5b7d9e4f60a1b2c3d4e5f60718"
stream = "Custom-OnePasswordEventLogs_CL"

[store]
kind = "azure-blob"
container_url = "https://contososoc.blob.core.windows.net/opship?***"

[admin]
listen = "0.0.0.0:9464"
token = "file:/run/credentials/admin"
`;

/** A night in a SOC: two accounts, one feed that needs a person, one that waits. */
export function night(now = Date.now()) {
  const time = (seconds) => new Date(now + seconds * 1e3).toISOString();
  const role = {
    what: "post a batch to dcr-2f1c3a5b7d9e4f60a1b2c3d4e5f60718: the destination answered 403 Forbidden",
    remedy: "give the identity the role Monitoring Metrics Publisher on the data collection rule; a new role takes up to 30 minutes",
  };
  const feature = {
    what: "read signinattempts: 1Password answered 401 Unauthorized, the token lacks the feature signinattempts",
    remedy: "issue a token with this feature in 1Password (Integrations, Events Reporting) and put it where accounts.apac.token points",
  };
  const busy = { what: "read itemusages: 1Password answered 503 Service Unavailable", remedy: "nothing to do: it is tried again after 0.5 to 60 s" };
  const lagging = (minutes, from) => minutes.map((minute, i) => (i < MINUTES - from ? minute : { ...minute, rows: 0, lag_seconds: (i - MINUTES + from) * 60 }));
  const doubt = (batch_id, rows, attempt, why, seconds) => ({ batch_id, rows, attempt, why, at: time(seconds) });
  const [emea, apac] = ["emea", "apac"].map((account) => STREAMS.map((stream) => feed(account, stream, now)));
  Object.assign(emea[0], {
    in_doubt_batches: 2, in_doubt_rows: 531,
    last_doubts: [
      doubt("cc9dcc215ef24909e90116871b2a1c6e", 500, 2, "the destination answered 500", -51_300),
      doubt("4b1f07aa93de4c56b0c1d2e3f4a5b6c7", 31, 2, "a process ended or was replaced", -9000),
    ],
  });
  Object.assign(emea[1], { dead_letters: 1, since: time(-250) });
  Object.assign(emea[1], { errors: [{ at: time(-310), times: 4, waiting_for: "1Password", ...busy }] });
  Object.assign(apac[1], {
    health: "waiting", since: time(-1500), reason: role.what, remedy: role.remedy, last_good: time(-1514), next_tick: time(21), lag_seconds: 1514,
    errors: [{ at: time(-39), times: 25, waiting_for: "the destination", ...role }], minutes: lagging(apac[1].minutes, 25),
    open_intent: { batch_id: "9a7be01c52f84d1e8c3b6a5f4e3d2c1b", kind: "cursor", rows: 212, attempt: 25 },
  });
  Object.assign(apac[2], {
    health: "broken", since: time(-6300), reason: feature.what, remedy: feature.remedy, last_good: time(-6312), next_tick: time(172), lag_seconds: 6312,
    errors: [{ at: time(-128), times: 21, waiting_for: "a valid 1Password token", ...feature }], minutes: lagging(apac[2].minutes, 105),
  });
  for (const one of apac) one.token_expires = time(9.4 * 86_400);
  return {
    from: "agent", version: "0.1.0", now: time(0), started: time(-189_300), ready: false,
    summary: "apac/signinattempts needs a person: the 1Password token lacks the feature signinattempts.",
    feeds: [...apac, ...emea], config: CONFIG,
  };
}

/** All is well with one account. */
export function calm(now = Date.now()) {
  const feeds = STREAMS.map((stream) => feed("default", stream, now));
  const summary = "All 3 feeds are shipping; the table lacks nothing older than 14 s.";
  return { ...night(now), ready: true, summary, feeds };
}

/** Every state that is known and one that is not, fields that are missing, text that would be markup elsewhere. */
export function odd(now = Date.now()) {
  const states = ["good", "starting", "catching-up", "standby", "waiting", "broken", "stopped", "silent", "dozing"];
  const feeds = states.map((health) => feed("a-rather-long-account-name", health, now, { stream: `auditevents-${health}`, health }));
  const markup = `<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>`;
  feeds[4] = { ...feeds[4], reason: markup, remedy: markup, errors: [{ at: feeds[4].since, times: 2, what: markup, waiting_for: markup, remedy: markup }] };
  feeds[5].reason = "x".repeat(3000);
  const expired = { token_expires: new Date(now - 60e3).toISOString() };
  return { ...night(now), summary: markup, feeds: [...feeds.slice(0, 8), { ...feeds[8], ...expired }, { account: "bare", stream: "feed" }], more: 1 };
}

/** Serves `page` (the agent's own answer to `/`) with the document that `current.status` holds; `push` tells it to every stream. */
export async function serve(page, current) {
  const streams = new Set();
  const server = http.createServer((request, answer) => {
    if (request.url === "/") answer.writeHead(200, page.headers).end(page.body);
    else if (request.url === "/status.json") answer.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(current.status));
    else if (request.url === "/events" && current.streams !== false) {
      answer.writeHead(200, { "content-type": "text/event-stream" });
      answer.write(`data: ${JSON.stringify(current.status)}\n\n`);
      streams.add(answer);
    } else answer.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    push: () => streams.forEach((stream) => stream.write(`data: ${JSON.stringify(current.status)}\n\n`)),
    close: () => (server.closeAllConnections(), server.close()),
  };
}
