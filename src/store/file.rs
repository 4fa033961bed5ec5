//! The store in a directory: one file per key, locks by `flock`, so that processes on one machine share it safely.

use super::disk::Disk;
use super::{Expect, Holder, Key, Listed, Object, Store, StoreError, Version, probe};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest time of one operation: a hung network file system must not hold a feed for ever.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// A directory as a [`Store`].
#[derive(Debug)]
pub struct FileStore {
    disk: Arc<Disk>,
    /// The locks that tell other processes that this one lives; released by the kernel however it ends.
    announced: Mutex<HashMap<String, File>>,
}

impl FileStore {
    /// Opens the directory, creates it (mode 0700) when it is missing, and proves that it can be written.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when `path` is no directory or must not be written; [`StoreError::Failed`] for everything else.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let place = path.display().to_string();
        let disk = blocking(place, move || Disk::open(&path)).await?;
        Ok(Self { disk: Arc::new(disk), announced: Mutex::default() })
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = Arc::clone(&self.disk);
        blocking(self.place(), move || work(&disk)).await
    }

    fn announced(&self) -> parking_lot::MutexGuard<'_, HashMap<String, File>> {
        self.announced.lock()
    }
}

/// Runs blocking work off the async threads, within the deadline. Work that overruns it goes on and ends by itself.
async fn blocking<T: Send + 'static>(
    place: String,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let failed = |cause| StoreError::Failed { attempted: "use of", on: place, cause };
    match tokio::time::timeout(CALL_DEADLINE, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(stopped)) => Err(failed(stopped.into())),
        Err(_) => Err(failed("the file system did not answer within 30 s: check the disk or the mount".into())),
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        for (owner, lock) in self.announced().drain() {
            // The name goes while the lock is held: whoever looks in between still finds the owner alive, not a stranger's file.
            self.disk.withdraw(&owner);
            drop(lock);
        }
    }
}

#[async_trait]
impl Store for FileStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let key = key.clone();
        self.on_disk(move |disk| disk.get(&key)).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, expect: Expect) -> Result<Version, StoreError> {
        let key = key.clone();
        self.on_disk(move |disk| disk.put(&key, &bytes, &expect)).await
    }

    async fn append(&self, key: &Key, at: u64, bytes: Bytes) -> Result<(), StoreError> {
        let key = key.clone();
        self.on_disk(move |disk| disk.append(&key, at, &bytes)).await
    }

    async fn reserve(&self, key: &Key, at: u64, room: u64) -> Result<(), StoreError> {
        let key = key.clone();
        self.on_disk(move |disk| disk.reserve(&key, at, room)).await
    }

    async fn read_from(&self, key: &Key, offset: u64) -> Result<Option<Bytes>, StoreError> {
        let key = key.clone();
        self.on_disk(move |disk| disk.read_from(&key, offset)).await
    }

    async fn cut(&self, key: &Key, len: u64, to: u64) -> Result<bool, StoreError> {
        let key = key.clone();
        self.on_disk(move |disk| disk.cut(&key, len, to)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let prefix = prefix.to_owned();
        self.on_disk(move |disk| disk.list(&prefix)).await
    }

    async fn is_ahead(&self, key: &Key) -> Result<bool, StoreError> {
        let key = key.clone();
        self.on_disk(move |disk| disk.is_ahead(&key)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let key = key.clone();
        self.on_disk(move |disk| disk.delete(&key)).await
    }

    async fn announce(&self, owner: &str) -> Result<(), StoreError> {
        if self.announced().contains_key(owner) {
            return Ok(());
        }
        let name = owner.to_owned();
        let lock = self.on_disk(move |disk| disk.announce(&name)).await?;
        self.announced().insert(owner.to_owned(), lock);
        Ok(())
    }

    async fn holder(&self, owner: &str) -> Result<Holder, StoreError> {
        let owner = owner.to_owned();
        self.on_disk(move |disk| disk.holder(&owner)).await
    }

    async fn probe(&self) -> Result<String, StoreError> {
        let proof = tokio::time::timeout(CALL_DEADLINE, probe::prove(self)).await;
        self.on_disk(|disk| {
            disk.remove_if_empty(probe::PREFIX);
            Ok(())
        })
        .await?;
        proof.unwrap_or_else(|late| {
            Err(StoreError::Failed { attempted: "probe of", on: self.place(), cause: late.into() })
        })
    }

    fn place(&self) -> String {
        self.disk.place()
    }
}
