//! The repair of what a comparison found missing: canary first, one batch as a test, then the rest.

use super::reconcile::{Audit, LANE, ReconcileError};
use crate::agent::delivery::parcel::Parcel;
use crate::agent::delivery::recovery::Found;
use crate::agent::reading::range::Range;
use crate::agent::trouble::Trouble;
use crate::agent::{Feed, Tick};
use crate::flow::intent::BatchKind;
use crate::flow::pack::Batch;
use crate::flow::{EventId, EventKey, decode, window};
use crate::table::{Question, Span, When};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// Left to the live feed after each batch of a repair.
const LIVE_TURN: Duration = Duration::from_secs(2);
/// Races with the live feed for one batch before the repair gives up.
const RACES_MAX: u32 = 8;
/// How long the first batch of a repair may take to show, at most.
const SEEN_MAX: Duration = Duration::from_secs(30 * 60);
/// Pauses between two looks for it: they double.
const LOOK_PAUSE_MIN: Duration = Duration::from_secs(2);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const REPAIRED: &str = "accepted before, missing from the table, shipped again by reconcile --repair";
const UNSEEN_REMEDY: &str = "look at the rule's transformation, at the conditions of the role and at the table's retention; what was shipped is recorded";

/// What a repair did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Repaired {
    /// Rows that the destination accepted.
    pub shipped: u64,
    /// Events that another process shipped meanwhile: left alone.
    pub overtaken: u64,
    /// Events that the source no longer returns.
    pub gone: u64,
}

impl Repaired {
    pub const fn add(&mut self, other: &Self) {
        self.shipped += other.shipped;
        self.overtaken += other.overtaken;
        self.gone += other.gone;
    }
}

/// The repair of one feed in one run of a command, over any number of spans.
pub struct Repairing<'a> {
    audit: Audit<'a>,
    tick: Tick<'a>,
    trial: Trial,
    /// What was done so far.
    pub done: Repaired,
}

/// Whether rows that are shipped now can be seen in the table.
enum Trial {
    /// Nothing was shipped yet.
    Ahead,
    /// The first batch was accepted at that moment: not one more row before one of these is seen.
    Posted {
        keys: HashSet<EventKey>,
        happened: Span,
        at: Instant,
    },
    Seen,
}

impl<'a> Repairing<'a> {
    pub fn new(audit: Audit<'a>, tick: Tick<'a>) -> Self {
        Self { audit, tick, trial: Trial::Ahead, done: Repaired::default() }
    }
}

impl Feed {
    /// Ships what is missing although the ledger may know it. A copy that this makes is traceable: its frame in the ledger has a
    /// higher attempt than before, and the checkpoint counts it as in doubt before the POST. Killed at any point it has shipped a part:
    /// the next comparison finds the rest.
    ///
    /// The first batch is a test: no more are shipped until a row of it was seen in the table, which may take twice the latency. A stream
    /// that a right hides, or a rule drops, would be shipped again as a whole each time.
    ///
    /// # Errors
    /// The first trouble met; what was shipped until then is in `repairing.done`.
    pub async fn repair(
        &mut self,
        span: Span,
        missing: HashMap<EventKey, Option<u32>>,
        repairing: &mut Repairing<'_>,
    ) -> Result<(), ReconcileError> {
        let (mut missing, mut range) = (missing, Range::new(span.from, span.until, None));
        // By the attempt that the ledger will show; one or two of them.
        let mut gathered: BTreeMap<u32, Gathered> = BTreeMap::new();
        while !range.is_done {
            let read = self.read_range(&mut range, LANE, repairing.tick).await?;
            let (text, _) = decode::text(&read.body);
            let page = decode::page(&text).map_err(Trouble::Malformed)?;
            for item in &page.items {
                let Some(known) = missing.remove(&item.key) else { continue };
                let row = self.delivery.row_again(item).await?;
                let rows_max = self.given.settings.batch_rows_max;
                let gathering = gathered.entry(known.unwrap_or(0).saturating_add(1)).or_default();
                if !gathering.batch.push(rows_max, item.key, item.timestamp, 0, &row) {
                    let full = std::mem::take(gathering);
                    gathering.batch = Batch::of_one(item.key, item.timestamp, 0, &row);
                    gathering.known = known;
                    gathering.originals.insert(item.key, item.raw.to_owned());
                    self.ship_gathered(full, repairing).await?;
                    self.given.rest(LIVE_TURN).await?;
                    continue;
                }
                gathering.known = known;
                gathering.originals.insert(item.key, item.raw.to_owned());
            }
        }
        for (_, rest) in gathered {
            self.ship_gathered(rest, repairing).await?;
        }
        repairing.done.gone += missing.len() as u64;
        Ok(())
    }

