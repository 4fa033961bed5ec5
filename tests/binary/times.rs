//! Events that become visible late.

use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::{Options, Order, When};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn late_events_are_found_by_the_sweeps_counted_and_shipped_once() {
    let mut world = World::file(Options { order: Order::EventTime, ..history(300) }).await;
    world.sweep_late_each_second();
    // In event order a cursor that stands at now never comes by what is older.
    Stream::ALL.into_iter().for_each(|stream| _ = world.sim.world().append(stream, When::Now));
    world.once().await.exits(0);
    let before = world.sim.world().compare();
    assert_eq!((before.lost, before.duplicated), (0, 0));
    let minute = Duration::from_secs(60);
    for stream in Stream::ALL {
        for late in [3, 10, 2 * 60, 30 * 60] {
            world.sim.world().append(stream, When::Late(minute * late));
        }
    }
    // The late sweep is due a second of the source's clock after the last one.
    let started = Instant::now();
    while world.sim.world().compare().lost > 0 && started.elapsed() < SOON {
        world.once().await.exits(0);
    }
    world.once().await.exits(0);
    world.assert_exactly_once();
    for stream in Stream::ALL {
        assert_eq!(world.checkpoint(stream).await.totals.late, 4, "{stream}");
    }
}
