//! `run` over many ticks: a storm of them, and a task that panics.

use crate::link::Mishap;
use crate::log::Log;
use crate::scenes::refuses_the_third;
use crate::sink::Outcome;
use crate::source::{BOTH, Order};
use crate::store::{Op, TTL};
use crate::world::{HOUR, MINUTE, Process, World};
use opship::agent::monitor::board::Board;
use opship::agent::run::{Agent, Panicked, run};
use opship::config::Timer;
use opship::schedule::Schedule;
use opship::source::PageRequest;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// `opship run` with a tick a second, for so long.
async fn run_for(time: Duration, processes: impl IntoIterator<Item = Process>) -> Result<(), Panicked> {
    run_every(Duration::from_secs(1), time, processes).await
}

async fn run_every(
    every: Duration,
    time: Duration,
    processes: impl IntoIterator<Item = Process>,
) -> Result<(), Panicked> {
    let processes: Vec<_> = processes.into_iter().collect();
    let stop = processes[0].link.stop.clone();
    let feeds = processes.into_iter().map(|process| process.feed.expect("alive")).collect();
    let schedule = Schedule::start(&Timer::Every(every)).await.expect("a timer");
    let end = async {
        tokio::time::sleep(time).await;
        stop.cancel();
    };
    let agent = Agent {
        feeds,
        health: BTreeMap::new(),
        stop: stop.clone(),
        board: Arc::new(Board::new([], Timer::Every(every))),
    };
    let (ended, ()) = tokio::join!(run(agent, schedule), end);
    ended
}

/// Fault: a tick a second while a POST hangs for a minute. Shows: one tick at a time, each other one counted as skipped, no row twice.
#[tokio::test(start_paused = true)]
async fn fm_01_a_storm_of_ticks_is_one_run_and_the_others_are_counted() {
    let (mut world, log) = (World::new(Order::Insertion), Log::listen());
    world.add(3);
    world.posts_end([Outcome::Hang { accepted: false }]);
    run_for(Duration::from_secs(100), [world.start()]).await.expect("no panic");
    // Every tick that completes asks for the window of its overlap once.
    let ticks = world.requests().iter().filter(|request| matches!(request, PageRequest::Window { .. })).count() as u64;
    let skipped: u64 = log.said("ticks were skipped").iter().filter_map(|line| line["skipped"].as_u64()).sum();
    assert!((58..=62).contains(&skipped), "{skipped} ticks skipped");
    assert!((ticks + skipped).abs_diff(100) <= 1, "{ticks} ticks and {skipped} skipped in 100 s");
    world.each_event_has_one_row();
    world.is_sound();
}

/// Fault: a panic at each step of a feed's task. Shows: `run` fails, nothing is written or posted after it, the next start loses nothing.
#[tokio::test(start_paused = true)]
async fn fm_40_after_a_panic_at_any_step_nothing_is_committed() {
    for order in BOTH {
        for k in 1.. {
            let (mut world, mut well) = (World::new(order), World::new(order));
            world.state().source.page_max = 5;
            world.add(9);
            well.add(9);
            let process = world.start();
            process.link.at_step(k, Mishap::Panic);
            let ended = run_for(Duration::from_secs(3), [process, well.start()]).await;
            if world.state().effects_at_panic.is_none() {
                assert!(ended.is_ok() && k > 50, "{k} steps");
                break;
            }
            assert!(ended.is_err(), "step {k}");
            let effects = world.state().effects();
            let at_panic = world.state().effects_at_panic;
            assert_eq!(Some(effects), at_panic, "step {k}");
            well.the_position_is_covered();
            world.crashes += 1;
            world.is_sound();
            tokio::time::sleep(TTL).await;
            world.start().good().await;
            well.start().good().await;
            world.nothing_is_lost();
            world.is_sound();
            well.each_event_has_one_row();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn letters_that_another_process_takes_away_during_a_long_rest_no_longer_wait_a_minute_later() {
    let mut world = World::new(Order::Insertion);
    refuses_the_third(&world, Outcome::Refuse(413));
    let listed = Arc::new(AtomicU64::new(0));
    let count = listed.clone();
    world.on_store(move |op, key| {
        count.fetch_add(u64::from(op == Op::List && key.starts_with("dead-letters/")), Ordering::Relaxed);
        None
    });
    let process = world.start();
    let panel = process.panel.clone();
    let operator = async {
        tokio::time::sleep(5 * MINUTE).await;
        assert_eq!(panel.view().letters, 1);
        world.state().store.blobs.retain(|name, _| !name.starts_with("dead-letters/"));
        tokio::time::sleep(MINUTE).await;
        assert_eq!(panel.view().letters, 0);
        listed.swap(0, Ordering::Relaxed)
    };
    let (ended, looks) = tokio::join!(run_every(HOUR, HOUR / 2, [process]), operator);
    assert!(ended.is_ok() && looks <= 14, "{looks} listings while one waited");
    assert_eq!(listed.load(Ordering::Relaxed), 0, "none waits, so nothing is listed");
}
