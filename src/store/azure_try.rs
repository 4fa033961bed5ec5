//! How often and how long one call to Azure Blob Storage is tried.

use crate::http::{BODY_BYTES_MAX, ERROR_BODY_BYTES_MAX};
use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::{
    AsyncRawResponse, ClientOptions, ExponentialRetryOptions, HttpClient, Request, RetryOptions, Transport,
};
use azure_core::time::Duration as SdkDuration;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// Deadline of one try up to the answer's head: a hung connection must leave time for another try.
const TRY_DEADLINE: Duration = Duration::from_secs(9);
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
        let most = if status.is_success() { BODY_BYTES_MAX } else { ERROR_BODY_BYTES_MAX };
        let mut read = 0;
        let body = body.map(move |chunk| {
            let chunk = chunk?;
            read += chunk.len();
            let is_too_much = || azure_core::Error::with_message(ErrorKind::DataConversion, "the answer is too large");
            (read <= most).then_some(chunk).ok_or_else(is_too_much)
        });
        Ok(AsyncRawResponse::new(status, headers, Box::pin(body)))
    }
}
