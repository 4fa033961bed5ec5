//! The events that exist when the simulator starts: written on all cores, spliced into pages later.

use super::Order;
use super::archive::{Archive, Event};
use super::author::{Author, Draft};
use super::dice::Dice;
use crate::flow::{Stream, Time};
use bytes::Bytes;
use chrono::TimeDelta;
use std::time::Duration;

/// Events written into one buffer by one thread at a time.
const CHUNK_EVENTS: u64 = 4096;
/// Bytes reserved for an event; most are shorter.
const EVENT_BYTES: usize = 900;

/// What history is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) order: Order,
    /// Over all streams.
    pub(super) events: u64,
    pub(super) end: Time,
    pub(super) span: Duration,
    pub(super) late_share: f64,
    pub(super) late_max: Duration,
}

impl Plan {
    /// Half of the events are audit events, three tenths item usages, two tenths sign-in attempts.
    const fn share_of(&self, stream: Stream) -> u64 {
        let items = self.events * 3 / 10;
        let signins = self.events * 2 / 10;
        match stream {
            Stream::AuditEvents => self.events - items - signins,
            Stream::ItemUsages => items,
            Stream::SigninAttempts => signins,
        }
    }

    /// Writes the history of one stream.
    pub(super) fn write(&self, author: &Author, stream: Stream) -> Archive {
        let total = self.share_of(stream);
        let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let part = total.div_ceil(threads).max(1);
        let mut events: Vec<(Time, Event)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|n| scope.spawn(move || self.write_part(author, stream, n * part..((n + 1) * part).min(total))))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        events.sort_by_key(|(inserted, _)| *inserted);
        Archive::new(self.order, events.into_iter().map(|(_, event)| event).collect())
    }

    fn write_part(&self, author: &Author, stream: Stream, numbers: std::ops::Range<u64>) -> Vec<(Time, Event)> {
        let mut part = Vec::with_capacity(usize::try_from(numbers.end.saturating_sub(numbers.start)).unwrap_or(0));
        let mut next = numbers.start;
        while next < numbers.end {
            let last = numbers.end.min(next + CHUNK_EVENTS);
            let mut buffer = Vec::with_capacity(CHUNK_EVENTS.min(last - next) as usize * EVENT_BYTES);
            let mut written = Vec::with_capacity(CHUNK_EVENTS as usize);
            for number in next..last {
                let (inserted, at) = self.times_of(stream, number);
                let first = buffer.len();
                let draft = Draft { stream, label: "history", number, at, text_bytes: 0 };
                written.push((inserted, first, author.write(draft, &mut buffer), buffer.len()));
            }
            let buffer = Bytes::from(buffer);
            part.extend(written.into_iter().map(|(inserted, first, event, end)| {
                let (raw, uuid) = (buffer.slice(first..end), Some(event.uuid.into()));
                (inserted, Event { raw, uuid, at: event.at, only_v2: event.only_v2 })
            }));
            next = last;
        }
        part
    }

    /// When an event became visible and when it happened: evenly spread, some late.
    fn times_of(&self, stream: Stream, number: u64) -> (Time, Time) {
        let mut dice = Dice::of(self.seed, stream.as_str(), number);
        let total = self.share_of(stream).max(1) as f64;
        let age = self.span.mul_f64((1.0 - (number as f64 + dice.share()) / total).clamp(0.0, 1.0));
        let at = self.end - delta(age);
        let late = dice.chance(self.late_share);
        let inserted = if late { (at + delta(self.late_max.mul_f64(dice.share()))).min(self.end) } else { at };
        (inserted, at)
    }
}

/// Longest span the simulator reckons with: dates around now stay far from the ends of the calendar.
const SPAN_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A duration as chrono counts, at most [`SPAN_MAX`].
pub(super) fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration.min(SPAN_MAX)).unwrap_or_default()
}
