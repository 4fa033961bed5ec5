//! One appended object in memory, as much of a store as a ledger needs.

use async_trait::async_trait;
use bytes::Bytes;
use opship::store::{Expect, Holder, Key, Listed, Object, Store, StoreError, Version};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub struct Memory {
    pub can_cut: bool,
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Memory {
    pub fn with(key: &str, bytes: Vec<u8>, can_cut: bool) -> Self {
        Self { can_cut, objects: Mutex::new([(key.to_owned(), bytes)].into()) }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let bytes = self.objects().get(key.as_str()).cloned();
        Ok(bytes.map(|bytes| Object { bytes: bytes.into(), version: Version("1".into()), age: Some(Duration::ZERO) }))
    }

    async fn put(&self, key: &Key, bytes: Bytes, _: Expect) -> Result<Version, StoreError> {
        self.objects().insert(key.to_string(), bytes.to_vec());
        Ok(Version("1".into()))
    }

    async fn append(&self, key: &Key, at: u64, bytes: Bytes) -> Result<(), StoreError> {
        let mut objects = self.objects();
        let object = objects.entry(key.to_string()).or_default();
        if object.len() as u64 != at {
            return Err(StoreError::WrongPosition { key: key.clone(), at });
        }
        object.extend_from_slice(&bytes);
        Ok(())
    }

    async fn read_from(&self, key: &Key, offset: u64) -> Result<Option<Bytes>, StoreError> {
        let objects = self.objects();
        Ok(objects.get(key.as_str()).map(|bytes| bytes.get(offset as usize..).unwrap_or_default().to_vec().into()))
    }

    async fn cut(&self, key: &Key, len: u64, to: u64) -> Result<bool, StoreError> {
        let mut objects = self.objects();
        let object = objects.get_mut(key.as_str()).filter(|object| self.can_cut && object.len() as u64 == len);
        Ok(object.map(|object| object.truncate(to as usize)).is_some())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let objects = self.objects();
        let listed = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        Ok(listed
            .map(|(name, bytes)| Listed { key: Key::new(name.clone()), len: bytes.len() as u64, age: Duration::ZERO })
            .collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.objects().remove(key.as_str());
        Ok(())
    }

    async fn announce(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn holder(&self, _: &str) -> Result<Holder, StoreError> {
        Ok(Holder::Unknown)
    }

    async fn probe(&self) -> Result<String, StoreError> {
        Ok("in memory".into())
    }

    fn place(&self) -> String {
        "memory".into()
    }
}

/// Runs what waits for nothing but itself.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}
