//! Times that are wrong: one answer, several, all of them, or this host's clock. Nothing starts, ends or is let go by one of them alone.

use crate::log::Log;
use crate::sink::Outcome;
use crate::source::{BOTH, Order, WrongDates};
use crate::store::TTL;
use crate::world::{HOUR, MINUTE, Process, World};
use chrono::TimeDelta;
use opship::agent::Trouble;
use opship::config::Lookback;
use opship::flow::retry::Patience;
use std::time::Duration;
use tokio::time::Instant;

const DAY_MS: i64 = 24 * 3_600_000;

/// The next answers say another time.
fn wrong_dates(world: &World, left: u64, days: i64) {
    let until = Instant::now() + 24 * 400 * HOUR;
    world.state().source.wrong_dates = Some(WrongDates { left, until, by: TimeDelta::days(days) });
}

/// Events of the last days, one every so often.
fn events_of_days(world: &World, count: i64, from_days: i64, to_days: i64) {
    let step = (to_days - from_days) * DAY_MS / count;
    (0..count).for_each(|n| _ = world.add_at(-from_days * DAY_MS - n * step, 0, ""));
}

/// Fault: the introduction of a first start says a time 400 days ahead, every later answer the right one. Shows: that tick is trouble that says how far, all 40 events ship in the next, `once` waits and ships them itself.
#[tokio::test(start_paused = true)]
async fn fm_46_one_wrong_time_at_the_first_start_loses_nothing() {
    for (order, days) in BOTH.into_iter().flat_map(|order| [400, -400, 1].map(|days| (order, days))) {
        let mut world = World::new(order);
        events_of_days(&world, 40, 0, 20);
        wrong_dates(&world, 1, days);
        let mut process = world.start();
        let doubt = process.bad().await;
        assert!(matches!(doubt, Trouble::Clock(_)) && doubt.what().contains("this host's clock"), "{doubt}");
        assert!(doubt.what().contains(&format!("{} d", days.abs())), "{doubt}");
        assert!(world.stored_bytes().is_none(), "nothing was written by that time");
        tokio::time::sleep(MINUTE).await;
        process.good().await;
        world.each_event_has_one_row();

        let mut world = World::new(order);
        world.patience = Patience::ONCE;
        events_of_days(&world, 40, 0, 20);
        wrong_dates(&world, 1, days);
        world.start().good().await;
        world.each_event_has_one_row();
    }
}

/// Fault: a batch in doubt of events 10 to 16 days old; then a run in which every answer is 130 days ahead. Shows: nothing counts as gone, all 60 events ship.
#[tokio::test(start_paused = true)]
async fn fm_46_a_time_far_ahead_in_mid_life_lets_nothing_go() {
    for order in BOTH {
        for patience in [Patience::ONCE, Patience::RUN] {
            let mut world = World::new(order);
            (world.patience, world.settings.batch_rows_max) = (patience, 500);
            world.state().source.page_max = 1_000;
            events_of_days(&world, 60, 10, 16);
            world.on_post(|_| Outcome::Refuse(500));
            world.start().bad().await;
            world.heal();
            tokio::time::sleep(TTL).await;
            world.crashes += 1;
            world.state().source.skew = TimeDelta::days(130);
            let mut process = world.start();
            for _ in 0..4 {
                _ = process.tick().await;
                tokio::time::sleep(MINUTE).await;
            }
            world.state().source.skew = TimeDelta::zero();
            for _ in 0..2 {
                let mut process = world.start();
                while process.tick().await.expect("alive").is_err() {
                    tokio::time::sleep(MINUTE).await;
                }
            }
            world.nothing_is_lost();
            world.is_sound();
            assert_eq!(world.checkpoint().slot.in_doubt().gone, 0);
        }
    }
}

