//! SIGTERM at each step: an exit in time, nothing lost, nothing doubled, no intent left that was never posted.

use crate::link::Mishap;
use crate::sink::Outcome;
use crate::source::{BOTH, Reply};
use crate::world::World;
use opship::agent::Trouble;
use opship::flow::retry::Failure;
use std::time::Duration;
use tokio::time::Instant;

/// Fault: SIGTERM at each step of a tick, splits included. Shows: an end within 25 s without an open intent, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_38_a_stop_at_any_step_loses_and_doubles_nothing_and_leaves_no_intent() {
    for (order, rows_max) in [(BOTH[0], usize::MAX), (BOTH[1], usize::MAX), (BOTH[0], 2)] {
        for k in 1..90 {
            let mut world = World::new(order);
            world.add(13);
            world.state().sink.rows_max = rows_max;
            let mut process = world.start();
            process.link.at_step(k, Mishap::Stop);
            let begun = Instant::now();
            _ = process.tick().await;
            assert!(begun.elapsed() <= Duration::from_secs(25));
            let posts = world.state().sink.posts.len();
            if world.state().store.blobs.contains_key(crate::world::CHECKPOINT) {
                assert!(world.checkpoint().slot.intent().is_none(), "step {k}");
            }
            let posted = world.state().sink.posts.iter().flatten().count();
            assert!(rows_max < usize::MAX || posted == world.rows());
            world.is_sound();
            world.start().good().await;
            assert!(world.state().sink.posts.len() >= posts);
            world.each_event_has_one_row();
        }
    }
}

/// Fault: SIGTERM at each step of a tick. Shows: no POST begins after it.
#[tokio::test(start_paused = true)]
async fn fm_38_no_post_begins_after_the_stop() {
    for k in 1..60 {
        let mut world = World::new(crate::source::Order::Insertion);
        world.add(4);
        let mut process = world.start();
        process.link.at_step(k, Mishap::Stop);
        _ = process.tick().await;
        let state = world.state();
        if let Some(at_stop) = state.sink.begun_at_stop {
            assert_eq!(state.sink.begun, at_stop, "step {k}");
        }
    }
}

/// Fault: SIGTERM while a POST hangs, accepted or not. Shows: it gets 15 s, its intent stays, nothing is lost and copies are traced.
#[tokio::test(start_paused = true)]
async fn fm_38_an_open_post_gets_fifteen_seconds() {
    for accepted in [true, false] {
        let mut world = World::new(crate::source::Order::Insertion);
        world.add(3);
        world.posts_end([Outcome::Hang { accepted }]);
        let mut process = world.start();
        let stop = process.link.stop.clone();
        let term = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            stop.cancel();
            Instant::now()
        };
        let (outcome, stopped) = tokio::join!(process.tick(), term);
        assert!(matches!(outcome, Some(Err(Trouble::Stopped))), "{outcome:?}");
        assert_eq!(stopped.elapsed().as_secs(), 15);
        assert!(world.checkpoint().slot.intent().is_some(), "its outcome is unknown");
        tokio::time::sleep(crate::store::TTL).await;
        world.start().good().await;
        world.nothing_is_lost();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_every_sleep() {
    for sink_is_down in [true, false] {
        let mut world = World::new(crate::source::Order::Insertion);
        world.add(3);
        if sink_is_down {
            world.on_post(|_| Outcome::Refuse(403));
        } else {
            world.on_page(|_| Some(Reply::Fail(Failure::NotConnected)));
        }
        let mut process = world.start();
        let stop = process.link.stop.clone();
        let term = async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            stop.cancel();
            Instant::now()
        };
        let (outcome, stopped) = tokio::join!(process.tick(), term);
        assert!(matches!(outcome, Some(Err(Trouble::Stopped))), "{outcome:?}");
        assert!(stopped.elapsed() < Duration::from_secs(1));
        world.heal();
        world.start().good().await;
        world.each_event_has_one_row();
    }
}
