//! How often and how long one call to Azure Blob Storage is tried.

use crate::flow::words::{self, Hidden};
use crate::http::{BODY_BYTES_MAX, ERROR_BODY_BYTES_MAX};
use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::request::Body;
use azure_core::http::response::AsyncResponseBody;
use azure_core::http::{
    AsyncRawResponse, ClientOptions, ExponentialRetryOptions, HttpClient, Request, RetryOptions, StatusCode, Transport,
};
use azure_core::time::Duration as SdkDuration;
use bytes::Bytes;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// Deadline of one try up to the answer's head: a hung connection must leave time for another try.
const TRY_DEADLINE: Duration = Duration::from_secs(9);
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
/// Tries after the first one; their waits grow from 200 ms to [`RETRY_DELAY_MAX`].
const RETRIES_MAX: u32 = 3;
const RETRY_DELAY_MAX: SdkDuration = SdkDuration::seconds(2);
const RETRY_ELAPSED_MAX: SdkDuration = SdkDuration::seconds(18);

pub(super) fn client_options(http: Arc<dyn HttpClient>) -> ClientOptions {
    let retry = ExponentialRetryOptions {
        max_retries: RETRIES_MAX,
        max_delay: RETRY_DELAY_MAX,
        max_total_elapsed: RETRY_ELAPSED_MAX,
        ..Default::default()
    };
    ClientOptions {
        retry: RetryOptions::exponential(retry),
        transport: Some(Transport::new(Arc::new(OneTry { http }))),
        ..Default::default()
    }
}

/// Our client with the deadline of one try and a cap on its answer: the SDK itself reads whatever comes, to the end.
#[derive(Debug)]
struct OneTry {
    http: Arc<dyn HttpClient>,
}

#[async_trait]
impl HttpClient for OneTry {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let answer = tokio::time::timeout(TRY_DEADLINE, self.http.execute_request(request)).await;
        let late = |_| Err(azure_core::Error::with_message(ErrorKind::Io, "no answer within 9 s"));
        let (status, headers, body) = answer.unwrap_or_else(late)?.deconstruct();
        if !status.is_success() {
            return masked(request, status, headers, body).await;
        }
        let mut read = 0;
        let body = body.map(move |chunk| {
            let chunk = chunk?;
            read += chunk.len();
            (read <= BODY_BYTES_MAX).then_some(chunk).ok_or_else(too_large)
        });
        Ok(AsyncRawResponse::new(status, headers, Box::pin(body)))
    }
}

fn too_large() -> azure_core::Error {
    azure_core::Error::with_message(ErrorKind::DataConversion, "the answer is too large")
}

/// A refusal without what it repeats of the request: the SDK puts it into its errors.
async fn masked(
    request: &Request,
    status: StatusCode,
    mut headers: Headers,
    mut body: AsyncResponseBody,
) -> azure_core::Result<AsyncRawResponse> {
    let mut read = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        if read.len() + chunk.len() > ERROR_BODY_BYTES_MAX {
            return Err(too_large());
        }
        read.extend_from_slice(&chunk);
    }
    let header = |name: &'static str| request.headers().get_optional_str(&HeaderName::from_static(name));
    let secrets = [request.url().query().unwrap_or_default(), header("authorization").unwrap_or_default()];
    let secrets = secrets.map(|secret| secret.trim_start_matches("Bearer "));
    let sent = match request.body() {
        // Positions; ledgers and dead letters are larger, and no error repeats them.
        Body::Bytes(bytes) if bytes.len() <= ERROR_BODY_BYTES_MAX => bytes.clone(),
        Body::Bytes(_) | Body::SeekableStream(_) => Bytes::new(),
    };
    let hidden = Hidden { secrets: &secrets, body: &sent };
    let body = hidden.masked(&String::from_utf8_lossy(&read));
    let code = headers.get_optional_string(&ERROR_CODE).unwrap_or_default();
    if words::code(&code, &hidden).is_empty() {
        headers.remove(ERROR_CODE);
    }
    Ok(AsyncRawResponse::from_bytes(status, headers, body.into_bytes()))
}
