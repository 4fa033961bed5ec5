//! kill -9 at every wait of the replay of a dead letter: the letter outlives it, and every copy has its attempt.

use crate::log::Log;
use crate::recovery::dies_in_its_post;
use crate::scenes::refuses_the_third;
use crate::sink::Outcome;
use crate::source::{BOTH, Order};
use crate::store::TTL;
use crate::world::{MINUTE, World};
use opship::agent::{Replayed, Trouble};
use opship::flow::EventId;
use opship::store::dead_letters::DeadLetter;

/// A stub of this event is in the table, its original is a letter, and what refused it is repaired.
async fn with_a_letter(order: Order) -> (World, String, DeadLetter) {
    let mut world = World::new(order);
    let poison = refuses_the_third(&world, Outcome::Refuse(413));
    world.start().good().await;
    world.cure();
    let key = format!("dead-letters/default/itemusages/{}.json", EventId::of_uuid(&poison));
    let letter = serde_json::from_slice(&world.state().store.blobs[&key].bytes).expect("a letter");
    assert_eq!(world.rows_of(&poison), 1, "the stub");
    (world, poison, letter)
}

/// Fresh processes, one after the other, until the letter's row is accepted. Returns its attempt.
async fn replay_until_accepted(world: &mut World, letter: &DeadLetter) -> u32 {
    for _ in 0..60 {
        world.crashes += 1;
        match world.start().replay(letter).await.expect("nobody kills it") {
            Ok(Replayed::Accepted { attempt }) => return attempt,
            Ok(other) => panic!("{other:?}"),
            Err(trouble) => tokio::time::sleep(trouble.pause().max(MINUTE)).await,
        }
    }
    panic!("the letter is never accepted");
}

async fn is_settled(world: &mut World) {
    world.add(2);
    world.start().good().await;
    world.nothing_is_lost();
    world.is_sound();
    assert!(world.open_intent().is_none(), "an intent is left open");
}

