//! What each feed is doing and what it has done since the process started: written by the agent, read by the admin pages and the
//! metrics. Nothing in the delivery depends on it.

use super::Drained;
use super::trouble::{Trouble, Waiting, chain};
use crate::flow::checkpoint::{BatchKind, Checkpoint, InDoubt, Totals};
use crate::flow::retry::{Edge, Failure};
use crate::flow::{FeedId, Time};
use chrono::Utc;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Troubles remembered per feed; older ones stand in the log.
pub const NOTICES_MAX: usize = 20;
/// Minutes of history per feed.
pub const MINUTES_MAX: usize = 6 * 60;
/// Upper bounds of the lateness histogram, seconds.
pub const LATENESS_BOUNDS: [f64; 9] = [10.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0];

/// Every feed of the process.
pub struct Board {
    pub started: Time,
    panels: BTreeMap<FeedId, Arc<Panel>>,
    news: watch::Sender<u64>,
}

/// One feed.
pub struct Panel {
    view: Mutex<View>,
    news: watch::Sender<u64>,
}

/// What a feed does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No tick has begun yet.
    #[default]
    Starting,
    Ticking,
    /// Between two good ticks.
    Resting,
    /// A cap cut the last tick: the next follows at once.
    CatchingUp,
    /// The last tick met trouble.
    Waiting(Waiting),
    Stopped,
}

/// A feed as it was last seen.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub phase: Phase,
    /// When the phase began, by this host's clock, like all times here unless they say otherwise.
    pub since: Option<Time>,
    pub last_good: Option<Time>,
    /// Everything that the source showed until then has been shipped: its Date in the last complete tick.
    pub covered_to: Option<Time>,
    /// The newest event timestamp that the sink has accepted.
    pub newest_shipped: Option<Time>,
    /// Not before this the next try begins; the timer's next tick when none.
    pub paused_until: Option<Time>,
    /// The trouble that the feed waits out; none after a good tick.
    pub trouble: Option<Notice>,
    /// The latest troubles, the newest last.
    pub notices: VecDeque<Notice>,
    /// The checkpoint as last read or written.
    pub standing: Option<Standing>,
    pub counts: Counts,
    /// How late rows came after their event, by [`LATENESS_BOUNDS`]; the last counts what is above them all. Rows of a first read of old
    /// events are not in it.
    pub lateness: [u64; LATENESS_BOUNDS.len() + 1],
    /// Sum of the lateness, seconds.
    pub lateness_sum: f64,
    pub token_expires: Option<Time>,
    /// What is known of the ledger.
    pub ledger: LedgerSize,
    pub minutes: VecDeque<Minute>,
}

/// A trouble that a person may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub at: Time,
    /// How often in a row.
    pub times: u64,
    pub what: String,
    pub waiting: Waiting,
}

/// What the checkpoint says.
#[derive(Clone, Debug)]
pub struct Standing {
    pub seq: u64,
    pub written_at: Time,
    pub floor: Time,
    pub watermark: Time,
    pub sweep_mark: Time,
    pub late_mark: Time,
    pub late_at: Time,
    pub overlap_sweep: bool,
    pub late_sweep: bool,
    pub intent: Option<OpenIntent>,
    pub in_doubt: InDoubt,
    pub totals: Totals,
}

#[derive(Clone, Debug)]
pub struct OpenIntent {
    pub batch_id: String,
    pub kind: BatchKind,
    pub rows: usize,
    pub attempt: u32,
}

/// Counted since the process started; they only rise.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub ticks_good: u64,
    pub ticks_failed: u64,
    pub ticks_skipped: u64,
    pub pages: u64,
    /// Bytes of pages, after decompression.
    pub page_bytes: u64,
    pub rows: u64,
    pub late_rows: u64,
    pub known: u64,
    pub dead_letters: u64,
    pub batches: u64,
    /// Bytes of accepted bodies, before compression.
    pub body_bytes: u64,
    pub doubted_batches: u64,
    pub doubted_rows: u64,
    /// Requests that failed and were tried again, or given up for this tick, by the other end.
    pub failures: BTreeMap<&'static str, u64>,
    /// Those that said 429.
    pub throttles: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerSize {
    /// In the store.
    pub segments: u64,
    /// In memory.
    pub ids: u64,
}

