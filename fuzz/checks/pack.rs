//! pack: no row is lost or torn, every limit holds, and the halves of a batch add up to it.

use opship::flow::pack::{BATCH_ROWS_MAX, BODY_BYTES_MAX, Batch, ROW_BYTES_MAX};
use opship::flow::{EventId, EventKey, Hour};
use serde_json::value::RawValue;

/// All rows of one run together.
const BYTES_MAX: usize = 1_300_000;

/// The first byte is the configured number of rows (in fours), then each two bytes are the length of a row; 0xff, n: n small rows.
pub fn check(data: &[u8]) {
    let Some((rows_max, lengths)) = data.split_first() else { return };
    let rows_max = usize::from(*rows_max) * 4;
    let rows = rows(lengths);
    let mut batches = vec![Batch::default()];
    for (place, row) in rows.iter().enumerate() {
        let mut open = batches.pop().expect("a batch is open");
        if !open.push(rows_max, key(place), None, place, row) {
            assert!(!open.is_empty(), "a row that fits a body fits an empty batch");
            batches.push(std::mem::take(&mut open));
            assert!(open.push(rows_max, key(place), None, place, row));
        }
        batches.push(open);
    }
    let together: Vec<Vec<u8>> = batches.iter().flat_map(|batch| holds(batch, rows_max)).collect();
    assert!(together == rows, "rows are lost, torn or out of order");
}

fn rows(lengths: &[u8]) -> Vec<Vec<u8>> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for pair in lengths.as_chunks::<2>().0 {
        let (count, length) = match pair {
            [0xff, n] => (usize::from(*n) * 8, 0),
            [high, low] => (1, (usize::from(*high) * 256 + usize::from(*low)) * 16),
        };
        for _ in 0..count {
            let length = length.clamp(16, ROW_BYTES_MAX);
            bytes += length;
            if bytes > BYTES_MAX {
                return rows;
            }
            let number = rows.len().to_string();
            rows.push(format!("\"{}{number}\"", "0".repeat(length - 2 - number.len())).into_bytes());
        }
    }
    rows
}

/// The rows of a batch, which keeps every limit, as do its halves down to single rows.
fn holds(batch: &Batch, rows_max: usize) -> Vec<Vec<u8>> {
    let body = batch.json();
    assert!(body.len() <= BODY_BYTES_MAX);
    assert!(batch.rows.len() <= rows_max.clamp(1, BATCH_ROWS_MAX));
    let rows: Vec<&RawValue> = serde_json::from_slice(&body).expect("a body is a list");
    let rows: Vec<Vec<u8>> = rows.into_iter().map(|row| row.get().as_bytes().to_vec()).collect();
    assert_eq!(rows.len(), batch.rows.len());
    for (row, packed) in rows.iter().zip(&batch.rows) {
        let number: usize = String::from_utf8_lossy(row).trim_matches('"').parse().expect("rows are numbered");
        assert!(packed.key == key(number) && packed.place == number, "a row under another's name");
    }
    match batch.halve() {
        Some((first, rest)) => {
            assert!(first.rows.len().abs_diff(rest.rows.len()) <= 1);
            let halves = [first, rest].map(|half| halves_hold(&half));
            assert!(halves.concat() == rows, "the halves are not the whole");
        }
        None => assert!(rows.len() <= 1),
    }
    rows
}

fn halves_hold(half: &Batch) -> Vec<Vec<u8>> {
    // Deeper down it is the same again: every level would cost a copy of the whole.
    if half.rows.len() <= 8 { holds(half, BATCH_ROWS_MAX) } else { rows_of(half) }
}

fn rows_of(batch: &Batch) -> Vec<Vec<u8>> {
    let body = batch.json();
    let rows: Vec<&RawValue> = serde_json::from_slice(&body).expect("a body is a list");
    rows.into_iter().map(|row| row.get().as_bytes().to_vec()).collect()
}

fn key(n: usize) -> EventKey {
    EventKey { hour: Hour::Odd, id: EventId((n as u128).to_be_bytes()) }
}
