//! Screen and truth: whenever rows do not ship, every place where opship says how it is, says so.

use crate::agent::{Agent, Ran};
use crate::browse::Browser;
use crate::clock::FakeHost;
use crate::edges::Edge;
use crate::raw::closed;
use crate::world::{World, history};
use futures_util::future::join_all;
use opship::admin::status::{FeedStatus, Health, Status};
use opship::flow::Stream;
use opship::sim::{Fault, PageFault, Refusal, Target, What, When};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(240);
/// No tick of these scenes takes longer.
const A_TICK: Duration = Duration::from_secs(90);
/// Two intervals or five minutes, the longer, and a little.
const LATER: i64 = 320;
/// Scenes that play at the same time.
const AT_ONCE: usize = 4;

/// A way in which rows stop to ship.
struct Scene {
    name: &'static str,
    /// What breaks, in the world or in the configuration.
    breaks: fn(&mut World),
    /// What mends it is an exit code of `once` other than 1.
    once: i32,
}

fn on(target: Target, what: What) -> impl Fn(&mut World) {
    move |world| world.fault(Fault::new(target.clone(), what.clone()))
}

fn status(status: u16) -> What {
    What::Status(Refusal::status(status))
}

fn html(status: u16) -> What {
    What::Status(Refusal { text: Some("<html>Blocked</html>".into()), ..Refusal::status(status) })
}

fn text(text: &str) -> What {
    What::Body { text: text.into() }
}

fn a_file_instead_of(world: &World, folder: &str) {
    let folder = world.home.path().join("state").join(folder);
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(folder, "a person's file").unwrap();
}

macro_rules! scenes {
    ($($name:literal, $once:literal => $breaks:expr;)*) => {
        [$(Scene { name: $name, once: $once, breaks: |world| ($breaks)(world) }),*]
    };
}

