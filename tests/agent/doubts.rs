//! Scenes for the crash points: batches that a dead process left in doubt, and a store that fails.

use crate::points::Scene;
use crate::recovery::{dies_in_its_post, is_killed_posting};
use crate::scenes::{H, ticked, with_late_events};
use crate::sink::Outcome;
use crate::source::{Reply, status};
use crate::store::{Fault, Op, TTL};
use crate::world::{CHECKPOINT, HOUR, MINUTE, World};
use opship::source::PageRequest;
use std::time::Duration;

const TAKEN: Outcome = Outcome::Hang { accepted: true };

/// The store knows of every process that it is gone.
fn all_are_gone(world: &World) {
    world.state().store.gone = (1..100).map(|n| format!("owner-{n}")).collect();
}

/// The next reader of the checkpoint finds these bytes, or none.
fn tamper(world: &World, bytes: Option<&[u8]>) {
    let mut state = world.state();
    state.seen.forget_last();
    match bytes {
        Some(bytes) => state.store.set(CHECKPOINT, bytes.to_vec()),
        None => _ = state.store.blobs.remove(CHECKPOINT),
    }
}

fn without_the_fallback_copy(world: &World) {
    world.state().store.blobs.retain(|name, _| !name.ends_with("prev.json"));
}

/// Half a frame at the end of each segment.
fn tear_the_ledger(world: &World) {
    let mut state = world.state();
    let segments: Vec<_> = state.store.blobs.iter().filter(|(name, _)| name.starts_with("ledger/")).collect();
    let torn: Vec<_> =
        segments.into_iter().map(|(name, blob)| (name.clone(), [&*blob.bytes, b"\x20\0\0\0half"].concat())).collect();
    assert!(!torn.is_empty());
    torn.into_iter().for_each(|(name, bytes)| state.store.set(&name, bytes));
}

