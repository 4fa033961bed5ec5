//! A transport to a real server that misbehaves on cue.

use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, HttpClient, Method, Request, StatusCode};
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is performed, then the connection breaks: nobody knows.
    LoseReply,
    /// The request is performed, and the answer's body breaks off.
    BreakBody,
    /// The service answers with this error instead.
    Answer(u16, &'static str),
    /// A listing gets pages of two names.
    SmallPages,
    /// No answer ever comes.
    Hang,
}

/// Applies `fault` to the next `times` requests of `method` whose URL holds `url_has`.
#[derive(Debug)]
pub struct BrokenTransport {
    http: reqwest::Client,
    fault: Fault,
    method: Method,
    url_has: &'static str,
    left: AtomicUsize,
}

impl BrokenTransport {
    pub fn new(http: reqwest::Client, fault: Fault, method: Method, url_has: &'static str, times: usize) -> Self {
        Self { http, fault, method, url_has, left: AtomicUsize::new(times) }
    }

    pub fn is_spent(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn strikes(&self, request: &Request) -> bool {
        request.method() == self.method
            && request.url().as_str().contains(self.url_has)
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

#[async_trait::async_trait]
impl HttpClient for BrokenTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        if !self.strikes(request) {
            return self.http.execute_request(request).await;
        }
        let broken =
            || azure_core::Error::with_message(ErrorKind::Io, format!("connection reset by {}", request.url()));
        match self.fault {
            Fault::LoseReply => {
                let answer = self.http.execute_request(request).await?;
                let status = answer.status();
                assert!(status.is_success(), "the fault needs a request that works, not {status}");
                Err(broken())
            }
            Fault::BreakBody => {
                let answer = self.http.execute_request(request).await?;
                let (status, headers) = (answer.status(), answer.headers().clone());
                let body = futures_util::stream::iter([Err(broken())]);
                Ok(AsyncRawResponse::new(status, headers, Box::pin(body)))
            }
            Fault::Answer(status, code) => {
                let mut headers = Headers::new();
                headers.insert("x-ms-error-code", code);
                Ok(AsyncRawResponse::from_bytes(StatusCode::from(status), headers, Vec::new()))
            }
            Fault::SmallPages => {
                let mut request = request.clone();
                request.url_mut().query_pairs_mut().append_pair("maxresults", "2");
                self.http.execute_request(&request).await
            }
            Fault::Hang => std::future::pending().await,
        }
    }
}
