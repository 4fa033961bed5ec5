//! A delivery whose end nobody sees: cut off by SIGTERM, or left by a process that was killed.

use crate::agent::wait_until;
use crate::world::{Kind, World, history};
use opship::sim::{Fault, Refusal, Target, What};
use std::time::Duration;

both_stores! {
    fm_38_a_post_that_hangs_is_cut_after_sigterm_and_the_next_run_settles_it
}

const SOON: Duration = Duration::from_secs(60);
/// An open POST may go on for so long once the process is asked to end.
const OPEN_POST: Duration = Duration::from_secs(15);
const DRAIN_MAX: Duration = Duration::from_secs(25);

/// Fault: SIGTERM while a POST hangs after acceptance. Shows: exit 0 after 15 to 25 s, nothing lost, one batch of copies in the ledger.
async fn fm_38_a_post_that_hangs_is_cut_after_sigterm_and_the_next_run_settles_it(kind: Kind) {
    let world = World::behind_a_gate(kind, history(90)).await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).times(1));
    let agent = world.run();
    wait_until("a POST hangs", SOON, || world.unanswered() == 1).await;
    let ended = agent.stop().await.exits(0);
    assert!(ended.took >= OPEN_POST && ended.took < DRAIN_MAX, "{:?}", ended.took);
    assert_eq!(world.sim.world().compare().duplicated, 0);

    world.an_hour_passes();
    world.once().await.exits(0);
    let audit = world.audit().await;
    audit.assert_sound();
    // The first batch of one of the feeds: 45, 27 or 18 rows.
    let copies = audit.compared.duplicated;
    assert!([45, 27, 18].contains(&copies), "{copies} copies of one batch in doubt");
}

#[tokio::test]
async fn the_intent_of_a_killed_process_is_respected_until_its_time_is_over() {
    let world = World::behind_a_gate(Kind::Blob, history(60)).await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).times(3));
    let agent = world.start(&["once"]);
    wait_until("the POST of each feed hangs", SOON, || world.unanswered() == 3).await;
    agent.kill().await;
    let next = world.start(&["once"]);
    let stands_by = || next.stderr().matches("standing by").count() >= 2 * 3;
    wait_until("each feed has looked twice", SOON, stands_by).await;
    assert_eq!(world.posts(), 3, "nothing is posted while another process may be at it");
    world.an_hour_passes();
    next.end().await.exits(0);
    assert_eq!(world.assert_nothing_lost_and_copies_traceable().await, 60);
}

/// Fault: `once --max-duration` is over while 1Password answers 503, and while it answers nothing yet. Shows: both say what they waited for, with exit 1; neither is `ok`, and the next run ships what is left.
#[tokio::test]
async fn fm_69_a_run_that_is_cut_says_so() {
    let world = World::file(history(30)).await;
    world.fault(Fault::new(Target::Events, What::Status(Refusal::status(503))));
    let args = ["once", "--max-duration", "2s", "--output", "json"];
    let ran = world.cli(&args).await.exits(1).says(&["\"ok\":false", "\"cut\":true", "answered 503"]);
    assert!(!ran.stdout.contains("\"ok\":true"), "{}", ran.stdout);
    world.sim.world().clear_faults();
    world.fault(Fault::new(Target::Events, What::Delay { ms: 60_000 }));
    let ran = world.cli(&args).await.exits(1).says(&["\"ok\":false", "\"cut\":true", "the first answer"]);
    assert!(!ran.stdout.contains("\"ok\":true"), "{}", ran.stdout);
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
}
