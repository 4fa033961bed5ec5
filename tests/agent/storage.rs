//! A store that fails, loses replies, tears appends, comes back from a backup.

use crate::source::{BOTH, Order};
use crate::store::{Fault, Op};
use crate::world::{CHECKPOINT, World};
use opship::agent::Trouble;
use opship::config::Lookback;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_lost_reply_of_the_checkpoint_is_recognised_as_our_own_write() {
    for n in 1..6 {
        let mut world = World::new(Order::Insertion);
        world.add(6);
        world.fault_at(n, Op::Put, CHECKPOINT, Fault::LoseReply);
        world.start().good().await;
        world.each_event_has_one_row();
        assert_eq!(world.checkpoint().in_doubt.batches, 0);
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

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_stops_reading_and_posting() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.on_store(|_, _| Some(Fault::Fail));
    assert!(matches!(world.start().bad().await, Trouble::Store(_)));
    assert!(world.requests().is_empty() && world.state().sink.posts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_store_restored_from_a_backup_loses_nothing() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(6);
        let mut process = world.start();
        process.good().await;
        let backup = world.state().store.blobs.clone();
        world.add(6);
        process.good().await;
        world.state().store.blobs = backup;
        world.add(6);
        process.good().await;
        world.nothing_is_lost();
        world.the_position_is_covered();
    }
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_checkpoint_falls_back_without_duplicates() {
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
        process.good().await;
        world.each_event_has_one_row();
        assert!(world.state().store.blobs.keys().any(|name| name.contains("corrupt-")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_checkpoint_never_starts_from_now() {
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
