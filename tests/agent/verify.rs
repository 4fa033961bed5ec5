//! `delivery.on_in_doubt = "verify"`: the table is asked before a batch in doubt is posted again.

use crate::oracle::ledger;
use crate::recovery::dies_in_its_post;
use crate::sink::Outcome;
use crate::source::{BOTH, Order};
use crate::world::{HOUR, MINUTE, World};
use opship::agent::Trouble;
use opship::flow::intent::INTENT_TTL;
use opship::flow::redact::Redact;
use std::time::Duration;

const AFTER: Duration = Duration::from_secs(15 * 60);

pub(crate) fn verifying(order: Order) -> World {
    let mut world = World::new(order);
    world.settings.verify_after = Some(AFTER);
    {
        let mut state = world.state();
        let now = state.now();
        state.sink.shows_after = Duration::from_secs(10 * 60);
        state.sink.beat(now);
    }
    world
}

fn copies_of_any(world: &World) -> Vec<usize> {
    world.uuids().iter().map(|uuid| world.rows_of(uuid)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_reply_was_lost_is_looked_up_and_not_posted_again() {
    for order in BOTH {
        let mut world = verifying(order);
        world.add(3);
        world.posts_end([Outcome::LoseReply]);
        let mut process = world.start();
        let Trouble::Verifying { left } = process.bad().await else { panic!("the feed waits for the table") };
        assert_eq!(left, INTENT_TTL + AFTER);
        world.heal();
        tokio::time::sleep(5 * MINUTE).await;
        assert!(matches!(process.bad().await, Trouble::Verifying { .. }), "rows may not show yet");
        tokio::time::sleep(13 * MINUTE).await;
        process.good().await;
        assert_eq!((copies_of_any(&world), world.state().sink.posts.len()), (vec![1; 3], 1));
        assert_eq!(ledger(&world).len(), 3, "what the table has was accepted");
        assert!(world.open_intent().is_none());
        world.nothing_is_lost();
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_never_arrived_is_posted_again_once() {
    let mut world = verifying(Order::Insertion);
    world.add(3);
    dies_in_its_post(&mut world, false).await;
    tokio::time::sleep(HOUR).await;
    world.start().good().await;
    assert_eq!((copies_of_any(&world), world.state().sink.posts.len()), (vec![1; 3], 2));
    world.nothing_is_lost();
}

#[tokio::test(start_paused = true)]
async fn only_what_the_table_lacks_is_posted_again() {
    let mut world = verifying(Order::Insertion);
    let uuids = world.add(4);
    dies_in_its_post(&mut world, true).await;
    world.state().sink.ingested.retain(|(uuid, _)| *uuid != uuids[2]);
    tokio::time::sleep(HOUR).await;
    world.start().good().await;
    assert_eq!(world.state().sink.posts.last(), Some(&vec![uuids[2].clone()]));
    assert!(world.state().sink.posts.len() == 2 && world.rows_of(&uuids[0]) == 1);
    world.nothing_is_lost();
}

/// Fault: the reply to a POST is lost; the rows name an account that is not the token's: a pseudonym, or one of the event's own.
/// Shows: what arrived is found all the same, and nothing is posted twice.
#[tokio::test(start_paused = true)]
async fn rows_that_name_another_account_are_found_too() {
    let pseudonym = Redact::new(&["account_uuid".into()], Some(b"a key".to_vec())).expect("a column");
    for (redact, own) in [(pseudonym, "ACCOUNT"), (Redact::default(), "CHILD")] {
        let mut world = verifying(Order::Insertion);
        world.settings.redact = redact;
        (0..3).for_each(|n| _ = world.add_at(-n, 0, &format!(r#","account_uuid":"{own}""#)));
        world.posts_end([Outcome::LoseReply]);
        world.start().bad().await;
        tokio::time::sleep(HOUR).await;
        world.start().good().await;
        assert_eq!((copies_of_any(&world), world.state().sink.posts.len()), (vec![1; 3], 1));
        let body = world.state().sink.bodies[0].clone();
        assert!(body.contains("account_uuid") && !body.contains("\"ACCOUNT\""), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_process_waits_no_longer_than_the_first_would_have() {
    let mut world = verifying(Order::EventTime);
    world.add(3);
    dies_in_its_post(&mut world, true).await;
    for _ in 0..3 {
        assert!(matches!(world.start().bad().await, Trouble::Verifying { .. }));
        tokio::time::sleep(4 * MINUTE).await;
    }
    tokio::time::sleep(4 * MINUTE).await;
    world.start().good().await;
    assert_eq!(copies_of_any(&world), [1; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_stays_silent_for_half_an_hour_is_not_waited_for() {
    let mut world = verifying(Order::Insertion);
    world.add(3);
    world.posts_end([Outcome::LoseReply]);
    let mut process = world.start();
    process.bad().await;
    world.heal();
    world.state().sink.is_silent = true;
    tokio::time::sleep(18 * MINUTE).await;
    for _ in 0..10 {
        assert!(matches!(process.bad().await, Trouble::Unverifiable { .. }));
        tokio::time::sleep(3 * MINUTE).await;
    }
    process.good().await;
    assert_eq!(copies_of_any(&world), [2; 3], "sent again unseen");
    assert!(ledger(&world).values().all(|attempt| *attempt > 1), "each copy is traceable");
    world.nothing_is_lost();
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_wait_a_verifying_agent_makes_no_copy() {
    for order in BOTH {
        let mut points = 0;
        for k in 1.. {
            let mut world = verifying(order);
            world.add(9);
            world.posts_end([Outcome::Accept, Outcome::LoseReply]);
            if !world.crash_at(k).await {
                break;
            }
            points = k;
            world.heal();
            tokio::time::sleep(HOUR).await;
            world.start().good().await;
            assert_eq!(copies_of_any(&world), [1; 9], "killed at wait {k}");
            world.nothing_is_lost();
        }
        assert!(points > 20, "{points} waits");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_breaks_every_connection_is_halved_though_each_doubt_is_looked_up() {
    let mut world = verifying(Order::Insertion);
    world.add(4);
    world.on_post(|rows| if rows.len() > 1 { Outcome::Break } else { Outcome::Accept });
    let mut process = world.start();
    for _ in 0..6 {
        let done = process.tick().await.expect("no crash");
        if done.is_ok() {
            break;
        }
        tokio::time::sleep(HOUR).await;
    }
    process.good().await;
    assert_eq!(copies_of_any(&world), [1; 4]);
    world.nothing_is_lost();
}

/// Fault: the reply to a POST is lost, and the right to read is limited meanwhile: answers without rows. Shows: the batch waits as behind a silent table, and is found when it can be seen again; hidden for half an hour it is sent again, traceably.
#[tokio::test(start_paused = true)]
async fn fm_59_a_table_that_shows_nothing_says_nothing_of_a_batch_in_doubt() {
    for is_lasting in [false, true] {
        let mut world = verifying(Order::Insertion);
        world.add(3);
        world.posts_end([Outcome::LoseReply]);
        let mut process = world.start();
        process.bad().await;
        world.heal();
        world.state().sink.is_hidden = true;
        tokio::time::sleep(18 * MINUTE).await;
        for _ in 0..10 {
            let Trouble::Unverifiable { why, .. } = process.bad().await else { panic!("it cannot be seen") };
            assert!(why.contains("shows no row of this account of the last day, not even a heartbeat"), "{why}");
            tokio::time::sleep(3 * MINUTE).await;
        }
        world.state().sink.is_hidden = is_lasting;
        process.good().await;
        let copies = if is_lasting { 2 } else { 1 };
        assert_eq!(copies_of_any(&world), vec![copies; 3]);
        assert!(ledger(&world).values().all(|attempt| *attempt as usize >= copies), "each copy is traceable");
        world.nothing_is_lost();
    }
}

/// Fault: the rows of a batch in doubt never arrived, and the last heartbeat is older than a day. Shows: no row of before speaks for the table.
#[tokio::test(start_paused = true)]
async fn fm_59_a_heartbeat_of_two_days_ago_is_no_witness() {
    let mut world = verifying(Order::Insertion);
    tokio::time::sleep(48 * HOUR).await;
    world.add(3);
    dies_in_its_post(&mut world, false).await;
    tokio::time::sleep(HOUR).await;
    let mut process = world.start();
    assert!(matches!(process.bad().await, Trouble::Unverifiable { .. }));
    {
        let mut state = world.state();
        let now = state.now();
        state.sink.beat(now);
    }
    process.good().await;
    assert_eq!((copies_of_any(&world), world.state().sink.posts.len()), (vec![1; 3], 2));
}
