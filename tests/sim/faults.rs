//! Scripted faults, the journal, the control API and TLS.

use super::*;
use opship::flow::Time;
use opship::sim::{BodyKind, Fault, PageFault, Refusal, RetryAfter, Service, Target, What, When};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATH: &str = "/api/v2/auditevents";

async fn struck(what: What) -> Bench {
    let on = Target::Events;
    let bench = Bench::start(Options { faults: vec![Fault::new(on, what).times(1)], ..Options::default() }).await;
    for _ in 0..40 {
        bench.world().append(Stream::AuditEvents, When::Now);
    }
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_stored_although_the_reply_is_lost() {
    let refusal = Refusal::status(500);
    for what in [What::AcceptThenHang, What::AcceptThenReset, What::AcceptThenStatus(refusal)] {
        let bench = Bench::start(Options::default()).await;
        let uuid = bench.world().append(Stream::AuditEvents, When::Now);
        bench.world().add_fault(Fault::new(Target::Ingestion, what.clone())).unwrap();
        let request = bench.rows_request(json!([row(Stream::AuditEvents, &uuid)]).to_string()).await;
        let stored = async {
            while bench.world().journal().iter().all(|entry| entry.service != Service::Ingestion) {
                tokio::task::yield_now().await;
            }
        };
        // A hanging request is given up as soon as the rows are there.
        let reply = tokio::select! {
            () = stored => None,
            reply = request.send() => Some(reply),
        };
        assert!(reply.is_none_or(|reply| reply.is_err() || reply.is_ok_and(|reply| reply.status() == 500)), "{what:?}");
        assert_eq!(bench.world().delivered(Stream::AuditEvents, &uuid), 1, "{what:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_or_reset_early_is_not_stored() {
    for what in [What::ResetBeforeBody, What::ResetBeforeHeaders, What::Status(Refusal::status(503))] {
        let bench = Bench::start(Options::default()).await;
        let uuid = bench.world().append(Stream::AuditEvents, When::Now);
        bench.world().add_fault(Fault::new(Target::Ingestion, what.clone()).times(1)).unwrap();
        let request = bench.rows_request(json!([row(Stream::AuditEvents, &uuid)]).to_string()).await;
        let reply = request.send().await;
        assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status() == 503), "{what:?}");
        assert_eq!(bench.world().delivered(Stream::AuditEvents, &uuid), 0, "{what:?}");
        assert_eq!(bench.post_rows(json!([row(Stream::AuditEvents, &uuid)])).await.0, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_an_error_after_the_headers() {
    for what in [What::ResetInBody, What::ShortBody] {
        let bench = struck(what.clone()).await;
        let response = bench.page_request(PATH, &json!({})).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.bytes().await.is_err(), "{what:?}");
        assert_eq!(bench.page(PATH, json!({})).await.0, 200, "the next connection works");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bent_body_arrives_complete_but_wrong() {
    for what in [What::TruncatedBody, What::InvalidUtf8, What::Body { text: "{\"items\":".into() }] {
        let bench = struck(what.clone()).await;
        let body = bench.page_request(PATH, &json!({})).send().await.unwrap().bytes().await.unwrap();
        assert!(serde_json::from_slice::<Value>(&body).is_err(), "{what:?}");
    }
    let dripped = struck(What::Drip { bytes: 2000, every_ms: 1 }).await;
    assert_eq!(dripped.page(PATH, json!({})).await.1["items"].as_array().unwrap().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_outgrows_any_cap() {
    for what in [What::EndlessBody, What::GzipBomb { mib: 4 }] {
        let bench = struck(what.clone()).await;
        let response = bench.page_request(PATH, &json!({})).send().await.unwrap();
        assert!(opship::http::read_body(response, 1 << 20).await.is_err(), "{what:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_body_stops_in_the_middle() {
    let bench = struck(What::StallInBody).await;
    let mut response = bench.page_request(PATH, &json!({})).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some_and(|half| !half.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_the_script_says() {
    let refusal = Refusal {
        text: Some("<html>busy</html>".into()),
        retry_after: Some(RetryAfter::Text("soon".into())),
        ..Refusal::status(503)
    };
    let bench = struck(What::Status(refusal)).await;
    let response = bench.page_request(PATH, &json!({})).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "soon"));
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    bench.world().add_fault(Fault::new(Target::Ingestion, What::Redirect { to: "http://192.0.2.1/".into() })).unwrap();
    let response = bench.rows_request("[]").await.send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["location"].to_str().unwrap()),
        (307, "http://192.0.2.1/")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_strikes_the_requests_it_names_and_as_often_as_it_says() {
    let bench = Bench::start(Options::default()).await;
    let fault = Fault::new(Target::Stream(Stream::AuditEvents), What::Status(Refusal::status(400)));
    bench.world().add_fault(fault.only(BodyKind::Cursor).from(2).times(1)).unwrap();
    let (_, page) = bench.page(PATH, json!({})).await;
    let mut statuses = Vec::new();
    for body in [json!({}), json!({ "cursor": page["cursor"] })].iter().cycle().take(6) {
        statuses.push(bench.page(PATH, body.clone()).await.0);
    }
    assert_eq!(statuses, [200, 200, 200, 400, 200, 200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_fault_bends_its_page() {
    let page = async |fault| struck(What::Page(fault)).await.page(PATH, json!({ "limit": 30 })).await.1;
    assert_eq!(page(PageFault::EmptyObject).await, json!({}));
    assert!(page(PageFault::MissingCursor).await.get("cursor").is_none());
    assert!(page(PageFault::MissingHasMore).await.get("has_more").is_none());
    assert!(page(PageFault::MissingItems).await.get("items").is_none());
    assert!(page(PageFault::NullItems).await["items"].is_null());
    assert_eq!(page(PageFault::MoreDenied).await["has_more"], false);
    assert_eq!(page(PageFault::Oversized { items: 35 }).await["items"].as_array().unwrap().len(), 35);
    assert_eq!(uuids_of(&page(PageFault::ChangedCopy).await).len(), 31);
    let twice = page(PageFault::DuplicateInside).await;
    assert_eq!(twice["items"][0], twice["items"][30]);
    let unknown = page(PageFault::UnknownField).await;
    assert!(unknown["items"].as_array().unwrap().iter().all(|item| item["opship_sim_unknown"].is_object()));
    assert_eq!(page(PageFault::LongCursor { bytes: 65_536 }).await["cursor"].as_str().unwrap().len(), 65_536);
}

#[tokio::test(flavor = "multi_thread")]
async fn page_faults_that_concern_the_next_page_keep_the_position() {
    for (fault, same) in
        [(PageFault::SameCursor, true), (PageFault::SameCursorEmpty, true), (PageFault::EmptyPage, false)]
    {
        let bench = struck(What::Delay { ms: 0 }).await;
        let (_, first) = bench.page(PATH, json!({ "limit": 10 })).await;
        let cursor = json!({ "cursor": first["cursor"] });
        let second = bench.page(PATH, cursor.clone()).await.1;
        bench.world().add_fault(Fault::new(Target::Events, What::Page(fault)).times(1)).unwrap();
        let (_, bent) = bench.page(PATH, cursor.clone()).await;
        assert_eq!((bent["cursor"] == first["cursor"], &bent["has_more"]), (same, &json!(true)), "{fault:?}");
        let (_, after) = bench.page(PATH, json!({ "cursor": bent["cursor"] })).await;
        assert_eq!(after["items"], second["items"], "nothing is skipped: {fault:?}");
        bench
            .world()
            .add_fault(Fault::new(Target::Events, What::Page(PageFault::Overlap { items: 3 })).times(1))
            .unwrap();
        let overlapping = uuids_of(&bench.page(PATH, cursor).await.1);
        assert_eq!(overlapping[..3], uuids_of(&first)[7..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_tells_what_was_asked_and_answered() {
    let bench = Bench::start(Options::default()).await;
    bench.page(PATH, json!({ "limit": 7 })).await;
    bench.get("/api/v2/auth/introspect", "wrong").await;
    let journal = bench.world().journal();
    assert_eq!(journal.len(), 2);
    assert_eq!((journal[0].service, journal[0].status), (Service::Events(Some(Stream::AuditEvents)), Some(200)));
    assert_eq!(journal[0].body, r#"{"limit":7}"#);
    assert_eq!((journal[1].number, journal[1].status), (1, Some(401)));
    assert!(journal[0].token_hash.len() == 16 && journal[0].token_hash != journal[1].token_hash);
    assert!(!serde_json::to_string(&journal).unwrap().contains(&bench.sim.token()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_api_does_what_the_library_does() {
    let bench = Bench::start(Options::default()).await;
    let post = |path: &str, body: Value| answer(bench.client.post(bench.url(path)).body(body.to_string()));
    let get = |path: &str| answer(bench.client.get(bench.url(path)));
    let (_, appended) = post("/sim/events", json!({ "stream": "itemusages", "count": 2, "late_seconds": 60 })).await;
    let uuid = appended["uuids"][0].as_str().unwrap();
    assert_eq!(post("/sim/events", json!({ "stream": "itemusages", "again": uuid })).await.0, 204);
    assert_eq!(post("/sim/events", json!({ "stream": "auditevents", "raw": "{}" })).await.0, 204);
    bench.post_rows(json!([row(Stream::ItemUsages, uuid)])).await;
    let (_, counts) = get("/sim/compare").await;
    assert_eq!(
        (&counts["generated"], &counts["lost"], &counts["nameless_generated"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(get("/sim/rows").await.1["itemusages"], json!({ uuid: 1 }));
    assert_eq!(get("/sim/missing").await.1["itemusages"], json!([appended["uuids"][1]]));
    assert_eq!(post("/sim/faults", json!([{ "on": "events", "what": "hangs" }])).await.0, 400);
    assert_eq!(post("/sim/faults", json!([{ "on": "events", "what": "reset-before-headers" }])).await.0, 204);
    assert!(bench.page_request(PATH, &json!({})).send().await.is_err());
    assert_eq!(answer(bench.client.delete(bench.url("/sim/faults"))).await.0, 204);
    assert_eq!(bench.page(PATH, json!({})).await.0, 200);
    assert_eq!(post("/sim/token/revoke", Value::Null).await.0, 204);
    assert_eq!(bench.page(PATH, json!({})).await.0, 401);
    assert_eq!(post("/sim/live?per_second=5", Value::Null).await.0, 204);
    assert_eq!(post("/sim/live?per_second=-5", Value::Null).await.0, 400);
    assert_eq!(post("/sim/generator/stop", Value::Null).await.0, 204);
    assert!(get("/sim/journal").await.1.as_array().unwrap().len() > 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_trusted_by_those_who_know_the_ca_only() {
    let bench = Bench::start(Options { tls: true, ..Options::default() }).await;
    assert!(bench.client.get(bench.url("/api/v2/auth/introspect")).send().await.is_err());
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, bench.sim.ca_pem().unwrap()).unwrap();
    let client = opship::http::client(&config::Http { ca_file: Some(ca_file), ..config::Http::default() }).unwrap();
    let bench = Bench { client, ..bench };
    assert_eq!(bench.get("/api/v2/auth/introspect", &bench.sim.token()).await.0, 200);
    assert_eq!(bench.post_rows(json!([])).await.0, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_many_requests_and_ends_with_the_simulator() {
    let sim = Sim::start(Options::default()).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(sim.base_url().trim_start_matches("http://")).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: sim\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"404 page not found\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
    }
    sim.stop().await;
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_form_of_retry_after_follows_the_clock() {
    let retry_after = Some(RetryAfter::DateIn(90));
    let bench = struck(What::Status(Refusal { retry_after, ..Refusal::status(429) })).await;
    let response = bench.page_request(PATH, &json!({})).send().await.unwrap();
    let text = response.headers()["retry-after"].to_str().unwrap();
    let until: Time = chrono::DateTime::parse_from_rfc2822(text).unwrap().to_utc();
    assert!((until - opship::http::date_of(&response).unwrap()).num_seconds().abs_diff(90) <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_faults_must_be_right_before_anything_listens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("faults.json");
    std::fs::write(&path, r#"[{"on": "events", "what": "explode"}]"#).unwrap();
    let error = opship::sim::serve(Options::default(), Some(path)).await.unwrap_err();
    assert!(matches!(error, opship::sim::SimError::Faults(_)), "{error:?}");
    let error = opship::sim::serve(Options::default(), Some(dir.path().join("none"))).await.unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}
