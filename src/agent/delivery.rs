//! intend, deliver, record, commit: one batch from a won intent to a moved position.

use super::again::{Pick, Way};
use super::packing::Packing;
use super::parcel::{Parcel, withdraw_unposted};
use super::position::until_stopped;
use super::reading::By;
use super::recovery::Accepted;
use super::trouble::{Trouble, chain};
use super::view;
use super::{Drained, Feed, Tick};
use crate::flow::checkpoint::{Advance, BatchKind, Doubt, INTENT_TTL, Intent, Totals, Unknown};
use crate::flow::planted::{self, Bug};
use crate::flow::retry::{Edge, Failure, HALT_PACE, Pace, ROLE_PACE, Verdict, verdict};
use crate::sink::{Body, SinkError};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Deadline of one POST.
const POST_DEADLINE: Duration = Duration::from_secs(60);
/// How long an open POST may go on once the process was asked to end.
const STOP_POST: Duration = Duration::from_secs(15);
/// Broken connections after which a batch is halved.
const BREAKS_MAX: u32 = 2;
/// How long the ledger is tried before the tick gives up; recovery then finds the batch in doubt no more than once.
const RECORD_PATIENCE: Duration = Duration::from_secs(60);
/// Pages without new rows between two commits.
const ROWLESS_PAGES_MAX: u32 = 20;

pub(super) const STUB_REFUSED: &str =
    "the destination refuses even a stub row: check that the rule's stream has the columns of this version";

/// What became of a batch.
pub(super) enum Delivered {
    /// 204: the rows are in the sink.
    Accepted,
    /// The sink does not take it in this size or content.
    Refused(SinkError),
}

impl Feed {
    /// Writes the intent by compare-and-swap: whoever wins it may post.
    pub(super) async fn intend(&mut self, parcel: &Parcel) -> Result<(), Trouble> {
        if parcel.is_part_in_doubt {
            return Ok(());
        }
        self.go_on()?;
        self.prove_ledger_once(&parcel.batch.keys()).await?;
        let (owner, date) = (self.checkpoints.owner().to_owned(), self.date);
        let cp = &mut self.position()?.cp;
        if !parcel.is_in_doubt() {
            withdraw_unposted(cp);
        }
        cp.seq += 1;
        let rows: Vec<_> = parcel.batch.rows.iter().map(|row| (row.key, row.timestamp)).collect();
        let mut intent = Intent::new(cp, parcel.kind, &rows, parcel.advance.clone(), &owner);
        intent.attempt = parcel.attempt;
        parcel.doubt_of_known(&intent.batch_id, date).into_iter().for_each(|doubt| cp.in_doubt.add(doubt));
        cp.intent = Some(intent);
        if planted::is(Bug::PostWithoutIntent) {
            return Ok(());
        }
        if planted::is(Bug::CommitBeforeDeliver) {
            parcel.advance.iter().for_each(|advance| cp.apply(advance.clone()));
        }
        self.save().await
    }

