//! The proof can fail: a bug planted in the program's own paths is seen by the seeded runs.

use crate::health::{TWO, halted, health};
use crate::seeds::complaint;
use crate::sink::Outcome;
use crate::source::Order;
use crate::verify::verifying;
use crate::world::{MINUTE, World};
use opship::flow::planted::{Bug, plant};
use std::cell::Cell;
use std::sync::{Mutex, Once, PoisonError};

const SEEDS_MAX: u64 = 1_000;
/// Those that a feed's tick can show.
const OF_A_TICK: &[Bug] = &[
    Bug::SkipLedger,
    Bug::RecordBeforeDeliver,
    Bug::CommitBeforeDeliver,
    Bug::LoseLastBatch,
    Bug::PostWithoutIntent,
    Bug::NoCompareAndSwap,
    Bug::RetireByEventTime,
    Bug::CollapseIds,
    Bug::SweepFromNow,
    Bug::LateSweepFromNow,
    Bug::MarkBeforeLastPage,
    Bug::ResetToNow,
    Bug::ResetToWatermark,
    Bug::BelieveTheFuture,
    Bug::EachBatchMoves,
    Bug::ForgetIntent,
    Bug::FailedReadIsGone,
    Bug::RecoverWithoutWindow,
    Bug::PartsForgetDoubt,
    Bug::SameAttemptAgain,
    Bug::ForgetDoubts,
    Bug::LostReplyIsNo,
    Bug::LostReplyIsYes,
    Bug::LoseSecondHalf,
    Bug::SplitMovesEarly,
    Bug::KeepStaleLedger,
    Bug::ShipRepeats,
    Bug::TakePageWithoutItems,
    Bug::BelieveEveryDate,
    Bug::SetAsideAtOnce,
    Bug::SkipEmptyFrame,
    Bug::IgnoreOwner,
];

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// From now on the panics of this thread are expected: they say nothing.
fn expect_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                usual(info)
            }
        }));
    });
    IS_QUIET.set(true);
}

#[test]
fn each_planted_bug_is_caught_within_a_thousand_seeds() {
    let bugs = Mutex::new(OF_A_TICK.iter().copied());
    let next = || bugs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let missed = Mutex::new(Vec::new());
    let look = || {
        expect_panics();
        while let Some(bug) = next() {
            let caught = (0..SEEDS_MAX).find_map(|seed| complaint(seed, bug).map(|said| (seed, said)));
            match caught {
                Some((seed, said)) => println!("{bug:?}: seed {seed}: {}", said.get(..120).unwrap_or(&said)),
                None => missed.lock().unwrap_or_else(PoisonError::into_inner).push(bug),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(look)));
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// Heartbeats are no part of a feed's tick: this bug shows in the account's health alone.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_in_trouble_is_caught() {
    for (bug, rows) in [(None, 1), (Some(Bug::HeartbeatInTrouble), 2)] {
        let world = World::new(Order::Insertion);
        let health = health(&world, &TWO);
        let date = world.state().date();
        plant(bug);
        health.report(TWO[1], Err(&halted())).await;
        health.report(TWO[0], Ok(date)).await;
        plant(None);
        assert_eq!(world.state().sink.health.len(), rows, "{bug:?}: the trouble, and with the bug a heartbeat");
    }
}

/// A right that is limited while a batch is in doubt: with the bug the table counts as empty, and what had arrived is posted again.
#[tokio::test(start_paused = true)]
async fn trust_in_an_empty_table_is_caught() {
    for (bug, copies) in [(None, 1), (Some(Bug::TrustEmptyTable), 2)] {
        let mut world = verifying(Order::Insertion);
        let uuid = world.add(1).remove(0);
        world.posts_end([Outcome::LoseReply]);
        let mut process = world.start();
        process.bad().await;
        world.heal();
        world.state().sink.is_hidden = true;
        tokio::time::sleep(18 * MINUTE).await;
        plant(bug);
        _ = process.tick().await;
        plant(None);
        assert_eq!(world.rows_of(&uuid), copies, "{bug:?}");
    }
}
