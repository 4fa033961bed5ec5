//! What the ingestion endpoint accepted, and how that compares with what was generated.

use crate::flow::{EventId, Stream, Time};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};

/// `log_source` of heartbeat and trouble rows.
const HEALTH_SOURCE: &str = "healthevents";

/// Generated against shipped. An event is a stream and a uuid; health rows are counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Distinct events that were generated.
    pub generated: u64,
    /// Distinct generated events that were accepted.
    pub shipped: u64,
    /// Rows beyond the first of an event.
    pub duplicated: u64,
    /// Generated events that were never accepted.
    pub lost: u64,
    /// Distinct events accepted that were never generated, and rows of no known stream.
    pub invented: u64,
    /// Rows accepted, health rows not among them.
    pub rows: u64,
    pub health_rows: u64,
    /// Generated items without a readable uuid: left out of the counts above.
    pub nameless_generated: u64,
    /// Rows accepted without a uuid: left out of the counts above but `rows`.
    pub nameless_rows: u64,
    /// POSTs answered 204, or meant to be.
    pub posts: u64,
    /// Values of undeclared columns, dropped as the service drops them.
    pub dropped_columns: u64,
    /// Values over 64 KiB, which the service would cut silently.
    pub long_values: u64,
}

/// A row as it is stored, and what it says about itself.
pub(super) struct StoredRow {
    pub(super) json: Bytes,
    pub(super) log_source: Option<String>,
    pub(super) uuid: Option<String>,
    pub(super) account: Option<String>,
    pub(super) happened: Option<Time>,
}

/// Everything accepted so far.
pub(super) struct Accepted {
    out: Option<File>,
    keep_rows: bool,
    kept: Vec<Bytes>,
    copies: HashMap<(Stream, EventId), u32>,
    foreign_rows: u64,
    /// The counts that need no comparison.
    pub(super) totals: Comparison,
}

impl Accepted {
    pub(super) fn new(out: Option<File>, keep_rows: bool) -> Self {
        let (kept, copies) = (Vec::new(), HashMap::new());
        Self { out, keep_rows, kept, copies, foreign_rows: 0, totals: Comparison::default() }
    }

    /// Stores a batch, or nothing of it.
    pub(super) fn store(&mut self, rows: &[StoredRow]) -> io::Result<()> {
        if let Some(out) = &mut self.out {
            let mut lines = Vec::with_capacity(rows.iter().map(|row| row.json.len() + 1).sum());
            for row in rows {
                lines.extend_from_slice(&row.json);
                lines.push(b'\n');
            }
            out.write_all(&lines)?;
        }
        self.totals.posts += 1;
        rows.iter().for_each(|row| self.count(row));
        Ok(())
    }

    fn count(&mut self, row: &StoredRow) {
        if self.keep_rows {
            self.kept.push(row.json.clone());
        }
        if row.log_source.as_deref() == Some(HEALTH_SOURCE) {
            self.totals.health_rows += 1;
            return;
        }
        self.totals.rows += 1;
        let stream = Stream::ALL.into_iter().find(|stream| row.log_source.as_deref() == Some(stream.as_str()));
        match (stream, &row.uuid) {
            (None, _) => self.foreign_rows += 1,
            (Some(_), None) => self.totals.nameless_rows += 1,
            (Some(stream), Some(uuid)) => *self.copies.entry((stream, EventId::of_uuid(uuid))).or_default() += 1,
        }
    }

    /// How often an event was accepted.
    pub(super) fn copies(&self, stream: Stream, uuid: &str) -> u32 {
        self.copies.get(&(stream, EventId::of_uuid(uuid))).copied().unwrap_or(0)
    }

    pub(super) fn kept(&self) -> Vec<Value> {
        self.kept.iter().filter_map(|row| serde_json::from_slice(row).ok()).collect()
    }

    /// Compares with the generated events (true for those that count) and the number of generated items without a uuid.
    pub(super) fn compare(&self, generated: &HashMap<(Stream, EventId), bool>, nameless: u64) -> Comparison {
        let counted = generated.values().filter(|counts| **counts).count() as u64;
        let is_shipped = |event: &&(Stream, EventId)| self.copies.contains_key(*event);
        let shipped =
            generated.iter().filter(|(_, counts)| **counts).map(|(event, _)| event).filter(is_shipped).count() as u64;
        let copies: u64 = self.copies.values().map(|copies| u64::from(*copies)).sum();
        let invented = self.copies.keys().filter(|event| !generated.contains_key(*event)).count() as u64;
        Comparison {
            generated: counted,
            shipped,
            duplicated: copies - self.copies.len() as u64,
            lost: counted - shipped,
            invented: invented + self.foreign_rows,
            nameless_generated: nameless,
            ..self.totals
        }
    }
}
