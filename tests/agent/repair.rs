//! `reconcile --repair` inside a process that dies: at every wait, and in a race with the live feed.

use crate::oracle::ledger;
use crate::source::{BOTH, Order};
use crate::store::TTL;
use crate::world::{Process, ROWS_MAX, World};
use chrono::TimeDelta;
use opship::agent::reconcile::Repaired;
use opship::agent::{Tick, Trouble};
use opship::flow::retry::Patience;
use opship::flow::{EventId, EventKey, Hour};
use opship::table::Span;
use std::collections::HashMap;
use std::time::Duration;

/// Rows that the destination accepted and then lost: a full batch and a half.
const LOST: usize = ROWS_MAX + 2;

type Missing = HashMap<EventKey, Option<u32>>;

/// Nine events are shipped, six of their rows are lost, and a tenth event was never shipped.
async fn scene(order: Order) -> (World, Vec<String>) {
    let mut world = World::new(order);
    world.add(9);
    world.start().good().await;
    let lost = world.uuids()[..LOST].to_vec();
    world.add(1);
    // Each batch of a repair counts as a doubt, and in these scenes there are two, or three after a crash.
    world.state().sink.doubts += 3;
    tokio::time::sleep(Duration::from_secs(1)).await;
    (world, lost)
}

impl World {
    /// These events as a comparison finds them.
    fn missing(&self, uuids: &[String]) -> Missing {
        let attempts = ledger(self);
        let state = self.state();
        let of = |uuid: &String| {
            let event = state.source.events.iter().find(|event| event.uuid == *uuid).expect("it was added");
            let key = EventKey { hour: Hour::of(Some(event.timestamp)), id: EventId::of_uuid(uuid) };
            (key, attempts.get(&(key.hour.to_string(), key.id)).copied())
        };
        uuids.iter().map(of).collect()
    }

    /// Those of the lost rows that no repair has brought back, and what was never shipped.
    fn still_missing(&self, lost: &[String]) -> Vec<String> {
        let is_missing = |uuid: &String| self.rows_of(uuid) == usize::from(lost.contains(uuid));
        self.uuids().into_iter().filter(is_missing).collect()
    }

    fn today(&self) -> Span {
        let now = self.state().now();
        Span { from: now - TimeDelta::hours(12), until: now }
    }
}

impl Process {
    /// `None`: the process died in it.
    async fn repair(&mut self, span: Span, missing: Missing) -> Option<(Repaired, Result<(), Trouble>)> {
        let tick = Tick { patience: Patience::ONCE, standby_max: 2 * TTL, late_gives_way: &|| false };
        let feed = self.feed.as_mut().expect("the process lives");
        let mut repaired = Repaired::default();
        let work = async {
            feed.source_time().await?;
            feed.repair(span, missing, tick, &mut repaired).await
        };
        let outcome = tokio::select! {
            biased;
            () = self.link.dead.cancelled() => None,
            outcome = self.link.dying_at_a_wait(work) => Some(outcome),
        };
        if outcome.is_none() {
            self.feed = None;
        }
        outcome.map(|outcome| (repaired, outcome))
    }
}

/// Fault: kill -9 at each wait of a repair of two batches. Shows: the next comparison and repair bring back the rest; every copy is traceable, and the live feed ships nothing twice.
#[tokio::test(start_paused = true)]
async fn a_repair_killed_at_any_wait_is_ended_by_the_next_one() {
    for order in BOTH {
        let mut crashes = 0;
        for k in 1.. {
            let (mut world, lost) = scene(order).await;
            let (span, missing) = (world.today(), world.missing(&world.still_missing(&lost)));
            assert_eq!(missing.len(), LOST + 1);
            let mut process = world.start();
            process.link.die_at_wait(k);
            let outcome = process.repair(span, missing).await;
            world.every_copy_is_traceable();
            if let Some((repaired, outcome)) = outcome {
                outcome.unwrap();
                let expected = Repaired { shipped: LOST as u64 + 1, ..Repaired::default() };
                assert_eq!((repaired, crashes > 20), (expected, true), "{crashes} crashes");
                break;
            }
            (crashes, world.crashes) = (crashes + 1, world.crashes + 1);
            tokio::time::sleep(TTL).await;
            world.start().good().await;
            let left = world.still_missing(&lost);
            let (span, missing) = (world.today(), world.missing(&left));
            let (repaired, outcome) = world.start().repair(span, missing).await.unwrap();
            outcome.unwrap();
            assert_eq!(repaired, Repaired { shipped: left.len() as u64, ..Repaired::default() }, "wait {k}");
            assert_eq!(world.still_missing(&lost), Vec::<String>::new(), "wait {k}");
            world.nothing_is_lost();
            world.is_sound();
            assert!(world.open_intent().is_none());
        }
    }
}

/// Fault: the live feed ships an event between its comparison and its repair. Shows: the repair leaves it alone, and says so.
#[tokio::test(start_paused = true)]
async fn what_the_live_feed_shipped_meanwhile_is_left_alone() {
    let (mut world, lost) = scene(Order::Insertion).await;
    let (span, missing) = (world.today(), world.missing(&world.still_missing(&lost)));
    world.start().good().await;
    let (repaired, outcome) = world.start().repair(span, missing).await.unwrap();
    outcome.unwrap();
    assert_eq!(repaired, Repaired { shipped: LOST as u64, overtaken: 1, gone: 0 });
    assert_eq!(world.rows_of("EVENT000009"), 1);
    world.is_sound();
}

/// Fault: a destination that refuses the repair for good. Shows: nothing is open or in doubt afterwards, and the attempts stand as they were.
#[tokio::test(start_paused = true)]
async fn a_refused_repair_leaves_no_trace() {
    let (mut world, lost) = scene(Order::Insertion).await;
    let (span, missing) = (world.today(), world.missing(&lost));
    world.on_post(|_| crate::sink::Outcome::Refuse(404));
    let (repaired, outcome) = world.start().repair(span, missing.clone()).await.unwrap();
    assert!(matches!(outcome, Err(Trouble::Undeliverable { .. })), "{outcome:?}");
    assert_eq!(repaired, Repaired::default());
    assert_eq!(world.missing(&lost), missing);
    assert!(world.open_intent().is_none() && world.checkpoint().in_doubt.batches == 0);
}
