//! Processes that end in the middle, and two at once.

use crate::agent::wait_until;
use crate::world::{Kind, World, history};
use opship::flow::Stream;
use opship::sim::{Fault, Service, Target, What, When};
use std::sync::atomic::Ordering;
use std::time::Duration;

both_stores! {
    sigterm_finishes_the_open_post_and_the_next_run_loses_nothing
    ten_kills_with_an_open_post_lose_nothing_and_every_copy_is_in_the_ledger
    two_runs_on_one_checkpoint_lose_nothing_and_copies_are_attributable
}

const SOON: Duration = Duration::from_secs(60);
const DRAIN_MAX: Duration = Duration::from_secs(25);

impl World {
    pub fn posts(&self) -> usize {
        self.sim.world().journal().iter().filter(|entry| entry.service == Service::Ingestion).count()
    }

    /// POSTs that got no answer.
    fn unanswered(&self) -> usize {
        let journal = self.sim.world().journal();
        journal.iter().filter(|entry| entry.service == Service::Ingestion && entry.status.is_none()).count()
    }

    async fn until_everything_arrived(&self) {
        self.sim.world().stop_generator();
        wait_until("everything arrives", SOON, || self.sim.world().compare().lost == 0).await;
    }
}

async fn sigterm_finishes_the_open_post_and_the_next_run_loses_nothing(kind: Kind) {
    let world = World::of_one_process(kind, history(300)).await;
    world.sim.world().set_live(20.0);

    let first = world.run();
    // A heartbeat is a POST too, but one that nobody misses.
    wait_until("the history and a heartbeat arrive", SOON, || world.rows().len() > 300 && world.heartbeats() == 1)
        .await;
    world.fault(Fault::new(Target::Ingestion, What::Delay { ms: 3_000 }).times(1));
    let posts = world.posts();
    wait_until("a slow POST is open", SOON, || world.posts() > posts).await;
    let ended = first.stop().await.exits(0);
    assert!(ended.took < DRAIN_MAX, "{:?}", ended.took);
    assert_eq!(world.sim.world().compare().duplicated, 0);

    let second = world.run();
    let rows = world.rows().len();
    wait_until("the second run ships", SOON, || world.rows().len() > rows && world.heartbeats() == 2).await;
    assert_eq!(world.sim.world().compare().duplicated, 0, "a POST that was finished is not in doubt");
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).times(1));
    wait_until("a POST hangs", SOON, || world.unanswered() == 1).await;
    let ended = second.stop().await.exits(0);
    assert!(ended.took < DRAIN_MAX, "{:?}", ended.took);

    let third = world.run();
    world.until_everything_arrived().await;
    third.stop().await.exits(0);
    world.once().await.exits(0);
    let copies = world.assert_nothing_lost_and_copies_traceable().await;
    assert!(copies > 0 && copies <= 500, "{copies} copies of one batch in doubt");
}

async fn ten_kills_with_an_open_post_lose_nothing_and_every_copy_is_in_the_ledger(kind: Kind) {
    const KILLS: usize = 10;
    let mut world = World::of_one_process(kind, history(0)).await;
    world.set("OPSHIP_ACCOUNTS__DEFAULT__STREAMS", r#"["auditevents"]"#);
    for kill in 1..=KILLS {
        (0..40).for_each(|_| _ = world.sim.world().append(Stream::AuditEvents, When::Late(Duration::from_secs(5))));
        // From the second time on, the first POST settles the batch in doubt.
        let from = if kill == 1 { 1 } else { 2 };
        world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).from(from).times(1));
        let agent = world.start(&["once"]);
        wait_until("a POST hangs", SOON, || world.unanswered() == kill).await;
        agent.kill().await;
        world.sim.world().clear_faults();
    }
    world.once().await.exits(0);
    let copies = world.assert_nothing_lost_and_copies_traceable().await;
    assert!(copies > 0 && copies <= (KILLS * 500) as u64, "{copies} copies after {KILLS} kills");
    let in_doubt = world.checkpoint(Stream::AuditEvents).await.in_doubt;
    assert_eq!((in_doubt.batches, in_doubt.gone), (KILLS as u64, 0), "{in_doubt:?}");
    world.once().await.exits(0).says(&["0 shipped"]);
}

#[tokio::test]
async fn the_intent_of_a_killed_process_is_respected_until_its_time_is_over() {
    let world = World::of_one_process(Kind::Blob, history(60)).await;
    world.is_later.store(false, Ordering::Relaxed);
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).times(3));
    let agent = world.start(&["once"]);
    wait_until("the POST of each feed hangs", SOON, || world.unanswered() == 3).await;
    agent.kill().await;
    let next = world.start(&["once"]);
    let stands_by = || next.stderr().matches("standing by").count() >= 2 * 3;
    wait_until("each feed has looked twice", SOON, stands_by).await;
    assert_eq!(world.posts(), 3, "nothing is posted while another process may be at it");
    world.is_later.store(true, Ordering::Relaxed);
    next.end().await.exits(0);
    assert_eq!(world.assert_nothing_lost_and_copies_traceable().await, 60);
}

async fn two_runs_on_one_checkpoint_lose_nothing_and_copies_are_attributable(kind: Kind) {
    let world = World::new(kind, history(600)).await;
    world.sim.world().set_live(30.0);
    let (mut one, mut two) = (world.run(), world.run());
    wait_until("both ship for a while", SOON, || world.rows().len() > 600 + 200).await;
    assert!(!one.has_ended() && !two.has_ended());
    world.until_everything_arrived().await;
    let (one, two) = tokio::join!(one.stop(), two.stop());
    one.exits(0);
    two.exits(0);
    world.once().await.exits(0);
    world.assert_nothing_lost_and_copies_traceable().await;
}
