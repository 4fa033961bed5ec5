//! What stands between the processes of a test and their blob service: a clock that can be moved on, so that the intents of dead
//! processes need not be waited for, and a count of the requests, of which one can be held up.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Response, header};
use chrono::{DateTime, TimeDelta, Utc};
use opship::config::Http;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use url::Url;

const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How much later a request that is held up gets its answer: long enough for a signal to arrive meanwhile.
pub const HELD_UP: Duration = Duration::from_millis(400);

/// Changes a request on its way, or answers it with a status and an error code of Azure's.
pub type Rule = Box<dyn Fn(&mut Parts) -> Option<(u16, &'static str)> + Send>;

#[derive(Default)]
pub struct Gate {
    rule: Mutex<Option<Rule>>,
    /// When an hour passed at once.
    leaps: Mutex<Vec<DateTime<Utc>>>,
    requests: AtomicU64,
    held_up: AtomicU64,
}

impl Gate {
    /// What was written before looks an hour older from now on.
    pub fn an_hour_passes(&self) {
        self.leaps.lock().unwrap().push(Utc::now());
    }

    /// From now on every request meets this rule.
    pub fn rules(&self, rule: impl Fn(&mut Parts) -> Option<(u16, &'static str)> + Send + 'static) {
        *self.rule.lock().unwrap() = Some(Box::new(rule));
    }

    pub fn has_no_rule(&self) {
        *self.rule.lock().unwrap() = None;
    }

    /// How many requests have come so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// The answer to this request, counted from 1, comes late.
    pub fn hold_up(&self, number: u64) {
        self.held_up.store(number, Ordering::SeqCst);
    }

    /// A time of the service as the processes are to see it.
    fn moved_on(&self, time: DateTime<Utc>) -> String {
        let leaps = self.leaps.lock().unwrap().iter().filter(|leap| **leap <= time).count();
        (time + TimeDelta::hours(leaps as i64)).format("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    /// Serves on a port of its own what `service` answers.
    pub async fn before(self: &Arc<Self>, service: Url) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = opship::http::client(&Http::default()).unwrap();
        let gate = Arc::clone(self);
        let app = axum::Router::new().fallback(move |request| {
            let (gate, client, service) = (Arc::clone(&gate), client.clone(), service.clone());
            async move { gate.forward(&client, service, request).await }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    async fn forward(&self, client: &reqwest::Client, service: Url, request: Request) -> Response<Body> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let (mut parts, body) = request.into_parts();
        if let Some((status, code)) = self.rule.lock().unwrap().as_ref().and_then(|rule| rule(&mut parts)) {
            let date = self.moved_on(Utc::now());
            let answer = Response::builder().status(status).header("x-ms-error-code", code).header(header::DATE, date);
            return answer.body(Body::empty()).unwrap();
        }
        let mut url = service;
        url.set_path(parts.uri.path());
        url.set_query(parts.uri.query());
        let mut headers = parts.headers;
        headers.remove(header::HOST);
        // A connection for each request: on a busy machine the service has often hung up on one that rested.
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
            // A process that is killed in the middle of a request: nobody waits for the answer.
            return Response::new(Body::empty());
        };
        let answer = client.request(parts.method, url).headers(headers).body(body).send().await.unwrap();
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            if name == header::DATE {
                // To the fraction of a second: what was written before a leap must be old at once.
                response = response.header(name, self.moved_on(Utc::now()));
            } else if name == header::LAST_MODIFIED {
                let written = DateTime::parse_from_rfc2822(value.to_str().unwrap()).unwrap().to_utc();
                response = response.header(name, self.moved_on(written));
            } else if name != header::TRANSFER_ENCODING {
                response = response.header(name, value);
            }
        }
        let body = answer.bytes().await.unwrap();
        if number == self.held_up.load(Ordering::SeqCst) {
            tokio::time::sleep(HELD_UP).await;
        }
        response.body(Body::from(body)).unwrap()
    }
}
