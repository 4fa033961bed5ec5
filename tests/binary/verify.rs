//! `delivery.on_in_doubt = "verify"`: the workspace is asked before a batch in doubt is posted again.

use crate::world::{World, history};
use opship::sim::{Fault, Target, What};
use std::time::Duration;

async fn verifying() -> World {
    let mut world = World::file(history(900)).await;
    world.set("OPSHIP_DELIVERY__ON_IN_DOUBT", "verify").set("OPSHIP_DELIVERY__VERIFY_AFTER", "15m");
    world
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_looked_up_in_the_workspace_and_not_posted_again() {
    let world = verifying().await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenReset).times(1));
    world.once().await.exits(1).says(&["a batch in doubt is looked up in the table in 1020 s"]);
    let posts = world.posts();
    world.once().await.exits(1).says(&["rows may take that long to show"]);
    world.an_hour_passes();
    world.once().await.exits(0).says(&["a batch in doubt was looked up in the table"]);
    assert!(world.posts() >= posts);
    world.assert_exactly_once();
}

#[tokio::test]
async fn a_batch_that_did_not_arrive_is_posted_again_after_the_workspace_was_asked() {
    let world = verifying().await;
    world.fault(Fault::new(Target::Ingestion, What::ResetBeforeHeaders).times(1));
    world.once().await.exits(1);
    world.an_hour_passes();
    world.once().await.exits(0).says(&["posting it again"]);
    world.assert_exactly_once();
}

#[tokio::test]
async fn without_the_role_the_batch_waits_and_the_message_names_the_role() {
    let world = verifying().await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenReset).times(1));
    world.once().await.exits(1);
    world.fault(Fault::new(Target::Query, What::Status(opship::sim::Refusal::status(403))));
    // 1,020 s and half an hour have not passed yet: nothing is posted unseen.
    world.files_age(Duration::from_secs(20 * 60));
    world.once().await.exits(1).says(&["cannot be looked up", "Log Analytics Reader"]);
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
}
