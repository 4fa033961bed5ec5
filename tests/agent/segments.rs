//! The ledger takes no appends, or has lost some of what it took: nothing is posted again and again, and nobody has to find out alone.

use crate::log::Log;
use crate::source::{BOTH, Order};
use crate::store::{Fault, Op};
use crate::world::{HOUR, MINUTE, World};
use opship::agent::{Trouble, Waiting};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const STARTS: usize = 8;
const GONE: &str = "a part of the ledger is gone";

/// Both ways of a store to take no append: a refusal that stays, and a failure that may be one of the network.
fn seal(world: &World, way: u64) {
    let mut state = world.state();
    state.store.seal();
    if way == 1 {
        state.store.seal();
    }
}

/// Fault: the ledger takes no append from the first start on. Shows: no start posts a row or leaves an intent; healed, all arrives once.
#[tokio::test(start_paused = true)]
async fn fm_54_a_ledger_that_takes_nothing_is_found_before_the_first_post() {
    for (order, way) in BOTH.into_iter().flat_map(|order| [(order, 0), (order, 1)]) {
        let mut world = World::new(order);
        world.add(9);
        seal(&world, way);
        for _ in 0..STARTS {
            let mut process = world.start();
            for _ in 0..2 {
                let trouble = process.bad().await;
                assert!(matches!(trouble, Trouble::Store(_)) && trouble.waiting() == Waiting::Store, "{trouble}");
            }
            assert!(world.open_intent().is_none(), "a refusal leaves nothing open");
        }
        assert_eq!(world.state().sink.begun, 0);
        assert_eq!(world.checkpoint().slot.in_doubt().batches, 0);
        world.heal();
        world.start().good().await;
        world.each_event_has_one_row();
        world.is_sound();
    }
}

/// Fault: the ledger is sealed between a POST and its record, then the process is started again eight times. Shows: no start posts the batch again or raises its attempt; healed, it is posted once more, with its trace.
#[tokio::test(start_paused = true)]
async fn fm_54_no_start_posts_a_batch_again_that_cannot_be_recorded() {
    for way in [0, 1] {
        let mut world = World::new(Order::Insertion);
        world.add(3);
        world.state().sink.then_seal = way + 1;
        assert!(matches!(world.start().bad().await, Trouble::Store(_)));
        assert_eq!(world.rows(), 3, "the first process had proven it");
        let before = world.checkpoint();
        for _ in 0..STARTS {
            world.crashes += 1;
            tokio::time::sleep(3 * MINUTE).await;
            let trouble = world.start().bad().await;
            assert_eq!(trouble.waiting(), Waiting::Store, "{trouble}");
        }
        assert_eq!(world.rows(), 3, "nothing is posted that would leave no trace");
        let after = world.checkpoint();
        assert_eq!(
            (&after.slot.intent(), &after.slot.in_doubt()),
            (&before.slot.intent(), &before.slot.in_doubt()),
            "nor counted"
        );
        world.heal();
        tokio::time::sleep(3 * MINUTE).await;
        world.start().good().await;
        world.nothing_is_lost();
        world.is_sound();
        assert_eq!(world.rows(), 6, "once more, by the first start that can record it");
    }
}

