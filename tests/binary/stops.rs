//! SIGTERM while any one request to the outside is open: an exit in time, nothing lost, nothing doubled, no intent left.

use crate::agent::Agent;
use crate::gate::HELD_UP;
use crate::world::{Kind, World, feed, history};
use opship::flow::Stream;
use opship::sim::{Fault, Target, What, When};
use opship::store::checkpoints::{Checkpoints, Found};
use std::time::{Duration, Instant};

both_stores! {
    sigterm_at_any_request_of_once_to_source_identity_or_rule_loses_and_doubles_nothing
    sigterm_at_any_request_of_run_to_source_identity_or_rule_loses_and_doubles_nothing
}

const SOON: Duration = Duration::from_secs(60);
const DRAIN_MAX: Duration = Duration::from_secs(25);
const EVENTS: usize = 40;

/// Batches of ten rows: two of two feeds, one of the third.
async fn small(kind: Kind) -> World {
    let mut world = World::behind_a_gate(kind, history(EVENTS)).await;
    world.set("OPSHIP_DELIVERY__BATCH_ROWS_MAX", "10");
    world
}

impl World {
    /// The answer to this request of any process, counted from 1, comes late.
    fn hold_up(&self, number: u64) {
        let late = What::Delay { ms: HELD_UP.as_millis() as u64 };
        self.fault(Fault::new(Target::Path("/".into()), late).from(number).times(1));
    }

    /// Sends SIGTERM as soon as there are so many requests; false when the process ended before. The next run ships the rest.
    async fn stop_at(&self, mut agent: Agent, number: u64, requests: impl Fn() -> u64) -> bool {
        let started = Instant::now();
        while requests() < number {
            if agent.has_ended() {
                agent.end().await.exits(0);
                return false;
            }
            assert!(started.elapsed() < SOON, "request {number} does not come: {}", agent.stderr());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let ended = agent.stop().await.exits(0);
        assert!(ended.took < DRAIN_MAX, "request {number}: {:?}", ended.took);
        assert_eq!(self.sim.world().compare().duplicated, 0, "request {number}");
        self.assert_no_intent(number).await;
        self.once().await.exits(0);
        self.assert_exactly_once();
        true
    }

    async fn assert_no_intent(&self, number: u64) {
        let checkpoints = Checkpoints::new(self.store().await, "test".into());
        for stream in Stream::ALL {
            match checkpoints.load(&feed(stream)).await.unwrap() {
                Found::Good(loaded) => {
                    let intent = loaded.checkpoint.slot.intent();
                    assert!(intent.is_none(), "request {number} left {intent:?}");
                }
                Found::Nothing { previous: None } => {}
                other => panic!("request {number} left {other:?}"),
            }
        }
    }
}

async fn sigterm_at_any_request_of_once_to_source_identity_or_rule_loses_and_doubles_nothing(kind: Kind) {
    let mut number = 1;
    loop {
        let world = small(kind).await;
        world.hold_up(number);
        if !world.stop_at(world.start(&["once"]), number, || world.sim.world().requests()).await {
            break;
        }
        number += 1;
    }
    let stops = number - 1;
    println!("once, {kind:?}: SIGTERM at each of {stops} requests to the outside: 0 lost, 0 copies");
    // Introspection, identity, two reads of each feed, its batches, the heartbeat.
    assert!(stops > 1 + 1 + 2 * 3 + 3 + 1, "{stops}");
}

async fn sigterm_at_any_request_of_run_to_source_identity_or_rule_loses_and_doubles_nothing(kind: Kind) {
    let world = small(kind).await;
    let agent = world.run();
    crate::agent::wait_until("a tick is complete", SOON, || world.heartbeats() == 1).await;
    agent.stop().await.exits(0);
    // The second tick begins with a page of each feed.
    let stops = world.sim.world().requests() + 3;
    for number in 1..=stops {
        let world = small(kind).await;
        world.hold_up(number);
        assert!(world.stop_at(world.run(), number, || world.sim.world().requests()).await);
    }
    println!("run, {kind:?}: SIGTERM at each of {stops} requests to the outside: 0 lost, 0 copies");
}

#[tokio::test]
async fn sigterm_at_any_request_to_the_blob_store_loses_and_doubles_nothing() {
    let mut number = 1;
    loop {
        let mut world = World::behind_a_gate(Kind::Blob, history(0)).await;
        world.set("OPSHIP_ACCOUNTS__DEFAULT__STREAMS", r#"["auditevents"]"#);
        world.set("OPSHIP_DELIVERY__BATCH_ROWS_MAX", "10");
        (0..20).for_each(|_| _ = world.sim.world().append(Stream::AuditEvents, When::Late(Duration::from_secs(5))));
        world.gate.hold_up(number);
        if !world.stop_at(world.start(&["once"]), number, || world.gate.requests()).await {
            break;
        }
        number += 1;
    }
    let stops = number - 1;
    println!("once: SIGTERM at each of {stops} requests to the blob store: 0 lost, 0 copies");
    // At least: load, a write, a ledger read and an append for each of two batches, and the last write.
    assert!(stops >= 10, "{stops}");
}
