//! A source that leads in circles: the cursor part of a tick ends, the sweeps carry the feed, people are told.

use crate::source::{Order, Reply, status};
use crate::world::{MINUTE, World};
use opship::agent::{Trouble, Waiting};
use opship::source::PageRequest;

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

/// Fault: has_more with the same cursor for ever. Shows: the cursor part ends at once, as an error when it had items, the sweep ships the event.
#[tokio::test(start_paused = true)]
async fn fm_34_a_repeated_cursor_with_an_empty_page_is_quiet_and_with_items_an_error() {
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

/// Fault: the same cursor in ten ticks. Shows: quiet twice, then an error state, then a reset, each counted.
#[tokio::test(start_paused = true)]
async fn fm_34_a_cursor_stuck_for_ten_ticks_counts_as_rejected() {
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
    let totals = world.checkpoint().totals;
    assert_eq!((totals.cursor_repeats, totals.cursor_resets), (10, 1));
    assert!(world.checkpoint().cursor.is_none());
}

/// Fault: the cursors go A, B, A, B with the same items for ever. Shows: three requests, one row each, an error that waits for the source.
#[tokio::test(start_paused = true)]
async fn fm_34_a_cycle_of_two_cursors_ends_the_cursor_part_of_a_tick() {
    let mut world = World::new(Order::Insertion);
    world.on_page(|request| {
        let page = |cursor: &str, id: &str| {
            let item = format!(r#"{{"uuid":"{id}","timestamp":"2026-11-22T09:59:00Z"}}"#);
            Some(Reply::Body(format!(r#"{{"cursor":"{cursor}","has_more":true,"items":[{item}]}}"#)))
        };
        match request {
            PageRequest::Window { .. } => None,
            PageRequest::Continue(cursor) if cursor.as_str() == "A" => page("B", "TWO"),
            PageRequest::Continue(_) | PageRequest::Reset { .. } => page("A", "ONE"),
        }
    });
    let swept = world.add_at(-1_000, 0, "");
    let trouble = world.start().bad().await;
    assert!(matches!(trouble, Trouble::Stuck(_)) && trouble.waiting() == Waiting::Source, "{trouble}");
    let of_cursor = world.requests().iter().filter(|request| !matches!(request, PageRequest::Window { .. })).count();
    assert!(of_cursor <= 4, "{of_cursor} requests");
    assert_eq!(["ONE", "TWO", &swept].map(|uuid| world.rows_of(uuid)), [1, 1, 1]);
    assert_eq!(world.checkpoint().totals.cursor_repeats, 1);
}

/// Fault: a new cursor with an empty page and has_more for ever. Shows: 500 pages at most, then an error state, the sweep ships the event.
#[tokio::test(start_paused = true)]
async fn fm_34_new_cursors_without_end_are_cut_by_the_page_cap() {
    let mut world = World::new(Order::Insertion);
    let mut n = 0;
    world.on_page(move |request| {
        n += 1;
        let is_window = matches!(request, PageRequest::Window { .. });
        (!is_window).then(|| Reply::Body(format!(r#"{{"cursor":"c{n}","has_more":true,"items":[]}}"#)))
    });
    let swept = world.add_at(-1_000, 0, "");
    assert!(matches!(world.start().bad().await, Trouble::Stuck(_)));
    let of_cursor = world.requests().iter().filter(|request| !matches!(request, PageRequest::Window { .. })).count();
    assert_eq!((of_cursor, world.rows_of(&swept)), (500, 1));
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
