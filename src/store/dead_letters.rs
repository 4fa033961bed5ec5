//! Dead letters: originals that no POST can carry, kept by event id before their stub is posted.

use super::{Expect, Key, Store, StoreError};
use crate::flow::{EventKey, FeedId, Time};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long dead letters are kept.
pub const KEEP: Duration = Duration::from_secs(30 * 86_400);

/// One original, and why it could not be shipped whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    pub feed: String,
    pub id: String,
    pub hour: String,
    pub why: String,
    pub at: Time,
    /// The item as the source sent it.
    pub event: String,
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
        format!("dead-letters/{}/{}/", feed.account, feed.stream)
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
        let name = Key::new(format!("{}{}.json", Self::prefix(feed), key.id));
        let letter = DeadLetter {
            feed: feed.to_string(),
            id: key.id.to_string(),
            hour: key.hour.to_string(),
            why: why.to_owned(),
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
        for entry in self.store.list(&Self::prefix(feed)).await? {
            if entry.age > KEEP {
                self.store.delete(&entry.key).await?;
                retired += 1;
            }
        }
        Ok(retired)
    }

    /// How many letters a feed has.
    pub async fn count(&self, feed: &FeedId) -> Result<usize, StoreError> {
        Ok(self.store.list(&Self::prefix(feed)).await?.len())
    }
}
