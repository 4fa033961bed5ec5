//! What is answered to whom: a page per path, GET and HEAD alone, and headers that keep a browser from doing anything else with it.

use super::access::Access;
use super::places::Kind;
use super::proof::PROOF;
use super::{from_board, metrics, page};
use crate::agent::monitor::board::{Board, Moment};
use crate::telemetry;
use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    TRANSFER_ENCODING, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Live views at a time.
const LIVE_MAX: usize = 16;
/// A live view hears of the board at most so often.
const LIVE_PAUSE: Duration = Duration::from_secs(1);
/// A live view hears something at least so often, so that both ends notice a dead connection.
const LIVE_SILENCE_MAX: Duration = Duration::from_secs(15);
/// The status document is made once for all who ask within so long while nothing changes.
const STATUS_GOOD_FOR: Duration = Duration::from_secs(1);
/// Whatever else is sent may do nothing at all in a browser.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const TEXT: &str = "text/plain; charset=utf-8";

/// What the server shows, and to whom.
pub struct Pages {
    pub(super) stop: CancellationToken,
    access: Access,
    board: Arc<Board>,
    /// As `opship config show` prints it: secrets hidden.
    config: String,
    live: Arc<Semaphore>,
    /// The latest document, with the board's version that it is of, and when it was made.
    latest: Mutex<Option<(u64, Moment, Bytes)>>,
}

/// A path that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Livez,
    Readyz,
    Status,
    Metrics,
    Logs,
    Events,
    Page,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/livez" => Self::Livez,
            "/readyz" => Self::Readyz,
            "/status.json" => Self::Status,
            "/metrics" => Self::Metrics,
            "/logs.jsonl" => Self::Logs,
            "/events" => Self::Events,
            "/" => Self::Page,
            _ => return None,
        })
    }

    /// A platform's probes have no token: they learn ok or not ok.
    const fn is_a_probe(self) -> bool {
        matches!(self, Self::Livez | Self::Readyz)
    }
}

impl Pages {
    pub fn new(board: Arc<Board>, config: String, access: Access) -> Self {
        let (stop, live) = (CancellationToken::new(), Arc::new(Semaphore::new(LIVE_MAX)));
        Self { stop, access, board, config, live, latest: Mutex::default() }
    }

    /// The status document.
    fn status(&self) -> Bytes {
        let (version, now) = (*self.board.news().borrow(), Moment::now());
        let mut latest = self.latest.lock();
        if let Some((of, made, bytes)) = &*latest
            && *of == version
            && made.age(now) < STATUS_GOOD_FOR
        {
            return bytes.clone();
        }
        let status = from_board::status_of(&self.board, &self.config, now);
        // Text, numbers and times have a form in JSON.
        let bytes = Bytes::from(serde_json::to_vec(&status).unwrap_or_default());
        *latest = Some((version, now, bytes.clone()));
        bytes
    }
}

/// The answer to one request, by the place of its connection. Its body is never read.
pub(super) fn answer<B>(pages: &Arc<Pages>, request: &Request<B>, kind: Kind) -> Response<Body> {
    let mut response = refusal(pages, request, kind).unwrap_or_else(|route| show(pages, route, request.headers()));
    let headers = response.headers_mut();
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(NOTHING));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    if let Some(proof) = pages.access.proof(request.headers()).and_then(|proof| HeaderValue::from_str(&proof).ok()) {
        response.headers_mut().insert(PROOF, proof);
    }
    if request.method() == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

