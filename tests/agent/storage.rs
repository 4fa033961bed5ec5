//! A store that fails, loses replies, tears appends, comes back from a backup.

use crate::log::Log;
use crate::source::{BOTH, Order};
use crate::store::{Blob, Fault, Op};
use crate::world::{CHECKPOINT, MINUTE, World};
use opship::agent::{Trouble, Waiting};
use opship::config::Lookback;
use opship::flow::checkpoint::Fingerprints;
use std::time::Duration;

/// Fault: the reply to the n-th write of the checkpoint is lost, the next try gets a 412. Shows: the write is known as ours, no row twice.
#[tokio::test(start_paused = true)]
async fn fm_24_a_lost_reply_of_the_checkpoint_is_recognised_as_our_own_write() {
    for n in 1..6 {
        let mut world = World::new(Order::Insertion);
        world.add(6);
        world.fault_at(n, Op::Put, CHECKPOINT, Fault::LoseReply);
        world.start().good().await;
        world.each_event_has_one_row();
        assert_eq!(world.checkpoint().slot.in_doubt().batches, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_of_an_append_is_recognised_by_its_frame() {
    for (n, fault) in [(1, Fault::LoseReply), (2, Fault::LoseReply), (1, Fault::Fail), (2, Fault::Fail)] {
        let mut world = World::new(Order::Insertion);
        world.add(6);
        world.fault_at(n, Op::Append, "ledger/", fault);
        world.start().good().await;
        world.each_event_has_one_row();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_torn_append_is_cut_or_left_behind_and_nothing_is_shipped_twice() {
    for can_cut in [true, false] {
        let mut world = World::new(Order::Insertion);
        world.state().store.can_cut = can_cut;
        world.add(9);
        world.fault_at(2, Op::Append, "ledger/", Fault::Tear);
        world.start().good().await;
        world.each_event_has_one_row();
        world.state().source.reject_cursors();
        world.start().good().await;
        world.each_event_has_one_row();
    }
}

#[tokio::test(start_paused = true)]
async fn accepted_rows_that_cannot_be_recorded_are_remembered_not_posted_again() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.on_store(|op, _| (op == Op::Append).then_some(Fault::Fail));
    let mut process = world.start();
    assert!(matches!(process.bad().await, Trouble::Store(_)));
    world.heal();
    process.good().await;
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_at_the_nth_call_loses_nothing() {
    for order in BOTH {
        for n in 1..40 {
            let mut world = World::new(order);
            world.add(9);
            let mut calls = 0;
            world.on_store(move |_, _| {
                calls += 1;
                (calls == n).then_some(if n % 2 == 0 { Fault::Fail } else { Fault::LoseReply })
            });
            let mut process = world.start();
            _ = process.tick().await;
            world.heal();
            process.good().await;
            world.each_event_has_one_row();
            world.is_sound();
        }
    }
}

/// Fault: the store is down at the load. Shows: no page is asked for, nothing is posted, the state is told, and all arrives once when it is back.
#[tokio::test(start_paused = true)]
async fn fm_22_a_store_that_is_down_stops_reading_and_posting() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.on_store(|_, _| Some(Fault::Fail));
    let mut process = world.start();
    for _ in 0..3 {
        let trouble = process.bad().await;
        assert!(matches!(trouble, Trouble::Store(_)), "{trouble}");
        assert_eq!(trouble.waiting(), Waiting::Store);
        assert_eq!(trouble.health(), Some(("checkpoint_failed", "Position not writable")));
        tokio::time::sleep(MINUTE).await;
    }
    assert!(world.requests().is_empty() && world.state().sink.begun == 0);
    world.heal();
    process.good().await;
    world.each_event_has_one_row();
    world.is_sound();
}

/// Three events of one hour, so that one append records them.
async fn in_the_middle_of_an_hour() -> World {
    let world = World::new(Order::Insertion);
    tokio::time::sleep(30 * MINUTE).await;
    world.add(3);
    world
}

/// Lets the store fail from the first append to the ledger on, for so long.
fn down_at_the_commit(world: &World, for_s: u64) {
    let mut until = None;
    world.on_store(move |op, _| {
        if let Some(until) = until {
            return (tokio::time::Instant::now() < until).then_some(Fault::Fail);
        }
        if op == Op::Append {
            until = Some(tokio::time::Instant::now() + Duration::from_secs(for_s));
        }
        None
    });
}

/// Fault: the store is down for 40 s at the commit. Shows: the position is held and written in the same tick, without another POST.
#[tokio::test(start_paused = true)]
async fn fm_23_a_store_down_for_a_while_at_the_commit_is_waited_for() {
    let mut world = in_the_middle_of_an_hour().await;
    down_at_the_commit(&world, 40);
    assert_eq!(world.start().good().await.shipped, 3);
    let cp = world.checkpoint();
    assert!(cp.cursor.is_some() && cp.slot.intent().is_none() && cp.slot.in_doubt().batches == 0);
    assert_eq!(world.state().sink.posts.len(), 1);
    world.each_event_has_one_row();
    world.is_sound();
}

/// Fault: the store is down for longer than an intent lives. Shows: the tick ends within the ttl, the next one recovers without another POST.
#[tokio::test(start_paused = true)]
async fn fm_23_a_store_down_for_long_at_the_commit_is_left_to_recovery() {
    for same_process in [true, false] {
        let mut world = in_the_middle_of_an_hour().await;
        down_at_the_commit(&world, 600);
        let (mut process, begun) = (world.start(), tokio::time::Instant::now());
        assert!(matches!(process.bad().await, Trouble::Store(_)));
        assert!((30..=120).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        assert!(world.checkpoint().slot.intent().is_some() && world.checkpoint().cursor.is_none());
        tokio::time::sleep(Duration::from_secs(600)).await;
        if !same_process {
            process = world.start();
        }
        process.good().await;
        assert_eq!(world.state().sink.posts.len(), 1);
        assert!(world.checkpoint().slot.intent().is_none() && world.checkpoint().cursor.is_some());
        world.each_event_has_one_row();
        world.is_sound();
    }
}

/// Ships six events, lets the store go back by that once six more are shipped, then adds two: a process that lives on, or a new one.
async fn goes_back(order: Order, with_ledger: bool, same_process: bool) -> (World, Log) {
    let mut world = World::new(order);
    world.add(6);
    let mut process = world.start();
    process.good().await;
    let backup = world.state().store.blobs.clone();
    world.add(6);
    process.good().await;
    let is_older = |name: &str| with_ledger || name.starts_with("checkpoints/");
    for (name, blob) in backup.iter().filter(|(name, _)| is_older(name)) {
        world.state().store.set(name, blob.bytes.clone());
    }
    world.add(2);
    let log = Log::listen();
    if !same_process {
        process = world.start();
    }
    process.good().await;
    world.the_position_is_covered();
    (world, log)
}

/// Fault: the checkpoint goes back to an older one, the ledger does not. Shows: what is read again is known and counted, no row twice.
#[tokio::test(start_paused = true)]
async fn fm_25_an_older_checkpoint_over_the_ledger_ships_nothing_twice() {
    for (order, same_process) in BOTH.into_iter().flat_map(|order| [true, false].map(|same| (order, same))) {
        let (world, log) = goes_back(order, false, same_process).await;
        world.each_event_has_one_row();
        world.is_sound();
        assert!(world.checkpoint().totals.known >= 6);
        assert_eq!(log.said("the store went back").len(), usize::from(same_process));
    }
}

/// Fault: a checkpoint goes back to the one that a replica knows, over what another shipped since. Shows: each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_25_a_replica_does_not_trust_its_memory_of_the_ledger_below_a_restored_checkpoint() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(6);
        let (mut one, mut other) = (world.start(), world.start());
        one.good().await;
        other.good().await;
        let known = world.state().store.blobs[CHECKPOINT].bytes.clone();
        world.add(6);
        one.good().await;
        world.state().store.set(CHECKPOINT, known);
        other.good().await;
        world.each_event_has_one_row();
        world.is_sound();
    }
}

/// Fault: checkpoint and ledger go back together. Shows: nothing is lost, only rows since then have a copy, who saw it counts and tells them.
#[tokio::test(start_paused = true)]
async fn fm_25_an_older_checkpoint_and_ledger_lose_nothing() {
    for (order, same_process) in BOTH.into_iter().flat_map(|order| [true, false].map(|same| (order, same))) {
        let (world, log) = goes_back(order, true, same_process).await;
        world.nothing_is_lost();
        let copies: Vec<usize> = world.uuids().iter().map(|uuid| world.rows_of(uuid)).collect();
        assert_eq!(copies, [[1; 6], [2; 6]].concat().into_iter().chain([1, 1]).collect::<Vec<_>>());
        let (told, in_doubt) = (log.said("the store went back"), world.checkpoint().slot.in_doubt().clone());
        assert_eq!((told.len(), in_doubt.rows), if same_process { (1, 6) } else { (0, 0) });
    }
}

/// Fault: a torn checkpoint, with and without its fallback copy. Shows: it is put aside and told, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_27_a_corrupt_checkpoint_falls_back_without_duplicates() {
    for with_previous in [true, false] {
        let mut world = World::new(Order::Insertion);
        world.add(6);
        let mut process = world.start();
        process.good().await;
        world.add(6);
        process.good().await;
        world.state().store.set(CHECKPOINT, b"{\"torn".to_vec());
        if !with_previous {
            world.state().store.blobs.retain(|name, _| !name.ends_with("prev.json"));
        }
        world.add(2);
        let log = Log::listen();
        process.good().await;
        world.each_event_has_one_row();
        world.is_sound();
        let aside = |(name, blob): (&String, &Blob)| name.contains("corrupt-") && blob.bytes == b"{\"torn";
        assert!(world.state().store.blobs.iter().any(aside));
        let told = log.said("the checkpoint is unreadable");
        assert_eq!((told.len(), &told[0]["level"]), (1, &"ERROR".into()));
    }
}

/// Fault: a torn checkpoint without a copy under `lookback = "now"`. Shows: what came meanwhile is shipped, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_27_a_corrupt_checkpoint_never_starts_from_now() {
    let mut world = World::new(Order::Insertion);
    world.settings.lookback = Lookback::Now;
    let mut process = world.start();
    process.good().await;
    world.add(6);
    process.good().await;
    world.state().store.set(CHECKPOINT, b"{\"torn".to_vec());
    world.state().store.blobs.retain(|name, _| !name.ends_with("prev.json"));
    world.add(2);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    drop(process);
    world.start().good().await;
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn a_deleted_checkpoint_falls_back_to_its_copy() {
    let mut world = World::new(Order::Insertion);
    world.settings.lookback = Lookback::Now;
    let mut process = world.start();
    process.good().await;
    world.add(6);
    process.good().await;
    world.state().store.blobs.retain(|name, _| name != CHECKPOINT);
    world.add(2);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    drop(process);
    world.start().good().await;
    world.each_event_has_one_row();
}

/// Fault: the checkpoint is of another account, source or destination. Shows: both fingerprints are named, nothing is read, posted or written.
#[tokio::test(start_paused = true)]
async fn fm_28_a_checkpoint_of_another_place_is_refused_with_both_fingerprints() {
    let there = ("https://events.test", "ACCOUNT", "dcr-test/Custom-OnePasswordEventLogs_CL");
    for (source, account, sink) in [("https://x", there.1, there.2), (there.0, "x", there.2), (there.0, there.1, "x")] {
        let mut world = World::new(Order::Insertion);
        world.add(3);
        world.start().good().await;
        let mut cp = world.checkpoint();
        assert_eq!(cp.fingerprints, Fingerprints::new(there.0, Some(there.1), there.2));
        cp.fingerprints = Fingerprints::new(source, Some(account), sink);
        let foreign = cp.encode().expect("JSON");
        world.state().store.set(CHECKPOINT, foreign.clone());
        let (asked, effects) = (world.requests().len(), world.state().effects());
        let trouble = world.start().bad().await;
        assert!(matches!(trouble, Trouble::Misfit { .. }), "{trouble}");
        let both = [cp.fingerprints.to_string(), Fingerprints::new(there.0, Some(there.1), there.2).to_string()];
        assert!(both.iter().all(|fingerprints| trouble.to_string().contains(fingerprints)), "{trouble}");
        assert_eq!((world.requests().len(), world.state().effects()), (asked, effects));
        assert_eq!(world.state().store.blobs[CHECKPOINT].bytes, foreign);
    }
}

/// Fault: a newer program left a checkpoint that asks for a newer reader. Shows: it is refused by name, nothing is read, posted or overwritten.
#[tokio::test(start_paused = true)]
async fn fm_29_a_checkpoint_for_newer_readers_stands_untouched() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.start().good().await;
    let newer = for_newer_readers("opship-checkpoint", &world.state().store.blobs[CHECKPOINT].bytes);
    world.state().store.set(CHECKPOINT, newer.clone());
    let (asked, effects) = (world.requests().len(), world.state().effects());
    let trouble = world.start().bad().await;
    assert!(matches!(trouble, Trouble::Store(_)), "{trouble}");
    assert!(trouble.to_string().contains("opship/9.9.9") && trouble.to_string().contains("upgrade this program"));
    assert_eq!((world.requests().len(), world.state().effects()), (asked, effects));
    assert_eq!(world.state().store.blobs[CHECKPOINT].bytes, newer);
}

/// The document as version 9.9.9 would have sealed it for readers of format 2.
pub(crate) fn for_newer_readers(format: &str, document: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    let text = String::from_utf8(document.to_vec()).expect("text");
    let (_, body) = text.split_once(r#""body":"#).expect("a body");
    let body = body.strip_suffix('}').expect("the end");
    let sum = sha2::Sha256::digest(format!("{format}\n2\n2\nopship/9.9.9\n{body}"));
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    let head = format!(r#""format":"{format}","version":2,"min_reader":2,"writer":"opship/9.9.9""#);
    format!(r#"{{{head},"checksum":"{sum}","body":{body}}}"#).into_bytes()
}
