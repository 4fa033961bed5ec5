//! A backfill beside the live feed: killed anywhere, raced by replicas, stopped, resumed.

use crate::again::{DAY, TICK, position};
use crate::oracle::ledger;
use crate::source::{BOTH, Order};
use crate::store::{Fault, Op, TTL};
use crate::world::{HOUR, MINUTE, Process, World};
use opship::agent::{Backfill, Trouble};
use opship::config::Lookback;
use opship::flow::envelope::{Kind, Opened};
use opship::source::{Lane, PageRequest};
use opship::store::backfills::{Done, Progress, Span};
use std::time::Duration;
use tokio::time::Instant;

/// Without the room that the live feed gets, no wait in memory is as long.
const ROOM: Duration = Duration::from_secs(2);

/// A feed that began an hour ago, `old` events of four days before that, and small pages.
async fn with_a_past(order: Order, seed: u64, old: i64) -> World {
    let mut world = World::seeded(order, seed);
    world.settings.lookback = Lookback::Back(HOUR);
    world.state().source.page_max = 3;
    (0..old).for_each(|n| _ = world.add_at(-(n + 2) * 4 * DAY / (old + 2), -DAY, ""));
    world.add(3);
    world.start().good().await;
    tokio::time::sleep(MINUTE).await;
    world
}

fn five_days(world: &World) -> Span {
    let to = world.state().date();
    Span { from: to - chrono::TimeDelta::days(5), to, asked: "5d to now".into(), is_relative: true }
}

impl Process {
    /// `None`: it died.
    async fn backfill(&mut self, span: &Span, dry_run: bool) -> Option<Result<Progress, Trouble>> {
        let link = self.link.clone();
        let feed = self.feed.as_mut().expect("alive");
        let backfill = Backfill { span: span.clone(), dry_run, watch: &mut |_| {} };
        tokio::select! {
            biased;
            () = link.dead.cancelled() => None,
            outcome = link.dying_at_a_wait(feed.backfill(backfill, TICK)) => Some(outcome),
        }
    }

    async fn backfilled(&mut self, span: &Span) -> Done {
        self.backfill(span, false).await.expect("no crash").expect("a good backfill").done
    }
}

fn left_behind(world: &World) -> Vec<String> {
    let state = world.state();
    state.store.blobs.keys().filter(|key| key.starts_with("backfill/")).cloned().collect()
}

fn everything_arrived(world: &World) {
    let missing: Vec<_> = world.uuids().into_iter().filter(|uuid| world.rows_of(uuid) == 0).collect();
    assert!(missing.is_empty(), "L: {missing:?}");
}

