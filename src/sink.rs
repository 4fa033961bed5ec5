//! Where rows go: the contract that every sink keeps. One file per sink.

use crate::flow::retry::Failure;
use async_trait::async_trait;
use bytes::Bytes;

pub mod azure_dcr;
pub mod ndjson;

/// A body ready to be posted: a JSON array of rows.
#[derive(Clone, Debug)]
pub struct Body {
    /// `[row,row,...]`, UTF-8, never empty, never more than the packing limit.
    pub json: Bytes,
    pub rows: usize,
}

/// A delivery that was not acknowledged.
#[derive(Debug, thiserror::Error)]
#[error("{attempted} at {on}: {failure}")]
pub struct SinkError {
    pub attempted: String,
    /// The URL or path, never a secret.
    pub on: String,
    pub failure: Failure,
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A destination of rows.
///
/// One call is one attempt, bounded by a deadline of 60 s; retries are the caller's, because each one needs a valid intent.
#[async_trait]
pub trait Sink: Send + Sync {
    /// `Ok` means durable as far as the destination can say: 204 from a DCR, fsynced to a file.
    /// An error whose failure [`Failure::may_have_arrived`] leaves the batch in doubt; any other is a definite no.
    async fn deliver(&self, body: &Body) -> Result<(), SinkError>;

    /// Forget cached credentials, so that the next delivery asks for new ones (after a 401).
    async fn reauthenticate(&self);

    /// Prove that the sink is reachable and that it lets us in, without leaving a row. A sentence of what was proved.
    ///
    /// Asked in the middle of a delivery too: what is refused while this is accepted is refused for its content.
    async fn probe(&self) -> Result<String, SinkError>;

    /// Whether it may refuse one row and take its neighbour. A file takes whatever there is room for.
    fn may_refuse_rows(&self) -> bool {
        true
    }

    /// What identifies the destination for the checkpoint's fingerprint: no secrets, stable over restarts.
    fn place(&self) -> String;
}
