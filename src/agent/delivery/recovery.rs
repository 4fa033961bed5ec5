//! recover: settle the batch that an earlier process, or an earlier tick, left in doubt.

use super::Delivery;
use super::dead_letters::ROW_TOO_LARGE;
use super::moved::moved_from;
use crate::agent::position::Stand;
use crate::agent::reading::range::{Range, WINDOW_TOO_LARGE};
use crate::agent::trouble::Trouble;
use crate::agent::{Feed, Tick};
use crate::flow::checkpoint::{Totals, Which};
use crate::flow::decode::{self, Item};
use crate::flow::intent::{BatchKind, INTENT_TTL, Intent};
use crate::flow::map::Stub;
use crate::flow::pack::{BATCH_ROWS_MAX, Batch, ROW_BYTES_MAX};
use crate::flow::planted::{self, Bug};
use crate::flow::{EventKey, Hour, Time, window};
use crate::source::{Lane, PageRequest};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

/// From this start of the batch on, the first delivery included, a pause precedes each: a crash loop must not multiply rows.
const PAUSE_FROM_START: u32 = 3;
/// 512 rows to one.
const HALVINGS_MAX: u32 = 9;
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// Where the store tells no time, and each process counts from its own first sight of the batch.
const PAUSE_MAX_BY_SIGHT: Duration = INTENT_TTL.saturating_mul(2);

/// Rows whose 204 this process has seen but not yet recorded.
pub(crate) struct Accepted {
    pub batch_id: String,
    pub attempt: u32,
    pub keys: Vec<EventKey>,
}

/// What was found of a batch: its events as the source returns them now.
#[derive(Default)]
pub(crate) struct Found {
    missing: HashSet<EventKey>,
    pub(crate) originals: HashMap<EventKey, String>,
    pub(crate) parts: VecDeque<Batch>,
    /// What came with the uuid of a missing one under another hour: events of their own, for the next read.
    moved: HashSet<EventKey>,
}

impl Found {
    /// A batch that is at hand, with its originals.
    pub(crate) fn of(batch: Batch, originals: HashMap<EventKey, String>) -> Self {
        Self { originals, parts: VecDeque::from([batch]), ..Self::default() }
    }

    /// Cuts each part in two, so many times.
    fn halve(&mut self, times: u32) {
        for _ in 0..times.min(HALVINGS_MAX) {
            let halves = |part: Batch| part.halve().map_or_else(|| vec![part], |(first, rest)| vec![first, rest]);
            self.parts = std::mem::take(&mut self.parts).into_iter().flat_map(halves).collect();
        }
    }
}

impl Feed {
    /// Re-posts what is neither in the ledger nor gone from the source, under the same batch id, then moves the position. Returns how many
    /// of the rows were stubs.
    pub(crate) async fn recover(&mut self, tick: Tick<'_>) -> Result<u64, Trouble> {
        let Some(intent) = self.stand.position()?.cp.slot.intent().cloned() else {
            self.delivery.accepted = None;
            return Ok(0);
        };
        if planted::is(Bug::ForgetIntent) {
            return self.delivery.conclude(&mut self.stand, &intent, 0, 0).await;
        }
        self.delivery.ledger.forget();
        self.delivery.record_what_was_accepted(&mut self.stand, &intent).await?;
        let keys = intent.keys();
        self.delivery.load_ledger(&mut self.stand, keys.iter().copied()).await?;
        // The taker before us may have posted too and crashed before its record: the ledger must show the higher attempt.
        let understated =
            |key: &EventKey| self.delivery.ledger.attempt(key).is_some_and(|attempt| attempt < intent.attempt());
        let lower: Vec<EventKey> = keys.iter().copied().filter(understated).collect();
        if !lower.is_empty() {
            self.delivery.record_keys(&mut self.stand, &lower, intent.attempt()).await?;
        }
        let mut missing: HashSet<EventKey> =
            keys.iter().copied().filter(|key| self.delivery.ledger.attempt(key).is_none()).collect();
        if !missing.is_empty() {
            self.delivery.look_up(&mut self.stand, &intent, &mut missing, tick).await?;
        }
        let (mut gone, mut moved) = (0, 0);
        if !missing.is_empty() {
            self.stand.cool_down(&intent, tick).await?;
            let mut found = Found { missing, ..Found::default() };
            // Read first: a source that cannot be read must not use up attempts that were none.
            self.read_again(&intent, &mut found, tick).await?;
            gone = found.missing.len();
            moved = self.given.tell_moved_away(&found.moved, &found.missing);
            if self.given.settings.verify_after.is_some() {
                // Each doubt ends the delivery, so broken connections cannot add up there: a batch that breaks them is halved here.
                found.halve(intent.attempt().saturating_sub(2));
            }
            if !found.parts.is_empty() {
                // Before the attempt is raised: a ledger that takes nothing costs neither a doubt nor a copy.
                let keys: Vec<EventKey> = found.originals.keys().copied().collect();
                self.delivery.prove_ledger(intent.batch_id_bytes(), intent.attempt(), &keys).await?;
                self.delivery.take_over(&mut self.stand, &intent, found.originals.len()).await?;
                self.delivery.post_again(&mut self.stand, intent.kind(), found, tick).await?;
            }
        }
        self.stand.position()?.cp.totals.moved += moved;
        self.delivery.conclude(&mut self.stand, &intent, keys.len(), gone).await
    }

