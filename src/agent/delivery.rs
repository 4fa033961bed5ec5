//! intend, deliver: one batch from a won intent to an answer that tells.

pub(super) mod blame;
pub(super) mod commit;
pub(super) mod dead_letters;
pub(super) mod moved;
pub(super) mod packing;
pub(super) mod parcel;
pub(super) mod recovery;
pub(super) mod segments;
pub(super) mod smaller;
pub(super) mod verify;

use super::Tick;
use super::given::Given;
use super::position::Stand;
use super::trouble::{Trouble, chain};
use crate::flow::EventKey;
use crate::flow::attempts::Jitter;
use crate::flow::checkpoint::Fingerprints;
use crate::flow::intent::{Draft, INTENT_TTL, Opened};
use crate::flow::planted::{self, Bug};
use crate::flow::retry::{Edge, Failure, HALT_PACE, PASSING_PAUSE, ROLE_PACE, Verdict, verdict};
use crate::reload::Hurry;
use crate::sink::{Body, Sink, SinkError};
use crate::store::Store;
use crate::store::dead_letters::DeadLetters;
use crate::store::ledger::Ledger;
use crate::table::Table;
use blame::{Blame, Met};
use parcel::Parcel;
use recovery::Accepted;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Deadline of one POST.
pub(super) const POST_DEADLINE: Duration = Duration::from_secs(60);
/// How long an open POST may go on once the process was asked to end.
const STOP_POST: Duration = Duration::from_secs(15);

/// How a feed delivers to one destination: the sink, the ledger of what it took, and what is not settled with it yet.
pub(super) struct Delivery {
    pub(super) given: Arc<Given>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) ledger: Ledger,
    pub(super) dead_letters: DeadLetters,
    /// Rows whose 204 this process has seen but not yet recorded: recovery need not post them again.
    pub(super) accepted: Option<Accepted>,
    /// Events of a batch that is settled again whose stub is posted: counted as dead letters with the batch.
    pub(super) stubbed_again: HashSet<EventKey>,
    /// Where shipped rows can be looked up; none unless batches in doubt are verified.
    pub(super) table: Option<Arc<dyn Table>>,
    /// Since when the table has not answered.
    pub(super) silent_since: Option<Instant>,
    /// Whether the operator wants a waiting feed to try now.
    pub(super) hurry: Hurry,
    pub(super) jitter: Jitter,
}

impl Delivery {
    pub(super) fn new(
        given: Arc<Given>,
        sink: Arc<dyn Sink>,
        table: Option<Arc<dyn Table>>,
        store: &Arc<dyn Store>,
        jitter: Jitter,
    ) -> Self {
        let sink_fingerprint = Fingerprints::new("", None, &sink.place()).sink;
        Self {
            ledger: Ledger::new(store.clone(), &given.id, &sink_fingerprint),
            dead_letters: DeadLetters::new(store.clone()),
            accepted: None,
            stubbed_again: HashSet::new(),
            silent_since: None,
            hurry: Hurry::default(),
            given,
            sink,
            table,
            jitter,
        }
    }
}

/// What became of a batch.
pub(super) enum Delivered {
    /// 204: the rows are in the sink.
    Accepted,
    /// It is at fault in this size or content.
    Refused(SinkError),
}

impl Delivery {
    /// Writes the intent by compare-and-swap: whoever wins it may post. A part of a batch in doubt has one already.
    pub(super) async fn intend(&mut self, stand: &mut Stand, parcel: &Parcel) -> Result<(), Trouble> {
        self.given.go_on()?;
        self.prove_ledger_once(&parcel.batch.keys()).await?;
        let (owner, at) = (stand.checkpoints.owner().to_owned(), self.given.date());
        let cp = &mut stand.position()?.cp;
        let opened = cp.slot.open(Draft {
            stream: cp.stream,
            kind: parcel.kind,
            rows: parcel.batch.rows.iter().map(|row| (row.key, row.timestamp)).collect(),
            advance: parcel.advance.clone(),
            owner: &owner,
            known: parcel.known.as_deref(),
            at,
        });
        match opened {
            Opened::New => {}
            Opened::Part => return Ok(()),
            // The next tick reads it and recovers.
            Opened::Unsettled => return Err(Trouble::Lost),
        }
        if planted::is(Bug::PostWithoutIntent) {
            return Ok(());
        }
        if planted::is(Bug::CommitBeforeDeliver) {
            parcel.advance.iter().for_each(|advance| cp.apply(advance.clone()));
        }
        stand.save(&mut self.ledger).await
    }

