//! How far a backfill has come: a document for each unfinished range, deleted at its end. No event content.

use super::checkpoints::CheckpointError;
use super::{Expect, Key, Object, Store};
use crate::flow::checkpoint::{Fingerprints, Unknown};
use crate::flow::envelope::{Kind, Opened};
use crate::flow::{AccountName, Cursor, FeedId, Stream, Time};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

const KIND: Kind = Kind { format: "opship-backfill", version: 1, min_reader: 1 };
/// Beyond it a document is not ours.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;
/// Unfinished ranges that nobody came back to are forgotten after so long; the ledger knows what they shipped.
const KEEP: Duration = Duration::from_secs(30 * 86_400);
/// `--from 30d` means another range the next day.
const RELATIVE_KEEP: Duration = Duration::from_secs(86_400);

/// The range that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub from: Time,
    pub to: Time,
    /// As it was written: a duration back names another time at each start, and still means the same range.
    pub asked: String,
    pub is_relative: bool,
}

/// A range under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub account: AccountName,
    pub stream: Stream,
    pub fingerprints: Fingerprints,
    pub span: Span,
    /// Where the window under way begins; the end of the range when all is done.
    pub next: Time,
    /// Where the next page of that window is; none: at its start.
    pub cursor: Option<Cursor>,
    /// How far the events read reach; only for people.
    pub reached: Time,
    pub done: Done,
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What was counted in all runs of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    pub pages: u64,
    pub read: u64,
    pub shipped: u64,
    pub known: u64,
    /// Dropped by the filter, or twice on a page.
    pub left_out: u64,
    pub dead_letters: u64,
}

impl Done {
    pub fn add(&mut self, more: Self) {
        self.pages += more.pages;
        self.read += more.read;
        self.shipped += more.shipped;
        self.known += more.known;
        self.left_out += more.left_out;
        self.dead_letters += more.dead_letters;
    }
}

impl Progress {
    pub fn new(feed: &FeedId, fingerprints: Fingerprints, span: Span) -> Self {
        let (account, stream, from) = (feed.account.clone(), feed.stream, span.from);
        let (cursor, done, unknown) = (None, Done::default(), Unknown::new());
        Self { account, stream, fingerprints, span, next: from, cursor, reached: from, done, unknown }
    }

    pub fn feed(&self) -> FeedId {
        FeedId { account: self.account.clone(), stream: self.stream }
    }

    fn key(&self) -> Key {
        let written = |time: Time| time.format("%Y%m%dT%H%M%S%.fZ").to_string();
        let (from, to) = (written(self.span.from), written(self.span.to));
        Key::new(format!("{}{from}-{to}", prefix(&self.feed())))
    }

    /// Whether the same range is asked for, between the same places.
    fn is_of(&self, span: &Span, fingerprints: &Fingerprints, age: Duration) -> bool {
        let is_meant = if span.is_relative { age < RELATIVE_KEEP } else { self.span.from == span.from };
        self.span.asked == span.asked && is_meant && self.fingerprints.fits(fingerprints)
    }
}

fn prefix(feed: &FeedId) -> String {
    format!("backfill/{}/{}/", feed.account, feed.stream)
}

/// The unfinished backfills of a store.
#[derive(Clone)]
pub struct Backfills {
    store: Arc<dyn Store>,
}

impl Backfills {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The unfinished backfill of this range, if there is one. Unreadable and forgotten ones are tidied away: the ledger keeps a fresh
    /// start free of duplicates.
    ///
    /// # Errors
    /// The store, or a document that a newer program wrote for this range.
    pub async fn find(
        &self,
        feed: &FeedId,
        span: &Span,
        fingerprints: &Fingerprints,
    ) -> Result<Option<Progress>, CheckpointError> {
        let mut found = None;
        for entry in self.store.list(&prefix(feed)).await? {
            let Some(Object { bytes, age, .. }) = self.store.get(&entry.key).await? else { continue };
            match decode(&bytes, feed) {
                Ok(progress) if progress.is_of(span, fingerprints, age.unwrap_or_default()) => found = Some(progress),
                Ok(_) if age.is_none_or(|age| age < KEEP) => {}
                Ok(_) => self.store.delete(&entry.key).await?,
                Err(Unreadable::Corrupt(why)) => {
                    tracing::warn!(%feed, key = %entry.key, why, "the progress of a backfill is unreadable: its range starts again, the ledger keeps it free of duplicates");
                    self.store.delete(&entry.key).await?;
                }
                Err(Unreadable::TooNew { writer, min_reader }) => {
                    return Err(CheckpointError::TooNew { key: entry.key, writer, min_reader });
                }
            }
        }
        Ok(found)
    }

    /// Writes down how far a range has come.
    ///
    /// # Errors
    /// The store.
    pub async fn keep(&self, progress: &Progress) -> Result<(), CheckpointError> {
        let key = progress.key();
        let bytes = KIND.seal(progress).map_err(|cause| CheckpointError::Unwritable { key: key.clone(), cause })?;
        self.store.put(&key, bytes.into(), Expect::Anything).await?;
        Ok(())
    }

    /// The range is done.
    ///
    /// # Errors
    /// The store.
    pub async fn finish(&self, progress: &Progress) -> Result<(), CheckpointError> {
        Ok(self.store.delete(&progress.key()).await?)
    }
}

/// The document under another name; `None` when it is not one that this program can read.
pub(super) fn renamed(bytes: &[u8], from: &FeedId, to: &FeedId) -> Option<Vec<u8>> {
    let progress = decode(bytes, from).ok()?;
    KIND.seal(&Progress { account: to.account.clone(), ..progress }).ok()
}

enum Unreadable {
    Corrupt(String),
    TooNew { writer: String, min_reader: u32 },
}

fn decode(bytes: &[u8], feed: &FeedId) -> Result<Progress, Unreadable> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(Unreadable::Corrupt(format!("it has {} bytes", bytes.len())));
    }
    let body = match KIND.open(bytes) {
        Opened::Body(body) => body,
        Opened::Corrupt(why) => return Err(Unreadable::Corrupt(why)),
        Opened::TooNew { writer, min_reader } => return Err(Unreadable::TooNew { writer, min_reader }),
    };
    let progress: Progress =
        serde_json::from_str(body).map_err(|error| Unreadable::Corrupt(format!("its body cannot be read: {error}")))?;
    let is_sane = progress.feed() == *feed
        && (progress.span.from..=progress.span.to).contains(&progress.next)
        && progress.span.from < progress.span.to;
    if is_sane {
        Ok(progress)
    } else {
        Err(Unreadable::Corrupt("it belongs elsewhere, or its times are out of order".into()))
    }
}
