//! Several processes: who may post, who stands by, who lost.

use crate::link::Mishap;
use crate::sink::Outcome;
use crate::source::Order;
use crate::store::TTL;
use crate::world::{CHECKPOINT, MINUTE, World};
use opship::agent::Trouble;
use std::time::Duration;

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

/// Fault: the holder hangs for three ttls at any step while another takes over. Shows: no loss, copies of one takeover at most, all traced.
#[tokio::test(start_paused = true)]
async fn fm_02_a_holder_that_stalled_posts_nothing_after_its_intent_has_aged() {
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

/// Fault: a second process starts over the open intent of a dead one. Shows: no POST before the ttl, then nothing is lost and copies are traced.
#[tokio::test(start_paused = true)]
async fn fm_02_a_foreign_intent_is_left_alone_until_its_ttl_has_passed() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    let mut k = 1;
    while !world.state().store.blobs.contains_key(CHECKPOINT) || world.checkpoint().slot.intent().is_none() {
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
    process.link.at_step(24, Mishap::Crash);
    process.tick().await;
    world.crashes += 1;
    world.state().store.gone.push(process.owner.clone());
    world.heal();
    world.start().good().await;
    world.nothing_is_lost();
    world.is_sound();
}

/// Fault: two or three processes drain one feed side by side. Shows: each event has one row, a loser stands by and posts nothing.
#[tokio::test(start_paused = true)]
async fn fm_02_replicas_side_by_side_ship_nothing_twice() {
    let mut losses = 0;
    for seed in 0..20 {
        let mut world = World::seeded(Order::Insertion, seed);
        world.state().latency_ms_max = 20;
        let mut replicas: Vec<_> = (0..2 + seed % 2).map(|_| world.start()).collect();
        for _ in 0..6 {
            world.add(7);
            let ticks = futures_util::future::join_all(replicas.iter_mut().map(|replica| replica.tick())).await;
            for outcome in ticks {
                match outcome.expect("no crash") {
                    Ok(_) => {}
                    Err(Trouble::Standby { .. } | Trouble::Lost) => losses += 1,
                    Err(trouble) => panic!("{trouble}"),
                }
            }
            tokio::time::sleep(MINUTE).await;
        }
        for replica in &mut replicas {
            replica.good().await;
        }
        world.each_event_has_one_row();
        world.is_sound();
        let posted = world.state().sink.posts.iter().flatten().count();
        assert_eq!(posted, world.rows(), "every POST was accepted: a loser makes none");
        assert_eq!(world.checkpoint().slot.in_doubt().batches, 0);
    }
    assert!(losses > 100, "{losses} ticks stood by");
}

/// Fault: another process shipped since we read the ledger. Shows: what it shipped is known, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_24_a_stale_cache_of_the_ledger_is_dropped_after_a_foreign_write() {
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

/// Fault: a foreign write between our load and our intent. Shows: the plan is dropped without a POST, the next tick ships each event once.
#[tokio::test(start_paused = true)]
async fn fm_24_a_tick_that_lost_the_race_posts_nothing_more() {
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
