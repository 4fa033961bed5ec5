//! Twenty documents as the program writes them, each cut at every byte and each of its bits flipped.

use super::*;
use crate::flow::clock::Clocks;
use crate::flow::intent::{BatchKind, Draft};
use crate::flow::window::{self, Widths};
use crate::flow::{EventId, EventKey, Hour};
use chrono::TimeDelta;
use serde_json::json;
use std::time::Duration;

const DOCUMENTS: usize = 20;
const WIDTHS: Widths = Widths {
    overlap: Duration::from_secs(300),
    late_every: Duration::from_secs(3600),
    late_horizon: Duration::from_secs(72 * 3600),
};

fn time(text: &str) -> Time {
    text.parse().unwrap()
}

fn cursor(text: &str) -> Option<Cursor> {
    Cursor::parse(text.into())
}

/// A feed that has just started.
fn fresh(stream: Stream) -> Checkpoint {
    let feed = FeedId { account: AccountName::parse("north-sea").unwrap(), stream };
    let at = time("2026-11-22T10:00:00Z");
    let prints = Fingerprints::new("https://events.1password.com", None, "dcr-1/stream");
    window::first(&feed, prints, at - TimeDelta::days(30), Clocks::agreed(at), &WIDTHS)
}

/// A feed under way.
fn running() -> Checkpoint {
    let mut cp = fresh(Stream::AuditEvents);
    cp.fingerprints.account = Some("0123456789abcdef".into());
    cp.write_id = "00112233445566778899aabbccddeeff".into();
    for n in 0..6 {
        open(
            &mut cp,
            BatchKind::Cursor,
            &[(EventKey { hour: Hour::Odd, id: EventId::of_uuid(&n.to_string()) }, None)],
            None,
        );
        cp.slot.release();
    }
    cp.cursor = cursor("eyJQYWdlU2l6ZSI6MTAwMH0");
    cp.raise_watermark(Some(time("2026-11-22T09:59:59.123456789Z")), time("2026-11-22T10:00:00Z"));
    (cp.totals.read, cp.totals.shipped, cp.totals.known) = (70, 60, 10);
    cp
}

fn open(cp: &mut Checkpoint, kind: BatchKind, rows: &[(EventKey, Option<Time>)], advance: Option<Advance>) {
    let (stream, at) = (cp.stream, cp.written_at);
    cp.slot.open(Draft { stream, kind, rows: rows.to_vec(), advance, owner: "owner-1", known: None, at });
}

fn with_intent(kind: BatchKind, rows: usize, advance: Option<Advance>) -> Checkpoint {
    let mut cp = running();
    let keys: Vec<_> = (0..rows as i64)
        .map(|n| {
            let at = Some(cp.floor + TimeDelta::minutes(40 * n)).filter(|_| n % 3 != 2);
            (EventKey { hour: Hour::of(at), id: EventId::of_uuid(&n.to_string()) }, at)
        })
        .collect();
    open(&mut cp, kind, &keys, advance);
    cp
}

fn to_cursor(born: Option<Time>, drained: bool) -> Option<Advance> {
    Some(Advance::Cursor { cursor: cursor("NEXT")?, born, drained, unknown: Unknown::new() })
}

fn to_sweep(which: Which, done: Option<Time>) -> Option<Advance> {
    Some(Advance::Sweep { which, cursor: cursor("SWEEP")?, done, unknown: Unknown::new() })
}

fn with_sweeps(progress: Option<Cursor>) -> Checkpoint {
    let mut cp = running();
    let date = time("2026-11-22T11:00:00Z");
    for which in [Which::Overlap, Which::Late] {
        let sweep = window::sweep(&cp, which, Clocks::agreed(date), &WIDTHS)
            .map(|sweep| SweepProgress { cursor: progress.clone(), ..sweep });
        match which {
            Which::Overlap => cp.overlap_sweep = sweep,
            Which::Late => cp.late_sweep = sweep,
        }
    }
    cp
}

fn in_doubt(doubts: u64, why: &str) -> Checkpoint {
    let mut cp = running();
    for n in 0..doubts {
        cp.slot.lose_track(n, why, time("2026-11-22T10:30:00Z"));
    }
    cp
}

