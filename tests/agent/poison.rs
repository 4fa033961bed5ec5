//! A row that somebody on the way does not like: it stops nobody, and nobody else is taken for it.

use crate::oracle::ledger;
use crate::recovery::dies_in_its_post;
use crate::sink::{Outcome, POISONED};
use crate::source::{BOTH, Order};
use crate::store::TTL;
use crate::world::{HOUR, MINUTE, World};
use opship::agent::Trouble;
use opship::flow::retry::Patience;
use std::time::Duration;
use tokio::time::Instant;

/// Most POSTs of rows in a tick while everything is refused: as many as before rows were suspected.
const POSTS_WHILE_REFUSED: usize = 6;

fn world_of(order: Order, rows: usize) -> (World, Vec<String>) {
    let mut world = World::new(order);
    world.settings.batch_rows_max = 500;
    world.state().source.page_max = 1_000;
    world.patience = Patience::ONCE;
    let uuids = world.add(rows);
    (world, uuids)
}

fn is_doubtful(refusal: &Outcome) -> bool {
    matches!(refusal, Outcome::Break | Outcome::Refuse(500))
}

/// A tick after the other, at the pace that each asks for, until one is good. Returns how many there were.
async fn until_good(world: &mut World) -> usize {
    for ticks in 1..100 {
        match world.start().tick().await.expect("nobody kills it") {
            Ok(_) => return ticks,
            Err(trouble) => tokio::time::sleep(trouble.pause().max(MINUTE)).await,
        }
    }
    panic!("the feed does not heal");
}

/// Fault: one row of 31 is refused, and every body that it is in, in eight ways, as too large and as a bad payload. Shows: one run ships the other 30 whole and once, its stub, one dead letter.
#[tokio::test(start_paused = true)]
async fn fm_52_a_poisoned_row_is_set_aside_and_the_other_thirty_arrive_in_one_run() {
    let sizes = [Outcome::Refuse(413), Outcome::RefuseAs(400, "InvalidPayload")];
    for refusal in POISONED.into_iter().chain(sizes) {
        for place in [0, 13, 30] {
            let (mut world, uuids) = world_of(Order::Insertion, 31);
            world.poison(&uuids[place], refusal.clone());
            let drained = world.start().good().await;
            assert_eq!((drained.dead_letters, drained.shipped), (1, 31), "{refusal:?} at {place}");
            world.each_event_has_one_row();
            world.only_these_are_stubs(&[&uuids[place]]);
            world.is_sound();
            let totals = world.checkpoint().totals;
            assert_eq!((totals.dead_letters, totals.stubs), (1, 1));
            assert_eq!(world.checkpoint().slot.in_doubt().batches > 0, is_doubtful(&refusal), "{refusal:?}");
        }
    }
}

/// Fault: every body is refused, the empty array too, in each of the eight ways, for ten ticks. Shows: no dead letter, in no tick more POSTs of rows or doubts than before, and everything whole afterwards.
#[tokio::test(start_paused = true)]
async fn fm_52_while_everything_is_refused_no_row_is_blamed() {
    for refusal in POISONED {
        let (mut world, _) = world_of(Order::Insertion, 31);
        world.refuses_everything(refusal.clone());
        for _ in 0..10 {
            let posts = world.state().sink.posts.len();
            let trouble = world.start().bad().await;
            let posted = world.state().sink.posts.len() - posts;
            let most = if is_doubtful(&refusal) { POSTS_WHILE_REFUSED } else { 1 };
            assert!(posted <= most, "{refusal:?}: {posted} POSTs in a tick");
            assert!(world.letters().is_empty(), "{refusal:?}");
            tokio::time::sleep(trouble.pause().max(TTL)).await;
        }
        world.heal();
        until_good(&mut world).await;
        world.each_event_has_one_row();
        world.only_these_are_stubs(&[]);
        world.is_sound();
    }
}

/// Fault: a destination that takes an empty array and no row, whatever is in it, for six ticks. Shows: a handful of POSTs a tick, a person is asked for, no dead letter is left, and everything is whole afterwards.
#[tokio::test(start_paused = true)]
async fn fm_52_a_destination_that_takes_no_row_at_all_costs_a_handful_of_posts() {
    for refusal in POISONED.into_iter().chain([Outcome::Refuse(413)]) {
        let (mut world, _) = world_of(Order::Insertion, 500);
        let told = refusal.clone();
        world.on_post(move |_| told.clone());
        for _ in 0..6 {
            let posts = world.state().sink.posts.len();
            let trouble = world.start().bad().await;
            let posted = world.state().sink.posts.len() - posts;
            assert!(posted <= 15, "{refusal:?}: {posted} POSTs in a tick");
            assert!(matches!(trouble, Trouble::Undeliverable { .. } | Trouble::CoolingDown { .. }), "{trouble}");
            assert!(world.letters().is_empty(), "{refusal:?}");
            tokio::time::sleep(trouble.pause().max(TTL)).await;
        }
        world.heal();
        until_good(&mut world).await;
        world.each_event_has_one_row();
        world.only_these_are_stubs(&[]);
        world.is_sound();
    }
}

