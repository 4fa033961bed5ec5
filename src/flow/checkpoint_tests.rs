//! A document is read back as written or not at all; marks never fall.

use super::*;
use crate::flow::clock::Clocks;
use serde_json::{Value, json};
use std::time::Duration;

fn time(text: &str) -> Time {
    text.parse().unwrap()
}

fn cursor(text: &str) -> Cursor {
    Cursor::parse(text.into()).unwrap()
}

/// Every optional part is there.
fn full() -> Checkpoint {
    let at = time("2026-11-22T10:00:00.123Z");
    let feed = FeedId { account: AccountName::parse("default").unwrap(), stream: Stream::ItemUsages };
    let widths = crate::flow::window::Widths {
        overlap: Duration::from_secs(300),
        late_every: Duration::from_secs(3600),
        late_horizon: Duration::from_secs(72 * 3600),
    };
    let fingerprints = Fingerprints::new("https://events.1password.com", Some("ACCOUNT"), "dcr-1/stream");
    let mut cp = crate::flow::window::first(&feed, fingerprints, at, Clocks::agreed(at), &widths);
    let progress =
        crate::flow::window::sweep(&cp, Which::Overlap, Clocks::agreed(at + chrono::TimeDelta::hours(1)), &widths);
    (cp.overlap_sweep, cp.late_sweep) = (progress.clone(), progress);
    cp.cursor = Some(cursor("CURSOR"));
    cp.cursor_born = Some(at);
    cp.write_id = "00112233445566778899aabbccddeeff".into();
    cp.slot = serde_json::from_value(json!({
        "seq": 0,
        "intent": {
            "batch_id": "090738d07730a56cd7dded9007be0b3a", "kind": "cursor",
            "ids": {"2026112210": "WkQg0GYt00ugwHXMq3mEUQ==", "2026112212": "WoIobTCq7Q1nkUQWYMdgOA=="},
            "from": at, "to": at + chrono::TimeDelta::hours(2),
            "advance": {"of": "cursor", "cursor": "NEXT", "born": at, "drained": true},
            "owner": "owner", "attempt": 1, "ttl_s": 120,
        },
        "in_doubt": {
            "batches": 1, "rows": 2, "gone": 0,
            "last": [{"batch_id": "b", "rows": 2, "attempt": 2, "why": "no answer", "at": at}],
        },
    }))
    .unwrap();
    cp.totals.read = 7;
    cp
}

fn good(bytes: &[u8]) -> Checkpoint {
    match Checkpoint::decode(bytes) {
        Decoded::Good(cp) => *cp,
        other => panic!("{other:?}"),
    }
}

/// The document with its body replaced and its checksum right.
fn sealed(body: &Value, min_reader: u32) -> Vec<u8> {
    Kind { version: 9, min_reader, ..KIND }.seal(body).unwrap()
}

#[test]
fn a_checkpoint_survives_a_round_trip() {
    let cp = full();
    assert_eq!(good(&cp.encode().unwrap()), cp);
    assert_eq!(cp.slot.intent().unwrap().keys().len(), 2);
}

/// Fault: an empty, foreign or deeply nested document in place of a checkpoint. Shows: it is corrupt, never a panic and never a position.
#[test]
fn fm_27_garbage_is_corrupt_and_never_a_panic() {
    let deep = "[".repeat(10_000);
    for text in ["", "{}", "null", "[]", "\u{feff}{}", r#"{"format":"opship-checkpoint"}"#, "\0\0\0\0", &deep] {
        assert!(matches!(Checkpoint::decode(text.as_bytes()), Decoded::Corrupt(_)), "{:.20}", text);
    }
    assert!(matches!(Checkpoint::decode(&sealed(&json!({"account": "default"}), 1)), Decoded::Corrupt(_)));
}

/// Fault: a downgrade over a checkpoint with fields of a newer version. Shows: they survive a round trip at every level.
#[test]
fn fm_29_unknown_fields_of_a_newer_version_survive_at_every_level() {
    let mut body = serde_json::to_value(full()).unwrap();
    fn mark(value: &mut Value, path: &str, marked: &mut usize) {
        let Value::Object(object) = value else { return };
        // The ids of an intent are a map of hours, no structure.
        if path.ends_with("/ids") {
            return;
        }
        object.iter_mut().for_each(|(name, value)| mark(value, &format!("{path}/{name}"), marked));
        object.insert("from_the_future".into(), json!({"x": [1, null]}));
        *marked += 1;
    }
    let mut marked = 0;
    mark(&mut body, "", &mut marked);
    body["in_doubt"]["last"][0]["from_the_future"] = json!(1);
    assert_eq!(marked, 8, "checkpoint, fingerprints, two sweeps, intent, advance, in_doubt, totals");
    let read = good(&sealed(&body, 1));
    assert_eq!(serde_json::to_value(good(&read.encode().unwrap())).unwrap(), body);
}

/// Fault: a checkpoint that asks for a newer reader. Shows: it is refused with the name of its writer.
#[test]
fn fm_29_a_document_for_newer_readers_is_refused() {
    let body = serde_json::to_value(full()).unwrap();
    let decoded = Checkpoint::decode(&sealed(&body, KIND.version + 1));
    assert!(
        matches!(decoded, Decoded::TooNew { writer, min_reader: 2 } if writer == concat!("opship/", env!("CARGO_PKG_VERSION")))
    );
}

