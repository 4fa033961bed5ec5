//! The completeness audit of one feed: what the source returns against what the table holds, and the repair of the difference.

use super::again::Range;
use super::parcel::Parcel;
use super::recovery::Found;
use super::trouble::{Trouble, chain};
use super::{Feed, Tick, packing};
use crate::flow::checkpoint::{BatchKind, Doubt, InDoubt, Unknown};
use crate::flow::decode::{self, Item};
use crate::flow::pack::Batch;
use crate::flow::reconcile::{Compared, compare};
use crate::flow::retry::{Edge, Pace, Verdict, verdict};
use crate::flow::{EventKey, Time};
use crate::source::Lane;
use crate::store::checkpoints::Found as Stored;
use crate::table::{Ids, Question, Span, Table, TableError, When};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// Events of one comparison: with the answer of the table about 40 MB. A span that holds more is compared in parts.
pub const EVENTS_MAX: usize = 100_000;
/// The late sweep's share: never more than a quarter of the budget, and the live feed goes first.
const LANE: Lane = Lane::Late;
/// Left to the live feed after each batch of a repair.
const LIVE_TURN: Duration = Duration::from_secs(2);
/// Races with the live feed for one batch before the repair gives up.
const RACES_MAX: u32 = 8;

/// What the events of a feed are compared with.
#[derive(Clone, Copy)]
pub struct Audit<'a> {
    pub table: &'a dyn Table,
    /// How long an accepted row may take to show in the table.
    pub latency: Duration,
    /// Several accounts ship to the table: rows of the others are left out.
    pub others_ship_there: bool,
}

/// Why a feed could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error(transparent)]
    Table(#[from] TableError),
}

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

impl Feed {
    /// The source's clock, asked for now.
    ///
    /// # Errors
    /// The source does not answer, or refuses the token.
    pub async fn source_time(&mut self) -> Result<Time, Trouble> {
        self.introduce().await?;
        Ok(self.date)
    }

    /// Settles a batch that an earlier process left open: before a comparison that is to be repaired, so that the ledger is what it
    /// will be then.
    ///
    /// # Errors
    /// As of a tick that begins.
    pub async fn settle_open_batch(&mut self, tick: Tick<'_>) -> Result<(), Trouble> {
        self.open(tick).await
    }

    /// Without a position of this source and this destination the ledger tells nothing of the table.
    async fn belongs_here(&mut self) -> Result<(), Trouble> {
        let now = self.introduce().await?;
        match self.checkpoints.load(&self.id).await? {
            Stored::Nothing { previous: None } => Err(self.has_no_position().await),
            Stored::Good(loaded) if !loaded.checkpoint.fingerprints.fits(&now) => {
                let stored = Box::new(loaded.checkpoint.fingerprints.clone());
                Err(Trouble::Misfit { stored, now: Box::new(now) })
            }
            Stored::Good(_) | Stored::Nothing { .. } | Stored::Replaced { .. } => Ok(()),
        }
    }

    /// Compares the events of a span. Nothing is written. `None`: there are more than [`EVENTS_MAX`]; ask for a part of the span.
    ///
    /// The source is read first, so that what it returned has had the time of the second read to arrive.
    ///
    /// # Errors
    /// Source, store or table could not be read to the end: nothing is said about a part.
    pub async fn compare(
        &mut self,
        span: Span,
        audit: Audit<'_>,
        tick: Tick<'_>,
    ) -> Result<Option<Compared>, ReconcileError> {
        self.belongs_here().await?;
        self.ledger.forget();
        let mut source: HashMap<EventKey, Option<u32>> = HashMap::new();
        let mut range = Range::new(span.from, span.until, None);
        while !range.is_done {
            let read = self.read_range(&mut range, LANE, tick).await?;
            let (text, _) = decode::text(&read.body);
            let page = decode::page(&text).map_err(Trouble::Malformed)?;
            let (settings, stream) = (&self.settings, self.id.stream);
            let is_inside = |item: &Item<'_>| item.timestamp.is_some_and(|time| span.contains(time));
            let is_meant =
                |item: &&Item<'_>| item.has_uuid && is_inside(item) && !packing::is_dropped(settings, stream, item);
            source.extend(page.items.iter().filter(is_meant).map(|item| (item.key, None)));
            if source.len() > EVENTS_MAX {
                return Ok(None);
            }
        }
        let ages = self.look_up_attempts(&mut source).await?;
        let held = self.ask_table(span, audit, tick).await?.held;
        let is_settled = |hour| ages.get(&hour).is_none_or(|age| *age >= audit.latency);
        Ok(Some(compare(&source, &held, |held| held.copies, is_settled)))
    }

