//! Why a tick did not complete, and what follows from it: for the exit code, the next try, the health row and the operator.

use crate::flow::checkpoint::Fingerprints;
use crate::flow::decode::DecodeError;
use crate::flow::retry::Failure;
use crate::sink::SinkError;
use crate::source::SourceError;
use crate::store::StoreError;
use crate::store::checkpoints::CheckpointError;
use std::time::Duration;

/// How often a feed that waits for a person tries again.
const HALTED_PAUSE: Duration = Duration::from_secs(300);
/// How often a standby process looks again.
const STANDBY_PAUSE: Duration = Duration::from_secs(5);

/// How soon a tick is repeated that lost a race: its events must not wait for the next one.
const LOST_PAUSE: Duration = Duration::from_secs(1);

/// What ended a tick early. The position is safe in every case.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The process was asked to end.
    #[error("stopped")]
    Stopped,
    /// Another process wrote the checkpoint first: plans are dropped, the next tick loads again.
    #[error("another process ships this feed: its write of the checkpoint came first")]
    Lost,
    /// Another process holds the open intent.
    #[error("another process ships this feed: standing by for up to {} s", left.as_secs())]
    Standby { left: Duration },
    /// A batch that failed again and again has to wait longer than this run may.
    #[error("a batch in doubt is tried again in {} s", left.as_secs())]
    CoolingDown { left: Duration },
    #[error("{error}: {remedy}")]
    Unauthorized {
        #[source]
        error: SourceError,
        remedy: &'static str,
        again: Duration,
    },
    /// A 400: the cursor or the window is not accepted.
    #[error(transparent)]
    Rejected(SourceError),
    /// An answer over the body cap.
    #[error(transparent)]
    TooLarge(SourceError),
    #[error(transparent)]
    Source(SourceError),
    #[error("{0}")]
    Malformed(DecodeError),
    /// The source hands out cursors that lead nowhere.
    #[error("the source's cursors make no progress: {0}")]
    Stuck(&'static str),
    #[error(transparent)]
    Sink(SinkError),
    #[error(transparent)]
    Store(CheckpointError),
    /// Only a person can help.
    #[error("{what}: {remedy}")]
    Halted { what: String, remedy: String },
    /// The destination takes nothing until a person helps: reading on would be in vain.
    #[error("{what}: {remedy}")]
    Undeliverable { what: String, remedy: String },
    /// The checkpoint belongs to another account or destination.
    #[error(
        "the checkpoint belongs elsewhere: it has {stored}, this configuration has {now}; \
         if the change is meant, run `opship checkpoint adopt`"
    )]
    Misfit { stored: Box<Fingerprints>, now: Box<Fingerprints> },
}

/// What a feed waits for, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    Stopping,
    Standby,
    Unauthorized,
    Source,
    Sink,
    Store,
    Person,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stopping => "the end of the process",
            Self::Standby => "another process",
            Self::Unauthorized => "a valid 1Password token",
            Self::Source => "1Password",
            Self::Sink => "the destination",
            Self::Store => "the store",
            Self::Person => "an operator",
        })
    }
}

impl Trouble {
    /// Whether the sweeps may still get through.
    pub(super) fn is_of_the_cursor_alone(&self) -> bool {
        match self {
            Self::Rejected(_) | Self::TooLarge(_) | Self::Malformed(_) | Self::Stuck(_) | Self::Halted { .. } => true,
            Self::Source(error) => matches!(error.failure, Failure::Status { .. } | Failure::Malformed(_)),
            Self::Stopped
            | Self::Lost
            | Self::Standby { .. }
            | Self::CoolingDown { .. }
            | Self::Unauthorized { .. }
            | Self::Sink(_)
            | Self::Undeliverable { .. }
            | Self::Store(_)
            | Self::Misfit { .. } => false,
        }
    }

    /// How long to leave the feed alone beyond its timer.
    pub fn pause(&self) -> Duration {
        match self {
            Self::Standby { left } => STANDBY_PAUSE.min(*left),
            Self::CoolingDown { left } => *left,
            Self::Unauthorized { again, .. } => *again,
            Self::Halted { .. } | Self::Undeliverable { .. } | Self::Misfit { .. } => HALTED_PAUSE,
            Self::Lost => LOST_PAUSE,
            Self::Stopped
            | Self::Rejected(_)
            | Self::TooLarge(_)
            | Self::Source(_)
            | Self::Malformed(_)
            | Self::Stuck(_)
            | Self::Sink(_)
            | Self::Store(_) => Duration::ZERO,
        }
    }

    pub fn waiting(&self) -> Waiting {
        match self {
            Self::Stopped => Waiting::Stopping,
            Self::Lost | Self::Standby { .. } => Waiting::Standby,
            Self::Unauthorized { .. } => Waiting::Unauthorized,
            Self::Rejected(_) | Self::TooLarge(_) | Self::Source(_) | Self::Malformed(_) | Self::Stuck(_) => {
                Waiting::Source
            }
            Self::Sink(_) | Self::CoolingDown { .. } => Waiting::Sink,
            Self::Store(_) => Waiting::Store,
            Self::Halted { .. } | Self::Undeliverable { .. } | Self::Misfit { .. } => Waiting::Person,
        }
    }

    /// `category` and `action_type` of the health row; none for what is no trouble of the account.
    pub fn health(&self) -> Option<(&'static str, &'static str)> {
        match self.waiting() {
            Waiting::Stopping | Waiting::Standby => None,
            Waiting::Unauthorized => Some(("credentials_failed", "API Key Invalid")),
            Waiting::Source => Some(("source_failed", "Events API not readable")),
            Waiting::Sink => Some(("delivery_failed", "Rows not accepted")),
            Waiting::Store => Some(("checkpoint_failed", "Position not writable")),
            Waiting::Person => Some(("configuration_failed", "Needs an operator")),
        }
    }
}

impl From<CheckpointError> for Trouble {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Lost(_) => Self::Lost,
            error @ (CheckpointError::Store(_)
            | CheckpointError::TooNew { .. }
            | CheckpointError::Unwritable { .. }) => Self::Store(error),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

/// The whole cause chain of an error in one line: "what: why: why that".
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !text.is_empty() && !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}