/// Fault: an upgrade over a checkpoint of each version released. Shows: it reads as it was written.
#[test]
fn fm_29_the_golden_file_of_version_1_is_still_read() {
    let golden = include_bytes!("../../tests/data/checkpoint_v1.json");
    assert_eq!(good(golden), full());
}

#[test]
fn a_checkpoint_holds_no_event() {
    let text = String::from_utf8(full().encode().unwrap()).unwrap();
    assert!(!text.contains("@") && !text.contains("uuid"));
}

#[test]
fn the_watermark_follows_events_but_never_passes_the_date() {
    let mut cp = full();
    let date = time("2026-11-22T12:00:00Z");
    cp.raise_watermark(Some(time("2026-11-22T11:00:00Z")), date);
    assert_eq!(cp.watermark, time("2026-11-22T11:00:00Z"));
    cp.raise_watermark(Some(time("2036-11-22T11:00:00Z")), date);
    assert_eq!(cp.watermark, date);
    cp.raise_watermark(Some(time("2026-11-22T10:30:00Z")), date);
    cp.raise_watermark(None, time("2030-01-01T00:00:00Z"));
    assert_eq!(cp.watermark, date);
}

#[test]
fn a_first_drain_lifts_the_sweep_mark_and_others_do_not() {
    let born = time("2026-11-22T11:00:00Z");
    for (watermark, drained, lifted) in [
        ("2026-11-22T10:30:00Z", true, Some("2026-11-22T10:30:00Z")),
        ("2026-11-22T11:30:00Z", true, Some("2026-11-22T11:00:00Z")),
        ("2026-11-22T10:30:00Z", false, None),
        ("2026-11-22T09:00:00Z", true, None),
    ] {
        let mut cp = full();
        cp.watermark = time(watermark);
        let before = cp.sweep_mark;
        let advance = Advance::Cursor { cursor: cursor("X"), born: Some(born), drained, unknown: Unknown::new() };
        cp.apply(advance);
        assert_eq!(cp.sweep_mark, lifted.map_or(before, time));
        assert_eq!((cp.cursor, cp.cursor_born), (Some(cursor("X")), if drained { None } else { Some(born) }));
    }
}

#[test]
fn a_sweep_lifts_its_mark_with_its_last_page_and_no_mark_falls() {
    let done = time("2026-11-22T13:00:00Z");
    let step = |which, done| Advance::Sweep { which, cursor: cursor("S"), done, unknown: Unknown::new() };
    for which in [Which::Overlap, Which::Late] {
        let mut cp = full();
        let before = (cp.sweep_mark, cp.late_mark, cp.late_at);
        cp.apply(step(which, None));
        assert_eq!((cp.sweep_mark, cp.late_mark, cp.late_at), before);
        let kept = if which == Which::Overlap { &mut cp.overlap_sweep } else { &mut cp.late_sweep };
        assert_eq!(kept.as_ref().and_then(|sweep| sweep.cursor.clone()), Some(cursor("S")));
        kept.as_mut().unwrap().watermark_at_start = time("2026-11-22T10:59:00Z");
        cp.apply(step(which, Some(done)));
        let mark = if which == Which::Overlap { cp.sweep_mark } else { cp.late_mark };
        assert_eq!(mark, time("2026-11-22T10:59:00Z"));
        // Without a sweep under way nothing moves.
        let cp_before = cp.clone();
        cp.apply(step(which, Some(done)));
        assert_eq!(cp, cp_before);
    }
    let mut cp = full();
    cp.sweep_mark = time("2030-01-01T00:00:00Z");
    cp.apply(step(Which::Overlap, Some(done)));
    assert_eq!(cp.sweep_mark, time("2030-01-01T00:00:00Z"));
}

/// Fault: another account, source or destination than the checkpoint has. Shows: each of them alone is refused, an account not yet named is not.
#[test]
fn fm_28_fingerprints_refuse_another_account_source_or_sink() {
    let ours = Fingerprints::new("s", Some("a"), "k");
    assert!(ours.fits(&Fingerprints::new("s", None, "k")) && Fingerprints::new("s", None, "k").fits(&ours));
    for other in [("x", Some("a"), "k"), ("s", Some("x"), "k"), ("s", Some("a"), "x")] {
        assert!(!ours.fits(&Fingerprints::new(other.0, other.1, other.2)));
    }
}

#[test]
fn the_size_of_the_ledger_is_written_only_where_there_is_one_and_keeps_what_it_does_not_know() {
    let text = |cp: &Checkpoint| String::from_utf8(cp.encode().unwrap()).unwrap();
    let mut cp = full();
    cp.set_ledger(0, 0);
    assert!(!text(&cp).contains("\"ledger\""));
    cp.set_ledger(2, 100);
    cp.ledger.as_mut().unwrap().unknown.insert("newer".into(), true.into());
    cp.set_ledger(3, 160);
    let Decoded::Good(read) = Checkpoint::decode(text(&cp).as_bytes()) else { panic!("{}", text(&cp)) };
    assert!(*read == cp && text(&cp).contains("\"newer\":true"));
}