/// Fault: one answer of a living process is a year off, at each request in turn. Shows: no mark, floor or cursor moves by it, the tick is trouble, the next ones lose nothing.
#[tokio::test(start_paused = true)]
async fn fm_46_one_wrong_time_in_a_living_process_moves_nothing() {
    for order in BOTH {
        for nth in 0..4 {
            for days in [365, -365] {
                let mut world = World::new(order);
                world.state().source.page_max = 3;
                world.add(9);
                let mut process = world.start();
                process.good().await;
                tokio::time::sleep(2 * HOUR).await;
                world.add_at(48 * 3_600_000, 0, "");
                world.add(5);
                wrong_dates(&world, 1, days);
                world.state().source.right_before = nth;
                let floor = world.checkpoint().floor;
                match process.tick().await.expect("alive") {
                    // A page that was fetched ahead is asked for again.
                    Ok(_) => assert!(nth > 0),
                    Err(doubt @ Trouble::Clock(_)) => assert!(doubt.what().contains("its answers before"), "{doubt}"),
                    Err(other) => panic!("{other}"),
                }
                let (cp, now) = (world.checkpoint(), world.state().now());
                assert!(
                    cp.floor == floor && cp.sweep_mark <= now && cp.late_mark <= now && cp.late_at <= now,
                    "{cp:?}"
                );
                tokio::time::sleep(MINUTE).await;
                process.good().await;
                world.each_event_has_one_row();
            }
        }
    }
}

/// Fault: the floor of an earlier version lies 400 days ahead, and nothing was shipped. Shows: after two answers that agree with the host all positions are made anew, everything ships; with rows shipped, or clocks apart, a person is asked.
#[tokio::test(start_paused = true)]
async fn fm_46_a_floor_that_lies_ahead_is_mended_only_when_that_is_sure() {
    for patience in [Patience::ONCE, Patience::RUN] {
        let mut world = World::new(Order::Insertion);
        world.patience = patience;
        world.add(5);
        plant_floor(&mut world, TimeDelta::days(400), 0).await;
        let log = Log::listen();
        let mut process = world.start();
        while let Err(trouble) = process.tick().await.expect("alive") {
            assert!(trouble.what().contains("starts at") && patience == Patience::RUN, "{trouble}");
            tokio::time::sleep(MINUTE).await;
        }
        world.each_event_has_one_row();
        assert_eq!(log.said("starts at the lookback again").len(), 1);
        let cp = world.checkpoint();
        assert!(cp.floor < world.state().now() && cp.late_at <= world.state().now() && cp.slot.seq() >= 7, "{cp:?}");
    }
    for (shipped, host_days) in [(3, 0), (0, 2)] {
        let mut world = World::new(Order::Insertion);
        world.add(5);
        plant_floor(&mut world, TimeDelta::days(400), shipped).await;
        world.state().host_skew = TimeDelta::days(host_days);
        let mut process = world.start();
        let mut told = Vec::new();
        for _ in 0..4 {
            told.push(process.bad().await);
            tokio::time::sleep(MINUTE).await;
        }
        let last = told.pop().expect("told");
        assert!(last.remedy().contains("opship checkpoint reset"), "{last}");
        assert_eq!(world.rows(), 0);
    }
}

/// A checkpoint whose floor and marks were made by a clock that was ahead.
async fn plant_floor(world: &mut World, ahead: TimeDelta, shipped: u64) {
    world.start().good().await;
    let mut cp = world.checkpoint();
    let floor = world.state().now() + ahead;
    (cp.floor, cp.watermark, cp.sweep_mark, cp.late_mark, cp.late_at) = (floor, floor, floor, floor, floor);
    (cp.cursor, cp.cursor_born) = (None, None);
    let slot = serde_json::json!({ "seq": 7, "intent": null });
    cp.slot = serde_json::from_value(slot).expect("a slot");
    cp.totals = Default::default();
    (cp.totals.shipped, cp.totals.read) = (shipped, shipped);
    let key = world.checkpoint_key();
    let mut state = world.state();
    state.store.blobs.clear();
    state.store.set(&key, cp.encode().expect("JSON"));
    state.sink = crate::sink::Table::new();
    state.source.covered.clear();
}

