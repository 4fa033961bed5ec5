//! Delivery: intents, doubts, splits, refusals.

use crate::log::Log;
use crate::oracle::ledger;
use crate::sink::Outcome;
use crate::source::{BOTH, Order};
use crate::store::TTL;
use crate::world::{CHECKPOINT, World};
use opship::agent::Trouble;
use opship::flow::intent::BatchKind;
use opship::flow::{EventId, Hour};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    assert_eq!(world.checkpoint().slot.seq(), 4);
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
        assert_eq!(world.checkpoint().slot.in_doubt().batches, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_lost_replies_forgets_none_of_them() {
    for k in 1.. {
        let mut world = World::new(Order::Insertion);
        world.add(3);
        world.posts_end([Outcome::LoseReply, Outcome::LoseReply, Outcome::LoseReply]);
        let crashed = world.crash_at(k).await;
        tokio::time::sleep(8 * TTL).await;
        world.start().good().await;
        world.nothing_is_lost();
        world.is_sound();
        if !crashed {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_doubt_is_stored_before_the_next_post_so_that_a_crash_in_it_forgets_none() {
    let mut world = World::new(Order::Insertion);
    world.add(4);
    world.posts_end([Outcome::LoseReply, Outcome::Hang { accepted: true }]);
    let mut process = world.start();
    let (dead, seen) = (process.link.dead.clone(), process.link.clone());
    let kill = async {
        while seen.state().sink.posts.len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        dead.cancel();
    };
    tokio::join!(process.tick(), kill);
    world.crashes += 1;
    tokio::time::sleep(TTL).await;
    world.start().good().await;
    assert_eq!(world.rows(), 3 * 4, "posted by the first process twice, by the second once");
    assert!(ledger(&world).values().all(|attempt| *attempt == 3), "an attempt for each copy");
    assert_eq!(world.checkpoint().slot.in_doubt().batches, 2, "the lost reply and the crash");
    world.is_sound();
}

/// Fault: the rows are taken but no answer comes. Shows: after 60 s one more copy of that batch alone, recorded with attempt 2 and counted.
#[tokio::test(start_paused = true)]
async fn fm_08_a_post_that_hangs_after_acceptance_is_in_doubt_after_a_minute() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.posts_end([Outcome::Hang { accepted: true }]);
    let begun = tokio::time::Instant::now();
    world.start().good().await;
    assert!((60..70).contains(&begun.elapsed().as_secs()));
    assert_eq!(world.rows(), 6);
    world.nothing_is_lost();
    world.is_sound();
    let posts = world.state().sink.posts.clone();
    assert!(posts.len() == 2 && posts[0] == posts[1], "the same rows and no others");
    assert!(ledger(&world).values().all(|attempt| *attempt == 2));
    assert_eq!((world.checkpoint().slot.in_doubt().batches, world.checkpoint().slot.in_doubt().rows), (1, 3));
}

/// Fault: every POST of a tick is taken and never answered. Shows: the tick ends, no event has more copies than its ledger has attempts.
#[tokio::test(start_paused = true)]
async fn fm_08_a_service_that_never_answers_makes_no_more_copies_than_attempts() {
    let mut world = World::new(Order::Insertion);
    world.add(6);
    world.refuses_everything(Outcome::Hang { accepted: true });
    let mut process = world.start();
    assert!(matches!(process.bad().await, Trouble::Sink(_)));
    world.heal();
    tokio::time::sleep(Duration::from_secs(15 * 60)).await;
    process.good().await;
    world.nothing_is_lost();
    world.is_sound();
    let attempts = ledger(&world);
    let events = world.state().source.events.clone();
    for event in events {
        let key = (Hour::of(Some(event.timestamp)).to_string(), EventId::of_uuid(&event.uuid));
        let copies = world.rows_of(&event.uuid);
        assert!(copies <= attempts[&key] as usize, "{} copies, attempt {}", copies, attempts[&key]);
    }
}

/// Fault: the k-th batch of a page is refused. Shows: the batches before it are recorded, the cursor waits for the last, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_09_the_cursor_moves_behind_the_last_batch_of_a_page_only() {
    for order in BOTH {
        for k in 1..=3 {
            let mut world = World::new(order);
            world.state().source.page_max = 12;
            world.add(12);
            let mut posts = 0;
            world.on_post(move |_| {
                posts += 1;
                if posts < k { Outcome::Accept } else { Outcome::Refuse(404) }
            });
            let mut process = world.start();
            assert!(matches!(process.bad().await, Trouble::Undeliverable { .. }));
            assert_eq!((world.rows(), ledger(&world).len()), ((k - 1) * 4, (k - 1) * 4));
            assert_eq!(world.checkpoint().cursor, None, "batch {k} of 3");
            world.the_position_is_covered();
            world.heal();
            process.good().await;
            world.each_event_has_one_row();
            world.is_sound();
            let cp = world.checkpoint();
            assert!(cp.cursor.is_some() && cp.slot.in_doubt().batches == 0);
        }
    }
}

/// Fault: a 429 that asks for 250 s. Shows: no POST sooner, the intent is kept from others, no attempt is burnt, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_11_a_retry_after_is_waited_out_and_burns_no_attempt() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.posts_end([Outcome::Busy(Duration::from_secs(250))]);
    let (mut holder, mut other) = (world.start(), world.start());
    let begun = tokio::time::Instant::now();
    let watch = async {
        tokio::time::sleep(Duration::from_secs(200)).await;
        other.bad().await
    };
    let (held, watched) = tokio::join!(holder.good(), watch);
    assert_eq!((held.shipped, begun.elapsed().as_secs()), (3, 250));
    assert!(matches!(watched, Trouble::Standby { .. }), "{watched}");
    world.each_event_has_one_row();
    assert_eq!(world.checkpoint().slot.in_doubt().batches, 0);
    assert!(ledger(&world).values().all(|attempt| *attempt == 1));
}

#[tokio::test(start_paused = true)]
async fn a_definite_no_is_never_counted_in_doubt() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.posts_end([Outcome::Refuse(429), Outcome::Refuse(403), Outcome::Refuse(401)]);
    world.start().good().await;
    world.each_event_has_one_row();
    assert_eq!(world.checkpoint().slot.in_doubt().batches, 0);
    assert!(ledger(&world).values().all(|attempt| *attempt == 1));
}

