//! map: a row is one line of JSON with the columns of the table, and every value of the event is in it or counted.

use crate::json;
use opship::flow::decode::{self, COLUMNS, Column, Item, Kind};
use opship::flow::map::{Changes, FIELD_BYTES_MAX, Mapper, Stub};
use opship::flow::redact::Redact;
use opship::flow::{Stream, scan};
use std::collections::BTreeMap;

const ACCOUNT: &str = "SYNTHETICACCOUNT0000000000";

pub fn check(data: &[u8]) {
    let (text, _) = decode::text(data);
    row_of(&decode::item(&text));
    for item in decode::page(&text).iter().flat_map(|page| &page.items) {
        row_of(item);
    }
}

fn row_of(item: &Item<'_>) {
    let nothing = Redact::default();
    for (n, stream) in Stream::ALL.into_iter().enumerate() {
        let account_uuid = (n > 0).then_some(ACCOUNT);
        let mapper = Mapper { stream, account_uuid, redact: &nothing };
        let mut row = Vec::new();
        let changes = mapper.row(item, &mut row);
        let row = columns_of(&row, stream);
        every_value_is_found_or_counted(item, &row, changes);
    }
    a_stub_names_what_it_stands_for(item);
    what_is_redacted_is_gone(item);
}

/// The columns of a row by name.
fn columns_of(row: &[u8], stream: Stream) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(row).expect("a row is UTF-8");
    assert!(!text.contains(['\n', '\r']), "a row is one line");
    let members = json::members(text).expect("a row is a JSON object");
    let count = members.len();
    let columns: BTreeMap<String, String> = members.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    assert_eq!(columns.len(), count, "no column stands twice");
    for name in columns.keys() {
        assert!(name == "log_source" || COLUMNS.iter().any(|column| column.name == name), "{name} is no column");
    }
    assert_eq!(json::text(&columns["log_source"]).as_deref(), Some(stream.as_str()));
    for (name, value) in &columns {
        let kind = COLUMNS.iter().find(|column| column.name == name).map(|column| column.kind);
        assert!(kind != Some(Kind::Dynamic) || !scan::is_deeper_than(value, 102), "{name} is too deep to be read");
        // Escapes may make a cut text longer as JSON than it is as text.
        let text = json::text(value).map_or(value.len(), |text| text.len());
        assert!(text <= FIELD_BYTES_MAX + 64, "{name} has {text} bytes");
    }
    columns
}

fn every_value_is_found_or_counted(item: &Item<'_>, row: &BTreeMap<String, String>, changes: Changes) {
    let mut changed = 0;
    let mut noted = Vec::new();
    for column in COLUMNS.iter().filter(|column| column.field != "details") {
        let Some(raw) = item.field(column.field) else {
            let is_filled = column.field == "account_uuid" || column.field.starts_with("user_");
            assert!(is_filled || !row.contains_key(column.name), "{} comes from nowhere", column.name);
            continue;
        };
        match row.get(column.name) {
            Some(value) if *value == on_one_line(raw) => {}
            // The same text with other escapes.
            Some(value) if json::text(raw).is_some_and(|said| json::text(value) == Some(said)) => {}
            Some(value) => {
                changed += 1;
                is_the_same_text_or_cut(column, raw, value);
            }
            None => {
                changed += 1;
                assert!(matches!(column.kind, Kind::Int | Kind::DateTime), "{} is lost", column.name);
                noted.push(column.field);
            }
        }
    }
    noted.extend(item.mangled.iter().filter_map(|(place, _)| COLUMNS.get(*place)).map(|column| column.field));
    let is_unknown = item.mangled.is_empty() && item.fields.iter().all(Option::is_none);
    if !item.is_object || is_unknown {
        noted.push("item");
    }
    changed += item.mangled.len() as u32;
    assert!(changed <= changes.cut + changes.mistyped, "{changed} values changed, {changes:?} counted");
    the_details_keep_everything(item.field("details"), &noted, row.get("details"), changes);
}

