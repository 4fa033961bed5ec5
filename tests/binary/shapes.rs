//! Events of odd shapes arrive as rows, and never harm their neighbours.

use crate::world::{World, history};
use chrono::TimeDelta;
use opship::flow::Stream;
use opship::sim::{Options, Order, When};
use opship::store::Key;
use opship::store::dead_letters::DeadLetter;
use serde_json::{Value, json};
use std::time::Duration;

impl World {
    /// An item byte for byte, visible now and a minute old.
    pub fn item(&self, stream: Stream, raw: impl Into<bytes::Bytes>) {
        let world = self.sim.world();
        world.append_raw(stream, world.now() - TimeDelta::minutes(1), raw.into());
    }
}

#[tokio::test]
async fn every_odd_shape_arrives_once_as_a_row() {
    let world = World::file(history(0)).await;
    let mut wanted = Vec::new();
    for line in include_str!("../data/events_odd_shapes.jsonl").lines() {
        let odd: Value = serde_json::from_str(line).unwrap();
        let stream = Stream::ALL.into_iter().find(|stream| odd["stream"] == stream.as_str()).unwrap();
        world.item(stream, odd["event"].to_string());
        wanted.push((stream, odd["event"].clone()));
    }
    world.once().await.exits(0);
    world.assert_exactly_once();
    assert_eq!((world.rows().len(), wanted.len()), (16, 16));
    for (stream, event) in wanted {
        let row = world.row(event["uuid"].as_str().unwrap());
        assert_eq!((&row["log_source"], &row["timestamp"]), (&json!(stream.as_str()), &event["timestamp"]));
    }
    assert_eq!(world.sim.world().compare().long_values, 0, "no value is left for the service to cut silently");
    world.once().await.exits(0).says(&["0 shipped"]);
}

#[tokio::test]
async fn an_event_of_tomorrow_blinds_the_cursor_but_not_the_feed() {
    let world = World::file(Options { order: Order::EventTime, ..history(30) }).await;
    let sim = world.sim.world();
    let tomorrow = sim.append(Stream::SigninAttempts, When::At(sim.now() + TimeDelta::days(1)));
    world.once().await.exits(0);
    world.row(&tomorrow);
    let (now, after) = (sim.now(), sim.append(Stream::SigninAttempts, When::Late(Duration::from_secs(2))));
    world.once().await.exits(0);
    world.row(&after);
    world.assert_exactly_once();
    let cp = world.checkpoint(Stream::SigninAttempts).await;
    assert!(cp.watermark <= sim.now() && cp.sweep_mark <= sim.now() && cp.floor < now, "{cp:?}");
}

#[tokio::test]
async fn uuids_that_look_alike_are_two_events_and_one_uuid_twice_is_one() {
    let world = World::file(history(0)).await;
    let event = |uuid: &str, action: &str| json!({"uuid": uuid, "timestamp": "2026-11-22T10:00:00Z", "action": action});
    for last in ['A', 'B', 'Y', 'Z', '7'] {
        world.item(Stream::AuditEvents, event(&format!("AAAAAAAAAAAAAAAAAAAAAAAAA{last}"), "view").to_string());
    }
    world.item(Stream::AuditEvents, event("TWICE", "first").to_string());
    world.item(Stream::AuditEvents, event("TWICE", "second").to_string());
    world.item(Stream::AuditEvents, json!({"timestamp": "2026-11-22T10:00:00Z", "action": "nameless"}).to_string());
    world.once().await.exits(0);
    world.assert_exactly_once();
    assert_eq!(world.row("TWICE")["action"], "first");
    assert_eq!(world.rows().iter().filter(|row| row["action"] == "nameless").count(), 1);
    assert_eq!(world.rows().len(), 5 + 1 + 1);
    let totals = world.checkpoint(Stream::AuditEvents).await.totals;
    assert!((totals.repeated, totals.conflicts) >= (1, 1), "{totals:?}");
    world.once().await.exits(0);
    assert_eq!(world.rows().len(), 5 + 1 + 1);
}

