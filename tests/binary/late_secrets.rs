//! Secrets that are not there yet, change, or are refused.

use crate::agent::wait_until;
use crate::browse::Browser;
use crate::edges::Edge;
use crate::world::{Kind, World, history};
use opship::sim::Service;
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(60);

/// Until the status says that a secret is waited for.
async fn waits_for_a_secret(browser: Browser) {
    browser.wait_for("/status.json", &[], SOON, |answer| answer.body.contains("a secret that can be read")).await;
}

/// Fault: the file of the 1Password token, and that of the admin token, are not there when the agent starts. Shows: it lives, waits and says for what, never that a key is invalid; once they are there it ships; `once` exits 77.
#[tokio::test]
async fn fm_68_a_secret_that_is_not_there_yet_is_waited_for() {
    let mut world = World::file(history(60)).await;
    let token = world.secret_file("token", "");
    let admin = world.secret_file("admin", "");
    for file in [&token, &admin] {
        std::fs::remove_file(file).unwrap();
    }
    world.set("OPSHIP_ACCOUNTS__DEFAULT__TOKEN", format!("file:{}", token.display())).unset("OP_EVENTS_TOKEN");
    world.once().await.exits(77).says(&["no such file"]);
    world.set("OPSHIP_ADMIN__TOKEN", format!("file:{}", admin.display()));
    let agent = world.run();
    let browser = agent.browser().await;
    let ready = browser.wait_for("/readyz", &[], SOON, |answer| answer.status == 503).await;
    assert!(!ready.body.contains("admin"), "{}", ready.body);
    assert_eq!(browser.get("/livez").await.status, 200);
    assert_eq!(browser.get("/status.json").await.status, 401, "locked until the token is read");
    wait_until("it says what it waits for", SOON, || agent.stderr().contains("a secret that can be read is not there"))
        .await;
    std::fs::write(&admin, "the-admin-token").unwrap();
    world.secret("the-admin-token");
    agent.signal(Signal::HUP);
    let bearer = ["authorization: Bearer the-admin-token"];
    let told = browser
        .wait_for("/status.json", &bearer, SOON, |answer| answer.body.matches("waits for a secret").count() >= 3)
        .await;
    assert!(told.body.contains("accounts.NAME.token"), "{}", told.body);
    std::fs::write(&token, world.sim.token()).unwrap();
    agent.signal(Signal::HUP);
    wait_until("everything arrives", SOON, || world.sim.world().compare().lost == 0).await;
    // The admin token is read again too.
    std::fs::write(&admin, "another-admin-token").unwrap();
    world.secret("another-admin-token");
    agent.signal(Signal::HUP);
    let other = ["authorization: Bearer another-admin-token"];
    browser.wait_for("/status.json", &other, SOON, |answer| answer.status == 200).await;
    assert_eq!(browser.ask("GET", "/status.json", &bearer).await.status, 401);
    agent.stop().await.exits(0);
    world.assert_exactly_once();
    assert!(!world.sim.world().rows().iter().any(|row| row["action_type"] == "API Key Invalid"));
}

/// Fault: the client secret of the Azure identity is not there, then wrong, then replaced. Shows: the agent waits for it; Entra is asked once per five minutes while it is refused, and at once with another one; everything arrives once.
#[tokio::test]
async fn fm_68_a_client_secret_is_waited_for_and_never_worn_out() {
    let (mut world, _internet) = World::behind_a_proxy(Kind::File, history(60)).await;
    let file = world.secret_file("azure", "");
    std::fs::remove_file(&file).unwrap();
    world.set("OPSHIP_AZURE__CLIENT_SECRET", format!("file:{}", file.display()));
    let agent = world.run();
    let browser = agent.browser().await;
    waits_for_a_secret(browser).await;
    std::fs::write(&file, "a-wrong-secret").unwrap();
    world.secret("a-wrong-secret");
    agent.signal(Signal::HUP);
    wait_until("it is refused", SOON, || agent.stderr().contains("7000215")).await;
    let asked = || world.sim.world().journal().iter().filter(|entry| entry.service == Service::Identity).count();
    let before = asked();
    let ticks = || agent.stderr().matches("AADSTS7000215").count();
    let seen = ticks();
    wait_until("many more tries", SOON, || ticks() > seen + 6).await;
    assert_eq!(asked(), before, "the refusal is remembered");
    std::fs::write(&file, world.sim.world().client_secret()).unwrap();
    wait_until("everything arrives", SOON, || world.sim.world().compare().lost == 0).await;
    agent.stop().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: nobody listens at the address of the identity endpoint, as right after the start of a container; a minute is not over when it comes up. Shows: `once` says what it waits for, once, then ships all.
#[tokio::test]
async fn fm_68_once_waits_for_an_identity_endpoint_that_is_not_up_yet() {
    let mut world = World::file(history(60)).await;
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.point(Edge::Identity, &format!("http://{place}"));
    let agent = world.start(&["once"]);
    wait_until("it waits", SOON, || agent.stderr().contains("waiting for the Azure identity")).await;
    // Longer than a token is asked for by itself.
    let begun = Instant::now();
    wait_until("it still does", SOON, || begun.elapsed() > Duration::from_secs(15)).await;
    let service = world.sim.base_url().trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind(place).await.unwrap();
    let forward = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = TcpStream::connect(&service).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let ran = agent.end().await.exits(0);
    forward.abort();
    assert_eq!(ran.stderr.matches("waiting for the Azure identity").count(), 1, "{}", ran.stderr);
    world.assert_exactly_once();
}

/// Fault: the key of the pseudonyms is changed between two runs. Shows: an ERROR says so once, with the remedy; the same key is no news.
#[tokio::test]
async fn fm_68_another_key_of_the_pseudonyms_is_told() {
    let mut world = World::file(history(30)).await;
    world.set("OPSHIP_FILTER__REDACT", r#"["client.ip_address"]"#).set("OPSHIP_FILTER__REDACT_KEY", "env:REDACT_KEY");
    for (key, is_told) in [
        ("the-first-key-of-all", false),
        ("the-first-key-of-all", false),
        ("the-second-key-of-all", true),
        ("the-second-key-of-all", false),
    ] {
        world.secret(key).set("REDACT_KEY", key);
        let ran = world.once().await.exits(0);
        let told = ran.stderr.lines().filter(|line| line.contains("\"ERROR\"") && line.contains("filter.redact_key"));
        assert_eq!(told.count(), usize::from(is_told), "{key}: {}", ran.stderr);
    }
    world.assert_exactly_once();
}
