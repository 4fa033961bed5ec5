//! File locks of the file store: waited for with a deadline, and their holder named.

use super::StoreError;
use super::disk::failed;
use rustix::fs::{major, minor};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for another process' lock: its operation is a few fsyncs long.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// A wait that is worth a word.
const WAIT_NOTED: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(2);

/// Polls, because a blocking `flock` has no deadline.
pub(super) fn wait_for(path: &Path, try_lock: impl Fn() -> Result<(), TryLockError>) -> Result<(), StoreError> {
    let started = Instant::now();
    let mut is_told = false;
    loop {
        match try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if started.elapsed() < WAIT_MAX => {
                if !is_told && started.elapsed() >= WAIT_NOTED {
                    is_told = true;
                    let (holder, at_most_s) = (Holder::of(path).name(), WAIT_MAX.as_secs());
                    tracing::warn!(path = %path.display(), at_most_s, "the store is locked by {holder}: waiting");
                }
                std::thread::sleep(POLL);
            }
            Err(TryLockError::WouldBlock) => return Err(Holder::of(path).keeps(path)),
            Err(TryLockError::Error(cause)) => return Err(failed("lock of", path, cause)),
        }
    }
}

pub(super) fn is_held(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Whoever holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// Another operation of this process.
    Ourselves,
    Process(u32),
    Unknown,
}

impl Holder {
    /// As far as the kernel tells (proc(5), `/proc/locks`): only within the same process namespace, and not on NFS.
    fn of(path: &Path) -> Self {
        let (Ok(file), Ok(locks)) = (fs::metadata(path), fs::read_to_string("/proc/locks")) else {
            return Self::Unknown;
        };
        let (device, inode) = (format!("{:02x}:{:02x}", major(file.dev()), minor(file.dev())), file.ino().to_string());
        let is_it = |(pid, on, id): &(u32, &str, &str)| *id == inode && (*on == device || has_open(*pid, &file));
        match locks.lines().filter_map(flock).find(is_it) {
            Some((pid, ..)) if pid == std::process::id() => Self::Ourselves,
            Some((pid, ..)) => Self::Process(pid),
            None => Self::Unknown,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Ourselves => "another operation of this process".into(),
            Self::Process(pid) => format!("process {pid}"),
            Self::Unknown => "another process".into(),
        }
    }

    fn keeps(self, path: &Path) -> StoreError {
        let (holder, seconds) = (self.name(), WAIT_MAX.as_secs());
        match self {
            // Its own operations end by themselves, unless the disk hangs.
            Self::Ourselves => {
                failed("lock of", path, io::Error::other(format!("{holder} has held the lock for {seconds} s")))
            }
            Self::Process(_) | Self::Unknown => StoreError::Locked { on: path.display().to_string(), holder, seconds },
        }
    }
}

/// Process, device and inode of a held lock: `1: FLOCK  ADVISORY  WRITE 4970 fe:00:10010757 0 EOF`.
fn flock(line: &str) -> Option<(u32, &str, &str)> {
    let mut words = line.split_whitespace().skip(1);
    let (kind, pid, place) = (words.next()?, words.nth(2)?, words.next()?);
    let (device, inode) = place.rsplit_once(':')?;
    (kind == "FLOCK").then_some((pid.parse().ok()?, device, inode))
}

/// Some file systems (btrfs, overlays) tell programs another device than the list of locks has, and an inode alone is not unique. Of
/// other processes only root learns what they have open: an opship keeps that to itself, and is known by its name.
fn has_open(pid: u32, file: &fs::Metadata) -> bool {
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(opened) => opened
            .flatten()
            .filter_map(|entry| fs::metadata(entry.path()).ok())
            .any(|it| (it.dev(), it.ino()) == (file.dev(), file.ino())),
        Err(_) => is_a_program_like_this(pid),
    }
}

fn is_a_program_like_this(pid: u32) -> bool {
    let name = |of: &str| fs::read_to_string(format!("/proc/{of}/comm")).ok();
    name(&pid.to_string()).is_some_and(|theirs| name("self").is_some_and(|ours| ours == theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_ones_own_is_no_other_process_and_one_that_nobody_holds_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let file = File::create(&path).unwrap();
        assert_eq!(Holder::of(&path), Holder::Unknown);
        file.lock().unwrap();
        assert_eq!(Holder::of(&path), Holder::Ourselves);
        let error = Holder::of(&path).keeps(&path);
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    }

    #[test]
    fn a_process_that_keeps_to_itself_is_known_by_its_name() {
        assert!(is_a_program_like_this(std::process::id()));
        assert!(!is_a_program_like_this(u32::MAX), "there is none");
    }

    #[test]
    fn a_waiting_lock_and_one_of_another_kind_are_not_held_ones() {
        assert_eq!(flock("1: FLOCK  ADVISORY  WRITE 4970 fe:00:10010757 0 EOF"), Some((4970, "fe:00", "10010757")));
        assert_eq!(flock("1: -> FLOCK  ADVISORY  WRITE 4971 fe:00:10010757 0 EOF"), None);
        assert_eq!(flock("2: POSIX  ADVISORY  READ 12 fe:00:10010757 0 EOF"), None);
        assert_eq!(flock(""), None);
    }
}