/// One minute of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// Minutes since 1970.
    pub minute: i64,
    pub rows: u64,
    /// Seconds from `covered_to` to the end of the minute's last tick; none before the first complete tick.
    pub lag: Option<u64>,
}

impl Board {
    pub fn new(feeds: impl IntoIterator<Item = FeedId>) -> Self {
        let news = watch::Sender::new(0);
        let panel = |id| (id, Arc::new(Panel { view: Mutex::default(), news: news.clone() }));
        Self { started: Utc::now(), panels: feeds.into_iter().map(panel).collect(), news }
    }

    /// The panel of a feed; one that nobody reads when the feed is not on the board.
    pub fn panel(&self, id: &FeedId) -> Arc<Panel> {
        self.panels.get(id).cloned().unwrap_or_default()
    }

    pub fn views(&self) -> impl Iterator<Item = (&FeedId, View)> {
        self.panels.iter().map(|(id, panel)| (id, panel.view()))
    }

    /// Changes whenever a panel does.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

impl Default for Panel {
    fn default() -> Self {
        Self { view: Mutex::default(), news: watch::Sender::new(0) }
    }
}

impl Panel {
    pub fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: impl FnOnce(&mut View)) {
        // Nothing half done is left by a panic: the numbers stay readable.
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(super) fn tick_began(&self) {
        self.note(|view| view.enter(Phase::Ticking));
    }

    /// `date`: the source's clock in its latest answer; `pause`: how long the feed is left alone beyond its timer.
    pub(super) fn tick_ended(&self, outcome: &Result<Drained, Trouble>, date: Time, pause: Duration) {
        self.note(|view| match outcome {
            Ok(drained) => view.went_well(drained, date),
            Err(trouble) => view.met(trouble, pause),
        });
    }

    pub(super) fn stopped(&self) {
        self.note(|view| view.enter(Phase::Stopped));
    }

    pub(super) fn skipped(&self, ticks: u64) {
        self.note(|view| view.counts.ticks_skipped += ticks);
    }

    pub(super) fn page_read(&self, bytes: usize) {
        self.note(|view| {
            view.counts.pages += 1;
            view.counts.page_bytes += bytes as u64;
        });
    }

    /// A request to the source or the sink that was not answered as it should.
    pub(super) fn failed(&self, edge: Edge, failure: &Failure) {
        let edge = match edge {
            Edge::Source => "source",
            Edge::Sink => "sink",
            Edge::Store => "store",
        };
        self.note(|view| {
            *view.counts.failures.entry(edge).or_default() += 1;
            if matches!(failure, Failure::Status { status: 429, .. }) {
                *view.counts.throttles.entry(edge).or_default() += 1;
            }
        });
    }

    pub(super) fn doubted(&self, rows: u64) {
        self.note(|view| {
            view.counts.doubted_batches += 1;
            view.counts.doubted_rows += rows;
        });
    }

    /// A batch that recovery settled.
    pub(super) fn recovered(&self, rows: u64) {
        self.note(|view| {
            view.counts.batches += 1;
            view.counts.rows += rows;
            view.this_minute(|minute| minute.rows += rows);
        });
    }

    pub(super) fn accepted(&self, batch: &Accepted<'_>) {
        self.note(|view| view.accepted(batch));
    }

    pub(super) fn stands(&self, cp: &Checkpoint) {
        let standing = Standing::of(cp);
        self.note(|view| {
            view.newest_shipped = view.newest_shipped.max(Some(standing.watermark));
            view.standing = Some(standing);
        });
    }

    pub(super) fn introduced(&self, expires: Option<Time>) {
        self.note(|view| view.token_expires = expires);
    }

    pub(super) fn ledger(&self, (segments, ids): (usize, usize)) {
        self.note(|view| view.ledger = LedgerSize { segments: segments as u64, ids: ids as u64 });
    }
}

/// A batch that the sink has accepted.
pub(super) struct Accepted<'a> {
    pub timestamps: &'a [Option<Time>],
    pub bytes: usize,
    pub late: u64,
    /// The source's clock; none in a first read of old events, whose lateness says nothing.
    pub date: Option<Time>,
}

