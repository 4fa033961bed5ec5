//! A blob container in memory: versions, positions, lost replies, failures and restores from a backup.

use crate::faults::{Kind, Struck};
use crate::link::Link;
use crate::world::State;
use async_trait::async_trait;
use bytes::Bytes;
use opship::store::{Expect, Holder, Key, Listed, Object, Store, StoreError, Version};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) bytes: Vec<u8>,
    version: u64,
    written: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Get,
    Put,
    Append,
    /// The append of a frame without ids.
    Prove,
    Read,
    List,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It did not happen.
    Fail,
    /// It happened, but the answer does not arrive.
    LoseReply,
    /// Only the first half of the bytes of an append arrived.
    Tear,
}

/// Length, batch id, attempt and checksum.
const EMPTY_FRAME_BYTES: usize = 28;

type Hook = Box<dyn FnMut(Op, &str) -> Option<Fault> + Send>;

pub(crate) struct Container {
    pub(crate) blobs: BTreeMap<String, Blob>,
    pub(crate) hook: Option<Hook>,
    pub(crate) writes: u64,
    /// How often each key was put.
    pub(crate) puts: BTreeMap<String, u64>,
    /// Owners that are known to be gone, as a file store knows them.
    pub(crate) gone: Vec<String>,
    pub(crate) can_cut: bool,
    /// What the store's clock is wrong by when it tells an age.
    pub(crate) clock_error: i64,
    /// Whether its answers have a Date.
    pub(crate) tells_time: bool,
    pub(crate) struck: Struck,
    /// The ledger takes no append: under which of its seals, if any.
    pub(crate) sealed: Option<u64>,
    seals: u64,
    version: u64,
}

impl Container {
    pub(crate) fn new() -> Self {
        Self {
            blobs: BTreeMap::new(),
            hook: None,
            writes: 0,
            puts: BTreeMap::new(),
            gone: Vec::new(),
            can_cut: false,
            clock_error: 0,
            tells_time: true,
            struck: Struck::none(),
            sealed: None,
            seals: 0,
            version: 0,
        }
    }

    /// From now on every append to the ledger is refused: an immutability policy, a lease, an archived tier, a full disk.
    pub(crate) fn seal(&mut self) {
        self.seals += 1;
        self.sealed = Some(self.seals);
    }

    pub(crate) fn set(&mut self, key: &str, bytes: Vec<u8>) {
        self.version += 1;
        let blob = Blob { bytes, version: self.version, written: Instant::now() };
        self.blobs.insert(key.to_owned(), blob);
    }

    fn fault(&mut self, op: Op, key: &str) -> Option<Fault> {
        let fault = self.hook.as_mut().and_then(|hook| hook(op, key))?;
        self.struck.by(match (op, fault) {
            (Op::Put, Fault::Fail) => Kind::PutFailed,
            (Op::Put, _) => Kind::PutReplyLost,
            (Op::Append | Op::Prove, Fault::Fail) => Kind::AppendFailed,
            (Op::Append | Op::Prove, Fault::LoseReply) => Kind::AppendReplyLost,
            (Op::Append | Op::Prove, Fault::Tear) => Kind::AppendTorn,
            _ => Kind::ReadFailed,
        });
        Some(fault)
    }

    fn age(&self, blob: &Blob) -> Duration {
        let error = Duration::from_secs(self.clock_error.unsigned_abs());
        let age = blob.written.elapsed();
        if self.clock_error < 0 { age.saturating_sub(error) } else { age + error }
    }

    /// Everything as it was at some moment, in new versions: a restore from a backup.
    pub(crate) fn restore(&mut self, backup: &BTreeMap<String, Blob>) {
        self.blobs.clear();
        for (key, blob) in backup {
            self.set(key, blob.bytes.clone());
        }
    }

    fn put(&mut self, key: &Key, bytes: &Bytes, expect: &Expect) -> Result<Version, StoreError> {
        let fault = self.fault(Op::Put, key.as_str());
        if fault == Some(Fault::Fail) {
            return Err(failed("put", key));
        }
        let stored = self.blobs.get(key.as_str()).map(|blob| Version(blob.version.to_string()));
        let fits = match expect {
            Expect::Anything => true,
            Expect::Absent => stored.is_none(),
            Expect::Is(version) => stored.as_ref() == Some(version),
        };
        if !fits {
            self.struck.by(Kind::PutConflict);
            return Err(StoreError::Conflict { key: key.clone() });
        }
        self.writes += 1;
        *self.puts.entry(key.to_string()).or_default() += 1;
        tracing::debug!(%key, version = self.version + 1, "a PUT arrives");
        self.set(key.as_str(), bytes.to_vec());
        if fault.is_some() { Err(failed("put", key)) } else { Ok(Version(self.version.to_string())) }
    }