    /// Posts the batch until it is accepted or held to be at fault. When patience ends, a batch in doubt keeps its intent, any other gives
    /// it back.
    pub(super) async fn deliver(
        &mut self,
        stand: &mut Stand,
        parcel: &Parcel,
        tick: Tick<'_>,
    ) -> Result<Delivered, Trouble> {
        let body = Body { json: parcel.batch.json(), rows: parcel.batch.rows.len() };
        let mut met = Met::new(tick.patience, &mut self.jitter);
        loop {
            self.renew_intent(stand).await?;
            if self.given.stop.is_cancelled() {
                return self.give_up(stand, Trouble::Stopped).await;
            }
            met.attempts.begin();
            let asked = if met.is_away { self.ask_empty().await } else { self.post(&body).await };
            let error = match asked {
                Ok(()) if met.is_away => {
                    met.is_away = false;
                    continue;
                }
                Ok(()) => return self.accept(stand, parcel),
                Err(error) => error,
            };
            self.given.panel.failed(Edge::Sink, &error.failure);
            if planted::is(Bug::LostReplyIsYes) && error.failure == Failure::Interrupted {
                return self.accept(stand, parcel);
            }
            self.notice_a_doubt(stand, parcel, &error, &met).await?;
            let blame = self.blame(stand, parcel, &error, &mut met).await?;
            if self.given.stop.is_cancelled() {
                return self.give_up(stand, Trouble::Stopped).await;
            }
            let at_least = match blame {
                Blame::Body => return Ok(Delivered::Refused(error)),
                Blame::Suspected { at_least } => at_least,
                Blame::Elsewhere => match self.answer(&error, &mut met).await {
                    Ok(at_least) => at_least,
                    Err(halted) => return self.give_up(stand, halted).await,
                },
            };
            let is_suspected = matches!(blame, Blame::Suspected { .. });
            let wait = match met.attempts.pause(met.begun.elapsed(), at_least) {
                ControlFlow::Continue(wait) => wait,
                ControlFlow::Break(wait) if is_suspected => wait,
                ControlFlow::Break(_) => return self.give_up(stand, Trouble::Sink(error)).await,
            };
            // What may have arrived, or is held against one row, keeps its pace.
            let slot = &stand.position()?.cp.slot;
            let (batch, attempt, is_in_doubt) = (slot.batch_id().to_owned(), slot.attempt(), slot.is_in_doubt());
            let at_least = (!is_suspected && !is_in_doubt).then(|| self.given.panel.asked_to_wait());
            let wait_ms = wait.as_millis() as u64;
            tracing::warn!(feed = %self.given.id, batch, rows = body.rows, attempt, wait_ms, error = %chain(&error),
                "a batch was not accepted: trying again");
            if let Err(stopped) = self.rest_unless_hurried(stand, wait, at_least).await {
                return self.give_up(stand, stopped).await;
            }
        }
    }

    /// Counts a POST that may have been accepted. Where the table can be asked, not one more is made before it has been: the doubt is
    /// stored now, and the wait counts from this write.
    async fn notice_a_doubt(
        &mut self,
        stand: &mut Stand,
        parcel: &Parcel,
        error: &SinkError,
        met: &Met,
    ) -> Result<(), Trouble> {
        // An empty array leaves no doubt.
        if met.is_away || !error.failure.may_have_arrived() || planted::is(Bug::LostReplyIsNo) {
            return Ok(());
        }
        self.doubt(stand, parcel, error)?;
        let Some(after) = self.given.settings.verify_after else { return Ok(()) };
        self.suspect(stand, parcel, error).await?;
        self.renew_intent(stand).await?;
        let left = INTENT_TTL.saturating_add(after);
        self.give_up(stand, Trouble::Verifying { left }).await
    }

    /// What a refusal means that is about no row: how long to wait at least, or why nothing helps but a person.
    async fn answer(&mut self, error: &SinkError, met: &mut Met) -> Result<Option<Duration>, Trouble> {
        match verdict(Edge::Sink, &error.failure) {
            Verdict::Retry { at_least } => Ok(at_least),
            Verdict::Reauthenticate => {
                self.sink.reauthenticate().await;
                // The second time it is like a role that is still spreading.
                Ok(std::mem::replace(&mut met.reauthenticated, true).then_some(ROLE_PACE))
            }
            // Of an empty array, or with an empty array refused as well: the destination takes nothing at all.
            Verdict::Split | Verdict::DeadLetter => Ok(None),
            Verdict::Halt { .. } if error.failure.may_pass() && !std::mem::replace(&mut met.has_passed, true) => {
                Ok(Some(PASSING_PAUSE))
            }
            Verdict::Halt { remedy } | Verdict::Unauthorized { remedy, .. } => {
                // The sink's own remedy, its cause, would say the same twice.
                Err(Trouble::Undeliverable { what: error.to_string(), remedy: remedy.into() })
            }
            Verdict::Rejected => Ok(Some(HALT_PACE)),
        }
    }