/// Fault: `lookback = "now"` with clocks a quarter of an hour and more apart, and a lookback still to come. Shows: the feed waits and asks for a time, nothing is written; with clocks that agree, and once the time has come, it starts.
#[tokio::test(start_paused = true)]
async fn fm_46_a_start_that_nobody_can_name_is_asked_for() {
    let mut world = World::new(Order::Insertion);
    world.settings.lookback = Lookback::Now;
    world.state().source.skew = TimeDelta::minutes(40);
    let mut process = world.start();
    assert!(matches!(process.bad().await, Trouble::Clock(_)));
    tokio::time::sleep(MINUTE * 2).await;
    let trouble = process.bad().await;
    assert!(trouble.what().contains("40 min apart") && trouble.remedy().contains("RFC 3339"), "{trouble}");
    assert!(world.stored_bytes().is_none());
    world.state().host_skew = TimeDelta::minutes(40);
    process.good().await;
    assert!(world.checkpoint().floor > world.state().now());

    let mut world = World::new(Order::Insertion);
    let start = world.state().now() + TimeDelta::days(3);
    world.settings.lookback = Lookback::From(start);
    let mut process = world.start();
    let trouble = process.bad().await;
    assert!(trouble.what().contains("still to come") && matches!(trouble, Trouble::Halted { .. }), "{trouble}");
    world.add(2);
    tokio::time::sleep(72 * HOUR).await;
    let after = world.add(2);
    process.good().await;
    assert_eq!(world.rows(), 2, "what is newer than the configured time");
    assert!(after.iter().all(|uuid| world.rows_of(uuid) == 1));
}

/// Fault: two believed clocks, 1Password's far ahead of the host's, at a first start. Shows: the floor comes from the earlier clock, nothing is lost when the other comes back.
#[tokio::test(start_paused = true)]
async fn fm_46_the_floor_comes_from_the_earlier_clock() {
    for order in BOTH {
        let mut world = World::new(order);
        world.settings.lookback = Lookback::Back(24 * HOUR);
        events_of_days(&world, 20, 0, 1);
        world.state().source.skew = TimeDelta::days(300);
        let mut process = world.start();
        assert!(matches!(process.bad().await, Trouble::Clock(_)));
        tokio::time::sleep(MINUTE * 2).await;
        _ = process.tick().await;
        assert!(world.checkpoint().floor <= world.state().now() - TimeDelta::hours(23));
        world.state().source.skew = TimeDelta::zero();
        for _ in 0..3 {
            _ = process.tick().await;
            tokio::time::sleep(MINUTE * 2).await;
        }
        process.good().await;
        world.nothing_is_lost();
    }
}

