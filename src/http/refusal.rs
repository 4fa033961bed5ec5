//! What an answer other than success says: status, times, and the known fields of known error shapes.

use super::{ERROR_BODY_BYTES_MAX, read_body};
use crate::flow::Time;
use crate::flow::retry::{Failure, after_ms, retry_after};
use crate::flow::words::{self, Hidden, Shape, Words};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

/// Azure's own form of `Retry-After`; the SDKs look for the first two names.
const AFTER_MS: [&str; 2] = ["x-ms-retry-after-ms", "retry-after-ms"];
const ERROR_CODE: &str = "x-ms-error-code";
/// Nested causes that Azure gives and we show.
const INNER_MAX: usize = 4;

/// The answer's `Date` header, in any of the forms of RFC 9110, 5.6.7.
pub fn date_of(response: &reqwest::Response) -> Option<Time> {
    date(response.headers())
}

fn date(headers: &HeaderMap) -> Option<Time> {
    crate::flow::retry::http_date(headers.get(DATE)?.to_str().ok()?)
}

/// Turns an answer other than success into a [`Failure::Status`]. Of an answer in no known shape only status, type and length are told.
pub async fn failure_of_status(response: reqwest::Response, hidden: &Hidden<'_>) -> Failure {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = read_body(response, ERROR_BODY_BYTES_MAX).await;
    failure_of_body(status, &headers, body.as_deref().ok(), hidden)
}

/// The same of an answer that was read already; no body: it is larger than an error may be, or broke off.
pub fn failure_of_body(status: u16, headers: &HeaderMap, body: Option<&[u8]>, hidden: &Hidden<'_>) -> Failure {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let retry_after = text(RETRY_AFTER.as_str()).and_then(|text| retry_after(text, date(headers)));
    let retry_after = retry_after.or_else(|| AFTER_MS.iter().find_map(|name| after_ms(text(name)?)));
    let told = body.and_then(told);
    let code = told.as_ref().and_then(|told| told.code.as_deref()).or_else(|| text(ERROR_CODE)).unwrap_or_default();
    let code = words::code(code, hidden);
    let message = match &told {
        Some(told) => Words::of(told.shape, &told.message, hidden),
        None => Words::unknown(kind(headers, body)),
    };
    Failure::Status { status, code, message, retry_after }
}

/// What an error body says.
struct Told {
    shape: Shape,
    code: Option<String>,
    message: String,
}

fn told(body: &[u8]) -> Option<Told> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return of_storage(body) };
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let of = |shape, code: Option<String>, message: Option<String>| {
        Some(Told { shape, code, message: message.unwrap_or_default() })
    };
    if value.pointer("/error").is_some_and(Value::is_object) {
        let message = text("/error/message").unwrap_or_default() + &inner_errors(&value);
        return of(Shape::Azure, text("/error/code"), Some(message));
    }
    if let Some(code) = text("/error") {
        return of(Shape::Entra, Some(code), text("/error_description"));
    }
    if let Some(message) = text("/Error/Message") {
        return of(Shape::OnePassword, None, Some(message));
    }
    if value.get("statusCode").is_some() {
        return of(Shape::Azure, None, text("/message").or_else(|| text("/Message")));
    }
    let message = text("/message").filter(|_| value.get("status").is_some_and(Value::is_u64))?;
    of(Shape::OnePassword, None, Some(message))
}

/// What Azure says inside `innererror`, outermost first: often the only part that tells what is wrong.
fn inner_errors(answer: &Value) -> String {
    let mut said = String::new();
    let inner = |error: &'_ Value| error.get("innererror").cloned();
    let first = answer.pointer("/error").and_then(inner);
    for error in std::iter::successors(first, inner).take(INNER_MAX) {
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        said.push_str(&format!("; {}: {}", text("code"), text("message")));
    }
    said
}

