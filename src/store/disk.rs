//! The blocking half of the file store: whole operations on one directory, each under its lock.
//!
//! Names with `~` are ours, never a key's: `~lock` serialises writers of documents, `~put` is the one temporary file a directory can
//! hold (written under `~lock` only, so a crashed writer leaves at most one, and the next put overwrites it).

use super::locks::{is_held, wait_for};
use super::{Expect, Holder, Key, Listed, Object, StoreError, Version, room, survey};
use crate::http::BODY_BYTES_MAX;
use crate::private::{self, Heir};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub(super) const LOCK: &str = "~lock";
const TEMP: &str = "~put";
/// Lock files of living processes; no key is listed from here.
const OWNERS: &str = "locks";
const NO_DIRECTORY: &str =
    "store.path must name a directory, and this path or a part of it is none: choose another path";
const NO_PLACE: &str = "no directory can be made there: point store.path to one on a disk";
/// An append starts over when its segment was deleted between open and lock; more often than this is no accident.
const REOPENS_MAX: usize = 3;

/// One directory.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// Whose the files are that root makes here.
    heir: Option<Heir>,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = "open of the store directory";
        let root = std::path::absolute(path).map_err(|cause| failed(opened, path, cause))?;
        private::make_folders(&root).map_err(|cause| {
            let remedy = match cause.kind() {
                ErrorKind::AlreadyExists | ErrorKind::NotADirectory => NO_DIRECTORY,
                // Its parents were made or are there: a file system such as /proc, which keeps nothing.
                ErrorKind::NotFound => NO_PLACE,
                _ => return failed(opened, &root, cause),
            };
            let on = root.display().to_string();
            StoreError::Refused { attempted: opened, on, remedy: remedy.into(), cause: Some(cause.into()) }
        })?;
        survey::demand_fit(opened, &root)?;
        // Before anything is made here.
        let heir = Heir::of(&root, &root.join(LOCK));
        let disk = Self { root, heir };
        let _lock = disk.lock(opened)?;
        // Only a write shows a read-only mount, a foreign owner or a full disk; it also clears what a crashed writer left.
        let probe = disk.root.join(TEMP);
        disk.write_whole(&probe, b"opship")
            .and_then(|()| fs::remove_file(&probe))
            .map_err(|e| failed(opened, &probe, e))?;
        Ok(disk)
    }

    pub(super) fn place(&self) -> String {
        self.root.display().to_string()
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let path = self.path(key);
        let failed = |cause| failed("read of", &path, cause);
        let Some(file) = open_existing(&path).map_err(failed)? else { return Ok(None) };
        let age = age_of(&file.metadata().map_err(failed)?);
        let bytes = read_bounded(&file).map_err(failed)?;
        Ok(Some(Object { version: version_of(&bytes), bytes, age: Some(age) }))
    }

    pub(super) fn put(&self, key: &Key, bytes: &[u8], expect: &Expect) -> Result<Version, StoreError> {
        let path = self.path(key);
        let _lock = self.lock("write of")?;
        let expected = match expect {
            Expect::Anything => true,
            Expect::Absent => self.get(key)?.is_none(),
            Expect::Is(version) => self.get(key)?.is_some_and(|object| object.version == *version),
        };
        if !expected {
            return Err(StoreError::Conflict { key: key.clone() });
        }
        self.replace(&path, bytes).map_err(|cause| failed("write of", &path, cause))?;
        Ok(version_of(bytes))
    }

    /// The caller holds the lock. Until the rename the old document is untouched, whatever fails.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let directory = self.make_directory_of(path)?;
        let temp = directory.join(TEMP);
        let renamed = self.write_whole(&temp, bytes).and_then(|()| fs::rename(&temp, path));
        if renamed.is_err() {
            // Best effort: what is left occupies a full disk, and the next put overwrites it anyway.
            let _ = fs::remove_file(&temp);
        }
        renamed?;
        sync_directory(&directory)
    }

    pub(super) fn append(&self, key: &Key, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.at_end("append to", key, at, |file, path| {
            let written = file.write_all_at(bytes, at).and_then(|()| file.sync_all());
            if written.is_err() {
                // Best effort: a torn tail that stays is cut by the next reader of the segment.
                let _ = file.set_len(at);
            }
            written.map_err(|cause| failed("append to", path, cause))
        })
    }

    pub(super) fn reserve(&self, key: &Key, at: u64, room: u64) -> Result<(), StoreError> {
        self.at_end("reservation of room in", key, at, |file, path| room::reserve(file, path, at, room))
    }

    /// Works at the end of a segment that is `at` bytes long, under its lock; `at` 0 creates it when it is absent.
    fn at_end(
        &self,
        attempted: &'static str,
        key: &Key,
        at: u64,
        work: impl Fn(&File, &Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let path = self.path(key);
        let failed = |cause| failed(attempted, &path, cause);
        for _ in 0..REOPENS_MAX {
            let Some(file) = self.open_segment(&path, at == 0).map_err(failed)? else {
                return Err(StoreError::WrongPosition { key: key.clone(), at });
            };
            wait_for(&path, || file.try_lock())?;
            if !is_still_at(&file, &path).map_err(failed)? {
                continue;
            }
            if file.metadata().map_err(failed)?.len() != at {
                return Err(StoreError::WrongPosition { key: key.clone(), at });
            }
            work(&file, &path)?;
            return if at == 0 { parent_of(&path).and_then(sync_directory).map_err(failed) } else { Ok(()) };
        }
        Err(failed(io::Error::other("it was deleted again and again meanwhile")))
    }

    fn open_segment(&self, path: &Path, create: bool) -> io::Result<Option<File>> {
        if create {
            self.make_directory_of(path)?;
        }
        let opened = absent_as_none(private::file().read(true).create(create).truncate(false).open(path))?;
        if let Some(file) = &opened {
            Heir::inherits(self.heir, file)?;
        }
        Ok(opened)
    }

    pub(super) fn read_from(&self, key: &Key, offset: u64) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(key);
        let failed = |cause| failed("read of", &path, cause);
        let Some(mut file) = open_existing(&path).map_err(failed)? else { return Ok(None) };
        // Shared: a reader never sees half of a living process' append.
        wait_for(&path, || file.try_lock_shared())?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(offset)).map_err(failed)?;
        read_bounded(&file).map(Some).map_err(failed)
    }

    pub(super) fn cut(&self, key: &Key, len: u64, to: u64) -> Result<bool, StoreError> {
        let path = self.path(key);
        let failed = |cause| failed("cut of", &path, cause);
        let Some(file) = self.open_segment(&path, false).map_err(failed)? else { return Ok(false) };
        wait_for(&path, || file.try_lock())?;
        let unchanged =
            is_still_at(&file, &path).map_err(failed)? && file.metadata().map_err(failed)?.len() == len && to <= len;
        if unchanged {
            file.set_len(to).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        Ok(unchanged)
    }

    pub(super) fn is_ahead(&self, key: &Key) -> Result<bool, StoreError> {
        let path = self.path(key);
        let metadata = absent_as_none(fs::metadata(&path)).map_err(|cause| failed("look at", &path, cause))?;
        Ok(metadata.and_then(|metadata| metadata.modified().ok()).is_some_and(|at| at > SystemTime::now()))
    }

    pub(super) fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let path = self.path(key);
        let failed = |cause| failed("delete of", &path, cause);
        let _lock = self.lock("delete of")?;
        if open_existing(&path).map_err(failed)?.is_none() {
            return Ok(());
        }
        // Opened to write: NFS grants exclusive locks on nothing else.
        let Some(file) = self.open_segment(&path, false).map_err(failed)? else { return Ok(()) };
        // After a running append, never between its open and its write: that append would report success for nothing.
        wait_for(&path, || file.try_lock())?;
        fs::remove_file(&path).and_then(|()| sync_directory(parent_of(&path)?)).map_err(failed)
    }

    /// Best effort: what is in it stays.
    pub(super) fn remove_if_empty(&self, directory: &str) {
        if let Ok(_lock) = self.lock("removal of") {
            let _ = fs::remove_dir(self.root.join(directory));
        }
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        let top = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
        if top.is_empty() || Key::is_legal(top) {
            self.list_into(&mut listed, top, prefix).map_err(|cause| {
                let path = self.root.join(top);
                failed("list of", &path, cause)
            })?;
        }
        listed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    fn list_into(&self, listed: &mut Vec<Listed>, directory: &str, prefix: &str) -> io::Result<()> {
        let Some(entries) = absent_as_none(fs::read_dir(self.root.join(directory)))? else { return Ok(()) };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            // Files that a person put here are not ours to list, and must not stop us.
            if !Key::is_legal(&name) || name == OWNERS {
                continue;
            }
            let Some(metadata) = absent_as_none(entry.metadata())? else { continue };
            if metadata.is_dir() {
                self.list_into(listed, &name, prefix)?;
            } else if metadata.is_file() && name.starts_with(prefix) {
                listed.push(Listed { key: Key::new(name), len: metadata.len(), age: age_of(&metadata) });
            }
        }
        Ok(())
    }

    /// The returned file is the lock: as long as it is open, `owner` lives.
    pub(super) fn announce(&self, owner: &str) -> Result<File, StoreError> {
        let announced = "announcement of";
        let Some(path) = self.owner_path(owner) else {
            return Err(failed(
                announced,
                &self.root.join(OWNERS),
                io::Error::other("the owner's name is no file name"),
            ));
        };
        let failed = |cause| failed(announced, &path, cause);
        let _lock = self.lock(announced)?;
        let directory = self.make_directory_of(&path).map_err(failed)?;
        clear_dead_owners(&directory).map_err(failed)?;
        let file = self.open_to_lock(&path).map_err(failed)?;
        wait_for(&path, || file.try_lock())?;
        Ok(file)
    }

    pub(super) fn holder(&self, owner: &str) -> Result<Holder, StoreError> {
        let Some(path) = self.owner_path(owner) else { return Ok(Holder::Unknown) };
        // Under the lock: an announcement in progress is not mistaken for a dead process.
        let _lock = self.lock("look at")?;
        let opened = open_existing(&path).map_err(|cause| failed("look at", &path, cause))?;
        Ok(if opened.is_some_and(|file| is_held(&file)) { Holder::Alive } else { Holder::Gone })
    }

    pub(super) fn withdraw(&self, owner: &str) {
        if let Some(path) = self.owner_path(owner) {
            // Best effort: the kernel frees the lock, and the next announcement clears the file.
            let _ = fs::remove_file(path);
        }
    }

    fn owner_path(&self, owner: &str) -> Option<PathBuf> {
        (Key::is_legal(owner) && !owner.contains('/')).then(|| self.root.join(OWNERS).join(format!("{owner}.lock")))
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Held until the file is dropped.
    fn lock(&self, attempted: &'static str) -> Result<File, StoreError> {
        let path = self.root.join(LOCK);
        let file = self.open_to_lock(&path).map_err(|cause| failed(attempted, &path, cause))?;
        wait_for(&path, || file.try_lock())?;
        Ok(file)
    }

    fn open_to_lock(&self, path: &Path) -> io::Result<File> {
        let file = private::file().create(true).truncate(false).open(path)?;
        Heir::inherits(self.heir, &file)?;
        Ok(file)
    }

    /// A new file, whatever a crashed writer left under its name.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        private::clear(path)?;
        let mut file = private::file().create_new(true).open(path)?;
        Heir::inherits(self.heir, &file)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Creates the directories between root and `path`, each durable before the next is made inside it.
    fn make_directory_of(&self, path: &Path) -> io::Result<PathBuf> {
        let wanted = parent_of(path)?;
        let mut directory = self.root.clone();
        for part in wanted.strip_prefix(&self.root).map_err(io::Error::other)? {
            let parent = directory.clone();
            directory.push(part);
            match private::make_folder(&directory, self.heir) {
                Ok(()) => sync_directory(&parent)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(directory)
    }
}

/// Lock files of crashed processes: nobody else removes them. The caller holds the lock, so none of them is being announced.
fn clear_dead_owners(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if open_existing(&path)?.is_some_and(|file| !is_held(&file)) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Whether the open file still has this name: it may have been deleted before its lock was ours.
fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let Some(named) = absent_as_none(fs::metadata(path))? else { return Ok(false) };
    let opened = file.metadata()?;
    Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino()))
}

