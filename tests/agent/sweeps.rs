//! The sweeps: what is late, what is resumed, which marks move, who gives way.

use crate::link::Mishap;
use crate::source::{BOTH, Order, Reply, status};
use crate::world::{HOUR, MINUTE, World};
use chrono::TimeDelta;
use opship::agent::Trouble;
use opship::flow::retry::Failure;
use opship::source::{Lane, PageRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const H: i64 = 3_600_000;

/// Fault: events up to five minutes late, and no late sweep. Shows: the next tick ships each of them once and counts it as late.
#[tokio::test(start_paused = true)]
async fn fm_05_an_event_late_within_the_overlap_is_found_by_the_next_tick() {
    for (order, late_s) in BOTH.into_iter().flat_map(|order| [1, 60, 240, 299].map(|late| (order, late))) {
        let mut world = World::new(order);
        world.settings.widths.late_every = 10_000 * HOUR;
        world.add(5);
        let mut process = world.start();
        process.good().await;
        world.add_at(-late_s * 1_000, 0, "");
        tokio::time::sleep(MINUTE).await;
        let drained = process.good().await;
        let is_late = order == Order::EventTime;
        assert_eq!((drained.shipped, drained.late), (1, u64::from(is_late)), "{order:?}, {late_s} s");
        world.each_event_has_one_row();
        world.is_sound();
    }
}

/// The overlap follows the feed: what an earlier sweep has covered is not read again by each tick.
#[tokio::test(start_paused = true)]
async fn each_overlap_sweep_starts_five_minutes_before_the_one_before_it() {
    for order in BOTH {
        let mut world = World::new(order);
        world.settings.widths.late_every = 10_000 * HOUR;
        let mut process = world.start();
        for _ in 0..3 {
            world.add(5);
            process.good().await;
            let swept_at = world.state().date();
            let asked = world.requests().len();
            tokio::time::sleep(HOUR).await;
            process.good().await;
            let windows: Vec<_> = world.requests().split_off(asked);
            let starts = windows.iter().filter_map(|request| match request {
                PageRequest::Window { from, .. } => Some(*from),
                _ => None,
            });
            let earliest = starts.min().expect("the overlap is swept");
            let due = swept_at - TimeDelta::minutes(5);
            assert!((earliest - due).abs() <= TimeDelta::seconds(2), "{order:?}: {earliest}, not {due}");
        }
    }
}

/// Fault: an event later than the overlap. Shows: the overlap does not hide it from the late sweep, it is shipped once and counted as late.
#[tokio::test(start_paused = true)]
async fn fm_05_an_event_later_than_the_overlap_is_shipped_once_and_counted() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(5);
        let mut process = world.start();
        process.good().await;
        world.add_at(-6 * 60_000, 0, "");
        tokio::time::sleep(MINUTE).await;
        let by_cursor = order == Order::Insertion;
        assert_eq!(process.good().await.shipped, u64::from(by_cursor), "{order:?}");
        tokio::time::sleep(2 * HOUR).await;
        assert_eq!(process.good().await.shipped, u64::from(!by_cursor), "{order:?}");
        world.each_event_has_one_row();
        world.is_sound();
        assert_eq!(world.checkpoint().totals.late, 1, "{order:?}");
    }
}

/// Fault: an event that becomes visible 60 h after its timestamp. Shows: the late sweep ships it once and counts it as late.
#[tokio::test(start_paused = true)]
async fn fm_16_an_event_sixty_hours_late_is_found_by_the_late_sweep() {
    let mut world = World::new(Order::EventTime);
    world.add(5);
    let mut process = world.start();
    process.good().await;
    tokio::time::sleep(70 * HOUR).await;
    world.add(5);
    process.good().await;
    let late = world.add_at(-60 * H, 0, "");
    tokio::time::sleep(2 * HOUR).await;
    let drained = process.good().await;
    assert_eq!((drained.late, world.checkpoint().totals.late, world.rows_of(&late)), (1, 1, 1));
    world.each_event_has_one_row();
    world.is_sound();
}