    /// Posts the batch until it is accepted or refused. When patience ends, a batch in doubt keeps its intent, any other gives it back.
    pub(super) async fn deliver(&mut self, parcel: &mut Parcel, tick: Tick<'_>) -> Result<Delivered, Trouble> {
        let body = Body { json: parcel.batch.json(), rows: parcel.batch.rows.len() };
        let (begun, mut posts, mut breaks, mut pace) = (Instant::now(), 0, 0, Pace::default());
        let mut reauthenticated = false;
        let mut doubtful = parcel.is_in_doubt();
        loop {
            self.renew_intent().await?;
            if self.stop.is_cancelled() {
                return self.give_up(doubtful, Trouble::Stopped).await;
            }
            posts += 1;
            let error = match self.post(&body).await {
                Ok(()) => return self.accept(parcel),
                Err(error) => error,
            };
            self.panel.failed(Edge::Sink, &error.failure);
            if planted::is(Bug::LostReplyIsYes) && error.failure == Failure::Interrupted {
                return self.accept(parcel);
            }
            if error.failure.may_have_arrived() && !planted::is(Bug::LostReplyIsNo) {
                doubtful = true;
                parcel.attempt += 1;
                self.doubt(parcel, &error)?;
                breaks += u32::from(error.failure == Failure::Interrupted);
                if let Some(after) = self.settings.verify_after {
                    // Not one more POST before the table has been asked. The doubt is stored now: the wait counts from this write.
                    self.renew_intent().await?;
                    let left = INTENT_TTL.saturating_add(after);
                    return self.give_up(true, Trouble::Verifying { left }).await;
                }
            }
            if self.stop.is_cancelled() {
                return self.give_up(doubtful, Trouble::Stopped).await;
            }
            let at_least = match ruling(&error.failure, breaks, parcel.batch.rows.len()) {
                Verdict::Retry { at_least } => at_least,
                Verdict::Reauthenticate => {
                    self.sink.reauthenticate().await;
                    // The second time it is like a role that is still spreading.
                    std::mem::replace(&mut reauthenticated, true).then_some(ROLE_PACE)
                }
                Verdict::Split | Verdict::DeadLetter => return Ok(Delivered::Refused(error)),
                Verdict::Halt { remedy } | Verdict::Unauthorized { remedy, .. } => {
                    // The sink's own remedy, its cause, would say the same twice.
                    let halted = Trouble::Undeliverable { what: error.to_string(), remedy: remedy.into() };
                    return self.give_up(doubtful, halted).await;
                }
                Verdict::Rejected => Some(HALT_PACE),
            };
            let wait = pace.next(self.jitter.unit(), at_least);
            if !tick.patience.allows(posts, begun.elapsed(), wait) {
                return self.give_up(doubtful, Trouble::Sink(error)).await;
            }
            let wait_ms = wait.as_millis() as u64;
            let batch = self.batch_id();
            tracing::warn!(feed = %self.id, batch, rows = body.rows, attempt = parcel.attempt, wait_ms, error = %chain(&error),
                "a batch was not accepted: trying again");
            if let Err(stopped) = self.rest_renewing(wait).await {
                return self.give_up(doubtful, stopped).await;
            }
        }
    }

    fn batch_id(&self) -> &str {
        let intent = self.position.as_ref().and_then(|position| position.cp.intent.as_ref());
        intent.map_or("", |intent| intent.batch_id.as_str())
    }

    fn accept(&mut self, parcel: &Parcel) -> Result<Delivered, Trouble> {
        if let Some(intent) = &self.position()?.cp.intent {
            let (batch_id, attempt, keys) = (intent.batch_id.clone(), parcel.attempt, parcel.batch.keys());
            self.accepted = Some(Accepted { batch_id, attempt, keys });
        }
        Ok(Delivered::Accepted)
    }

