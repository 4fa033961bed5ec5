//! What only the file store must withstand: full disks, wrong paths, crashed writers, living and dead processes.

use crate::world::key;
use bytes::Bytes;
use opship::store::file::FileStore;
use opship::store::{Expect, Holder, Store, StoreError};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

async fn open(path: &Path) -> FileStore {
    FileStore::open(path).await.expect("open")
}

fn chain_of(error: &StoreError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test]
async fn a_path_that_is_or_runs_through_a_file_is_refused_at_open() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("file");
    std::fs::write(&file, "not a directory").expect("write");
    for path in [file.clone(), file.join("below")] {
        let error = FileStore::open(&path).await.expect_err("refused");
        let chain = chain_of(&error);
        assert!(matches!(error, StoreError::Refused { .. }), "{chain}");
        assert!(
            chain.contains(&path.display().to_string()) && chain.contains("store.path must name a directory"),
            "{chain}"
        );
    }
}

// Permission bits do not stop root, who runs the tests in a container; /sys takes new files from nobody.
/// Fault: a folder that takes no file. Shows: the store is refused at open and the folder named.
#[tokio::test]
async fn fm_26_a_read_only_directory_is_refused_at_open() {
    for path in ["/sys/kernel", "/sys/kernel/opship"] {
        let error = FileStore::open(Path::new(path)).await.expect_err("refused");
        assert!(matches!(error, StoreError::Refused { .. }), "{}", chain_of(&error));
        assert!(chain_of(&error).contains("/sys/kernel"), "{}", chain_of(&error));
    }
}

#[tokio::test]
async fn files_are_private() {
    let directory = tempfile::tempdir().expect("tempdir");
    let root = directory.path().join("state");
    let store = open(&root).await;
    store.put(&key("a/b"), Bytes::new(), Expect::Absent).await.expect("put");
    store.append(&key("c/d"), 0, Bytes::from_static(b"1")).await.expect("append");
    store.announce("me").await.expect("announce");
    let mode = |name: &str| std::fs::metadata(root.join(name)).expect("metadata").permissions().mode() & 0o777;
    assert!(["", "a", "c", "locks"].iter().all(|name| mode(name) == 0o700));
    assert!(["a/b", "c/d", "locks/me.lock", "~lock"].iter().all(|name| mode(name) == 0o600));
}

#[tokio::test]
async fn what_crashed_writers_and_people_leave_is_not_listed_and_does_not_pile_up() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path()).await;
    for n in 0..3 {
        std::fs::create_dir_all(directory.path().join("a")).expect("mkdir");
        std::fs::write(directory.path().join("a/~put"), "half a docu").expect("write");
        store.put(&key("a/b"), Bytes::from(n.to_string()), Expect::Anything).await.expect("put");
    }
    std::fs::write(directory.path().join("a/notes of a person.txt"), "x").expect("write");
    store.announce("me").await.expect("announce");
    let listed = store.list("").await.expect("list");
    assert_eq!(listed.iter().map(|l| l.key.as_str()).collect::<Vec<_>>(), ["a/b"]);
    let mut names: Vec<_> = std::fs::read_dir(directory.path().join("a"))
        .expect("read_dir")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, ["b", "notes of a person.txt"]);
}

#[tokio::test]
async fn an_append_to_a_segment_deleted_meanwhile_is_never_reported_as_done() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("segment");
    let store = open(directory.path()).await;
    store.append(&key("segment"), 0, Bytes::from_static(b"old")).await.expect("append");
    let held = File::open(&path).expect("open");
    held.lock().expect("lock");
    let append = tokio::spawn(async move { store.append(&key("segment"), 3, Bytes::from_static(b"new")).await });
    let deadline = Instant::now() + Duration::from_secs(10);
    while times_open(&path) < 2 {
        assert!(Instant::now() < deadline, "the append does not start");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    std::fs::remove_file(&path).expect("remove");
    drop(held);
    let outcome = append.await.expect("task");
    assert!(matches!(outcome, Err(StoreError::WrongPosition { .. })), "{outcome:?}");
}

fn times_open(path: &Path) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
    descriptors.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == path)).count()
}

#[tokio::test]
async fn age_is_never_negative_and_follows_the_clock() {
    let directory = tempfile::tempdir().expect("tempdir");
    let store = open(directory.path()).await;
    store.put(&key("a"), Bytes::new(), Expect::Absent).await.expect("put");
    let hour = Duration::from_secs(3600);
    let file = File::options().write(true).open(directory.path().join("a")).expect("open");
    file.set_modified(SystemTime::now() - hour).expect("set the time");
    assert!(store.get(&key("a")).await.expect("get").expect("present").age >= Some(hour));
    file.set_modified(SystemTime::now() + hour).expect("set the time");
    assert_eq!(store.get(&key("a")).await.expect("get").expect("present").age, Some(Duration::ZERO));
    assert_eq!(store.list("").await.expect("list")[0].age, Duration::ZERO);
}

