//! Where rows go: the contract that every sink keeps. One file per sink.

use crate::flow::retry::Failure;
use crate::flow::suspicion::is_azures;
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

const ROLE: &str = "give the identity the role Monitoring Metrics Publisher on the data collection rule; a new assignment takes up to 30 minutes \
    to spread";
const NOT_BOUND: &str = "no role is missing: the data collection rule does not belong to this endpoint; set sink.endpoint to the rule's own \
    logsIngestion endpoint, or to that of the data collection endpoint that the rule names";
const NETWORK: &str = "no role is missing: the endpoint takes nothing from this network; let the address in, or reach it by the private link, and \
    look at the public network access of the data collection endpoint";
const BARRED: &str = "the refusal is no answer of Azure's: look for a firewall, proxy or gateway between opship and sink.endpoint and let the \
    POSTs through; it is tried again by itself";

/// What to do about a 403 of the destination: most often a role, but not where the answer says otherwise (the fields of
/// `PipelineAccessResult`; learn.microsoft.com/azure/azure-monitor/logs/data-collection-troubleshoot).
pub fn forbidden(code: &str, message: &str) -> &'static str {
    let says = |text: &str| message.to_ascii_lowercase().contains(text);
    if says("isdcrdcebindingvalid: false") {
        return NOT_BOUND;
    }
    if ["public network", "private link", "network security perimeter"].into_iter().any(says) {
        return NETWORK;
    }
    if is_azures(code) { ROLE } else { BARRED }
}
