//! Which timestamps the table's `datetime` can hold: years 1 to 9999 in UTC, in steps of 100 ns, without leap seconds.
//! <https://learn.microsoft.com/kusto/query/scalar-data-types/datetime>

use super::Time;
use chrono::{Datelike, Timelike};

/// The last step of 100 ns of a second.
const LAST_STEP: u32 = 999_999_900;
/// A leap second counts on from here in its nanoseconds.
const LEAP: u32 = 1_000_000_000;

/// Whether the column can hold a timestamp: its raw JSON, and the moment that was read from it.
///
/// RFC 3339 says more than a `datetime` can hold, and the service makes an empty cell of the rest, without a word. The moment stays what
/// it is for identity and windows, whatever the column can hold.
pub fn holds(raw: &str, time: Option<Time>) -> bool {
    time.is_some_and(is_in_range) && is_written_plainly(raw)
}

fn is_in_range(time: Time) -> bool {
    let nanosecond = time.nanosecond();
    let is_last_second = time.year() == 9999 && time.ordinal() == 365 && time.num_seconds_from_midnight() == 86_399;
    (1..=9999).contains(&time.year()) && nanosecond < LEAP && (nanosecond <= LAST_STEP || !is_last_second)
}

/// The year 0 may be in the text alone, where an offset makes the year 1 of it; and our reader takes U+2212 for a minus sign.
fn is_written_plainly(raw: &str) -> bool {
    let is_plain = |text: &str| text.is_ascii() && !text.starts_with("0000");
    match raw.contains('\\') {
        true => serde_json::from_str::<String>(raw).is_ok_and(|text| is_plain(&text)),
        false => is_plain(raw.trim_start_matches('"')),
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::decode;
    use crate::flow::map::{Changes, Mapper, Stub};
    use crate::flow::redact::Redact;
    use crate::flow::{EventId, EventKey, Hour, Stream};
    use serde_json::{Value, json};

    fn event(timestamp: &str) -> String {
        format!(r#"{{"uuid":"SYNTHETICAAAAAAAAAAAAAAAAA","timestamp":"{timestamp}","action":"view"}}"#)
    }

    fn row(event: &str) -> (Value, Changes) {
        let redact = Redact::default();
        let mapper = Mapper { stream: Stream::ItemUsages, account_uuid: None, redact: &redact };
        let mut out = Vec::new();
        let changes = mapper.row(&decode::item(event), &mut out);
        (serde_json::from_slice(&out).unwrap(), changes)
    }

    /// Year 0 and before, after 9999 in UTC, a second 60, half a step beyond the last one, a minus sign that is none.
    const BEYOND: [(&str, &str); 10] = [
        ("0000-06-01T00:00:00Z", "odd"),
        ("0001-01-01T00:30:00+01:00", "odd"),
        ("0000-12-31T23:30:00-01:00", "odd"),
        ("9999-12-31T23:30:00-01:00", "odd"),
        ("9999-12-31T23:59:59.99999995Z", "odd"),
        ("2016-12-31T23:59:60Z", "2016123123"),
        ("2026-11-22T10:30:60.5Z", "2026112210"),
        ("2026-11-22T06:29:60-03:30", "2026112209"),
        ("2026-11-22T10:00:00\u{2212}03:30", "2026112213"),
        ("2026-11-22T10:00:00\\u221203:30", "2026112213"),
    ];

    /// Fault: timestamps that RFC 3339 allows and no datetime holds: year 0, after 9999 in UTC, second 60, a minus sign that is none. Shows: the column is null and its text a note, in the row and in the stub.
    #[test]
    fn fm_49_a_timestamp_that_no_datetime_holds_is_null_and_a_note() {
        for (timestamp, _) in BEYOND {
            let text: String = serde_json::from_str(&format!("\"{timestamp}\"")).unwrap();
            let (found, changes) = row(&event(timestamp));
            let said = (&found["timestamp"], &found["details"], changes.mistyped);
            assert_eq!(said, (&Value::Null, &json!({ "opship": { "timestamp": text } }), 1), "{timestamp}");
            assert_eq!(found["action"], "view");
            let (redact, mut out) = (Redact::default(), Vec::new());
            let mapper = Mapper { stream: Stream::ItemUsages, account_uuid: None, redact: &redact };
            mapper.stub(&decode::item(&event(timestamp)), Stub::Ids, "why", &mut out);
            let stub: Value = serde_json::from_slice(&out).unwrap();
            assert_eq!((&stub["timestamp"], &stub["details"]["opship"]["timestamp"]), (&Value::Null, &json!(text)));
        }
    }

    /// Fault: the same timestamps. Shows: hour, id and moment are those of before, byte for byte, so that nothing shipped before ships again under another hour.
    #[test]
    fn fm_49_what_the_column_cannot_hold_moves_no_identity() {
        for (timestamp, hour) in BEYOND {
            let raw = event(timestamp);
            let item = decode::item(&raw);
            let key = EventKey { hour: Hour::parse(hour).unwrap(), id: EventId::of_uuid("SYNTHETICAAAAAAAAAAAAAAAAA") };
            assert_eq!(item.key, key, "{timestamp}");
            let text: String = serde_json::from_str(&format!("\"{timestamp}\"")).unwrap();
            assert_eq!(item.timestamp, decode::timestamp(&text));
            assert!(item.timestamp.is_some());
        }
    }

    #[test]
    fn what_a_datetime_holds_goes_in_as_it_is_written() {
        for timestamp in [
            "0001-01-01T00:00:00Z",
            "0001-01-01T01:00:00+01:00",
            "9999-12-31T23:59:59.9999999Z",
            "9999-12-31T23:59:58.99999999Z",
            "2026-11-22T10:00:59.999999999Z",
            "2026-11-22T10:00:00.123456789-03:30",
            "2026-11-22 10:00:00Z",
            r"2026-11-22T10:00:00\u005a",
        ] {
            let text: Value = serde_json::from_str(&format!("\"{timestamp}\"")).unwrap();
            let (found, changes) = row(&event(timestamp));
            assert_eq!((&found["timestamp"], changes), (&text, Changes::default()), "{timestamp}");
        }
    }
}
