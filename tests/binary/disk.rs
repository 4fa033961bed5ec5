//! Disks that are full or read-only under the real program.

use crate::agent::wait_until;
use crate::world::{World, history};
use opship::sim::Service;
use std::fs::File;
use std::time::Duration;

/// No file may grow beyond so many bytes, as if the disk were full: works for every user, root included, without any mount.
pub fn full_after(bytes: usize) -> String {
    // A profile for the coverage would meet the limit too, and say so on stdout.
    format!("trap '' XFSZ; ulimit -f {}; export LLVM_PROFILE_FILE=/dev/null; exec \"$@\"", bytes / 1024)
}

/// Fault: no room for the intent. Shows: exit 1 naming the file, no POST at all, the position unmoved; with room again everything arrives once.
#[tokio::test]
async fn fm_26_without_room_for_the_intent_nothing_is_posted() {
    let mut world = World::file(history(1500)).await;
    // The log goes to a file too.
    world.set("OPSHIP_LOG__LEVEL", "error");
    world.by_script(&full_after(4096), &["once"]).await.exits(1).says(&["free space"]);
    let posts = world.sim.world().journal().into_iter().filter(|entry| entry.service == Service::Ingestion);
    assert!(posts.count() <= 1, "the trouble row alone");
    assert_eq!(world.rows().len(), 0);
    world.once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: the folder of the position is on a read-only file system. Shows: exit 1 or 64 naming it, nothing is read or posted.
#[tokio::test]
async fn fm_26_a_read_only_folder_is_refused_before_anything_is_read() {
    let mut world = World::file(history(30)).await;
    world.set("OPSHIP_STORE__PATH", "/sys/kernel/opship");
    let ran = world.once().await.says(&["/sys/kernel"]);
    assert!(matches!(ran.code, Some(1 | 64)), "{ran:?}");
    assert_eq!(world.sim.world().journal().len(), 0);
    let state = world.home.path().join("state").display().to_string();
    world.set("OPSHIP_STORE__PATH", state).once().await.exits(0);
    world.assert_exactly_once();
}

#[tokio::test]
async fn a_locked_store_is_told_at_once_with_the_process_that_holds_it_and_not_blamed_on_the_disk() {
    let mut world = World::file(history(30)).await;
    world.set("OPSHIP_LOG__LEVEL", "warn").once().await.exits(0);
    // Another process to the program: this one.
    let held = File::open(world.home.path().join("state/~lock")).unwrap();
    held.lock().unwrap();
    let holder = format!("process {}", std::process::id());
    let mut waits = world.start(&["once"]);
    let told = || waits.stderr().contains(&holder) && waits.stderr().contains("at_most_s");
    wait_until("the wait is told", Duration::from_secs(60), told).await;
    assert!(!waits.has_ended(), "it is told while it lasts");
    let (waited, checked) = tokio::join!(waits.end(), world.cli(&["check"]));
    for ran in [waited.exits(1), checked.exits(1)] {
        let ran = ran.says(&[&holder, "is locked", "wait until it is done, or end it"]);
        assert!(
            !["the disk", "network"].iter().any(|it| ran.stderr.contains(it) || ran.stdout.contains(it)),
            "{ran:?}"
        );
    }
    drop(held);
    world.once().await.exits(0);
    world.assert_exactly_once();
}
