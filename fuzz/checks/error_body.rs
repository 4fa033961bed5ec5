//! Error answers: status kept, foreign words capped and on one line, and always a verdict with a bounded wait.

use axum::http;
use opship::flow::retry::{Edge, Failure, RETRY_AFTER_MAX, ROLE_PACE, Verdict, verdict};
use opship::flow::words::{Hidden, Words};
use opship::http::{ERROR_BODY_BYTES_MAX, failure_of_status};

/// Went with the request that was answered.
const SECRET: &str = "wait: a secret of ours";

/// The first line is the status, the second `x-ms-error-code`, the third `Retry-After`; the body follows.
pub fn check(data: &[u8]) {
    let mut parts = data.splitn(4, |b| *b == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (status, code, wait, body) = (next(), next(), next(), next());
    let status = std::str::from_utf8(status).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(400);
    let Ok(status) = http::StatusCode::from_u16(status) else { return };
    let mut response = http::Response::new(body.to_vec());
    *response.status_mut() = status;
    for (name, value) in [("x-ms-error-code", code), ("retry-after", wait)] {
        if let Ok(value) = http::HeaderValue::from_bytes(value) {
            response.headers_mut().insert(name, value);
        }
    }
    let failure = crate::memory::run(failure_of_status(
        reqwest::Response::from(response),
        &Hidden { secrets: &[SECRET], body: b"" },
    ));
    let Failure::Status { status: kept, code, message, retry_after } = &failure else {
        panic!("an answer is a status: {failure:?}")
    };
    assert_eq!(*kept, status.as_u16());
    assert!(retry_after.is_none_or(|wait| wait <= RETRY_AFTER_MAX));
    is_one_line(code);
    is_one_line(message.shown());
    is_one_line(&failure.to_string());
    nothing_is_told_but_known_fields(body, message);
    assert!(!failure.to_string().contains(SECRET) && !format!("{failure:?}").contains(SECRET));
    [Edge::Source, Edge::Sink, Edge::Store].into_iter().for_each(|edge| a_verdict_is_bounded(edge, &failure));
}

fn is_one_line(text: &str) {
    assert!(text.chars().count() <= 2 * 512 * 10 + 64);
    let forges = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(forges), "{text:?}");
}

fn nothing_is_told_but_known_fields(body: &[u8], message: &Words) {
    let Some(_) = message.shape() else {
        let told = message.shown();
        return assert!(told.ends_with(" bytes") || told.ends_with(" not known"), "{told}");
    };
    assert!(body.len() <= ERROR_BODY_BYTES_MAX);
    // Each shape has one of these.
    let text = String::from_utf8_lossy(body);
    assert!(["rror", "essage", "statusCode", "<Error>", "\\u"].iter().any(|key| text.contains(key)), "{text}");
}

fn a_verdict_is_bounded(edge: Edge, failure: &Failure) {
    match verdict(edge, failure) {
        Verdict::Retry { at_least } => assert!(at_least.is_none_or(|wait| wait <= RETRY_AFTER_MAX)),
        Verdict::Unauthorized { at_least, remedy } => assert!(at_least >= ROLE_PACE && !remedy.is_empty()),
        Verdict::Halt { remedy } => assert!(!remedy.is_empty()),
        Verdict::Split | Verdict::Reauthenticate => assert_eq!(edge, Edge::Sink),
        Verdict::Rejected => assert_eq!(edge, Edge::Source),
        Verdict::DeadLetter => panic!("only a single row becomes a dead letter"),
    }
}
