//! Items that are no good events: each ships once, counted, and its neighbours are whole.

use crate::log::Log;
use crate::recovery::dies_in_its_post;
use crate::source::{Order, Reply};
use crate::world::{HOUR, MINUTE, World};
use serde_json::{Value, json};
use sha2::Digest;
use std::collections::VecDeque;

const AT: &str = r#""timestamp":"2026-11-22T09:59:00Z""#;

/// Every request is answered by these items.
fn serving(items: &[String]) -> World {
    let world = World::new(Order::Insertion);
    let body = format!(r#"{{"cursor":"c","has_more":false,"items":[{}]}}"#, items.join(","));
    world.on_page(move |_| Some(Reply::Body(body.clone())));
    world
}

/// The rows of all POSTs.
fn posted(world: &World) -> Vec<Value> {
    let rows = |body: &String| serde_json::from_str::<Vec<Value>>(body).expect("an array");
    world.state().sink.bodies.iter().flat_map(rows).collect()
}

fn sha256(text: &str) -> String {
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two ticks, the second of which reads everything again.
async fn twice(world: &mut World) {
    let mut process = world.start();
    process.good().await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(process.good().await.shipped, 0, "known by its id, also by one that was derived");
    world.the_position_is_covered();
}

/// Fault: no uuid, no timestamp, wrong types, 1e400, NaN, unknown fields. Shows: each item is one row, and every oddity is counted.
#[tokio::test(start_paused = true)]
async fn fm_19_odd_items_ship_once_under_a_derived_id_and_are_counted() {
    let items = [
        format!(r#"{{{AT},"action":"nameless"}}"#),
        r#"{"uuid":"TIMELESS","action":"view"}"#.into(),
        r#"{"uuid":null,"timestamp":null}"#.into(),
        r#"{"uuid":17,"timestamp":"yesterday"}"#.into(),
        format!(r#"{{"uuid":"HUGE",{AT},"aux_id":1e400,"used_version":99999999999}}"#),
        format!(r#"{{"uuid":"NAN",{AT},"aux_id":NaN,"client":Infinity}}"#),
        format!(r#"{{"uuid":"NEW",{AT},"from_the_future":{{"x":1}},"another":[2]}}"#),
        format!(r#"{{"uuid":"",{AT},"action":"empty"}}"#),
        format!(r#"{{"uuid":"GOOD",{AT},"action":"view","used_version":3}}"#),
    ];
    let mut world = serving(&items);
    twice(&mut world).await;
    let rows = posted(&world);
    assert_eq!((rows.len(), world.rows()), (items.len(), items.len()));
    let good = rows.iter().find(|row| row["uuid_s"] == "GOOD").expect("arrived");
    assert_eq!((&good["action"], &good["used_version"]), (&json!("view"), &json!(3)));
    let totals = world.checkpoint().totals;
    assert_eq!((totals.malformed, totals.mistyped, totals.unknown_fields), (5, 6, 2), "{totals:?}");
}

/// Fault: items and fields nested 127, 128, 129 and 100,000 deep. Shows: each ships once, by its hash where it is too deep, neighbours whole.
#[tokio::test(start_paused = true)]
async fn fm_20_depth_is_no_limit_and_harms_no_neighbour() {
    for depth in [127, 128, 129, 100_000] {
        let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let neighbour = |uuid: &str| format!(r#"{{"uuid":"{uuid}",{AT},"action":"view"}}"#);
        let field = format!(r#"{{"uuid":"DEEP",{AT},"client":{deep},"action":"view"}}"#);
        let mut world = serving(&[neighbour("BEFORE"), field, deep.clone(), neighbour("BEHIND")]);
        twice(&mut world).await;
        let rows = posted(&world);
        assert_eq!(rows.len(), 4, "depth {depth}");
        for uuid in ["BEFORE", "DEEP", "BEHIND"] {
            let of_uuid: Vec<_> = rows.iter().filter(|row| row["uuid_s"] == uuid).collect();
            assert_eq!((of_uuid.len(), &of_uuid[0]["action"]), (1, &json!("view")), "depth {depth}");
        }
        let cut = &rows.iter().find(|row| row["uuid_s"] == "DEEP").expect("arrived")["client"];
        let of_deep = [&cut["truncated"], &cut["bytes"], &cut["sha256"]];
        assert_eq!(of_deep, [&json!(true), &json!(deep.len()), &json!(sha256(&deep))], "depth {depth}");
        let bare = rows.iter().find(|row| row["uuid_s"].is_null()).expect("arrived");
        let item = bare["details"]["opship"]["item"].as_str().expect("a text");
        assert!(item == deep || item.contains(&sha256(&deep)), "depth {depth}: {item:.80}");
        let cuts = 1 + u64::from(item != deep);
        assert!(item.len() <= 1_024 && world.checkpoint().totals.cut == cuts, "depth {depth}");
    }
}

/// Fault: one uuid with two contents on a page. Shows: the first ships, the conflict is counted and told by the hashes of both.
#[tokio::test(start_paused = true)]
async fn fm_21_of_two_contents_of_one_uuid_the_first_ships_and_both_are_told() {
    let item = |action: &str| format!(r#"{{"uuid":"TWICE",{AT},"action":"{action}"}}"#);
    let (first, second) = (item("first"), item("second"));
    let (log, mut world) = (Log::listen(), World::new(Order::Insertion));
    let mut pages = [format!("{first},{second},{first}")].into_iter();
    world.on_page(move |_| {
        let items = pages.next().unwrap_or_default();
        Some(Reply::Body(format!(r#"{{"cursor":"c","has_more":false,"items":[{items}]}}"#)))
    });
    twice(&mut world).await;
    let rows = posted(&world);
    assert_eq!((rows.len(), &rows[0]["action"]), (1, &json!("first")));
    let totals = world.checkpoint().totals;
    assert_eq!((totals.repeated, totals.conflicts), (2, 1));
    let told = log.said("one id has two contents on a page");
    assert_eq!(told.len(), 1);
    assert_eq!([&told[0]["kept"], &told[0]["dropped"]], [&json!(sha256(&first)), &json!(sha256(&second))]);
    assert!(told[0]["id"].is_string() && told[0]["feed"] == "default/itemusages");
}

fn at_hour(uuid: &str, hour: u32) -> String {
    format!(r#"{{"uuid":"{uuid}","timestamp":"2026-11-22T{hour:02}:59:59Z"}}"#)
}

/// The first page has these items, the next one those, and so on; then there are none.
fn pages(world: &World, pages: impl IntoIterator<Item = Vec<String>>) {
    let mut pages: VecDeque<_> = pages.into_iter().collect();
    world.on_page(move |_| {
        let items = pages.pop_front().unwrap_or_default().join(",");
        Some(Reply::Body(format!(r#"{{"cursor":"c","has_more":false,"items":[{items}]}}"#)))
    });
}

const MOVED: &str = "one uuid has events in two hours: this one ships as an event of its own";

/// Fault: one uuid under two hours, on one page and then on a later one; read again afterwards. Shows: a row for each hour, each counted and told once.
#[tokio::test(start_paused = true)]
async fn fm_58_one_uuid_under_two_hours_ships_twice_and_is_told() {
    let (log, mut world) = (Log::listen(), World::new(Order::Insertion));
    let page = vec![at_hour("A", 8), at_hour("B", 8), at_hour("A", 9)];
    let later = vec![at_hour("B", 9), at_hour("A", 8), at_hour("C", 9)];
    pages(&world, [page.clone(), later.clone(), page, later]);
    let mut process = world.start();
    for _ in 0..4 {
        process.good().await;
        tokio::time::sleep(MINUTE).await;
    }
    let rows = posted(&world);
    let of = |uuid: &str| rows.iter().filter(|row| row["uuid_s"] == uuid).count();
    assert_eq!((of("A"), of("B"), of("C"), rows.len()), (2, 2, 1, 5));
    assert_eq!(world.checkpoint().totals.moved, 2);
    let told = log.said(MOVED);
    assert_eq!((told.len(), &told[0]["hour"], &told[1]["hour"]), (2, &json!("2026112209"), &json!("2026112209")));
    assert!(told.iter().all(|line| line["id"].is_string() && line["feed"] == "default/itemusages"));
}

/// Fault: a batch is in doubt, and its event comes back under another hour alone. Shows: the old one is gone, the new one ships, told and counted once.
#[tokio::test(start_paused = true)]
async fn fm_58_an_event_in_doubt_that_comes_back_under_another_hour_is_told() {
    let (log, mut world) = (Log::listen(), World::new(Order::Insertion));
    pages(&world, [vec![at_hour("A", 8)]]);
    dies_in_its_post(&mut world, true).await;
    tokio::time::sleep(HOUR).await;
    world.on_page(|_| Some(Reply::Body(format!(r#"{{"cursor":"c","has_more":false,"items":[{}]}}"#, at_hour("A", 9)))));
    world.start().good().await;
    world.start().good().await;
    let checkpoint = world.checkpoint();
    assert_eq!((checkpoint.totals.moved, checkpoint.slot.in_doubt().gone), (1, 1));
    assert_eq!((world.rows_of("A"), log.said(MOVED).len()), (2, 1));
}