    fn append(&mut self, key: &Key, at: u64, bytes: &Bytes) -> Result<(), StoreError> {
        if let Some(seal) = self.sealed.filter(|_| key.as_str().starts_with("ledger/")) {
            self.struck.by(Kind::LedgerSealed);
            return Err(if seal % 2 == 0 { failed("append", key) } else { refused(key) });
        }
        let op = if bytes.len() == EMPTY_FRAME_BYTES { Op::Prove } else { Op::Append };
        let fault = self.fault(op, key.as_str());
        if fault == Some(Fault::Fail) {
            return Err(failed("append", key));
        }
        let mut stored = self.blobs.get(key.as_str()).map(|blob| blob.bytes.clone()).unwrap_or_default();
        if stored.len() as u64 != at {
            return Err(StoreError::WrongPosition { key: key.clone(), at });
        }
        let part = if fault == Some(Fault::Tear) { bytes.len() / 2 } else { bytes.len() };
        stored.extend_from_slice(&bytes[..part]);
        tracing::debug!(%key, part, of = bytes.len(), "an append arrives");
        self.writes += 1;
        self.set(key.as_str(), stored);
        if fault.is_some() { Err(failed("append", key)) } else { Ok(()) }
    }
}

fn failed(attempted: &'static str, key: &Key) -> StoreError {
    StoreError::Failed { attempted, on: key.to_string(), cause: "scripted".into() }
}

fn refused(key: &Key) -> StoreError {
    let remedy = "let the ledger be appended to".to_owned();
    StoreError::Refused { attempted: "append to", on: key.to_string(), remedy, cause: None }
}

#[async_trait]
impl Store for Link {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.call(|state: &mut State| {
            if state.store.fault(Op::Get, key.as_str()).is_some() {
                return Err(failed("get", key));
            }
            Ok(state.store.blobs.get(key.as_str()).map(|blob| Object {
                bytes: blob.bytes.clone().into(),
                version: Version(blob.version.to_string()),
                age: state.store.tells_time.then(|| state.store.age(blob)),
            }))
        })
        .await
    }

    async fn put(&self, key: &Key, bytes: Bytes, expect: Expect) -> Result<Version, StoreError> {
        self.call(|state: &mut State| {
            let writes = state.store.writes;
            let put = state.store.put(key, &bytes, &expect);
            if state.store.writes > writes && state.is_watched {
                state.look_at_commit(key.as_str());
            }
            put
        })
        .await
    }

    async fn append(&self, key: &Key, at: u64, bytes: Bytes) -> Result<(), StoreError> {
        self.call(|state: &mut State| state.store.append(key, at, &bytes)).await
    }

    async fn read_from(&self, key: &Key, offset: u64) -> Result<Option<Bytes>, StoreError> {
        self.call(|state: &mut State| {
            if state.store.fault(Op::Read, key.as_str()).is_some() {
                return Err(failed("read", key));
            }
            let blob = state.store.blobs.get(key.as_str());
            Ok(blob.map(|blob| blob.bytes.get(offset as usize..).unwrap_or_default().to_vec().into()))
        })
        .await
    }

    async fn cut(&self, key: &Key, len: u64, to: u64) -> Result<bool, StoreError> {
        self.call(|state: &mut State| {
            let can_cut = state.store.can_cut;
            let blob = state.store.blobs.get_mut(key.as_str()).filter(|blob| can_cut && blob.bytes.len() as u64 == len);
            Ok(blob.map(|blob| blob.bytes.truncate(to as usize)).is_some())
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.call(|state: &mut State| {
            if state.store.fault(Op::List, prefix).is_some() {
                return Err(failed("list", &Key::new(prefix.trim_end_matches('/'))));
            }
            let listed = state.store.blobs.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(name, blob)| {
                Listed { key: Key::new(name.clone()), len: blob.bytes.len() as u64, age: state.store.age(blob) }
            });
            Ok(listed.collect())
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.call(|state: &mut State| {
            _ = state.store.fault(Op::Delete, key.as_str());
            state.store.blobs.remove(key.as_str());
            Ok(())
        })
        .await
    }

    async fn announce(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn holder(&self, owner: &str) -> Result<Holder, StoreError> {
        let gone = self.call(|state: &mut State| state.store.gone.iter().any(|gone| gone == owner)).await;
        Ok(if gone { Holder::Gone } else { Holder::Unknown })
    }

    async fn probe(&self) -> Result<String, StoreError> {
        Ok("in memory".into())
    }

    fn place(&self) -> String {
        "memory".into()
    }
}

/// How long an intent keeps other processes away.
pub(crate) const TTL: Duration = Duration::from_secs(121);
