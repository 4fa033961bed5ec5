//! What the operator should do about a request that failed; where nothing needs doing, that.

use super::trouble::Trouble;
use crate::flow::forbidden::{ROLE, forbidden};
use crate::flow::retry::{Edge, Failure, REQUEST_REFUSED, Verdict, verdict};
use crate::store::StoreError;
use crate::store::checkpoints::CheckpointError;

const STORE_AWAY: &str = "nothing is posted meanwhile and it is tried again by itself; check store.container_url or store.path, room on \
    the disk, the network and http.proxy, and run `opship check`";

/// For a request that is tried again at once.
pub(super) fn of(edge: Edge, failure: &Failure) -> &'static str {
    match edge {
        Edge::Source => of_source(failure),
        Edge::Sink => of_sink(failure),
        Edge::Store => STORE_AWAY,
    }
}

/// For a request to 1Password that failed.
pub(super) fn of_source(failure: &Failure) -> &'static str {
    match verdict(Edge::Source, failure) {
        Verdict::Unauthorized { remedy, .. } | Verdict::Halt { remedy } => remedy,
        Verdict::Rejected => REQUEST_REFUSED,
        Verdict::Retry { .. } | Verdict::Reauthenticate | Verdict::Split | Verdict::DeadLetter => match failure {
            Failure::NotConnected | Failure::Interrupted => {
                "it is tried again by itself; check the network, DNS, the firewall and http.proxy towards 1Password, and \
                 run `opship check`"
            }
            _ => "nothing: it is tried again by itself and nothing is lost; if it stays, look at status.1password.com",
        },
    }
}

/// For a POST that failed.
pub(super) fn of_sink(failure: &Failure) -> &'static str {
    match verdict(Edge::Sink, failure) {
        Verdict::Halt { remedy } | Verdict::Unauthorized { remedy, .. } => remedy,
        Verdict::Retry { .. } | Verdict::Reauthenticate | Verdict::Split | Verdict::DeadLetter | Verdict::Rejected => {
            match failure {
                Failure::Status { status: 403, code, message, .. } => forbidden(code, message.raw()),
                // Refused again with a new token.
                Failure::Status { status: 401, .. } => ROLE,
                Failure::NoCredential => {
                    "check the Azure identity: azure.credential and, where it needs them, azure.client_id and \
                 azure.tenant_id; `opship check` asks for a token"
                }
                Failure::NotConnected | Failure::Interrupted => {
                    "it is tried again by itself; check the network, DNS, the firewall and http.proxy towards sink.endpoint, \
                 and run `opship check`"
                }
                Failure::Local => "make room and check the permissions below sink.path; it is tried again by itself",
                _ => {
                    "nothing: it is tried again by itself and nothing is lost; if it stays, look at the health of Azure Monitor"
                }
            }
        }
    }
}

/// For a position that could not be read or written.
pub(super) fn of_store(error: &CheckpointError) -> String {
    match error {
        CheckpointError::Store(StoreError::Refused { remedy, .. }) => remedy.clone(),
        CheckpointError::Store(StoreError::Locked { .. }) => StoreError::UNLOCK.into(),
        CheckpointError::Store(StoreError::Unfit { .. }) => StoreError::FIT.into(),
        CheckpointError::TooNew { .. } => "upgrade this opship to the version that wrote it, or newer".into(),
        CheckpointError::Lost(_) => Trouble::Lost.remedy(),
        CheckpointError::Store(_) | CheckpointError::Unwritable { .. } => STORE_AWAY.into(),
    }
}