/// Why the request is refused, or which page it gets.
fn refusal<B>(pages: &Pages, request: &Request<B>, kind: Kind) -> Result<Response<Body>, Route> {
    let headers = request.headers();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD: nothing can be changed here\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let has_body = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_body || headers.contains_key(TRANSFER_ENCODING) {
        return Ok(text(StatusCode::BAD_REQUEST, "a request here has no body\n"));
    }
    if !pages.access.knows(request.uri(), headers) {
        let what = "this server is not known by that name: ask for localhost or its address\n";
        return Ok(text(StatusCode::MISDIRECTED_REQUEST, what));
    }
    let route = Route::of(request.uri().path());
    if kind == Kind::Kept && !route.is_some_and(Route::is_a_probe) {
        return Ok(crowded(
            "every connection is busy, and the rest are kept for /livez and /readyz: ask again later\n",
        ));
    }
    if !route.is_some_and(Route::is_a_probe) && !pages.access.allows(headers) {
        let what = "the token of admin.token is needed: as a bearer token, or as the password of any user\n";
        let mut response = text(StatusCode::UNAUTHORIZED, what);
        for scheme in ["Basic realm=\"opship\", charset=\"UTF-8\"", "Bearer realm=\"opship\""] {
            response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        return Ok(response);
    }
    let paths = "there are /, /status.json, /events, /metrics, /logs.jsonl, /readyz and /livez\n";
    route.map_or_else(|| Ok(text(StatusCode::NOT_FOUND, paths)), Err)
}

fn show(pages: &Arc<Pages>, route: Route, headers: &HeaderMap) -> Response<Body> {
    match route {
        Route::Livez => livez(pages, headers),
        Route::Readyz => readyz(pages, headers),
        Route::Status => typed(StatusCode::OK, JSON, pages.status()),
        Route::Metrics => typed(StatusCode::OK, metrics::CONTENT_TYPE, metrics::scrape(&pages.board)),
        Route::Logs => typed(StatusCode::OK, LINES, recent_lines()),
        Route::Events => events(pages),
        Route::Page => {
            let mut response = typed(StatusCode::OK, "text/html; charset=utf-8", page::HTML);
            if let Ok(policy) = HeaderValue::from_str(&page::policy()) {
                response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            }
            response
        }
    }
}

/// The last log lines, one JSON object each: for `opship diagnostics`.
fn recent_lines() -> String {
    telemetry::recent().into_iter().map(|line| line + "\n").collect()
}

/// Whether the process is worth keeping: nothing outside can change that, so that no platform restarts it for an outage.
fn livez(pages: &Pages, headers: &HeaderMap) -> Response<Body> {
    let hung = pages.board.hung();
    if hung.is_empty() {
        return text(StatusCode::OK, "ok\n");
    }
    if !pages.access.allows(headers) {
        return text(StatusCode::SERVICE_UNAVAILABLE, "not ok\n");
    }
    let lines = hung.iter().map(|feed| format!("{feed}: has not moved for hours: restart opship, and report it\n"));
    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ok\n{}", lines.collect::<String>()))
}

fn readyz(pages: &Pages, headers: &HeaderMap) -> Response<Body> {
    let reasons = from_board::not_ready(&pages.board, Moment::now());
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if reasons.is_empty() { "ok" } else { "not ok" };
    if !pages.access.allows(headers) {
        return text(status, format!("{word}\n"));
    }
    let wants_json = headers.get("accept").and_then(|accept| accept.to_str().ok()).is_some_and(|it| it.contains(JSON));
    if wants_json {
        let reason = |(feed, why): &(crate::flow::FeedId, String)| json!({ "feed": feed.to_string(), "reason": why });
        let feeds: Vec<_> = reasons.iter().map(reason).collect();
        return typed(status, JSON, json!({ "ready": reasons.is_empty(), "not_ready": feeds }).to_string());
    }
    let lines = reasons.iter().map(|(feed, why)| format!("{feed}: {why}\n"));
    text(status, format!("{word}\n{}", lines.collect::<String>()))
}

/// The status document at once, then on every change of the board.
fn events(pages: &Arc<Pages>) -> Response<Body> {
    let Ok(permit) = pages.live.clone().try_acquire_owned() else {
        return crowded(format!("{LIVE_MAX} live views are open already: close one, or ask for /status.json\n"));
    };
    let live = Live { pages: pages.clone(), news: pages.board.news(), told: None, _permit: permit };
    let messages = futures_util::stream::unfold(live, |mut live| async move {
        let message = live.next().await?;
        Some((Ok::<_, Infallible>(message), live))
    });
    typed(StatusCode::OK, "text/event-stream", Body::from_stream(messages))
}

/// One live view.
struct Live {
    pages: Arc<Pages>,
    news: watch::Receiver<u64>,
    told: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

impl Live {
    /// The next message; none when the server ends.
    async fn next(&mut self) -> Option<Bytes> {
        let stop = self.pages.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            message = self.message() => Some(message),
        }
    }

    async fn message(&mut self) -> Bytes {
        if let Some(told) = self.told {
            tokio::time::sleep_until(told + LIVE_PAUSE).await;
            let silent_until = told + LIVE_SILENCE_MAX;
            if !matches!(tokio::time::timeout_at(silent_until, self.news.changed()).await, Ok(Ok(()))) {
                self.told = Some(Instant::now());
                return Bytes::from_static(b": nothing new\n\n");
            }
        }
        self.told = Some(Instant::now());
        self.news.mark_unchanged();
        [b"data: ", &*self.pages.status(), b"\n\n"].concat().into()
    }
}

fn crowded(what: impl Into<Body>) -> Response<Body> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, what);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("15"));
    response
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    typed(status, TEXT, body)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
