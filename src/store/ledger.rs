//! The ledger: the ids already accepted by the sink, in append-only segments by event hour. Frames of
//! `{length u32, batch_id [16], attempt u32, ids [16 each], crc32 u32}`, little-endian; `length` counts what follows it.

use super::{Key, Store, StoreError};
use crate::flow::planted::{self, Bug};
use crate::flow::{EventId, EventKey, FeedId, Hour};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

#[path = "elsewhere.rs"]
mod elsewhere;
use elsewhere::Sieve;

/// Segments asked or appended at once.
const PARALLEL: usize = 16;
/// Ids kept in memory beyond what a page needs: about 6 MB.
const CACHED_IDS_MAX: usize = 150_000;
/// Ids after which a segment rolls over to `{hour}.1`.
const SEGMENT_IDS_MAX: usize = 200_000;
/// Parts an hour may have: 20 million ids.
const PARTS_MAX: u32 = 100;
/// Reads of a moving end before an append is given up.
const APPEND_TRIES: u32 = 8;
const HEAD_BYTES: usize = 20;
const ID_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

/// Which ids the sink has accepted, and in which attempt.
pub struct Ledger {
    store: Arc<dyn Store>,
    prefix: String,
    segments: HashMap<Hour, Segment>,
    /// The parts that exist, by hour, as of the last listing; none: must be listed before use.
    index: Option<HashMap<Hour, u32>>,
    is_loss_told: bool,
    /// Of the ids in memory; none until it is asked, and again when ids left memory.
    sieve: Option<Sieve>,
}

/// One hour as known: its ids with the highest attempt seen, and where its last part ends.
#[derive(Clone, Debug, Default)]
struct Segment {
    ids: HashMap<EventId, u32>,
    part: u32,
    part_len: u64,
    part_ids: usize,
}

/// Ids accepted together.
struct Frame {
    batch_id: [u8; 16],
    attempt: u32,
    ids: Vec<EventId>,
}

impl Ledger {
    /// A new sink starts with an empty ledger: its fingerprint is part of the path.
    pub fn new(store: Arc<dyn Store>, feed: &FeedId, sink_fingerprint: &str) -> Self {
        let prefix = format!("ledger/{}/{}/{sink_fingerprint}", feed.account, feed.stream);
        Self { store, prefix, segments: HashMap::new(), index: None, is_loss_told: false, sieve: None }
    }

    /// Drops what is in memory: another process may have appended.
    pub fn forget(&mut self) {
        self.segments.clear();
        self.index = None;
        self.sieve = None;
    }

    /// Segments in the store as of the last listing (parts of an hour counted each), and ids in memory.
    pub fn size(&self) -> (usize, usize) {
        let segments = self.index.iter().flatten().map(|(_, last_part)| *last_part as usize + 1).sum();
        (segments, self.segments.values().map(|segment| segment.ids.len()).sum())
    }

    /// Says so, once, when there is no segment at all although `shipped` events were recorded: they may be shipped again.
    pub fn tell_loss(&mut self, shipped: u64) {
        let is_empty = self.index.as_ref().is_some_and(HashMap::is_empty);
        if is_empty && shipped > 0 && !std::mem::replace(&mut self.is_loss_told, true) {
            tracing::error!(ledger = %self.prefix, shipped, remedy = "restore it while opship stands still, or expect duplicates", "the ledger is empty although events were shipped: it was deleted, has retired, or the \
                destination is a new one; what is read again is shipped again, and such copies are in no frame");
        }
    }

