//! Posts batches to a data collection rule by the Logs Ingestion API 2023-01-01.

use super::{Body, Sink, SinkError};
use crate::azure::Tokens;
use crate::flow::forbidden::forbidden;
use crate::flow::retry::Failure;
use crate::flow::words::Hidden;
use crate::http::{Either, REQUEST_DEADLINE, cause_of, failure_of, failure_of_status};
use async_trait::async_trait;
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use parking_lot::Mutex;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;
use url::{Host, Url};

const API_VERSION: &str = "2023-01-01";
/// zlib's window of 32 KB.
const WINDOW_BITS: u8 = 15;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Where the rows go.
#[derive(Clone, Debug)]
pub struct Destination {
    pub endpoint: Url,
    pub dcr_immutable_id: String,
    pub stream: String,
    /// 0 sends the JSON as it is.
    pub gzip_level: u32,
    /// `http://` to 127.0.0.0/8 and `[::1]`, for the simulator. Anything else must be https.
    pub allow_insecure_loopback: bool,
}

/// A data collection rule.
pub struct AzureDcr {
    url: Url,
    place: String,
    http: Either,
    tokens: Arc<Tokens>,
    gzip: Option<Arc<Mutex<Gzip>>>,
}

/// What to do about an answer, as the cause of the error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Remedy(&'static str);

impl AzureDcr {
    /// `tokens` are for the cloud's `monitor_scope`.
    ///
    /// # Errors
    /// An endpoint that is neither https nor an allowed loopback address, or one that no path can be appended to.
    pub fn new(to: &Destination, tokens: Arc<Tokens>, http: impl Into<Either>) -> Result<Self, SinkError> {
        let refuse = |why: &'static str| SinkError {
            attempted: "set up the sink".into(),
            on: shown(&to.endpoint),
            failure: Failure::NotConnected,
            cause: Some(Remedy(why).into()),
        };
        let loopback = to.endpoint.scheme() == "http" && is_loopback(&to.endpoint) && to.allow_insecure_loopback;
        if to.endpoint.scheme() != "https" && !loopback {
            return Err(refuse("sink.endpoint must be https"));
        }
        let mut url = to.endpoint.clone();
        url.set_query(Some(&format!("api-version={API_VERSION}")));
        url.path_segments_mut().map_err(|()| refuse("sink.endpoint cannot have a path"))?.pop_if_empty().extend([
            "dataCollectionRules",
            &to.dcr_immutable_id,
            "streams",
            &to.stream,
        ]);
        let place = format!("azure:{}/{}", to.dcr_immutable_id, to.stream);
        let gzip = (to.gzip_level > 0).then(|| Arc::new(Mutex::new(Gzip::new(to.gzip_level))));
        Ok(Self { url, place, http: http.into(), tokens, gzip })
    }

    fn error(&self, attempted: &str, failure: Failure, cause: Option<Cause>) -> SinkError {
        let cause = cause.or_else(|| remedy(&failure).map(|text| Remedy(text).into()));
        SinkError { attempted: attempted.into(), on: shown(&self.url), failure, cause }
    }

    async fn encode(&self, json: &Bytes) -> Result<(Bytes, bool), Cause> {
        let Some(gzip) = self.gzip.clone() else { return Ok((json.clone(), false)) };
        let json = json.clone();
        let pack = move || gzip.lock().pack(&json);
        Ok((tokio::task::spawn_blocking(pack).await??, true))
    }

    async fn post(
        &self,
        token: &SecretString,
        json: &Bytes,
        (body, gzip): (Bytes, bool),
        until: Instant,
    ) -> Result<(), (Failure, Option<Cause>)> {
        let request = || {
            let request = self
                .http
                .now()
                .post(self.url.clone())
                .timeout(until.saturating_duration_since(Instant::now()))
                .bearer_auth(token.expose_secret())
                .header(CONTENT_TYPE, "application/json")
                .header("x-ms-client-request-id", uuid::Uuid::new_v4().to_string())
                .body(body.clone());
            if gzip { request.header(CONTENT_ENCODING, "gzip") } else { request }
        };
        let sent = match request().send().await {
            // Refused for the way it came, not processed.
            Err(error) if self.http.falls_back(&error) => request().send().await,
            sent => sent,
        };
        let response = sent.map_err(|error| (failure_of(&error), Some(cause_of(error))))?;
        match response.status().as_u16() {
            200 | 204 => Ok(()),
            // Neither a yes nor a no of this API: the rows may be in.
            other @ 100..300 => Err((Failure::Malformed(format!("{other} where 204 was expected")), None)),
            _ => {
                let hidden = Hidden { secrets: &[token.expose_secret()], body: json };
                Err((failure_of_status(response, &hidden).await, None))
            }
        }
    }

    /// One attempt, the token included, within the deadline.
    async fn attempt(&self, attempted: &str, json: &Bytes) -> Result<(), SinkError> {
        let until = Instant::now() + REQUEST_DEADLINE;
        let token = self.tokens.token().await;
        let token = token.map_err(|error| self.error(attempted, Failure::NoCredential, Some(error.into())))?;
        let encoded = self.encode(json).await;
        let encoded = encoded.map_err(|error| self.error(attempted, Failure::Local, Some(error)))?;
        let answer = self.post(&token, json, encoded, until).await;
        answer.map_err(|(failure, cause)| self.error(attempted, failure, cause))
    }
}