/// Fault: an event comes late in an outage of five days that ends with a rejected cursor. Shows: each event has one row in both cursor orders.
#[tokio::test(start_paused = true)]
async fn fm_16_an_outage_of_five_days_does_not_hide_what_came_late_in_it() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(5);
        let mut process = world.start();
        process.good().await;
        // Stamped two hours after the last tick, visible three hours later, looked for five days later.
        world.add_at(2 * H, 5 * H, "");
        world.add_at(119 * H, 119 * H, "");
        tokio::time::sleep(120 * HOUR).await;
        world.state().source.reject_cursors();
        process.good().await;
        tokio::time::sleep(2 * HOUR).await;
        process.good().await;
        world.each_event_has_one_row();
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_from_the_future_does_not_carry_the_marks_with_it() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add_at(24 * H * 400, 0, "");
        world.add(3);
        let mut process = world.start();
        process.good().await;
        let cp = world.checkpoint();
        assert!(cp.watermark <= world.state().date() && cp.sweep_mark <= world.state().date());
        for _ in 0..3 {
            tokio::time::sleep(MINUTE).await;
            world.add(3);
            process.good().await;
        }
        tokio::time::sleep(MINUTE).await;
        process.good().await;
        world.each_event_has_one_row();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_in_progress_is_resumed_by_another_process() {
    for k in 1..60 {
        let mut world = World::new(Order::EventTime);
        world.state().source.page_max = 3;
        world.add(20);
        let mut process = world.start();
        process.good().await;
        tokio::time::sleep(2 * HOUR).await;
        // Behind an event-order cursor: the late sweep alone finds them.
        for minute in 0..20 {
            world.add_at(-H - minute * 60_000, 0, "");
        }
        process.link.at_step(k, Mishap::Crash);
        world.crashes += u64::from(process.tick().await.is_none());
        world.is_sound();
        tokio::time::sleep(3 * MINUTE).await;
        world.start().good().await;
        world.nothing_is_lost();
        world.is_sound();
        assert!(world.checkpoint().late_sweep.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_mark_rises_only_when_the_last_page_of_its_sweep_is_shipped() {
    let mut world = World::new(Order::EventTime);
    world.state().source.page_max = 2;
    world.add(3);
    let mut process = world.start();
    process.good().await;
    tokio::time::sleep(2 * HOUR).await;
    (0..10).for_each(|minute| _ = world.add_at(-H - minute * 60_000, 0, ""));
    let before = world.checkpoint();
    let gives_way = Arc::new(AtomicBool::new(true));
    let flag = gives_way.clone();
    process.tick_giving_way(&move || flag.load(Ordering::Relaxed)).await.expect("alive").expect("good");
    let cut = world.checkpoint();
    assert_eq!((cut.late_mark, cut.late_at), (before.late_mark, before.late_at));
    assert!(cut.late_sweep.as_ref().is_some_and(|sweep| sweep.cursor.is_some()));
    process.good().await;
    let done = world.checkpoint();
    assert!(done.late_sweep.is_none() && done.late_at > before.late_at);
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn the_late_sweep_gives_way_after_a_page_and_uses_its_own_lane() {
    let mut world = World::new(Order::EventTime);
    world.state().source.page_max = 2;
    world.add(20);
    let mut process = world.start();
    process.good().await;
    tokio::time::sleep(2 * HOUR).await;
    let before = world.state().source.requests.len();
    process.tick_giving_way(&|| true).await.expect("alive").expect("good");
    let late = world.state().source.requests[before..].iter().filter(|(_, lane)| *lane == Lane::Late).count();
    assert_eq!(late, 1);
}

#[tokio::test(start_paused = true)]
async fn the_sweeps_run_whatever_the_cursor_did() {
    let mut world = World::new(Order::Insertion);
    world.add(5);
    let mut process = world.start();
    process.good().await;
    tokio::time::sleep(2 * HOUR).await;
    let stuck = r#"{"cursor":"same","has_more":true,"items":[{"uuid":"S","timestamp":"2026-11-22T10:00:00Z"}]}"#;
    let mut seen = false;
    world.on_page(move |request| {
        // The cursor part comes first; cursors of the sweeps follow their window.
        seen |= matches!(request, PageRequest::Window { .. });
        (!seen).then(|| Reply::Body(stuck.into()))
    });
    let (soon, old) = (world.add_at(-1_000, 0, ""), world.add_at(-140 * 60_000, 0, ""));
    assert!(matches!(process.bad().await, Trouble::Stuck(_)));
    let copies = |uuid: &String| world.state().sink.copies(uuid);
    assert_eq!((copies(&soon), copies(&old)), (1, 1), "overlap sweep, late sweep");
}

#[tokio::test(start_paused = true)]
async fn no_sweep_follows_a_halt_of_the_destination() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.on_post(|_| crate::sink::Outcome::Refuse(404));
    let mut process = world.start();
    let trouble = process.bad().await;
    assert!(trouble.to_string().contains("data collection rule"), "{trouble}");
    assert_eq!(trouble.pause(), 5 * MINUTE);
    assert!(!world.requests().iter().any(|request| matches!(request, PageRequest::Window { .. })));
    assert_eq!(world.state().sink.posts.len(), 2, "one more, and the second in a row means it");
    let cp = world.checkpoint();
    assert!(cp.slot.intent().is_none() && cp.cursor.is_none() && cp.slot.in_doubt().batches == 0);
}

#[tokio::test(start_paused = true)]
async fn a_doubtful_intent_outlives_a_halt() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    let gone = crate::sink::Outcome::Refuse(404);
    world.posts_end([crate::sink::Outcome::LoseReply, gone.clone(), gone]);
    let mut process = world.start();
    process.bad().await;
    assert!(world.checkpoint().slot.intent().is_some(), "the first POST may have been accepted");
    process.good().await;
    world.nothing_is_lost();
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_rejected_sweep_cursor_restarts_the_same_window() {
    let mut world = World::new(Order::EventTime);
    world.state().source.page_max = 2;
    world.add(3);
    let mut process = world.start();
    process.good().await;
    tokio::time::sleep(2 * HOUR).await;
    (0..9).for_each(|minute| _ = world.add_at(-H - minute * 60_000, 0, ""));
    process.tick_giving_way(&|| true).await.expect("alive").expect("good");
    let window = world.checkpoint().late_sweep.expect("cut");
    world.state().source.reject_cursors();
    let before = world.requests().len();
    process.good().await;
    let again = world.requests()[before..].iter().any(
        |request| matches!(request, PageRequest::Window { from, to, .. } if (*from, *to) == (window.from, window.to)),
    );
    assert!(again);
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn a_sweep_left_for_too_long_starts_no_earlier_than_the_api_allows() {
    let mut world = World::new(Order::EventTime);
    world.settings.lookback = opship::config::Lookback::Back(24 * 119 * HOUR);
    world.settings.widths.late_horizon = 24 * 119 * HOUR;
    world.state().source.page_max = 2;
    (0..10).for_each(|day| _ = world.add_at(-day * 24 * H, 0, ""));
    let mut process = world.start();
    process.good().await;
    tokio::time::sleep(2 * HOUR).await;
    process.tick_giving_way(&|| true).await.expect("alive").expect("good");
    assert!(world.checkpoint().late_sweep.is_some());
    world.state().source.reject_cursors();
    tokio::time::sleep(24 * 5 * HOUR).await;
    world.add(3);
    process.good().await;
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn a_date_that_falls_back_does_not_stop_the_sweeps() {
    for ahead in [TimeDelta::hours(3), TimeDelta::days(10)] {
        let mut world = World::new(Order::EventTime);
        world.state().source.skew = ahead;
        // A client whose clock is wrong too lifts the watermark as far as the wrong Date lets it.
        world.add_at(ahead.num_milliseconds(), 0, "");
        world.add(3);
        let mut process = world.start();
        process.good_after_a_doubt().await;
        tokio::time::sleep(MINUTE).await;
        process.good().await;
        world.state().source.skew = TimeDelta::zero();
        tokio::time::sleep(MINUTE).await;
        let behind = world.add_at(-90_000, 0, "");
        process.good_after_a_doubt().await;
        assert_eq!(world.state().sink.copies(&behind), 1, "ahead by {ahead}");
        tokio::time::sleep(HOUR).await;
        process.good().await;
        let (cp, now) = (world.checkpoint(), world.state().now());
        assert!(cp.sweep_mark <= now && cp.late_mark <= now, "no mark is left ahead of the present: {cp:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_at_in_the_future_counts_as_due() {
    let mut world = World::new(Order::EventTime);
    world.state().source.skew = TimeDelta::days(2);
    world.add(3);
    let mut process = world.start();
    process.good_after_a_doubt().await;
    world.state().source.skew = TimeDelta::zero();
    let late = world.add_at(-20 * 60_000, 0, "");
    tokio::time::sleep(MINUTE).await;
    process.good_after_a_doubt().await;
    assert_eq!(world.state().sink.copies(&late), 1);
    assert!(world.checkpoint().late_at <= world.state().now());
}

#[tokio::test(start_paused = true)]
async fn the_first_drain_of_a_reset_lifts_the_sweep_mark() {
    let mut world = World::new(Order::Insertion);
    (0..20).for_each(|day| _ = world.add_at(-day * 24 * H, 0, ""));
    world.start().good().await;
    let from = world.requests().iter().find_map(|request| match request {
        PageRequest::Window { from, .. } => Some(*from),
        _ => None,
    });
    let cp = world.checkpoint();
    assert!(from.is_some_and(|from| from > cp.floor + TimeDelta::days(29)), "the backlog is not read twice: {from:?}");
    assert!(cp.cursor_born.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_sweep_whose_source_fails_keeps_its_window() {
    let mut world = World::new(Order::EventTime);
    world.add(3);
    let mut process = world.start();
    process.good().await;
    world.add(2);
    world.on_page(|request| matches!(request, PageRequest::Window { .. }).then(|| Reply::Fail(Failure::NotConnected)));
    assert!(matches!(process.bad().await, Trouble::Source(_)));
    let kept = world.checkpoint().overlap_sweep.expect("kept");
    world.heal();
    let before = world.requests().len();
    process.good().await;
    assert!(
        world.requests()[before..]
            .iter()
            .any(|request| { matches!(request, PageRequest::Window { from, .. } if *from == kept.from) })
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_window_halts_with_a_remedy() {
    let mut world = World::new(Order::EventTime);
    world.add(3);
    world.on_page(|request| matches!(request, PageRequest::Window { .. }).then(|| Reply::Fail(status(400))));
    let trouble = world.start().bad().await;
    assert!(matches!(trouble, Trouble::Halted { .. }), "{trouble}");
}

/// Fault: 1Password or the destination answers 404, 409, 421 or 499 once, and 404 twice. Shows: once costs ten seconds and no trouble, twice in a row is one that needs a person.
#[tokio::test(start_paused = true)]
async fn fm_64_a_refusal_as_gateways_give_for_a_moment_is_tried_once_more() {
    for (code, times) in [(404, 1), (409, 1), (421, 1), (499, 1), (404, 2)] {
        let mut world = World::new(Order::Insertion);
        world.add(3);
        let mut left = times;
        world.on_page(move |_| {
            let strikes = left > 0;
            left -= i32::from(strikes);
            strikes.then(|| Reply::Fail(status(code)))
        });
        let mut process = world.start();
        let begun = tokio::time::Instant::now();
        if times == 1 {
            process.good().await;
            world.each_event_has_one_row();
        } else {
            let trouble = process.bad().await;
            assert!(matches!(trouble, Trouble::Halted { .. }), "{trouble:?}");
        }
        assert!(begun.elapsed() >= Duration::from_secs(10), "{code}");
    }
}