    /// The page that the batch came from, then the window of its timestamps to its last page: right in both cursor orders.
    async fn read_again(&mut self, intent: &Intent, found: &mut Found, tick: Tick<'_>) -> Result<(), Trouble> {
        for request in self.stand.pages_of(intent.kind(), self.reader.page_limit)? {
            if found.missing.is_empty() {
                return Ok(());
            }
            match self.reader.poll(&request, Lane::Live, tick).await {
                // The window decides.
                Err(Trouble::Rejected(_) | Trouble::TooLarge(_)) => {}
                Err(_) if planted::is(Bug::FailedReadIsGone) => return Ok(()),
                Err(trouble) => return Err(trouble),
                Ok(answer) => match self.delivery.pick(&answer.body, found).await {
                    Ok(()) | Err(Trouble::Malformed(_)) => {}
                    Err(trouble) => return Err(trouble),
                },
            }
        }
        if planted::is(Bug::RecoverWithoutWindow) {
            return Ok(());
        }
        let (date, hours) = (self.given.date(), found.missing.iter().map(|key| key.hour).collect());
        // Only times that can be read are in the intent.
        let (from, to) = intent.times();
        let (from, to) = (from.unwrap_or(date), to.unwrap_or(date));
        let (widths, clocks) = (self.given.settings.widths, self.given.clocks());
        let mut cp = self.stand.position()?.cp.clone();
        if intent.kind() == BatchKind::Backfill {
            // Its events may lie anywhere within reach, before the floor too.
            (cp.floor, cp.sweep_mark) = (Time::MIN_UTC, Time::MIN_UTC);
        }
        for (from, to) in window::recovery(&cp, &hours, from, to, clocks, &widths) {
            match self.search(from, to, found, tick).await {
                // Events without a readable time may be too far to be found again: they must not park the feed.
                Err(Trouble::Stuck(WINDOW_TOO_LARGE)) if found.missing.iter().all(|key| key.hour == Hour::Odd) => {}
                searched => searched?,
            }
        }
        Ok(())
    }

    /// Reads a window to its last page, or until nothing is missing any more.
    async fn search(&mut self, from: Time, to: Time, found: &mut Found, tick: Tick<'_>) -> Result<(), Trouble> {
        let mut range = Range::of_recovery(from, to);
        while !range.is_done && !found.missing.is_empty() {
            let page = self.reader.read_range(&mut range, Lane::Live, tick).await?;
            self.delivery.pick(&page.body, found).await?;
        }
        Ok(())
    }
}

impl Delivery {
    async fn record_what_was_accepted(&mut self, stand: &mut Stand, intent: &Intent) -> Result<(), Trouble> {
        let Some(accepted) = &self.accepted else { return Ok(()) };
        if accepted.batch_id == intent.batch_id() && intent.owner() == stand.checkpoints.owner() {
            let (keys, attempt) = (accepted.keys.clone(), accepted.attempt);
            self.record_keys(stand, &keys, attempt).await?;
        }
        self.accepted = None;
        Ok(())
    }

    async fn take_over(&mut self, stand: &mut Stand, intent: &Intent, rows: usize) -> Result<(), Trouble> {
        self.given.go_on()?;
        let (owner, date) = (stand.checkpoints.owner().to_owned(), self.given.date());
        let why = if intent.owner() == owner { "a delivery was broken off" } else { "a process ended or was replaced" };
        let attempt = stand.position()?.cp.slot.take_over(&owner, rows as u64, why, date);
        tracing::warn!(feed = %self.given.id, batch = %intent.batch_id(), rows, attempt, why, "a batch is in doubt: posting it again");
        self.given.panel.doubted(rows as u64);
        stand.save(&mut self.ledger).await
    }