#[async_trait]
impl Sink for AzureDcr {
    async fn deliver(&self, body: &Body) -> Result<(), SinkError> {
        let attempted = format!("deliver {} rows", body.rows);
        if body.json.is_empty() {
            // The service answers an empty body with a 500, which would put nothing in doubt for ever.
            return Err(self.error(&attempted, Failure::Local, Some(Remedy("the body is empty").into())));
        }
        self.attempt(&attempted, &body.json).await
    }

    async fn reauthenticate(&self) {
        self.tokens.forget();
    }

    async fn probe(&self) -> Result<String, SinkError> {
        // An array without rows passes authorisation, rule and stream, and stores nothing: Vector's health check does the same.
        self.attempt("probe the data collection rule", &Bytes::from_static(b"[]")).await?;
        Ok(format!("{} accepted an empty array: endpoint, role, rule and stream are right", shown(&self.url)))
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

impl fmt::Debug for AzureDcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureDcr").field("url", &shown(&self.url)).finish_non_exhaustive()
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    }
}

/// Without the user and the query that someone may have put into the endpoint.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

fn remedy(failure: &Failure) -> Option<&'static str> {
    let Failure::Status { status, code, message, .. } = failure else { return None };
    match status {
        400 => Some("check that sink.stream is declared in the data collection rule"),
        401 => Some("check that azure.cloud is the cloud of the endpoint"),
        403 => Some(forbidden(code, message.raw())),
        404 => Some("check sink.endpoint and sink.dcr_immutable_id: the rule must be reachable by this endpoint"),
        _ => None,
    }
}

/// A gzip encoder that is used again: its tables are 300 KB, as much work to set up as a small batch.
struct Gzip {
    compress: Compress,
    /// The last body, whose memory is taken back when the request has let go of it.
    last: Bytes,
}

impl Gzip {
    fn new(level: u32) -> Self {
        let compress = Compress::new_gzip(Compression::new(level.min(9)), WINDOW_BITS);
        Self { compress, last: Bytes::new() }
    }

    fn pack(&mut self, json: &[u8]) -> std::io::Result<Bytes> {
        self.compress.reset();
        let mut out: Vec<u8> = std::mem::take(&mut self.last).try_into_mut().map(Into::into).unwrap_or_default();
        out.clear();
        out.reserve(json.len() / 4 + 256);
        loop {
            let read = usize::try_from(self.compress.total_in()).unwrap_or(usize::MAX);
            let rest = json.get(read..).unwrap_or_default();
            match self.compress.compress_vec(rest, &mut out, FlushCompress::Finish)? {
                Status::StreamEnd => break,
                Status::Ok | Status::BufError => out.reserve(out.capacity().max(4096)),
            }
        }
        self.last = Bytes::from(out);
        Ok(self.last.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn unpack(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn a_reused_encoder_gives_whole_gzip_streams_of_any_size() {
        let mut gzip = Gzip::new(1);
        let noise: Vec<u8> = (0..400_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for json in [b"[{\"a\":1}]".as_slice(), &noise, &vec![b'x'; 1_000_000], b"[{\"b\":2}]", &noise] {
            let body = gzip.pack(json).unwrap();
            assert_eq!(unpack(&body), json);
        }
    }

    #[test]
    fn a_body_still_in_flight_is_not_overwritten() {
        let mut gzip = Gzip::new(1);
        let first = gzip.pack(b"[{\"first\":1}]").unwrap();
        let second = gzip.pack(b"[{\"second\":2}]").unwrap();
        assert_eq!((unpack(&first), unpack(&second)), (b"[{\"first\":1}]".to_vec(), b"[{\"second\":2}]".to_vec()));
    }
}
