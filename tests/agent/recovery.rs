//! Recovery: what a dead process left open, in both cursor orders.

use crate::oracle::ledger;
use crate::scenes::too_large;
use crate::sink::Outcome;
use crate::source::{BOTH, Order, Reply, status};
use crate::store::{Fault, Op, TTL};
use crate::world::{CHECKPOINT, HOUR, MINUTE, World};
use chrono::TimeDelta;
use opship::agent::Trouble;
use opship::flow::retry::{Failure, Patience};
use opship::source::PageRequest;
use std::time::Duration;

/// A process that posts its first batch and dies before it hears the answer.
pub(crate) async fn dies_in_its_post(world: &mut World, accepted: bool) {
    world.posts_end([Outcome::Hang { accepted }]);
    let mut process = world.start();
    let dead = process.link.dead.clone();
    let kill = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        dead.cancel();
    };
    tokio::join!(process.tick(), kill);
    world.crashes += 1;
    world.heal();
    assert!(world.checkpoint().slot.intent().is_some());
    tokio::time::sleep(TTL).await;
}

/// A process whose POSTs end like this, and that is killed in the last of them; nobody has waited for its intent.
pub(crate) async fn is_killed_posting<const N: usize>(world: &mut World, outcomes: [Outcome; N]) {
    world.posts_end(outcomes);
    let mut process = world.start();
    let (link, posts) = (process.link.clone(), world.state().sink.posts.len() + N);
    let kill = async {
        while link.state().sink.posts.len() < posts {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        link.dead.cancel();
    };
    tokio::join!(process.tick(), kill);
    world.crashes += 1;
    world.heal();
    assert!(world.open_intent().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_batch_in_doubt_is_posted_again_alone_under_its_own_id() {
    for order in BOTH {
        for accepted in [true, false] {
            let mut world = World::new(order);
            world.add(9);
            dies_in_its_post(&mut world, accepted).await;
            let ours = world.open_intent().expect("open");
            world.add(3);
            world.start().good().await;
            let posts = world.state().sink.posts.clone();
            assert_eq!(posts[0], posts[1], "the same rows and no others");
            world.nothing_is_lost();
            world.is_sound();
            let doubt = world.checkpoint().slot.in_doubt().last[0].clone();
            assert_eq!((doubt.batch_id.as_str(), doubt.attempt), (ours.batch_id(), 2));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_cursor_in_recovery_leaves_the_window() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(9);
        dies_in_its_post(&mut world, true).await;
        world.state().source.reject_cursors();
        world.on_page(|request| matches!(request, PageRequest::Reset { .. }).then(|| Reply::Fail(status(400))));
        _ = world.start().tick().await;
        world.heal();
        world.start().good().await;
        world.nothing_is_lost();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_recovery_reads_on_behind_many_empty_pages_and_one_that_is_none() {
    const EMPTY: u32 = 150;
    let mut world = World::new(Order::EventTime);
    world.add(9);
    dies_in_its_post(&mut world, true).await;
    let mut pages = 0;
    world.on_page(move |request| {
        if matches!(request, PageRequest::Reset { .. }) {
            return Some(Reply::Fail(status(400)));
        }
        pages += 1;
        match pages {
            1 => Some(Reply::Body("{}".into())),
            ..=EMPTY => Some(Reply::Body(format!(r#"{{"cursor":"E{pages}","has_more":true,"items":[]}}"#))),
            // The window is read from its start again.
            151 => Some(Reply::Fail(status(400))),
            _ => None,
        }
    });
    _ = world.start().tick().await;
    assert!(world.open_intent().is_none(), "it was found behind them");
    world.heal();
    world.start().good().await;
    assert_eq!(world.checkpoint().slot.in_doubt().gone, 0);
    world.nothing_is_lost();
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_recovery_window_over_the_body_cap_is_halved_not_repeated_for_ever() {
    let mut world = World::new(Order::EventTime);
    world.add(9);
    dies_in_its_post(&mut world, true).await;
    world.state().source.limit_max = 100;
    world.start().good().await;
    world.nothing_is_lost();
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_events_lie_far_apart_is_recovered_without_reading_all_between() {
    let mut world = World::new(Order::EventTime);
    world.state().source.page_max = 2;
    // The batch holds an event of 60 hours ago and one of now; between them lies a busy account.
    let old = world.add_at(-60 * 3_600_000, 0, "");
    let new = world.add_at(0, 0, "");
    dies_in_its_post(&mut world, true).await;
    for i in 0..500_i64 {
        world.add_at(-59 * 3_600_000 + i * 60_000, 0, "");
    }
    world.on_page(|request| {
        let is_cursor_part = matches!(request, PageRequest::Reset { .. });
        is_cursor_part.then(|| Reply::Fail(status(400)))
    });
    _ = world.start().tick().await;
    assert_eq!([&old, &new].map(|uuid| world.state().sink.copies(uuid)), [2, 2]);
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn events_that_the_source_no_longer_returns_are_let_go_and_counted() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(4);
        dies_in_its_post(&mut world, false).await;
        let gone = world.state().source.forget(1);
        world.start().good().await;
        let cp = world.checkpoint();
        assert_eq!((cp.slot.in_doubt().gone, cp.slot.intent().is_none()), (1, true));
        assert!(cp.cursor.is_some());
        assert_eq!(world.state().sink.copies(&gone.uuid), 0);
        world.nothing_is_lost();
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_of_unanswered_posts_does_not_hold_up_the_next() {
    let mut world = World::new(Order::Insertion);
    world.patience = Patience::ONCE;
    world.add(3);
    world.refuses_everything(Outcome::Hang { accepted: false });
    assert!(matches!(world.start().bad().await, Trouble::Sink(_)));
    assert_eq!(world.state().sink.posts.len(), 1, "an empty array is asked in place of more");
    world.refuses_everything(Outcome::Refuse(503));
    tokio::time::sleep(TTL).await;
    assert!(matches!(world.start().bad().await, Trouble::Sink(_)));
    assert_eq!(world.state().sink.posts.len(), 2);
    assert_eq!(world.state().sink.probes, 1 + 6, "six attempts, one of them with rows");
    world.heal();
    tokio::time::sleep(TTL).await;
    let asked = tokio::time::Instant::now();
    world.start().good().await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(ledger(&world).values().all(|attempt| *attempt >= 4), "each of them may have been accepted");
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_readable_time_is_found_again_when_its_page_is_not() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(4);
        world.state().source.events.iter_mut().for_each(|event| event.is_odd = true);
        dies_in_its_post(&mut world, true).await;
        world.state().source.page_max = 1;
        // First its window comes to no end either, which is no proof that the events are gone.
        world.on_page(|request| match request {
            PageRequest::Reset { .. } => Some(Reply::Body("{}".into())),
            PageRequest::Continue(_) => Some(Reply::SameCursor),
            PageRequest::Window { .. } => None,
        });
        assert!(matches!(world.start().bad().await, Trouble::Stuck(_)));
        world.on_page(|request| matches!(request, PageRequest::Reset { .. }).then(|| Reply::Body("{}".into())));
        _ = world.start().tick().await;
        assert_eq!(world.checkpoint().slot.in_doubt().gone, 0);
        world.heal();
        world.start().good().await;
        assert_eq!(world.rows(), 4 + 4, "one copy of the batch in doubt, no more");
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_is_not_gone_and_burns_no_attempt() {
    let mut world = World::new(Order::Insertion);
    world.add(4);
    dies_in_its_post(&mut world, true).await;
    world.on_page(|_| Some(Reply::Fail(Failure::NotConnected)));
    let mut process = world.start();
    for _ in 0..6 {
        assert!(matches!(process.bad().await, Trouble::Source(_)));
        tokio::time::sleep(TTL).await;
    }
    let intent = world.open_intent().expect("open");
    assert_eq!(intent.attempt(), 1, "nothing was posted");
    world.heal();
    process.good().await;
    world.nothing_is_lost();
    world.is_sound();
    assert_eq!(world.checkpoint().slot.in_doubt().gone, 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_kept_in_recovery_loses_no_event() {
    let mut world = World::new(Order::Insertion);
    world.add(1);
    let stub = world.add_at(-1, 0, &too_large());
    dies_in_its_post(&mut world, false).await;
    world.on_store(|op, key| (op == Op::Put && key.starts_with("dead-letters/")).then_some(Fault::Fail));
    let mut process = world.start();
    assert!(matches!(process.bad().await, Trouble::Store(_)));
    world.heal();
    process.good().await;
    assert_eq!(world.state().sink.copies(&stub), 1);
    world.nothing_is_lost();
}

#[tokio::test(start_paused = true)]
async fn ids_partly_recorded_are_not_posted_again() {
    let mut world = World::new(Order::Insertion);
    // Two hours, so two segments; the second append never arrives.
    world.add_at(-3_600_000, 0, "");
    world.add_at(0, 0, "");
    let mut appends = 0;
    world.on_store(move |op, key| {
        appends += u32::from(op == Op::Append && key.contains("ledger/"));
        (op == Op::Append && appends > 1).then_some(Fault::Fail)
    });
    let mut process = world.start();
    let dead = process.link.dead.clone();
    let kill = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        dead.cancel();
    };
    tokio::join!(process.tick(), kill);
    world.crashes += 1;
    world.heal();
    tokio::time::sleep(TTL).await;
    world.start().good().await;
    assert_eq!(world.state().sink.posts[1].len(), 1);
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn ids_recorded_under_a_lower_attempt_are_recorded_again_under_the_intents() {
    let mut world = World::new(Order::Insertion);
    world.add(4);
    // A posts, is accepted, and stalls before its record; B takes over, posts too and dies before its record; A records.
    let mut a = world.start();
    let mut steps = 0;
    let mut probe = World::new(Order::Insertion);
    probe.add(4);
    let mut first = probe.start();
    first.good().await;
    for k in 1..first.link.steps() {
        let mut world = World::new(Order::Insertion);
        world.add(4);
        let mut dying = world.start();
        dying.link.at_step(k, crate::link::Mishap::Crash);
        dying.tick().await;
        if world.rows() == 4 && crate::oracle::ledger(&world).is_empty() {
            steps = k;
            break;
        }
    }
    assert!(steps > 0);
    a.link.at_step(steps, crate::link::Mishap::Stall(10 * TTL));
    let link = a.link.clone();
    let takeover = async {
        let mut b_posts = 0;
        tokio::time::sleep(2 * TTL).await;
        link.state().sink.hook = Some(Box::new(move |_| {
            b_posts += 1;
            if b_posts == 1 { Outcome::Hang { accepted: true } } else { Outcome::Accept }
        }));
    };
    let mut b = world.start();
    let dead = b.link.dead.clone();
    let second = async {
        tokio::time::sleep(3 * TTL).await;
        let kill = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            dead.cancel();
        };
        tokio::join!(b.tick(), kill);
    };
    let (_, (), ()) = tokio::join!(a.tick(), takeover, second);
    world.crashes += 2;
    assert_eq!(world.rows(), 8);
    assert!(crate::oracle::ledger(&world).values().all(|attempt| *attempt == 1), "A's late record");
    tokio::time::sleep(TTL).await;
    world.start().good().await;
    assert_eq!(world.rows(), 8);
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_slows_down_from_the_third_attempt() {
    let mut world = World::new(Order::Insertion);
    world.add(4);
    let mut gaps = Vec::new();
    for _ in 0..9 {
        world.posts_end([Outcome::Hang { accepted: true }]);
        let mut process = world.start();
        process.link.state().store.gone = (1..100).map(|n| format!("owner-{n}")).collect();
        let begun = tokio::time::Instant::now();
        let posts = world.state().sink.posts.len();
        loop {
            let dead = process.link.dead.clone();
            let watch = process.link.clone();
            let kill = async {
                while watch.state().sink.posts.len() == posts {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                dead.cancel();
            };
            tokio::select! {
                outcome = process.tick() => match outcome {
                    None => break,
                    Some(outcome) => tokio::time::sleep(outcome.expect_err("still waiting").pause()).await,
                },
                () = kill => break,
            }
        }
        gaps.push(begun.elapsed().as_secs());
        world.crashes += 1;
    }
    assert!(gaps[0] <= 1 && gaps[1] <= 1, "{gaps:?}");
    for (n, gap) in gaps.iter().enumerate().skip(2) {
        let wait = 2_u64.pow(n as u32 + 1).min(900);
        assert!((wait - 1..=wait + 6).contains(gap), "attempt {}: {gaps:?}", n + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_payload_that_no_longer_fits_is_posted_in_parts() {
    let mut world = World::new(Order::Insertion);
    world.add(4);
    dies_in_its_post(&mut world, true).await;
    world.state().sink.rows_max = 1;
    world.start().good().await;
    assert_eq!(world.rows(), 8);
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn an_intent_of_a_sweep_moves_the_sweep_when_it_is_recovered() {
    let mut world = World::new(Order::EventTime);
    world.add(3);
    world.start().good().await;
    tokio::time::sleep(2 * HOUR).await;
    let late = world.add_at(-140 * 60_000, 0, "");
    dies_in_its_post(&mut world, true).await;
    let before = world.checkpoint();
    assert!(before.late_sweep.is_some(), "the sweep stands in the document of its first intent");
    world.state().source.reject_cursors();
    world.start().good().await;
    assert_eq!(world.state().sink.copies(&late), 2);
    assert!(world.checkpoint().late_at > before.late_at);
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn an_intent_of_a_reset_has_no_cursor_and_is_still_found() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(4);
        dies_in_its_post(&mut world, true).await;
        assert!(world.checkpoint().cursor.is_none());
        world.start().good().await;
        assert_eq!(world.rows(), 8);
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_reset_over_an_open_intent_keeps_its_copies_traceable() {
    for order in BOTH {
        let mut world = World::new(order);
        world.add(4);
        dies_in_its_post(&mut world, true).await;
        let mut operator = world.start();
        operator.feed.as_mut().expect("alive").reset(false).await.expect("reset");
        tokio::time::sleep(TTL).await;
        world.start().good().await;
        world.nothing_is_lost();
        world.is_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_recovered_window_never_reaches_behind_the_api() {
    let mut world = World::new(Order::Insertion);
    world.settings.lookback = opship::config::Lookback::Back(24 * 119 * HOUR);
    world.add_at(-(24 * 118 * 3_600_000), 0, "");
    dies_in_its_post(&mut world, true).await;
    tokio::time::sleep(24 * 5 * HOUR).await;
    world.add(2);
    let mut process = world.start();
    process.good().await;
    assert!(world.checkpoint().slot.intent().is_none());
    assert!(world.checkpoint().floor + TimeDelta::days(125) > world.state().now());
    tokio::time::sleep(MINUTE).await;
    process.good().await;
    assert!(world.state().store.blobs.contains_key(CHECKPOINT));
}