    /// One batch, again and again while the live feed wins the checkpoint.
    async fn ship_gathered(
        &mut self,
        mut gathered: Gathered,
        repairing: &mut Repairing<'_>,
    ) -> Result<(), ReconcileError> {
        self.see_the_first(repairing).await?;
        for race in 1.. {
            self.settle_open_batch(repairing.tick).await?;
            self.delivery.load_ledger(&mut self.stand, gathered.batch.keys().into_iter()).await?;
            let left = gathered.batch.only(|key| self.delivery.ledger.attempt(key) == gathered.known);
            repairing.done.overtaken += (gathered.batch.rows.len() - left.rows.len()) as u64;
            if left.is_empty() {
                return Ok(());
            }
            let rows = left.rows.len() as u64;
            gathered.batch = left;
            match self.post_gathered(&gathered, repairing.tick).await {
                Err(Trouble::Lost) if race < RACES_MAX => self.given.rest(LIVE_TURN / 4).await?,
                Err(trouble) => return Err(trouble.into()),
                Ok(()) => {
                    repairing.done.shipped += rows;
                    repairing.note(&gathered.batch);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Waits until a row of the first batch is seen, with growing pauses.
    async fn see_the_first(&mut self, repairing: &mut Repairing<'_>) -> Result<(), ReconcileError> {
        let Repairing { audit, tick, trial, .. } = repairing;
        let Trial::Posted { keys, happened, at } = &*trial else { return Ok(()) };
        let only: HashSet<EventId> = keys.iter().map(|key| key.id).collect();
        let (stream, when) = (self.given.id.stream, When::Happened(*happened));
        // The ids tell the rows; the account that a row names may be a pseudonym.
        let question = Question { stream, account_uuid: None, when, only: Some(&only) };
        let (waits, mut pause) = (audit.latency.saturating_mul(2).min(SEEN_MAX), LOOK_PAUSE_MIN);
        loop {
            let ids = self.reader.asking(*tick, async || audit.table.ids(&question).await).await?;
            if ids.held.keys().any(|key| keys.contains(key)) {
                *trial = Trial::Seen;
                return Ok(());
            }
            let left = waits.saturating_sub(at.elapsed());
            if left.is_zero() {
                let (on, rows, waited) = (audit.table.place(), keys.len(), at.elapsed());
                return Err(ReconcileError::Unseen { on, rows, waited, remedy: UNSEEN_REMEDY });
            }
            tracing::info!(feed = %self.given.id, rows = keys.len(), pause_s = pause.as_secs(), "no row of the repair's first batch is seen in the table yet: looking again before more are shipped");
            self.given.rest(pause.min(left)).await?;
            pause = (pause * 2).min(LOOK_PAUSE_MAX);
        }
    }

    /// intend, deliver, record, commit, as a batch of a backfill: it moves no position.
    async fn post_gathered(&mut self, gathered: &Gathered, tick: Tick<'_>) -> Result<(), Trouble> {
        let Gathered { batch, originals, .. } = gathered;
        // They were accepted once: second rows may be beside them.
        let known = self.delivery.known_by_ledger(batch.keys().into_iter(), REPAIRED);
        let parcel = Parcel::new(batch.clone(), BatchKind::Backfill, None).knowing(known);
        self.delivery.intend(&mut self.stand, &parcel).await?;
        let Some(intent) = self.stand.position()?.cp.slot.intent().cloned() else { return Err(Trouble::Lost) };
        let found = Found::of(batch.clone(), originals.clone());
        match self.delivery.post_again(&mut self.stand, intent.kind(), found, tick).await {
            Ok(()) => self.delivery.conclude(&mut self.stand, &intent, batch.rows.len(), 0).await.map(drop),
            // In doubt it stays: recovery brings the ledger up to it.
            Err(trouble) => self.delivery.give_up(&mut self.stand, trouble).await,
        }
    }
}

impl Repairing<'_> {
    /// The first batch that was accepted is the one to be seen.
    fn note(&mut self, batch: &Batch) {
        let times = || batch.rows.iter().filter_map(|row| row.timestamp);
        if let (Trial::Ahead, Some(first), Some(last)) = (&self.trial, times().min(), times().max()) {
            // The table may keep fewer digits of a second than the source.
            let happened = Span { from: window::earlier(first, SECOND), until: window::later(last, SECOND) };
            self.trial = Trial::Posted { keys: batch.keys().into_iter().collect(), happened, at: Instant::now() };
        }
    }
}

/// A batch that grows over the pages.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    originals: HashMap<EventKey, String>,
    /// The highest attempt that the ledger had of these events when they were compared.
    known: Option<u32>,
}
