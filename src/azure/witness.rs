//! The transport under an SDK credential: bounds its tries and remembers what the identity endpoint said.
//!
//! The SDK's own error is not enough: its text is empty for a body that is not JSON, and a description with an escape in it
//! (Entra's have line breaks) fails to decode, which loses the status too.

use super::{Said, TOKEN_TRIES_MAX, said};
use crate::flow::retry::Failure;
use crate::flow::words::Hidden;
use crate::http::failure_of_body;
use azure_core::Error;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::request::Body;
use azure_core::http::{AsyncRawResponse, HttpClient, Request};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use reqwest::header as http;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Largest answer read: a token of an application with many roles can be tens of kilobytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Longest `Retry-After` waited for here; beyond it the caller's own pace decides.
const PATIENCE: Duration = Duration::from_secs(3);
const RETRY_AFTER: HeaderName = HeaderName::from_static("retry-after");

pub(super) struct Witness {
    http: Arc<dyn HttpClient>,
    seen: Mutex<Seen>,
}

/// The tries of one token.
#[derive(Default)]
struct Seen {
    tries: u32,
    verdict: Option<(Failure, Option<Said>)>,
}

impl Witness {
    pub(super) fn new(http: Arc<dyn HttpClient>) -> Self {
        Self { http, seen: Mutex::default() }
    }

    /// What the last answer was, when it was not a token. `None` when nothing was sent.
    pub(super) fn verdict(&self) -> Option<(Failure, Option<Said>)> {
        let seen = self.seen();
        let unread = || (Failure::Malformed("no token in the answer".into()), None);
        (seen.tries > 0).then(|| seen.verdict.clone().unwrap_or_else(unread))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    /// Counts a try; until it is answered the verdict is that nobody answered.
    fn begin(&self) -> bool {
        let mut seen = self.seen();
        seen.tries += 1;
        seen.verdict = Some((Failure::Interrupted, None));
        seen.tries >= TOKEN_TRIES_MAX
    }

    fn note(&self, failure: Failure, cause: Option<Said>) {
        self.seen().verdict = Some((failure, cause));
    }

    fn broken(&self, error: &Error) {
        let failure = if *error.kind() == ErrorKind::Connection { Failure::NotConnected } else { Failure::Interrupted };
        self.note(failure, Some(said(error)));
    }

    async fn read(&self, response: AsyncRawResponse, secrets: &[String]) -> azure_core::Result<AsyncRawResponse> {
        let (status, headers, mut stream) = response.deconstruct();
        let mut body = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.inspect_err(|error| self.broken(error))?;
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                self.note(Failure::TooLarge, None);
                return Err(gave_up());
            }
            body.extend_from_slice(&chunk);
        }
        let body = body.freeze();
        if !status.is_success() {
            let after = headers.get_optional_string(&RETRY_AFTER);
            let refusal = refusal(u16::from(status), &headers, &body, secrets);
            let wait = if let Failure::Status { retry_after, .. } = &refusal { *retry_after } else { None };
            self.note(refusal, None);
            if wait.is_some_and(|wait| wait > PATIENCE) {
                return Err(gave_up());
            }
            // Only what was looked at: the SDK would also obey `x-ms-retry-after-ms`, however long.
            let mut kept = Headers::new();
            if let Some(after) = after.filter(|_| wait.is_some()) {
                kept.insert(RETRY_AFTER, after);
            }
            return Ok(AsyncRawResponse::from_bytes(status, kept, body));
        }
        match mend(&body) {
            Ok(body) => {
                self.seen().verdict = None;
                Ok(AsyncRawResponse::from_bytes(status, headers, body))
            }
            Err(what) => {
                self.note(Failure::Malformed(what), None);
                Err(gave_up())
            }
        }
    }
}

/// Hides the client inside, whose own `Debug` shows the proxy's password.
impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

#[async_trait::async_trait]
impl HttpClient for Witness {
    /// The SDK takes no retry options for IMDS (6 retries, 72 s): an error of a kind it does not retry ends that here.
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let last = self.begin();
        let answer = match self.http.execute_request(request).await {
            Ok(response) => self.read(response, &secrets_of(request)).await,
            Err(error) => {
                self.broken(&error);
                Err(error)
            }
        };
        match answer {
            Ok(response) if !last || response.status().is_success() => Ok(response),
            Err(error) if !last => Err(error),
            Ok(_) | Err(_) => Err(gave_up()),
        }
    }
}