/// With fields of a newer program at every level.
fn from_the_future() -> Checkpoint {
    let mut cp = with_intent(BatchKind::Cursor, 1, to_cursor(None, true));
    let more = Unknown::from_iter([("from_the_future".to_owned(), json!({"x": [1, null, "é"]}))]);
    cp.unknown = more.clone();
    cp.fingerprints.unknown = more.clone();
    cp.totals.unknown = more.clone();
    let mut slot = serde_json::to_value(&cp.slot).unwrap();
    slot["intent"]["from_the_future"] = json!({"x": [1, null, "é"]});
    cp.slot = serde_json::from_value(slot).unwrap();
    cp
}

fn documents() -> [Checkpoint; DOCUMENTS] {
    let date = time("2026-11-22T12:00:00Z");
    let mut stuck = running();
    (stuck.stuck_ticks, stuck.cursor_born) = (9, Some(date));
    let mut renewed = with_intent(BatchKind::Cursor, 2, to_cursor(Some(date), false));
    (0..3).for_each(|_| _ = renewed.slot.take_over("owner-2", 2, "a process ended", date));
    let mut long = running();
    long.cursor = cursor(&"c".repeat(300));
    [
        fresh(Stream::AuditEvents),
        fresh(Stream::ItemUsages),
        fresh(Stream::SigninAttempts),
        running(),
        stuck,
        long,
        with_intent(BatchKind::Cursor, 1, to_cursor(None, true)),
        with_intent(BatchKind::Cursor, 5, to_cursor(Some(date), false)),
        with_intent(BatchKind::Cursor, 2, None),
        with_intent(BatchKind::OverlapSweep, 3, to_sweep(Which::Overlap, None)),
        with_intent(BatchKind::LateSweep, 3, to_sweep(Which::Late, Some(date))),
        with_intent(BatchKind::Split, 4, None),
        with_intent(BatchKind::Backfill, 2, None),
        renewed,
        with_sweeps(None),
        with_sweeps(cursor("AT-PAGE-2")),
        in_doubt(1, "no answer"),
        in_doubt(3, "answered 500: \"quoted\"\\ and ü"),
        from_the_future(),
        Checkpoint { slot: from_the_future().slot.without_batch(), ..from_the_future() },
    ]
}

/// Every document under a thread of its own: hundreds of thousands of readings.
fn of_each(check: impl Fn(&Checkpoint, &[u8]) + Sync) {
    let documents = documents();
    std::thread::scope(|scope| {
        for cp in &documents {
            scope.spawn(|| check(cp, &cp.encode().unwrap()));
        }
    });
}

/// Fault: a checkpoint document is cut off after any byte. Shows: it is called damaged, never read as another or an empty one.
#[test]
fn fm_27_every_truncation_of_twenty_documents_is_noticed() {
    of_each(|cp, whole| {
        assert!(matches!(Checkpoint::decode(whole), Decoded::Good(read) if *read == *cp));
        for end in 0..whole.len() {
            assert!(
                matches!(Checkpoint::decode(&whole[..end]), Decoded::Corrupt(why) if !why.is_empty()),
                "cut at {end}"
            );
        }
    });
}

/// Fault: any one bit of a checkpoint document is flipped. Shows: it is called damaged, or what is read is what was written.
#[test]
fn fm_27_every_flipped_bit_of_twenty_documents_is_noticed() {
    of_each(|cp, whole| {
        let mut document = whole.to_vec();
        for bit in 0..whole.len() * 8 {
            document[bit / 8] ^= 1 << (bit % 8);
            match Checkpoint::decode(&document) {
                Decoded::Corrupt(why) => assert!(!why.is_empty()),
                Decoded::Good(read) => assert_eq!(*read, *cp, "bit {bit}"),
                Decoded::TooNew { .. } => panic!("bit {bit} makes it the document of a newer program"),
            }
            document[bit / 8] ^= 1 << (bit % 8);
        }
    });
}

/// Fault: bytes are appended to a document, or two are written over each other. Shows: neither is read.
#[test]
fn fm_27_a_document_with_something_behind_it_is_noticed() {
    of_each(|cp, whole| {
        for tail in [&b"\0"[..], b"}", b"{}", &whole[whole.len() / 2..], whole] {
            assert!(matches!(Checkpoint::decode(&[whole, tail].concat()), Decoded::Corrupt(_)));
        }
        // White space belongs to no document.
        assert!(matches!(Checkpoint::decode(&[whole, b" \n"].concat()), Decoded::Good(read) if *read == *cp));
    });
}
