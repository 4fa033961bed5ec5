//! The cursor: first start, resets, caps, pages that are none.

use crate::dice::Dice;
use crate::log::Log;
use crate::source::{BOTH, Order, Reply, status};
use crate::world::{HOUR, MINUTE, World};
use chrono::TimeDelta;
use opship::agent::Trouble;
use opship::config::Lookback;
use opship::flow::retry::Failure;
use opship::source::PageRequest;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn resets(world: &World) -> usize {
    world.requests().iter().filter(|request| matches!(request, PageRequest::Reset { .. })).count()
}

/// Fault: no checkpoint at the start. Shows: the first request starts at Date - lookback, which is told and kept, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_03_a_first_start_begins_at_the_lookback_and_ships_the_backlog_once() {
    for order in BOTH {
        let mut world = World::new(order);
        for hour in 0..48 {
            world.add_at(-hour * 3_600_000, 0, "");
        }
        let (date, log) = (world.state().date(), Log::listen());
        assert_eq!(world.start().good().await.shipped, 48);
        let floor = date - TimeDelta::days(30);
        assert!(matches!(world.requests()[0], PageRequest::Reset { start, .. } if start == floor));
        assert_eq!((world.checkpoint().floor, log.said("starting at the lookback").len()), (floor, 1));
        world.each_event_has_one_row();
        world.is_sound();
    }
}

/// Fault: two first starts at once. Shows: one creates the checkpoint, the other one loads it, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_03_of_two_first_starts_one_creates_the_checkpoint() {
    for seed in 0..10 {
        let mut world = World::seeded(Order::Insertion, seed);
        world.state().latency_ms_max = 20;
        world.add(9);
        let (mut a, mut b) = (world.start(), world.start());
        let (first, second) = tokio::join!(a.tick(), b.tick());
        let won = [first, second].into_iter().filter(|outcome| matches!(outcome, Some(Ok(_)))).count();
        assert!(won >= 1, "seed {seed}");
        a.good().await;
        b.good().await;
        world.each_event_has_one_row();
        world.is_sound();
    }
}