fn gave_up() -> Error {
    Error::with_message(ErrorKind::Other, "the identity endpoint gave no token")
}

/// What the endpoint said, without what it repeats of the secrets that it was asked with.
fn refusal(status: u16, headers: &Headers, body: &Bytes, secrets: &[String]) -> Failure {
    let mut plain = HeaderMap::new();
    for (name, value) in headers.iter() {
        let name = http::HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_str(value.as_str())) {
            plain.insert(name, value);
        }
    }
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    failure_of_body(status, &plain, Some(body), &Hidden { secrets: &secrets, body: b"" })
}

/// The secrets that a request for a token carries: of its form, and of the header by which a managed identity is told from others.
fn secrets_of(request: &Request) -> Vec<String> {
    let form = match request.body() {
        Body::Bytes(bytes) => bytes.clone(),
        Body::SeekableStream(_) => Bytes::new(),
    };
    let in_form = url::form_urlencoded::parse(&form)
        .filter(|(name, _)| SECRET_FIELDS.contains(&name.as_ref()))
        .map(|(_, value)| value.into_owned());
    let in_headers = request
        .headers()
        .iter()
        .filter(|(name, _)| SECRET_HEADERS.contains(&name.as_str()))
        .map(|(_, value)| value.as_str().to_owned());
    in_form.chain(in_headers).collect()
}

const SECRET_FIELDS: [&str; 4] = ["client_secret", "client_assertion", "assertion", "refresh_token"];
const SECRET_HEADERS: [&str; 3] = ["x-identity-header", "secret", "authorization"];

/// Makes a token answer one that the SDK can decode. Managed identity endpoints owe `expires_on` as text, and `token_type`
/// and `resource`; those of some platforms and emulators send a number or leave the others out.
fn mend(body: &Bytes) -> Result<Bytes, String> {
    let Ok(Value::Object(mut answer)) = serde_json::from_slice::<Value>(body) else {
        return Err("not a JSON object".into());
    };
    if answer.get("access_token").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err("no `access_token`".into());
    }
    if answer.contains_key("expires_in") && !answer.contains_key("expires_on") {
        return Ok(body.clone());
    }
    let seconds = match answer.get("expires_on") {
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) | None => None,
    };
    let Some(seconds) = seconds else {
        return Err("`expires_on` is not a number of seconds since 1970".into());
    };
    answer.insert("expires_on".into(), Value::String(seconds.to_string()));
    for key in ["token_type", "resource"] {
        answer.entry(key).or_insert_with(|| Value::String(String::new()));
    }
    serde_json::to_vec(&answer).map(Bytes::from).map_err(|_| "not writable as JSON".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expires_on_that_is_a_number_becomes_text() {
        let mended = mend(&Bytes::from_static(br#"{"access_token":"t","expires_on":1790000000}"#)).unwrap();
        let value: Value = serde_json::from_slice(&mended).unwrap();
        assert_eq!(value["expires_on"], "1790000000");
    }

    #[test]
    fn a_date_as_expires_on_is_named_without_quoting_the_answer() {
        let body = Bytes::from_static(br#"{"access_token":"hush","expires_on":"9/14/2026 00:00:00 PM +00:00"}"#);
        let error = mend(&body).unwrap_err();
        assert!(error.contains("expires_on") && !error.contains("hush"));
    }

    #[test]
    fn of_an_html_page_only_type_and_length_are_told() {
        let page = Bytes::from_static(b"<html><TITLE>Hello Wendy</TITLE><body>...</body></html>");
        let mut headers = Headers::new();
        headers.insert("content-type", "text/html; charset=utf-8");
        assert_eq!(refusal(502, &headers, &page, &[]).to_string(), "answered 502: text/html, 55 bytes");
    }

    #[test]
    fn a_client_secret_that_is_echoed_is_masked() {
        let body = br#"{"error":"invalid_client","error_description":"AADSTS7000215: bad s3cr%7Et-of-this-app"}"#;
        let failure = refusal(401, &Headers::new(), &Bytes::from_static(body), &["s3cr~t-of-this-app".to_owned()]);
        assert_eq!(failure.to_string(), "answered 401 invalid_client: AADSTS7000215: bad ***");
    }
}
