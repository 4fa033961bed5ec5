//! Why a tick did not complete, and what follows from it: for the exit code, the next try, the health row and the operator.

use super::reading::clock::OPINION_PAUSE;
use super::remedy;
use crate::flow::checkpoint::Fingerprints;
use crate::flow::clock::Doubted;
use crate::flow::decode::DecodeError;
use crate::flow::retry::{Failure, REQUEST_REFUSED};
use crate::sink::SinkError;
use crate::source::SourceError;
use crate::store::StoreError;
use crate::store::checkpoints::CheckpointError;
use crate::store::owners::Twin;
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
    /// The same while requests failed: had there been more time, they would have been tried again.
    #[error("stopped while it waited for {what}")]
    Cut { what: String, waiting: Waiting, remedy: &'static str },
    /// Another process wrote the checkpoint first: plans are dropped, the next tick loads again.
    #[error("another process ships this feed: its write of the checkpoint came first")]
    Lost,
    /// Another process holds the open intent.
    #[error("another process ships this feed: standing by for up to {} s", left.as_secs())]
    Standby { left: Duration },
    /// A batch that failed again and again has to wait longer than this run may.
    #[error("a batch in doubt is tried again in {} s", left.as_secs())]
    CoolingDown { left: Duration },
    /// A batch in doubt waits until the table shows what has arrived.
    #[error("a batch in doubt is looked up in the table in {} s: rows may take that long to show", left.as_secs())]
    Verifying { left: Duration },
    /// The table cannot be asked what has arrived.
    #[error("a batch in doubt cannot be looked up in the table, and is sent again in {} s if that lasts: {why}", left.as_secs())]
    Unverifiable { why: String, left: Duration },
    #[error("{error}: {remedy}")]
    Unauthorized {
        #[source]
        error: SourceError,
        remedy: &'static str,
        again: Duration,
    },
    /// The time of an answer is out of line: nothing moves until another one agrees.
    #[error("{0}: nothing moves until another answer agrees, a minute later")]
    Clock(Doubted),
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
    /// Another entry of the configuration, or a former name of this one, ships the same stream of the same account.
    #[error("{0}: {remedy}", remedy = .0.remedy())]
    Twin(Box<Twin>),
}

