//! Dead letters: originals that no POST can carry, kept by event id before their stub is posted.

use super::{Expect, Key, Listed, Store, StoreError};
use crate::flow::{AccountName, EventKey, FeedId, Hour, Stream, Time};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long dead letters are kept.
pub const KEEP: Duration = Duration::from_secs(30 * 86_400);
/// Letters read at once.
const PARALLEL: usize = 4;
/// Of the reason, so many characters are kept.
const WHY_CHARS_MAX: usize = 500;
const FOLDER: &str = "dead-letters/";
const ENDING: &str = ".json";

/// One original, and why it could not be shipped whole.
#[derive(Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    pub feed: String,
    pub id: String,
    pub hour: String,
    pub why: String,
    pub at: Time,
    /// The item as the source sent it; where columns are redacted, its row instead.
    pub event: String,
}

/// The event is personal data: it stands in no message.
impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feed, id, why, at, event, .. } = self;
        write!(f, "DeadLetter({feed} {id}, {why:?}, {at}, {} bytes)", event.len())
    }
}

/// A letter's place in the store, whatever state its document is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    /// `None`: the key names no feed that this program knows.
    pub feed: Option<FeedId>,
    pub id: String,
    pub bytes: u64,
    /// Time since it was written, by the store's clock.
    pub age: Duration,
}

impl Entry {
    /// `dead-letters/{account}/{stream}/{id}.json`.
    fn new(key: Key, bytes: u64, age: Duration) -> Self {
        let parts: Vec<&str> = key.as_str().split('/').skip(1).collect();
        let feed = match parts.as_slice() {
            [account, stream, _] => {
                let stream = Stream::ALL.into_iter().find(|known| known.as_str() == *stream);
                AccountName::parse(account).zip(stream).map(|(account, stream)| FeedId { account, stream })
            }
            _ => None,
        };
        let name = parts.last().copied().unwrap_or_default();
        let id = name.strip_suffix(ENDING).unwrap_or(name).to_owned();
        Self { feed, id, bytes, age, key }
    }

    /// How long it will still be kept.
    pub fn left(&self) -> Duration {
        KEEP.saturating_sub(self.age)
    }
}

/// A document that is no letter, or not the one that its key says.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("the document is gone")]
    Gone,
    #[error("it cannot be read")]
    Store(#[from] StoreError),
    #[error("it is no dead letter")]
    Damaged(#[from] serde_json::Error),
    #[error("it is of another event than its name says")]
    Misplaced,
}

/// The dead letters of a feed.
#[derive(Clone)]
pub struct DeadLetters {
    store: Arc<dyn Store>,
}

impl DeadLetters {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    fn prefix(feed: &FeedId) -> String {
        format!("{FOLDER}{}/{}/", feed.account, feed.stream)
    }

    fn name(feed: &FeedId, key: &EventKey) -> Key {
        Key::new(format!("{}{}{ENDING}", Self::prefix(feed), key.id))
    }

    /// Takes a letter back whose event may still be shipped whole. Absent afterwards.
    pub async fn withdraw(&self, feed: &FeedId, key: &EventKey) -> Result<(), StoreError> {
        self.store.delete(&Self::name(feed, key)).await
    }

    /// Keeps an original. Keyed by id: a second read of the same event overwrites its own letter.
    pub async fn keep(
        &self,
        feed: &FeedId,
        key: &EventKey,
        why: &str,
        event: &str,
        at: Time,
    ) -> Result<(), StoreError> {
        let name = Self::name(feed, key);
        let letter = DeadLetter {
            feed: feed.to_string(),
            id: key.id.to_string(),
            hour: key.hour.to_string(),
            why: why.chars().take(WHY_CHARS_MAX).collect(),
            at,
            event: event.to_owned(),
        };
        let bytes = serde_json::to_vec(&letter).map_err(|cause| StoreError::Failed {
            attempted: "encode dead letter",
            on: name.to_string(),
            cause: cause.into(),
        })?;
        self.store.put(&name, bytes.into(), Expect::Anything).await.map(drop)
    }

    /// Deletes letters older than [`KEEP`]. Returns how many.
    pub async fn retire(&self, feed: &FeedId) -> Result<usize, StoreError> {
        let mut retired = 0;
        for entry in letters_in(&*self.store, &Self::prefix(feed)).await? {
            if entry.age > KEEP {
                self.store.delete(&entry.key).await?;
                retired += 1;
            }
        }
        Ok(retired)
    }

    /// How many letters of a feed wait.
    pub async fn count(&self, feed: &FeedId) -> Result<usize, StoreError> {
        Self::count_of(self.store.as_ref(), feed).await
    }

    /// The same in a store that is only looked at.
    pub async fn count_of(store: &dyn Store, feed: &FeedId) -> Result<usize, StoreError> {
        Ok(letters_in(store, &Self::prefix(feed)).await?.len())
    }

    /// Every letter of every feed, also of feeds that are no longer configured.
    pub async fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let listed = letters_in(&*self.store, FOLDER).await?;
        Ok(listed.into_iter().map(|entry| Entry::new(entry.key, entry.len, entry.age)).collect())
    }

    /// The letter at an entry.
    pub async fn read(&self, entry: &Entry) -> Result<DeadLetter, Unreadable> {
        let object = self.store.get(&entry.key).await?.ok_or(Unreadable::Gone)?;
        let letter: DeadLetter = serde_json::from_slice(&object.bytes)?;
        let feed = entry.feed.as_ref().map(ToString::to_string);
        let fits = feed.as_ref() == Some(&letter.feed) && letter.id == entry.id && Hour::parse(&letter.hour).is_some();
        if fits { Ok(letter) } else { Err(Unreadable::Misplaced) }
    }

    /// What `see` makes of each letter, in the order of the entries. A letter that cannot be read never stops the others.
    pub async fn look<T>(
        &self,
        entries: Vec<Entry>,
        see: impl Fn(&DeadLetter) -> T,
    ) -> Vec<(Entry, Result<T, Unreadable>)> {
        let see = &see;
        let read = stream::iter(entries).map(|entry| async move {
            let seen = self.read(&entry).await.map(|letter| see(&letter));
            (entry, seen)
        });
        read.buffered(PARALLEL).collect().await
    }

    /// Absent afterwards.
    pub async fn delete(&self, entry: &Entry) -> Result<(), StoreError> {
        self.store.delete(&entry.key).await
    }
}

/// What is named as a letter is: an empty folder of the storage itself is none.
async fn letters_in(store: &dyn Store, prefix: &str) -> Result<Vec<Listed>, StoreError> {
    let mut listed = store.list(prefix).await?;
    listed.retain(|entry| entry.key.as_str().ends_with(ENDING));
    Ok(listed)
}