/// Fault: a first start with events older than the lookback. Shows: they are never shipped, by the sweeps of later ticks neither.
#[tokio::test(start_paused = true)]
async fn fm_03_no_event_before_the_lookback_is_shipped() {
    let mut world = World::new(Order::Insertion);
    world.settings.lookback = Lookback::Back(HOUR);
    world.add_at(-2 * 3_600_000, 0, "");
    let new = world.add_at(-1_000, 0, "");
    let mut process = world.start();
    process.good().await;
    tokio::time::sleep(2 * HOUR).await;
    process.good().await;
    assert_eq!(world.state().sink.rows, [new]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_stream_has_a_position_after_its_first_tick() {
    let mut world = World::new(Order::Insertion);
    let mut process = world.start();
    assert_eq!(process.good().await.read, 0);
    assert!(world.checkpoint().cursor.is_some());
    world.add(3);
    assert_eq!(process.good().await.shipped, 3);
    assert_eq!(resets(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_tick_writes_nothing() {
    let mut world = World::new(Order::Insertion);
    world.add(5);
    let mut process = world.start();
    process.good().await;
    tokio::time::sleep(MINUTE).await;
    process.good().await;
    let writes = world.state().store.writes;
    for _ in 0..5 {
        tokio::time::sleep(MINUTE).await;
        process.good().await;
    }
    assert_eq!(world.state().store.writes, writes);
}

/// Fault: the cursor is rejected. Shows: one counted reset behind the sweep mark, the ledger stays, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_04_a_rejected_cursor_resets_behind_the_sweep_mark_and_ships_nothing_twice() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(25);
        let mut process = world.start();
        process.good().await;
        world.state().source.reject_cursors();
        world.add(3);
        process.good().await;
        world.each_event_has_one_row();
        let cp = world.checkpoint();
        assert_eq!(cp.totals.cursor_resets, 1);
        let start = world.requests().iter().rev().find_map(|request| match request {
            PageRequest::Reset { start, .. } => Some(*start),
            _ => None,
        });
        assert!(start.is_some_and(|start| start <= cp.sweep_mark - TimeDelta::minutes(4) && start > cp.floor));
    }
}

/// Fault: one cursor in a hundred is rejected for good. Shows: resets are counted, nothing is lost, no row twice.
#[tokio::test(start_paused = true)]
async fn fm_04_one_page_in_a_hundred_rejected_loses_nothing() {
    let (mut resets, rejections) = (0, Arc::new(AtomicU64::new(0)));
    for (order, seed) in BOTH.into_iter().flat_map(|order| (0..8).map(move |seed| (order, seed))) {
        let mut world = World::seeded(order, seed);
        world.state().source.page_max = 3;
        let (mut dice, rejected, mut dead) = (Dice::new(seed), rejections.clone(), HashSet::new());
        world.on_page(move |request| {
            let PageRequest::Continue(cursor) = request else { return None };
            if dice.one_in(100) && dead.insert(cursor.clone()) {
                rejected.fetch_add(1, Ordering::Relaxed);
            }
            dead.contains(cursor).then(|| Reply::Fail(status(400)))
        });
        let mut process = world.start();
        for _ in 0..8 {
            world.add(20);
            _ = process.tick().await;
            tokio::time::sleep(MINUTE).await;
        }
        world.heal();
        process.good().await;
        world.each_event_has_one_row();
        world.is_sound();
        resets += world.checkpoint().totals.cursor_resets;
    }
    let rejections = rejections.load(Ordering::Relaxed);
    assert!(resets > 0 && resets <= rejections, "{resets} resets, {rejections} rejections");
}

/// Fault: the cursor is rejected in the middle of a backlog whose newest event came first. Shows: each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_04_a_reset_in_the_backlog_never_starts_at_the_watermark() {
    for order in BOTH {
        let mut world = World::new(order);
        // The newest event comes first: it lifts the watermark over everything else.
        world.add_at(0, 0, "");
        for hour in 1..60 {
            world.add_at(-hour * 3_600_000, 0, "");
        }
        let mut pages = 0;
        world.on_page(move |_| {
            pages += 1;
            // Fetched ahead, and asked for again.
            (3..=4).contains(&pages).then(|| Reply::Fail(status(400)))
        });
        let mut process = world.start();
        while process.tick().await.expect("no crash").is_err() {}
        assert_eq!(world.checkpoint().totals.cursor_resets, 1);
        world.each_event_has_one_row();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_start_halts_and_is_never_answered_by_another_reset() {
    let mut world = World::new(Order::Insertion);
    world.on_page(|_| Some(Reply::Fail(status(400))));
    let mut process = world.start();
    let trouble = process.bad().await;
    assert!(matches!(&trouble, Trouble::Halted { .. }) && trouble.pause() == 5 * MINUTE, "{trouble}");
    assert_eq!(resets(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_of_known_pages_is_committed_on_the_way() {
    let mut world = World::new(Order::Insertion);
    world.state().source.page_max = 1;
    world.add(60);
    let mut process = world.start();
    process.good().await;
    // The ledger knows it all, the position is lost.
    world.state().store.blobs.retain(|name, _| !name.starts_with("checkpoints/"));
    let mut pages = 0;
    world.on_page(move |_| {
        pages += 1;
        (pages > 45).then_some(Reply::Fail(Failure::NotConnected))
    });
    world.crash_at(400).await;
    let cursor = world.checkpoint().cursor.expect("a cursor");
    assert!(world.state().source.told[cursor.as_str()].parent.is_some(), "20 pages without rows are a commit");
    world.heal();
    world.start().good().await;
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn a_tick_cut_by_the_page_cap_goes_on_where_it_was_cut() {
    let mut world = World::new(Order::Insertion);
    world.state().source.page_max = 1;
    world.add(505);
    let mut process = world.start();
    assert!(process.good().await.more_pending);
    let mut ticks = 1;
    while process.good().await.more_pending {
        ticks += 1;
    }
    assert!(ticks <= 4);
    world.each_event_has_one_row();
    assert_eq!(resets(&world), 1);
}

#[tokio::test(start_paused = true)]
async fn a_page_over_the_body_cap_is_asked_for_with_half_the_limit() {
    for order in BOTH {
        let mut world = World::new(order);
        world.state().source.limit_max = 200;
        world.add(30);
        let mut process = world.start();
        process.good().await;
        world.each_event_has_one_row();
        // A cursor that carries a limit that has become too large.
        world.state().source.limit_max = 100;
        world.add(30);
        process.good().await;
        world.each_event_has_one_row();
    }
}

/// Fault: pages are over the body cap for a while. Shows: after twenty good pages the limit is doubled, up to what it was at first.
#[tokio::test(start_paused = true)]
async fn fm_66_a_limit_that_was_halved_is_doubled_after_twenty_good_pages() {
    let mut world = World::new(Order::Insertion);
    world.state().source.limit_max = 300;
    world.add(10);
    let mut process = world.start();
    process.good().await;
    world.state().source.limit_max = 1000;
    let asked = |world: &World| {
        world.requests().into_iter().rev().find_map(|request| match request {
            PageRequest::Window { limit, .. } | PageRequest::Reset { limit, .. } => Some(limit),
            PageRequest::Continue(_) => None,
        })
    };
    assert_eq!(asked(&world), Some(250));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        world.add(1);
        process.good().await;
        seen.extend(asked(&world));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [250, 500, 1000]);
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_page_is_a_failed_request() {
    let mut world = World::new(Order::Insertion);
    world.add(5);
    let mut calls = 0;
    world.on_page(move |_| {
        calls += 1;
        (calls <= 2).then(|| Reply::Body(r#"{"items":[]}"#.into()))
    });
    let mut process = world.start();
    process.good().await;
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn the_same_uuid_twice_in_a_page_and_in_the_next_one_is_one_row() {
    let mut world = World::new(Order::Insertion);
    let item = r#"{"uuid":"TWICE","timestamp":"2026-11-22T09:59:00Z"}"#;
    let mut calls = 0;
    world.on_page(move |_| {
        calls += 1;
        let more = calls == 1;
        Some(Reply::Body(format!(r#"{{"cursor":"c{calls}","has_more":{more},"items":[{item},{item}]}}"#)))
    });
    world.start().good().await;
    assert_eq!(world.state().sink.rows, ["TWICE"]);
    world.the_position_is_covered();
}

#[tokio::test(start_paused = true)]
async fn filtered_actions_are_counted_and_never_shipped() {
    let mut world = World::new(Order::Insertion);
    world.stream = opship::flow::Stream::AuditEvents;
    world.settings.drop_audit_actions = ["dlgsess".to_owned()].into();
    world.add_at(0, 0, r#","action":"dlgsess""#);
    let kept = world.add_at(0, 0, r#","action":"view""#);
    world.start().good().await;
    assert_eq!(world.state().sink.rows, [kept]);
    let totals = world.checkpoint().totals;
    assert_eq!(totals.read, totals.shipped + totals.known + totals.repeated + totals.filtered);
    assert!(totals.filtered >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_without_the_stream_halts_with_a_remedy() {
    let mut world = World::new(Order::Insertion);
    world.state().source.features.clear();
    let trouble = world.start().bad().await;
    assert!(matches!(trouble, Trouble::Halted { .. }));
    assert!(world.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_source_is_tried_within_patience_and_loses_nothing() {
    let mut world = World::new(Order::Insertion);
    world.add(20);
    let mut process = world.start();
    world.on_page(|_| Some(Reply::Fail(Failure::NotConnected)));
    assert!(matches!(process.bad().await, Trouble::Source(_)));
    assert_eq!(world.requests().len(), 6);
    world.heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    process.good().await;
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn a_clock_of_the_source_that_was_ahead_at_the_start_does_not_keep_us_in_the_future() {
    let mut world = World::new(Order::Insertion);
    world.state().source.skew = TimeDelta::days(1);
    world.add(3);
    let mut process = world.start();
    process.good_after_a_doubt().await;
    world.state().source.skew = TimeDelta::zero();
    tokio::time::sleep(MINUTE).await;
    process.good_after_a_doubt().await;
    let late = world.add_at(-30_000, 0, "");
    tokio::time::sleep(MINUTE).await;
    process.good().await;
    world.state().source.reject_cursors();
    world.add(2);
    process.good().await;
    assert_eq!(world.state().sink.copies(&late), 1);
    world.each_event_has_one_row();
    assert!(world.checkpoint().written_at <= world.state().now());
}
