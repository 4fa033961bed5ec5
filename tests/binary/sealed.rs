//! A ledger that takes no appends under the real program: an immutability policy on blobs, a segment that may not grow on files.

use crate::agent::wait_until;
use crate::disk::full_after;
use crate::world::{Kind, World, history};
use axum::http::request::Parts;
use opship::sim::{Fault, Options, Target, What};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const STARTS: usize = 4;
const POLICY: (u16, &str) = (409, "BlobImmutableDueToPolicy");

fn is_append_to_the_ledger(request: &Parts) -> bool {
    request.uri.path().contains("ledger") && request.uri.query().is_some_and(|query| query.contains("comp=appendblock"))
}

/// A world whose ledger takes no appends while the switch is on. Blobs can be created all the same, as such policies have it.
async fn sealable() -> (World, Arc<AtomicBool>) {
    // Two hours, so that a batch has few segments.
    let span = Duration::from_secs(7200);
    let world = World::behind_a_gate(Kind::Blob, Options { history_span: span, ..history(90) }).await;
    let sealed = Arc::new(AtomicBool::new(false));
    let is_on = sealed.clone();
    world
        .gate
        .rules(move |request| (is_on.load(Ordering::SeqCst) && is_append_to_the_ledger(request)).then_some(POLICY));
    (world, sealed)
}

/// Fault: the container has an immutability policy: segments can be made, but not appended to. Shows: four starts exit 1 with the remedy and ship no row; without the policy all arrives once.
#[tokio::test]
async fn fm_54_a_container_with_an_immutability_policy_is_found_before_anything_is_posted() {
    let (world, sealed) = sealable().await;
    sealed.store(true, Ordering::SeqCst);
    for _ in 0..STARTS {
        world.once().await.exits(1).says(&["immutability policy"]);
    }
    assert_eq!(world.sim.world().compare().rows, 0);
    sealed.store(false, Ordering::SeqCst);
    world.once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: the policy comes while three batches are under way, and the process is killed. Shows: four starts post none of them again; without the policy each is posted once more, with its trace.
#[tokio::test]
async fn fm_54_a_batch_that_cannot_be_recorded_is_posted_by_no_start() {
    let (world, sealed) = sealable().await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).times(3));
    let agent = world.start(&["once"]);
    wait_until("three batches are under way", SOON, || world.unanswered() == 3).await;
    sealed.store(true, Ordering::SeqCst);
    agent.kill().await;
    assert_eq!(world.sim.world().compare().rows, 90);
    for _ in 0..STARTS {
        world.an_hour_passes();
        world.once().await.exits(1).says(&["immutability policy"]);
    }
    assert_eq!(world.sim.world().compare().rows, 90, "none again");
    sealed.store(false, Ordering::SeqCst);
    world.an_hour_passes();
    world.once().await.exits(0);
    let audit = world.audit().await;
    audit.assert_sound();
    assert_eq!(audit.compared.duplicated, 90, "one batch of each feed, once");
}

/// Fault: the disk takes the empty frame but not the ids (a limit on the size of files). Shows: the batch that did not fit any more was not posted, nor is any by later starts; with room all arrives once.
#[tokio::test]
async fn fm_54_room_for_the_ids_is_taken_before_they_are_posted() {
    let span = Duration::from_secs(1500);
    // So many that the half of a feed that lies in one hour, and so in one segment, does not fit either.
    let mut world = World::file(Options { history_span: span, ..history(2400) }).await;
    world.set("OPSHIP_LOG__LEVEL", "error").set("OPSHIP_DELIVERY__BATCH_ROWS_MAX", 25);
    let mut rows = Vec::new();
    for _ in 0..STARTS {
        world.by_script(&full_after(6144), &["once"]).await.exits(1).says(&["free space"]);
        rows.push(world.sim.world().compare());
    }
    let first = rows[0].rows;
    assert!(first > 0 && rows.iter().all(|seen| seen.rows == first && seen.duplicated <= 25 * 3), "{rows:?}");
    world.once().await.exits(0);
    let audit = world.audit().await;
    audit.assert_sound();
    assert!(audit.compared.duplicated <= 25 * 3, "a batch of each feed at most, once: {:?}", audit.compared);
}
