//! Delivery: intents, doubts, splits, refusals, other replicas, a store that fails.

use crate::link::Mishap;
use crate::sink::Outcome;
use crate::source::{BOTH, Order};
use crate::store::{Fault, Op, TTL};
use crate::world::{CHECKPOINT, MINUTE, World};
use opship::agent::Trouble;
use opship::flow::checkpoint::BatchKind;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn every_post_is_covered_by_a_stored_intent_with_its_ids() {
    let mut world = World::new(Order::Insertion);
    world.add(11);
    let intents = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = intents.clone();
    let mut process = world.start();
    world.on_post(move |rows| {
        // The hook runs with the world locked: remember, judge later.
        seen.lock().expect("no panic").push(rows.len());
        Outcome::Accept
    });
    process.good().await;
    assert_eq!(*intents.lock().expect("no panic"), [4, 4, 2, 1]);
    assert_eq!(world.checkpoint().seq, 4);
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_makes_one_more_copy_and_the_ledger_says_so() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(6);
        world.posts_end([Outcome::LoseReply]);
        world.start().good().await;
        assert_eq!(world.rows(), 6 + 4);
        world.is_sound();
        assert_eq!(world.checkpoint().in_doubt.batches, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_that_hangs_after_acceptance_is_in_doubt_after_a_minute() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.posts_end([Outcome::Hang { accepted: true }]);
    let begun = tokio::time::Instant::now();
    world.start().good().await;
    assert!((60..70).contains(&begun.elapsed().as_secs()));
    assert_eq!(world.rows(), 6);
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_definite_no_is_never_counted_in_doubt() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.posts_end([Outcome::Refuse(429), Outcome::Refuse(403), Outcome::Refuse(401)]);
    world.start().good().await;
    world.each_event_has_one_row();
    assert_eq!(world.checkpoint().in_doubt.batches, 0);
    assert!(crate::oracle::ledger(&world).values().all(|attempt| *attempt == 1));
}

#[tokio::test(start_paused = true)]
async fn a_413_is_halved_until_it_fits_and_only_the_last_part_moves_the_cursor() {
    for rows_max in 1..4 {
        let mut world = World::new(Order::Insertion);
        world.add(10);
        world.state().sink.rows_max = rows_max;
        world.start().good().await;
        world.each_event_has_one_row();
        world.is_sound();
        let cp = world.checkpoint();
        assert!(cp.totals.splits > 0 && cp.in_doubt.batches == 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_split_that_is_cut_short_keeps_its_second_half_for_the_next_process() {
    for k in 1..60 {
        let mut world = World::new(Order::Insertion);
        world.add(9);
        world.state().sink.rows_max = 2;
        world.crash_at(k).await;
        world.is_sound();
        tokio::time::sleep(TTL).await;
        world.start().good().await;
        world.nothing_is_lost();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn two_broken_connections_are_a_split_whose_parts_stay_in_doubt_across_a_crash() {
    for k in 1..70 {
        let mut world = World::new(Order::Insertion);
        world.add(4);
        // Both POSTs are taken, no answer arrives: the halves that follow are copies, whoever posts them.
        world.posts_end([Outcome::LoseReply, Outcome::LoseReply]);
        world.crash_at(k).await;
        tokio::time::sleep(TTL).await;
        world.start().good().await;
        world.nothing_is_lost();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_becomes_a_stub_and_its_neighbours_are_whole() {
    let mut world = World::new(Order::Insertion);
    let uuids = world.add(4);
    let (poison, mut refused) = (uuids[2].clone(), 0);
    let bad = poison.clone();
    world.on_post(move |rows| {
        let poisoned = rows.contains(&bad) && (rows.len() > 1 || refused == 0);
        refused += u32::from(poisoned && rows.len() == 1);
        if poisoned { Outcome::RefuseAs(400, "InvalidPayload") } else { Outcome::Accept }
    });
    let drained = world.start().good().await;
    assert_eq!(drained.dead_letters, 1);
    world.each_event_has_one_row();
    let state = world.state();
    assert!(state.sink.bodies.iter().any(|body| body.contains("stub") && body.contains(&poison)));
    assert_eq!(state.store.blobs.keys().filter(|name| name.starts_with("dead-letters/")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_stub_halts_without_a_doubt() {
    let mut world = World::new(Order::Insertion);
    world.add(1);
    world.on_post(|_| Outcome::RefuseAs(400, "InvalidPayload"));
    let mut process = world.start();
    for _ in 0..3 {
        assert!(matches!(process.bad().await, Trouble::Undeliverable { .. }));
    }
    let cp = world.checkpoint();
    assert!(cp.intent.is_none());
    assert_eq!(cp.in_doubt.batches, 0);
    world.heal();
    process.good().await;
    world.each_event_has_one_row();
    assert!(crate::oracle::ledger(&world).values().all(|attempt| *attempt == 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_gives_the_intent_back() {
    let mut world = World::new(Order::Insertion);
    world.add(2);
    world.on_post(|_| Outcome::Refuse(429));
    let mut process = world.start();
    assert!(matches!(process.bad().await, Trouble::Sink(_)));
    assert!(world.checkpoint().intent.is_none());
    world.heal();
    // Another process need not wait for a ttl.
    world.start().good().await;
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_renews_the_intent_with_the_attempt_unchanged() {
    let mut world = World::new(Order::Insertion);
    world.add(2);
    let mut posts = 0;
    world.on_post(move |_| {
        posts += 1;
        if posts < 5 { Outcome::Refuse(403) } else { Outcome::Accept }
    });
    let mut holder = world.start();
    let mut other = world.start();
    let watch = async {
        tokio::time::sleep(Duration::from_secs(150)).await;
        other.bad().await
    };
    let (held, watched) = tokio::join!(holder.good(), watch);
    assert_eq!(held.shipped, 2);
    assert!(matches!(watched, Trouble::Standby { .. }), "{watched}");
    world.each_event_has_one_row();
    assert!(crate::oracle::ledger(&world).values().all(|attempt| *attempt == 1));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_stalled_posts_nothing_after_its_intent_has_aged() {
    for k in 1..60 {
        let mut world = World::new(Order::Insertion);
        world.add(6);
        let mut slow = world.start();
        slow.link.at_step(k, Mishap::Stall(3 * TTL));
        let mut other = world.start();
        let later = async {
            tokio::time::sleep(TTL + MINUTE).await;
            other.tick().await
        };
        let (_, _) = tokio::join!(slow.tick(), later);
        // The stall may have fallen between the last look at the clock and the POST: that is one takeover.
        world.crashes += 1;
        tokio::time::sleep(TTL).await;
        other.good().await;
        world.nothing_is_lost();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_intent_is_left_alone_until_its_ttl_has_passed() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    let mut k = 1;
    while !world.state().store.blobs.contains_key(CHECKPOINT) || world.checkpoint().intent.is_none() {
        world = World::new(Order::Insertion);
        world.add(3);
        assert!(world.crash_at(k).await);
        k += 1;
    }
    let mut other = world.start();
    let posts = world.state().sink.posts.len();
    assert!(matches!(other.bad().await, Trouble::Standby { .. }));
    assert_eq!(world.state().sink.posts.len(), posts);
    tokio::time::sleep(TTL).await;
    other.good().await;
    world.nothing_is_lost();
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_dead_owner_of_a_file_store_is_replaced_at_once() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    let mut process = world.start();
    world.posts_end([Outcome::Hang { accepted: true }]);
    process.link.at_step(18, Mishap::Crash);
    process.tick().await;
    world.crashes += 1;
    world.state().store.gone.push(process.owner.clone());
    world.heal();
    world.start().good().await;
    world.nothing_is_lost();
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn replicas_side_by_side_ship_nothing_twice() {
    for seed in 0..20 {
        let mut world = World::seeded(Order::Insertion, seed);
        world.state().latency_ms_max = 20;
        let (mut a, mut b) = (world.start(), world.start());
        for _ in 0..6 {
            world.add(7);
            let (_, _) = tokio::join!(a.tick(), b.tick());
            tokio::time::sleep(MINUTE).await;
        }
        for process in [&mut a, &mut b] {
            process.good().await;
        }
        world.each_event_has_one_row();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_cache_of_the_ledger_is_dropped_after_a_foreign_write() {
    let mut world = World::new(Order::EventTime);
    let (mut a, mut b) = (world.start(), world.start());
    world.add(3);
    a.good().await;
    b.good().await;
    world.add(3);
    a.good().await;
    world.state().source.reject_cursors();
    b.good().await;
    a.good().await;
    world.each_event_has_one_row();
}

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
async fn a_batch_id_is_unique_even_for_the_same_rows() {
    let mut world = World::new(Order::Insertion);
    world.add(2);
    world.posts_end([Outcome::Hang { accepted: false }]);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut process = world.start();
        let link = process.link.clone();
        let wait = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            link.dead.cancel();
        };
        tokio::join!(process.tick(), wait);
        let intent = world.checkpoint().intent.expect("open");
        assert_eq!(intent.kind, BatchKind::Cursor);
        ids.push((intent.batch_id, world.checkpoint().seq));
        world.posts_end([Outcome::Hang { accepted: false }]);
        world.state().store.blobs.remove(CHECKPOINT);
        let mut fresh = world.start();
        world.heal();
        world.posts_end([Outcome::Refuse(404)]);
        fresh.bad().await;
        world.posts_end([Outcome::Hang { accepted: false }]);
    }
    assert_ne!(ids[0], ids[1]);
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
        let mut state = world.state();
        state.store.set(CHECKPOINT, b"{\"torn".to_vec());
        if !with_previous {
            state.store.blobs.retain(|name, _| !name.ends_with("prev.json"));
        }
        drop(state);
        world.add(2);
        process.good().await;
        world.each_event_has_one_row();
        assert!(world.state().store.blobs.keys().any(|name| name.contains("corrupt-")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_lost_the_race_posts_nothing_more() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    let mut process = world.start();
    process.good().await;
    world.add(3);
    // Another process commits between our load and our intent.
    let bytes = world.state().store.blobs[CHECKPOINT].bytes.clone();
    let link = process.link.clone();
    let intrude = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        link.state().store.set(CHECKPOINT, bytes);
    };
    let (outcome, ()) = tokio::join!(process.tick(), intrude);
    assert!(matches!(outcome, Some(Err(Trouble::Lost))), "{outcome:?}");
    assert_eq!(world.rows(), 3);
    world.heal();
    process.good().await;
    world.each_event_has_one_row();
}
