//! Which waits an operator may cut short, and by how much.

use super::trouble::Trouble;
use crate::flow::retry::Failure;
use std::time::Duration;

impl Trouble {
    /// Whether the feed may try before its time when the operator asks for it. What protects rows from a second copy, or belongs to another
    /// process, is never cut short; nor is a pause that a service asked for, which the panel knows.
    pub(super) fn may_be_hurried(&self) -> bool {
        match self {
            Self::Stopped
            | Self::Cut { .. }
            | Self::Lost
            | Self::Standby { .. }
            | Self::CoolingDown { .. }
            | Self::Verifying { .. }
            | Self::Unverifiable { .. }
            | Self::Clock(_) => false,
            Self::Unauthorized { .. }
            | Self::Rejected(_)
            | Self::TooLarge(_)
            | Self::Source(_)
            | Self::Sink(_)
            | Self::Malformed(_)
            | Self::Stuck(_)
            | Self::Store(_)
            | Self::Halted { .. }
            | Self::Undeliverable { .. }
            | Self::Misfit { .. }
            | Self::Twin(_) => true,
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
    use crate::flow::clock::Doubted;

    /// Fault: the operator asks for a try while a batch in doubt cools down or is looked up, another process holds the intent, or clocks disagree. Shows: none of these waits is shortened; one for a person is.
    #[test]
    fn fm_72_what_protects_rows_is_never_shortened() {
        let left = Duration::from_secs(600);
        let why = String::new();
        let now = chrono::Utc::now();
        for protected in [
            Trouble::Standby { left },
            Trouble::CoolingDown { left },
            Trouble::Verifying { left },
            Trouble::Unverifiable { why, left },
            Trouble::Clock(Doubted { said: now, expected: now, by_answers: true }),
            Trouble::Lost,
            Trouble::Stopped,
        ] {
            assert!(!protected.may_be_hurried(), "{protected:?}");
        }
        assert!(Trouble::Halted { what: String::new(), remedy: String::new() }.may_be_hurried());
    }
}
