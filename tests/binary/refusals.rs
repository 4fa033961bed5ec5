//! A data collection rule that refuses, is busy, or answers what is not so.

use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, RetryAfter, Service, Target, What};

fn answers(status: u16) -> What {
    What::Status(Refusal::status(status))
}

impl World {
    async fn cursors(&self) -> Vec<Option<String>> {
        let mut cursors = Vec::new();
        for stream in Stream::ALL {
            cursors.push(self.checkpoint(stream).await.cursor.map(|cursor| cursor.as_str().to_owned()));
        }
        cursors
    }
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_until_it_fits() {
    let world = World::file(history(600)).await;
    world.fault(Fault::new(Target::Ingestion, What::SizeLimit { bytes: 30_000 }));
    world.once().await.exits(0);
    world.assert_exactly_once();
    let cp = world.checkpoint(Stream::AuditEvents).await;
    assert!(cp.totals.splits > 3 && cp.in_doubt.batches == 0, "{cp:?}");
    world.once().await.exits(0).says(&["0 shipped"]);
}

#[tokio::test]
async fn a_busy_rule_is_left_alone_for_as_long_as_it_says() {
    let world = World::file(history(90)).await;
    let busy = Refusal { retry_after: Some(RetryAfter::Seconds(3)), ..Refusal::status(429) };
    world.fault(Fault::new(Target::Ingestion, What::Status(busy)).times(3));
    let ran = world.once().await.exits(0);
    assert!(ran.took.as_secs() >= 3, "{:?}", ran.took);
    world.assert_exactly_once();
}

#[tokio::test]
async fn an_error_after_acceptance_puts_one_batch_in_doubt_and_its_copies_in_the_ledger() {
    let world = World::file(history(900)).await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenStatus(Refusal::status(500))).times(1));
    world.once().await.exits(0);
    let copies = world.assert_nothing_lost_and_copies_traceable().await;
    assert!(copies > 0 && copies <= 500, "{copies}");
}

#[tokio::test]
async fn a_connection_that_breaks_after_acceptance_is_in_doubt_too() {
    let world = World::file(history(900)).await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenReset).times(2));
    world.once().await.exits(0);
    let copies = world.assert_nothing_lost_and_copies_traceable().await;
    assert!(copies > 0 && copies <= 1000, "{copies}");
}

#[tokio::test]
async fn a_missing_role_is_named_and_the_position_stands_still() {
    let world = World::file(history(300)).await;
    world.sim.world().revoke_role();
    world.once().await.exits(1).says(&["Monitoring Metrics Publisher"]);
    assert_eq!(world.cursors().await, [None, None, None]);
    assert_eq!(world.sim.world().rows().len(), 0);
    world.sim.world().grant_role();
    world.once().await.exits(0);
    world.assert_exactly_once();
    assert_eq!(world.health(), [""]);
}

#[tokio::test]
async fn a_deleted_rule_halts_with_the_remedy_and_the_position_stands_still() {
    let world = World::file(history(300)).await;
    world.fault(Fault::new(Target::Ingestion, answers(404)));
    world.once().await.exits(1).says(&["answered 404", "sink.dcr_immutable_id", "redeploy the rule"]);
    assert_eq!(world.cursors().await, [None, None, None]);
    let posts = |world: &World| world.sim.world().journal().iter().filter(|e| e.service == Service::Ingestion).count();
    // Each feed tries what its cursor and its sweep found, and the trouble row is tried too.
    assert!(posts(&world) <= 3 * 2 + 1, "no hammering: {}", posts(&world));
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
}

#[tokio::test]
async fn a_refused_azure_token_is_replaced_by_a_new_one() {
    let world = World::file(history(300)).await;
    world.fault(Fault::new(Target::Ingestion, answers(401)).times(1));
    world.once().await.exits(0);
    world.assert_exactly_once();
    let asked = world.sim.world().journal().iter().filter(|entry| entry.service == Service::Identity).count();
    assert_eq!(asked, 2, "the first token, and one after the 401");
}
