//! `reconcile --repair` inside a process that dies: at every wait, and in a race with the live feed.

use crate::oracle::ledger;
use crate::source::{BOTH, Order, Reply};
use crate::store::{Fault, Op, TTL};
use crate::world::{HOUR, MINUTE, Process, ROWS_MAX, World};
use chrono::TimeDelta;
use opship::agent::commands::reconcile::{Audit, ReconcileError};
use opship::agent::commands::repair::{Repaired, Repairing};
use opship::agent::{Tick, Trouble};
use opship::flow::reconcile::Compared;
use opship::flow::retry::Patience;
use opship::flow::{EventId, EventKey, Hour};
use opship::table::Span;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

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
    async fn repair(&mut self, span: Span, missing: Missing) -> Option<(Repaired, Result<(), ReconcileError>)> {
        self.repair_within(Duration::ZERO, span, missing).await
    }

    /// The same over a table that takes so long to show its rows.
    async fn repair_within(
        &mut self,
        latency: Duration,
        span: Span,
        missing: Missing,
    ) -> Option<(Repaired, Result<(), ReconcileError>)> {
        let tick = Tick { patience: Patience::ONCE, standby_max: 2 * TTL, late_gives_way: &|| false };
        let table = self.link.clone();
        let mut repairing = Repairing::new(Audit { table: &table, latency, others_ship_there: false }, tick);
        let feed = self.feed.as_mut().expect("the process lives");
        let work = async {
            feed.source_time().await?;
            feed.repair(span, missing, &mut repairing).await
        };
        let outcome = tokio::select! {
            biased;
            () = self.link.dead.cancelled() => None,
            outcome = self.link.dying_at_a_wait(work) => Some(outcome),
        };
        if outcome.is_none() {
            self.feed = None;
        }
        outcome.map(|outcome| (repairing.done, outcome))
    }

    async fn compare(&mut self, span: Span) -> Result<Option<Compared>, ReconcileError> {
        let tick = Tick { patience: Patience::ONCE, standby_max: 2 * TTL, late_gives_way: &|| false };
        let table = self.link.clone();
        let audit = Audit { table: &table, latency: Duration::ZERO, others_ship_there: false };
        self.feed.as_mut().expect("the process lives").compare(span, audit, tick).await
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
    let refused = |error: &ReconcileError| matches!(error, ReconcileError::Trouble(Trouble::Undeliverable { .. }));
    assert!(outcome.as_ref().is_err_and(refused), "{outcome:?}");
    assert_eq!(repaired, Repaired::default());
    assert_eq!(world.missing(&lost), missing);
    assert!(world.open_intent().is_none() && world.checkpoint().slot.in_doubt().batches == 0);
}

/// Fault: the destination accepts a repair's batch, and the ledger takes nothing for longer than that is tried. Shows: the rows stay in doubt, nothing is shipped again without a trace, the next process records them.
#[tokio::test(start_paused = true)]
async fn fm_54_what_a_repair_was_told_is_accepted_is_not_forgotten_when_the_ledger_is_away() {
    for never_shipped in [false, true] {
        let (mut world, lost) = scene(Order::Insertion).await;
        let repaired = if never_shipped { world.uuids()[9..].to_vec() } else { lost[..2].to_vec() };
        let (span, missing) = (world.today(), world.missing(&repaired));
        world.on_store(|op, _| (op == Op::Append).then_some(Fault::Fail));
        let mut process = world.start();
        let (_, outcome) = process.repair(span, missing).await.unwrap();
        assert!(outcome.is_err(), "{outcome:?}");
        assert!(world.open_intent().is_some(), "the rows are in the table, and no frame says so");
        world.every_copy_is_traceable();
        world.heal();
        tokio::time::sleep(TTL).await;
        world.start().good().await;
        world.nothing_is_lost();
        world.is_sound();
        for uuid in &repaired {
            let (rows, attempt) =
                (world.rows_of(uuid) as u64, world.missing(std::slice::from_ref(uuid)).into_values().next());
            assert!(
                attempt.flatten().is_some_and(|attempt| rows <= u64::from(attempt)),
                "{uuid}: {rows} rows, {attempt:?}"
            );
        }
    }
}

