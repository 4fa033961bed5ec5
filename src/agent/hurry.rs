//! Which waits an operator may cut short, and by how much.

use super::trouble::Trouble;
use crate::flow::retry::Failure;
use std::time::Duration;

impl Trouble {
    /// How soon the feed may try when the operator asks for it, counted from the trouble; none: not before its time. What protects rows
    /// from a second copy or belongs to another process is never cut short, nor is the pause that a service asks for.
    pub fn hurried_after(&self) -> Option<Duration> {
        match self {
            Self::Stopped
            | Self::Lost
            | Self::Standby { .. }
            | Self::CoolingDown { .. }
            | Self::Verifying { .. }
            | Self::Unverifiable { .. }
            | Self::Clock(_) => None,
            Self::Unauthorized { error, .. } | Self::Rejected(error) | Self::TooLarge(error) | Self::Source(error) => {
                Some(pause_asked_for(&error.failure))
            }
            Self::Sink(error) => Some(pause_asked_for(&error.failure)),
            Self::Malformed(_)
            | Self::Stuck(_)
            | Self::Store(_)
            | Self::Halted { .. }
            | Self::Undeliverable { .. }
            | Self::Misfit { .. }
            | Self::Twin(_) => Some(Duration::ZERO),
        }
    }
}

/// The pause that a service asks for by its answer.
pub(super) fn pause_asked_for(failure: &Failure) -> Duration {
    match failure {
        Failure::Status { retry_after, .. } => retry_after.unwrap_or_default(),
        Failure::NotConnected
        | Failure::Interrupted
        | Failure::Malformed(_)
        | Failure::TooLarge
        | Failure::NoCredential
        | Failure::Local => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceError;

    /// Fault: the operator asks for a try while a batch in doubt cools down or is looked up, another process holds the intent, clocks disagree, or 1Password asked for a pause. Shows: none of these waits is shortened.
    #[test]
    fn fm_72_what_protects_rows_and_what_a_service_asks_for_is_never_shortened() {
        let left = Duration::from_secs(600);
        let why = String::new();
        for protected in [
            Trouble::Standby { left },
            Trouble::CoolingDown { left },
            Trouble::Verifying { left },
            Trouble::Unverifiable { why, left },
            Trouble::Lost,
            Trouble::Stopped,
        ] {
            assert_eq!(protected.hurried_after(), None, "{protected:?}");
        }
        for retry_after in [None, Some(left)] {
            let failure = Failure::Status { status: 429, code: String::new(), message: String::new(), retry_after };
            let (attempted, on) = (String::new(), String::new());
            let trouble = Trouble::Source(SourceError { attempted, on, failure, cause: None });
            assert_eq!(trouble.hurried_after(), Some(retry_after.unwrap_or_default()));
        }
    }
}