fn scenes_of_the_source() -> impl IntoIterator<Item = Scene> {
    scenes! {
        "the token is revoked", 77 => |world: &mut World| world.sim.world().revoke_token();
        "1Password is down", 1 => on(Target::Events, status(503));
        "1Password is too busy", 1 => on(Target::Events, status(429));
        "nobody knows the cursor or a reset", 1 => on(Target::Events, status(400));
        "the Events API is not there", 1 => on(Target::Events, status(404));
        "a portal answers for 1Password", 1 => on(Target::Events, text("<html>Sign in</html>"));
        "pages have no items", 1 => on(Target::Events, text(r#"{"cursor":"c1","has_more":true}"#));
        "pages never end", 1 => on(Target::Events, What::Page(PageFault::SameCursor));
        "1Password resets connections", 1 => on(Target::Events, What::ResetBeforeHeaders);
        "1Password is looked for at another address", 64 => |world: &mut World| _ = world.point(Edge::Source, &format!("http://{}", closed()));
        "the time to start from lies ahead", 1 => |world: &mut World| {
            world.set("OPSHIP_SCHEDULE__LOOKBACK", "2090-01-01T00:00:00Z");
            std::fs::remove_dir_all(world.home.path().join("state")).unwrap();
        };
    }
}

fn scenes_of_the_destination() -> impl IntoIterator<Item = Scene> {
    scenes! {
        "the role is missing", 77 => |world: &mut World| world.sim.world().revoke_role();
        "the rule is gone", 1 => on(Target::Ingestion, status(404));
        "the rule is too busy", 1 => on(Target::Ingestion, status(429));
        "the rule fails", 1 => on(Target::Ingestion, status(500));
        "a firewall refuses everything", 1 => on(Target::Ingestion, html(403));
        "the rule takes no body of any size", 1 => on(Target::Ingestion, status(413));
        "posts are cut off", 1 => on(Target::Ingestion, What::ResetBeforeHeaders);
        "the destination is unreachable", 1 => |world: &mut World| _ = world.point(Edge::Sink, &format!("http://{}", closed()));
        "the identity is down", 1 => |world: &mut World| {
            world.sim.world().revoke_azure_tokens();
            world.fault(Fault::new(Target::Identity, status(500)));
        };
        "the configuration names another rule", 64 => |world: &mut World| {
            _ = world.set("OPSHIP_SINK__DCR_IMMUTABLE_ID", "dcr-00000000000000000000000000000001");
        };
    }
}

fn scenes_of_the_store() -> impl IntoIterator<Item = Scene> {
    scenes! {
        "checkpoints cannot be kept", 1 => |world: &mut World| a_file_instead_of(world, "checkpoints");
        "the ledger takes nothing", 1 => |world: &mut World| a_file_instead_of(world, "ledger");
        "the whole store is a file", 1 => |world: &mut World| {
            let state = world.home.path().join("state");
            std::fs::remove_dir_all(&state).unwrap();
            std::fs::write(state, "a person's file").unwrap();
        };
    }
}

impl World {
    /// Time passes on the host of every process that is started from now on.
    fn time_passes(&mut self, seconds: i64) {
        let next = self.home.path().join("uptime.next");
        let file = self.home.path().join("uptime");
        std::fs::write(&next, seconds.to_string()).unwrap();
        std::fs::rename(next, &file).unwrap();
        self.fake_host().set("FAKE_UPTIME", file.display());
    }

    fn new_events(&self) {
        Stream::ALL.into_iter().for_each(|stream| _ = self.sim.world().append(stream, When::Now));
    }
}

/// Whether a document says that all is well, in any of its parts.
fn says_well(status: &Status) -> bool {
    let well = |health: Health| matches!(health, Health::Good | Health::CatchingUp | Health::Standby);
    status.ready || status.summary.contains("All is well") || status.feeds.iter().any(|feed| well(feed.health))
}

/// Everything that one living process and three commands say, and who of them says well, or says bad and not what to do.
async fn who_says_well(scene: &Scene, world: &mut World, browser: Browser) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |who: &str, what: &dyn std::fmt::Debug| found.push(format!("{}: {who}: {what:?}", scene.name));
    let ready = browser.get("/readyz").await;
    if ready.status != 503 || ready.body.lines().filter(|line| line.starts_with("default/")).count() != 3 {
        note("readiness", &ready.body);
    }
    let document = browser.status().await;
    if says_well(&document) {
        note("the page's document", &document);
    }
    if document.feeds.iter().any(|feed| feed.reason.is_none() || feed.remedy.is_none()) {
        note("no reason or remedy", &document);
    }
    let metrics = browser.get("/metrics").await.body;
    if !metrics.contains("\nopship_ready 0\n") {
        note("metrics", &metrics);
    }
    let said = |ran: &Ran| format!("{:?} {}", ran.code, ran.stdout);
    let fails = |ran: &Ran| ran.code.is_some_and(|code| code != 0) && !ran.stdout.contains("All is well");
    world.set("OPSHIP_ADMIN__LISTEN", browser.0);
    let ran = world.cli(&["status"]).await;
    if !fails(&ran) || !(ran.stdout.contains("what to do") || ran.stderr.contains("what to do")) {
        note("status", &said(&ran));
    }
    // A health row that was on its way when time jumped is posted again with the next tick.
    let begun = Instant::now();
    while let ran = world.cli(&["status", "--from-store"]).await
        && !fails(&ran)
    {
        if begun.elapsed() > A_TICK {
            note("status --from-store", &said(&ran));
            break;
        }
    }
    world.set("OPSHIP_ADMIN__LISTEN", "127.0.0.1:0");
    let ran = world.once().await;
    if ran.code != Some(scene.once) {
        note("once", &(said(&ran), &ran.stderr));
    }
    found
}

/// Until a look at the page's document shows this of every feed.
async fn each_feed(agent: &Agent, browser: Browser, name: &str, holds: fn(&FeedStatus) -> bool) {
    let all = |body: &str| {
        let status: Status = serde_json::from_str(body).unwrap();
        status.feeds.iter().all(holds)
    };
    let told = browser.wait_for("/status.json", &[], SOON, |answer| all(&answer.body)).await;
    assert_eq!(told.status, 200, "{name}: {}", agent.stderr());
}

/// Plays a scene: all is well, something breaks, events arrive, five minutes pass. What was wrongly said.
async fn play(scene: Scene) -> Vec<String> {
    let mut world = World::file(history(30)).await;
    world.time_passes(0);
    world.once().await.exits(0);
    world.cli(&["status", "--from-store"]).await.exits(0).says(&["All is well"]);
    (scene.breaks)(&mut world);
    world.new_events();
    let beats = world.heartbeats();
    let agent = world.run();
    let browser = agent.browser().await;
    each_feed(&agent, browser, scene.name, |feed| feed.reason.is_some()).await;
    world.time_passes(LATER);
    // What was begun before the jump ends.
    let has_ended = |feed: &FeedStatus| feed.reason.as_ref().is_some_and(|reason| reason.starts_with("waits for"));
    each_feed(&agent, browser, scene.name, has_ended).await;
    let mut found = who_says_well(&scene, &mut world, browser).await;
    if world.heartbeats() != beats {
        found.push(format!("{}: heartbeats: {:?}", scene.name, world.health()));
    }
    let log = agent.stop().await.stderr;
    if !found.is_empty() {
        found.push(log);
    }
    found
}

async fn all_tell(scenes: impl IntoIterator<Item = Scene>) {
    let mut scenes: Vec<_> = scenes.into_iter().collect();
    let mut found = Vec::new();
    while !scenes.is_empty() {
        let now: Vec<_> = scenes.drain(..scenes.len().min(AT_ONCE)).map(play).collect();
        found.extend(join_all(now).await.into_iter().flatten());
    }
    assert!(found.is_empty(), "{} times well was said of what is not:\n{}", found.len(), found.join("\n"));
}

/// Fault: everything that keeps 1Password's events from being read, for five minutes. Shows: readiness, page, metrics, `status`, `status --from-store`, `once` and the heartbeat: none says well, and each feed says what to do.
#[tokio::test]
async fn fm_62_screen_and_truth_agree_when_the_source_fails() {
    all_tell(scenes_of_the_source()).await;
}

/// Fault: everything that keeps rows from being taken, for five minutes. Shows: the same.
#[tokio::test]
async fn fm_62_screen_and_truth_agree_when_the_destination_fails() {
    all_tell(scenes_of_the_destination()).await;
}

/// Fault: everything that keeps positions or the ledger from being kept, for five minutes. Shows: the same.
#[tokio::test]
async fn fm_62_screen_and_truth_agree_when_the_store_fails() {
    all_tell(scenes_of_the_store()).await;
}
