//! Files and folders that several users can reach: what is kept from them, what must work all the same, and what root leaves behind.

use crate::agent::wait_until;
use crate::world::{World, history};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// The agent's user and group, and somebody else's: numbers without names.
const AGENT: u32 = 64_932;
const OTHER: u32 = 64_933;

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// Only root may do this, and only root can run programs as others: these tests are run as root.
fn give(path: &Path, owner: u32, group: u32, mode: u32) {
    std::os::unix::fs::chown(path, Some(owner), Some(group)).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// `exec`s its arguments as the agent's user.
const AS_AGENT: &str = "exec setpriv --reuid=64932 --regid=64932 --clear-groups \"$@\"";

impl World {
    /// A world into which every user may look.
    async fn open() -> Self {
        let world = Self::file(history(30)).await;
        give(world.home.path(), 0, 0, 0o755);
        world
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// The folder of the store, made as somebody made it.
    fn state_of(&self, owner: u32, group: u32, mode: u32) -> &Self {
        std::fs::create_dir(self.state()).unwrap();
        give(&self.state(), owner, group, mode);
        self
    }
}

/// Everything below a folder, it included.
fn all_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(all_below(&entry.path()))
        } else {
            found.push(entry.path())
        }
    }
    found
}

/// Fault: a umask that forbids nothing, and rows that go into a file. Shows: rows, positions and ledger are 0600 in folders of 0700, each part of the path that had to be made included.
#[tokio::test]
async fn fm_74_files_and_folders_are_the_user_s_own_whatever_the_umask() {
    let mut world = World::file(history(30)).await;
    let rows = world.home.path().join("a/b");
    world.set("OPSHIP_SINK__KIND", "ndjson").set("OPSHIP_SINK__PATH", rows.display());
    world.unset("OPSHIP_SINK__ENDPOINT").unset("OPSHIP_SINK__DCR_IMMUTABLE_ID");
    world.by_script("umask 0; exec \"$@\"", &["once"]).await.exits(0);
    let made: Vec<PathBuf> =
        ["a", "state"].iter().flat_map(|folder| all_below(&world.home.path().join(folder))).collect();
    assert!(made.iter().any(|path| path.ends_with("OnePasswordEventLogs_CL.ndjson")) && made.len() > 10, "{made:?}");
    for path in made {
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

/// Fault: links stand where the rows, their lock, or the lock of the store should be. Shows: each run ends with the name and the remedy, and what the link leads to is as it was.
#[tokio::test]
async fn fm_74_nothing_is_written_through_a_link() {
    for link in
        ["rows/OnePasswordEventLogs_CL.ndjson", "rows/OnePasswordEventLogs_CL.ndjson.lock", "state/~lock", "state/~put"]
    {
        let mut world = World::file(history(30)).await;
        let home = world.home.path().to_owned();
        world.set("OPSHIP_SINK__KIND", "ndjson").set("OPSHIP_SINK__PATH", home.join("rows").display());
        world.unset("OPSHIP_SINK__ENDPOINT").unset("OPSHIP_SINK__DCR_IMMUTABLE_ID");
        for folder in ["rows", "state"] {
            std::fs::create_dir(home.join(folder)).unwrap();
        }
        let theirs = home.join("theirs");
        std::fs::write(&theirs, "precious").unwrap();
        symlink(&theirs, home.join(link)).unwrap();
        let ran = world.once().await;
        // A temporary file is ours to remove, whatever stands there.
        if link == "state/~put" {
            ran.exits(0);
        } else {
            ran.exits(1).says(&[link, "a link stands", "remove it"]);
        }
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "precious", "{link}");
    }
}

/// Fault: the folder of the store belongs to another user, or everybody may write into it. Shows: `once` and `check` refuse it with the owner or the mode and what to do, before anything is asked or posted; given back it works.
#[tokio::test]
async fn fm_74_a_folder_that_others_may_change_is_refused() {
    for (owner, group, permissions, says) in [
        (OTHER, AGENT, 0o770, "belongs to user 64933"),
        (OTHER, OTHER, 0o777, "belongs to user 64933"),
        (AGENT, AGENT, 0o777, "mode 0777"),
        (0, 0, 0o1777, "mode 1777"),
    ] {
        let world = World::open().await;
        world.state_of(owner, group, permissions);
        world.by_script(AS_AGENT, &["once"]).await.exits(1).says(&[says]);
        assert!(world.sim.world().journal().is_empty(), "{says}");
        world.by_script(AS_AGENT, &["check"]).await.says(&["FAIL  store", says]);
        give(&world.state(), AGENT, AGENT, 0o700);
        world.by_script(AS_AGENT, &["once"]).await.exits(0);
        world.assert_exactly_once();
    }
}

/// Fault: none; folders as Kubernetes, systemd and container platforms make them: an fsGroup, an emptyDir, a share, a linked folder. Shows: each ships, and `check` has a line about who else may write.
#[tokio::test]
async fn fm_74_folders_as_platforms_make_them_work() {
    const EMPTY_DIR: &str = "mount -t tmpfs -o mode=0777 tmpfs state";
    const SHARE: &str = "mount --bind state state && chmod 777 state";
    for (name, owner, group, permissions, mount, says) in [
        ("a volume with an fsGroup", 0, AGENT, 0o2770, "true", "group 64932 may replace or delete"),
        ("a volume with an fsGroup for all who list", 0, AGENT, 0o2775, "true", "group 64932 may replace or delete"),
        ("an emptyDir", 0, 0, 0o755, EMPTY_DIR, "it is a mount point, and every user who reaches it"),
        ("a share such as Azure Files", 0, 0, 0o777, SHARE, "it is a mount point, and every user who reaches it"),
        ("a folder of the user", AGENT, AGENT, 0o700, "true", "ok    store"),
    ] {
        let world = World::open().await;
        world.state_of(owner, group, permissions);
        // Each process has its own view of an emptyDir, so both commands are in one.
        let both = format!("{mount}; setpriv --reuid=64932 --regid=64932 --clear-groups \"$1\" check; {AS_AGENT}");
        let script = format!("exec unshare --mount bash -c '{both}' bash \"$@\"");
        world.by_script(&script, &["once"]).await.exits(0).says(&[says]);
        world.assert_exactly_once();
        assert!(!name.is_empty());
    }
}

/// Fault: none; the folder is a link of root's to one of the user's, as `DynamicUser=` makes it. Shows: it ships, and goes on there.
#[tokio::test]
async fn fm_74_the_linked_folder_of_a_dynamic_user_works() {
    let world = World::open().await;
    let private = world.home.path().join("private");
    std::fs::create_dir_all(private.join("opship")).unwrap();
    give(&private, 0, 0, 0o755);
    give(&private.join("opship"), AGENT, AGENT, 0o700);
    symlink("private/opship", world.state()).unwrap();
    for _ in 0..2 {
        world.by_script(AS_AGENT, &["once"]).await.exits(0);
    }
    world.assert_exactly_once();
}

/// Fault: root runs commands over the store and the rows of the agent's user, in a folder of that user's and in one of root's with an fsGroup. Shows: all they make is the agent's, which goes on there.
#[tokio::test]
async fn fm_74_what_root_makes_in_the_agent_s_store_does_not_lock_the_agent_out() {
    for (owner, permissions) in [(AGENT, 0o700), (0, 0o2770)] {
        let mut world = World::open().await;
        world.state_of(owner, AGENT, permissions);
        let rows = world.state().join("rows");
        world.set("OPSHIP_SINK__KIND", "ndjson").set("OPSHIP_SINK__PATH", rows.display());
        world.unset("OPSHIP_SINK__ENDPOINT").unset("OPSHIP_SINK__DCR_IMMUTABLE_ID");
        world.by_script(AS_AGENT, &["once"]).await.exits(0);
        std::fs::rename(rows.join("OnePasswordEventLogs_CL.ndjson"), rows.join("rotated")).unwrap();
        world.sim.world().set_live(50.0);
        let events = || world.sim.world().compare().generated;
        let before = events();
        wait_until("there are new events", SOON, || events() > before + 20).await;
        for command in [&["once"][..], &["check"], &["checkpoint", "show"], &["status", "--from-store"]] {
            world.cli(command).await;
        }
        for path in all_below(&world.state()).into_iter().skip(1) {
            let found = path.symlink_metadata().unwrap();
            assert_eq!((found.uid(), found.gid()), (AGENT, AGENT), "{}", path.display());
        }
        world.by_script(AS_AGENT, &["once"]).await.exits(0);
    }
}

/// Fault: another process of the same user looks into the agent's environment and memory. Shows: the kernel refuses; the agent counts its own descriptors all the same.
#[tokio::test]
async fn fm_74_no_process_of_the_same_user_looks_into_the_agent_s_memory() {
    let world = World::open().await;
    world.state_of(AGENT, AGENT, 0o700);
    let launcher = ["bash", "-c", AS_AGENT, "bash", env!("CARGO_BIN_EXE_opship")];
    let agent = world.start_by(&launcher, &["run"]);
    let browser = agent.browser().await;
    let metrics = browser.wait_for("/metrics", &[], SOON, |answer| answer.body.contains("process_open_fds ")).await;
    let fds = metrics.body.lines().find_map(|line| line.strip_prefix("process_open_fds ")).unwrap();
    assert!(fds.parse::<f64>().unwrap() > 5.0, "{fds}");
    for part in ["environ", "mem", "maps"] {
        let path = format!("/proc/{}/{part}", agent.id());
        let look = std::process::Command::new("bash").args(["-c", AS_AGENT, "bash", "head", "-c1", &path]).output();
        let look = look.unwrap();
        let said = String::from_utf8_lossy(&look.stderr);
        assert!(!look.status.success() && said.contains("ermission denied"), "{part}: {said}");
    }
    agent.stop().await.exits(0);
}