/// `<Error><Code>..</Code><Message>..</Message></Error>`; the message's further lines are an id and a time of the request.
fn of_storage(body: &[u8]) -> Option<Told> {
    let text = std::str::from_utf8(body).ok()?;
    let error = between(text, "<Error>", "</Error>")?;
    let message = between(error, "<Message>", "</Message>").unwrap_or_default();
    let message = message.lines().next().unwrap_or_default().to_owned();
    Some(Told { shape: Shape::Storage, code: between(error, "<Code>", "</Code>").map(str::to_owned), message })
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

/// Type, encoding and length of an answer, in words of ours.
fn kind(headers: &HeaderMap, body: Option<&[u8]>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/.+-".contains(c);
    let of = |name| {
        let text = headers.get(name).and_then(|value| value.to_str().ok())?;
        let essence = text.split(';').next().unwrap_or_default().trim();
        let fits = !essence.is_empty() && essence.len() <= 64 && essence.chars().all(is_plain);
        Some(if fits { essence.to_owned() } else { "an odd type".into() })
    };
    let mut kind = of(CONTENT_TYPE).unwrap_or_else(|| "no type".into());
    if let Some(encoding) = of(CONTENT_ENCODING) {
        kind.push_str(&format!(", encoded as {encoding}"));
    }
    match body {
        Some(body) => kind.push_str(&format!(", {} bytes", body.len())),
        None => kind.push_str(", of a length that is not known"),
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn failure(body: &str) -> Failure {
        failure_of_body(
            403,
            &headers(&[("content-type", "text/html; charset=utf-8")]),
            Some(body.as_bytes()),
            &Hidden::default(),
        )
    }

    /// Fault: bodies of refusals in the shapes of the four services, in others, and in none. Shows: known fields of known shapes are told, of anything else status, type and length.
    #[test]
    fn fm_65_only_known_fields_of_known_shapes_are_told() {
        for (body, told) in [
            (r#"{"Error":{"Message":"Bad Request"},"user":"Wendy"}"#, "answered 403: Bad Request"),
            (r#"{"status":401,"message":"Unauthorized access","cursor":"c"}"#, "answered 403: Unauthorized access"),
            (r#"{"error":{"code":"X1","message":"no","user":"Wendy"}}"#, "answered 403 X1: no"),
            (
                r#"{"error":{"code":"X1","message":"no","innererror":{"code":"Y","message":"why"}}}"#,
                "answered 403 X1: no; Y: why",
            ),
            (
                r#"{"error":"invalid_client","error_description":"AADSTS1: no"}"#,
                "answered 403 invalid_client: AADSTS1: no",
            ),
            (r#"{"statusCode":400,"message":"no identity"}"#, "answered 403: no identity"),
            (
                "<?xml version=\"1.0\"?><Error><Code>Gone</Code><Message>It is.\nRequestId:1\nTime:2</Message></Error>",
                "answered 403 Gone: It is.",
            ),
            (r#"{"message":"Wendy"}"#, "answered 403: text/html, 19 bytes"),
            (r#"{"items":[{"name":"Wendy"}]}"#, "answered 403: text/html, 28 bytes"),
            ("<html>Wendy</html>", "answered 403: text/html, 18 bytes"),
            ("", "answered 403: text/html, 0 bytes"),
        ] {
            assert_eq!(failure(body).to_string(), told, "{body}");
        }
        let odd = headers(&[("content-type", "a b"), ("content-encoding", "br")]);
        let odd = failure_of_body(203, &odd, None, &Hidden::default());
        assert_eq!(odd.to_string(), "answered 203: an odd type, encoded as br, of a length that is not known");
    }

    /// Fault: `Retry-After` as seconds, in the three forms of a date, and in Azure's own header. Shows: each is understood.
    #[test]
    fn fm_64_every_form_of_retry_after_is_understood() {
        const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (name, value) in [
            ("retry-after", "30"),
            ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"),
            ("retry-after", "Sunday, 06-Nov-94 08:50:07 GMT"),
            ("retry-after", "Sun Nov  6 08:50:07 1994"),
            ("x-ms-retry-after-ms", "30000"),
            ("retry-after-ms", "30000"),
        ] {
            let failure = failure_of_body(429, &headers(&[("date", NOW), (name, value)]), None, &Hidden::default());
            let Failure::Status { retry_after, .. } = failure else { panic!("{failure:?}") };
            assert_eq!(retry_after, Some(Duration::from_secs(30)), "{name}: {value}");
        }
    }
}
