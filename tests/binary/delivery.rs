//! The plain path, and a source that is away.

use crate::world::{Kind, World, history};
use opship::sim::{Fault, Options, Order, Refusal, Target, What};

both_stores! {
    two_runs_over_the_same_events_ship_each_once_in_either_cursor_order
    a_source_that_refuses_connections_fails_the_run_and_the_next_one_catches_up
    a_source_that_answers_503_fails_the_run_and_the_next_one_catches_up
}

async fn two_runs_over_the_same_events_ship_each_once_in_either_cursor_order(kind: Kind) {
    for order in [Order::Insert, Order::EventTime] {
        let world = World::new(kind, Options { order, ..history(2_500) }).await;
        world.once().await.exits(0).says(&["0 dead letters"]);
        world.assert_exactly_once();
        assert_eq!((world.rows().len(), world.health()), (2_500, vec![String::new()]));
        world.once().await.exits(0).says(&["0 shipped"]);
        world.assert_exactly_once();
        assert_eq!((world.rows().len(), world.heartbeats()), (2_500, 2));
    }
}

async fn a_source_that_refuses_connections_fails_the_run_and_the_next_one_catches_up(kind: Kind) {
    let mut world = World::new(kind, history(300)).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let there = world.sim.base_url().to_owned();
    // The address is part of the checkpoint's fingerprint, and nothing is read under this one: the right one takes it over.
    world.set("OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL", format!("http://{nobody}"));
    world.sim.world().append(opship::flow::Stream::ItemUsages, opship::sim::When::Now);
    let ran = world.once().await.exits(1).says(&["could not connect"]);
    assert!(ran.took.as_secs() < 60, "{:?}", ran.took);
    assert_eq!(world.heartbeats(), 0);
    world.set("OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL", there);
    world.once().await.exits(0);
    world.assert_exactly_once();
    assert_eq!(world.heartbeats(), 1);
}

async fn a_source_that_answers_503_fails_the_run_and_the_next_one_catches_up(kind: Kind) {
    let world = World::new(kind, history(300)).await;
    world.fault(Fault::new(Target::Events, What::Status(Refusal::status(503))));
    let ran = world.once().await.exits(1).says(&["answered 503"]);
    assert!(ran.took.as_secs() < 100, "{:?}", ran.took);
    assert_eq!((world.health(), world.rows().len()), (vec!["source_failed".to_owned()], 0));
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
    assert_eq!(world.heartbeats(), 1);
}