#[tokio::test]
async fn a_value_its_column_cannot_hold_is_kept_as_text_and_a_large_one_by_its_hash() {
    let world = World::file(history(0)).await;
    let name = "ß".repeat(35_000);
    let user = json!({"uuid": "U", "name": name}).to_string();
    world.item(
        Stream::AuditEvents,
        format!(r#"{{"uuid":"I64","timestamp":"2026-11-22T10:00:00Z","aux_id":{}}}"#, i64::MAX),
    );
    world.item(
        Stream::SigninAttempts,
        format!(r#"{{"uuid":"LONG","timestamp":"2026-11-22T10:00:00Z","target_user":{user}}}"#),
    );
    world.once().await.exits(0);
    let row = world.row("I64");
    assert_eq!((&row["aux_id"], &row["details"]["opship"]["aux_id"]), (&Value::Null, &json!(i64::MAX.to_string())));
    let cut = &world.row("LONG")["target_user"];
    assert_eq!((&cut["truncated"], &cut["bytes"]), (&json!(true), &json!(user.len())));
    assert_eq!(cut["sha256"], sha256(&user));
    assert!(user.starts_with(cut["head"].as_str().unwrap()) && !cut["head"].as_str().unwrap().is_empty());
    assert_eq!(world.checkpoint(Stream::SigninAttempts).await.totals.cut, 1);
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fault: invalid UTF-8, NaN and a bare number between two good items. Shows: all five arrive once, the neighbours whole, the bad ones as text.
#[tokio::test]
async fn fm_18_broken_items_arrive_and_leave_their_neighbours_alone() {
    let world = World::file(history(0)).await;
    let neighbour = |uuid: &str| format!(r#"{{"uuid":"{uuid}","timestamp":"2026-11-22T10:00:00Z","action":"view"}}"#);
    world.item(Stream::AuditEvents, neighbour("BEFORE"));
    world.item(Stream::AuditEvents, r#"{"uuid":"NAN","timestamp":"2026-11-22T10:00:00Z","aux_id":NaN,"action":"x"}"#);
    world.item(
        Stream::AuditEvents,
        &b"{\"uuid\":\"UTF8\",\"timestamp\":\"2026-11-22T10:00:00Z\",\"action\":\"a\xff\xfeb\"}"[..],
    );
    world.item(Stream::AuditEvents, "17");
    world.item(Stream::AuditEvents, neighbour("BEHIND"));
    world.once().await.exits(0);
    assert_eq!(world.rows().len(), 5);
    for uuid in ["BEFORE", "BEHIND"] {
        assert_eq!(world.row(uuid)["action"], "view");
    }
    assert_eq!(
        (&world.row("NAN")["action"], &world.row("NAN")["details"]["opship"]["aux_id"]),
        (&json!("x"), &json!("NaN"))
    );
    assert_eq!(world.row("UTF8")["action"], "a\u{fffd}\u{fffd}b");
    world.once().await.exits(0);
    assert_eq!(world.rows().len(), 5);
}

#[tokio::test]
async fn timestamps_keep_every_digit_and_offset() {
    let world = World::file(history(0)).await;
    let mut wanted = Vec::new();
    for digits in 0..=9 {
        let fraction = if digits == 0 { String::new() } else { format!(".{}", &"123456789"[..digits]) };
        for (number, offset) in ["Z", "+00:00", "-03:30", "+14:00"].into_iter().enumerate() {
            wanted.push((format!("T{digits}-{number}"), format!("2026-11-20T10:00:00{fraction}{offset}")));
        }
    }
    for (uuid, time) in &wanted {
        world.item(Stream::ItemUsages, json!({"uuid": uuid, "timestamp": time, "action": "fill"}).to_string());
    }
    world.once().await.exits(0);
    world.assert_exactly_once();
    for (uuid, time) in wanted {
        assert_eq!(world.row(&uuid)["timestamp"], time);
    }
}

/// An audit event that fills every column with more than it holds: its row is over 1 MB.
pub fn huge_event(uuid: &str) -> Value {
    let mut event = json!({"uuid": uuid, "timestamp": "2026-11-22T10:00:00Z", "action": "view"});
    let texts = [
        "session_uuid",
        "country",
        "actor_uuid",
        "actor_type",
        "actor_account_uuid",
        "object_type",
        "object_uuid",
        "aux_uuid",
        "aux_info",
        "vault_uuid",
        "item_uuid",
        "user_type",
        "user_account_uuid",
    ];
    let objects = ["target_user", "client", "location", "session", "user"];
    texts.iter().for_each(|field| event[field] = "x".repeat(65_000).into());
    objects.iter().for_each(|field| event[field] = json!({"text": "y".repeat(65_000)}));
    event
}

/// Fault: an event over 1 MB. Shows: its stub and all neighbours arrive once, the original is a dead letter with its hash, exit 2.
#[tokio::test]
async fn fm_17_an_event_too_large_for_any_post_ships_as_a_stub_and_exits_2() {
    let world = World::file(history(30)).await;
    let raw = huge_event("HUGE").to_string();
    assert!(raw.len() > 1024 * 1024);
    world.item(Stream::AuditEvents, raw.clone());
    world.once().await.exits(2).says(&["1 dead letters"]);
    world.assert_exactly_once();
    let stub = &world.row("HUGE");
    assert_eq!((&stub["action"], &stub["session_uuid"]), (&json!("view"), &Value::Null));
    assert_eq!(stub["details"]["opship"]["sha256"], sha256(&raw));
    let letters = world.store().await.list("dead-letters/").await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = world.store().await.get(&Key::new(letters[0].key.as_str())).await.unwrap().unwrap();
    let letter: DeadLetter = serde_json::from_slice(&letter.bytes).unwrap();
    assert_eq!(letter.event, raw);
    world.once().await.exits(0).says(&["0 shipped"]);
    assert_eq!(world.heartbeats(), 2);
}