    /// The attempt of each event by the ledger; how long ago each hour of it was appended to, by the store's clock.
    async fn look_up_attempts(
        &mut self,
        source: &mut HashMap<EventKey, Option<u32>>,
    ) -> Result<HashMap<crate::flow::Hour, Duration>, Trouble> {
        self.ledger.load(source.keys().copied()).await?;
        for (key, attempt) in source.iter_mut() {
            *attempt = self.ledger.attempt(key);
        }
        Ok(self.ledger.ages().await?)
    }

    async fn ask_table(&self, span: Span, audit: Audit<'_>, tick: Tick<'_>) -> Result<Ids, ReconcileError> {
        let account_uuid = self.account.uuid().filter(|_| audit.others_ship_there);
        let question = Question {
            stream: self.id.stream,
            account_uuid: account_uuid.as_deref(),
            when: When::Happened(span),
            only: None,
        };
        let (begun, mut attempts, mut pace) = (Instant::now(), 0, Pace::default());
        loop {
            attempts += 1;
            let asked = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Trouble::Stopped.into()),
                asked = audit.table.ids(&question) => asked,
            };
            let error = match asked {
                Ok(ids) => return Ok(ids),
                Err(error) => error,
            };
            // A query is judged as a read of the source is: busy and broken services are asked again, refusals are not.
            let Verdict::Retry { at_least } = verdict(Edge::Source, &error.failure) else { return Err(error.into()) };
            // Half of the jitter is enough: a command asks alone.
            let wait = pace.next(0.5, at_least);
            if !tick.patience.allows(attempts, begun.elapsed(), wait) {
                return Err(error.into());
            }
            tracing::warn!(feed = %self.id, attempt = attempts, wait_ms = wait.as_millis() as u64, error = %chain(&error), "the table did not answer: asking again");
            self.rest(wait).await?;
        }
    }

    /// Ships what is missing although the ledger may know it. A copy that this makes is traceable: its frame in the ledger has a
    /// higher attempt than before, and the checkpoint counts it as in doubt before the POST. Killed at any point it has shipped a part:
    /// the next comparison finds the rest.
    ///
    /// # Errors
    /// The first trouble met; what was shipped until then is in `repaired`.
    pub async fn repair(
        &mut self,
        span: Span,
        missing: HashMap<EventKey, Option<u32>>,
        tick: Tick<'_>,
        repaired: &mut Repaired,
    ) -> Result<(), Trouble> {
        let (mut missing, mut range) = (missing, Range::new(span.from, span.until, None));
        // By the attempt that the ledger will show; one or two of them.
        let mut gathered: BTreeMap<u32, Gathered> = BTreeMap::new();
        while !range.is_done {
            let read = self.read_range(&mut range, LANE, tick).await?;
            let (text, _) = decode::text(&read.body);
            let page = decode::page(&text).map_err(Trouble::Malformed)?;
            for item in &page.items {
                let Some(known) = missing.remove(&item.key) else { continue };
                let row = self.row_again(item).await?;
                let rows_max = self.settings.batch_rows_max;
                let gathering = gathered.entry(known.unwrap_or(0).saturating_add(1)).or_default();
                if !gathering.batch.push(rows_max, item.key, item.timestamp, 0, &row) {
                    let full = std::mem::take(gathering);
                    gathering.batch = Batch::of_one(item.key, item.timestamp, 0, &row);
                    gathering.known = known;
                    gathering.originals.insert(item.key, item.raw.to_owned());
                    self.ship_gathered(full, tick, repaired).await?;
                    self.rest(LIVE_TURN).await?;
                    continue;
                }
                gathering.known = known;
                gathering.originals.insert(item.key, item.raw.to_owned());
            }
        }
        for (_, rest) in gathered {
            self.ship_gathered(rest, tick, repaired).await?;
        }
        repaired.gone += missing.len() as u64;
        Ok(())
    }

    /// One batch, again and again while the live feed wins the checkpoint.
    async fn ship_gathered(
        &mut self,
        mut gathered: Gathered,
        tick: Tick<'_>,
        repaired: &mut Repaired,
    ) -> Result<(), Trouble> {
        for race in 1.. {
            self.settle_open_batch(tick).await?;
            self.ledger.load(gathered.batch.keys().into_iter()).await?;
            let left = gathered.batch.only(|key| self.ledger.attempt(key) == gathered.known);
            repaired.overtaken += (gathered.batch.rows.len() - left.rows.len()) as u64;
            if left.is_empty() {
                return Ok(());
            }
            let rows = left.rows.len() as u64;
            gathered.batch = left;
            match self.post_gathered(&gathered, tick).await {
                Err(Trouble::Lost) if race < RACES_MAX => self.rest(LIVE_TURN / 4).await?,
                Err(trouble) => return Err(trouble),
                Ok(()) => {
                    repaired.shipped += rows;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// intend, deliver, record, commit, as a batch of a backfill: it moves no position.
    async fn post_gathered(&mut self, gathered: &Gathered, tick: Tick<'_>) -> Result<(), Trouble> {
        let Gathered { batch, originals, known } = gathered;
        let attempt = known.unwrap_or(0).saturating_add(1);
        let doubts = self.position()?.cp.in_doubt.clone();
        let parcel = Parcel { attempt, ..Parcel::new(batch.clone(), BatchKind::Backfill, None) };
        self.intend(&parcel).await?;
        if known.is_some() {
            self.foresee_copies(attempt, batch.rows.len() as u64)?;
        }
        let Some(intent) = self.position()?.cp.intent.clone() else { return Err(Trouble::Lost) };
        let found = Found::of(batch.clone(), originals.clone());
        match self.post_again(&intent, found, tick).await {
            Ok(()) => self.conclude(&intent, batch.rows.len(), 0).await.map(drop),
            Err(trouble) => {
                self.give_intent_back(gathered, attempt, doubts).await?;
                Err(trouble)
            }
        }
    }

    /// The rows were accepted once: the next write of the checkpoint, which comes before the POST, says that second ones may be there.
    fn foresee_copies(&mut self, attempt: u32, rows: u64) -> Result<(), Trouble> {
        let at = self.date;
        let position = self.position()?;
        if let Some(intent) = &position.cp.intent {
            let batch_id = intent.batch_id.clone();
            let why = "accepted before, missing from the table, shipped again by reconcile --repair".into();
            position.cp.in_doubt.add(Doubt { batch_id, rows, attempt, why, at, unknown: Unknown::new() });
            position.unsaved_doubt = true;
        }
        Ok(())
    }

    /// Gives the intent back where no POST can have been accepted, with the copies that were foreseen. In doubt it stays: recovery
    /// brings the ledger up to it.
    async fn give_intent_back(&mut self, gathered: &Gathered, attempt: u32, doubts: InDoubt) -> Result<(), Trouble> {
        let keys = gathered.batch.keys();
        let is_untouched = keys.iter().all(|key| self.ledger.attempt(key) == gathered.known);
        let Some(position) = &mut self.position else { return Ok(()) };
        if position.cp.intent.as_ref().is_some_and(|intent| intent.attempt == attempt) {
            if is_untouched {
                position.cp.in_doubt = doubts;
            }
            self.release_intent().await?;
        }
        Ok(())
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
