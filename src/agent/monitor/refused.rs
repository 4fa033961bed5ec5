//! Health rows that the destination does not take: from when on the account waits for that, what is said of it, and when the next one is
//! tried.

use crate::agent::delivery::smaller::STUB_REFUSED;
use crate::agent::trouble::{Trouble, chain};
use crate::flow::retry::{Edge, Failure, Verdict, verdict};
use crate::sink::SinkError;
use std::time::Duration;
use tokio::time::Instant;

/// So many refusals in a row are no accident, whatever they say.
const TIMES: u32 = 2;
/// The next one is tried no sooner, and not before the time that the destination asks for.
const PAUSE: Duration = Duration::from_secs(60);
/// A trouble row that may have arrived is posted so often at most: each copy keeps the published "no health rows" rule quiet for an hour.
const DOUBTS_MAX: u32 = 3;

/// The refusals since the last health row that was accepted.
#[derive(Default)]
pub(crate) struct Refused {
    times: u32,
    /// Of these, rows that may have arrived.
    doubts: u32,
    not_before: Option<Instant>,
    /// The remedy that was logged.
    said: Option<String>,
}

impl Refused {
    /// Whether the next health row may be posted yet.
    pub(crate) fn may_try(&self) -> bool {
        self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    /// Whether the row of the last refusals was posted often enough, because it may have arrived each time.
    pub(crate) const fn has_doubts_enough(&self) -> bool {
        self.doubts >= DOUBTS_MAX
    }

    /// Takes note of one more. Returns why the account waits, once it does.
    pub(crate) fn count(&mut self, error: SinkError) -> Option<Trouble> {
        self.times = self.times.saturating_add(1);
        self.doubts += u32::from(error.failure.may_have_arrived());
        let asked = if let Failure::Status { retry_after, .. } = &error.failure { *retry_after } else { None };
        self.not_before = Some(Instant::now() + asked.unwrap_or_default().max(PAUSE));
        let is_a_no = matches!(error.failure, Failure::Status { status: 401 | 403, .. });
        (is_a_no || self.times >= TIMES).then(|| trouble(error))
    }

    /// Whether this is to be said: it has just begun, or something else is to be done about it.
    pub(crate) fn is_news(&mut self, trouble: &Trouble) -> bool {
        let remedy = trouble.remedy();
        self.said.as_ref() != Some(&remedy) && {
            self.said = Some(remedy);
            true
        }
    }

    /// One was accepted. Returns whether refusals had been said.
    pub(crate) fn clear(&mut self) -> bool {
        std::mem::take(self).said.is_some()
    }
}

/// What a refused batch would mean.
pub(crate) fn trouble(error: SinkError) -> Trouble {
    match verdict(Edge::Sink, &error.failure).of_rows(1) {
        Verdict::Halt { remedy } => Trouble::Undeliverable { what: chain(&error), remedy: remedy.into() },
        Verdict::DeadLetter => Trouble::Undeliverable { what: chain(&error), remedy: STUB_REFUSED.into() },
        Verdict::Retry { .. }
        | Verdict::Reauthenticate
        | Verdict::Split
        | Verdict::Rejected
        | Verdict::Unauthorized { .. } => Trouble::Sink(error),
    }
}