fn is_the_same_text_or_cut(column: &Column, raw: &str, value: &str) {
    match column.kind {
        Kind::Text => {
            let said = json::text(raw).unwrap_or_else(|| raw.to_owned());
            let kept = json::text(value).expect("a text column holds a text");
            let head = kept.split(" [cut by opship: ").next().unwrap_or_default();
            assert!(kept == said || said.len() > FIELD_BYTES_MAX && said.starts_with(head), "{}", column.name);
        }
        Kind::Dynamic => is_a_marker(raw, value),
        Kind::DateTime | Kind::Int => panic!("{} was changed", column.name),
    }
}

fn is_a_marker(raw: &str, value: &str) {
    let members = json::members(value).expect("a marker is an object");
    assert_eq!(json::first(&members, "truncated"), Some("true"));
    assert_eq!(json::first(&members, "bytes"), Some(raw.len().to_string().as_str()));
    let head = json::first(&members, "head").and_then(json::text).expect("a marker has a head");
    assert!(raw.starts_with(&head));
}

/// What could not go into its column stands in `details.opship`; what was in `details` before stays.
fn the_details_keep_everything(said: Option<&str>, noted: &[&str], got: Option<&String>, changes: Changes) {
    let Some(got) = got else {
        assert!(said.is_none() && noted.is_empty(), "details are lost");
        return;
    };
    if noted.is_empty() {
        let said = said.expect("details come from the event");
        return if *got != on_one_line(said) {
            is_a_marker(said, got)
        };
    }
    let members = json::members(got).expect("details with notes are an object");
    assert_eq!(members.iter().filter(|(name, _)| name == "opship").count(), 1, "the notes stand once: {got}");
    let notes = json::first(&members, "opship").and_then(json::members).expect("notes are an object");
    let is_cut = json::first(&notes, "truncated").is_some();
    for field in noted {
        assert!(is_cut || json::first(&notes, field).is_some(), "no note of {field}");
    }
    let Some(said) = said.map(on_one_line) else { return };
    let inside = json::members(&said).is_some_and(|old| old.iter().all(|part| members.contains(part)));
    let moved = json::first(&members, "value").is_some_and(|value| value == said);
    let cut = changes.cut > 0 && json::first(&members, "truncated") == Some("true");
    assert!(inside || moved || cut || said == "null", "details are lost: {said} became {got}");
}

fn a_stub_names_what_it_stands_for(item: &Item<'_>) {
    let nothing = Redact::default();
    let mapper = Mapper { stream: Stream::AuditEvents, account_uuid: None, redact: &nothing };
    for size in [Stub::Ids, Stub::Short, Stub::Bare] {
        let mut stub = Vec::new();
        mapper.stub(item, size, "too large", &mut stub);
        assert!(stub.len() < 64 * 1024);
        let row = columns_of(&stub, Stream::AuditEvents);
        let notes = json::members(&row["details"])
            .and_then(|details| json::members(json::first(&details, "opship")?).map(|notes| notes.len()));
        assert!(notes.is_some_and(|notes| notes == 3), "why, how large and which");
    }
    assert_eq!(mapper.original(item), item.raw);
}

fn what_is_redacted_is_gone(item: &Item<'_>) {
    let paths = ["client", "user", "details.note"].map(str::to_owned);
    let redact = Redact::new(&paths, None).expect("columns");
    let mapper = Mapper { stream: Stream::ItemUsages, account_uuid: None, redact: &redact };
    let mut row = Vec::new();
    mapper.row(item, &mut row);
    let row = columns_of(&row, Stream::ItemUsages);
    assert!(!row.contains_key("client") && !row.contains_key("user"));
    let details = row.get("details").and_then(|details| json::members(details));
    assert!(details.is_none_or(|details| json::first(&details, "note").is_none()));
}

fn on_one_line(raw: &str) -> String {
    raw.replace(['\n', '\r'], " ")
}
