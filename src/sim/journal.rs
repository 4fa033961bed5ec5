//! Every request and what became of it.

use super::call::Service;
use crate::flow::Time;
use serde::Serialize;
use std::collections::VecDeque;
use std::time::Duration;

/// Oldest entries are dropped beyond this many.
pub(super) const JOURNAL_ENTRIES_MAX: usize = 50_000;
/// Bytes of a request's body that an entry keeps.
pub(super) const JOURNAL_BODY_BYTES_MAX: usize = 2048;

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Counted from 0 since the start, so that dropped entries show.
    pub number: u64,
    /// On the simulator's clock.
    pub at: Time,
    /// Since the start, on a clock that never jumps.
    pub elapsed: Duration,
    pub service: Service,
    pub method: String,
    pub path: String,
    /// The beginning of the request's body; compressed bodies are left out.
    pub body: String,
    /// Bytes of the request's body as sent.
    pub body_bytes: usize,
    /// 8 bytes of the SHA-256 of the bearer token, in hexadecimal; empty without one.
    pub token_hash: String,
    /// `None` when no answer was sent.
    pub status: Option<u16>,
    /// Bytes of the answer's body before compression.
    pub response_bytes: usize,
}

/// A ring of the last [`JOURNAL_ENTRIES_MAX`] entries.
#[derive(Default)]
pub(super) struct Journal {
    entries: VecDeque<Entry>,
    next: u64,
}

impl Journal {
    pub(super) fn push(&mut self, mut entry: Entry) {
        entry.number = self.next;
        self.next += 1;
        if self.entries.len() == JOURNAL_ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// The entries from this number on, as far as they are kept.
    pub(super) fn entries_from(&self, number: u64) -> Vec<Entry> {
        let oldest = self.next.saturating_sub(self.entries.len() as u64);
        let skipped = usize::try_from(number.saturating_sub(oldest)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skipped).cloned().collect()
    }

    /// The number that the next entry gets.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }
}
