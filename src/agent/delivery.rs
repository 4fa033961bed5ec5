//! intend, deliver, record, commit: one batch from a won intent to a moved position.

use super::again::Way;
use super::blame::{Blame, Met};
use super::packing::Packing;
use super::parcel::Parcel;
use super::position::until_stopped;
use super::reading::By;
use super::recovery::Accepted;
use super::trouble::{Trouble, chain};
use super::view;
use super::{Drained, Feed, Tick};
use crate::flow::attempts::Attempts;
use crate::flow::checkpoint::{Advance, Totals};
use crate::flow::intent::{Draft, INTENT_TTL, Intent, Opened};
use crate::flow::planted::{self, Bug};
use crate::flow::retry::{Edge, Failure, HALT_PACE, PASSING_PAUSE, Patience, ROLE_PACE, Verdict, verdict};
use crate::sink::{Body, SinkError};
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::time::Instant;

/// Deadline of one POST.
pub(super) const POST_DEADLINE: Duration = Duration::from_secs(60);
/// How long an open POST may go on once the process was asked to end.
const STOP_POST: Duration = Duration::from_secs(15);
/// How long the ledger is tried before the tick gives up; recovery then finds the batch in doubt no more than once.
const RECORD_PATIENCE: Duration = Duration::from_secs(60);
/// Pages without new rows between two commits.
const ROWLESS_PAGES_MAX: u32 = 20;

/// What became of a batch.
pub(super) enum Delivered {
    /// 204: the rows are in the sink.
    Accepted,
    /// It is at fault in this size or content.
    Refused(SinkError),
}

impl Feed {
    /// Writes the intent by compare-and-swap: whoever wins it may post. A part of a batch in doubt has one already.
    pub(super) async fn intend(&mut self, parcel: &Parcel) -> Result<(), Trouble> {
        self.go_on()?;
        self.prove_ledger_once(&parcel.batch.keys()).await?;
        let (owner, at) = (self.checkpoints.owner().to_owned(), self.date);
        let cp = &mut self.position()?.cp;
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
        self.save().await
    }

    /// Posts the batch until it is accepted or held to be at fault. When patience ends, a batch in doubt keeps its intent, any other gives
    /// it back.
    pub(super) async fn deliver(&mut self, parcel: &Parcel, tick: Tick<'_>) -> Result<Delivered, Trouble> {
        let body = Body { json: parcel.batch.json(), rows: parcel.batch.rows.len() };
        let mut met = Met::new(tick.patience, &mut self.jitter);
        loop {
            self.renew_intent().await?;
            if self.stop.is_cancelled() {
                return self.give_up(Trouble::Stopped).await;
            }
            met.attempts.begin();
            let asked = if met.is_away { self.ask_empty().await } else { self.post(&body).await };
            let error = match asked {
                Ok(()) if met.is_away => {
                    met.is_away = false;
                    continue;
                }
                Ok(()) => return self.accept(parcel),
                Err(error) => error,
            };
            self.panel.failed(Edge::Sink, &error.failure);
            if planted::is(Bug::LostReplyIsYes) && error.failure == Failure::Interrupted {
                return self.accept(parcel);
            }
            self.notice_a_doubt(parcel, &error, &met).await?;
            let blame = self.blame(parcel, &error, &mut met).await?;
            if self.stop.is_cancelled() {
                return self.give_up(Trouble::Stopped).await;
            }
            let at_least = match blame {
                Blame::Body => return Ok(Delivered::Refused(error)),
                Blame::Suspected { at_least } => at_least,
                Blame::Elsewhere => match self.answer(&error, &mut met).await {
                    Ok(at_least) => at_least,
                    Err(halted) => return self.give_up(halted).await,
                },
            };
            let is_suspected = matches!(blame, Blame::Suspected { .. });
            let wait = match met.attempts.pause(met.begun.elapsed(), at_least) {
                ControlFlow::Continue(wait) => wait,
                ControlFlow::Break(()) if is_suspected => met.attempts.pause_in_any_case(at_least),
                ControlFlow::Break(()) => return self.give_up(Trouble::Sink(error)).await,
            };
            // What may have arrived, or is held against one row, keeps its pace.
            let slot = &self.position()?.cp.slot;
            let (batch, attempt, is_in_doubt) = (slot.batch_id().to_owned(), slot.attempt(), slot.is_in_doubt());
            let at_least = (!is_suspected && !is_in_doubt).then(|| self.panel.asked_to_wait());
            let wait_ms = wait.as_millis() as u64;
            tracing::warn!(feed = %self.id, batch, rows = body.rows, attempt, wait_ms, error = %chain(&error),
                "a batch was not accepted: trying again");
            if let Err(stopped) = self.rest_unless_hurried(wait, at_least).await {
                return self.give_up(stopped).await;
            }
        }
    }

