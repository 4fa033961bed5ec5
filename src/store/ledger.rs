//! The ledger: the ids already accepted by the sink, in append-only segments by event hour.

mod append;
mod elsewhere;
mod frame;
mod listing;

pub use listing::Stock;

use super::{Key, Store, StoreError};
use crate::flow::{EventId, EventKey, FeedId, Hour};
use elsewhere::Sieve;
use frame::{Frame, frames};
use futures_util::{StreamExt, TryStreamExt, stream};
use listing::Hourly;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Segments asked or appended at once.
const PARALLEL: usize = 16;
/// Ids kept in memory beyond what a page needs: about 6 MB.
const CACHED_IDS_MAX: usize = 150_000;
/// Ids after which a segment rolls over to `{hour}.1`.
const SEGMENT_IDS_MAX: usize = 200_000;
/// Parts an hour may have: 20 million ids.
const PARTS_MAX: u32 = 100;

/// Which ids the sink has accepted, and in which attempt.
pub struct Ledger {
    store: Arc<dyn Store>,
    prefix: String,
    segments: HashMap<Hour, Segment>,
    /// What exists, by hour, as of the last listing and our own appends since; none: must be listed before use.
    index: Option<HashMap<Hour, Hourly>>,
    /// Nobody has compared what was last found there with what the checkpoint says yet.
    is_unchecked: bool,
    /// Torn tails as read: they are listed, until an append cuts them where the store can.
    torn: HashMap<Hour, Stock>,
    is_loss_told: bool,
    /// Its segments took an append of this process before its first POST.
    is_proven: bool,
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
    /// The parts before that one.
    full: Stock,
    /// What was listed of it, and is no whole frame.
    torn: Stock,
}

impl Ledger {
    /// A new sink starts with an empty ledger: its fingerprint is part of the path.
    pub fn new(store: Arc<dyn Store>, feed: &FeedId, sink_fingerprint: &str) -> Self {
        let prefix = format!("ledger/{}/{}/{sink_fingerprint}", feed.account, feed.stream);
        let (segments, index) = (HashMap::new(), None);
        let torn = HashMap::new();
        Self {
            store,
            prefix,
            segments,
            index,
            is_unchecked: false,
            torn,
            is_loss_told: false,
            is_proven: false,
            sieve: None,
        }
    }

    /// Drops what is in memory: another process may have appended.
    pub fn forget(&mut self) {
        self.segments.clear();
        self.index = None;
        self.sieve = None;
    }

    /// Segments in the store as of the last listing (parts of an hour counted each), and ids in memory.
    pub fn size(&self) -> (usize, usize) {
        let segments = self.stock().map_or(0, |stock| stock.segments as usize);
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
            None => self.look().await?,
        };
        let missing: Vec<Hour> = hours.into_iter().filter(|hour| !self.segments.contains_key(hour)).collect();
        let this = &*self;
        let read: Vec<(Hour, Segment)> = stream::iter(missing)
            .map(|hour| {
                let last_part = index.get(&hour).map(|hourly| hourly.last_part);
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
        self.index = Some(index);
        self.sift(read.iter().flat_map(|(_, segment)| segment.ids.keys()));
        read.into_iter().for_each(|(hour, segment)| self.keep(hour, segment));
        Ok(())
    }

    /// Takes over what a read or an append has shown of an hour.
    fn keep(&mut self, hour: Hour, segment: Segment) {
        let stock = segment.stock();
        if segment.torn.bytes > 0 {
            self.torn.insert(hour, segment.torn);
        }
        if let Some(index) = &mut self.index
            && (stock.segments > 0 || index.contains_key(&hour))
        {
            let known = index.insert(hour, Hourly { last_part: segment.part, stock });
            // Less than was listed: torn, or lost since.
            self.is_unchecked |= known.is_some_and(|known| known.stock.bytes > stock.bytes);
        }
        self.segments.insert(hour, segment);
    }

    /// The highest attempt under which a key was accepted. Only for keys that were loaded.
    pub fn attempt(&self, key: &EventKey) -> Option<u32> {
        self.segments.get(&key.hour)?.ids.get(&key.id).copied()
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
                let torn = (bytes.len() - whole) as u64;
                segment.torn.add(Stock { segments: u64::from(whole == 0), bytes: torn });
                tracing::warn!(segment = %self.key(hour, part), bytes = torn, "ledger segment ends in a torn frame: left by a crash, cut at the next append");
            }
        }
        Ok(segment)
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

impl Segment {
    /// What stands in whole frames: a torn tail may be cut again.
    fn stock(&self) -> Stock {
        let segments = self.full.segments + u64::from(self.part_len > 0);
        Stock { segments, bytes: self.full.bytes + self.part_len }
    }

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
        self.full = self.stock();
        (self.part, self.part_len, self.part_ids) = (self.part + 1, 0, 0);
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