    fn accept(&mut self, stand: &mut Stand, parcel: &Parcel) -> Result<Delivered, Trouble> {
        let slot = &mut stand.position()?.cp.slot;
        slot.accept();
        if let Some(intent) = slot.intent() {
            let (batch_id, attempt, keys) = (intent.batch_id().to_owned(), intent.attempt(), parcel.batch.keys());
            self.accepted = Some(Accepted { batch_id, attempt, keys });
        }
        Ok(Delivered::Accepted)
    }

    /// One POST. Once the process is asked to end it has 15 s left; cut off, its outcome is unknown.
    pub(super) async fn post(&self, body: &Body) -> Result<(), SinkError> {
        let cut_off = |why: &str| self.unanswered(&format!("post {} rows ({why})", body.rows));
        let stopping = async {
            self.given.stop.cancelled().await;
            tokio::time::sleep(STOP_POST).await;
        };
        tokio::select! {
            biased;
            posted = tokio::time::timeout(POST_DEADLINE, self.sink.deliver(body)) => {
                posted.unwrap_or_else(|_| Err(cut_off("no answer in 60 s")))
            }
            () = stopping => Err(cut_off("cut off by the end of the process")),
        }
    }

    /// What was sent had no answer.
    pub(super) fn unanswered(&self, attempted: &str) -> SinkError {
        SinkError { attempted: attempted.into(), on: self.sink.place(), failure: Failure::Interrupted, cause: None }
    }

    /// An earlier POST of these rows may have been accepted: the next one may make a copy, and the ledger will say so.
    fn doubt(&mut self, stand: &mut Stand, parcel: &Parcel, error: &SinkError) -> Result<(), Trouble> {
        let (date, rows) = (self.given.date(), parcel.batch.rows.len() as u64);
        let position = stand.position()?;
        if position.cp.slot.doubt(rows, error.failure.to_string(), date) {
            position.unsaved_doubt = !planted::is(Bug::ForgetDoubts);
            self.given.panel.doubted(rows);
        }
        Ok(())
    }

    /// A holder starts no POST later than ttl - 60 s after its last intent write, and none before the doubts of the earlier ones are
    /// stored: whoever recovers must know of every copy there may be. Renewing keeps the attempt.
    pub(super) async fn renew_intent(&mut self, stand: &mut Stand) -> Result<(), Trouble> {
        let position = stand.position()?;
        let stale = position.intent_written.elapsed() > INTENT_TTL.saturating_sub(POST_DEADLINE);
        if stale || position.unsaved_doubt { stand.save(&mut self.ledger).await } else { Ok(()) }
    }

    /// Sleeps while keeping the intent, so that no other process takes a healthy one over. Where there is an `at_least` the operator may
    /// cut what is longer.
    async fn rest_unless_hurried(
        &mut self,
        stand: &mut Stand,
        wait: Duration,
        at_least: Option<Duration>,
    ) -> Result<(), Trouble> {
        let (begun, mut hurry) = (Instant::now(), self.hurry.clone());
        let hurried = async {
            match at_least {
                Some(at_least) => tokio::time::sleep_until(begun + at_least).await,
                None => std::future::pending().await,
            }
            hurry.asked().await;
        };
        tokio::pin!(hurried);
        loop {
            let left = (begun + wait).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            // A write of the intent is never cut short.
            tokio::select! {
                biased;
                rested = self.given.rest(left.min(POST_DEADLINE)) => rested?,
                () = &mut hurried => break,
            }
            self.renew_intent(stand).await?;
        }
        self.hurry.begin();
        Ok(())
    }

    /// Ends a delivery without acceptance: a batch that certainly never arrived gives its intent back, one in doubt keeps it.
    pub(super) async fn give_up<T>(&mut self, stand: &mut Stand, trouble: Trouble) -> Result<T, Trouble> {
        self.release_intent(stand).await?;
        Err(trouble)
    }

    pub(super) async fn release_intent(&mut self, stand: &mut Stand) -> Result<(), Trouble> {
        if stand.position.as_mut().is_some_and(|position| position.cp.slot.release()) {
            stand.save(&mut self.ledger).await?;
        }
        Ok(())
    }
}
