//! kill -9 around the first POST: what is recorded then, and what its recovery posts. Every other point: points.rs.

use crate::log::Log;
use crate::oracle::{frames, ledger};
use crate::source::{BOTH, Order};
use crate::store::TTL;
use crate::world::World;
use opship::flow::EventId;
use std::collections::HashSet;

/// A first tick over a small backlog.
async fn scene(order: Order) -> World {
    let world = World::new(order);
    world.state().source.page_max = 5;
    world.add(9);
    (0..3).for_each(|hour| _ = world.add_at(-hour * 3_600_000, 0, ""));
    world
}

/// Fault: kill -9 at each wait between the first page and the first POST. Shows: nothing was recorded, nothing is lost, no row twice.
#[tokio::test(start_paused = true)]
async fn fm_06_a_crash_between_page_and_post_leaves_no_trace() {
    for order in BOTH {
        let mut crashes_with_a_page = 0;
        for k in 1.. {
            let mut world = scene(order).await;
            assert!(world.crash_at(k).await);
            if world.state().sink.begun > 0 {
                break;
            }
            crashes_with_a_page += usize::from(!world.requests().is_empty());
            assert!(ledger(&world).is_empty() && world.rows() == 0);
            tokio::time::sleep(TTL).await;
            world.start().good().await;
            world.each_event_has_one_row();
            world.is_sound();
        }
        assert!(crashes_with_a_page >= 4, "{crashes_with_a_page} crashes");
    }
}

/// Fault: kill -9 at each wait between a 204 and its record. Shows: that batch alone again under its id with attempt 2, told and counted.
#[tokio::test(start_paused = true)]
async fn fm_07_a_204_without_a_checkpoint_is_recovered_under_the_same_batch_id() {
    for order in BOTH {
        let mut crashes = 0;
        for k in 1.. {
            let mut world = scene(order).await;
            if !world.crash_at(k).await {
                break;
            }
            let Some(intent) = world.open_intent() else { continue };
            let shipped: HashSet<EventId> = world.state().sink.rows.iter().map(|uuid| EventId::of_uuid(uuid)).collect();
            let (keys, recorded) = (intent.keys(), ledger(&world));
            let is_open = |key: &opship::flow::EventKey| !recorded.contains_key(&(key.hour.to_string(), key.id));
            if !keys.iter().all(|key| shipped.contains(&key.id)) || !keys.iter().any(is_open) {
                continue;
            }
            crashes += 1;
            let (again, log) = (keys.iter().filter(|key| is_open(key)).count(), Log::listen());
            tokio::time::sleep(TTL).await;
            world.start().good().await;
            let told = log.said("a batch is in doubt: posting it again");
            assert_eq!((told.len(), &told[0]["batch"]), (1, &intent.batch_id().into()));
            world.nothing_is_lost();
            world.is_sound();
            assert_eq!(world.rows(), world.state().source.events.len() + again, "the batch in doubt alone");
            let of_batch: Vec<_> =
                frames(&world).into_iter().filter(|frame| frame.batch_id == intent.batch_id()).collect();
            let twice: usize = of_batch.iter().filter(|frame| frame.attempt == 2).map(|frame| frame.ids.len()).sum();
            assert_eq!(twice, keys.len(), "each id of the batch has a frame with attempt 2");
            let in_doubt = world.checkpoint().slot.in_doubt().clone();
            assert_eq!((in_doubt.batches, in_doubt.rows), (1, again as u64));
            assert_eq!((in_doubt.last[0].batch_id.as_str(), in_doubt.last[0].attempt), (intent.batch_id(), 2));
        }
        assert!(crashes >= 4, "{crashes} crashes");
    }
}
