//! The Events API: pages, cursors, orders, refusals.

use super::*;
use chrono::{TimeDelta, Utc};
use opship::flow::{EventId, Time};
use opship::sim::{ErrorStyle, Order, Quirks, When};
use std::collections::BTreeSet;
use std::time::Duration;

const LONG_AGO: &str = "2000-01-01T00:00:00Z";
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn both_orders_page_the_full_history_exactly_once() {
    for order in [Order::Insert, Order::EventTime] {
        let bench = Bench::start(Options { history: 5000, late_share: 0.1, order, ..Options::default() }).await;
        for stream in Stream::ALL {
            let (read, _) = bench.drain(stream, json!({ "limit": 700, "start_time": LONG_AGO })).await;
            let mut generated = bench.world().uuids(stream);
            if order == Order::Insert {
                assert_eq!(read, generated);
            }
            assert_eq!(read.iter().collect::<BTreeSet<_>>().len(), read.len());
            generated.sort();
            let mut read = read;
            read.sort();
            assert_eq!(read, generated, "{order:?} {stream}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_is_behind_the_cursor_in_event_time_order_but_in_a_window() {
    for (order, seen) in [(Order::Insert, true), (Order::EventTime, false)] {
        let bench = Bench::start(Options { order, ..Options::default() }).await;
        bench.world().append(Stream::ItemUsages, When::Now);
        let (_, cursor) = bench.drain(Stream::ItemUsages, json!({ "start_time": LONG_AGO })).await;
        let late = bench.world().append(Stream::ItemUsages, When::Late(HOUR));
        let (by_cursor, _) = bench.drain(Stream::ItemUsages, json!({ "cursor": cursor })).await;
        assert_eq!(by_cursor.contains(&late), seen, "{order:?}");
        let now = bench.world().now();
        let window = json!({ "start_time": now - TimeDelta::hours(2), "end_time": now - TimeDelta::minutes(30) });
        assert_eq!(bench.drain(Stream::ItemUsages, window).await.0, [late]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_cursor_comes_back_as_it_was() {
    let bench = Bench::start(Options { history: 10, ..Options::default() }).await;
    let (_, cursor) = bench.drain(Stream::AuditEvents, json!({ "start_time": LONG_AGO })).await;
    assert!((100..500).contains(&cursor.len()), "{cursor}");
    for _ in 0..2 {
        let (_, page) = bench.page("/api/v2/auditevents", json!({ "cursor": cursor })).await;
        assert_eq!(page, json!({ "cursor": cursor, "has_more": false, "items": [] }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_outlives_a_restart_with_the_same_seed_and_a_new_token() {
    let options = Options { history: 300, history_end: Some(Utc::now()), ..Options::default() };
    let bench = Bench::start(options.clone()).await;
    let (_, page) = bench.page("/api/v2/auditevents", json!({ "limit": 10, "start_time": LONG_AGO })).await;
    let cursor = json!({ "cursor": page["cursor"] });
    let before = bench.page("/api/v2/auditevents", cursor.clone()).await;
    bench.sim.stop().await;
    let bench = Bench::start(options).await;
    bench.world().rotate_token();
    assert_eq!(bench.page("/api/v2/auditevents", cursor.clone()).await, before);
    assert_eq!(bench.page("/api/v2/itemusages", cursor).await.0, 400, "a cursor belongs to its stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refused_when_anything_is_wrong_with_it() {
    let bench = Bench::start(Options { token_lifetime: Some(HOUR), ..Options::default() }).await;
    let elsewhere = Bench::start(Options::default()).await;
    let (good, world) = (bench.sim.token(), bench.world());
    let introspect = "/api/v2/auth/introspect";
    assert_eq!(bench.get(introspect, &good).await.0, 200);
    let unauthorized = (401, json!({ "status": 401, "message": "Unauthorized access" }));
    assert_eq!(answer(bench.client.get(bench.url(introspect))).await, unauthorized, "none");
    assert_eq!(bench.get(introspect, "no.jwt.atall").await, unauthorized);
    assert_eq!(bench.get(introspect, &elsewhere.sim.token()).await, unauthorized, "another audience");
    world.revoke_token();
    assert_eq!(bench.get(introspect, &good).await, unauthorized);
    world.restore_token();
    assert_eq!(bench.get(introspect, &good).await.0, 200);
    let rotated = world.rotate_token();
    assert_eq!(bench.get(introspect, &good).await, unauthorized);
    assert_eq!(bench.get(introspect, &rotated).await.0, 200);
    world.remove_feature(Stream::ItemUsages);
    assert_eq!(bench.page("/api/v2/itemusages", json!({})).await, unauthorized);
    assert_eq!(bench.page("/api/v1/itemusages", json!({})).await.1, json!({ "Error": { "Message": "Unauthorized" } }));
    assert_eq!(bench.page("/api/v2/auditevents", json!({})).await.0, 200);
    world.shift_clock(TimeDelta::hours(2));
    assert_eq!(bench.get(introspect, &rotated).await, unauthorized, "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_has_two_shapes() {
    let bench = Bench::start(Options::default()).await;
    let token = bench.world().token_for(&[Stream::AuditEvents]);
    let (_, v2) = bench.get("/api/v2/auth/introspect", &token).await;
    assert_eq!(v2["features"], json!(["auditevents"]));
    assert_eq!(v2["account_uuid"].as_str().unwrap().len(), 26);
    let (_, v1) = bench.get("/api/auth/introspect", &token).await;
    assert_eq!(v1, json!({ "UUID": v2["uuid"], "IssuedAt": v2["issued_at"], "Features": ["auditevents"] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_refused_in_the_shape_of_its_version() {
    let quirks = Quirks { error_style: ErrorStyle::V1, ..Quirks::default() };
    let bench = Bench::start(Options { quirks, ..Options::default() }).await;
    for bad in [
        json!({ "limit": 0 }),
        json!({ "limit": 1001 }),
        json!({ "limit": "10" }),
        json!({ "start_time": "yesterday" }),
        json!({ "end_time": 5 }),
        json!({ "cursor": "nonsense" }),
        json!({ "cursor": 5 }),
        json!([]),
    ] {
        let refused = bench.page("/api/v2/auditevents", bad.clone()).await;
        assert_eq!(refused, (400, json!({ "Error": { "Message": "Bad Request" } })), "{bad}");
    }
    for good in [json!({}), json!({ "cursor": "" }), json!({ "limit": 1, "start_time": "2026-11-22T07:00:00.5-03:00" })]
    {
        assert_eq!(bench.page("/api/v2/auditevents", good.clone()).await.0, 200, "{good}");
    }
    assert_eq!(bench.page("/api/v4/auditevents", json!({})).await, (404, json!("404 page not found\n")));
    assert_eq!(bench.get("/api/v2/auditevents", &bench.sim.token()).await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_without_a_start_reaches_back_one_hour_and_none_reaches_behind_retention() {
    let bench = Bench::start(Options::default()).await;
    let append = |age| bench.world().append(Stream::AuditEvents, When::Late(age));
    let (_gone, old, recent) = (append(130 * 24 * HOUR), append(100 * 24 * HOUR), append(HOUR / 2));
    assert_eq!(bench.drain(Stream::AuditEvents, json!({})).await.0, std::slice::from_ref(&recent));
    assert_eq!(bench.drain(Stream::AuditEvents, json!({ "start_time": LONG_AGO })).await.0, [old, recent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_carry_every_field_and_version_1_lacks_the_new_ones() {
    let bench = Bench::start(Options { history: 3000, ..Options::default() }).await;
    let new = ["actor_type", "actor_account_uuid", "account_uuid", "user_type", "user_account_uuid"];
    let mut fields = BTreeSet::new();
    for stream in Stream::ALL {
        let request = json!({ "limit": 1000, "start_time": LONG_AGO });
        let (_, v2) = bench.page(&format!("/api/v2/{stream}"), request.clone()).await;
        let (_, v1) = bench.page(&format!("/api/v1/{stream}"), request).await;
        let mut without = v2.clone();
        for item in without["items"].as_array_mut().unwrap() {
            fields.extend(item.as_object().unwrap().keys().cloned());
            for object in ["user", "target_user"].iter().filter_map(|user| item[user].as_object()) {
                fields.extend(object.keys().cloned());
            }
            assert!(item["timestamp"].as_str().unwrap().parse::<Time>().is_ok(), "{item}");
            let id = EventId::of_uuid(item["uuid"].as_str().unwrap());
            assert_ne!(id, EventId::of_uuid(&item["uuid"].as_str().unwrap().to_lowercase()), "canonical: {item}");
            strip(item, &new);
        }
        assert_eq!(without["items"], v1["items"]);
    }
    let wanted = "uuid session_uuid timestamp country category type details target_user client location actor_uuid \
        actor_details actor_type actor_account_uuid account_uuid user_type user_account_uuid action object_type \
        object_uuid object_details aux_id aux_uuid aux_details aux_info session used_version vault_uuid item_uuid user";
    let missing: Vec<_> = wanted.split_whitespace().filter(|field| !fields.contains(*field)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn strip(item: &mut Value, fields: &[&str]) {
    let Some(object) = item.as_object_mut() else { return };
    fields.iter().for_each(|field| drop(object.remove(*field)));
    object.values_mut().for_each(|value| strip(value, fields));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_601st_request_of_a_minute_is_refused_without_a_hint() {
    let bench = Bench::start(Options::default()).await;
    let token = bench.sim.token();
    for _ in 0..600 {
        assert_eq!(bench.get("/api/v2/auth/introspect", &token).await.0, 200);
    }
    let response = bench.page_request("/api/v2/auditevents", &json!({})).send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert!(!response.headers().contains_key("retry-after"));
    bench.world().shift_clock(TimeDelta::minutes(1));
    assert_eq!(bench.get("/api/v2/auth/introspect", &token).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_cursor_is_refused_where_cursors_expire() {
    let bench = Bench::start(Options { cursor_lifetime: Some(HOUR), ..Options::default() }).await;
    let (_, cursor) = bench.drain(Stream::AuditEvents, json!({})).await;
    assert_eq!(bench.page("/api/v2/auditevents", json!({ "cursor": cursor })).await.0, 200);
    bench.world().shift_clock(TimeDelta::hours(1));
    assert_eq!(bench.page("/api/v2/auditevents", json!({ "cursor": cursor })).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_items_are_served_byte_for_byte() {
    let bench = Bench::start(Options::default()).await;
    let raw = "{\"uuid\" :  null, \"n\":1e400,\"é\":\"\\ud800\"}";
    bench.world().append_raw(Stream::AuditEvents, bench.world().now(), raw);
    let response = bench.page_request("/api/v2/auditevents", &json!({})).send().await.unwrap();
    let body = String::from_utf8(response.bytes().await.unwrap().to_vec()).unwrap();
    assert!(body.ends_with(&format!("\"items\":[{raw}]}}")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_date_header_follows_the_simulators_clock() {
    let bench = Bench::start(Options { clock_offset: TimeDelta::days(-1), ..Options::default() }).await;
    let response = bench.page_request("/api/v2/auditevents", &json!({})).send().await.unwrap();
    let off = Utc::now() - opship::http::date_of(&response).unwrap();
    assert!((off - TimeDelta::days(1)).num_minutes().abs() < 5, "{off}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generator_appends_until_it_is_stopped() {
    let bench = Bench::start(Options { live_per_second: 1000.0, ..Options::default() }).await;
    while bench.world().uuids(Stream::SigninAttempts).is_empty() {
        tokio::task::yield_now().await;
    }
    bench.world().stop_generator();
}
