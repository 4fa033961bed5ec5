//! kill -9 at each wait of a tick: recovery makes it good.

use crate::source::{BOTH, Order};
use crate::store::TTL;
use crate::world::{HOUR, World};

/// A first tick over a small backlog, an hour, a second tick with late finds.
async fn scene(order: Order) -> World {
    let world = World::new(order);
    world.state().source.page_max = 5;
    world.add(9);
    (0..3).for_each(|hour| _ = world.add_at(-hour * 3_600_000, 0, ""));
    world
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_of_the_first_tick_loses_nothing() {
    for order in BOTH {
        for k in 1.. {
            let mut world = scene(order).await;
            let crashed = world.crash_at(k).await;
            world.is_sound();
            tokio::time::sleep(TTL).await;
            world.start().good().await;
            world.nothing_is_lost();
            world.is_sound();
            if !crashed {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_of_a_tick_with_a_late_sweep_loses_nothing() {
    for order in BOTH {
        for k in 1.. {
            let mut world = scene(order).await;
            let mut process = world.start();
            process.good().await;
            tokio::time::sleep(2 * HOUR).await;
            world.add(5);
            (0..6).for_each(|n| _ = world.add_at(-3_000_000 - n * 1_000, 0, ""));
            process.link.die_at_wait(k);
            let crashed = process.tick().await.is_none();
            world.crashes += u64::from(crashed);
            world.is_sound();
            tokio::time::sleep(TTL).await;
            world.start().good().await;
            world.nothing_is_lost();
            world.is_sound();
            if !crashed {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_recovery_of_a_crash_loses_nothing() {
    for order in BOTH {
        for first in (8..40).step_by(3) {
            for second in 1..24 {
                let mut world = scene(order).await;
                world.crash_at(first).await;
                tokio::time::sleep(TTL).await;
                world.crash_at(second).await;
                world.is_sound();
                tokio::time::sleep(TTL).await;
                world.start().good().await;
                world.nothing_is_lost();
                world.is_sound();
            }
        }
    }
}