    /// Maps the batch's events that stand on this page.
    async fn pick(&mut self, body: &[u8], found: &mut Found) -> Result<(), Trouble> {
        let (text, _) = decode::text(body);
        let page = decode::page(&text).map_err(Trouble::Malformed)?;
        found.moved.extend(moved_from(&page, &found.missing));
        for item in &page.items {
            if found.missing.contains(&item.key) {
                let row = self.row_again(item).await?;
                found.missing.remove(&item.key);
                found.originals.insert(item.key, item.raw.to_owned());
                let fits = |part: &mut Batch| part.push(BATCH_ROWS_MAX, item.key, item.timestamp, 0, &row);
                if !found.parts.back_mut().is_some_and(fits) {
                    found.parts.push_back(Batch::of_one(item.key, item.timestamp, 0, &row));
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn row_again(&mut self, item: &Item<'_>) -> Result<Vec<u8>, Trouble> {
        let (settings, account_uuid) = (self.given.settings.clone(), self.given.account.uuid());
        let mapper = settings.mapper(self.given.id.stream, account_uuid.as_deref());
        let mut row = Vec::new();
        mapper.row(item, &mut row);
        if row.len() > ROW_BYTES_MAX {
            row = self.stub_again(item, Stub::Ids, ROW_TOO_LARGE, None).await?;
        }
        Ok(row)
    }

    pub(crate) async fn conclude(
        &mut self,
        stand: &mut Stand,
        intent: &Intent,
        rows: usize,
        gone: usize,
    ) -> Result<u64, Trouble> {
        if gone > 0 {
            let (from, to) = intent.times();
            let (from, to) = (from.map(|time| time.to_string()), to.map(|time| time.to_string()));
            tracing::error!(feed = %self.given.id, batch = %intent.batch_id(), gone, from, to,
                remedy = "compare the table with 1Password for these times",
                "events of a batch in doubt are no longer returned by the source: they may or may not be in the table");
        }
        let shipped = (rows - gone) as u64;
        let stubs = intent.keys().iter().filter(|key| self.stubbed_again.remove(*key)).count() as u64;
        self.given.panel.recovered(shipped, stubs);
        let position = stand.position()?;
        let batch = Totals { read: shipped, shipped, stubs, dead_letters: stubs, batches: 1, ..Totals::default() };
        position.cp.totals.add(&batch);
        if let Some(advance) = position.cp.slot.conclude(gone as u64) {
            position.cp.apply(advance);
        }
        stand.save(&mut self.ledger).await.map(|()| stubs)
    }
}

impl Stand {
    /// Waits out the pause that follows repeated recoveries, counted from the last write of the intent. Retries inside a tick have a pace
    /// of their own and don't count here: a minute of refused POSTs must not keep a healthy feed waiting for a quarter of an hour.
    async fn cool_down(&mut self, intent: &Intent, tick: Tick<'_>) -> Result<(), Trouble> {
        let next = intent.recoveries().saturating_add(2);
        if next < PAUSE_FROM_START {
            return Ok(());
        }
        let (age, is_guessed) = self.position().map(|position| (position.age, position.age_is_guessed))?;
        let most = if is_guessed { PAUSE_MAX_BY_SIGHT } else { PAUSE_MAX };
        let left = Duration::from_secs(2_u64.saturating_pow(next)).min(most).saturating_sub(age);
        // Without a clock of the store the next run would count from nothing again: one that ends by itself waits.
        let must_wait = is_guessed && self.given.account.ends_by_itself();
        if left > tick.patience.single_wait_max && !must_wait {
            return Err(Trouble::CoolingDown { left });
        }
        self.given.rest(left).await
    }

    fn pages_of(&mut self, kind: BatchKind, limit: u32) -> Result<Vec<PageRequest>, Trouble> {
        let cursor = self.cursor_request(limit)?;
        let overlap = self.sweep_request(Which::Overlap, limit)?;
        let late = self.sweep_request(Which::Late, limit)?;
        Ok(match kind {
            BatchKind::Cursor => vec![cursor],
            BatchKind::OverlapSweep => overlap.into_iter().collect(),
            BatchKind::LateSweep => late.into_iter().collect(),
            BatchKind::Split => [cursor].into_iter().chain(overlap).chain(late).collect(),
            BatchKind::Backfill => Vec::new(),
        })
    }
}
