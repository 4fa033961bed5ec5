//! 1Password tokens that are refused, rotated, or may not read a stream.

use crate::agent::wait_until;
use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, Target, What};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Fault: the 1Password token is revoked, twice. Shows: exit 77 with the remedy, one health row a change, everything once after it is back.
#[tokio::test]
async fn fm_14_a_refused_token_exits_77_and_tells_each_change_of_state_once() {
    let world = World::file(history(60)).await;
    let sim = world.sim.world();
    world.once().await.exits(0);
    for _ in 0..2 {
        sim.revoke_token();
        for _ in 0..3 {
            world.once().await.exits(77).says(&["1Password refused the token", "issue a new one"]);
        }
        sim.restore_token();
        world.once().await.exits(0);
    }
    assert_eq!(world.health(), ["", "credentials_failed", "", "credentials_failed", ""]);
    let rows = sim.rows();
    let told: Vec<_> = rows.iter().filter(|row| row["category"] == "credentials_failed").collect();
    assert!(told.iter().all(|row| row["action_type"] == "API Key Invalid"), "{told:?}");
    world.assert_exactly_once();
}

#[tokio::test]
async fn a_token_rotated_in_its_file_is_taken_up_without_a_restart() {
    let mut world = World::file(history(60)).await;
    let file = world.secret_file("token", &world.sim.token());
    // The one that the rotation replaces must not be found either.
    let first = world.sim.token();
    world.secret(&first);
    world.set("OPSHIP_ACCOUNTS__DEFAULT__TOKEN", format!("file:{}", file.display())).unset("OP_EVENTS_TOKEN");
    let sim = world.sim.world();
    sim.set_live(10.0);
    let agent = world.run();
    wait_until("the first rows arrive", SOON, || world.rows().len() > 60).await;
    // While the source is away nobody meets the moment between the new token and its file.
    world.fault(Fault::new(Target::Path("/api".into()), What::Status(Refusal::status(503))));
    std::fs::write(&file, sim.rotate_token()).unwrap();
    sim.clear_faults();
    let rows = world.rows().len();
    wait_until("rows arrive under the new token", SOON, || world.rows().len() > rows + 20).await;
    sim.stop_generator();
    wait_until("everything arrives", SOON, || sim.compare().lost == 0).await;
    agent.stop().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: the token lacks the feature of one stream. Shows: exit 1, stream and remedy named, no heartbeat, the other streams arrive.
#[tokio::test]
async fn fm_14_a_stream_that_the_token_may_not_read_is_named_and_the_others_go_on() {
    let world = World::file(history(300)).await;
    world.sim.world().remove_feature(Stream::ItemUsages);
    world
        .once()
        .await
        .exits(1)
        .says(&["account default may not read itemusages", "issue a token with the feature itemusages"]);
    assert_eq!(world.heartbeats(), 0);
    assert_eq!(world.sim.world().missing(Stream::AuditEvents).len(), 0);
    assert_eq!(world.sim.world().missing(Stream::SigninAttempts).len(), 0);
    world.sim.world().restore_feature(Stream::ItemUsages);
    world.once().await.exits(0);
    world.assert_exactly_once();
}
