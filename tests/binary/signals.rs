//! A process that is asked to end twice.

use crate::agent::wait_until;
use crate::world::{World, history};
use opship::sim::{Fault, Service, Target, What};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Fault: a second SIGTERM while the POST of each feed hangs. Shows: exit 143 at once, the next run loses nothing and every copy is traced.
#[tokio::test]
async fn fm_38_a_second_signal_ends_the_process_at_once() {
    let world = World::file(history(60)).await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).times(3));
    let agent = world.start(&["once"]);
    let unanswered = || {
        let journal = world.sim.world().journal();
        journal.iter().filter(|entry| entry.service == Service::Ingestion && entry.status.is_none()).count()
    };
    wait_until("the POST of each feed hangs", SOON, || unanswered() == 3).await;
    agent.terminate();
    wait_until("the first signal is heard", SOON, || agent.stderr().contains("asked to end")).await;
    let ended = agent.stop().await.exits(143);
    assert!(ended.took < Duration::from_secs(10), "{:?}: an open POST would have 15 s", ended.took);
    world.once().await.exits(0);
    assert_eq!(world.assert_nothing_lost_and_copies_traceable().await, 60);
}
