//! What the ledger consists of: how much there is, what may go, and what has gone by itself.

use super::frame::FRAME_BYTES_MIN;
use super::{Ledger, PARTS_MAX};
use crate::flow::planted::{self, Bug};
use crate::flow::{Hour, Time, window};
use crate::store::StoreError;
use std::collections::HashMap;
use std::time::Duration;

/// How many segments have something in them, and how many bytes that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    pub segments: u64,
    pub bytes: u64,
}

impl Stock {
    pub(super) const fn add(&mut self, other: Self) {
        self.segments += other.segments;
        self.bytes += other.bytes;
    }

    const fn without(self, other: Self) -> Self {
        let segments = self.segments.saturating_sub(other.segments);
        Self { segments, bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// The parts of one hour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hourly {
    pub last_part: u32,
    pub stock: Stock,
}

/// The same with the time since the last append, by the store's clock.
struct Parts {
    hourly: Hourly,
    youngest: Duration,
}

/// Segments that nothing can ask for any more.
#[derive(Debug)]
pub struct Retiring {
    hours: Vec<(Hour, u32)>,
    /// What is left without them.
    pub left: Stock,
}

impl Retiring {
    pub const fn is_empty(&self) -> bool {
        self.hours.is_empty()
    }
}

impl Ledger {
    /// What stands in the store by the last listing and our own appends since; `None`: not known at the moment.
    pub fn stock(&self) -> Option<Stock> {
        let mut stock = Stock::default();
        self.index.as_ref()?.values().for_each(|hourly| stock.add(hourly.stock));
        Some(stock)
    }

    /// The same once it was held against what the checkpoint says: what is missing must not be forgotten unseen.
    pub fn checked_stock(&self) -> Option<Stock> {
        self.stock().filter(|_| !self.is_unchecked)
    }

    /// What stands in the store where the last listing was not compared with the checkpoint yet, with every torn tail that the
    /// checkpoint may count. [`Ledger::is_checked`] follows.
    pub fn unchecked_stock(&self) -> Option<Stock> {
        let mut stock = self.stock().filter(|_| self.is_unchecked)?;
        self.torn.values().for_each(|torn| stock.add(*torn));
        Some(stock)
    }

    /// The last listing was compared.
    pub const fn is_checked(&mut self) {
        self.is_unchecked = false;
    }

    /// The segments whose hour and whose last append are both older than `keep`. The checkpoint must say what is left before
    /// [`Ledger::delete`], else they count as lost.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn retiring(&mut self, now: Time, keep: Duration) -> Result<Retiring, StoreError> {
        let oldest = window::earlier(now, keep);
        let listed = self.list().await?;
        let mut retiring = Retiring { hours: Vec::new(), left: Stock::default() };
        for (hour, parts) in &listed {
            let hour_is_old = hour.start().is_none_or(|start| start < oldest);
            if hour_is_old && (parts.youngest > keep || planted::is(Bug::RetireByEventTime)) {
                retiring.hours.push((*hour, parts.hourly.last_part));
            } else {
                retiring.left.add(self.whole(*hour, parts.hourly).stock);
            }
        }
        self.is_unchecked = true;
        self.index = Some(self.hourly(listed));
        Ok(retiring)
    }

    /// Deletes them. Returns how many there were.
    ///
    /// # Errors
    /// The store.
    pub async fn delete(&mut self, retiring: &Retiring) -> Result<usize, StoreError> {
        let mut deleted = 0;
        for (hour, last_part) in &retiring.hours {
            for part in 0..=*last_part {
                self.store.delete(&self.key(*hour, part)).await?;
                deleted += 1;
            }
            self.segments.remove(hour);
            self.torn.remove(hour);
            if let Some(index) = &mut self.index {
                index.remove(hour);
            }
        }
        Ok(deleted)
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

    /// A listing to work with; nobody has compared it yet.
    pub(super) async fn look(&mut self) -> Result<HashMap<Hour, Hourly>, StoreError> {
        let listed = self.list().await?;
        self.is_unchecked = true;
        Ok(self.hourly(listed))
    }

    async fn list(&self) -> Result<HashMap<Hour, Parts>, StoreError> {
        let mut hours: HashMap<Hour, Parts> = HashMap::new();
        for entry in self.store.list(&format!("{}/", self.prefix)).await? {
            let name = entry.key.as_str().rsplit('/').next().unwrap_or_default();
            let (hour, part) = name.split_once('.').unwrap_or((name, "0"));
            if let (Some(hour), Ok(part)) = (Hour::parse(hour), part.parse::<u32>()) {
                let none = Hourly { last_part: 0, stock: Stock::default() };
                let parts = hours.entry(hour).or_insert(Parts { hourly: none, youngest: Duration::MAX });
                parts.hourly.last_part = parts.hourly.last_part.max(part.min(PARTS_MAX));
                // Less than a frame is what a crash left of a first one.
                if entry.len >= FRAME_BYTES_MIN {
                    parts.hourly.stock.add(Stock { segments: 1, bytes: entry.len });
                }
                parts.youngest = parts.youngest.min(entry.age);
            }
        }
        Ok(hours)
    }

    fn hourly(&self, listed: HashMap<Hour, Parts>) -> HashMap<Hour, Hourly> {
        listed.into_iter().map(|(hour, parts)| (hour, self.whole(hour, parts.hourly))).collect()
    }

    /// Without the tail that is known to be torn: what was once found without it must not be listed with it again.
    fn whole(&self, hour: Hour, hourly: Hourly) -> Hourly {
        let torn = self.torn.get(&hour).copied().unwrap_or_default();
        Hourly { stock: hourly.stock.without(torn), ..hourly }
    }
}
