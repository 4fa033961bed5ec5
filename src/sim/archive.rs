//! The events of one stream, and reading them in either order.

use super::Order;
use crate::flow::Time;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// One event as it is served.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) raw: Bytes,
    /// `None` for a raw item without a readable uuid.
    pub(super) uuid: Option<Box<str>>,
    pub(super) at: Time,
    pub(super) only_v2: [Range<u32>; 2],
}

impl Event {
    /// The bytes that version 1 of the API serves.
    pub(super) fn raw_v1(&self) -> Bytes {
        if self.only_v2.iter().all(Range::is_empty) {
            return self.raw.clone();
        }
        let mut kept = Vec::with_capacity(self.raw.len());
        let mut from = 0;
        for span in self.only_v2.iter().filter(|span| !span.is_empty()) {
            kept.extend_from_slice(self.raw.get(from..span.start as usize).unwrap_or_default());
            from = span.end as usize;
        }
        kept.extend_from_slice(self.raw.get(from..).unwrap_or_default());
        kept.into()
    }

    /// Milliseconds and uuid: what the real service is known to have sorted by.
    fn key(&self) -> (i64, &str) {
        (self.at.timestamp_millis(), self.uuid.as_deref().unwrap_or_default())
    }
}

/// How far a reader has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Position {
    Start,
    /// Read up to this insertion.
    Inserted(u64),
    /// Read up to this key.
    Key(i64, String),
}

/// The event times a reader asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) start: Time,
    pub(super) end: Option<Time>,
    pub(super) end_is_excluded: bool,
}

impl Window {
    fn holds(&self, at: Time) -> bool {
        at >= self.start && self.end.is_none_or(|end| if self.end_is_excluded { at < end } else { at <= end })
    }
}

/// What one read found.
pub(super) struct Found {
    pub(super) events: Vec<Event>,
    /// The position of the last event; the old position when there was none.
    pub(super) position: Position,
    pub(super) has_more: bool,
}

/// All events of one stream, in the order of insertion.
pub(super) struct Archive {
    order: Order,
    events: Vec<Event>,
    /// The events' times again, close together: a window is searched through 200,000 of them.
    times: Vec<Time>,
    /// Insertions sorted by key; kept in [`Order::EventTime`] only.
    by_key: Vec<u32>,
}

impl Archive {
    pub(super) fn new(order: Order, events: Vec<Event>) -> Self {
        let times = events.iter().map(|event| event.at).collect();
        let mut archive = Self { order, times, by_key: Vec::new(), events };
        if order == Order::EventTime {
            let mut by_key: Vec<u32> = (0..u32::try_from(archive.events.len()).unwrap_or(u32::MAX)).collect();
            by_key.sort_by(|a, b| archive.key(*a).cmp(&archive.key(*b)));
            archive.by_key = by_key;
        }
        archive
    }

    pub(super) fn insert(&mut self, event: Event) {
        if self.order == Order::EventTime {
            let place = self.by_key.partition_point(|n| self.key(*n) <= event.key());
            self.by_key.insert(place, u32::try_from(self.events.len()).unwrap_or(u32::MAX));
        }
        self.times.push(event.at);
        self.events.push(event);
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    pub(super) fn find(&self, uuid: &str) -> Option<&Event> {
        self.events.iter().find(|event| event.uuid.as_deref() == Some(uuid))
    }

    /// Up to `limit` events of the window behind `after`.
    pub(super) fn read(&self, window: &Window, after: &Position, limit: usize) -> Found {
        let mut found: Vec<u32> = match self.order {
            Order::Insert => self.inserted_after(window, after).take(limit + 1).collect(),
            Order::EventTime => self.keyed_after(window, after).take(limit + 1).collect(),
        };
        let has_more = found.len() > limit;
        found.truncate(limit);
        let position = found.last().map_or_else(|| after.clone(), |last| self.position(*last));
        Found { events: found.into_iter().filter_map(|n| self.event(n)).cloned().collect(), position, has_more }
    }

    /// The last `count` events of the window up to `position`: what a service that overlaps its pages would send again.
    pub(super) fn before(&self, window: &Window, position: &Position, count: usize) -> Vec<Event> {
        let seen = |n: &u32| match position {
            Position::Start => false,
            Position::Inserted(last) => u64::from(*n) <= *last,
            Position::Key(millis, uuid) => self.key(*n) <= (*millis, uuid.as_str()),
        };
        let all: Vec<u32> = match self.order {
            Order::Insert => self.inserted_after(window, &Position::Start).take_while(seen).collect(),
            Order::EventTime => self.keyed_after(window, &Position::Start).take_while(seen).collect(),
        };
        all.iter().skip(all.len().saturating_sub(count)).filter_map(|n| self.event(*n)).cloned().collect()
    }

    fn inserted_after(&self, window: &Window, after: &Position) -> impl Iterator<Item = u32> {
        // A cursor of the other order starts over: the service would have to re-index, too.
        let first = if let Position::Inserted(last) = after { last.saturating_add(1) } else { 0 };
        let first = usize::try_from(first).unwrap_or(usize::MAX).min(self.times.len());
        let times = self.times.get(first..).unwrap_or_default();
        (first as u32..).zip(times).filter(|(_, at)| window.holds(**at)).map(|(n, _)| n)
    }

    fn keyed_after(&self, window: &Window, after: &Position) -> impl Iterator<Item = u32> {
        let start = window.start.timestamp_millis();
        let first = self.by_key.partition_point(|n| {
            let key = self.key(*n);
            key.0 < start || matches!(after, Position::Key(millis, uuid) if key <= (*millis, uuid.as_str()))
        });
        let last = window.end.map(|end| end.timestamp_millis());
        let rest = self.by_key.get(first..).unwrap_or_default().iter().copied();
        rest.take_while(move |n| last.is_none_or(|last| self.key(*n).0 <= last)).filter(|n| {
            let at = self.times.get(*n as usize);
            at.is_some_and(|at| window.holds(*at))
        })
    }

    fn position(&self, n: u32) -> Position {
        match self.order {
            Order::Insert => Position::Inserted(u64::from(n)),
            Order::EventTime => {
                let (millis, uuid) = self.key(n);
                Position::Key(millis, uuid.to_owned())
            }
        }
    }

    fn event(&self, n: u32) -> Option<&Event> {
        self.events.get(n as usize)
    }

    fn key(&self, n: u32) -> (i64, &str) {
        self.event(n).map_or((i64::MAX, ""), Event::key)
    }
}
