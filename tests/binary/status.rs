//! `opship status`: the table, the document and the exit code, from the process and from the store.

use crate::agent::wait_until;
use crate::raw::{Raw, closed};
use crate::world::{Kind, World, feed, history};
use opship::admin::status::{Health, Origin, Status};
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, Target, What};
use opship::store::Expect;
use opship::store::checkpoints::Checkpoints;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(120);
const TOKEN: &str = "canary-status-token-0123456789";

both_stores! {
    without_a_process_the_checkpoints_tell
    a_checkpoint_that_is_foreign_or_unreadable_is_told_with_the_next_step
}

fn document(text: &str) -> Status {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

impl World {
    /// `opship status` would ask a process at a port where nobody listens.
    fn alone(&mut self) -> &mut Self {
        self.set("OPSHIP_ADMIN__LISTEN", closed())
    }
}

#[tokio::test]
async fn the_running_process_is_asked_and_told_of_a_row_a_feed() {
    let mut world = World::file(history(1200)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    browser.is_ready().await;
    world.set("OPSHIP_ADMIN__LISTEN", browser.0);
    let ran = world.cli(&["status"]).await.exits(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "All is well: 3 feeds ship.");
    assert!(lines[1].contains(env!("CARGO_PKG_VERSION")) && lines[1].contains(&browser.0.to_string()), "{}", lines[1]);
    assert!(lines[3].starts_with("FEED") && lines[3].ends_with("DEAD"), "{}", lines[3]);
    assert_eq!(lines.len(), 7, "nothing is wrong, so nothing follows: {}", ran.stdout);
    assert!(lines[4].starts_with("default/auditevents") && lines[4].contains("good"), "{}", lines[4]);
    assert!(lines[4].contains(" 600 "), "half of the history are audit events: {}", lines[4]);
    let end = |line: &str| line.len();
    assert!(lines[3..].windows(2).all(|two| end(two[0]) == end(two[1])), "aligned:\n{}", ran.stdout);
    assert!(!ran.stdout.contains('\u{1b}'), "no colours but on a terminal");
    let status = document(&world.cli(&["status", "--output", "json"]).await.exits(0).stdout);
    assert_eq!((status.from, status.ready, status.feeds.len()), (Origin::Agent, true, 3));
    agent.stop().await.exits(0);
}

#[tokio::test]
async fn a_feed_in_trouble_exits_1_and_says_what_to_do() {
    let mut world = World::file(history(30)).await;
    world.fault(Fault::new(Target::Ingestion, What::Status(Refusal::status(404))));
    let agent = world.run();
    let browser = agent.browser().await;
    browser.wait_for("/readyz", &[], SOON, |answer| answer.body.matches("an operator").count() == 3).await;
    world.set("OPSHIP_ADMIN__LISTEN", browser.0);
    let ran = world.cli(&["status"]).await.exits(1).says(&["broken", "waits for an operator", "what to do: "]);
    assert!(ran.stdout.starts_with("All 3 feeds need a person: "), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("sink.dcr_immutable_id").count(), 3, "a remedy for each feed: {}", ran.stdout);
    agent.stop().await.exits(0);
}

async fn without_a_process_the_checkpoints_tell(kind: Kind) {
    let mut world = World::new(kind, history(90)).await;
    let before = world.alone().cli(&["status"]).await.exits(1);
    match kind {
        Kind::File => _ = before.says(&["does not answer", "there is no folder", "opship run"]),
        Kind::Blob => _ = before.says(&["does not answer", "starting", "no checkpoint of this feed yet", "opship run"]),
    }
    world.once().await.exits(0);
    let ran = world.cli(&["status"]).await.exits(1).says(&["silent", "no process answers", "--from-store"]);
    assert!(ran.stdout.starts_with("All 3 feeds are silent, is opship running?"), "{}", ran.stdout);
    assert!(ran.stderr.contains("does not answer") && ran.stderr.contains("in the store instead"), "{}", ran.stderr);
    assert!(ran.stdout.contains("told by the checkpoints in "), "{}", ran.stdout);
    let status = document(&world.cli(&["status", "--from-store", "--output", "json"]).await.exits(0).stdout);
    assert_eq!((status.from, status.ready, status.config), (Origin::Store, true, None));
    assert_eq!(status.feeds.iter().map(|feed| feed.rows).sum::<u64>(), 90);
    assert!(status.feeds.iter().all(|feed| feed.newest_shipped.is_some() && feed.open_intent.is_none()));
}

#[tokio::test]
async fn a_store_that_nobody_wrote_for_an_hour_is_silent() {
    let mut world = World::file(history(30)).await;
    world.alone().once().await.exits(0);
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    for stream in Stream::ALL {
        for ending in ["json", "prev.json"] {
            let path = world.home.path().join(format!("state/checkpoints/default/{stream}.{ending}"));
            std::fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
    }
    let ran = world.cli(&["status", "--from-store"]).await.exits(1).says(&["silent", "nothing was written for 60 min"]);
    assert!(
        ran.stdout.starts_with("All 3 feeds are silent, is opship running? nothing was written for 60 min"),
        "{}",
        ran.stdout
    );
    // A timer that ticks once a day writes as rarely.
    world.set("OPSHIP_SCHEDULE__CRON", "0 0 6 * * *");
    world.cli(&["status", "--from-store"]).await.exits(0).says(&["good"]);
}

async fn a_checkpoint_that_is_foreign_or_unreadable_is_told_with_the_next_step(kind: Kind) {
    let mut world = World::new(kind, history(60)).await;
    world.alone().once().await.exits(0);
    let store = world.store().await;
    let other = store.get(&Checkpoints::key(&feed(Stream::AuditEvents))).await.unwrap().unwrap().bytes;
    let put = async |stream, bytes: bytes::Bytes| {
        store.put(&Checkpoints::key(&feed(stream)), bytes, Expect::Anything).await.unwrap();
    };
    put(Stream::ItemUsages, other.clone()).await;
    put(Stream::SigninAttempts, other.slice(..other.len() / 2)).await;
    let ran = world.cli(&["status", "--from-store"]).await.exits(1);
    let ran = ran.says(&[
        "belongs to default/auditevents",
        "is unreadable",
        "what to do: start opship: it puts this document aside",
    ]);
    assert!(ran.stdout.starts_with("2 of 3 feeds need a person"), "{}", ran.stdout);
    let unchanged = store.get(&Checkpoints::key(&feed(Stream::ItemUsages))).await.unwrap().unwrap().bytes;
    assert_eq!(unchanged, other, "looking changes nothing");
    world.set("OPSHIP_SINK__DCR_IMMUTABLE_ID", "dcr-ffffffffffffffffffffffffffffffff");
    let ran = world.cli(&["status", "--from-store"]).await.exits(1);
    ran.says(&["belongs to another destination", "opship checkpoint adopt"]);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_named_with_what_to_check() {
    let mut world = World::file(history(0)).await;
    world.alone().point(crate::edges::Edge::Store, &format!("http://{}", closed()));
    let ran = world.cli(&["status"]).await.exits(1).says(&["does not answer", "store.container_url"]);
    assert_eq!(ran.stdout, "", "no half table");
}

#[tokio::test]
async fn a_wrong_token_is_told_and_not_hidden_behind_the_store() {
    let mut world = World::file(history(30)).await;
    let (right, wrong) = (world.secret_file("right", TOKEN), world.secret_file("wrong", "another-token-that-is-long"));
    world.secret(TOKEN).set("OPSHIP_ADMIN__TOKEN", format!("file:{}", right.display()));
    let agent = world.run();
    let browser = agent.browser().await;
    let bearer = format!("authorization: Bearer {TOKEN}");
    browser.wait_for("/readyz", &[&bearer], SOON, |answer| answer.status == 200).await;
    world.set("OPSHIP_ADMIN__LISTEN", browser.0);
    world.cli(&["status"]).await.exits(0).says(&["All is well"]);
    world.set("OPSHIP_ADMIN__TOKEN", format!("file:{}", wrong.display()));
    let refused =
        world.cli(&["status"]).await.exits(1).says(&["does not know the token", "set admin.token", "--from-store"]);
    assert_eq!(refused.stdout, "");
    world.unset("OPSHIP_ADMIN__TOKEN").cli(&["status"]).await.exits(1).says(&["demands a token"]);
    world.cli(&["status", "--from-store"]).await.exits(0);
    world
        .set("OPSHIP_ADMIN__TOKEN", "env:NOT_SET_ANYWHERE")
        .cli(&["status"])
        .await
        .exits(77)
        .says(&["NOT_SET_ANYWHERE"]);
    agent.stop().await.exits(0);
}

#[tokio::test]
async fn what_answers_and_is_not_opship_is_called_so() {
    let mut world = World::file(history(30)).await;
    world.once().await.exits(0);
    for answer in ["HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n{}"] {
        let stranger = Raw::always(None, answer).await;
        world.set("OPSHIP_ADMIN__LISTEN", stranger.url().trim_start_matches("http://"));
        world.cli(&["status"]).await.exits(1).says(&["not", "opship", "check admin.listen", "in the store instead"]);
    }
    world.set("OPSHIP_ADMIN__LISTEN", "127.0.0.1:0").cli(&["status"]).await.exits(0).says(&["port 0"]);
    world.unset("OPSHIP_STORE__KIND").unset("OPSHIP_STORE__PATH");
    world.cli(&["status"]).await.exits(64).says(&["there is no [store]"]);
}

/// Fault: another program holds the port of the admin server: it answers well, demands a token, or makes a proof up. Shows: `status` and `diagnostics` send it no token; opship's own server gets it.
#[tokio::test]
async fn fm_75_the_admin_token_goes_to_no_server_that_is_not_opship_s_own() {
    let mut world = World::file(history(30)).await;
    let token = world.secret_file("right", TOKEN);
    world.secret(TOKEN).set("OPSHIP_ADMIN__TOKEN", format!("file:{}", token.display())).once().await.exits(0);
    for answer in [
        "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 401 X\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 X\r\nx-opship-proof: 00ff\r\ncontent-length: 3\r\n\r\nok\n",
    ] {
        let stranger = Raw::always(None, answer).await;
        world.set("OPSHIP_ADMIN__LISTEN", stranger.url().trim_start_matches("http://"));
        world.cli(&["status"]).await.exits(1).says(&["so the token was not sent"]);
        world.cli(&["diagnostics", "--out", "bundle.tar.gz"]).await.exits(0);
        std::fs::remove_file(world.home.path().join("bundle.tar.gz")).unwrap();
        let heads = stranger.heads();
        assert!(heads.len() >= 2 && heads.iter().all(|head| head.contains("GET ")), "{heads:?}");
        for head in heads {
            assert!(!head.contains(TOKEN) && !head.to_lowercase().contains("authorization"), "{head}");
        }
    }
    world.set("OPSHIP_ADMIN__LISTEN", "127.0.0.1:0");
    let agent = world.run();
    let browser = agent.browser().await;
    browser.wait_for("/readyz", &[], SOON, |answer| answer.status == 200).await;
    world.set("OPSHIP_ADMIN__LISTEN", browser.0);
    world.cli(&["status"]).await.exits(0).says(&["All is well"]);
    agent.stop().await.exits(0);
}

/// Fault: a program holds the port of the admin server and hands everything on to the real one at another port. Shows: the proof does not hold there, and no token is sent.
#[tokio::test]
async fn fm_75_a_proof_that_is_handed_on_from_another_port_does_not_hold() {
    let mut world = World::file(history(30)).await;
    let token = world.secret_file("right", TOKEN);
    world.secret(TOKEN).set("OPSHIP_ADMIN__TOKEN", format!("file:{}", token.display()));
    let agent = world.run();
    let browser = agent.browser().await;
    // It listens before it has read the token, and proves nothing until then.
    browser.wait_for("/readyz", &[], SOON, |answer| answer.status == 200).await;
    let real = browser.0;
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = heard.clone();
    let between = Raw::wire(move |mut client| {
        let kept = kept.clone();
        async move {
            let mut server = tokio::net::TcpStream::connect(real).await.unwrap();
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let back = tokio::io::copy(&mut from_server, &mut to_client);
            let forth = async {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    kept.lock().unwrap().extend_from_slice(&buffer[..length]);
                    to_server.write_all(&buffer[..length]).await.unwrap();
                }
            };
            tokio::select! { _ = back => {}, () = forth => {} }
        }
    })
    .await;
    world.set("OPSHIP_ADMIN__LISTEN", between.address);
    world.cli(&["status"]).await.exits(1).says(&["listens at another port", "so the token was not sent"]);
    let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    assert!(heard.contains("x-opship-challenge") && !heard.contains(TOKEN), "{heard}");
    agent.stop().await.exits(0);
}

#[tokio::test]
async fn watched_without_a_terminal_each_change_is_a_line() {
    let mut world = World::file(history(30)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    browser.is_ready().await;
    world.set("OPSHIP_ADMIN__LISTEN", browser.0);
    let watcher = world.start(&["status", "--watch"]);
    let said = |part: &str| watcher.stdout().contains(part);
    wait_until("the first line", SOON, || said("All is well: 3 feeds ship.")).await;
    world.sim.world().revoke_token();
    wait_until("the change", SOON, || said("person")).await;
    agent.stop().await.exits(0);
    wait_until("the store takes over", SOON, || said("told by the checkpoints in ")).await;
    assert!(said("All 3 feeds are silent, is opship running? no process answers"), "{}", watcher.stdout());
    let ran = watcher.stop().await.exits(1);
    let times = |part: &str| ran.stdout.lines().filter(|line| line.contains(part)).count();
    assert_eq!(
        times("All is well: 3 feeds ship. (told by the process"),
        1,
        "said once, not each second: {}",
        ran.stdout
    );
}

#[tokio::test]
async fn on_a_terminal_the_table_is_live_coloured_and_ends_with_q() {
    let mut world = World::file(history(30)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    browser.is_ready().await;
    world.set("OPSHIP_ADMIN__LISTEN", browser.0).set("TERM", "xterm");
    // `script` gives the program a terminal and hands on what is typed, here into a pipe that is open for reading and writing.
    let keys = world.home.path().join("keys");
    let make = "mkfifo keys; exec 3<>keys; exec script --quiet --return --flush --command \"'$0' $*\" /dev/null <&3";
    let launcher = ["bash", "-c", make, env!("CARGO_BIN_EXE_opship")];
    let watcher = world.start_by(&launcher, &["status", "--watch"]);
    let tables = || watcher.stdout().matches("All is well: 3 feeds ship.").count();
    wait_until("the second table", SOON, || tables() >= 2).await;
    std::fs::write(&keys, "xq").unwrap();
    let ran = watcher.end().await.exits(0);
    std::fs::remove_file(&keys).unwrap();
    assert!(ran.stdout.contains("\u{1b}[32mAll is well"), "green: {:?}", ran.stdout);
    assert!(ran.stdout.trim_end().ends_with("\u{1b}[?25h\u{1b}[?1049l"), "the terminal is as before: {:?}", ran.stdout);
    world.set("NO_COLOR", "1");
    let once = world.start_by(&launcher[..], &["status"]);
    let plain = once.end().await.exits(0).stdout;
    // The search of the world's files would wait for a writer.
    std::fs::remove_file(&keys).unwrap();
    assert!(plain.contains("All is well") && !plain.contains('\u{1b}'), "{plain:?}");
    agent.stop().await.exits(0);
}

#[tokio::test]
async fn a_feed_that_never_ran_is_told_apart_from_those_that_did() {
    let mut world = World::file(history(30)).await;
    world.set("OPSHIP_ACCOUNTS__DEFAULT__STREAMS", "[\"auditevents\"]").once().await.exits(0);
    world.unset("OPSHIP_ACCOUNTS__DEFAULT__STREAMS");
    let ran = world.cli(&["status", "--from-store", "--output", "json"]).await.exits(1);
    let health: Vec<Health> = document(&ran.stdout).feeds.iter().map(|feed| feed.health).collect();
    assert_eq!(health, [Health::Good, Health::Starting, Health::Starting]);
}