    /// Counts a POST that may have been accepted. Where the table can be asked, not one more is made before it has been: the doubt is
    /// stored now, and the wait counts from this write.
    async fn notice_a_doubt(&mut self, parcel: &Parcel, error: &SinkError, met: &Met) -> Result<(), Trouble> {
        // An empty array leaves no doubt.
        if met.is_away || !error.failure.may_have_arrived() || planted::is(Bug::LostReplyIsNo) {
            return Ok(());
        }
        self.doubt(parcel, error)?;
        let Some(after) = self.settings.verify_after else { return Ok(()) };
        self.suspect(parcel, error).await?;
        self.renew_intent().await?;
        let left = INTENT_TTL.saturating_add(after);
        self.give_up(Trouble::Verifying { left }).await
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

    fn accept(&mut self, parcel: &Parcel) -> Result<Delivered, Trouble> {
        if let Some(intent) = self.position()?.cp.slot.intent() {
            let (batch_id, attempt, keys) = (intent.batch_id().to_owned(), intent.attempt(), parcel.batch.keys());
            self.accepted = Some(Accepted { batch_id, attempt, keys });
        }
        Ok(Delivered::Accepted)
    }

    /// One POST. Once the process is asked to end it has 15 s left; cut off, its outcome is unknown.
    pub(super) async fn post(&self, body: &Body) -> Result<(), SinkError> {
        let cut_off = |why: &str| self.unanswered(&format!("post {} rows ({why})", body.rows));
        let stopping = async {
            self.stop.cancelled().await;
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
    fn doubt(&mut self, parcel: &Parcel, error: &SinkError) -> Result<(), Trouble> {
        let (date, rows) = (self.date, parcel.batch.rows.len() as u64);
        let position = self.position()?;
        if position.cp.slot.doubt(rows, error.failure.to_string(), date) {
            position.unsaved_doubt = !planted::is(Bug::ForgetDoubts);
            self.panel.doubted(rows);
        }
        Ok(())
    }

    /// A holder starts no POST later than ttl - 60 s after its last intent write, and none before the doubts of the earlier ones are
    /// stored: whoever recovers must know of every copy there may be. Renewing keeps the attempt.
    pub(super) async fn renew_intent(&mut self) -> Result<(), Trouble> {
        let position = self.position()?;
        let stale = position.intent_written.elapsed() > INTENT_TTL.saturating_sub(POST_DEADLINE);
        if stale || position.unsaved_doubt { self.save().await } else { Ok(()) }
    }

    /// Sleeps while keeping the intent, so that no other process takes a healthy one over. Where there is an `at_least` the operator may
    /// cut what is longer.
    async fn rest_unless_hurried(&mut self, wait: Duration, at_least: Option<Duration>) -> Result<(), Trouble> {
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
                rested = self.rest(left.min(POST_DEADLINE)) => rested?,
                () = &mut hurried => break,
            }
            self.renew_intent().await?;
        }
        self.hurry.begin();
        Ok(())
    }

    /// Ends a delivery without acceptance: a batch that certainly never arrived gives its intent back, one in doubt keeps it.
    pub(super) async fn give_up<T>(&mut self, trouble: Trouble) -> Result<T, Trouble> {
        self.release_intent().await?;
        Err(trouble)
    }

    pub(super) async fn release_intent(&mut self) -> Result<(), Trouble> {
        if self.position.as_mut().is_some_and(|position| position.cp.slot.release()) {
            self.save().await?;
        }
        Ok(())
    }

    /// Appends the accepted ids to the ledger.
    pub(super) async fn record(&mut self, parcel: &Parcel) -> Result<(), Trouble> {
        let attempt = self.position()?.cp.slot.attempt();
        self.record_keys(&parcel.batch.keys(), attempt).await?;
        self.accepted = None;
        self.position()?.cp.slot.record();
        Ok(())
    }

    pub(super) async fn record_keys(&mut self, keys: &[crate::flow::EventKey], attempt: u32) -> Result<(), Trouble> {
        let Some(batch_id) = self.position()?.cp.slot.intent().map(Intent::batch_id_bytes) else { return Ok(()) };
        if planted::is(Bug::SkipLedger) {
            return Ok(());
        }
        let begun = Instant::now();
        let mut attempts = Attempts::new(Patience::within(RECORD_PATIENCE), &mut self.jitter);
        loop {
            attempts.begin();
            let append = self.ledger.append(batch_id, attempt, keys);
            let error = match until_stopped(&self.stop, super::position::STOP_COMMIT, append).await {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => error,
                None => return Err(Trouble::Stopped),
            };
            let ControlFlow::Continue(wait) = attempts.pause(begun.elapsed(), None) else { return Err(error) };
            tracing::warn!(feed = %self.id, error = %chain(&error), "accepted rows are not in the ledger yet: trying again");
            self.rest(wait).await?;
        }
    }

    /// Moves the position in memory; the next write of the checkpoint, often the next intent, carries it.
    pub(super) fn commit(&mut self, parcel: &Parcel, way: &Way, packing: &mut Packing<'_, '_>) -> Result<(), Trouble> {
        let counted = std::mem::take(&mut packing.counted);
        (packing.shipped_any, packing.takes_rows) = (true, true);
        let rows = &parcel.batch.rows;
        let is_late = |time: Option<crate::flow::Time>| match (way.origin.by, way.origin.late_before) {
            (By::Sweep(_), _) => true,
            (By::Cursor { .. }, Some(before)) => time.is_some_and(|time| time < before),
            (By::Cursor { .. }, None) | (By::Range, _) => false,
        };
        let late = rows.iter().filter(|row| is_late(row.timestamp)).count() as u64;
        let shipped = rows.len() as u64;
        let timestamps: Vec<_> = rows.iter().map(|row| row.timestamp).collect();
        // Old events say nothing about lateness.
        let is_of_old = matches!(way.origin.by, By::Cursor { born: Some(_) } | By::Range);
        let bytes = parcel.batch.bytes();
        self.panel.accepted(&view::Accepted {
            timestamps: &timestamps,
            bytes,
            late,
            dead_letters: counted.dead_letters,
            date: (!is_of_old).then_some(self.date),
        });
        let batch = Totals { read: shipped, shipped, late, batches: 1, ..Totals::default() };
        packing.drained.shipped += shipped;
        packing.drained.late += late;
        packing.drained.dead_letters += counted.dead_letters;
        let position = self.position()?;
        position.cp.totals.add(&counted);
        position.cp.totals.add(&batch);
        position.unsaved_rows = true;
        if let Some(advance) = position.cp.slot.settle() {
            position.cp.apply(advance);
        }
        Ok(())
    }

    /// Settles what needed no row. A page without new rows moves the position too.
    pub(super) async fn commit_page(
        &mut self,
        mut packing: Packing<'_, '_>,
        advance: Option<Advance>,
    ) -> Result<Drained, Trouble> {
        if matches!(advance, Some(Advance::Sweep { .. })) {
            // A sweep reads them again and again: counted as dropped once, by the cursor.
            packing.settled.known += std::mem::take(&mut packing.settled.filtered);
        }
        let position = self.position()?;
        position.cp.totals.add(&packing.settled);
        let mut drained = packing.drained;
        drained.pages = 1;
        drained.known = packing.settled.known;
        drained.read = packing.settled.read + drained.shipped;
        if !packing.shipped_any {
            advance.into_iter().for_each(|advance| position.cp.apply(advance));
            position.rowless_pages += 1;
            if position.rowless_pages >= ROWLESS_PAGES_MAX && position.needs_commit() {
                self.save().await?;
            }
        }
        Ok(drained)
    }
}