#[tokio::test(start_paused = true)]
async fn a_range_is_read_in_windows_of_a_day_shipped_once_and_tidied_up() {
    for order in BOTH {
        let mut world = with_a_past(order, 1, 20).await;
        let before = position(&world.checkpoint());
        let span = five_days(&world);
        let asked = world.requests().len();
        let done = world.start().backfilled(&span).await;
        assert_eq!((done.shipped, done.known), (20, 3));
        let requests = world.requests().split_off(asked);
        let windows: Vec<_> = requests.iter().filter(|request| matches!(request, PageRequest::Window { .. })).collect();
        assert_eq!(windows.len(), 5);
        assert!(world.state().source.requests[asked..].iter().all(|(_, lane)| *lane == Lane::Backfill));
        world.each_event_has_one_row();
        world.is_sound();
        assert_eq!(position(&world.checkpoint()), before);
        assert_eq!(left_behind(&world), [""; 0]);
        assert_eq!(world.start().backfilled(&span).await.shipped, 0);
        assert!(ledger(&world).values().all(|attempt| *attempt == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_counts_exactly_and_leaves_no_trace() {
    let mut world = with_a_past(Order::EventTime, 1, 20).await;
    let span = five_days(&world);
    // At the boundary of two windows, and twice on a page.
    let boundary = (span.from + chrono::TimeDelta::days(2) - world.state().now()).num_milliseconds();
    world.add_at(boundary, -DAY, "");
    world.on_page(|_| Some(crate::source::Reply::ItemAgain));
    let effects = world.state().effects();
    let counted = world.start().backfill(&span, true).await.expect("alive").expect("counted").done;
    assert_eq!((counted.read, counted.shipped, counted.known), (24, 21, 3));
    assert_eq!(world.state().effects(), effects);
    world.heal();
    assert_eq!(world.start().backfilled(&span).await.shipped, 21);
}

/// Fault: kill -9 at every wait of a backfill. Shows: the same command finishes it, nothing is lost, copies are traced, the position stands.
#[tokio::test(start_paused = true)]
async fn fm_39_a_crash_at_any_wait_of_a_backfill_loses_nothing_and_the_same_command_finishes_it() {
    for order in BOTH {
        let (mut points, mut resumed) = (0, 0);
        for k in 1.. {
            let mut world = with_a_past(order, 1, 14).await;
            let (span, before) = (five_days(&world), position(&world.checkpoint()));
            let mut process = world.start();
            process.link.die_at_wait(k);
            if process.backfill(&span, false).await.is_some() {
                break;
            }
            points += 1;
            world.crashes += 1;
            resumed += usize::from(!left_behind(&world).is_empty());
            let later = Span { to: span.to + chrono::TimeDelta::seconds(150), ..span.clone() };
            tokio::time::sleep(TTL).await;
            world.start().backfilled(&later).await;
            assert_eq!(position(&world.checkpoint()), before);
            assert_eq!((left_behind(&world).len(), world.checkpoint().slot.in_doubt().gone), (0, 0));
            everything_arrived(&world);
            world.is_sound();
            assert!(world.copies().0 <= 4, "D: a batch at most");
        }
        assert!(points > 100 && resumed > 50, "{order:?}: {points} points, {resumed} of them with progress");
    }
}

/// Fault: two replicas ship the live feed while a backfill runs. Shows: each event has one row, no replica waits for a tick.
#[tokio::test(start_paused = true)]
async fn fm_02_two_replicas_and_a_backfill_side_by_side_ship_each_event_once() {
    let (mut met, mut ticks) = (0, 0);
    for seed in 0..20 {
        let mut world = with_a_past(if seed % 2 == 0 { Order::Insertion } else { Order::EventTime }, seed, 60).await;
        world.state().latency_ms_max = 60;
        let span = five_days(&world);
        let (mut a, mut b, mut other) = (world.start(), world.start(), world.start());
        let is_done = std::cell::Cell::new(false);
        let live = async {
            while !is_done.get() {
                world.add(5);
                let outcomes = tokio::join!(tick(&mut a), tick(&mut b));
                (met, ticks) = (met + outcomes.0 + outcomes.1, ticks + 2);
                tokio::time::sleep(Duration::from_secs(7)).await;
            }
        };
        let backfill = async {
            let done = other.backfilled(&span).await;
            is_done.set(true);
            done
        };
        let ((), done) = tokio::join!(live, backfill);
        assert!(done.shipped >= 60, "{done:?}");
        world.each_event_has_one_row();
        assert_eq!((world.checkpoint().slot.in_doubt().batches, left_behind(&world).len()), (0, 0));
    }
    assert!(met > 20 && ticks > 100, "{met} of {ticks} ticks met the backfill");
}

/// Ticks as `run` does until one is good. How often it met another process first.
async fn tick(replica: &mut Process) -> usize {
    let (begun, mut met) = (Instant::now(), 0);
    loop {
        match replica.tick().await.expect("no crash") {
            Ok(_) => {
                assert!(begun.elapsed() < MINUTE, "the next tick came first: {:?}", begun.elapsed());
                return met;
            }
            Err(trouble @ (Trouble::Lost | Trouble::Standby { .. })) => tokio::time::sleep(trouble.pause()).await,
            Err(trouble) => panic!("{trouble}"),
        }
        met += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn the_live_feed_gets_two_seconds_after_each_commit_while_there_is_one_and_some_while_none_is_seen() {
    let took = async |idle: Duration| {
        let mut world = with_a_past(Order::EventTime, 1, 60).await;
        tokio::time::sleep(idle).await;
        let begun = Instant::now();
        let done = world.start().backfilled(&five_days(&world)).await;
        assert_eq!(done.shipped, 60);
        (begun.elapsed(), u32::try_from(done.pages).expect("few"))
    };
    let (beside, pages) = took(Duration::ZERO).await;
    assert!(beside >= ROOM * (pages - 5) && pages > 20, "{beside:?} for {pages} pages");
    let (alone, _) = took(15 * MINUTE).await;
    assert!(alone < beside / 4, "{alone:?} alone, {beside:?} beside a live feed");
}

#[tokio::test(start_paused = true)]
async fn a_backfill_that_is_stopped_goes_on_behind_what_it_has_read() {
    let mut world = with_a_past(Order::EventTime, 1, 60).await;
    let span = five_days(&world);
    let (mut process, begun) = (world.start(), world.requests().len());
    let stop = process.link.stop.clone();
    let (ended, ()) = tokio::join!(process.backfill(&span, false), async {
        tokio::time::sleep(25 * Duration::from_secs(1)).await;
        stop.cancel();
    });
    assert!(matches!(ended, Some(Err(Trouble::Stopped))), "{ended:?}");
    let (first, shipped) = (world.requests().len() - begun, world.rows() as u64 - 3);
    assert!(shipped > 20 && left_behind(&world).len() == 1 && world.open_intent().is_none());
    let done = world.start().backfilled(&span).await;
    let second = world.requests().len() - begun - first;
    assert_eq!((done.shipped, done.pages as usize), (60, first + second), "counted over both runs, no page twice");
    world.each_event_has_one_row();
}

/// Fault: progress of another destination, of another range, of a day ago, damaged, of a newer program. Shows: only the same range is resumed;
/// what a newer program wrote is refused.
#[tokio::test(start_paused = true)]
async fn progress_is_resumed_for_the_same_range_alone() {
    let mut world = with_a_past(Order::EventTime, 1, 20).await;
    let span = five_days(&world);
    world.fault_at(4, Op::Put, "backfill/", Fault::Fail);
    let failed = world.start().backfill(&span, false).await.expect("alive").expect_err("the store fails");
    assert!(matches!(failed, Trouble::Store(_)), "{failed}");
    world.heal();
    let kept = left_behind(&world);
    let bytes = world.state().store.blobs[&kept[0]].bytes.clone();
    let pages = async |world: &mut World, span: &Span| world.start().backfilled(span).await.pages;
    let whole = pages(&mut world, &Span { asked: "another range".into(), ..span.clone() }).await;

    world.state().store.set(&kept[0], bytes.clone());
    assert_eq!(pages(&mut world, &span).await, whole, "resumed: the same pages in all");
    let asked = world.requests().len();
    world.state().store.set(&kept[0], bytes.clone());
    pages(&mut world, &span).await;
    assert_eq!(world.requests().len() - asked + 3, whole as usize, "three pages were read before");

    for damage in [bytes[..bytes.len() / 2].to_vec(), b"{}".to_vec(), vec![b' '; 70_000]] {
        world.state().store.set(&kept[0], damage);
        assert_eq!(pages(&mut world, &span).await, whole);
        assert_eq!(left_behind(&world), [""; 0]);
    }
    world.state().store.set(&kept[0], bytes.clone());
    tokio::time::sleep(25 * HOUR).await;
    let asked = world.requests().len();
    pages(&mut world, &span).await;
    assert_eq!(world.requests().len() - asked, whole as usize, "30d is another range a day later");

    let kind = Kind { format: "opship-backfill", version: 1, min_reader: 1 };
    let Opened::Body(body) = kind.open(&bytes) else { panic!("it is one of ours") };
    let mut elsewhere: Progress = serde_json::from_str(body).expect("progress");
    elsewhere.fingerprints.sink = "another".into();
    world.state().store.set(&kept[0], kind.seal(&elsewhere).expect("json"));
    assert_eq!(pages(&mut world, &span).await, whole, "another destination has a ledger of its own");
    let newer = Kind { version: 2, min_reader: 2, ..kind }.seal(&elsewhere).expect("json");
    world.state().store.set(&kept[0], newer.clone());
    let refused = world.start().backfill(&span, false).await.expect("alive").expect_err("refused");
    assert!(refused.to_string().contains("upgrade this program"), "{refused}");
    assert_eq!(world.state().store.blobs[&kept[0]].bytes, newer, "and left alone");
    assert_eq!(world.copies(), (0, 0));
}
