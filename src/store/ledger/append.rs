//! How frames come into the ledger, and how it shows beforehand that it takes them.

use super::frame::{Frame, frames};
use super::{Ledger, PARALLEL, PARTS_MAX, SEGMENT_IDS_MAX, Segment, Stock};
use crate::flow::planted::{self, Bug};
use crate::flow::{EventId, EventKey, Hour};
use crate::store::{Key, StoreError};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;

/// Reads of a moving end before an append is given up.
const APPEND_TRIES: u32 = 8;
/// What an empty frame tells of a batch that has no intent yet.
const NO_BATCH: ([u8; 16], u32) = ([0; 16], 0);

/// A frame on its way into its segment.
struct Entry {
    frame: Frame,
    /// Bytes that must find room there with it; 0: it finds its own.
    room: u64,
}

impl Ledger {
    /// Records that the sink accepted these ids. Durable when it returns; repeating it is harmless.
    pub async fn append(&mut self, batch_id: [u8; 16], attempt: u32, keys: &[EventKey]) -> Result<(), StoreError> {
        self.sift(keys.iter().map(|key| &key.id));
        self.write(keys, |ids| Entry { frame: Frame { batch_id, attempt, ids }, room: 0 }).await
    }

    /// Proves that these ids can be recorded once they are accepted: an empty frame is appended to each of their segments, with room
    /// for the whole one where that can be reserved. A batch posted over a ledger that takes no appends would be posted again by each
    /// later start, without a trace.
    ///
    /// # Errors
    /// The store takes no append there: nothing may be posted.
    pub async fn prepare(&mut self, batch_id: [u8; 16], attempt: u32, keys: &[EventKey]) -> Result<(), StoreError> {
        if planted::is(Bug::SkipEmptyFrame) {
            return Ok(());
        }
        let entry = |ids: Vec<EventId>| {
            let frame = Frame { batch_id, attempt, ids: Vec::new() };
            let room = frame.size() + Frame { batch_id, attempt, ids }.size();
            Entry { frame, room }
        };
        self.write(keys, entry).await
    }

    /// [`Self::prepare`] for the first batch that this process posts; afterwards nothing.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub async fn prepare_first(&mut self, keys: &[EventKey]) -> Result<(), StoreError> {
        if !self.is_proven {
            let (batch_id, attempt) = NO_BATCH;
            self.prepare(batch_id, attempt, keys).await?;
            self.is_proven = true;
        }
        Ok(())
    }

    async fn write(&mut self, keys: &[EventKey], entry: impl Fn(Vec<EventId>) -> Entry) -> Result<(), StoreError> {
        let mut by_hour: BTreeMap<Hour, Vec<EventId>> = BTreeMap::new();
        for key in keys {
            by_hour.entry(key.hour).or_default().push(key.id);
        }
        self.load(keys.iter().copied()).await?;
        let mut work = Vec::new();
        for (hour, ids) in by_hour {
            let segment = self.segments.remove(&hour).unwrap_or_default();
            work.push((hour, segment, entry(ids)));
        }
        let this = &*self;
        let done: Vec<(Hour, Result<Segment, StoreError>)> = stream::iter(work)
            .map(|(hour, segment, entry)| async move { (hour, this.append_frame(hour, segment, entry).await) })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        let mut failed = None;
        for (hour, outcome) in done {
            match outcome {
                Ok(segment) => self.keep(hour, segment),
                Err(error) => failed = Some(error),
            }
        }
        // What a failed append left behind is unknown: look again before the next use.
        failed.map_or(Ok(()), |error| {
            self.forget();
            Err(error)
        })
    }

    async fn put(&self, key: &Key, at: u64, bytes: Bytes, room: u64) -> Result<(), StoreError> {
        if room > 0 {
            self.store.reserve(key, at, room).await?;
        }
        self.store.append(key, at, bytes).await
    }

    async fn append_frame(&self, hour: Hour, mut segment: Segment, entry: Entry) -> Result<Segment, StoreError> {
        let Entry { frame, room } = entry;
        let bytes = Bytes::from(frame.encode());
        let mut last = None;
        for _ in 0..APPEND_TRIES {
            if segment.part_ids >= SEGMENT_IDS_MAX && segment.part < PARTS_MAX {
                segment.roll();
            }
            let key = self.key(hour, segment.part);
            match self.put(&key, segment.part_len, bytes.clone(), room).await {
                Ok(()) => {
                    segment.part_len += bytes.len() as u64;
                    segment.take(frame);
                    return Ok(segment);
                }
                Err(StoreError::Full { .. }) if segment.part < PARTS_MAX => {
                    segment.roll();
                    continue;
                }
                // The end moved, or a reply was lost: what stands there now decides.
                Err(
                    error @ (StoreError::WrongPosition { .. }
                    | StoreError::Failed { .. }
                    | StoreError::Locked { .. }
                    | StoreError::Conflict { .. }),
                ) => {
                    // A full disk says more than the position that its torn write moved.
                    last = last
                        .filter(|known| matches!(known, StoreError::Failed { .. } | StoreError::Locked { .. }))
                        .or(Some(error));
                }
                Err(error) => return Err(error),
            }
            // An empty frame that stands there may be an old one: only an append that was confirmed proves anything.
            let own = (!frame.ids.is_empty()).then_some(&frame);
            if self.catch_up(hour, &mut segment, own).await? {
                return Ok(segment);
            }
        }
        Err(last.unwrap_or(StoreError::Full { key: self.key(hour, segment.part) }))
    }

    /// Reads from where the part was known to end. True when `own` was among the frames found.
    async fn catch_up(&self, hour: Hour, segment: &mut Segment, own: Option<&Frame>) -> Result<bool, StoreError> {
        let key = self.key(hour, segment.part);
        let Some(tail) = self.store.read_from(&key, segment.part_len).await? else {
            // Gone, or shorter than known (restored from a backup): start over from what is there.
            segment.start_over();
            return Ok(false);
        };
        if tail.is_empty() && segment.part_len > 0 {
            segment.start_over();
            return Ok(false);
        }
        let mut found = false;
        let (frames, whole) = frames(&tail);
        if whole < tail.len() && segment.part_len > 0 {
            // After a restore the known end may lie inside a frame that others have appended since: only a read from the start tells
            // a torn frame from a whole one.
            segment.start_over();
            return Ok(false);
        }
        for frame in frames {
            found |= own.is_some_and(|own| own.same(&frame));
            segment.take(frame);
        }
        segment.part_len += whole as u64;
        let torn = tail.len() - whole;
        if torn > 0 && !found {
            let len = segment.part_len + torn as u64;
            if !self.store.cut(&key, len, segment.part_len).await? {
                let now = self.store.read_from(&key, segment.part_len).await?.unwrap_or_default();
                // Unreadable and not to be cut: the rest of the part is lost to us, go on in the next one.
                if now.len() == torn && segment.part < PARTS_MAX {
                    tracing::error!(segment = %key, bytes = torn, remedy = "look at the disk; expect duplicates of that hour", "ledger segment has an unreadable tail: events in it may be shipped again");
                    let segments = u64::from(segment.part_len == 0);
                    segment.torn.add(Stock { segments, bytes: torn as u64 });
                    segment.roll();
                }
            }
        }
        Ok(found)
    }
}
