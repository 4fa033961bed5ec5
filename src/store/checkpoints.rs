//! Checkpoint documents in a store: loaded whole, written by compare-and-swap alone.

use super::{Expect, Holder, Key, Object, Store, StoreError, Version};
use crate::flow::attempts::{Attempts, Jitter};
use crate::flow::checkpoint::{Checkpoint, Decoded};
use crate::flow::planted::{self, Bug};
use crate::flow::retry::Patience;
use crate::flow::{AccountName, FeedId, Stream, Time};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How old the fallback copy may grow before it is renewed.
const PREVIOUS_EVERY: Duration = Duration::from_secs(600);
/// Repetitions of a write whose outcome is unknown.
const SAVE_TRIES: u32 = 4;

/// A checkpoint as stored, and what a write must expect.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub checkpoint: Checkpoint,
    pub version: Version,
    /// Time since it was written, by the store's clock, and never less than since this process first saw it.
    pub age: Duration,
    /// The store tells no time: the age is only as long as this process has seen it.
    pub is_guessed: bool,
}

/// What stands under a feed's name.
#[derive(Debug)]
pub enum Found {
    /// No checkpoint: the first start, or it was deleted and only its fallback copy is left.
    Nothing {
        previous: Option<Box<Checkpoint>>,
    },
    Good(Box<Loaded>),
    /// The document was unreadable, a copy was put aside, and the fallback copy (if there is one) takes its place.
    Replaced {
        why: String,
        aside: Key,
        previous: Option<Box<Checkpoint>>,
        version: Version,
    },
}

/// A checkpoint that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process wrote it first: drop every plan and load again.
    #[error("the checkpoint {0} was taken over by another process")]
    Lost(Key),
    /// A newer program wrote it.
    #[error(
        "{key} was written by {writer}, which asks for a reader of format {min_reader} or newer: upgrade this program"
    )]
    TooNew { key: Key, writer: String, min_reader: u32 },
    #[error("the checkpoint {key} cannot be written as JSON")]
    Unwritable {
        key: Key,
        #[source]
        cause: serde_json::Error,
    },
}

/// The checkpoints of one process.
#[derive(Clone)]
pub struct Checkpoints {
    store: Arc<dyn Store>,
    /// Random per process start.
    owner: String,
    /// When this process first saw the version of a checkpoint that it saw last: one entry a feed.
    seen: Arc<Mutex<HashMap<Key, (Version, Instant)>>>,
}

impl Checkpoints {
    pub fn new(store: Arc<dyn Store>, owner: String) -> Self {
        Self { store, owner, seen: Arc::default() }
    }

    pub fn owner(&self) -> &str {
        &self.owner
    }

    pub(super) const FOLDER: &str = "checkpoints/";

    pub fn key(feed: &FeedId) -> Key {
        Key::new(format!("{}{}/{}.json", Self::FOLDER, feed.account, feed.stream))
    }

    pub(super) fn previous_key(feed: &FeedId) -> Key {
        Key::new(format!("{}{}/{}.prev.json", Self::FOLDER, feed.account, feed.stream))
    }

