//! The cursor: first start, resets, repeated cursors, caps, pages that are none.

use crate::source::{BOTH, Order, Reply, status};
use crate::world::{HOUR, MINUTE, World};
use chrono::TimeDelta;
use opship::agent::Trouble;
use opship::config::Lookback;
use opship::flow::retry::Failure;
use opship::source::PageRequest;
use std::time::Duration;

fn resets(world: &World) -> usize {
    world.requests().iter().filter(|request| matches!(request, PageRequest::Reset { .. })).count()
}

#[tokio::test(start_paused = true)]
async fn the_first_start_ships_the_backlog_once_in_both_orders() {
    for order in BOTH {
        let mut world = World::new(order);
        for hour in 0..48 {
            world.add_at(-hour * 3_600_000, 0, "");
        }
        let mut process = world.start();
        assert_eq!(process.good().await.shipped, 48);
        world.each_event_has_one_row();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn no_event_before_the_lookback_is_shipped() {
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

#[tokio::test(start_paused = true)]
async fn a_rejected_cursor_resets_behind_the_sweep_mark_and_ships_nothing_twice() {
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

#[tokio::test(start_paused = true)]
async fn a_reset_in_the_backlog_never_starts_at_the_watermark() {
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
            (pages == 3).then(|| Reply::Fail(status(400)))
        });
        let mut process = world.start();
        while process.tick().await.expect("no crash").is_err() {}
        world.each_event_has_one_row();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_rejected_again_and_again_is_trouble_not_a_busy_loop() {
    let mut world = World::new(Order::Insertion);
    world.add(30);
    let mut process = world.start();
    process.good().await;
    world.on_page(|request| matches!(request, PageRequest::Continue(_)).then(|| Reply::Fail(status(400))));
    world.add(30);
    let before = world.requests().len();
    assert!(matches!(process.bad().await, Trouble::Rejected(_)));
    assert!(world.requests().len() - before < 20, "{} requests in a tick", world.requests().len() - before);
    world.heal();
    process.good().await;
    world.each_event_has_one_row();
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
async fn a_repeated_cursor_with_an_empty_page_is_quiet_and_with_items_an_error() {
    let page = |items: &str| format!(r#"{{"cursor":"same","has_more":true,"items":[{items}]}}"#);
    for (items, quiet) in [("", true), (r#"{"uuid":"X","timestamp":"2026-11-22T09:59:00Z"}"#, false)] {
        let mut world = World::new(Order::Insertion);
        world.add(1);
        let body = page(items);
        world.on_page(move |request| {
            (!matches!(request, PageRequest::Window { .. })).then(|| Reply::Body(body.clone()))
        });
        let mut process = world.start();
        assert_eq!(process.tick().await.expect("no crash").is_ok(), quiet);
        assert!(world.state().sink.rows.contains(&"EVENT000000".to_owned()), "the sweep carries the feed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_stuck_for_ten_ticks_counts_as_rejected() {
    let mut world = World::new(Order::Insertion);
    let stuck = r#"{"cursor":"same","has_more":true,"items":[]}"#;
    world.on_page(move |request| match request {
        PageRequest::Window { .. } => None,
        _ => Some(Reply::Body(stuck.into())),
    });
    let mut process = world.start();
    let mut outcomes = Vec::new();
    for _ in 0..10 {
        outcomes.push(process.tick().await.expect("no crash").is_ok());
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(outcomes, [true, true, false, false, false, false, false, false, false, true]);
    assert_eq!(world.checkpoint().totals.cursor_resets, 1);
    assert!(world.checkpoint().cursor.is_none());
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

#[tokio::test(start_paused = true)]
async fn a_cursor_handed_out_again_after_a_reset_is_not_taken_for_a_loop() {
    let mut world = World::new(Order::Insertion);
    // A server whose cursors are a function of the place.
    let mut calls = 0;
    world.on_page(move |request| {
        calls += 1;
        let page = |cursor: &str, more: bool, id: &str| {
            let item = format!(r#"{{"uuid":"{id}","timestamp":"2026-11-22T09:59:00Z"}}"#);
            Some(Reply::Body(format!(r#"{{"cursor":"{cursor}","has_more":{more},"items":[{item}]}}"#)))
        };
        match request {
            PageRequest::Reset { .. } => page("one", true, "A"),
            PageRequest::Continue(cursor) if cursor.as_str() == "one" => page("two", true, "B"),
            PageRequest::Continue(cursor) if cursor.as_str() == "two" && calls < 5 => Some(Reply::Fail(status(400))),
            PageRequest::Continue(_) => page("three", false, "C"),
            PageRequest::Window { .. } => None,
        }
    });
    world.start().good().await;
    assert_eq!(world.state().sink.rows, ["A", "B", "C"]);
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
    process.good().await;
    world.state().source.skew = TimeDelta::zero();
    tokio::time::sleep(MINUTE).await;
    process.good().await;
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
