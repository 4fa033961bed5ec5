//! Disks that are full or read-only under the real program.

use crate::world::{World, history};
use opship::sim::Service;

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