    /// Every feed that has a checkpoint, or a fallback copy of one.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn feeds(store: &dyn Store) -> Result<BTreeSet<FeedId>, StoreError> {
        Ok(store.list(Self::FOLDER).await?.iter().filter_map(|listed| Self::feed_of(&listed.key)).collect())
    }

    /// Whose checkpoint, or fallback copy of it, a key names.
    pub(super) fn feed_of(key: &Key) -> Option<FeedId> {
        let (account, name) = key.as_str().strip_prefix(Self::FOLDER)?.split_once('/')?;
        let name = name.strip_suffix(".json")?;
        let name = name.strip_suffix(".prev").unwrap_or(name);
        let stream = Stream::ALL.into_iter().find(|stream| stream.as_str() == name)?;
        Some(FeedId { account: AccountName::parse(account)?, stream })
    }

    /// Reads the checkpoint. An unreadable one is copied aside first, so that nothing is overwritten unseen.
    pub async fn load(&self, feed: &FeedId) -> Result<Found, CheckpointError> {
        let key = Self::key(feed);
        let Some(Object { bytes, version, age }) = self.store.get(&key).await? else {
            return Ok(Found::Nothing { previous: self.previous(feed).await?.map(Box::new) });
        };
        let why = match Checkpoint::decode(&bytes) {
            Decoded::Good(checkpoint) if checkpoint.feed() == *feed => {
                let seen_for = self.seen_for(&key, &version);
                let (age, is_guessed) = (age.unwrap_or_default().max(seen_for), age.is_none());
                return Ok(Found::Good(Box::new(Loaded { checkpoint: *checkpoint, version, age, is_guessed })));
            }
            Decoded::Good(other) => format!("it belongs to {}", other.feed()),
            Decoded::TooNew { writer, min_reader } => return Err(CheckpointError::TooNew { key, writer, min_reader }),
            Decoded::Corrupt(why) => why,
        };
        let stamp = crate::flow::map::sha256_hex(&bytes);
        let aside = Key::new(format!(
            "checkpoints/{}/{}.corrupt-{}",
            feed.account,
            feed.stream,
            stamp.get(..12).unwrap_or("0")
        ));
        self.store.put(&aside, bytes, Expect::Anything).await?;
        let previous = self.previous(feed).await?.map(Box::new);
        Ok(Found::Replaced { why, aside, previous, version })
    }

    /// How long this process has known this version. Whatever the store's clock says, or whether it says anything, it is at least so old.
    fn seen_for(&self, key: &Key, version: &Version) -> Duration {
        let mut seen = self.seen.lock();
        match seen.get(key) {
            Some((known, since)) if known == version => since.elapsed(),
            _ => {
                seen.insert(key.clone(), (version.clone(), Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Whether there is one, readable or not.
    pub async fn is_there(&self, feed: &FeedId) -> Result<bool, StoreError> {
        Ok(self.store.get(&Self::key(feed)).await?.is_some())
    }

    async fn previous(&self, feed: &FeedId) -> Result<Option<Checkpoint>, CheckpointError> {
        let Some(object) = self.store.get(&Self::previous_key(feed)).await? else { return Ok(None) };
        match Checkpoint::decode(&object.bytes) {
            Decoded::Good(checkpoint) if checkpoint.feed() == *feed => Ok(Some(*checkpoint)),
            Decoded::Good(_) | Decoded::Corrupt(_) | Decoded::TooNew { .. } => Ok(None),
        }
    }

    /// Keeps a copy to fall back to. An old copy is safe: what it makes us read again is in the ledger.
    pub async fn keep_previous(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let feed = checkpoint.feed();
        let key = Self::previous_key(&feed);
        let fresh =
            self.store.get(&key).await?.is_some_and(|previous| previous.age.is_some_and(|age| age < PREVIOUS_EVERY));
        if !fresh {
            // Its intent is settled by the time it would be used.
            let copy = Checkpoint { slot: checkpoint.slot.without_batch(), ..checkpoint.clone() };
            self.store.put(&key, encode(&copy, &key)?, Expect::Anything).await?;
        }
        Ok(())
    }

    /// Writes the checkpoint if nobody else has since `version` was read; `None` expects that there is none.
    ///
    /// A reply that is lost and a write that is repeated look like a conflict: the stored `write_id` decides whose write it was.
    pub async fn save(
        &self,
        cp: &mut Checkpoint,
        version: Option<&Version>,
        now: Time,
    ) -> Result<Version, CheckpointError> {
        self.save_within(Duration::ZERO, cp, version, now).await
    }

    /// The same, tried again for so long while the store is away: always the same bytes, so that a write whose reply was lost is known.
    pub async fn save_within(
        &self,
        patience: Duration,
        cp: &mut Checkpoint,
        version: Option<&Version>,
        now: Time,
    ) -> Result<Version, CheckpointError> {
        let key = Self::key(&cp.feed());
        cp.write_id = uuid::Uuid::new_v4().simple().to_string();
        cp.written_at = now;
        let bytes = encode(cp, &key)?;
        let expect = match version {
            _ if planted::is(Bug::NoCompareAndSwap) => Expect::Anything,
            Some(version) => Expect::Is(version.clone()),
            None => Expect::Absent,
        };
        let (begun, mut tries) = (Instant::now(), 0);
        let mut jitter = Jitter::new(u64::from(crc32fast::hash(cp.write_id.as_bytes())));
        let mut attempts = Attempts::new(Patience::within(patience), &mut jitter);
        loop {
            let error = match self.store.put(&key, bytes.clone(), expect.clone()).await {
                Ok(version) => return Ok(version),
                Err(error @ (StoreError::Conflict { .. } | StoreError::Failed { .. } | StoreError::Locked { .. })) => {
                    error
                }
                Err(error) => return Err(error.into()),
            };
            let error = match self.store.get(&key).await {
                Ok(Some(object)) if object.bytes == bytes => return Ok(object.version),
                Ok(stored) if stored.as_ref().map(|object| &object.version) != version => {
                    return Err(CheckpointError::Lost(key));
                }
                Ok(_) => {
                    tries += 1;
                    error
                }
                Err(away) => {
                    tries = SAVE_TRIES;
                    away
                }
            };
            if tries < SAVE_TRIES {
                continue;
            }
            // The last try is at the very end: what is given up here is posted again.
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(error.into());
            }
            tracing::warn!(%key, error = %error, "the position is not written yet: trying again");
            attempts.begin();
            let (ControlFlow::Continue(wait) | ControlFlow::Break(wait)) = attempts.pause(begun.elapsed(), None);
            tokio::time::sleep(wait.min(left)).await;
        }
    }

    /// Whether another process holds the open intent of `loaded`, and for how much longer at most.
    pub async fn held_by_other(&self, loaded: &Loaded) -> Result<Option<Duration>, CheckpointError> {
        let Some(intent) = loaded.checkpoint.slot.intent() else { return Ok(None) };
        if intent.owner() == self.owner {
            return Ok(None);
        }
        let left = intent.ttl().saturating_sub(loaded.age);
        if left.is_zero() || self.store.holder(intent.owner()).await? == Holder::Gone {
            return Ok(None);
        }
        Ok(Some(left))
    }
}

fn encode(cp: &Checkpoint, key: &Key) -> Result<Bytes, CheckpointError> {
    let bytes = cp.encode().map_err(|cause| CheckpointError::Unwritable { key: key.clone(), cause })?;
    Ok(bytes.into())
}
