//! Whether a refusal of the destination may be about a row in the body, and how often that row is tried before it is set aside.

use super::planted::{self, Bug};
use super::retry::Failure;
use std::time::Duration;

/// How sure a refusal is that may be about what a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// The answer was a no.
    Definite,
    /// A 5xx or no answer at all: the rows may be in the table all the same.
    Doubtful,
}

/// Whether a refusal may be about a row: by the service, or by a proxy or firewall on the way that takes offence at a text in it.
/// `None`: it is about who we are, how much we send, or the rule, and so never about a row.
///
/// It is a suspicion only: the same answers come from a service that is down. What tells them apart is another body that is accepted.
pub fn suspicion(failure: &Failure) -> Option<Suspicion> {
    match failure {
        Failure::Interrupted => Some(Suspicion::Doubtful),
        Failure::Status { status, code, retry_after, .. } => match *status {
            ..400 | 401 | 407 | 408 | 425 | 429 => None,
            // A role that is missing, a rule that is gone.
            403 | 404 if is_azures(code) => None,
            400 if code.eq_ignore_ascii_case("InvalidStream") => None,
            400..500 => Some(Suspicion::Definite),
            // Who says when to come again is busy.
            500.. => retry_after.is_none().then_some(Suspicion::Doubtful),
        },
        Failure::NotConnected | Failure::Malformed(_) | Failure::TooLarge | Failure::NoCredential | Failure::Local => {
            None
        }
    }
}

/// Azure's own refusals carry a code; a page of a firewall has none, and common web servers put the words of the status there.
pub fn is_azures(code: &str) -> bool {
    !code.is_empty() && !["Forbidden", "Not Found"].contains(&code)
}

/// What is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    Rows,
    /// Rows that were part of a refused body: no accident any more.
    RowsOfARefusedBody,
    /// One row, whole.
    Alone,
    /// What stands for a row that was refused.
    Stub,
}

impl Sample {
    /// After how many refusals, each with another body accepted right after it, the body is held to be at fault. A doubtful refusal is most
    /// often an accident: it takes one more.
    pub const fn refusals_needed(self, suspicion: Suspicion) -> u32 {
        match (self, suspicion) {
            (Self::RowsOfARefusedBody, _) | (Self::Rows | Self::Stub, Suspicion::Definite) => 1,
            (Self::Rows | Self::Stub, Suspicion::Doubtful) => 2,
            (Self::Alone, Suspicion::Definite) => ALONE_DEFINITE,
            (Self::Alone, Suspicion::Doubtful) => ALONE_DOUBTFUL,
        }
    }

    /// Whether so many refusals put the body at fault.
    pub fn is_at_fault(self, suspicion: Suspicion, refusals: u32) -> bool {
        let at_once = self == Self::Alone && planted::is(Bug::SetAsideAtOnce);
        refusals >= if at_once { 1 } else { self.refusals_needed(suspicion) }
    }

    /// How long the same body is left alone before it is tried again; none: as after any failure. A pause too short shows nothing new: a
    /// row that is set aside loses its content in the table.
    pub fn pause(self, refusals: u32) -> Option<Duration> {
        let pause = || ALONE_PAUSE.saturating_mul(4_u32.saturating_pow(refusals.saturating_sub(1)));
        (self == Self::Alone).then(pause)
    }
}

/// Refusals of a row alone before it is set aside.
const ALONE_DEFINITE: u32 = 2;
/// The same where each of them leaves a doubt.
pub const ALONE_DOUBTFUL: u32 = 3;
/// Between the first two of them; four times as long before the third.
const ALONE_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::words::Words;

    fn status(status: u16, code: &str) -> Failure {
        Failure::Status { status, code: code.into(), message: Words::default(), retry_after: None }
    }

    /// Fault: each status, with and without a code of Azure's, and every failure that is no answer. Shows: which may be a row's, and which never are.
    #[test]
    fn fm_52_what_may_be_about_a_row_and_what_never_is() {
        use Suspicion::{Definite, Doubtful};
        for (code, expected) in [
            (status(400, "SomethingElse"), Some(Definite)),
            (status(400, ""), Some(Definite)),
            (status(400, "InvalidPayload"), Some(Definite)),
            (status(403, ""), Some(Definite)),
            (status(403, "Forbidden"), Some(Definite)),
            (status(404, ""), Some(Definite)),
            (status(406, ""), Some(Definite)),
            (status(413, "ContentLengthLimitExceeded"), Some(Definite)),
            (status(422, "x"), Some(Definite)),
            (status(500, "InternalServerError"), Some(Doubtful)),
            (status(503, ""), Some(Doubtful)),
            (Failure::Interrupted, Some(Doubtful)),
            (status(403, "OperationFailed"), None),
            (status(404, "NotFound"), None),
            (status(400, "InvalidStream"), None),
            (status(401, ""), None),
            (status(407, ""), None),
            (status(408, ""), None),
            (status(425, ""), None),
            (status(429, ""), None),
            (status(307, ""), None),
            (Failure::NotConnected, None),
            (Failure::NoCredential, None),
            (Failure::Local, None),
            (Failure::Malformed("202".into()), None),
        ] {
            assert_eq!(suspicion(&code), expected, "{code:?}");
        }
        let busy =
            Failure::Status { status: 503, code: "".into(), message: Words::default(), retry_after: Some(ALONE_PAUSE) };
        assert_eq!(suspicion(&busy), None);
    }

    #[test]
    fn a_row_is_tried_twice_or_thrice_with_growing_pauses_and_a_stub_less_often() {
        let needed = |sample: Sample| [Suspicion::Definite, Suspicion::Doubtful].map(|s| sample.refusals_needed(s));
        assert_eq!(needed(Sample::Alone), [2, 3]);
        assert_eq!((needed(Sample::Rows), needed(Sample::Stub)), ([1, 2], [1, 2]));
        assert_eq!(needed(Sample::RowsOfARefusedBody), [1, 1]);
        let pauses = [1, 2].map(|refusals| Sample::Alone.pause(refusals).unwrap_or_default().as_secs());
        assert_eq!((pauses, Sample::Rows.pause(1)), ([2, 8], None));
        assert!(
            !Sample::Alone.is_at_fault(Suspicion::Definite, 1) && Sample::Alone.is_at_fault(Suspicion::Definite, 2)
        );
    }
}