/// Fault: of the three events of one batch another process ships one first. Shows: that one is left alone and the other two are shipped.
#[tokio::test(start_paused = true)]
async fn one_overtaken_row_keeps_none_of_its_batch_back() {
    let (mut world, _) = scene(Order::Insertion).await;
    world.add(2);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let new = world.uuids()[9..].to_vec();
    let (span, missing, first) = (world.today(), world.missing(&new), world.missing(&new[1..2]));
    world.start().repair(span, first).await.unwrap().1.unwrap();
    let (repaired, outcome) = world.start().repair(span, missing).await.unwrap();
    outcome.unwrap();
    assert_eq!(repaired, Repaired { shipped: 2, overtaken: 1, gone: 0 });
    assert!(new.iter().all(|uuid| world.rows_of(uuid) == 1));
    assert_eq!(world.state().sink.posts.last(), Some(&vec![new[0].clone(), new[2].clone()]));
    world.is_sound();
}

/// Fault: a source that gives empty pages for ever, each with a cursor of its own. Shows: comparison and repair end and say so.
#[tokio::test(start_paused = true)]
async fn a_range_without_an_end_ends_the_audit() {
    let (mut world, lost) = scene(Order::Insertion).await;
    let (span, missing) = (world.today(), world.missing(&lost));
    let asked = world.requests().len();
    let mut n = 0;
    world.on_page(move |_| {
        n += 1;
        assert!(n < 1_000, "it goes on for ever");
        Some(Reply::Body(format!(r#"{{"cursor":"empty-{n}","has_more":true,"items":[]}}"#)))
    });
    let stuck = world.start().compare(span).await.unwrap_err();
    assert!(matches!(stuck, ReconcileError::Trouble(Trouble::Stuck(_))), "{stuck}");
    let (repaired, outcome) = world.start().repair(span, missing).await.unwrap();
    let is_stuck = |error: &ReconcileError| matches!(error, ReconcileError::Trouble(Trouble::Stuck(_)));
    assert!(outcome.as_ref().is_err_and(is_stuck), "{outcome:?}");
    assert_eq!((repaired, world.requests().len() - asked), (Repaired::default(), 200));
}

/// Fault: two answers in a row that are no page. Shows: comparison and repair ask again, and find and ship everything.
#[tokio::test(start_paused = true)]
async fn a_page_that_is_broken_twice_is_asked_for_again() {
    let (mut world, lost) = scene(Order::Insertion).await;
    let (span, missing) = (world.today(), world.missing(&lost));
    let broken_twice = |world: &World| {
        let mut left = 2;
        world.on_page(move |_| {
            left -= 1;
            (left >= 0).then(|| Reply::Body(r#"{"cursor":"#.into()))
        });
    };
    broken_twice(&world);
    let compared = world.start().compare(span).await.unwrap().expect("few events");
    assert_eq!(compared.missing.len(), 1, "the tenth was never shipped");
    broken_twice(&world);
    let (repaired, outcome) = world.start().repair(span, missing).await.unwrap();
    outcome.unwrap();
    assert_eq!(repaired, Repaired { shipped: LOST as u64, ..Repaired::default() });
}

/// Fault: a mistyped store, then a store of another destination. Shows: neither comparison nor repair begins, and nothing is written.
#[tokio::test(start_paused = true)]
async fn without_a_position_of_its_own_nothing_is_compared_or_repaired() {
    let (mut world, lost) = scene(Order::Insertion).await;
    let (span, missing) = (world.today(), world.missing(&lost));
    let kept = std::mem::take(&mut world.state().store.blobs);
    let effects = world.state().effects();
    let no_position = |trouble: &Trouble| trouble.to_string().contains("has no position yet");
    let compared = world.start().compare(span).await.unwrap_err();
    assert!(matches!(&compared, ReconcileError::Trouble(trouble) if no_position(trouble)), "{compared}");
    let mut process = world.start();
    let tick = Tick { patience: Patience::ONCE, standby_max: 2 * TTL, late_gives_way: &|| false };
    let settled = process.feed.as_mut().unwrap().settle_open_batch(tick).await.unwrap_err();
    assert!(no_position(&settled), "{settled}");
    let (_, outcome) = world.start().repair(span, missing).await.unwrap();
    let of_position =
        |error: &ReconcileError| matches!(error, ReconcileError::Trouble(trouble) if no_position(trouble));
    assert!(outcome.as_ref().is_err_and(of_position), "{outcome:?}");
    assert_eq!(world.state().effects(), effects);

    world.state().store.blobs = kept;
    let mut elsewhere = world.checkpoint();
    elsewhere.fingerprints.sink = "another".into();
    world.state().store.set(crate::world::CHECKPOINT, elsewhere.encode().unwrap());
    let compared = world.start().compare(span).await.unwrap_err();
    assert!(matches!(compared, ReconcileError::Trouble(Trouble::Misfit { .. })), "{compared}");
}

/// Fault: rows take ten minutes to show, or never do. Shows: the second batch of a repair waits for the first, half an hour at most; then the repair stops, and what it shipped is recorded.
#[tokio::test(start_paused = true)]
async fn fm_59_the_second_batch_of_a_repair_waits_until_the_first_is_seen() {
    let latency = 15 * MINUTE;
    for (shows_after, shipped, least, most) in
        [(10 * MINUTE, LOST + 1, 10 * MINUTE, 12 * MINUTE), (48 * HOUR, ROWS_MAX, 30 * MINUTE, 31 * MINUTE)]
    {
        let (mut world, lost) = scene(Order::Insertion).await;
        {
            let mut state = world.state();
            state.sink.shows_after = shows_after;
            state.sink.ingested.retain(|(uuid, _)| !lost.contains(uuid));
        }
        let (span, missing, begun) = (world.today(), world.missing(&world.still_missing(&lost)), Instant::now());
        let (repaired, outcome) = world.start().repair_within(latency, span, missing).await.unwrap();
        let took = begun.elapsed();
        assert_eq!((repaired.shipped, outcome.is_ok()), (shipped as u64, shipped > ROWS_MAX), "{outcome:?}");
        assert!((least..most).contains(&took), "{took:?}");
        assert!(matches!(outcome, Ok(()) | Err(ReconcileError::Unseen { rows: ROWS_MAX, .. })), "{outcome:?}");
        world.every_copy_is_traceable();
        assert!(world.open_intent().is_none());
    }
}

/// Fault: an event of a second 60, whose row has no time to be found by. Shows: a comparison leaves it out, and a repair ships it no second time.
#[tokio::test(start_paused = true)]
async fn fm_49_an_event_whose_time_no_row_can_hold_is_not_judged() {
    let mut world = World::new(Order::Insertion);
    world.start().good().await;
    let minute = world.state().now().format("%Y-%m-%dT%H:%M").to_string();
    world.on_page(move |_| {
        let item = |second: &str| format!(r#"{{"uuid":"OF{second}","timestamp":"{minute}:{second}Z"}}"#);
        let (odd, whole) = (item("60"), item("00"));
        Some(Reply::Body(format!(r#"{{"cursor":"c","has_more":false,"items":[{odd},{whole}]}}"#)))
    });
    tokio::time::sleep(2 * MINUTE).await;
    {
        let mut state = world.state();
        let now = state.now();
        state.sink.beat(now);
    }
    let span = world.today();
    let compared = world.start().compare(span).await.unwrap().expect("few events");
    let missing: Vec<EventId> = compared.missing.keys().map(|key| key.id).collect();
    assert_eq!(missing, [EventId::of_uuid("OF00")]);
}
