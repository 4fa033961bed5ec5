//! File locks of the file store: waited for with a deadline, and their holder named.

use super::StoreError;
use super::disk::failed;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
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
                    let (lock, at_most_s) = (path.display(), WAIT_MAX.as_secs());
                    tracing::warn!(%lock, at_most_s, "the store is locked by {}: waiting", holder(path));
                }
                std::thread::sleep(POLL);
            }
            Err(TryLockError::WouldBlock) => {
                let why = format!("{} has held the lock for {} s", holder(path), WAIT_MAX.as_secs());
                return Err(failed("lock of", path, io::Error::new(ErrorKind::TimedOut, why)));
            }
            Err(TryLockError::Error(cause)) => return Err(failed("lock of", path, cause)),
        }
    }
}

pub(super) fn is_held(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Who holds the lock, as far as the kernel tells (proc(5), /proc/locks): only within the same process namespace, and not on NFS.
fn holder(path: &Path) -> String {
    let id = std::fs::metadata(path).map(|file| format!(":{}", file.ino())).unwrap_or_default();
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (pid, file) = (words.get(4)?.parse::<u32>().ok()?, words.get(5)?);
        (words.get(1) == Some(&"FLOCK") && file.ends_with(&id)).then_some(pid)
    });
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}
