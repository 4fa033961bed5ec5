//! Memory does not depend on the backlog.

use crate::agent::{Agent, Ran, wait_until};
use crate::world::{World, history};
use std::time::Duration;

const MEBI: u64 = 1024;
const SLOW: Duration = Duration::from_secs(160);

/// Waits for the end; returns the most memory that the process had, in KiB.
pub async fn peak(mut agent: Agent) -> (u64, Ran) {
    let status = format!("/proc/{}/status", agent.id());
    let mut peak = 0;
    wait_until("the run ends", SLOW, || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(peak);
        agent.has_ended()
    })
    .await;
    (peak, agent.end().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_and_its_late_sweep_fit_in_64_mib() {
    let mut world = World::file(opship::sim::Options { keep_rows: false, ..history(60_000) }).await;
    world.sweep_late_each_second();
    let (first, ran) = peak(world.start(&["once"])).await;
    ran.exits(0);
    let (second, ran) = peak(world.start(&["once"])).await;
    ran.exits(0);
    world.assert_exactly_once();
    println!("VmHWM: {first} KiB with the backlog, {second} KiB with the late sweep");
    assert!(first > 1_000 && first < 64 * MEBI, "{first} KiB");
    assert!(second > 1_000 && second < 64 * MEBI, "{second} KiB");
}