#[tokio::test]
async fn an_owner_lives_as_long_as_its_handle() {
    let directory = tempfile::tempdir().expect("tempdir");
    let (mine, other) = (open(directory.path()).await, open(directory.path()).await);
    assert_eq!(other.holder("me").await.expect("holder"), Holder::Gone);
    mine.announce("me").await.expect("announce");
    mine.announce("me").await.expect("announce again");
    other.announce("other").await.expect("announce");
    assert_eq!(other.holder("me").await.expect("holder"), Holder::Alive);
    assert_eq!(mine.holder("me").await.expect("holder"), Holder::Alive);
    drop(mine);
    assert_eq!(other.holder("me").await.expect("holder"), Holder::Gone);
    assert!(!directory.path().join("locks/me.lock").exists());
    assert_eq!(other.holder("../~lock").await.expect("holder"), Holder::Unknown);
}

#[tokio::test]
async fn a_killed_owner_is_gone_at_once_and_its_lock_file_is_cleared() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut child =
        child(&mut Command::new(this_test()), "file::child_owner", directory.path()).expect("start the child");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "announced"));
    let store = open(directory.path()).await;
    assert_eq!(store.holder("child").await.expect("holder"), Holder::Alive);
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert!(directory.path().join("locks/child.lock").exists());
    assert_eq!(store.holder("child").await.expect("holder"), Holder::Gone);
    store.announce("me").await.expect("announce");
    assert!(!directory.path().join("locks/child.lock").exists());
}

// A limit of the file size cuts writes off in the middle for every user, root included, without any mount.
/// Fault: writes are cut off in the middle. Shows: document and segment keep their old content, and take new content afterwards.
#[tokio::test]
async fn fm_26_a_write_cut_off_in_the_middle_leaves_the_old_content() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "bash"]).arg(this_test());
    fill_the_disk(&mut limited, directory.path());
    let store = open(directory.path()).await;
    assert_eq!(store.get(&key("document")).await.expect("get").expect("present").bytes, "old");
    assert_eq!(store.read_from(&key("segment"), 0).await.expect("read").as_deref(), Some(b"old".as_ref()));
    store.put(&key("document"), Bytes::from_static(b"new"), Expect::Anything).await.expect("put");
    store.append(&key("segment"), 3, Bytes::from_static(b"new")).await.expect("append");
}

// In a mount namespace of its own; where the kernel forbids that, the limit of the file size above must do.
/// Fault: a disk of 64 KiB that is full. Shows: document and segment keep their old content, and take new content once there is room.
#[tokio::test]
async fn fm_26_a_full_disk_leaves_the_old_content() {
    let directory = tempfile::tempdir().expect("tempdir");
    let mut small_disk = Command::new("unshare");
    let script = "mount -t tmpfs -o size=64k,mode=700 tmpfs \"$OPSHIP_TEST_STORE\" && exec \"$@\"";
    small_disk.args(["--map-root-user", "--mount", "bash", "-c", script, "bash"]).arg(this_test());
    let allowed = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
    if allowed.is_ok_and(|status| status.success()) {
        fill_the_disk(&mut small_disk, directory.path());
    }
}

/// This test binary, told to run only the named function, as `command` starts it.
fn child(command: &mut Command, name: &str, directory: &Path) -> std::io::Result<Child> {
    let child = command.args([name, "--exact", "--nocapture"]).env("OPSHIP_TEST_STORE", directory);
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

fn fill_the_disk(command: &mut Command, directory: &Path) {
    let child = child(command, "file::child_disk_filler", directory).expect("start the child");
    let output = child.wait_with_output().expect("output");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("filled"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

fn this_test() -> PathBuf {
    std::env::current_exe().expect("path of this test")
}

fn store_of_the_parent() -> Option<PathBuf> {
    std::env::var_os("OPSHIP_TEST_STORE").map(PathBuf::from)
}

/// Not a test of its own: announces itself and lives until it is killed or its parent ends.
#[tokio::test]
async fn child_owner() {
    let Some(path) = store_of_the_parent() else { return };
    let store = open(&path).await;
    store.announce("child").await.expect("announce");
    println!("\nannounced");
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Not a test of its own: fills the small disk that its parent gave it.
#[tokio::test]
async fn child_disk_filler() {
    let Some(path) = store_of_the_parent() else { return };
    let store = open(&path).await;
    let too_much = Bytes::from(vec![b'x'; 100_000]);
    let version = store.put(&key("document"), Bytes::from_static(b"old"), Expect::Absent).await.expect("put");
    store.append(&key("segment"), 0, Bytes::from_static(b"old")).await.expect("append");
    for outcome in [
        store.put(&key("document"), too_much.clone(), Expect::Is(version.clone())).await.map(drop),
        store.append(&key("segment"), 3, too_much).await,
    ] {
        let chain = chain_of(&outcome.expect_err("no space"));
        assert!(chain.contains("free space") && chain.contains(&path.display().to_string()), "{chain}");
    }
    assert_eq!(store.get(&key("document")).await.expect("get").expect("present").bytes, "old");
    assert_eq!(store.read_from(&key("segment"), 0).await.expect("read").as_deref(), Some(b"old".as_ref()));
    assert!(!path.join("~put").exists());
    // There is room again for what fits.
    store.put(&key("document"), Bytes::from_static(b"new"), Expect::Is(version.clone())).await.expect("put");
    store.put(&key("document"), Bytes::from_static(b"old"), Expect::Anything).await.expect("put");
    println!("\nfilled");
}
