//! pack: rows -> batches that every limit of the Logs Ingestion API lets through.

use super::{EventKey, Time};
use bytes::Bytes;
use std::ops::Range;

/// Largest body, uncompressed, brackets and commas included (the documented limit is 1 MB "both compressed and uncompressed").
pub const BODY_BYTES_MAX: usize = 1_000_000;
/// Most rows in a batch: the most that one in-doubt POST can duplicate.
pub const BATCH_ROWS_MAX: usize = 500;
/// Largest row that fits a body alone.
pub const ROW_BYTES_MAX: usize = BODY_BYTES_MAX - 2;

/// One row of a batch, and the event it came from.
#[derive(Clone, Debug)]
pub struct Packed {
    pub key: EventKey,
    pub timestamp: Option<Time>,
    /// Where the event stands in its page.
    pub place: usize,
    range: Range<usize>,
}

/// Rows on their way into one POST.
#[derive(Clone, Debug)]
pub struct Batch {
    pub rows: Vec<Packed>,
    /// `[row,row` while open; the closing bracket comes with [`Batch::json`].
    open: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { rows: Vec::new(), open: vec![b'['] }
    }
}

impl Batch {
    /// Takes the row in, unless the batch would break a limit.
    pub fn push(&mut self, rows_max: usize, key: EventKey, timestamp: Option<Time>, place: usize, row: &[u8]) -> bool {
        let full = self.rows.len() >= rows_max.clamp(1, BATCH_ROWS_MAX);
        if full || self.open.len() + 1 + row.len() + 1 > BODY_BYTES_MAX.max(row.len() + 3) {
            return false;
        }
        if !self.rows.is_empty() {
            self.open.push(b',');
        }
        let start = self.open.len();
        self.open.extend_from_slice(row);
        self.rows.push(Packed { key, timestamp, place, range: start..self.open.len() });
        true
    }

    /// A batch of one row.
    pub fn of_one(key: EventKey, timestamp: Option<Time>, place: usize, row: &[u8]) -> Self {
        let mut batch = Self::default();
        batch.push(1, key, timestamp, place, row);
        batch
    }

    /// Size of [`Batch::json`].
    pub fn bytes(&self) -> usize {
        self.open.len() + 1
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The body to post.
    pub fn json(&self) -> Bytes {
        let mut body = Vec::with_capacity(self.open.len() + 1);
        body.extend_from_slice(&self.open);
        body.push(b']');
        body.into()
    }

    /// The first half and the rest; `None` when there is only one row.
    pub fn halve(&self) -> Option<(Self, Self)> {
        let middle = self.rows.len() / 2;
        (middle > 0).then(|| {
            let (first, rest) = self.rows.split_at(middle);
            (self.part(first), self.part(rest))
        })
    }

    /// The first row alone and the halves of the rest: whether the destination takes any row at all shows at the first of them.
    #[must_use]
    pub fn first_apart(&self) -> Vec<Self> {
        let (first, rest) = self.rows.split_at(1.min(self.rows.len()));
        let (near, far) = rest.split_at(rest.len() / 2);
        [first, near, far].into_iter().filter(|rows| !rows.is_empty()).map(|rows| self.part(rows)).collect()
    }

    /// The rows whose keys are meant.
    #[must_use]
    pub fn only(&self, is_meant: impl Fn(&EventKey) -> bool) -> Self {
        self.part(self.rows.iter().filter(|row| is_meant(&row.key)))
    }

    fn part<'a>(&self, rows: impl IntoIterator<Item = &'a Packed>) -> Self {
        let mut part = Self::default();
        for row in rows {
            let json = self.open.get(row.range.clone()).unwrap_or_default();
            part.push(BATCH_ROWS_MAX, row.key, row.timestamp, row.place, json);
        }
        part
    }

    pub fn keys(&self) -> Vec<EventKey> {
        self.rows.iter().map(|row| row.key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{EventId, Hour};

    fn key(n: usize) -> EventKey {
        EventKey { hour: Hour::Odd, id: EventId((n as u128).to_be_bytes()) }
    }

    #[test]
    fn no_batch_is_over_a_limit_and_halves_add_up() {
        let row = format!("\"{}\"", "x".repeat(9_998)).into_bytes();
        let mut batch = Batch::default();
        let mut n = 0;
        while batch.push(500, key(n), None, n, &row) {
            n += 1;
        }
        assert_eq!(n, 99);
        assert!(batch.json().len() <= BODY_BYTES_MAX);
        let (a, b) = batch.halve().unwrap();
        assert_eq!([a.keys(), b.keys()].concat(), batch.keys());
        let all: Vec<String> = serde_json::from_slice(&batch.json()).unwrap();
        let parts: Vec<Vec<String>> = [a, b].iter().map(|p| serde_json::from_slice(&p.json()).unwrap()).collect();
        assert_eq!(parts.concat(), all);
    }

    #[test]
    fn with_its_first_apart_a_batch_is_the_same_rows_in_order() {
        for rows in 1..10 {
            let mut batch = Batch::default();
            (0..rows).for_each(|n| _ = batch.push(500, key(n), None, n, b"{}"));
            let parts = batch.first_apart();
            assert_eq!(parts.iter().flat_map(Batch::keys).collect::<Vec<_>>(), batch.keys());
            assert!(parts[0].rows.len() == 1 && parts.len() == rows.min(3));
        }
    }

    #[test]
    fn the_row_limit_is_the_duplicate_bound() {
        let mut batch = Batch::default();
        assert_eq!((0..).take_while(|n| batch.push(500, key(*n), None, *n, b"{}")).count(), 500);
        let mut one = Batch::default();
        assert!(one.push(500, key(0), None, 0, &vec![b'x'; ROW_BYTES_MAX]));
        assert_eq!(one.json().len(), BODY_BYTES_MAX);
        assert!(!one.push(500, key(1), None, 1, b"{}"));
        assert!(one.halve().is_none());
    }
}
