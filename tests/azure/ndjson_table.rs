//! The table of the ndjson sink's files.

use bytes::Bytes;
use opship::flow::{EventId, Stream, Time};
use opship::sink::ndjson::Ndjson;
use opship::sink::{Body, Sink};
use opship::table::ndjson::NdjsonTable;
use opship::table::{Ids, Question, Span, Table, When};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

const STREAM: &str = "Custom-OnePasswordEventLogs_CL";
const FILE: &str = "OnePasswordEventLogs_CL.ndjson";

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

fn row(uuid: &str, source: &str, time: &str, account: &str) -> String {
    format!(
        r#"{{"log_source":"{source}","uuid_s":"{uuid}","timestamp":"{time}","account_uuid":"{account}","client":{{"uuid_s":"inner"}}}}"#
    )
}

async fn ship(dir: &Path, rows: &[String]) {
    let json = Bytes::from(format!("[{}]", rows.join(",")));
    Ndjson::open(dir, STREAM).unwrap().deliver(&Body { json, rows: rows.len() }).await.unwrap();
}

fn question(when: When) -> Question<'static> {
    Question { stream: Stream::AuditEvents, account_uuid: None, when, only: None }
}

fn hour_of_ten() -> When {
    When::Happened(Span { from: at("2026-11-22T10:00:00Z"), until: at("2026-11-22T11:00:00Z") })
}

fn copies(ids: &Ids) -> HashMap<EventId, u64> {
    ids.held.iter().map(|(key, held)| (key.id, held.copies)).collect()
}

fn of(uuids: &[(&str, u64)]) -> HashMap<EventId, u64> {
    uuids.iter().map(|(uuid, copies)| (EventId::of_uuid(uuid), *copies)).collect()
}

#[tokio::test]
async fn the_sink_s_own_rows_are_found_by_stream_hour_and_account_with_their_copies() {
    let dir = tempfile::tempdir().unwrap();
    let rows = [
        row("A", "auditevents", "2026-11-22T10:00:00Z", "ONE"),
        row("B", "auditevents", "2026-11-22T11:59:59.999999999+01:00", "TWO"),
        row("B", "auditevents", "2026-11-22T10:59:59.999999999Z", ""),
        row("C", "auditevents", "2026-11-22T11:00:00Z", "ONE"),
        row("D", "itemusages", "2026-11-22T10:30:00Z", "ONE"),
        row("", "auditevents", "2026-11-22T10:30:00Z", "ONE"),
        r#"{"log_source":"healthevents","timestamp":"2026-11-22T10:30:00Z"}"#.to_owned(),
    ];
    ship(dir.path(), &rows).await;
    let table = NdjsonTable::new(dir.path(), STREAM);
    let ids = table.ids(&question(hour_of_ten())).await.unwrap();
    assert_eq!((copies(&ids), ids.nameless), (of(&[("A", 1), ("B", 2)]), 1));
    let one = Question { account_uuid: Some("ONE"), ..question(hour_of_ten()) };
    assert_eq!(copies(&table.ids(&one).await.unwrap()), of(&[("A", 1), ("B", 1)]));
}

#[tokio::test]
async fn rows_are_found_by_the_time_they_were_written_too() {
    let dir = tempfile::tempdir().unwrap();
    let before = chrono::Utc::now() - chrono::TimeDelta::seconds(1);
    ship(dir.path(), &[row("A", "auditevents", "2026-11-22T10:00:00Z", "")]).await;
    let table = NdjsonTable::new(dir.path(), STREAM);
    let now = chrono::Utc::now() + chrono::TimeDelta::seconds(1);
    let ids = table.ids(&question(When::Ingested(Span { from: before, until: now }))).await.unwrap();
    assert_eq!(copies(&ids), of(&[("A", 1)]));
    assert!(ids.held.values().all(|held| held.ingested.is_some_and(|at| before < at && at < now)));
    let later = question(When::Ingested(Span { from: now, until: now + chrono::TimeDelta::hours(1) }));
    assert_eq!(table.ids(&later).await.unwrap(), Ids::default());
}

