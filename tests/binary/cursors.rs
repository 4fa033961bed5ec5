//! A source whose cursors and pages misbehave: no loss, no hang.

use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::{BodyKind, Fault, Options, PageFault, Refusal, Target, What, When};
use std::time::Duration;

fn page(fault: PageFault) -> Fault {
    Fault::new(Target::Events, What::Page(fault))
}

fn refused(body: BodyKind) -> Fault {
    Fault::new(Target::Events, What::Status(Refusal::status(400))).only(body)
}

/// A world whose feeds have pages left and events behind them: about 1,250, 750 and 500 in the streams.
async fn world() -> World {
    World::file(history(2_500)).await
}

/// Runs while the fault is in force (whatever the exit code, it has to end), then without it: everything arrived once.
async fn survives(fault: Fault) -> Option<i32> {
    let world = world().await;
    world.once().await.exits(0);
    for stream in Stream::ALL {
        (0..50).for_each(|_| _ = world.sim.world().append(stream, When::Late(Duration::from_secs(2))));
    }
    world.fault(fault);
    let ran = world.once().await;
    assert!(ran.took < Duration::from_secs(100), "{:?}\n{}", ran.took, ran.stderr);
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
    ran.code
}

/// The same from the first page of an empty position on.
async fn survives_from_the_start(fault: Fault) -> Option<i32> {
    let world = world().await;
    world.fault(fault);
    let ran = world.once().await;
    assert!(ran.took < Duration::from_secs(100), "{:?}\n{}", ran.took, ran.stderr);
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
    ran.code
}

#[tokio::test]
async fn a_cursor_rejected_once_starts_again_without_loss_or_copies() {
    assert_eq!(survives(refused(BodyKind::Cursor).times(1)).await, Some(0));
}

#[tokio::test]
async fn cursors_rejected_for_ever_do_not_stop_a_feed() {
    let (running, first) =
        tokio::join!(survives(refused(BodyKind::Cursor)), survives_from_the_start(refused(BodyKind::Cursor)));
    // What fits a page arrives without cursors; of more the source gives the first page only.
    assert_eq!((running, first), (Some(0), Some(1)));
}

#[tokio::test]
async fn cursors_that_are_new_each_time_and_always_rejected_are_not_followed_for_long() {
    let world = World::file(Options { cursor_lifetime: Some(Duration::ZERO), ..history(2_500) }).await;
    let ran = world.once().await.exits(1);
    let asked = world.sim.world().journal().len();
    assert!(asked < 100, "{asked} requests in {:?}\n{}", ran.took, ran.stdout);
    assert_eq!(world.sim.world().missing(Stream::ItemUsages).len(), 0, "{}", ran.stdout);
    assert_eq!(world.heartbeats(), 0);
}

#[tokio::test]
async fn a_repeated_cursor_ends_the_cursor_part_of_a_run() {
    let (bait, empty) =
        tokio::join!(survives(page(PageFault::SameCursor)), survives_from_the_start(page(PageFault::SameCursorEmpty)));
    assert_eq!((bait, empty), (Some(1), Some(1)));
}

#[tokio::test]
async fn has_more_for_ever_ends_at_the_repeated_cursor() {
    let (running, first) =
        tokio::join!(survives(page(PageFault::MoreForever)), survives_from_the_start(page(PageFault::MoreForever)));
    assert_eq!((running, first), (Some(1), Some(1)), "a sweep cannot tell where its window ends");
}

#[tokio::test]
async fn empty_pages_with_has_more_are_walked_through() {
    assert_eq!(survives_from_the_start(page(PageFault::EmptyPage).times(7)).await, Some(0));
}

#[tokio::test]
async fn empty_pages_for_ever_end_with_the_longest_duration_of_a_run() {
    // Without the service's limits: what is left of them is no business of this test.
    let world = World::file(Options { rate_limits: false, ..history(2_500) }).await;
    world.fault(page(PageFault::EmptyPage));
    let ran = world.cli(&["once", "--max-duration", "3s"]).await.exits(0).says(&["more pending"]);
    assert!(ran.took < Duration::from_secs(25), "{:?}", ran.took);
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
}

#[tokio::test]
async fn endless_empty_pages_do_not_keep_the_sweep_from_the_feed() {
    let mut world = World::file(history(500)).await;
    world.set("OPSHIP_ACCOUNTS__DEFAULT__STREAMS", r#"["auditevents"]"#);
    world.once().await.exits(0);
    let late = world.sim.world().append(Stream::AuditEvents, When::Late(Duration::from_secs(2)));
    world.fault(page(PageFault::EmptyPage).only(BodyKind::Cursor));
    world.once().await.exits(1).says(&["pages without an event"]);
    world.row(&late);
    assert_eq!((world.heartbeats(), world.health().last().unwrap().as_str()), (1, "source_failed"));
}

#[tokio::test]
async fn answers_that_are_no_page_are_asked_for_again() {
    let truncated = Fault::new(Target::Events, What::TruncatedBody).times(2);
    let (no_cursor, no_more, torn) = tokio::join!(
        survives(page(PageFault::MissingCursor).times(2)),
        survives_from_the_start(page(PageFault::MissingHasMore).times(2)),
        survives_from_the_start(truncated)
    );
    assert_eq!((no_cursor, no_more, torn), (Some(0), Some(0), Some(0)));
}

#[tokio::test]
async fn answers_that_are_never_a_page_fail_the_run() {
    let (no_cursor, torn) = tokio::join!(
        survives(page(PageFault::MissingCursor)),
        survives_from_the_start(Fault::new(Target::Events, What::TruncatedBody))
    );
    assert_eq!((no_cursor, torn), (Some(1), Some(1)));
}

#[tokio::test]
async fn a_refused_start_halts_with_the_remedy_and_is_asked_once() {
    let world = world().await;
    world.fault(refused(BodyKind::Reset));
    world.once().await.exits(1).says(&["answered 400", "check schedule.lookback"]);
    let journal = world.sim.world().journal();
    let resets = journal.iter().filter(|entry| entry.body.contains("start_time") && !entry.body.contains("end_time"));
    assert_eq!(resets.count(), 3, "one for each feed, never a reset after a reset");
    assert_eq!(world.heartbeats(), 0);
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
}
