//! What goes over the wire, and what is read from a good answer.

use crate::world::*;
use opship::config::ApiVersion;
use opship::flow::identity::TokenHash;
use opship::flow::{Cursor, Stream, Time, retry::Failure};
use opship::source::{Features, Introspection, Lane, PageRequest, Source};
use serde_json::json;

fn time(text: &str) -> Time {
    text.parse().unwrap()
}

#[tokio::test]
async fn bodies_are_sent_to_the_byte_and_a_continuation_is_only_its_cursor() {
    let world = World::new(vec![ok("{}"); 4]).await;
    let source = source(&TokenFile::new("any string will do"), Some(&world.url), ApiVersion::V2);
    let from = time("2026-11-22T09:00:00Z");
    let requests = [
        (Stream::AuditEvents, PageRequest::Reset { start: from, limit: 1000 }),
        (Stream::ItemUsages, PageRequest::Reset { start: time("2026-11-22T09:00:00.120-03:00"), limit: 1 }),
        (Stream::SigninAttempts, PageRequest::Window { from, to: time("2026-11-22T10:00:00.000000001Z"), limit: 500 }),
        (Stream::AuditEvents, PageRequest::Continue(Cursor::parse("aGk\"=".into()).unwrap())),
    ];
    for (stream, request) in &requests {
        source.page(*stream, request, Lane::Live).await.unwrap();
    }
    let journal = world.journal();
    let seen: Vec<_> = journal.iter().map(|seen| (seen.line.as_str(), seen.body.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("POST /api/v2/auditevents", r#"{"limit":1000,"start_time":"2026-11-22T09:00:00Z"}"#),
            ("POST /api/v2/itemusages", r#"{"limit":1,"start_time":"2026-11-22T12:00:00.120Z"}"#),
            (
                "POST /api/v2/signinattempts",
                r#"{"limit":500,"start_time":"2026-11-22T09:00:00Z","end_time":"2026-11-22T10:00:00.000000001Z"}"#
            ),
            ("POST /api/v2/auditevents", r#"{"cursor":"aGk\"="}"#),
        ]
    );
    let first = journal.first().unwrap();
    assert_eq!(first.token(), "any string will do");
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.header("accept"), Some("application/json"));
    assert_eq!(first.header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn an_answer_is_its_body_and_its_date_whatever_its_content_type() {
    let page = r#"{"cursor":"c","has_more":false,"items":[]}"#;
    let world = World::new([reply(200, "content-type: text/html\r\n", page)]).await;
    let url = format!("{}/gateway/", world.url);
    let source = source(&TokenFile::new("t"), Some(&url), ApiVersion::V1);
    let request = PageRequest::Reset { start: time("2026-11-22T09:00:00Z"), limit: 1 };
    let answer = source.page(Stream::ItemUsages, &request, Lane::Late).await.unwrap();
    assert_eq!(answer.body, page);
    assert_eq!(answer.date, time("2026-11-22T10:00:00Z"));
    assert_eq!(world.journal().first().unwrap().line, "POST /gateway/api/v1/itemusages");
    assert_eq!(source.place(), world.url);
    assert!(!source.late_lane_is_spent());
}

#[tokio::test]
async fn an_answer_that_is_gzipped_unasked_is_decoded() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, b"{\"items\":[]}").unwrap();
    let world = World::new([reply(200, "content-encoding: gzip\r\n", gzip.finish().unwrap())]).await;
    let source = source(&TokenFile::new("t"), Some(&world.url), ApiVersion::V2);
    let request = PageRequest::Continue(Cursor::parse("c".into()).unwrap());
    assert_eq!(source.page(Stream::ItemUsages, &request, Lane::Live).await.unwrap().body, "{\"items\":[]}");
}

#[tokio::test]
async fn both_shapes_of_introspection_are_read_from_both_versions() {
    let features = vec!["auditevents".to_owned(), "itemusages".to_owned()];
    let old = r#"{"UUID":"U","IssuedAt":"2026-01-01T00:00:00Z","Features":["auditevents","itemusages"]}"#;
    let new = r#"{"uuid":"U","issued_at":"x","features":["auditevents","itemusages"],"account_uuid":"ACCOUNT"}"#;
    let token = jwt(&json!({"aud": "x", "exp": 1_790_000_000, "1password.com/auuid": "CLAIMED"}));
    for (api, path) in [(ApiVersion::V1, "GET /api/auth/introspect"), (ApiVersion::V2, "GET /api/v2/auth/introspect")] {
        for (body, account) in [(old, "CLAIMED"), (new, "ACCOUNT")] {
            let world = World::new([ok(body)]).await;
            let source = source(&TokenFile::new(&token), Some(&world.url), api);
            let expected = Introspection {
                account_uuid: Some(account.into()),
                token: TokenHash::of(&token),
                features: Features::Said(features.clone()),
                expires: Some(time("2026-09-21T14:13:20Z")),
                date: Some(time("2026-11-22T10:00:00Z")),
            };
            assert_eq!(source.introspect().await.unwrap(), expected);
            assert_eq!(world.journal().first().unwrap().line, path);
        }
    }
}

#[tokio::test]
async fn features_that_the_answer_leaves_out_come_from_the_claims() {
    let world = World::new([ok(r#"{"uuid":"U","features":[1]}"#)]).await;
    let token = jwt(&json!({"1password.com/fts": ["itemusages"]}));
    let said = source(&TokenFile::new(&token), Some(&world.url), ApiVersion::V2).introspect().await.unwrap();
    assert_eq!(
        (said.features, said.account_uuid, said.expires),
        (Features::Claimed(vec!["itemusages".to_owned()]), None, None)
    );
}

#[tokio::test]
async fn an_introspection_that_says_nothing_is_malformed() {
    for body in ["{}", "[]", "", "not json", "17", r#"{"features":"auditevents"}"#, r#"{"features":[1]}"#] {
        let world = World::new([ok(body)]).await;
        let source = source(&TokenFile::new("opaque"), Some(&world.url), ApiVersion::V2);
        let error = source.introspect().await.unwrap_err();
        assert!(matches!(error.failure, Failure::Malformed(_)), "{body}: {error}");
        assert_eq!(error.on, format!("{}/api/v2/auth/introspect", world.url));
    }
}

#[tokio::test]
async fn without_events_url_the_token_names_the_place() {
    let world = World::new([ok("{}")]).await;
    let token = TokenFile::new(&jwt(&json!({"aud": [world.url]})));
    let source = source(&token, None, ApiVersion::V2);
    assert_eq!(source.place(), "");
    let request = PageRequest::Continue(Cursor::parse("c".into()).unwrap());
    source.page(Stream::AuditEvents, &request, Lane::Live).await.unwrap();
    assert_eq!(source.place(), world.url);
    assert_eq!(world.journal().len(), 1);
}
