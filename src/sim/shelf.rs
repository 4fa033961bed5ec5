//! What the workspace holds: the accepted rows that the rule did not lose, each visible some time after it was accepted.

use super::accepted::StoredRow;
use super::dice::Dice;
use super::history::delta;
use crate::flow::{Stream, Time};
use chrono::SubsecRound;
use std::sync::Arc;
use std::time::Duration;

/// A row as far as our queries can ask for it. Empty texts and absent ones are the same to them.
#[derive(Clone, Debug)]
pub(super) struct Shelved {
    pub(super) source: Arc<str>,
    pub(super) uuid: Box<str>,
    pub(super) account: Arc<str>,
    pub(super) happened: Option<Time>,
    /// `TimeGenerated`: the rule's `now()`.
    pub(super) generated: Time,
    /// `ingestion_time()`, and the moment from which queries see the row.
    pub(super) ingested: Time,
}

/// The rows of the table, in the order they were accepted.
pub(super) struct Shelf {
    rows: Vec<Shelved>,
    dropped: Vec<(Arc<str>, Box<str>)>,
    dice: Dice,
    pub(super) drop_share: f64,
    pub(super) latency: Duration,
    /// Texts that nearly every row repeats.
    texts: Vec<Arc<str>>,
}

impl Shelf {
    pub(super) fn new(seed: u64, drop_share: f64, latency: Duration) -> Self {
        let dice = Dice::of(seed, "dropped rows", 0);
        Self { rows: Vec::new(), dropped: Vec::new(), dice, drop_share, latency, texts: Vec::new() }
    }

    /// Takes rows that were accepted at `now`, but for the share that is lost after the 204. Health rows are never lost: they are
    /// not events.
    pub(super) fn take(&mut self, rows: &[StoredRow], now: Time) {
        // The service keeps steps of 100 ns.
        let ticks = |time: Time| time.trunc_subsecs(7);
        for row in rows {
            let source = self.text(row.log_source.as_deref().unwrap_or_default());
            let uuid: Box<str> = row.uuid.as_deref().unwrap_or_default().into();
            let is_event = Stream::ALL.iter().any(|stream| stream.as_str() == &*source);
            if is_event && self.dice.chance(self.drop_share) {
                self.dropped.push((source, uuid));
                continue;
            }
            let account = self.text(row.account.as_deref().unwrap_or_default());
            let (happened, ingested) = (row.happened.map(ticks), ticks(now + delta(self.latency)));
            self.rows.push(Shelved { source, uuid, account, happened, generated: ticks(now), ingested });
        }
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        match self.texts.iter().find(|known| &***known == text) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<str> = text.into();
                self.texts.push(Arc::clone(&new));
                new
            }
        }
    }

    /// The rows that a query sees.
    pub(super) fn visible(&self, now: Time) -> impl Iterator<Item = &Shelved> {
        self.rows.iter().filter(move |row| row.ingested <= now)
    }

    /// The uuids of rows that were answered 204 and then lost, in the order they came.
    pub(super) fn dropped(&self, stream: Stream) -> Vec<String> {
        let of = |(source, _): &&(Arc<str>, Box<str>)| &**source == stream.as_str();
        self.dropped.iter().filter(of).map(|(_, uuid)| uuid.to_string()).collect()
    }

    /// Appends a copy of the first row of an event, as if it had been ingested twice. False when there is none.
    pub(super) fn copy(&mut self, stream: Stream, uuid: &str) -> bool {
        let found = self.rows.iter().find(|row| &*row.source == stream.as_str() && &*row.uuid == uuid).cloned();
        found.map(|row| self.rows.push(row)).is_some()
    }

    /// Removes every row of an event. False when there is none.
    pub(super) fn lose(&mut self, stream: Stream, uuid: &str) -> bool {
        let before = self.rows.len();
        self.rows.retain(|row| &*row.source != stream.as_str() || &*row.uuid != uuid);
        self.rows.len() < before
    }
}
