//! Heartbeats that the rule refuses while there is nothing to ship, and trouble rows that the store does not remember: the real program.

use crate::agent::{Agent, wait_until};
use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, Target, What};
use std::time::{Duration, SystemTime};

const SOON: Duration = Duration::from_secs(120);

fn errors(agent: &Agent, words: &str) -> usize {
    agent.stderr().lines().filter(|line| line.contains("\"ERROR\"") && line.contains(words)).count()
}

/// Fault: no new events, and the rule answers 403 to the heartbeats. Shows: readiness 503, status exit 1, a metric, one ERROR with the remedy, `--from-store` and `once` fail too; all is well again after the repair.
#[tokio::test]
async fn fm_60_refused_heartbeats_are_no_all_is_well() {
    let mut world = World::file(history(0)).await;
    world.fault(Fault::new(Target::Ingestion, What::Status(Refusal::status(403))));
    let agent = world.run();
    let browser = agent.browser().await;
    let told = browser.wait_for("/readyz", &[], SOON, |answer| answer.body.matches("answered 403").count() == 3).await;
    assert_eq!(told.status, 503);
    let status = browser.status().await;
    assert!(!status.ready && status.summary.starts_with("All 3 feeds are held up"), "{}", status.summary);
    assert!(status.feeds.iter().all(|feed| feed.last_good.is_some()), "the feeds themselves are well: {status:?}");
    let metrics = browser.get("/metrics").await.body;
    let refused =
        metrics.lines().find_map(|line| line.strip_prefix("opship_refused_health_rows_total{account=\"default\"} "));
    assert!(refused.is_some_and(|count| count.parse::<f64>().unwrap() >= 1.0), "{metrics}");
    assert!(metrics.contains("\nopship_ready 0\n"), "{metrics}");
    let ticks = || agent.stderr().matches("nothing new").count();
    let before = ticks();
    wait_until("many more ticks", SOON, || ticks() > before + 15).await;
    assert_eq!(errors(&agent, "health rows"), 1, "said once: {}", agent.stderr());
    assert_eq!(errors(&agent, "Monitoring Metrics Publisher"), 1, "with the remedy of a refused batch");
    world.set("OPSHIP_ADMIN__LISTEN", browser.0);
    let ran = world.cli(&["status"]).await.exits(1).says(&["waiting", "health rows are refused", "what to do: give"]);
    assert!(!ran.stdout.contains("All is well"), "{}", ran.stdout);
    world.cli(&["status", "--from-store"]).await.exits(1).says(&["waiting", "delivery_failed"]);
    world.set("OPSHIP_ADMIN__LISTEN", "127.0.0.1:0").once().await.exits(77).says(&["heartbeat", "Metrics Publisher"]);
    world.sim.world().clear_faults();
    browser.is_ready().await;
    agent.stop().await.exits(0);
    assert!(world.heartbeats() >= 1);
    world.cli(&["status", "--from-store"]).await.exits(0).says(&["All is well"]);
}

/// Fault: a rule that was deleted answers 404 to the heartbeats of a `once` without new events. Shows: exit 1 with the remedy of a refused batch, and `--from-store` says it.
#[tokio::test]
async fn fm_60_a_refused_heartbeat_fails_once_with_the_remedy() {
    let world = World::file(history(0)).await;
    world.fault(Fault::new(Target::Ingestion, What::Status(Refusal::status(404))));
    world.once().await.exits(1).says(&["heartbeat", "sink.dcr_immutable_id"]);
    world.cli(&["status", "--from-store"]).await.exits(1).says(&["delivery_failed", "no heartbeat since"]);
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.cli(&["status", "--from-store"]).await.exits(0);
}

/// Fault: the role is missing, and there is no event to ship. Shows: `once` exits 77 as for a refused batch, and names the role.
#[tokio::test]
async fn fm_60_a_heartbeat_without_the_role_exits_77() {
    let world = World::file(history(0)).await;
    world.sim.world().revoke_role();
    world.once().await.exits(77).says(&["heartbeat", "Monitoring Metrics Publisher"]);
    world.sim.world().grant_role();
    world.once().await.exits(0);
}

/// Fault: every feed is in trouble with every tick, and the store keeps neither positions nor what was told. Shows: one trouble row, however long it lasts.
#[tokio::test]
async fn fm_61_a_store_that_remembers_nothing_makes_one_trouble_row() {
    let world = World::file(history(30)).await;
    let state = world.home.path().join("state");
    std::fs::create_dir(&state).unwrap();
    // Where folders should be: nothing below can be written.
    for name in ["checkpoints", "health"] {
        std::fs::write(state.join(name), "a person's file").unwrap();
    }
    let agent = world.run();
    let failed = || agent.stderr().matches("the tick did not complete").count();
    wait_until("many ticks in trouble", SOON, || failed() > 30).await;
    agent.stop().await.exits(0);
    assert_eq!(world.health(), ["checkpoint_failed"]);
}

/// Fault: the files of a store that nobody writes any more are stamped an hour ahead of the host's clock, which was set back. Shows: `status --from-store` calls them unknown, not fresh.
#[tokio::test]
async fn fm_47_files_stamped_ahead_of_the_clock_are_not_called_fresh() {
    let world = World::file(history(30)).await;
    world.once().await.exits(0);
    world.cli(&["status", "--from-store"]).await.exits(0);
    let ahead = SystemTime::now() + Duration::from_secs(3600);
    for stream in Stream::ALL {
        for ending in ["json", "prev.json"] {
            let path = world.home.path().join(format!("state/checkpoints/default/{stream}.{ending}"));
            std::fs::File::options().write(true).open(path).unwrap().set_modified(ahead).unwrap();
        }
    }
    let ran =
        world.cli(&["status", "--from-store"]).await.exits(1).says(&["silent", "stamped ahead", "clock of this host"]);
    assert!(!ran.stdout.contains("All is well"), "{}", ran.stdout);
}