/// Fault: a service that takes 1, 2 or 3 rows a POST. Shows: batches are halved until they fit, each event has one row, no doubt is counted.
#[tokio::test(start_paused = true)]
async fn fm_10_a_413_is_halved_until_it_fits_and_only_the_last_part_moves_the_cursor() {
    for rows_max in 1..4 {
        let mut world = World::new(Order::Insertion);
        world.add(10);
        world.state().sink.rows_max = rows_max;
        world.start().good().await;
        world.each_event_has_one_row();
        world.is_sound();
        let cp = world.checkpoint();
        assert!(cp.totals.splits > 0 && cp.slot.in_doubt().batches == 0);
    }
}

/// Fault: a crash at each wait between the halves of a 413. Shows: halves ship under intents of kind split, nothing is lost, copies are traced.
#[tokio::test(start_paused = true)]
async fn fm_10_a_split_that_is_cut_short_keeps_its_second_half_for_the_next_process() {
    let mut splits = 0;
    for k in 1..60 {
        let mut world = World::new(Order::Insertion);
        world.add(9);
        world.state().sink.rows_max = 2;
        world.crash_at(k).await;
        splits += u32::from(world.open_intent().is_some_and(|intent| intent.kind() == BatchKind::Split));
        world.is_sound();
        tokio::time::sleep(TTL).await;
        world.start().good().await;
        world.nothing_is_lost();
        world.is_sound();
    }
    assert!(splits >= 4, "{splits} crashes with a half under its own intent");
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
async fn a_part_that_was_accepted_before_the_rest_was_recovered_counts_once() {
    let mut world = World::new(Order::Insertion);
    world.add(4);
    // The body breaks two connections, its first row is accepted, then the destination is away.
    let posts = Arc::new(AtomicUsize::new(0));
    let asked = posts.clone();
    world.on_post(move |_| match posts.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Outcome::LoseReply,
        2 => Outcome::Accept,
        _ => Outcome::Break,
    });
    world.on_probe(move || if asked.load(Ordering::Relaxed) > 3 { Outcome::Break } else { Outcome::Accept });
    world.start().bad().await;
    assert!(world.open_intent().is_some() && world.checkpoint().totals.splits > 0);
    world.heal();
    tokio::time::sleep(TTL).await;
    world.start().good().await;
    assert_eq!(world.checkpoint().totals.shipped, 4);
    world.nothing_is_lost();
    world.is_sound();
}

/// Fault: a row that the service refuses, as a bad payload or as too large. Shows: its stub and whole neighbours arrive once, the original is kept, counted and told.
#[tokio::test(start_paused = true)]
async fn fm_17_a_refused_row_becomes_a_stub_and_its_neighbours_are_whole() {
    for refusal in [Outcome::RefuseAs(400, "InvalidPayload"), Outcome::Refuse(413)] {
        let (mut world, log) = (World::new(Order::Insertion), Log::listen());
        let uuids = world.add(4);
        let poison = uuids[2].clone();
        world.poison(&poison, refusal);
        let drained = world.start().good().await;
        let totals = world.checkpoint().totals;
        assert_eq!((drained.dead_letters, totals.dead_letters, totals.stubs), (1, 1, 1));
        assert_eq!(log.said("its stub is shipped, the original is a dead letter").len(), 1);
        world.each_event_has_one_row();
        world.is_sound();
        let state = world.state();
        assert!(state.sink.bodies.iter().any(|body| body.contains("stub") && body.contains(&poison)));
        let letters: Vec<_> = state.store.blobs.iter().filter(|(name, _)| name.starts_with("dead-letters/")).collect();
        assert!(letters.len() == 1 && String::from_utf8_lossy(&letters[0].1.bytes).contains(&poison));
    }
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
    assert!(cp.slot.intent().is_none());
    assert_eq!(cp.slot.in_doubt().batches, 0);
    world.heal();
    process.good().await;
    world.each_event_has_one_row();
    assert!(ledger(&world).values().all(|attempt| *attempt == 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_gives_the_intent_back() {
    let mut world = World::new(Order::Insertion);
    world.add(2);
    world.on_post(|_| Outcome::Refuse(429));
    let mut process = world.start();
    assert!(matches!(process.bad().await, Trouble::Sink(_)));
    assert!(world.checkpoint().slot.intent().is_none());
    world.heal();
    // Another process need not wait for a ttl.
    world.start().good().await;
    world.each_event_has_one_row();
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
        let intent = world.open_intent().expect("open");
        assert_eq!(intent.kind(), BatchKind::Cursor);
        ids.push((intent.batch_id().to_owned(), world.checkpoint().slot.seq()));
        world.posts_end([Outcome::Hang { accepted: false }]);
        world.state().store.blobs.remove(CHECKPOINT);
        let mut fresh = world.start();
        world.heal();
        world.posts_end([Outcome::Refuse(404), Outcome::Refuse(404)]);
        fresh.bad().await;
        world.posts_end([Outcome::Hang { accepted: false }]);
    }
    assert_ne!(ids[0], ids[1]);
}