pub(crate) const DOUBTS: &[Scene] = &[
    Scene::of("a batch in doubt that was accepted", |world| {
        Box::pin(async {
            world.add(3);
            dies_in_its_post(world, true).await;
        })
    }),
    Scene::of("a batch in doubt that was not accepted", |world| {
        Box::pin(async {
            world.add(5);
            dies_in_its_post(world, false).await;
            world.add(2);
        })
    }),
    Scene::of("a second attempt in doubt", |world| {
        Box::pin(async {
            world.add(5);
            dies_in_its_post(world, true).await;
            dies_in_its_post(world, true).await;
        })
    }),
    Scene::of("a third attempt that waits out its cool-down", |world| {
        Box::pin(async {
            world.add(4);
            all_are_gone(world);
            is_killed_posting(world, [TAKEN]).await;
            is_killed_posting(world, [TAKEN]).await;
        })
    }),
    Scene::of("a batch of the late sweep in doubt", |world| {
        Box::pin(async {
            with_late_events(world, 3).await;
            dies_in_its_post(world, true).await;
        })
    }),
    Scene::of("a batch of the overlap sweep in doubt, its cursor rejected", |world| {
        Box::pin(async {
            ticked(world, 3).await;
            tokio::time::sleep(MINUTE).await;
            (1..4).for_each(|n| _ = world.add_at(-n * 70_000, 0, ""));
            dies_in_its_post(world, true).await;
            world.state().source.reject_cursors();
        })
    }),
    Scene::of("a part of a split in doubt", |world| {
        Box::pin(async {
            world.add(4);
            is_killed_posting(world, [Outcome::Refuse(413), TAKEN]).await;
            tokio::time::sleep(TTL).await;
        })
    }),
    Scene::of("the second part of a split in doubt", |world| {
        Box::pin(async {
            world.add(4);
            is_killed_posting(world, [Outcome::Refuse(413), Outcome::Accept, TAKEN]).await;
            tokio::time::sleep(TTL).await;
        })
    }),
    Scene::of("a part of a batch in doubt is in doubt itself", |world| {
        Box::pin(async {
            world.add(4);
            is_killed_posting(world, [Outcome::LoseReply, Outcome::LoseReply, TAKEN]).await;
            tokio::time::sleep(TTL).await;
        })
    }),
    Scene::of("a batch in doubt that is partly recorded", |world| {
        Box::pin(async {
            (0..3).for_each(|hour| _ = world.add_at(-hour * H, 0, ""));
            let mut appends = 0;
            world.on_store(move |op, _| {
                appends += u32::from(op == Op::Append);
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
            assert!(world.open_intent().is_some());
            tokio::time::sleep(TTL).await;
        })
    }),
    Scene::of("a reply is lost again in recovery", |world| {
        Box::pin(async {
            world.add(4);
            dies_in_its_post(world, true).await;
            world.posts_end([Outcome::LoseReply]);
        })
    }),
    Scene::of("the batch in doubt no longer fits", |world| {
        Box::pin(async {
            world.add(4);
            dies_in_its_post(world, true).await;
            world.state().sink.rows_max = 1;
        })
    }),
    Scene::of("the payload of a batch in doubt has changed", |world| {
        Box::pin(async {
            world.add(4);
            dies_in_its_post(world, true).await;
            world.state().source.events.iter_mut().for_each(|event| event.more = r#","action":"changed""#.into());
        })
    }),
    Scene::of("events of a batch in doubt are gone", |world| {
        Box::pin(async {
            world.add(4);
            dies_in_its_post(world, false).await;
            world.state().source.forget(1);
        })
    })
    .unwatched(),
    Scene::of("a batch in doubt whose page is rejected", |world| {
        Box::pin(async {
            world.add(4);
            dies_in_its_post(world, true).await;
            world.on_page(|request| matches!(request, PageRequest::Reset { .. }).then(|| Reply::Fail(status(400))));
        })
    }),
    Scene::of("a batch in doubt whose page is over the body cap", |world| {
        Box::pin(async {
            world.add(4);
            dies_in_its_post(world, true).await;
            world.state().source.limit_max = 100;
        })
    }),
    Scene::of("a batch in doubt whose events have no readable time", |world| {
        Box::pin(async {
            world.add(3);
            world.state().source.events.iter_mut().for_each(|event| event.is_odd = true);
            dies_in_its_post(world, true).await;
        })
    }),
    Scene::of("a batch in doubt whose events lie far apart", |world| {
        Box::pin(async {
            world.state().source.page_max = 3;
            (0..3).for_each(|n| _ = world.add_at(-n * 20 * H, 0, ""));
            dies_in_its_post(world, true).await;
            (0..8).for_each(|n| _ = world.add_at(-n * 5 * H - 600_000, 0, ""));
            world.on_page(|request| matches!(request, PageRequest::Reset { .. }).then(|| Reply::Fail(status(400))));
        })
    })
    .late(),
    Scene::of("a row of a batch in doubt is refused", |world| {
        Box::pin(async {
            let uuids = world.add(3);
            dies_in_its_post(world, true).await;
            world.poison(&uuids[1], Outcome::Refuse(413));
        })
    }),
    Scene::of("an owner that is known to be gone", |world| {
        Box::pin(async {
            world.add(5);
            all_are_gone(world);
            is_killed_posting(world, [TAKEN]).await;
        })
    }),
    Scene::of("an owner that may live: standing by until its intent ends", |world| {
        Box::pin(async {
            world.add(3);
            world.standby_max = Duration::from_secs(130);
            is_killed_posting(world, [TAKEN]).await;
        })
    }),
    Scene::of("a position reset by an operator over a batch in doubt", |world| {
        Box::pin(async {
            world.add(4);
            dies_in_its_post(world, true).await;
            let mut operator = world.start();
            operator.feed.as_mut().expect("alive").reset(false).await.expect("reset");
            tokio::time::sleep(TTL).await;
        })
    }),
];

pub(crate) const STORE: &[Scene] = &[
    Scene::of("the reply to the write of an intent is lost", |world| {
        Box::pin(async {
            world.add(3);
            world.fault_at(2, Op::Put, CHECKPOINT, Fault::LoseReply);
        })
    }),
    Scene::of("the reply to the commit is lost", |world| {
        Box::pin(async {
            world.add(3);
            world.fault_at(3, Op::Put, CHECKPOINT, Fault::LoseReply);
        })
    }),
    Scene::of("the first write of a checkpoint fails", |world| {
        Box::pin(async {
            world.add(3);
            world.fault_at(1, Op::Put, CHECKPOINT, Fault::Fail);
        })
    }),
    Scene::of("the commit fails once", |world| {
        Box::pin(async {
            world.add(5);
            world.fault_at(3, Op::Put, CHECKPOINT, Fault::Fail);
        })
    }),
    Scene::of("the reply to an append is lost", |world| {
        Box::pin(async {
            world.add(5);
            world.fault_at(1, Op::Append, "ledger/", Fault::LoseReply);
        })
    }),
    Scene::of("an append fails", |world| {
        Box::pin(async {
            world.add(5);
            world.fault_at(2, Op::Append, "ledger/", Fault::Fail);
        })
    }),
    Scene::of("an append is torn and cut off", |world| {
        Box::pin(async {
            world.state().store.can_cut = true;
            world.add(5);
            world.fault_at(2, Op::Append, "ledger/", Fault::Tear);
        })
    }),
    Scene::of("an append is torn and left behind in a new part", |world| {
        Box::pin(async {
            world.add(5);
            world.fault_at(2, Op::Append, "ledger/", Fault::Tear);
        })
    }),
    Scene::of("a segment ends in half a frame that can be cut off", |world| {
        Box::pin(async {
            ticked(world, 3).await;
            world.state().store.can_cut = true;
            tear_the_ledger(world);
            world.add(5);
        })
    }),
    Scene::of("a segment ends in half a frame for good", |world| {
        Box::pin(async {
            ticked(world, 3).await;
            tear_the_ledger(world);
            world.add(5);
        })
    }),
    Scene::of("a store that is down for a while at the commit", |world| {
        Box::pin(async {
            world.add(3);
            let mut until = None;
            world.on_store(move |op, _| {
                let now = tokio::time::Instant::now();
                let ends = until.or((op == Op::Append).then(|| now + Duration::from_secs(40)));
                until = ends;
                ends.is_some_and(|ends| now < ends).then_some(Fault::Fail)
            });
        })
    }),
    Scene::of("the ledger cannot be read once", |world| {
        Box::pin(async {
            ticked(world, 3).await;
            world.add(5);
            world.fault_at(1, Op::Read, "ledger/", Fault::Fail);
        })
    })
    .idle(),
    Scene::of("a corrupt checkpoint with its fallback copy", |world| {
        Box::pin(async {
            ticked(world, 3).await;
            tokio::time::sleep(11 * MINUTE).await;
            ticked(world, 3).await;
            tamper(world, Some(b"{\"torn"));
            world.add(3);
        })
    }),
    Scene::of("a corrupt checkpoint without its fallback copy", |world| {
        Box::pin(async {
            ticked(world, 6).await;
            tamper(world, Some(b"{\"torn"));
            without_the_fallback_copy(world);
            world.add(3);
        })
    }),
    Scene::of("a missing checkpoint with its fallback copy", |world| {
        Box::pin(async {
            ticked(world, 6).await;
            tamper(world, None);
            world.add(3);
        })
    }),
    Scene::of("a missing checkpoint without its fallback copy", |world| {
        Box::pin(async {
            ticked(world, 6).await;
            tamper(world, None);
            without_the_fallback_copy(world);
            world.add(3);
        })
    }),
    Scene::of("an older checkpoint over the ledger", |world| {
        Box::pin(async {
            ticked(world, 4).await;
            let older = world.state().store.blobs[CHECKPOINT].bytes.clone();
            ticked(world, 4).await;
            tamper(world, Some(&older));
            world.add(3);
        })
    }),
    Scene::of("a run of known pages without a position", |world| {
        Box::pin(async {
            ticked(world, 23).await;
            world.state().source.page_max = 1;
            tamper(world, None);
            without_the_fallback_copy(world);
            world.add(1);
        })
    }),
    Scene::of("the fallback copy is renewed", |world| {
        Box::pin(async {
            ticked(world, 3).await;
            tokio::time::sleep(20 * MINUTE).await;
            world.add(5);
        })
    }),
    Scene::of("old segments are retired", |world| {
        Box::pin(async {
            (0..3).for_each(|hour| _ = world.add_at(-hour * H, 0, ""));
            world.start().good().await;
            tokio::time::sleep(24 * 125 * HOUR).await;
            world.add(3);
        })
    }),
    Scene::of("the store's clock is ahead of an open intent", |world| {
        Box::pin(async {
            world.add(4);
            world.state().store.clock_error = 300;
            is_killed_posting(world, [TAKEN]).await;
        })
    }),
    Scene::of("the store's clock is behind an open intent", |world| {
        Box::pin(async {
            world.add(4);
            world.state().store.clock_error = -100;
            is_killed_posting(world, [TAKEN]).await;
            tokio::time::sleep(2 * TTL).await;
        })
    }),
];