impl View {
    fn enter(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.since = Some(Utc::now());
        }
    }

    fn went_well(&mut self, drained: &Drained, date: Time) {
        self.counts.ticks_good += 1;
        self.counts.known += drained.known;
        self.counts.dead_letters += drained.dead_letters;
        self.last_good = Some(Utc::now());
        (self.trouble, self.paused_until) = (None, None);
        if drained.more_pending {
            self.enter(Phase::CatchingUp);
        } else {
            self.covered_to = Some(date);
            self.enter(Phase::Resting);
        }
        let lag = self.covered_to.map(|to| seconds_between(to, date));
        self.this_minute(|minute| minute.lag = lag);
    }

    fn met(&mut self, trouble: &Trouble, pause: Duration) {
        let now = Utc::now();
        if matches!(trouble, Trouble::Stopped) {
            return self.enter(Phase::Stopped);
        }
        self.paused_until = (!pause.is_zero()).then(|| crate::flow::window::later(now, pause));
        self.enter(Phase::Waiting(trouble.waiting()));
        let lag = self.covered_to.map(|to| seconds_between(to, now));
        self.this_minute(|minute| minute.lag = lag);
        if matches!(trouble, Trouble::Lost | Trouble::Standby { .. }) {
            self.trouble = None;
            return;
        }
        self.counts.ticks_failed += 1;
        let what = chain(trouble);
        let times =
            self.notices.back().filter(|last| self.trouble.is_some() && last.what == what).map(|last| last.times);
        if times.is_some() {
            self.notices.pop_back();
        }
        let notice = Notice { at: now, times: times.unwrap_or(0) + 1, what, waiting: trouble.waiting() };
        self.trouble = Some(notice.clone());
        self.notices.push_back(notice);
        if self.notices.len() > NOTICES_MAX {
            self.notices.pop_front();
        }
    }

    fn accepted(&mut self, batch: &Accepted<'_>) {
        let rows = batch.timestamps.len() as u64;
        let counts = &mut self.counts;
        counts.batches += 1;
        counts.rows += rows;
        counts.late_rows += batch.late;
        counts.body_bytes += batch.bytes as u64;
        self.this_minute(|minute| minute.rows += rows);
        let newest = batch.timestamps.iter().flatten().max().copied();
        self.newest_shipped =
            self.newest_shipped.max(newest.filter(|time| batch.date.is_none_or(|date| *time <= date)));
        let Some(date) = batch.date else { return };
        for time in batch.timestamps.iter().flatten() {
            let late = (date - *time).as_seconds_f64().max(0.0);
            let bucket = LATENESS_BOUNDS.iter().position(|bound| late <= *bound).unwrap_or(LATENESS_BOUNDS.len());
            self.lateness_sum += late;
            if let Some(count) = self.lateness.get_mut(bucket) {
                *count += 1;
            }
        }
    }

    fn this_minute(&mut self, change: impl FnOnce(&mut Minute)) {
        let now = Utc::now().timestamp().div_euclid(60);
        if self.minutes.back().is_none_or(|last| last.minute < now) {
            self.minutes.push_back(Minute { minute: now, rows: 0, lag: None });
        }
        if self.minutes.len() > MINUTES_MAX {
            self.minutes.pop_front();
        }
        if let Some(minute) = self.minutes.back_mut() {
            change(minute);
        }
    }
}

impl Standing {
    pub fn of(cp: &Checkpoint) -> Self {
        Self {
            seq: cp.seq,
            written_at: cp.written_at,
            floor: cp.floor,
            watermark: cp.watermark,
            sweep_mark: cp.sweep_mark,
            late_mark: cp.late_mark,
            late_at: cp.late_at,
            overlap_sweep: cp.overlap_sweep.is_some(),
            late_sweep: cp.late_sweep.is_some(),
            intent: cp.intent.as_ref().map(|intent| OpenIntent {
                batch_id: intent.batch_id.clone(),
                kind: intent.kind,
                rows: intent.keys().len(),
                attempt: intent.attempt,
            }),
            in_doubt: cp.in_doubt.clone(),
            totals: cp.totals.clone(),
        }
    }
}

fn seconds_between(from: Time, to: Time) -> u64 {
    (to - from).num_seconds().max(0).unsigned_abs()
}
