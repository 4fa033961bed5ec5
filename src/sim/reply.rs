//! An answer before it is sent: status, headers, body, and the way the body is to arrive.

use super::fault::{Refusal, RetryAfter};
use crate::flow::Time;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use chrono::TimeDelta;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use std::io::{self, Write as _};
use std::time::Duration;

/// Bodies shorter than this are not worth compressing.
const GZIP_BYTES_MIN: usize = 512;
/// Piece of an endless body.
const ENDLESS_PIECE: &[u8] = &[b' '; 16 * 1024];

/// How the body arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Whole,
    Drip {
        bytes: usize,
        every: Duration,
    },
    /// Half, then silence.
    Stall,
    /// Half, then the connection breaks.
    Reset,
    /// Half, then a regular close.
    Short,
    /// All but the last byte, then blanks for ever.
    Endless,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) manner: Manner,
    pub(super) delay: Duration,
    /// What its `Date` is ahead by.
    pub(super) date_off: TimeDelta,
}

impl Reply {
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self {
            status,
            headers,
            body: body.into(),
            manner: Manner::Whole,
            delay: Duration::ZERO,
            date_off: TimeDelta::zero(),
        }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json; charset=utf-8", body.to_string())
    }

    pub(super) fn raw_json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "application/json; charset=utf-8", body)
    }

    pub(super) fn text(status: u16, body: &'static str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    pub(super) fn no_content() -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { status: 204, headers, body, manner: Manner::Whole, delay: Duration::ZERO, date_off: TimeDelta::zero() }
    }

    pub(super) fn not_found() -> Self {
        Self::text(404, "404 page not found\n")
    }

    pub(super) fn wrong_method() -> Self {
        Self::text(405, "405 method not allowed\n")
    }

    #[must_use]
    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// What a refusal adds to the service's own error answer.
    #[must_use]
    pub(super) fn refused_with(mut self, refusal: &Refusal, now: Time) -> Self {
        if let Some(text) = &refusal.text {
            let kind = if text.starts_with('<') { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
            self = self.with_header(header::CONTENT_TYPE, kind);
            self.body = text.clone().into();
        }
        match &refusal.retry_after {
            Some(after) => self.with_header(header::RETRY_AFTER, &after.render(now)),
            None => self,
        }
    }

    /// The first half of the body, for the faults that break in the middle.
    pub(super) fn half(&self) -> Bytes {
        self.body.slice(..self.body.len() / 2)
    }

    /// Sends all of it, compressed when the client takes that.
    pub(super) async fn into_response(mut self, accepts_gzip: bool, now: Time) -> Response<Body> {
        if accepts_gzip && self.body.len() >= GZIP_BYTES_MIN && !self.headers.contains_key(header::CONTENT_ENCODING) {
            let body = self.body.clone();
            // A page takes milliseconds: not on the threads that serve the other connections.
            if let Ok(Ok(packed)) = tokio::task::spawn_blocking(move || gzip(&body)).await {
                self.body = packed.into();
                self = self.with_header(header::CONTENT_ENCODING, "gzip");
            }
        }
        if self.manner != Manner::Whole && self.manner != Manner::Endless {
            let length = self.body.len().to_string();
            self = self.with_header(header::CONTENT_LENGTH, &length);
        }
        let date = http_date(now.checked_add_signed(self.date_off).unwrap_or(now));
        let Self { status, headers, body, manner, delay: _, date_off: _ } = self.with_header(header::DATE, &date);
        let mut response = Response::new(deliver(body, manner));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        response
    }
}

fn deliver(body: Bytes, manner: Manner) -> Body {
    let half = body.slice(..body.len() / 2);
    let first = stream::iter([Ok::<_, io::Error>(half)]);
    match manner {
        Manner::Whole => Body::from(body),
        Manner::Drip { bytes, every } => Body::from_stream(stream::unfold(body, move |mut rest| async move {
            if rest.is_empty() {
                return None;
            }
            let piece = rest.split_to(bytes.clamp(1, rest.len()));
            tokio::time::sleep(every).await;
            Some((Ok::<_, io::Error>(piece), rest))
        })),
        Manner::Stall => Body::from_stream(first.chain(stream::pending())),
        Manner::Short => Body::from_stream(first.chain(stream::once(breather()).filter_map(async |()| None))),
        Manner::Reset => Body::from_stream(first.chain(stream::once(async {
            breather().await;
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        }))),
        Manner::Endless => {
            let begin = body.slice(..body.len().saturating_sub(1));
            let blanks = stream::repeat_with(|| Ok(Bytes::from_static(ENDLESS_PIECE)));
            Body::from_stream(stream::iter([Ok::<_, io::Error>(begin)]).chain(blanks))
        }
    }
}

/// Pending once: the server flushes what it has before it learns that the rest is missing.
async fn breather() {
    tokio::task::yield_now().await;
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::new(1));
    encoder.write_all(body)?;
    encoder.finish()
}

/// So many MiB of blanks, compressed.
pub(super) fn gzip_bomb(mib: u64) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(1));
    // Writing into memory cannot fail; a shorter bomb would only be a smaller one.
    let _ = io::copy(&mut io::Read::take(io::repeat(b' '), mib << 20), &mut encoder);
    encoder.finish().unwrap_or_default().into()
}

/// The form of a `Date` header.
pub(super) fn http_date(at: Time) -> String {
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

impl RetryAfter {
    pub(super) fn render(&self, now: Time) -> String {
        match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::DateIn(seconds) => {
                let wait = TimeDelta::try_seconds(*seconds).unwrap_or_default();
                http_date(now.checked_add_signed(wait).unwrap_or(now))
            }
            Self::Text(text) => text.clone(),
        }
    }
}