/// Fault: a store whose answers have no Date, and a batch left open by a process that is gone. Shows: another waits for the intent's life from its first sight on, then takes over, after many recoveries too, and everything ships.
#[tokio::test(start_paused = true)]
async fn fm_48_a_store_that_tells_no_time_is_waited_for_by_our_own_clock() {
    for (patience, standby_max) in [(Patience::RUN, Duration::ZERO), (Patience::ONCE, Duration::from_secs(150))] {
        let mut world = World::new(Order::Insertion);
        (world.patience, world.standby_max) = (patience, standby_max);
        world.state().store.tells_time = false;
        world.add(3);
        world.posts_end([Outcome::Hang { accepted: true }]);
        for starts in 0..6 {
            // Each is killed while it posts: the intent stays, and the batch has been started once more.
            let begun = Instant::now();
            let mut process = world.start();
            process.link.die_at_wait(u64::MAX);
            world.on_post(|_| Outcome::Hang { accepted: false });
            let posts = world.state().sink.begun;
            let driver = async {
                loop {
                    if let Err(trouble) = process.tick().await.expect("nobody kills it") {
                        tokio::time::sleep(trouble.pause().max(Duration::from_secs(5))).await;
                    }
                }
            };
            let watch = async {
                while world.state().sink.begun == posts {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            tokio::select! { () = driver => {}, () = watch => {} }
            world.crashes += 1;
            let waited = begun.elapsed();
            let (least, most) = if starts == 0 { (0, 5) } else { (118, 2 * 120 + 10) };
            let waited = waited.as_secs();
            assert!((least..=most).contains(&waited), "{patience:?}: start {starts} waited {waited} s");
        }
        world.heal();
        let mut process = world.start();
        while let Err(trouble) = process.tick().await.expect("nobody kills it") {
            tokio::time::sleep(trouble.pause().max(Duration::from_secs(5))).await;
        }
        world.nothing_is_lost();
        world.is_sound();
    }
}

/// Fault: two answers a minute apart agree on a wrong time days ahead, an event of that time is there, and the cursor is refused later. Shows: once the right time is believed again, everything that came meanwhile and since ships.
#[tokio::test(start_paused = true)]
async fn fm_46_marks_that_a_wrong_time_moved_ahead_are_taken_back() {
    for (order, days) in BOTH.into_iter().flat_map(|order| [3, 400].map(|days| (order, days))) {
        let mut world = World::new(order);
        world.settings.widths.late_every = 10_000 * HOUR;
        world.add(9);
        let mut process = world.start();
        process.good().await;
        world.add_at(DAY_MS, 0, "");
        wrong_dates(&world, 9, days);
        process.bad().await;
        tokio::time::sleep(MINUTE).await;
        process.good().await;
        assert!(world.checkpoint().watermark > world.state().now(), "two answers agree");
        wrong_dates(&world, 0, 0);
        tokio::time::sleep(HOUR).await;
        world.add(7);
        // The cursor is gone: only windows and resets from the marks are left.
        world.state().source.reject_cursors();
        for _ in 0..4 {
            _ = process.tick().await;
            tokio::time::sleep(MINUTE).await;
        }
        process.good().await;
        world.each_event_has_one_row();
        assert!(world.checkpoint().watermark <= world.state().now());
    }
}

/// A feed whose source said once that it is a day later, with an event of that time and no late sweeps; a second answer will be believed.
async fn a_day_ahead(order: Order) -> (World, Process) {
    let mut world = World::new(order);
    world.settings.widths.late_every = 10_000 * HOUR;
    world.add(9);
    let mut process = world.start();
    process.good().await;
    world.add_at(DAY_MS, 0, "");
    world.state().source.skew = TimeDelta::days(1);
    process.bad().await;
    tokio::time::sleep(MINUTE).await;
    (world, process)
}

/// What comes in these hours lies behind the marks, which no reader has seen; then the source is right again, and no cursor is good.
async fn until_that_time_has_passed(world: &mut World) {
    tokio::time::sleep(12 * HOUR).await;
    world.add(5);
    tokio::time::sleep(20 * HOUR).await;
    world.add(2);
    let mut state = world.state();
    state.source.skew = TimeDelta::zero();
    state.source.reject_cursors();
}

/// Fault: two answers agree on a time some hours ahead, an event of that time is there, and no right answer is heard until that time has passed; the cursor is refused, no late sweep runs. Shows: once the clocks agree again, what came meanwhile ships; the same where the process was restarted, and where it is the host's clock that was behind nothing ships twice.
#[tokio::test(start_paused = true)]
async fn fm_46_marks_that_were_ahead_of_their_time_are_taken_back_when_it_has_passed() {
    for (order, restarted) in BOTH.into_iter().flat_map(|order| [false, true].map(|restarted| (order, restarted))) {
        let (mut world, mut process) = a_day_ahead(order).await;
        process.good().await;
        let sure = world.checkpoint().sure.expect("kept while one of the clocks is wrong");
        assert!(sure.sweep_mark <= world.state().now(), "{sure:?}");
        until_that_time_has_passed(&mut world).await;
        if restarted {
            process = world.start();
        } else {
            process.bad().await;
            tokio::time::sleep(MINUTE).await;
        }
        for _ in 0..3 {
            _ = process.tick().await;
            tokio::time::sleep(MINUTE).await;
        }
        process.good().await;
        world.each_event_has_one_row();
        assert_eq!(world.checkpoint().sure, None);
    }
    // The same with a reset under the wrong time whose batch is in doubt: when it is settled it lifts no mark.
    for order in BOTH {
        let (mut world, mut process) = a_day_ahead(order).await;
        world.state().source.reject_cursors();
        world.posts_end(std::iter::repeat_n(Outcome::LoseReply, 12).collect::<Vec<_>>());
        process.bad().await;
        assert!(world.open_intent().is_some() && world.checkpoint().sure.is_some(), "{order:?}");
        world.posts_end([]);
        until_that_time_has_passed(&mut world).await;
        process = world.start();
        for _ in 0..6 {
            _ = process.tick().await;
            tokio::time::sleep(10 * MINUTE).await;
        }
        process.good().await;
        world.nothing_is_lost();
        world.every_copy_is_traceable();
    }
    let mut world = World::new(BOTH[0]);
    world.state().host_skew = -TimeDelta::days(2);
    world.add(9);
    let mut process = world.start();
    process.bad().await;
    tokio::time::sleep(MINUTE).await;
    for _ in 0..3 {
        world.add(3);
        process.good().await;
        tokio::time::sleep(HOUR).await;
    }
    world.state().host_skew = TimeDelta::zero();
    process.good().await;
    assert_eq!(world.checkpoint().sure, None);
    world.each_event_has_one_row();
}
