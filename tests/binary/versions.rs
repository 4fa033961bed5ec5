//! A store that does not refuse stale writes: a proxy on the way drops the conditions of requests.

use crate::agent::wait_until;
use crate::world::{Kind, World, history};
use opship::sim::Options;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(240);
const CONDITIONS: [(&str, &str); 3] = [
    ("if-none-match", "ignores If-None-Match"),
    ("if-match", "ignores If-Match"),
    ("x-ms-blob-condition-appendpos", "ignores the position of an append"),
];
const REMEDY: &str = "point store.container_url at the storage account itself";

async fn without(condition: &'static str) -> World {
    // Two hours, so that a batch has few segments.
    let span = Duration::from_secs(7200);
    let world = World::behind_a_gate(Kind::Blob, Options { history_span: span, ..history(90) }).await;
    world.gate.rules(move |request| {
        request.headers.remove(condition);
        None
    });
    world
}

/// Fault: a proxy drops one of the conditions that keep processes apart. Shows: `once` and every command that posts exit 1 and name it, with the remedy; nothing was posted.
#[tokio::test]
async fn fm_56_a_store_that_ignores_a_condition_is_refused_before_anything_is_posted() {
    for (condition, says) in CONDITIONS {
        let world = without(condition).await;
        for command in [
            &["once"][..],
            &["backfill", "--from", "1d"],
            &["dead-letters", "replay", "--all"],
            &["reconcile", "--from", "1d", "--repair"],
        ] {
            world.cli(command).await.exits(1).says(&[says, REMEDY]);
        }
        assert_eq!(world.posts(), 0, "{condition}");
        world.cli(&["check"]).await.exits(1).says(&[says, REMEDY]);
        world.gate.has_no_rule();
        world.once().await.exits(0);
        world.assert_exactly_once();
    }
}

/// Fault: the proxy drops them under two replicas. Shows: neither posts while it lasts, both tell it and live on; afterwards both ship, each row once.
#[tokio::test]
async fn fm_56_two_replicas_wait_for_a_store_that_refuses_stale_writes() {
    let world = without("if-match").await;
    let mut agents = [world.run(), world.run()];
    wait_until("both tell it", SOON, || agents.iter().all(|agent| agent.stderr().contains("ignores If-Match"))).await;
    assert_eq!(world.posts(), 0);
    world.gate.has_no_rule();
    wait_until("everything arrives", SOON, || world.sim.world().compare().lost == 0).await;
    assert!(agents.iter_mut().all(|agent| !agent.has_ended()));
    for agent in agents {
        agent.stop().await.exits(0);
    }
    world.assert_exactly_once();
}
