//! What a row looks like, whatever the event looked like.

use super::*;
use crate::flow::decode;
use serde_json::{Value, json};
use std::collections::HashSet;

fn row_with(redact: &[&str], event: &str) -> (Value, Changes, Vec<u8>) {
    let paths: Vec<String> = redact.iter().map(|path| (*path).to_owned()).collect();
    let redact = Redact::new(&paths, None).unwrap();
    let mapper = Mapper { stream: Stream::ItemUsages, account_uuid: Some("ACCOUNT"), redact: &redact };
    let mut out = Vec::new();
    let changes = mapper.row(&decode::item(event), &mut out);
    let row = serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)));
    (row, changes, out)
}

fn row(event: &str) -> (Value, Changes) {
    let (row, changes, _) = row_with(&[], event);
    (row, changes)
}

#[test]
fn every_odd_shape_is_one_line_of_valid_json_with_table_columns_only() {
    let table: HashSet<&str> = COLUMNS.iter().map(|column| column.name).chain(["log_source"]).collect();
    let lines = include_str!("../../tests/data/events_odd_shapes.jsonl").lines();
    let mut seen = 0;
    for line in lines.filter(|line| !line.trim().is_empty()) {
        // The line may be no JSON itself, so its event is found by structure.
        let members = scan::object(line).unwrap();
        let event = members.iter().find(|member| member.key.starts_with("event") || member.key == "raw").unwrap().value;
        let (row, _, out) = row_with(&[], event);
        for (name, value) in row.as_object().unwrap() {
            assert!(table.contains(name.as_str()), "{name}");
            assert!(value.to_string().len() <= FIELD_BYTES_MAX * 2, "{name}");
        }
        assert!(!out.contains(&b'\n'));
        seen += 1;
    }
    assert!(seen >= 16);
}

#[test]
fn each_kind_of_column_takes_what_it_can_hold() {
    let (row, changes) =
        row(r#"{"uuid":"A","timestamp":"2026-11-22T10:00:00.5-03:30","type":"t","used_version":-7,"aux_id":2147483647,
            "client":{"ip_address":"::1"},"location":"not an object","session":[1],"country":null}"#);
    assert_eq!(changes, Changes::default());
    let expected = json!({"log_source": "itemusages", "uuid_s": "A", "timestamp": "2026-11-22T10:00:00.5-03:30",
        "account_uuid": "ACCOUNT", "action_type": "t", "used_version": -7, "aux_id": 2_147_483_647,
        "client": {"ip_address": "::1"}, "location": "not an object", "session": [1]});
    assert_eq!(row, expected);
}