/// Fault: rows whose time the column cannot hold, and a look-up of their batch by both times. Shows: they are found by the time they were taken.
#[tokio::test]
async fn fm_49_a_row_without_a_time_is_found_among_its_batch() {
    let dir = tempfile::tempdir().unwrap();
    let timeless = r#"{"log_source":"auditevents","uuid_s":"A"}"#.to_owned();
    ship(dir.path(), &[timeless, row("B", "auditevents", "2026-11-22T12:00:00Z", "")]).await;
    let table = NdjsonTable::new(dir.path(), STREAM);
    let (hour, now) = (chrono::TimeDelta::hours(1), chrono::Utc::now());
    let When::Happened(happened) = hour_of_ten() else { panic!() };
    let both = |from, until| When::Both { happened, ingested: Span { from, until } };
    let found = table.ids(&question(both(now - hour, now + hour))).await.unwrap();
    assert_eq!(copies(&found), of(&[("A", 1)]));
    assert_eq!(table.ids(&question(both(now + hour, now + hour * 2))).await.unwrap(), Ids::default());
    assert_eq!(table.ids(&question(hour_of_ten())).await.unwrap(), Ids::default());
}

#[tokio::test]
async fn a_torn_last_line_is_no_row_and_rotated_files_are_read_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    for (uuid, rotated) in [
        ("A", Some("OnePasswordEventLogs_CL.ndjson.1")),
        ("B", Some("OnePasswordEventLogs_CL.ndjson-20261122")),
        ("C", None),
    ] {
        ship(dir.path(), &[row(uuid, "auditevents", "2026-11-22T10:00:00Z", "")]).await;
        if let Some(name) = rotated {
            std::fs::rename(&path, dir.path().join(name)).unwrap();
        }
    }
    std::fs::write(dir.path().join(format!("{FILE}.1.gz")), "packed").unwrap();
    let torn =
        format!("{}{}", std::fs::read_to_string(&path).unwrap(), row("D", "auditevents", "2026-11-22T10:00:00Z", ""));
    std::fs::write(&path, &torn).unwrap();
    let ids = NdjsonTable::new(dir.path(), STREAM).ids(&question(hour_of_ten())).await.unwrap();
    assert_eq!(copies(&ids), of(&[("A", 1), ("B", 1), ("C", 1)]));
}

#[tokio::test]
async fn a_file_that_is_missing_or_holds_no_rows_is_an_error_and_not_an_empty_table() {
    let dir = tempfile::tempdir().unwrap();
    let table = NdjsonTable::new(dir.path(), STREAM);
    let missing = table.ids(&question(hour_of_ten())).await.unwrap_err();
    assert!(missing.remedy.unwrap().contains("sink.path"));
    for (text, why) in
        [("{\"a\":1}\nnot json\n".to_owned(), "line 2 is no row"), ("x".repeat(5 << 20), "longer than any row")]
    {
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let error = table.ids(&question(hour_of_ten())).await.unwrap_err();
        assert!(error.remedy.unwrap().contains("mend it or move the file"));
        let error = crate::said(&error);
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn the_newest_row_of_an_account_may_be_a_heartbeat_and_is_nobody_else_s() {
    let dir = tempfile::tempdir().unwrap();
    let health = |account: &str| format!(r#"{{"log_source":"healthevents","account_uuid":"{account}"}}"#);
    let event = row("A", "auditevents", "2020-11-22T10:00:00Z", "ONE");
    ship(dir.path(), &[health("TWO"), event, r#"{"log_source":"healthevents"}"#.to_owned()]).await;
    let table = NdjsonTable::new(dir.path(), STREAM);
    let newest = async |account: Option<&str>| table.newest(account, Duration::ZERO).await.unwrap();
    for account in [Some("ONE"), Some("TWO"), None] {
        assert!(newest(account).await.is_some_and(|age| age < Duration::from_secs(600)), "{account:?}");
    }
    assert_eq!(newest(Some("THREE")).await, None);
    std::fs::remove_file(dir.path().join(FILE)).unwrap();
    assert!(table.newest(None, Duration::ZERO).await.is_err(), "a file that is missing is no table without rows");
}
