//! Processes side by side on one checkpoint, and one of them killed and replaced again and again.

use crate::agent::wait_until;
use crate::world::{Kind, World, history};
use opship::sim::{Fault, Options, Target, What};
use std::time::Duration;

both_stores! {
    two_processes_on_one_checkpoint_lose_nothing_while_one_is_killed_and_replaced
    three_processes_on_one_checkpoint_lose_nothing_while_one_is_killed_and_replaced
}

const SOON: Duration = Duration::from_secs(60);
const KILLS: usize = 3;
/// Rows of a batch at most, hence copies per doubt.
const BATCH_ROWS: u64 = 25;

async fn two_processes_on_one_checkpoint_lose_nothing_while_one_is_killed_and_replaced(kind: Kind) {
    side_by_side(kind, 2).await;
}

async fn three_processes_on_one_checkpoint_lose_nothing_while_one_is_killed_and_replaced(kind: Kind) {
    side_by_side(kind, 3).await;
}

async fn side_by_side(kind: Kind, processes: usize) {
    let span = Duration::from_secs(3600);
    let live = Options { live_per_second: 30.0, rate_limits: false, history_span: span, ..history(600) };
    let mut world = World::behind_a_gate(kind, Options { late_share: 0.1, late_max: span, ..live }).await;
    world.set("OPSHIP_DELIVERY__BATCH_ROWS_MAX", BATCH_ROWS);
    // Slow answers: a process is seldom killed between deliveries.
    world.fault(Fault::new(Target::Ingestion, What::Delay { ms: 100 }));
    let mut agents: Vec<_> = (0..processes).map(|_| world.run()).collect();
    for _ in 0..KILLS {
        let rows = world.sim.world().compare().rows;
        wait_until("rows arrive", SOON, || world.sim.world().compare().rows > rows + 100).await;
        agents.remove(0).kill().await;
        world.an_hour_passes();
        agents.push(world.run());
    }
    let rows = world.sim.world().compare().rows;
    wait_until("rows arrive after the last kill", SOON, || world.sim.world().compare().rows > rows + 100).await;
    assert!(agents.iter_mut().all(|agent| !agent.has_ended()), "a process ended by itself");

    world.sim.world().stop_generator();
    wait_until("everything arrives", SOON, || world.sim.world().compare().lost == 0).await;
    for ended in futures_util::future::join_all(agents.into_iter().map(crate::agent::Agent::stop)).await {
        ended.exits(0);
    }
    world.an_hour_passes();
    world.once().await.exits(0);
    let audit = world.audit().await;
    println!("{processes} processes, {kind:?}, {KILLS} killed: {} doubts, {:?}", audit.doubts(), audit.compared);
    audit.assert_sound();
    for feed in &audit.feeds {
        let (doubts, copies) = (feed.checkpoint.slot.in_doubt().batches, feed.copies);
        assert!(copies <= doubts * BATCH_ROWS, "{copies} copies of a feed after {doubts} doubts");
    }
}