/// Fault: numbers too large, texts and objects for numbers, 1e400, NaN, Infinity. Shows: null in the column, the text in details, and counted.
#[test]
fn fm_19_a_value_its_column_cannot_hold_is_null_there_and_a_note_in_details() {
    for (field, value, note) in [
        ("aux_id", "2147483648", "2147483648"),
        ("aux_id", "-2147483649", "-2147483649"),
        ("aux_id", "1.5", "1.5"),
        ("aux_id", "1e400", "1e400"),
        ("aux_id", r#""17""#, "17"),
        ("aux_id", "{}", "{}"),
        ("used_version", "4294967295", "4294967295"),
        ("timestamp", r#""yesterday""#, "yesterday"),
        ("timestamp", "17", "17"),
        ("aux_id", "NaN", "NaN"),
        ("client", "Infinity", "Infinity"),
    ] {
        let (row, changes) = row(&format!(r#"{{"uuid":"A","{field}":{value}}}"#));
        assert_eq!(row.get(field), None, "{field} {value}");
        assert_eq!(row["details"]["opship"][field], note, "{value}");
        assert_eq!(changes.mistyped, 1);
    }
}

#[test]
fn a_text_column_keeps_anything_as_text() {
    for (value, text) in [("17", "17"), ("true", "true"), (r#"{"a": [1]}"#, r#"{"a": [1]}"#), (r#""\u00fc\n""#, "ü\n")]
    {
        assert_eq!(row(&format!(r#"{{"uuid":"A","action":{value}}}"#)).0["action"], text);
    }
}

/// Fault: a field over 64 KB. Shows: it is cut between characters below the limit with a marker of its length and SHA-256, and counted.
#[test]
fn fm_17_a_long_text_is_cut_between_characters_with_length_and_hash() {
    for unit in ["x", "ü", "🇬🇧", "\\\""] {
        let long = unit.repeat(70_000 / unit.len());
        let event = json!({"uuid": "A", "aux_info": long}).to_string();
        let (row, changes) = row(&event);
        let kept = row["aux_info"].as_str().unwrap();
        assert!(kept.len() <= FIELD_BYTES_MAX && kept.len() > FIELD_BYTES_MAX - 8, "{}", kept.len());
        let marker = format!(" [cut by opship: {} bytes, sha256 {}]", long.len(), sha256_hex(long.as_bytes()));
        let head = kept.strip_suffix(&marker).unwrap();
        assert!(long.starts_with(head) && changes.cut == 1);
    }
    let fits = "x".repeat(FIELD_BYTES_MAX);
    assert_eq!(row(&json!({"uuid": "A", "aux_info": fits}).to_string()).0["aux_info"], fits);
}

#[test]
fn a_dynamic_value_too_large_or_too_deep_becomes_a_marker_never_cut_json() {
    let large = format!("[{}1]", "1,".repeat(40_000));
    let deep = format!("{}1{}", "[".repeat(101), "]".repeat(101));
    for raw in [large, deep] {
        let (row, changes) = row(&format!(r#"{{"uuid":"A","client":{raw}}}"#));
        let marker = &row["client"];
        assert_eq!((marker["truncated"].clone(), marker["bytes"].clone()), (json!(true), json!(raw.len())));
        assert_eq!(marker["sha256"], sha256_hex(raw.as_bytes()));
        assert!(raw.starts_with(marker["head"].as_str().unwrap()) && changes.cut == 1);
    }
    let shallow = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    assert_eq!(row(&format!(r#"{{"uuid":"A","client":{shallow}}}"#)).1.cut, 0);
}

#[test]
fn notes_live_beside_whatever_details_was() {
    let of = |details: &str| row(&format!(r#"{{"uuid":"A","aux_id":"x","details":{details}}}"#)).0["details"].clone();
    let notes = json!({"aux_id": "x"});
    assert_eq!(of(r#"{"value":"v"}"#), json!({"opship": notes, "value": "v"}));
    assert_eq!(of("{}"), json!({"opship": notes}));
    assert_eq!(of("{ \n }"), json!({"opship": notes}));
    assert_eq!(of("null"), json!({"opship": notes}));
    assert_eq!(of("[1]"), json!({"opship": notes, "value": [1]}));
    assert_eq!(of(r#""text""#), json!({"opship": notes, "value": "text"}));
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(65_500));
    let marked = of(&large);
    assert_eq!((marked["opship"].clone(), marked["truncated"].clone()), (notes, json!(true)));
    assert!(marked.to_string().len() <= FIELD_BYTES_MAX);
}

#[test]
fn details_cannot_pass_for_our_notes() {
    let (row, _) = row(r#"{"uuid":"A","aux_id":"x","details":{"opship":{"aux_id":"forged"}}}"#);
    assert_eq!(row["details"], json!({"opship": {"aux_id": "x"}, "value": {"opship": {"aux_id": "forged"}}}));
}

#[test]
fn notes_that_grow_beyond_a_field_are_a_marker_and_never_a_panic() {
    // A thousand control characters a field: no JSON, and six times as long once it is.
    let bad = format!("\"{}\"", "\u{1}".repeat(2_000));
    let fields = COLUMNS.iter().filter(|column| column.field != "uuid" && column.field != "details");
    let members: Vec<String> = fields.map(|column| format!(r#""{}":{bad}"#, column.field)).collect();
    for details in ["1", r#"{"a":1}"#] {
        let (row, changes) = row(&format!(r#"{{"uuid":"A",{},"details":{details}}}"#, members.join(",")));
        assert!(row["details"].to_string().len() <= FIELD_BYTES_MAX);
        assert_eq!(row["details"]["opship"]["truncated"], true);
        assert_eq!(changes.mistyped as usize, members.len());
    }
}

#[test]
fn user_fields_are_lifted_unless_the_event_has_them_itself() {
    let (lifted, _) = row(r#"{"uuid":"A","user":{"uuid":"U","user_type":"user","user_account_uuid":"ACC","x":1}}"#);
    assert_eq!((lifted["user_type"].clone(), lifted["user_account_uuid"].clone()), (json!("user"), json!("ACC")));
    assert_eq!(lifted["user"]["x"], 1);
    let (target, _) = row(r#"{"uuid":"A","target_user":{"user_type":"external_user","user_account_uuid":null}}"#);
    assert_eq!((target["user_type"].clone(), target.get("user_account_uuid")), (json!("external_user"), None));
    let (own, _) = row(r#"{"uuid":"A","user_type":"own","user":{"user_type":"lifted"}}"#);
    assert_eq!(own["user_type"], "own");
}

#[test]
fn what_redaction_takes_does_not_come_back_another_way() {
    let event = r#"{"uuid":"A","user":{"email":"wendy@example.com","user_account_uuid":"ACC","user_type":"t"}}"#;
    let (whole, changes, _) = row_with(&["user"], event);
    assert!(whole.get("user").is_none() && whole.get("user_account_uuid").is_none() && changes.redacted == 1);
    let (member, ..) = row_with(&["user.user_account_uuid"], event);
    assert_eq!((member.get("user_account_uuid"), member["user_type"].clone()), (None, json!("t")));
    // An item that cannot be taken apart is not quoted either, nor is a value that is no JSON.
    for broken in [
        r#"{"uuid":"A",,"client":{"ip_address":"203.0.113.9"}}"#,
        r#"{"uuid":"A","client":{"ip_address":203.0.113.9}}"#,
    ] {
        let (_, _, out) = row_with(&["client.ip_address"], broken);
        assert!(!String::from_utf8_lossy(&out).contains("203.0.113.9"));
    }
}

#[test]
fn a_redacted_account_is_not_filled_in_as_it_is() {
    for event in [r#"{"uuid":"A"}"#, r#"{"uuid":"A","account_uuid":"ACCOUNT"}"#, r#"{"uuid":"A","account_uuid":null}"#]
    {
        assert_eq!(row_with(&["account_uuid"], event).0.get("account_uuid"), None, "{event}");
    }
    let at = "2026-11-20T10:00:00Z".parse().unwrap();
    let redact = |key: Option<&str>| Redact::new(&["account_uuid".into()], key.map(|key| key.into())).unwrap();
    let beat =
        |redact: &Redact| -> Value { serde_json::from_slice(&health_row(Some("ACCOUNT"), redact, at, None)).unwrap() };
    assert_eq!(beat(&redact(None)).get("account_uuid"), None);
    // By one name in every row, so that rows can still be counted by account.
    let keyed = redact(Some("0123456789abcdef"));
    let mapper = Mapper { stream: Stream::ItemUsages, account_uuid: Some("ACCOUNT"), redact: &keyed };
    let shipped = |event: &str| -> Value {
        let mut out = Vec::new();
        mapper.row(&decode::item(event), &mut out);
        serde_json::from_slice(&out).unwrap()
    };
    let named = shipped(r#"{"uuid":"A","account_uuid":"ACCOUNT"}"#)["account_uuid"].clone();
    assert!(named.is_string() && named != "ACCOUNT");
    assert_eq!((&shipped(r#"{"uuid":"A"}"#)["account_uuid"], &beat(&keyed)["account_uuid"]), (&named, &named));
}

#[test]
fn the_account_is_filled_in_only_where_it_is_missing() {
    assert_eq!(row(r#"{"uuid":"A"}"#).0["account_uuid"], "ACCOUNT");
    assert_eq!(row(r#"{"uuid":"A","account_uuid":null}"#).0["account_uuid"], "ACCOUNT");
    assert_eq!(row(r#"{"uuid":"A","account_uuid":"OTHER"}"#).0["account_uuid"], "OTHER");
}

#[test]
fn pretty_printed_values_and_items_are_one_line() {
    let (row, _, out) =
        row_with(&[], "{\n\"uuid\": \"A\",\r\n\"client\": {\r\n  \"a\": [\n1,\n2]\n}, \"action\": {\n\"x\":1}}");
    assert!(!out.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
    assert_eq!(row["client"], json!({"a": [1, 2]}));
    assert_eq!(row["action"], "{\n\"x\":1}");
}

#[test]
fn what_is_no_object_is_still_a_row() {
    for item in ["17", "[]", r#""text""#, "", "{\"uuid\":", "nonsense \u{1}", "{\"uuid\":\"C\",,}"] {
        let (row, _) = row(item);
        assert_eq!(row["log_source"], "itemusages");
        assert_eq!(row["details"]["opship"]["item"], item);
    }
}

/// Fault: an event with no field that has a column, with one that is null, and an empty one. Shows: its content stands in details; where columns are redacted, its length and SHA-256 alone.
#[test]
fn fm_53_an_event_without_a_known_field_is_kept_in_details() {
    let long = format!(r#"{{"strange":"{}"}}"#, "x".repeat(5_000));
    for event in [r#"{"vault":"V","secret":"wendy"}"#, r#"{"uuid":null,"eventUuid":"E"}"#, "{}", &long] {
        let (row, _) = row(event);
        let item = row["details"]["opship"]["item"].as_str().unwrap();
        let is_whole =
            item == event || item.contains(&format!("{} bytes, sha256 {}", event.len(), sha256_hex(event.as_bytes())));
        assert!(is_whole && item.len() <= NOTE_BYTES_MAX, "{item}");
        let (redacted, _, out) = row_with(&["client.ip_address"], event);
        let said =
            format!("left out: filter.redact is set; {} bytes, sha256 {}", event.len(), sha256_hex(event.as_bytes()));
        assert_eq!(redacted["details"], json!({"opship": {"item": said}}));
        assert!(!String::from_utf8_lossy(&out).contains("wendy"));
    }
    assert_eq!(row(r#"{"uuid":"A","strange":1}"#).0.get("details"), None, "what has a column is a row of its own");
}

/// Fault: an item that is no object, where columns are redacted. Shows: its length and SHA-256, and nothing of it.
#[test]
fn fm_53_an_item_that_is_no_object_is_told_by_its_hash_where_columns_are_redacted() {
    let item = r#""wendy at 203.0.113.9""#;
    let (row, _, _) = row_with(&["client.ip_address"], item);
    let said = format!("left out: filter.redact is set; {} bytes, sha256 {}", item.len(), sha256_hex(item.as_bytes()));
    assert_eq!(row["details"], json!({"opship": {"item": said}}));
}

#[test]
fn a_dead_letter_holds_the_row_where_columns_are_redacted() {
    let redact = Redact::new(&["action".to_owned()], None).unwrap();
    let mapper = Mapper { stream: Stream::AuditEvents, account_uuid: None, redact: &redact };
    let item = r#"{"uuid":"A","timestamp":"2026-11-22T10:00:00Z","action":"view"}"#;
    assert!(!mapper.original(&decode::item(item)).contains("view"));
}

#[test]
fn health_rows_have_table_columns() {
    let at = "2026-11-22T10:00:00.9Z".parse().unwrap();
    let beat: Value = serde_json::from_slice(&health_row(Some("ACC"), &Redact::default(), at, None)).unwrap();
    assert_eq!(beat, json!({"log_source": "healthevents", "timestamp": "2026-11-22T10:00:00Z", "account_uuid": "ACC"}));
    let trouble = health_row(None, &Redact::default(), at, Some(("credentials_failed", "API Key Invalid")));
    let trouble: Value = serde_json::from_slice(&trouble).unwrap();
    assert_eq!(
        (trouble["category"].clone(), trouble["action_type"].clone()),
        (json!("credentials_failed"), json!("API Key Invalid"))
    );
}

#[test]
fn an_escaped_name_of_ours_in_details_does_not_stand_twice() {
    for (details, inside) in [
        (r#"{"op\u0073hip":1,"note":2}"#, r#"{"opship":{"aux_id":"1.5"},"value":{"op\u0073hip":1,"note":2}}"#),
        (r#"{"deep":{"opship":1}}"#, r#"{"opship":{"aux_id":"1.5"},"deep":{"opship":1}}"#),
    ] {
        let (_, _, row) = row_with(&[], &format!(r#"{{"uuid":"A","aux_id":1.5,"details":{details}}}"#));
        let row = String::from_utf8(row).unwrap();
        assert!(row.ends_with(&format!(r#""details":{inside}}}"#)), "{row}");
    }
}