fn open_existing(path: &Path) -> io::Result<Option<File>> {
    let Some(file) = absent_as_none(File::open(path))? else { return Ok(None) };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// A directory or a file's child is as absent as a missing name: no key stands there.
fn absent_as_none<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_bounded(file: &File) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    file.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > BODY_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "it is larger than anything opship writes"));
    }
    Ok(bytes.into())
}

fn parent_of(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::other("it has no parent directory"))
}

fn sync_directory(path: impl AsRef<Path>) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn age_of(metadata: &fs::Metadata) -> Duration {
    // A file from the future (a clock set back) counts as just written: never take over early.
    metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}

fn version_of(bytes: &[u8]) -> Version {
    Version(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A system error with what the operator can do about it.
#[derive(Debug, thiserror::Error)]
#[error("{remedy}")]
struct Advice {
    remedy: &'static str,
    #[source]
    cause: io::Error,
}

pub(super) fn failed(attempted: &'static str, path: &Path, cause: io::Error) -> StoreError {
    let on = path.display().to_string();
    if private::is_link(&cause) {
        let remedy = "a link stands where a file of opship's own should be: find out who put it there, and remove it";
        return StoreError::Refused { attempted, on, remedy: remedy.into(), cause: Some(cause.into()) };
    }
    let remedy = match cause.kind() {
        ErrorKind::PermissionDenied => {
            let remedy = "give the user that runs opship read and write permission on the store directory (mode 0700)";
            return StoreError::Refused { attempted, on, remedy: remedy.into(), cause: Some(cause.into()) };
        }
        ErrorKind::ReadOnlyFilesystem => {
            let remedy = "mount this file system read-write or point store.path elsewhere";
            return StoreError::Refused { attempted, on, remedy: remedy.into(), cause: Some(cause.into()) };
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "free space (or raise the quota) on this file system or point store.path at a larger one"
        }
        ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            "a file stands where a directory is needed or the reverse: clean up the store directory"
        }
        ErrorKind::Unsupported => "store.path must be on a file system with file locks (flock)",
        _ => "check the disk, the mount and the kernel log",
    };
    StoreError::Failed { attempted, on, cause: Box::new(Advice { remedy, cause }) }
}