/// Fault: a row is refused alone once, or while the empty array is refused too, then taken. Shows: it is whole, no dead letter.
#[tokio::test(start_paused = true)]
async fn fm_52_one_refusal_is_no_poison() {
    for refusal in POISONED {
        let (mut world, _) = world_of(Order::Insertion, 1);
        world.posts_end([refusal.clone()]);
        world.start().good().await;
        world.only_these_are_stubs(&[]);
        world.each_event_has_one_row();
        if !is_doubtful(&refusal) {
            continue;
        }
        // Refused while the destination is away, twice; and once more for itself.
        let (mut world, _) = world_of(Order::Insertion, 1);
        world.posts_end([refusal.clone(), refusal.clone(), refusal.clone()]);
        let mut away = [true, false, true, false, false].into_iter();
        world.on_probe(move || if away.next() == Some(true) { Outcome::Refuse(503) } else { Outcome::Accept });
        world.start().good().await;
        world.only_these_are_stubs(&[]);
        world.each_event_has_one_row();
    }
}

/// Fault: the stub of a row is refused for a text in one of its columns. Shows: a smaller stub stands for it, down to uuid and timestamp; one letter.
#[tokio::test(start_paused = true)]
async fn fm_52_a_stub_that_is_refused_gives_way_to_a_smaller_one() {
    for (offence, kept) in [("actor-one", Some("view")), ("view", None)] {
        for refusal in [Outcome::RefuseAs(403, ""), Outcome::Break] {
            let (mut world, _) = world_of(Order::Insertion, 3);
            let poison = world.add_at(-5, 0, r#","actor_uuid":"actor-one","action":"view""#);
            world.state().sink.offence = Some((offence, refusal.clone()));
            let drained = world.start().good().await;
            assert_eq!((drained.dead_letters, world.letters().len()), (1, 1), "{refusal:?}");
            world.each_event_has_one_row();
            world.only_these_are_stubs(&[&poison]);
            let stub = world.state().sink.bodies.iter().rfind(|body| body.contains("stub")).cloned().expect("a stub");
            let stub: serde_json::Value = serde_json::from_str(&stub).expect("JSON");
            assert_eq!((stub[0]["action"].as_str(), stub[0]["actor_uuid"].as_str()), (kept, None));
            assert_eq!(stub[0]["uuid_s"].as_str(), Some(poison.as_str()));
        }
    }
}

/// Fault: kill -9 in a POST, then one row of that batch is refused in each of the eight ways. Shows: recovery sets it aside alone, every copy is traced.
#[tokio::test(start_paused = true)]
async fn fm_52_a_poisoned_row_of_a_batch_in_doubt_is_set_aside_by_recovery() {
    for order in BOTH {
        for refusal in POISONED {
            let (mut world, uuids) = world_of(order, 31);
            dies_in_its_post(&mut world, false).await;
            world.poison(&uuids[7], refusal.clone());
            let drained = world.start().good().await;
            assert_eq!((drained.dead_letters, world.letters().len()), (1, 1), "{refusal:?}");
            world.each_event_has_one_row();
            world.only_these_are_stubs(&[&uuids[7]]);
            world.is_sound();
        }
    }
}

/// Fault: two rows of twelve are refused while each doubt is looked up in the table before the next POST. Shows: from run to run everything arrives once, two stubs, no copy.
#[tokio::test(start_paused = true)]
async fn fm_52_a_verifying_agent_gets_past_poisoned_rows_from_run_to_run() {
    for refusal in POISONED {
        let (mut world, uuids) = world_of(Order::Insertion, 12);
        world.settings.verify_after = Some(15 * MINUTE);
        world.beats_hourly();
        for poison in [&uuids[3], &uuids[8]] {
            world.poison(poison, refusal.clone());
        }
        let ticks = until_good(&mut world).await;
        assert!(ticks <= 40, "{refusal:?}: {ticks} runs");
        world.each_event_has_one_row();
        world.only_these_are_stubs(&[&uuids[3], &uuids[8]]);
        assert_eq!(world.letters().len(), 2, "{refusal:?}");
        world.is_sound();
    }
}

/// Fault: a row alone in its batch is posted by a verifying agent and refused twice, hours apart, then taken. Shows: it is whole, no dead letter.
#[tokio::test(start_paused = true)]
async fn fm_52_two_refusals_hours_apart_set_no_row_aside() {
    let (mut world, _) = world_of(Order::Insertion, 1);
    world.settings.verify_after = Some(15 * MINUTE);
    world.beats_hourly();
    world.posts_end([Outcome::Break, Outcome::Refuse(500)]);
    for _ in 0..2 {
        assert!(matches!(world.start().bad().await, Trouble::Verifying { .. }));
        tokio::time::sleep(HOUR).await;
    }
    world.start().good().await;
    world.each_event_has_one_row();
    world.only_these_are_stubs(&[]);
}

/// Fault: 100 poisoned rows among 1,000, refused for certain and by a 500. Shows: one run ships 900 rows and 100 stubs, within the POSTs and minutes that the README states.
#[tokio::test(start_paused = true)]
async fn fm_52_a_hundred_poisoned_rows_among_a_thousand_have_their_bound() {
    for (refusal, minutes_max) in [(Outcome::RefuseAs(403, ""), 4), (Outcome::Refuse(500), 18)] {
        for every in [true, false] {
            let (mut world, uuids) = world_of(Order::Insertion, 1_000);
            // Spread evenly, which splits most, or in one run.
            let marked: Vec<&String> =
                if every { uuids.iter().step_by(10).collect() } else { uuids[450..550].iter().collect() };
            marked.iter().for_each(|uuid| world.poison(uuid, refusal.clone()));
            let begun = Instant::now();
            let drained = world.start().good().await;
            let (posts, took) = (world.state().sink.posts.len(), begun.elapsed());
            let probes = world.state().sink.probes;
            println!("{refusal:?}, spread {every}: {posts} POSTs, {probes} empty arrays, {} s", took.as_secs());
            assert_eq!((drained.shipped, drained.dead_letters), (1_000, 100));
            world.each_event_has_one_row();
            world.only_these_are_stubs(&marked);
            world.every_copy_is_traceable();
            assert!(posts <= 1_200 && probes <= 800, "{posts} POSTs, {probes} empty arrays");
            assert!(took <= minutes_max * MINUTE, "{took:?}");
        }
    }
}

/// Fault: a firewall adds up what it finds in a body, and refuses three of ten odd rows together, but no one of them. Shows: all are whole, no dead letter.
#[tokio::test(start_paused = true)]
async fn fm_52_rows_that_are_refused_only_together_are_all_whole() {
    for refusal in POISONED {
        let (mut world, uuids) = world_of(Order::Insertion, 100);
        let odd: Vec<String> = uuids.iter().step_by(10).cloned().collect();
        world.on_post(move |rows| {
            let sum = rows.iter().filter(|uuid| odd.contains(uuid)).count();
            if sum > 2 { refusal.clone() } else { Outcome::Accept }
        });
        world.start().good().await;
        world.each_event_has_one_row();
        world.only_these_are_stubs(&[]);
    }
}

/// Fault: every POST of one row is left without an answer until its deadline. Shows: `once` sets it aside in one run, although that takes longer than its patience.
#[tokio::test(start_paused = true)]
async fn fm_52_a_row_that_is_never_answered_is_set_aside_in_one_run() {
    let (mut world, uuids) = world_of(Order::Insertion, 4);
    world.poison(&uuids[2], Outcome::Hang { accepted: false });
    let begun = Instant::now();
    let drained = world.start().good().await;
    assert_eq!(drained.dead_letters, 1);
    assert!(begun.elapsed() < 10 * MINUTE, "{:?}", begun.elapsed());
    world.each_event_has_one_row();
    world.only_these_are_stubs(&[&uuids[2]]);
    assert!(ledger(&world).values().any(|attempt| *attempt > 3), "each POST without an answer is an attempt");
    world.is_sound();
}

/// Fault: the destination is away in the middle of a suspicion, for longer than a run waits. Shows: the run ends as trouble, the next one sets aside the poisoned row alone.
#[tokio::test(start_paused = true)]
async fn fm_52_an_outage_in_the_middle_of_a_suspicion_blames_nobody() {
    for refusal in POISONED {
        let (mut world, uuids) = world_of(Order::Insertion, 8);
        world.poison(&uuids[5], refusal.clone());
        let state = world.state.clone();
        let down = async {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let mut state = state.lock().expect("no panic");
            state.sink.hook = Some(Box::new(|_| Outcome::Refuse(503)));
            state.sink.probe_hook = Some(Box::new(|| Outcome::Refuse(503)));
        };
        let mut process = world.start();
        let (outcome, ()) = tokio::join!(process.tick(), down);
        assert!(matches!(outcome, Some(Err(_) | Ok(_))), "{outcome:?}");
        world.heal();
        until_good(&mut world).await;
        world.only_these_are_stubs(&[&uuids[5]]);
        world.nothing_is_lost();
        world.is_sound();
    }
}
