//! Who is at fault when a body is refused: the destination, or something in the body. Only another body that is accepted can tell.

use super::parcel::Parcel;
use super::{Delivery, POST_DEADLINE};
use crate::agent::position::Stand;
use crate::agent::trouble::{Trouble, chain};
use crate::flow::attempts::{Attempts, Jitter};
use crate::flow::retry::{Edge, Patience, Verdict, verdict};
use crate::flow::suspicion::{Suspicion, suspicion};
use crate::sink::SinkError;
use std::time::Duration;
use tokio::time::Instant;

/// What one delivery has met so far.
pub(crate) struct Met {
    pub begun: Instant,
    /// POSTs and, while the destination is away, empty arrays in their place.
    pub attempts: Attempts,
    pub reauthenticated: bool,
    /// A refusal as gateways give for a moment was tried once more.
    pub has_passed: bool,
    /// The empty array was refused too: it is asked again in place of the batch until it is accepted, so that an outage makes fewer POSTs
    /// and doubts, never more.
    pub is_away: bool,
    /// Refusals of the body, each with the empty array accepted right after it.
    refusals: u32,
    /// One of them left a doubt.
    is_doubtful: bool,
}

/// What a refusal is held to be.
pub(crate) enum Blame {
    /// Of the destination, or of none that can be told: what follows is the verdict's.
    Elsewhere,
    /// The body may be at fault: it is tried again after this, not sooner, however long the delivery has taken. There are at most three
    /// such tries.
    Suspected { at_least: Option<Duration> },
    /// The body is at fault: it goes in parts, or as a stub.
    Body,
}

impl Met {
    pub(crate) fn new(patience: Patience, jitter: &mut Jitter) -> Self {
        Self {
            begun: Instant::now(),
            attempts: Attempts::new(patience, jitter),
            reauthenticated: false,
            has_passed: false,
            is_away: false,
            refusals: 0,
            is_doubtful: false,
        }
    }
}

impl Delivery {
    /// Holds a refusal against an empty array, posted right after it. That is one small request more for a refusal that may be about a row,
    /// and none for any other.
    pub(crate) async fn blame(
        &mut self,
        stand: &mut Stand,
        parcel: &Parcel,
        error: &SinkError,
        met: &mut Met,
    ) -> Result<Blame, Trouble> {
        let suspicion = suspicion(&error.failure).filter(|_| self.sink.may_refuse_rows());
        let Some(suspicion) = suspicion.filter(|_| !met.is_away && !self.given.stop.is_cancelled()) else {
            return Ok(Blame::Elsewhere);
        };
        // A refused size or payload says itself that it is about the body.
        if parcel.batch.rows.len() > 1 && verdict(Edge::Sink, &error.failure) == Verdict::Split {
            return Ok(Blame::Body);
        }
        // The answer may take a minute: the intent has to live as long, and to tell of the doubt.
        self.renew_intent(stand).await?;
        if !self.is_taken_empty().await {
            met.is_away = true;
            return Ok(Blame::Elsewhere);
        }
        met.refusals += 1;
        met.is_doubtful |= suspicion == Suspicion::Doubtful;
        let suspicion = if met.is_doubtful { Suspicion::Doubtful } else { Suspicion::Definite };
        let sample = parcel.sample();
        Ok(match sample.is_at_fault(suspicion, met.refusals) {
            true => Blame::Body,
            false => Blame::Suspected { at_least: sample.pause(met.refusals) },
        })
    }

    /// Where each doubt ends the delivery, refusals of a row alone are counted in its intent, so that the next run can go on from there.
    pub(crate) async fn suspect(
        &mut self,
        stand: &mut Stand,
        parcel: &Parcel,
        error: &SinkError,
    ) -> Result<(), Trouble> {
        let is_suspicion = suspicion(&error.failure) == Some(Suspicion::Doubtful) && self.sink.may_refuse_rows();
        let [row] = parcel.batch.rows.as_slice() else { return Ok(()) };
        if is_suspicion && !self.given.stop.is_cancelled() && self.is_taken_empty().await {
            stand.position()?.cp.slot.suspect(row.key.id);
        }
        Ok(())
    }

    /// Whether an empty array is accepted at this moment.
    async fn is_taken_empty(&self) -> bool {
        let asked = self.ask_empty().await;
        if let Err(error) = &asked {
            tracing::debug!(feed = %self.given.id, error = %chain(error), "the destination refuses an empty array too");
        }
        asked.is_ok()
    }

    /// Posts an empty array: it passes all that a batch passes, and no row can be at fault in it. Ends with the process.
    pub(crate) async fn ask_empty(&self) -> Result<(), SinkError> {
        let asked = tokio::time::timeout(POST_DEADLINE, self.sink.probe());
        tokio::select! {
            biased;
            asked = asked => asked.unwrap_or_else(|_| Err(self.unanswered("post an empty array (no answer in 60 s)"))).map(drop),
            () = self.given.stop.cancelled() => Err(self.unanswered("post an empty array (cut off by the end of the process)")),
        }
    }
}
