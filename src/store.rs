//! Where the position is kept: the contract that every store keeps. One file per store.

use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::time::Duration;

pub mod azure_blob;
mod azure_fault;
mod azure_list;
mod azure_try;
pub mod backfills;
pub mod checkpoints;
pub mod dead_letters;
mod disk;
pub mod file;
pub mod ledger;
mod locks;
pub mod owners;
mod probe;
pub mod rename;
mod room;
pub mod survey;

pub use probe::prove_versions;

/// A `/`-separated name inside the store: segments of `[A-Za-z0-9._-]`, no empty, `.` or `..` segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// # Panics
    /// Never on outside data: keys are built from validated parts; an illegal name is a bug.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        assert!(Self::is_legal(&name), "illegal store key {name:?}");
        Self(name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_legal(name: &str) -> bool {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        !name.is_empty()
            && name.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.bytes().all(legal))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What changes with every write of a document: an ETag, or a hash of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

/// A whole document as read.
#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Bytes,
    pub version: Version,
    /// Time since the last write, by the store's own clock (blob: Date - Last-Modified); never negative. None: it tells no time.
    pub age: Option<Duration>,
}

/// What must be there for a put to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Is(Version),
    /// Overwrite whatever is there: only for documents that nobody races for.
    Anything,
}

/// One name in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: Key,
    pub len: u64,
    /// Time since the last write, by the store's own clock.
    pub age: Duration,
}

/// Whether the process that owns an intent still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Alive,
    Gone,
    /// The store cannot tell: only the age of the intent decides.
    Unknown,
}

/// A store operation that did not happen, or whose outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The document is not what the caller expected: another process wrote it, or our own write was repeated after a lost reply.
    /// The caller reads again and compares `write_id` before it believes in a conflict.
    #[error("{key} was changed by another writer")]
    Conflict { key: Key },
    /// The append was refused because the object is not `at` bytes long.
    #[error("{key} is not {at} bytes long")]
    WrongPosition { key: Key, at: u64 },
    /// The object takes no more appends (block limit); roll to the next segment.
    #[error("{key} takes no more appends")]
    Full { key: Key },
    /// Another process kept the lock for as long as it is waited for: nothing was read or written.
    #[error("{on} is locked: {holder} has held the lock for {seconds} s")]
    Locked { on: String, holder: String, seconds: u64 },
    /// Credential or permission refused; the remedy names the role or the file mode.
    #[error("{attempted} {on} refused: {remedy}")]
    Refused {
        attempted: &'static str,
        on: String,
        remedy: String,
        #[source]
        cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The store accepts what it must refuse: two processes would overwrite each other.
    #[error(
        "{place} ignores {what}: two processes would overwrite each other, and rows would be shipped again and again"
    )]
    Unfit { place: String, what: &'static str },
    /// Anything else; a put or append may or may not have happened.
    #[error("{attempted} {on} failed")]
    Failed {
        attempted: &'static str,
        on: String,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the service refuses who asks; a file that may not be read is none of this.
    pub fn is_of_credentials(&self) -> bool {
        let Self::Refused { cause: Some(cause), .. } = self else { return false };
        cause.is::<azure_fault::CredentialRefused>()
    }

    /// What to do about [`StoreError::Locked`].
    pub const UNLOCK: &str =
        "another process uses this store: wait until it is done, or end it if it is stopped or hung";
    /// What to do about [`StoreError::Unfit`].
    pub const FIT: &str = "something on the way drops the conditions of requests (a proxy, a gateway, an emulator): point store.container_url at \
        the storage account itself, and let http.proxy pass If-Match, If-None-Match and x-ms-blob-condition-appendpos; nothing is posted meanwhile";
}

/// A key-value store with compare-and-swap and conditional append.
///
/// Every call is one bounded operation (30 s at most, retries of transient faults included). A put or append whose reply was lost may be
/// answered with `Conflict` or `WrongPosition` although it happened: callers recognise their own writes by content.
#[async_trait]
pub trait Store: Send + Sync {
    /// `None` when the key is absent.
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError>;

    /// Atomic and durable when it returns: either the whole new document is there or the old one.
    async fn put(&self, key: &Key, bytes: Bytes, expect: Expect) -> Result<Version, StoreError>;

    /// Append durably when the object is exactly `at` bytes long; `at` 0 creates it when it is absent.
    async fn append(&self, key: &Key, at: u64, bytes: Bytes) -> Result<(), StoreError>;

    /// Make sure that appends of `room` bytes from `at` on will find room; nothing that can be read changes, but an absent object may
    /// be there and empty afterwards. A store in which an append that fits finds its place, however long, does nothing.
    async fn reserve(&self, _key: &Key, _at: u64, _room: u64) -> Result<(), StoreError> {
        Ok(())
    }

    /// The bytes of an appended object from `offset` on; `None` when the key is absent, empty when `offset` is its length.
    async fn read_from(&self, key: &Key, offset: u64) -> Result<Option<Bytes>, StoreError>;

    /// Cut an appended object of `len` bytes back to `to` bytes: the torn tail of a crashed append. `Ok(false)` when it is no longer
    /// `len` bytes long, or when this store cannot cut (then appends are atomic and no torn tail exists).
    async fn cut(&self, key: &Key, len: u64, to: u64) -> Result<bool, StoreError>;

    /// Every key that starts with `prefix`, in byte order.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;

    /// Whether the document's stamp lies ahead of the store's clock, as after that was set back: its age, told as zero so that nobody
    /// takes over early, is not known then. Never in a store whose clock nobody sets.
    async fn is_ahead(&self, _key: &Key) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Absent afterwards, also when it was absent before.
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Announce this process as `owner` for as long as it lives (a lock file); stores that cannot do nothing.
    async fn announce(&self, owner: &str) -> Result<(), StoreError>;

    /// Whether the process that announced `owner` still lives.
    async fn holder(&self, owner: &str) -> Result<Holder, StoreError>;

    /// Prove that the store can be read and written: put, compare-and-swap, append, delete under `probe/`. A sentence of what was proved.
    async fn probe(&self) -> Result<String, StoreError>;

    /// The directory or container URL without SAS, for messages.
    fn place(&self) -> String;
}
