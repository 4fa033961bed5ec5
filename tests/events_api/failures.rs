//! Every way an answer can be of no use, each named after what happens.

use crate::world::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use opship::config::ApiVersion;
use opship::flow::retry::{Edge, Failure, Verdict, verdict};
use opship::flow::{Cursor, Stream};
use opship::http::BODY_BYTES_MAX;
use opship::source::{Answer, Lane, PageRequest, Source, SourceError};
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Asks `world` for a page once.
async fn page(world: &World) -> Result<Answer, SourceError> {
    page_within(world, opship::http::REQUEST_DEADLINE).await
}

async fn page_within(world: &World, deadline: Duration) -> Result<Answer, SourceError> {
    let source = source_within(&TokenFile::new("t"), Some(&world.url), ApiVersion::V2, deadline);
    let request = PageRequest::Continue(Cursor::parse("c".into()).unwrap());
    source.page(Stream::AuditEvents, &request, Lane::Live).await
}

async fn failure(reply: Reply) -> Failure {
    page(&World::new([reply]).await).await.unwrap_err().failure
}

#[tokio::test]
async fn each_status_is_told_with_the_words_of_either_error_body() {
    for code in [204, 400, 401, 403, 404, 429, 500, 502, 503] {
        for (body, words) in [
            (r#"{"Error":{"Message":"Bad Request"}}"#, "Bad Request"),
            (r#"{"status":401,"message":"Unauthorized access"}"#, "Unauthorized access"),
            ("404 page not found\n", "no type, 19 bytes"),
            ("", "no type, 0 bytes"),
        ] {
            // A 204 has no body.
            let (body, words) = if code == 204 { ("", "no type, 0 bytes") } else { (body, words) };
            let said = failure(reply(code, "", body)).await;
            assert!(matches!(&said, Failure::Status { status, .. } if *status == code), "{said:?}");
            assert_eq!(said.to_string(), format!("answered {code}: {words}"));
        }
    }
}

#[tokio::test]
async fn an_error_says_what_was_attempted_where_and_what_came() {
    let world = World::new([reply(400, "", r#"{"Error":{"Message":"Bad Request"}}"#)]).await;
    let error = page(&world).await.unwrap_err();
    let expected = format!("read a page of auditevents at {}/api/v2/auditevents: answered 400: Bad Request", world.url);
    assert_eq!(error.to_string(), expected);
}

/// Fault: Retry-After in seconds, as a date, past, negative, huge, garbage, empty, fractional and repeated. Shows: what is handed on, clamped to 5 min.
#[tokio::test]
async fn fm_11_retry_after_is_handed_on_in_all_its_forms() {
    for (text, seconds) in [
        ("0", Some(0)),
        ("7", Some(7)),
        ("999999999999999999999", Some(300)),
        ("Sun, 22 Nov 2026 10:00:42 GMT", Some(42)),
        ("Sun, 22 Nov 2026 09:00:00 GMT", Some(0)),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("1.5", None),
        ("3\r\nretry-after: 9", Some(3)),
    ] {
        let Failure::Status { retry_after, .. } = failure(reply(429, &format!("retry-after: {text}\r\n"), "")).await
        else {
            panic!("{text}")
        };
        assert_eq!(retry_after, seconds.map(Duration::from_secs), "{text}");
    }
}

#[tokio::test]
async fn a_body_cut_short_is_interrupted_and_one_that_is_whole_is_left_to_the_decoder() {
    let cut = r#"{"cursor":"c","has_mo"#;
    let short = format!("HTTP/1.1 200 OK\r\ndate: {DATE}\r\ncontent-length: 100\r\n\r\n{cut}");
    assert_eq!(failure(Reply::Raw(short.into_bytes())).await, Failure::Interrupted);
    let unfinished = format!("HTTP/1.1 200 OK\r\ndate: {DATE}\r\ntransfer-encoding: chunked\r\n\r\n15\r\n{cut}\r\n");
    assert_eq!(failure(Reply::Raw(unfinished.into_bytes())).await, Failure::Interrupted);
    assert_eq!(page(&World::new([ok(cut)]).await).await.unwrap().body, cut);
}

#[tokio::test]
async fn connections_that_end_early_are_interrupted_and_refused_ones_never_began() {
    assert_eq!(failure(Reply::Raw(Vec::new())).await, Failure::Interrupted);
    assert_eq!(failure(Reply::Raw(b"HTTP/1.1 200 OK\r\nda".to_vec())).await, Failure::Interrupted);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let source = source(&TokenFile::new("t"), Some(&format!("http://{free}")), ApiVersion::V2);
    let error = source.introspect().await.unwrap_err();
    assert_eq!(error.failure, Failure::NotConnected);
    assert!(error.cause.is_some());
}

#[tokio::test]
async fn an_answer_without_a_date_cannot_be_used() {
    let Failure::Malformed(what) =
        failure(Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec())).await
    else {
        panic!("a missing Date was accepted")
    };
    assert!(what.contains("Date"), "{what}");
}

/// Fault: a server that hangs before or in its answer, or drips. Shows: the deadline of the request holds.
#[tokio::test]
async fn fm_33_servers_that_hang_or_drip_are_bounded_by_the_deadline() {
    let head = format!("HTTP/1.1 200 OK\r\ndate: {DATE}\r\ncontent-length: 9\r\n\r\n{{");
    for reply in [Reply::Stall(Vec::new()), Reply::Stall(head.into_bytes()), Reply::Drip] {
        let world = World::new([reply]).await;
        let start = Instant::now();
        let error = page_within(&world, Duration::from_millis(200)).await.unwrap_err();
        assert_eq!(error.failure, Failure::Interrupted);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

/// Fault: a body without an end. Shows: reading stops at the cap, whatever more was ready to be sent.
#[tokio::test]
async fn fm_35_an_endless_body_ends_at_the_cap() {
    let head = format!("HTTP/1.1 200 OK\r\ndate: {DATE}\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = [b"100000\r\n".as_slice(), &vec![b'0'; 0x10_0000], b"\r\n"].concat();
    let world = World::new([Reply::Endless(head.into_bytes(), chunk)]).await;
    assert_eq!(page(&world).await.unwrap_err().failure, Failure::TooLarge);
    // What the sockets buffer comes on top.
    assert!(world.written.load(Ordering::Relaxed) < BODY_BYTES_MAX + 16 * 0x10_0000);
}

#[tokio::test]
async fn a_body_announced_too_large_is_not_read() {
    let head = format!("HTTP/1.1 200 OK\r\ndate: {DATE}\r\ncontent-length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
    assert_eq!(failure(Reply::Raw(head.into_bytes())).await, Failure::TooLarge);
}

/// Fault: a gzip body of 80 MiB of zeros. Shows: the cap counts what comes out.
#[tokio::test]
async fn fm_35_a_gzip_bomb_ends_at_the_cap_of_what_comes_out() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 0x10_0000];
    for _ in 0..80 {
        std::io::Write::write_all(&mut gzip, &zeros).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 1_000_000);
    assert_eq!(failure(reply(200, "content-encoding: gzip\r\n", bomb)).await, Failure::TooLarge);
}

/// Fault: a page of 5 MiB is in hand when another such page is fetched ahead, and a third is asked for. Shows: the one fetched ahead is given up at once, plain and compressed, the third waits until the first is done with; small ones wait for nobody.
#[tokio::test]
async fn fm_66_a_long_page_fetched_ahead_waits_for_no_other() {
    let long = vec![b' '; 5 * 0x10_0000];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&long).unwrap();
    let plain = || reply(200, "", &long);
    let gzip = reply(200, "content-encoding: gzip\r\n", gzip.finish().unwrap());
    let world = World::new([plain(), plain(), gzip, ok("{}"), plain()]).await;
    let source = source(&TokenFile::new("t"), Some(&world.url), ApiVersion::V2);
    let ask = async |lane| {
        let request = PageRequest::Continue(Cursor::parse("c".into()).unwrap());
        source.page(Stream::AuditEvents, &request, lane).await
    };
    let in_hand = ask(Lane::Live).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ask(Lane::Ahead).await.unwrap_err().failure, Failure::Interrupted);
    }
    assert_eq!(ask(Lane::Ahead).await.unwrap().body, "{}");
    let mut third = Box::pin(ask(Lane::Live));
    tokio::select! {
        biased;
        answer = &mut third => panic!("{answer:?}"),
        () = world.saw(5) => {}
    }
    drop(in_hand);
    assert_eq!(third.await.unwrap().body.len(), long.len());
}

/// Fault: headers without an end. Shows: the request ends as interrupted.
#[tokio::test]
async fn fm_36_a_header_bomb_is_interrupted() {
    let head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let world = World::new([Reply::Endless(head, b"x: y\r\n".repeat(1000))]).await;
    assert_eq!(page(&world).await.unwrap_err().failure, Failure::Interrupted);
}

/// Fault: 301, 302, 307 and 308 to another server. Shows: the status is the failure, the other server sees no request.
#[tokio::test]
async fn fm_37_a_redirect_is_not_followed() {
    let elsewhere = World::new([ok("{}")]).await;
    let location = format!("location: {}/api/v2/auditevents\r\n", elsewhere.url);
    for code in [301, 302, 307, 308] {
        let Failure::Status { status, .. } = failure(reply(code, &location, "")).await else { panic!("{code}") };
        assert_eq!(status, code);
    }
    assert!(elsewhere.journal().is_empty());
}

/// Fault: a page under 203 and 206, which a proxy makes of a 200. Shows: a failed request that names status, type and length, and nothing of the page.
#[tokio::test]
async fn fm_64_a_success_that_is_not_the_promised_one_is_no_page() {
    for status in [201, 203, 206] {
        let page = r#"{"cursor":"c","has_more":false,"items":[]}"#;
        let said = failure(reply(status, "content-type: application/json\r\n", page)).await;
        assert_eq!(said.to_string(), format!("answered {status}: application/json, {} bytes", page.len()));
        assert!(matches!(verdict(Edge::Source, &said), Verdict::Retry { .. }), "{said:?}");
    }
}

/// Fault: gzip under its other names, something that only calls itself so, and an encoding that nobody asked for. Shows: gzip is read whatever it is called, anything else is named.
#[tokio::test]
async fn fm_64_gzip_is_read_under_each_of_its_names() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(br#"{"a":1}"#).unwrap();
    let gzip = gzip.finish().unwrap();
    let answer = |name: &str, body: &[u8]| reply(200, &format!("content-encoding: {name}\r\n"), body);
    for name in ["gzip", "GZIP", "x-gzip", "X-GZip", " gzip "] {
        let page = page(&World::new([answer(name, &gzip)]).await).await.unwrap();
        assert_eq!(&page.body[..], br#"{"a":1}"#, "{name}");
    }
    for (name, body, told) in [
        ("GZIP", &b"{}"[..], "it calls itself gzip and is not"),
        ("br", b"{}", "it is encoded as br, which was not asked for"),
        ("gzip, gzip", &gzip, "it is encoded as gzip, gzip, which was not asked for"),
    ] {
        assert_eq!(failure(answer(name, body)).await, Failure::Malformed(told.into()));
    }
    let named = page(&World::new([answer("Identity", b"{}")]).await).await.unwrap();
    assert_eq!(&named.body[..], b"{}");
}

/// Fault: 403 in 1Password's own shape, as a challenge page, and with `Retry-After`. Shows: only the first refuses the token.
#[tokio::test]
async fn fm_64_a_403_that_is_not_1password_s_own_is_a_busy_server() {
    let own = r#"{"status":403,"message":"Forbidden"}"#;
    for (headers, body, refused) in [
        ("", own, true),
        ("", "<html>Are you human?</html>", false),
        ("", "", false),
        ("retry-after: 7\r\n", own, false),
    ] {
        let verdict = verdict(Edge::Source, &failure(reply(403, headers, body)).await);
        assert_eq!(matches!(verdict, Verdict::Unauthorized { .. }), refused, "{headers}{body}: {verdict:?}");
    }
}

/// Fault: the time of an answer in the two older forms of a date. Shows: it is read.
#[tokio::test]
async fn fm_64_each_form_of_a_date_is_read() {
    for date in ["Sunday, 22-Nov-26 10:00:00 GMT", "Sun Nov 22 10:00:00 2026"] {
        let answer = format!("HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: 2\r\n\r\n{{}}");
        let page = page(&World::new([Reply::Raw(answer.into_bytes())]).await).await.unwrap();
        assert_eq!(page.date, "2026-11-22T10:00:00Z".parse::<opship::flow::Time>().unwrap());
    }
}