#[tokio::test(start_paused = true)]
async fn a_replay_killed_at_any_wait_can_be_repeated_and_every_copy_has_its_attempt() {
    for order in BOTH {
        let (mut kills, mut accepted_unseen) = (0, 0);
        for k in 1.. {
            let (mut world, poison, letter) = with_a_letter(order).await;
            let mut process = world.start();
            process.link.die_at_wait(k);
            world.crashes += 1;
            if process.replay(&letter).await.is_some() {
                assert_eq!(world.rows_of(&poison), 2);
                is_settled(&mut world).await;
                break;
            }
            kills += 1;
            let shipped = world.rows_of(&poison);
            accepted_unseen += usize::from(shipped == 2);
            world.every_copy_is_traceable();
            tokio::time::sleep(TTL).await;
            let attempt = replay_until_accepted(&mut world, &letter).await;
            assert_eq!(world.rows_of(&poison), shipped + 1, "killed at wait {k}");
            assert!(attempt as usize > shipped && attempt <= 3, "attempt {attempt} after {shipped} rows, wait {k}");
            is_settled(&mut world).await;
        }
        assert!(
            kills >= 8 && accepted_unseen >= 2,
            "{order:?}: {kills} kills, {accepted_unseen} of them after acceptance"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_writes_the_position_before_its_post_and_behind_it_and_no_more() {
    let (mut world, poison, letter) = with_a_letter(Order::EventTime).await;
    let mut process = world.start();
    world.crashes += 1;
    let key = world.checkpoint_key();
    let puts = |world: &World| world.state().store.puts.get(&key).copied().unwrap_or_default();
    let before = puts(&world);
    let replayed = process.replay(&letter).await.expect("nobody kills it");
    assert!(matches!(replayed, Ok(Replayed::Accepted { attempt: 2 })), "{replayed:?}");
    assert_eq!((puts(&world) - before, world.rows_of(&poison), world.checkpoint().slot.in_doubt().rows), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_refused_for_certain_leaves_position_doubts_and_totals_as_they_were() {
    for order in BOTH {
        for refusal in [Outcome::Refuse(413), Outcome::RefuseAs(400, "InvalidPayload"), Outcome::Refuse(404)] {
            let (mut world, poison, letter) = with_a_letter(order).await;
            let before = world.checkpoint();
            world.posts_end([refusal.clone(), refusal.clone()]);
            let outcome = world.start().replay(&letter).await.expect("alive");
            let is_refused = matches!(outcome, Ok(Replayed::Refused { .. }) | Err(Trouble::Undeliverable { .. }));
            assert!(is_refused, "{refusal:?}: {outcome:?}");
            let after = world.checkpoint();
            assert_eq!(
                (after.slot.intent(), after.slot.in_doubt(), after.totals),
                (None, before.slot.in_doubt(), before.totals)
            );
            assert_eq!((after.cursor, after.sweep_mark), (before.cursor, before.sweep_mark));
            assert_eq!(world.rows_of(&poison), 1, "no second stub");
            world.heal();
            assert_eq!(replay_until_accepted(&mut world, &letter).await, 2);
            is_settled(&mut world).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_lost_reply_is_settled_by_the_next_process() {
    for order in BOTH {
        let (mut world, poison, letter) = with_a_letter(order).await;
        world.posts_end([Outcome::LoseReply, Outcome::Refuse(413), Outcome::Refuse(413)]);
        let outcome = world.start().replay(&letter).await.expect("alive");
        assert!(matches!(outcome, Ok(Replayed::Refused { .. })), "{outcome:?}");
        assert_eq!(world.rows_of(&poison), 2, "the lost reply was a yes");
        world.crashes += 1;
        world.every_copy_is_traceable();
        world.heal();
        tokio::time::sleep(TTL).await;
        is_settled(&mut world).await;
        assert_eq!(replay_until_accepted(&mut world, &letter).await, 4);
        is_settled(&mut world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_letter_of_another_event_than_it_names_is_not_shipped() {
    let (mut world, poison, letter) = with_a_letter(BOTH[0]).await;
    let foreign = |change: fn(&mut DeadLetter)| {
        let mut letter = letter.clone();
        change(&mut letter);
        letter
    };
    for letter in [
        foreign(|letter| letter.event = r#"{"uuid":"OTHER","timestamp":"2026-11-22T10:00:00Z"}"#.into()),
        foreign(|letter| letter.hour = "2026112100".into()),
        foreign(|letter| letter.event = "no event".into()),
        foreign(|letter| letter.event = r#"{"log_source":"auditevents","uuid_s":"EVENT000002"}"#.into()),
    ] {
        let outcome = world.start().replay(&letter).await.expect("alive");
        assert!(matches!(outcome, Ok(Replayed::Foreign)), "{outcome:?}");
    }
    assert_eq!(world.rows_of(&poison), 1);
    is_settled(&mut world).await;
}

/// Fault: kill -9 in a POST, then the destination refuses the row. Shows: the letter that recovery keeps says which answer, and it is counted and told like any other.
#[tokio::test(start_paused = true)]
async fn a_row_that_is_refused_in_recovery_is_a_letter_with_the_answer_counted_and_told() {
    let (mut world, log) = (World::new(Order::Insertion), Log::listen());
    let poison = world.add(1).remove(0);
    dies_in_its_post(&mut world, false).await;
    world.poison(&poison, Outcome::RefuseAs(400, "InvalidPayload"));
    let drained = world.start().good().await;
    let totals = world.checkpoint().totals;
    assert_eq!((drained.dead_letters, totals.dead_letters, totals.stubs), (1, 1, 1));
    assert_eq!(log.said("its stub is shipped, the original is a dead letter").len(), 1);
    let state = world.state();
    let letters: Vec<_> = state.store.blobs.iter().filter(|(name, _)| name.starts_with("dead-letters/")).collect();
    let letter: DeadLetter = serde_json::from_slice(&letters[0].1.bytes).expect("a letter");
    assert_eq!(letters.len(), 1);
    assert!(letter.why.contains("answered 400 InvalidPayload"), "{}", letter.why);
}