    /// Brings the segments of these keys into memory; afterwards [`Ledger::attempt`] answers for them.
    pub async fn load(&mut self, keys: impl Iterator<Item = EventKey>) -> Result<(), StoreError> {
        let hours: BTreeSet<Hour> = keys.map(|key| key.hour).collect();
        self.make_room(&hours);
        let index = match self.index.take() {
            Some(index) => index,
            None => self.list().await?.into_iter().map(|(hour, parts)| (hour, parts.last_part)).collect(),
        };
        let missing: Vec<Hour> = hours.into_iter().filter(|hour| !self.segments.contains_key(hour)).collect();
        let this = &*self;
        let read: Vec<(Hour, Segment)> = stream::iter(missing)
            .map(|hour| {
                let last_part = index.get(&hour).copied();
                async move {
                    let segment = match last_part {
                        Some(last) => this.read(hour, last).await?,
                        None => Segment::default(),
                    };
                    Ok::<_, StoreError>((hour, segment))
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        self.sift(read.iter().flat_map(|(_, segment)| segment.ids.keys()));
        self.segments.extend(read);
        self.index = Some(index);
        Ok(())
    }

    /// The highest attempt under which a key was accepted. Only for keys that were loaded.
    pub fn attempt(&self, key: &EventKey) -> Option<u32> {
        self.segments.get(&key.hour)?.ids.get(&key.id).copied()
    }

    /// Records that the sink accepted these ids. Durable when it returns; repeating it is harmless.
    pub async fn append(&mut self, batch_id: [u8; 16], attempt: u32, keys: &[EventKey]) -> Result<(), StoreError> {
        self.sift(keys.iter().map(|key| &key.id));
        let mut by_hour: BTreeMap<Hour, Vec<EventId>> = BTreeMap::new();
        for key in keys {
            by_hour.entry(key.hour).or_default().push(key.id);
        }
        self.load(keys.iter().copied()).await?;
        let mut work = Vec::new();
        for (hour, ids) in by_hour {
            let segment = self.segments.remove(&hour).unwrap_or_default();
            work.push((hour, segment, Frame { batch_id, attempt, ids }));
        }
        let this = &*self;
        let done: Vec<(Hour, Result<Segment, StoreError>)> = stream::iter(work)
            .map(|(hour, segment, frame)| async move { (hour, this.append_frame(hour, segment, frame).await) })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        let mut failed = None;
        for (hour, outcome) in done {
            match outcome {
                Ok(segment) => {
                    if let Some(index) = &mut self.index {
                        index.insert(hour, segment.part);
                    }
                    self.segments.insert(hour, segment);
                }
                Err(error) => failed = Some(error),
            }
        }
        // What a failed append left behind is unknown: look again before the next use.
        failed.map_or(Ok(()), |error| {
            self.forget();
            Err(error)
        })
    }

    async fn append_frame(&self, hour: Hour, mut segment: Segment, frame: Frame) -> Result<Segment, StoreError> {
        let bytes = Bytes::from(frame.encode());
        let mut last = None;
        for _ in 0..APPEND_TRIES {
            if segment.part_ids >= SEGMENT_IDS_MAX && segment.part < PARTS_MAX {
                segment.roll();
            }
            let key = self.key(hour, segment.part);
            match self.store.append(&key, segment.part_len, bytes.clone()).await {
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
            if self.catch_up(hour, &mut segment, Some(&frame)).await? {
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
                    segment.roll();
                }
            }
        }
        Ok(found)
    }

    async fn read(&self, hour: Hour, last_part: u32) -> Result<Segment, StoreError> {
        let mut segment = Segment::default();
        for part in 0..=last_part {
            if part > 0 {
                segment.roll();
            }
            let bytes = self.store.read_from(&self.key(hour, part), 0).await?.unwrap_or_default();
            let (frames, whole) = frames(&bytes);
            frames.into_iter().for_each(|frame| segment.take(frame));
            segment.part_len = whole as u64;
            if whole < bytes.len() {
                tracing::warn!(segment = %self.key(hour, part), bytes = bytes.len() - whole, "ledger segment ends in a torn frame: left by a crash, cut at the next append");
            }
        }
        Ok(segment)
    }

    /// Deletes segments whose hour and whose last append are both older than `keep`. Returns how many.
    pub async fn retire(&mut self, now: crate::flow::Time, keep: Duration) -> Result<usize, StoreError> {
        let mut retired = 0;
        let oldest = crate::flow::window::earlier(now, keep);
        for (hour, parts) in self.list().await? {
            let hour_is_old = hour.start().is_none_or(|start| start < oldest);
            if hour_is_old && (parts.youngest > keep || planted::is(Bug::RetireByEventTime)) {
                for part in 0..=parts.last_part {
                    self.store.delete(&self.key(hour, part)).await?;
                    retired += 1;
                }
                self.segments.remove(&hour);
                if let Some(index) = &mut self.index {
                    index.remove(&hour);
                }
            }
        }
        Ok(retired)
    }

    /// Deletes every segment: everything within reach will be shipped again.
    pub async fn retire_all(&mut self) -> Result<usize, StoreError> {
        let listed = self.store.list(&format!("{}/", self.prefix)).await?;
        for entry in &listed {
            self.store.delete(&entry.key).await?;
        }
        self.forget();
        Ok(listed.len())
    }

    /// How long ago each hour was appended to, by the store's clock.
    pub async fn ages(&self) -> Result<HashMap<Hour, Duration>, StoreError> {
        Ok(self.list().await?.into_iter().map(|(hour, parts)| (hour, parts.youngest)).collect())
    }

    async fn list(&self) -> Result<HashMap<Hour, Parts>, StoreError> {
        let mut hours: HashMap<Hour, Parts> = HashMap::new();
        for entry in self.store.list(&format!("{}/", self.prefix)).await? {
            let name = entry.key.as_str().rsplit('/').next().unwrap_or_default();
            let (hour, part) = name.split_once('.').unwrap_or((name, "0"));
            if let (Some(hour), Ok(part)) = (Hour::parse(hour), part.parse::<u32>()) {
                let parts = hours.entry(hour).or_insert(Parts { last_part: 0, youngest: Duration::MAX });
                parts.last_part = parts.last_part.max(part.min(PARTS_MAX));
                parts.youngest = parts.youngest.min(entry.age);
            }
        }
        Ok(hours)
    }

    fn key(&self, hour: Hour, part: u32) -> Key {
        match part {
            0 => Key::new(format!("{}/{hour}", self.prefix)),
            part => Key::new(format!("{}/{hour}.{part}", self.prefix)),
        }
    }

    /// Memory holds what the page needs and a little more, whatever the horizon is.
    fn make_room(&mut self, needed: &BTreeSet<Hour>) {
        let mut held: usize = self.segments.values().map(|segment| segment.ids.len()).sum();
        if held + self.segments.len() <= CACHED_IDS_MAX {
            return;
        }
        self.sieve = None;
        self.segments.retain(|hour, segment| {
            let keep = needed.contains(hour) || held <= CACHED_IDS_MAX / 2;
            held -= if keep { 0 } else { segment.ids.len() };
            keep
        });
    }
}

struct Parts {
    last_part: u32,
    youngest: Duration,
}

impl Segment {
    fn take(&mut self, frame: Frame) {
        self.part_ids += frame.ids.len();
        for id in frame.ids {
            let attempt = self.ids.entry(id).or_default();
            *attempt = frame.attempt.max(*attempt);
        }
    }

    /// The part is read again from its start; what was known stays known.
    fn start_over(&mut self) {
        (self.part_len, self.part_ids) = (0, 0);
    }

    fn roll(&mut self) {
        (self.part, self.part_len, self.part_ids) = (self.part + 1, 0, 0);
    }
}

impl Frame {
    fn same(&self, other: &Self) -> bool {
        self.batch_id == other.batch_id && self.attempt == other.attempt && self.ids == other.ids
    }

    fn encode(&self) -> Vec<u8> {
        let length = HEAD_BYTES + self.ids.len() * ID_BYTES + CRC_BYTES;
        let mut bytes = Vec::with_capacity(4 + length);
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&self.batch_id);
        bytes.extend_from_slice(&self.attempt.to_le_bytes());
        self.ids.iter().for_each(|id| bytes.extend_from_slice(&id.0));
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The frame at the start of `bytes` and its size; `None` when it is torn or broken.
    fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let size = 4 + length;
        let (body, crc) = bytes.get(..size)?.split_last_chunk::<CRC_BYTES>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (batch_id, rest) = rest.split_first_chunk::<16>()?;
        let (attempt, _) = rest.split_first_chunk::<4>()?;
        let (ids, odd) = body.get(4 + HEAD_BYTES..)?.as_chunks::<ID_BYTES>();
        odd.is_empty().then(|| {
            let ids = ids.iter().copied().map(EventId).collect();
            (Self { batch_id: *batch_id, attempt: u32::from_le_bytes(*attempt), ids }, size)
        })
    }
}

/// The whole frames of a segment and the bytes they take; what follows is torn.
fn frames(bytes: &[u8]) -> (Vec<Frame>, usize) {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some((frame, size)) = bytes.get(at..).and_then(Frame::decode) {
        frames.push(frame);
        at += size;
    }
    (frames, at)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