/// Fault: one segment alone takes no appends (a lease, the archive tier). Shows: a batch of that hour is not posted by any start, those of other hours are not held by its seal.
#[tokio::test(start_paused = true)]
async fn fm_54_a_single_segment_that_is_sealed_stops_the_batch_of_its_hour() {
    let mut world = World::new(Order::Insertion);
    tokio::time::sleep(30 * MINUTE).await;
    let first = world.add(3);
    world.start().good().await;
    tokio::time::sleep(HOUR).await;
    let later = world.add(2);
    world.on_store(|op, key| {
        (matches!(op, Op::Append | Op::Prove) && key.ends_with("/2026112211")).then_some(Fault::Fail)
    });
    for _ in 0..3 {
        assert!(matches!(world.start().bad().await, Trouble::Store(_)));
    }
    assert!(later.iter().all(|uuid| world.rows_of(uuid) == 0) && first.iter().all(|uuid| world.rows_of(uuid) == 1));
    world.heal();
    world.start().good().await;
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn a_running_process_appends_one_empty_frame_and_an_idle_tick_asks_no_more_than_before() {
    let mut world = World::new(Order::Insertion);
    tokio::time::sleep(30 * MINUTE).await;
    world.add(3);
    let (appends, lists) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (appended, listed) = (appends.clone(), lists.clone());
    world.on_store(move |op, key| {
        let of_ledger = key.starts_with("ledger/");
        appended.fetch_add(u64::from(of_ledger && matches!(op, Op::Append | Op::Prove)), Ordering::Relaxed);
        listed.fetch_add(u64::from(of_ledger && op == Op::List), Ordering::Relaxed);
        None
    });
    let mut process = world.start();
    process.good().await;
    assert_eq!(appends.load(Ordering::Relaxed), 2, "the proof and the ids");
    let writes = world.state().store.writes;
    let asked = lists.load(Ordering::Relaxed);
    for _ in 0..3 {
        tokio::time::sleep(MINUTE).await;
        process.good().await;
    }
    assert_eq!((world.state().store.writes - writes, lists.load(Ordering::Relaxed) - asked), (0, 0), "idle");
    world.add(3);
    process.good().await;
    assert_eq!(appends.load(Ordering::Relaxed), 3, "proven once a process");
    assert_eq!(lists.load(Ordering::Relaxed), 1);
    world.the_checkpoint_knows_its_ledger();
    assert_eq!(world.checkpoint().ledger.unwrap().bytes, 28 + 2 * (28 + 3 * 16));
}

/// A world with three hours in its ledger.
async fn three_hours() -> World {
    let mut world = World::new(Order::Insertion);
    for _ in 0..3 {
        tokio::time::sleep(HOUR).await;
        world.add(2);
        world.start().good().await;
    }
    world
}

fn segment(world: &World) -> String {
    world.state().store.blobs.keys().find(|name| name.starts_with("ledger/")).expect("a segment").clone()
}

/// Fault: a segment of the ledger is deleted, or emptied. Shows: the next start says which part is gone and what to do, counts its rows as in doubt, and nobody says it twice.
#[tokio::test(start_paused = true)]
async fn fm_55_a_segment_that_is_gone_or_empty_is_told_once() {
    for emptied in [false, true] {
        let mut world = three_hours().await;
        let before = world.checkpoint();
        let name = segment(&world);
        let lost = world.state().store.blobs[&name].bytes.len() as u64;
        world.state().store.blobs.remove(&name);
        if emptied {
            world.state().store.set(&name, Vec::new());
        }
        let log = Log::listen();
        world.start().good().await;
        let said = log.said(GONE);
        assert_eq!(said.len(), 1, "emptied: {emptied}");
        assert_eq!((said[0]["segments"].as_u64(), said[0]["bytes"].as_u64()), (Some(1), Some(lost)));
        assert!(said[0]["remedy"].as_str().is_some_and(|remedy| remedy.contains("ledger/")), "{said:?}");
        let after = world.checkpoint();
        assert_eq!(after.slot.in_doubt().batches, before.slot.in_doubt().batches + 1);
        assert_eq!(after.slot.in_doubt().last.last().unwrap().rows, lost / 16);
        for _ in 0..3 {
            world.start().good().await;
        }
        assert_eq!(log.said(GONE).len(), 1, "told once");
        assert_eq!(world.checkpoint().slot.in_doubt(), after.slot.in_doubt());
        world.the_checkpoint_knows_its_ledger();
    }
}

/// Fault: a segment is cut to a part of its frames while the process runs. Shows: the late sweep that reads it tells it before it ships again what is missing.
#[tokio::test(start_paused = true)]
async fn fm_55_a_segment_that_lost_frames_is_told_by_the_running_process() {
    let mut world = three_hours().await;
    let mut process = world.start();
    process.good().await;
    let name = segment(&world);
    let half = world.state().store.blobs[&name].bytes[..28].to_vec();
    world.state().store.set(&name, half);
    let log = Log::listen();
    tokio::time::sleep(2 * HOUR).await;
    process.good().await;
    assert_eq!(log.said(GONE).len(), 1);
}

/// Fault: old segments retire, and the process dies at every point of it. Shows: what retired is no loss, whoever looks next.
#[tokio::test(start_paused = true)]
async fn fm_55_segments_that_retire_are_no_loss_wherever_the_process_dies() {
    for k in 1..60 {
        let mut world = three_hours().await;
        world.settings.ledger_keep = 2 * HOUR;
        tokio::time::sleep(6 * HOUR).await;
        world.add(1);
        let log = Log::listen();
        let died = world.crash_at(k).await;
        tokio::time::sleep(3 * MINUTE).await;
        world.start().good().await;
        world.start().good().await;
        assert_eq!(log.said(GONE).len(), 0, "died at wait {k}");
        assert_eq!(world.checkpoint().ledger.unwrap().segments, 1, "three retired");
        world.the_checkpoint_knows_its_ledger();
        if !died {
            return;
        }
    }
    panic!("a tick has an end");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_retires_is_no_thief_to_the_other() {
    let mut world = three_hours().await;
    world.settings.ledger_keep = 2 * HOUR;
    let (mut one, mut other) = (world.start(), world.start());
    other.good().await;
    tokio::time::sleep(6 * HOUR).await;
    let log = Log::listen();
    one.good().await;
    for _ in 0..3 {
        world.add(1);
        let (a, b) = tokio::join!(one.tick(), other.tick());
        assert!(a.is_some() && b.is_some());
        tokio::time::sleep(HOUR).await;
    }
    assert_eq!(log.said(GONE).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reset_with_a_new_ledger_begins_to_count_anew() {
    let mut world = three_hours().await;
    world.start().feed.as_mut().unwrap().reset(false).await.unwrap();
    assert!(world.checkpoint().ledger.is_some(), "the ledger stays");
    world.start().feed.as_mut().unwrap().reset(true).await.unwrap();
    assert_eq!(world.checkpoint().ledger, None);
    let log = Log::listen();
    world.start().good().await;
    assert_eq!(log.said(GONE).len(), 0);
    world.the_checkpoint_knows_its_ledger();
}
