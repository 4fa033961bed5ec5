//! The admin server of the real program: what it tells whom, what it refuses, and that it never stands in the way of shipping.

use crate::agent::wait_until;
use crate::browse::{Answer, Browser};
use crate::edges::Edge;
use crate::raw::closed;
use crate::world::{World, history};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use opship::admin::status::Health;
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, Target, What, When};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(120);
const TOKEN: &str = "canary-admin-token-0123456789";
const PATHS: [&str; 6] = ["/", "/status.json", "/events", "/metrics", "/livez", "/readyz"];

fn refused(target: Target, status: u16) -> Fault {
    Fault::new(target, What::Status(Refusal::status(status)))
}

/// Nothing that a browser could do with the answer is allowed but what the page needs.
fn assert_locked_down(answer: &Answer) {
    let policy = answer.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn each_page_answers_and_tells_what_was_shipped() {
    let world = World::file(history(300)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    assert_eq!(browser.is_ready().await.body, "ok\n");
    assert_eq!(browser.get("/livez").await.body, "ok\n");
    let rows = world.rows().len() as u64;
    let status = browser.status().await;
    assert!(status.ready && status.feeds.len() == 3, "{status:?}");
    assert_eq!(status.summary, "All is well: 3 feeds ship.");
    assert_eq!((rows, status.feeds.iter().map(|feed| feed.rows).sum()), (300, 300));
    assert!(status.feeds.iter().all(|feed| feed.health == Health::Good && feed.reason.is_none()), "{status:?}");
    assert!(status.config.is_some_and(|config| config.contains("token = \"env:") && config.contains("[sink]")));
    let page = browser.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.starts_with("<!doctype html>"), "{page:?}");
    for path in PATHS {
        let head = browser.ask("HEAD", path, &[]).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_locked_down(&head);
    }
    assert_locked_down(&page);
    agent.stop().await.exits(0);
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let world = World::file(history(0)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
        let answer = browser.ask(method, "/status.json", &[]).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert_locked_down(&answer);
    }
    for path in ["/status", "/livez/", "//", "/../etc/passwd", "/%2e%2e/", "/metrics?x=1#"] {
        let found = browser.get(path).await.status;
        assert_eq!(found, if path.starts_with("/metrics?") { 200 } else { 404 }, "{path}");
    }
    for header in ["content-length: 5", "transfer-encoding: chunked"] {
        assert_eq!(browser.ask("GET", "/readyz", &[header]).await.status, 400, "{header}");
    }
    let as_host = async |host: &str| {
        let answer =
            browser.send(&format!("GET /status.json HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
        assert_locked_down(&answer);
        answer.status
    };
    for host in ["localhost", "127.0.0.1", "[::1]:1", "LOCALHOST:9464"] {
        assert_eq!(as_host(host).await, 200, "{host}");
    }
    for host in ["rebound.example", "rebound.example:9464", "localhost.rebound.example", "127.0.0.1.rebound.example"] {
        assert_eq!(as_host(host).await, 421, "{host}: a page elsewhere must not read this one");
    }
    assert_eq!(browser.send("GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await.status, 421, "no host at all");
    let long = format!("x-long: {}", "x".repeat(20_000));
    assert_eq!(browser.ask("GET", "/", &[&long]).await.status, 431);
    agent.stop().await.exits(0);
}

#[tokio::test]
async fn without_the_token_only_ok_or_not_ok_is_told() {
    let mut world = World::file(history(30)).await;
    let file = world.secret_file("admin", &format!("{TOKEN}\n"));
    world.secret(TOKEN).set("OPSHIP_ADMIN__TOKEN", format!("file:{}", file.display()));
    world.fault(refused(Target::Ingestion, 404));
    let agent = world.run();
    let browser = agent.browser().await;
    let bearer = format!("authorization: Bearer {TOKEN}");
    let basic = format!("authorization: Basic {}", BASE64_STANDARD.encode(format!("anyone:{TOKEN}")));
    let explained = browser.wait_for("/readyz", &[&bearer], SOON, |answer| answer.body.contains("an operator")).await;
    assert_eq!(explained.status, 503);
    assert_eq!(explained.body.lines().next(), Some("not ok"));
    assert_eq!(explained.body.lines().count(), 4, "a reason for each of the three feeds: {explained:?}");
    let bare = browser.get("/readyz").await;
    assert_eq!((bare.status, bare.body.as_str()), (503, "not ok\n"));
    assert_eq!(browser.ask("GET", "/readyz", &["accept: application/json"]).await.body, "not ok\n");
    assert_eq!(browser.get("/livez").await.body, "ok\n");
    for path in ["/", "/status.json", "/metrics", "/events", "/elsewhere", &format!("/?token={TOKEN}")] {
        for header in ["x: y", "authorization: Bearer wrong", "authorization: Basic eDp3cm9uZw==", "cookie: token=x"] {
            let answer = browser.ask("GET", path, &[header]).await;
            assert_eq!(answer.status, 401, "{path} {header}");
            let schemes = answer.headers("www-authenticate");
            assert!(
                schemes[0].starts_with("Basic realm=\"opship\"") && schemes[1].starts_with("Bearer"),
                "{schemes:?}"
            );
            assert!(!answer.body.contains("default/"), "{answer:?}");
            assert_locked_down(&answer);
        }
    }
    for right in [&bearer, &basic] {
        for path in ["/", "/status.json", "/metrics"] {
            let answer = browser.ask("GET", path, &[right]).await;
            assert_eq!(answer.status, 200, "{path}");
            assert!(!answer.body.contains(TOKEN), "{path}");
        }
    }
    agent.stop().await.exits(0);
}

#[tokio::test]
async fn readiness_names_the_reason_of_each_feed_and_comes_back_with_the_source() {
    let world = World::file(history(60)).await;
    world.fault(refused(Target::Events, 503));
    let agent = world.run();
    let browser = agent.browser().await;
    let starting = browser.get("/readyz").await;
    assert_eq!(starting.status, 503, "not ready before the first good tick");
    let names_it = |answer: &Answer| answer.body.matches("waits for 1Password").count() == 3;
    let broken = browser.wait_for("/readyz", &[], SOON, names_it).await;
    assert_eq!(broken.status, 503);
    for stream in Stream::ALL {
        let line = broken.body.lines().find(|line| line.starts_with(&format!("default/{stream}: "))).unwrap();
        assert!(line.contains("answered 503"), "{line}");
    }
    let json = browser.ask("GET", "/readyz", &["accept: application/json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.body).unwrap();
    assert_eq!((&json["ready"], json["not_ready"].as_array().unwrap().len()), (&false.into(), 3));
    let status = browser.status().await;
    assert!(!status.ready && status.summary.contains("try again by themselves"), "{}", status.summary);
    let feed = &status.feeds[0];
    assert!(
        feed.health == Health::Waiting && feed.remedy.as_ref().is_some_and(|it| it.contains("by itself")),
        "{feed:?}"
    );
    assert_eq!(browser.get("/livez").await.status, 200);
    world.sim.world().clear_faults();
    browser.is_ready().await;
    let healed = browser.status().await;
    assert!(healed.feeds.iter().all(|feed| feed.reason.is_none() && !feed.errors.is_empty()), "{healed:?}");
    agent.stop().await.exits(0);
    world.assert_exactly_once();
}

#[tokio::test]
async fn a_refused_token_makes_a_good_feed_unready_at_once_because_a_person_is_needed() {
    let world = World::file(history(30)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    browser.is_ready().await;
    world.sim.world().revoke_token();
    let answer = browser.wait_for("/readyz", &[], SOON, |answer| answer.status == 503).await;
    assert!(answer.body.contains("waits for a valid 1Password token"), "{answer:?}");
    let status = browser.status().await;
    let broken = status.feeds.iter().find(|feed| feed.health == Health::Broken).unwrap();
    assert!(broken.remedy.as_ref().is_some_and(|remedy| remedy.contains("issue a new one")), "{broken:?}");
    assert!(broken.next_tick.is_some_and(|next| next > status.now), "the next try is in five minutes: {broken:?}");
    assert!(status.summary.contains("person"), "{}", status.summary);
    agent.stop().await.exits(0);
}

#[tokio::test]
async fn the_process_counts_as_alive_while_everything_outside_is_down() {
    let mut world = World::file(history(30)).await;
    let nobody = format!("http://{}", closed());
    for edge in Edge::ALL {
        world.point(edge, &nobody);
    }
    let agent = world.run();
    let browser = agent.browser().await;
    let names_it = |answer: &Answer| answer.body.matches("waits for the store").count() == 3;
    let answer = browser.wait_for("/readyz", &[], SOON, names_it).await;
    assert_eq!(answer.status, 503);
    assert_eq!(browser.get("/livez").await.body, "ok\n");
    let status = browser.status().await;
    assert!(status.feeds.iter().all(|feed| feed.remedy.as_ref().is_some_and(|it| it.contains("store.container_url"))));
    agent.stop().await.exits(0);
}

#[tokio::test]
async fn a_port_in_use_costs_the_page_and_not_the_events() {
    let mut world = World::file(history(60)).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.set("OPSHIP_ADMIN__LISTEN", taken.local_addr().unwrap());
    let agent = world.run();
    wait_until("everything is shipped", SOON, || world.rows().len() == 60).await;
    let ran = agent.stop().await.exits(0);
    ran.says(&["no status page", "set admin.listen to another port", "\"admin\":\"none\""]);
    world.assert_exactly_once();
}

#[tokio::test]
async fn a_live_view_hears_of_each_change_and_ends_with_the_process() {
    let world = World::file(history(30)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    browser.is_ready().await;
    let mut live = browser.events().await;
    let first = live.next().await;
    let rows = |status: &opship::admin::status::Status| status.feeds.iter().map(|feed| feed.rows).sum::<u64>();
    assert_eq!(rows(&first), 30, "the whole document comes at once");
    world.sim.world().append(Stream::SigninAttempts, When::Now);
    let begun = Instant::now();
    let mut messages = 0;
    loop {
        let status = live.next().await;
        messages += 1;
        assert!(status.now >= first.now);
        if rows(&status) == 31 {
            break;
        }
    }
    assert!(messages <= begun.elapsed().as_secs() + 2, "at most one a second: {messages} in {:?}", begun.elapsed());
    let ended = agent.stop().await.exits(0);
    assert!(ended.took < Duration::from_secs(10), "an open view does not hold the process: {:?}", ended.took);
    assert!(live.ends().await);
}

#[tokio::test]
async fn slow_and_greedy_clients_harm_neither_the_probes_nor_the_shipping() {
    let world = World::file(history(30)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    let mut views = Vec::new();
    for _ in 0..16 {
        views.push(browser.events().await);
    }
    let one_more = browser.get("/events").await;
    assert_eq!((one_more.status, one_more.header("retry-after")), (503, Some("15")));
    drop(views.pop());
    // A closed view makes room; the server notices with its next message at the latest.
    let begun = Instant::now();
    while browser.ask("HEAD", "/events", &[]).await.status != 200 {
        assert!(begun.elapsed() < SOON, "a closed view still takes room");
    }
    // More half-sent heads than there is room for connections.
    let mut slow = Vec::new();
    for _ in 0..80 {
        let mut stream = TcpStream::connect(browser.0).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: loc").await.unwrap();
        slow.push(stream);
    }
    // Waits until the first of them have run into their deadline.
    assert_eq!(browser.get("/livez").await.body, "ok\n");
    let mut said = Vec::new();
    let _ = slow[0].read_to_end(&mut said).await;
    assert!(!String::from_utf8_lossy(&said).contains("200 OK"), "cut off, not answered");
    world.sim.world().append(Stream::AuditEvents, When::Now);
    wait_until("shipping goes on", SOON, || world.rows().len() == 31).await;
    drop((slow, views));
    agent.stop().await.exits(0);
}

/// Samples by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    lines.filter_map(pair).collect()
}

async fn scraped(browser: Browser) -> String {
    let answer = browser.get("/metrics").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4")));
    answer.body
}

/// `promtool check metrics`; scripts/promtool fetches it where it is missing.
fn assert_promtool_finds_nothing(text: &str) {
    let fetched = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/promtool");
    let otherwise = || if std::path::Path::new(fetched).exists() { fetched.into() } else { "promtool".into() };
    let promtool: String = std::env::var("PROMTOOL").unwrap_or_else(|_| otherwise());
    let mut child = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{promtool}: {error}; run scripts/promtool, which finds or fetches it"));
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let linted = child.wait_with_output().unwrap();
    let said = [linted.stdout, linted.stderr].concat();
    assert!(linted.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn metrics_pass_promtool_and_count_what_the_destination_accepted() {
    let world = World::file(history(700)).await;
    world.fault(refused(Target::Ingestion, 429).times(2));
    world.fault(refused(Target::Events, 500).times(1));
    let agent = world.run();
    let browser = agent.browser().await;
    assert_promtool_finds_nothing(&scraped(browser).await);
    browser.is_ready().await;
    let late = world.sim.world().append(Stream::AuditEvents, When::Now);
    wait_until("the new event is shipped", SOON, || world.sim.world().delivered(Stream::AuditEvents, &late) == 1).await;
    let counted = |answer: &Answer| {
        let rows = samples(&answer.body);
        rows.iter()
            .filter(|(name, _)| name.starts_with("opship_shipped_rows_total{"))
            .map(|(_, rows)| rows)
            .sum::<f64>()
            == 701.0
    };
    browser.wait_for("/metrics", &[], SOON, counted).await;
    let text = scraped(browser).await;
    assert_promtool_finds_nothing(&text);
    let samples = samples(&text);
    let sum = |prefix: &str, part: &str| -> f64 {
        samples.iter().filter(|(name, _)| name.starts_with(prefix) && name.contains(part)).map(|(_, value)| value).sum()
    };
    assert_eq!(sum("opship_shipped_rows_total", ""), world.rows().len() as f64);
    for stream in Stream::ALL {
        let arrived = world.rows().iter().filter(|row| row["log_source"] == stream.as_str()).count() as f64;
        assert_eq!(sum("opship_shipped_rows_total", stream.as_str()), arrived, "{stream}");
    }
    assert_eq!(sum("opship_throttles_total", "edge=\"sink\""), 2.0);
    assert_eq!(sum("opship_request_failures_total", "edge=\"sink\""), 2.0);
    assert_eq!(sum("opship_request_failures_total", "edge=\"source\""), 1.0);
    assert_eq!(sum("opship_request_failures_total", "edge=\"store\""), 0.0);
    assert_eq!((samples["opship_ready"], sum("opship_feed_state", "state=\"good\"")), (1.0, 3.0));
    assert_eq!(sum("opship_feed_state", ""), 3.0, "each feed is in one state");
    assert_eq!(sum("opship_event_lateness_seconds_count", ""), 1.0, "of the first read of old events nothing is told");
    assert!(samples["opship_request_budget_left{account=\"default\",window=\"hour\"}"] < 30_000.0);
    assert!(sum("opship_lag_seconds", "") < 60.0 && sum("opship_shipped_bytes_total", "") > 100_000.0);
    assert!(samples["process_resident_memory_bytes"] > 1e6 && samples["process_open_fds"] > 3.0);
    let named: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    // The program's own tests show that the table has every metric.
    let document = include_str!("../../docs/METRICS.md");
    let known: BTreeSet<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let missing: Vec<_> = known.difference(&named).collect();
    assert_eq!(missing, [&"opship_token_expiry_seconds"], "the simulator's token names no expiry date");
    assert!(named.is_subset(&known), "documented are {known:?}, scraped were {named:?}");
    agent.stop().await.exits(0);
}
