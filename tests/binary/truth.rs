//! The screen tells the truth: in every scene in which rows do not ship, each place where an operator looks says so within five minutes.

use crate::agent::Ran;
use crate::browse::Browser;
use crate::clock::FakeHost;
use crate::raw::closed;
use crate::world::{World, history};
use futures_util::future::{LocalBoxFuture, join_all};
use opship::flow::Stream;
use opship::sim::{Fault, PageFault, Refusal, Target, What, When};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);
/// Two intervals of a second are shorter than five minutes, so those are what may pass; a little more than that.
const FIVE_MINUTES: i64 = 310;

/// What keeps rows from shipping.
struct Scene {
    name: &'static str,
    /// Done to a world in which everything has been shipped once.
    breaks: fn(&mut World) -> LocalBoxFuture<'_, ()>,
}

fn always(target: Target, what: What) -> Fault {
    Fault::new(target, what)
}

fn refusing(target: Target, status: u16) -> Fault {
    always(target, What::Status(Refusal::status(status)))
}

macro_rules! scenes {
    ($($name:literal: $world:ident => $work:expr;)*) => {
        &[$(Scene { name: $name, breaks: |$world| Box::pin(async move { $work; }) },)*]
    };
}

const SCENES: &[Scene] = scenes! {
    "1Password refuses the token": world => world.sim.world().revoke_token();
    "1Password is down": world => world.fault(refusing(Target::Events, 503));
    "1Password cannot be reached": world => world.set("OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL", format!("http://{}", closed()));
    "an address that is not the Events API": world => world.fault(refusing(Target::Events, 404));
    "pages without items": world => world.fault(always(
        Target::Events,
        What::Body { text: r#"{"cursor":"c9","has_more":true}"#.into() },
    ));
    "pages that are no JSON": world => world.fault(always(Target::Events, What::Body { text: "<html>".into() }));
    "a cursor that leads nowhere": world => world.fault(always(Target::Events, What::Page(PageFault::SameCursor)));
    "the role is missing": world => world.sim.world().revoke_role();
    "the rule is gone": world => world.fault(refusing(Target::Ingestion, 404));
    "the rule is busy for ever": world => world.fault(refusing(Target::Ingestion, 429));
    "the rule breaks down": world => world.fault(refusing(Target::Ingestion, 500));
    "a firewall refuses every row": world => world.fault(always(
        Target::Ingestion,
        What::Status(Refusal { text: Some("<html>blocked</html>".into()), ..Refusal::status(403) }),
    ));
    "no token of the identity": world => world.fault(refusing(Target::Identity, 500));
    "the rule is another one than before": world => world.set("OPSHIP_SINK__DCR_IMMUTABLE_ID", "dcr-ffffffffffffffffffffffffffffffff");
    "the lookback is still to come": world => {
        std::fs::remove_dir_all(world.home.path().join("state")).unwrap();
        world.set("OPSHIP_SCHEDULE__LOOKBACK", "2090-01-01T00:00:00Z")
    };
    "the folder of the checkpoints is a file": world => {
        let path = world.home.path().join("state/checkpoints");
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::write(path, "").unwrap()
    };
};

/// What each place says.
struct Said {
    summary: String,
    ready: bool,
    readyz: u16,
    status: Ran,
    from_store: Ran,
    heartbeats: usize,
    once: Ran,
}

fn heartbeats(world: &World) -> usize {
    let is_good = |row: &&serde_json::Value| row["log_source"] == "healthevents" && row["category"].is_null();
    world.sim.world().rows().iter().filter(is_good).count()
}

async fn looked_at(scene: &Scene) -> Said {
    let mut world = World::file(history(30)).await;
    world.once().await.exits(0);
    (scene.breaks)(&mut world).await;
    Stream::ALL.into_iter().for_each(|stream| _ = world.sim.world().append(stream, When::Now));
    let before = heartbeats(&world);
    world.jump(0);
    let agent = world.run();
    let browser: Browser = agent.browser().await;
    let is_told = |status: &opship::admin::status::Status| status.feeds.iter().all(|feed| feed.reason.is_some());
    browser.until(SOON, scene.name, |status| is_told(status)).await;
    world.jump(FIVE_MINUTES);
    browser.wait_for("/readyz", &[], SOON, |answer| answer.status == 503).await;
    let document = browser.status().await;
    let readyz = browser.get("/readyz").await.status;
    world.set("OPSHIP_ADMIN__LISTEN", browser.0);
    let status = world.cli(&["status"]).await;
    let from_store = world.cli(&["status", "--from-store"]).await;
    agent.stop().await;
    world.set("OPSHIP_ADMIN__LISTEN", "127.0.0.1:0");
    let once = world.once().await;
    let heartbeats = heartbeats(&world) - before;
    Said { summary: document.summary, ready: document.ready, readyz, status, from_store, heartbeats, once }
}

/// Fault: every scene of this table in which rows do not ship, for five minutes. Shows: status, the status from the store, readiness, the page's document, the exit code of `once` and the heartbeat agree: none says well, and the status names the cause with a remedy.
#[tokio::test]
async fn fm_62_the_screen_and_the_truth_agree() {
    let each = join_all(SCENES.iter().map(looked_at)).await;
    let mut wrong = Vec::new();
    for (scene, said) in SCENES.iter().zip(each) {
        let Said { summary, ready, readyz, status, from_store, heartbeats, once } = said;
        let well = [
            ("the page", summary.starts_with("All is well") || ready),
            ("readiness", readyz == 200),
            ("status", status.code == Some(0) || status.stdout.contains("All is well")),
            ("status names no remedy", !status.stdout.contains("what to do: ")),
            ("status --from-store", from_store.code == Some(0) || from_store.stdout.contains("All is well")),
            ("the heartbeat", heartbeats > 0),
            ("once", once.code == Some(0)),
        ];
        let says_well = well.iter().filter(|(_, is_well)| *is_well).map(|(place, _)| *place);
        wrong.extend(says_well.map(|place| format!("{}: {place} ({summary})", scene.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