    /// One POST. Once the process is asked to end it has 15 s left; cut off, its outcome is unknown.
    pub(super) async fn post(&self, body: &Body) -> Result<(), SinkError> {
        let cut_off = |why: &str| SinkError {
            attempted: format!("post {} rows ({why})", body.rows),
            on: self.sink.place(),
            failure: Failure::Interrupted,
            cause: None,
        };
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

    /// An earlier POST of these rows may have been accepted: the next one may make a copy, and the ledger will say so.
    fn doubt(&mut self, parcel: &Parcel, error: &SinkError) -> Result<(), Trouble> {
        let (date, rows) = (self.date, parcel.batch.rows.len() as u64);
        let position = self.position()?;
        let cp = &mut position.cp;
        if let Some(intent) = &mut cp.intent {
            position.unsaved_doubt = !planted::is(Bug::ForgetDoubts);
            intent.attempt = intent.attempt.max(parcel.attempt);
            let doubt = Doubt {
                batch_id: intent.batch_id.clone(),
                rows,
                attempt: parcel.attempt,
                why: error.failure.to_string(),
                at: date,
                unknown: Unknown::new(),
            };
            cp.in_doubt.add(doubt);
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

    /// Sleeps while keeping the intent, so that no other process takes a healthy one over.
    pub(super) async fn rest_renewing(&mut self, wait: Duration) -> Result<(), Trouble> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.rest(left.min(POST_DEADLINE)).await?;
            self.renew_intent().await?;
        }
    }

    /// Ends a delivery without acceptance.
    async fn give_up<T>(&mut self, doubtful: bool, trouble: Trouble) -> Result<T, Trouble> {
        if !doubtful && self.position.is_some() {
            self.release_intent().await?;
        }
        Err(trouble)
    }

    /// Gives an intent back that was certainly not posted.
    pub(super) async fn release_intent(&mut self) -> Result<(), Trouble> {
        let position = self.position()?;
        withdraw_unposted(&mut position.cp);
        if position.cp.intent.take().is_some() {
            self.save().await?;
        }
        Ok(())
    }

    /// A refused batch is halved; a refused row becomes a stub; a refused stub needs a person.
    pub(super) async fn retry_smaller(
        &mut self,
        parcel: Parcel,
        error: &SinkError,
        packing: &mut Packing<'_, '_>,
        parcels: &mut VecDeque<Parcel>,
    ) -> Result<(), Trouble> {
        tracing::warn!(feed = %self.id, rows = parcel.batch.rows.len(), error = %chain(error), "a batch was refused: trying smaller ones");
        if let Some((first, rest)) = parcel.batch.halve() {
            packing.counted.splits += 1;
            let is_part_in_doubt = parcel.is_in_doubt() && !planted::is(Bug::PartsForgetDoubt);
            // A backfill's part too may lie before the floor.
            let kind = if parcel.kind == BatchKind::Backfill { parcel.kind } else { BatchKind::Split };
            let part = Parcel { kind, is_part_in_doubt, ..parcel };
            if !planted::is(Bug::LoseSecondHalf) {
                parcels.push_front(Parcel { batch: rest, ..part.clone() });
            }
            let advance = part.advance.clone().filter(|_| planted::is(Bug::SplitMovesEarly));
            parcels.push_front(Parcel { batch: first, advance, has_next_part: is_part_in_doubt, ..part });
            return Ok(());
        }
        let place = parcel.batch.rows.first().map(|row| row.place);
        match place.filter(|_| !parcel.is_stub).and_then(|place| packing.stub_batch(place, error)) {
            Some(batch) => parcels.push_front(Parcel { batch, is_stub: true, ..parcel }),
            None => {
                let (what, remedy) = (chain(error), STUB_REFUSED.into());
                return self.give_up(parcel.is_in_doubt(), Trouble::Undeliverable { what, remedy }).await;
            }
        }
        Ok(())
    }

    /// Originals are safe before their stub is posted.
    pub(super) async fn keep_dead_letters(&mut self, packing: &mut Packing<'_, '_>) -> Result<(), Trouble> {
        for (key, why, original) in packing.take_stubbed() {
            self.keep_letter(&key, &why, &original).await?;
            packing.counted.dead_letters += 1;
        }
        Ok(())
    }

    /// Appends the accepted ids to the ledger.
    pub(super) async fn record(&mut self, parcel: &Parcel) -> Result<(), Trouble> {
        self.record_keys(&parcel.batch.keys(), parcel.attempt).await?;
        self.accepted = None;
        Ok(())
    }

    pub(super) async fn record_keys(&mut self, keys: &[crate::flow::EventKey], attempt: u32) -> Result<(), Trouble> {
        let Some(batch_id) = self.position()?.cp.intent.as_ref().map(Intent::batch_id_bytes) else { return Ok(()) };
        if planted::is(Bug::SkipLedger) {
            return Ok(());
        }
        let (begun, mut pace) = (Instant::now(), Pace::default());
        loop {
            let append = self.ledger.append(batch_id, attempt, keys);
            let error = match until_stopped(&self.stop, super::position::STOP_COMMIT, append).await {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => error,
                None => return Err(Trouble::Stopped),
            };
            let wait = pace.next(self.jitter.unit(), None);
            if begun.elapsed() + wait > RECORD_PATIENCE {
                return Err(error);
            }
            tracing::warn!(feed = %self.id, error = %chain(&error), "accepted rows are not in the ledger yet: trying again");
            self.rest(wait).await?;
        }
    }

    /// Moves the position in memory; the next write of the checkpoint, often the next intent, carries it.
    pub(super) fn commit(
        &mut self,
        parcel: Parcel,
        way: &mut Way<'_>,
        packing: &mut Packing<'_, '_>,
    ) -> Result<(), Trouble> {
        let counted = std::mem::take(&mut packing.counted);
        packing.shipped_any = true;
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
        if let Pick::These(wanted) = &mut way.pick {
            rows.iter().for_each(|row| _ = wanted.remove(&row.key));
        }
        let batch = Totals { read: shipped, shipped, late, batches: 1, ..Totals::default() };
        packing.drained.shipped += shipped;
        packing.drained.late += late;
        packing.drained.dead_letters += counted.dead_letters;
        let position = self.position()?;
        position.cp.totals.add(&counted);
        position.cp.totals.add(&batch);
        if !parcel.has_next_part {
            position.cp.intent = None;
        }
        position.unsaved_rows = true;
        if let Some(advance) = parcel.advance {
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

/// An over-limit upload can look like a broken connection: after some of them a batch counts as too large.
fn ruling(failure: &Failure, breaks: u32, rows: usize) -> Verdict {
    match verdict(Edge::Sink, failure) {
        Verdict::Retry { .. } if breaks >= BREAKS_MAX && rows > 1 => Verdict::Split,
        other => other,
    }
}