/// What a feed waits for, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    Stopping,
    Standby,
    Unauthorized,
    /// One that cannot be read or used: nobody has refused it.
    Secret,
    Source,
    Clock,
    Sink,
    /// As [`Trouble::Verifying`]: what was asked for, and over by itself.
    Table,
    Store,
    Person,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stopping => "the end of the process",
            Self::Standby => "another process",
            Self::Unauthorized => "a valid 1Password token",
            Self::Secret => "a secret that can be read",
            Self::Source => "1Password",
            Self::Clock => "clocks that agree",
            Self::Sink => "the destination",
            Self::Table => "the table to show its rows",
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
            | Self::Cut { .. }
            | Self::Lost
            | Self::Standby { .. }
            | Self::CoolingDown { .. }
            | Self::Verifying { .. }
            | Self::Unverifiable { .. }
            | Self::Unauthorized { .. }
            | Self::Clock(_)
            | Self::Sink(_)
            | Self::Undeliverable { .. }
            | Self::Store(_)
            | Self::Misfit { .. }
            | Self::Twin(_) => false,
        }
    }

    /// How long to leave the feed alone beyond its timer.
    pub fn pause(&self) -> Duration {
        match self {
            Self::Standby { left } => STANDBY_PAUSE.min(*left),
            Self::CoolingDown { left } | Self::Verifying { left } => *left,
            Self::Unauthorized { again, .. } => *again,
            Self::Halted { .. } | Self::Undeliverable { .. } | Self::Misfit { .. } | Self::Twin(_) => HALTED_PAUSE,
            Self::Lost => LOST_PAUSE,
            Self::Clock(_) => OPINION_PAUSE,
            Self::Stopped
            | Self::Cut { .. }
            | Self::Rejected(_)
            | Self::TooLarge(_)
            | Self::Source(_)
            | Self::Malformed(_)
            | Self::Stuck(_)
            | Self::Sink(_)
            | Self::Unverifiable { .. }
            | Self::Store(_) => Duration::ZERO,
        }
    }

    pub fn waiting(&self) -> Waiting {
        match self {
            Self::Stopped => Waiting::Stopping,
            Self::Cut { waiting, .. } => *waiting,
            Self::Lost | Self::Standby { .. } => Waiting::Standby,
            Self::Unauthorized { error, .. } if error.failure == Failure::NoCredential => Waiting::Secret,
            Self::Unauthorized { .. } => Waiting::Unauthorized,
            Self::Clock(_) => Waiting::Clock,
            Self::Rejected(_) | Self::TooLarge(_) | Self::Source(_) | Self::Malformed(_) | Self::Stuck(_) => {
                Waiting::Source
            }
            Self::Sink(_) | Self::CoolingDown { .. } | Self::Unverifiable { .. } => Waiting::Sink,
            Self::Verifying { .. } => Waiting::Table,
            Self::Store(_) => Waiting::Store,
            Self::Halted { .. } | Self::Undeliverable { .. } | Self::Misfit { .. } | Self::Twin(_) => Waiting::Person,
        }
    }

    /// What happened, without the remedy.
    pub fn what(&self) -> String {
        match self {
            Self::Halted { what, .. } | Self::Undeliverable { what, .. } => what.clone(),
            Self::Unauthorized { error, .. } => chain(error),
            Self::Misfit { stored, now } => {
                format!("the checkpoint belongs elsewhere: it has {stored}, this configuration has {now}")
            }
            Self::Twin(twin) => twin.to_string(),
            other => chain(other),
        }
    }

    /// What the operator should do next; where nothing needs doing, that.
    pub fn remedy(&self) -> String {
        match self {
            Self::Stopped => "start opship again: it goes on where it stopped".into(),
            Self::Lost | Self::Standby { .. } => {
                "nothing: another process ships this feed, and this one takes over when that one ends".into()
            }
            Self::CoolingDown { .. } => {
                "nothing: a batch that may have arrived is posted again later; `opship status` names it".into()
            }
            Self::Verifying { .. } => {
                "nothing: what the table lacks of the batch is posted again then; other feeds go on meanwhile".into()
            }
            Self::Unverifiable { .. } => {
                "let the workspace be asked: azure.workspace_id, the role Log Analytics Reader, the network".into()
            }
            Self::Unauthorized { error, remedy, .. } => error.remedy.clone().unwrap_or_else(|| (*remedy).into()),
            Self::Cut { remedy, .. } => (*remedy).into(),
            Self::Clock(_) => {
                "compare this host's clock with the true time and set it if it is wrong; if it is right, look for a proxy or a \
                server that answers with a wrong Date; it goes on by itself once two answers, a minute apart, agree"
                    .into()
            }
            Self::Halted { remedy, .. } | Self::Undeliverable { remedy, .. } => remedy.clone(),
            Self::Misfit { .. } => {
                "point the configuration back to where it was, or, if the change is meant, stop the \
                agent and run `opship checkpoint adopt`"
                    .into()
            }
            Self::Twin(twin) => twin.remedy(),
            Self::Rejected(_) => REQUEST_REFUSED.into(),
            Self::TooLarge(_) | Self::Malformed(_) => {
                "nothing yet: smaller or repeated reads usually help; if it stays, \
                look for a proxy that changes answers, then report it with this message"
                    .into()
            }
            Self::Stuck(_) => {
                "nothing: the sweeps ship what the cursor does not, and after ten such ticks the cursor is \
                replaced"
                    .into()
            }
            Self::Source(error) => remedy::of_source(&error.failure).into(),
            Self::Sink(error) => remedy::of_sink(&error.failure).into(),
            Self::Store(error) => remedy::of_store(error),
        }
    }

    /// `category` and `action_type` of the health row; none for what is no trouble of the account.
    pub fn health(&self) -> Option<(&'static str, &'static str)> {
        match self.waiting() {
            Waiting::Stopping | Waiting::Standby | Waiting::Table => None,
            Waiting::Unauthorized => Some(("credentials_failed", "API Key Invalid")),
            Waiting::Secret => Some(("configuration_failed", "Secret not readable")),
            Waiting::Clock => Some(("clock_failed", "Clocks disagree")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::words::Words;
    use crate::flow::{AccountName, FeedId, Stream};
    use crate::store::Key;
    use crate::store::owners::Rival;

    fn status(status: u16) -> Failure {
        Failure::Status { status, code: String::new(), message: Words::default(), retry_after: None }
    }

    fn azures(status: u16) -> Failure {
        Failure::Status { status, code: "OperationFailed".into(), message: Words::default(), retry_after: None }
    }

    fn source(failure: Failure) -> SourceError {
        SourceError {
            attempted: "read a page".into(),
            on: "https://there".into(),
            failure,
            date: None,
            remedy: None,
            cause: None,
        }
    }

    fn sink(failure: Failure) -> SinkError {
        SinkError { attempted: "post 3 rows".into(), on: "https://there".into(), failure, cause: None }
    }

    fn name(text: &str) -> AccountName {
        AccountName::parse(text).unwrap()
    }

    fn twin(rival: Rival) -> Trouble {
        let feed = FeedId { account: name("second"), stream: Stream::ItemUsages };
        Trouble::Twin(Box::new(Twin { feed, owner: name("first"), rival }))
    }

    fn each() -> Vec<Trouble> {
        let left = Duration::from_secs(1);
        let prints = |place| Box::new(Fingerprints::new(place, None, place));
        let edge = [status(401), status(403), status(404), status(429), status(503), Failure::NotConnected];
        let edge = edge.into_iter().chain([Failure::NoCredential, Failure::Local, Failure::Interrupted]);
        let mut all = vec![
            Trouble::Stopped,
            Trouble::Lost,
            Trouble::Standby { left },
            Trouble::CoolingDown { left },
            Trouble::Unauthorized { error: source(status(401)), remedy: "issue a new one", again: left },
            Trouble::Rejected(source(status(400))),
            Trouble::TooLarge(source(Failure::TooLarge)),
            Trouble::Stuck("in a circle"),
            Trouble::Halted { what: "no feature".into(), remedy: "give it".into() },
            Trouble::Undeliverable { what: "no rule".into(), remedy: "make one".into() },
            Trouble::Misfit { stored: prints("a"), now: prints("b") },
            twin(Rival::Configured),
            twin(Rival::OtherStreams),
            twin(Rival::Elsewhere),
            twin(Rival::Moving { to: name("new") }),
            StoreError::Conflict { key: Key::new("k") }.into(),
            StoreError::Refused { attempted: "read", on: "k".into(), remedy: "chmod it".into(), cause: None }.into(),
            Trouble::Store(CheckpointError::TooNew { key: Key::new("k"), writer: "w".into(), min_reader: 9 }),
        ];
        all.extend(edge.flat_map(|failure| [Trouble::Source(source(failure.clone())), Trouble::Sink(sink(failure))]));
        all
    }

    #[test]
    fn each_trouble_has_a_remedy_that_is_not_part_of_what_happened() {
        for trouble in each() {
            let (what, remedy) = (trouble.what(), trouble.remedy());
            assert!(what.len() > 5 && remedy.len() > 5, "{trouble:?}: {what}, {remedy}");
            let is_refusal = matches!(&trouble, Trouble::Store(CheckpointError::Store(StoreError::Refused { .. })));
            assert!(is_refusal || !what.contains(&remedy), "{trouble:?}: {what}");
        }
    }

    #[test]
    fn remedies_name_the_setting_or_the_role() {
        for (trouble, names) in [
            (Trouble::Sink(sink(azures(403))), "Monitoring Metrics Publisher"),
            (Trouble::Sink(sink(status(401))), "Monitoring Metrics Publisher"),
            (Trouble::Sink(sink(status(403))), "firewall"),
            (Trouble::Sink(sink(Failure::NoCredential)), "azure.credential"),
            (Trouble::Sink(sink(Failure::NotConnected)), "sink.endpoint"),
            (Trouble::Sink(sink(Failure::Local)), "sink.path"),
            (Trouble::Source(source(Failure::NotConnected)), "http.proxy"),
            (Trouble::Source(source(status(404))), "accounts.NAME.events_url"),
            (StoreError::Conflict { key: Key::new("k") }.into(), "store.path"),
            (twin(Rival::Configured), "leave itemusages to accounts.first"),
            (twin(Rival::OtherStreams), "opship checkpoint rename first second --stream itemusages"),
            (twin(Rival::Elsewhere), "opship checkpoint rename first second"),
            (twin(Rival::Moving { to: name("new") }), "opship checkpoint rename first new"),
            (StoreError::Locked { on: "k".into(), holder: "process 1".into(), seconds: 1 }.into(), "hung"),
        ] {
            assert!(trouble.remedy().contains(names), "{}", trouble.remedy());
        }
    }
}
