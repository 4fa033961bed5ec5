//! A feed as it was last seen: what the board shows of it, and how each event of its life changes that.

use super::account_panel::AccountView;
use super::moment::Moment;
use crate::agent::trouble::{Trouble, Waiting};
use crate::agent::{Drained, remedy};
use crate::flow::Time;
use crate::flow::checkpoint::{Checkpoint, Totals};
use crate::flow::intent::BatchKind;
use crate::flow::retry::{Edge, Failure};
use crate::flow::totals::InDoubt;
use chrono::Utc;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Troubles remembered per feed; older ones stand in the log.
const NOTICES_MAX: usize = 20;
/// Minutes of history per feed.
const MINUTES_MAX: usize = 6 * 60;
/// Upper bounds of the lateness histogram, seconds.
pub const LATENESS_BOUNDS: [f64; 9] = [10.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0];

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
    /// How the last tick ended; [`Phase::Starting`] before.
    pub left: Phase,
    /// When ticks began to end so; none before the first.
    pub left_since: Option<Moment>,
    /// When the phase began.
    pub since: Option<Moment>,
    pub last_good: Option<Moment>,
    /// When the latest tick began.
    pub tick_began: Option<Moment>,
    /// When the latest page was read or batch accepted.
    pub progress: Option<Moment>,
    /// When the latest page was read.
    pub read: Option<Moment>,
    /// The latest sign of life.
    pub moved: Option<Instant>,
    /// Everything that the source showed until then has been shipped: when it was asked last in the last complete tick.
    pub covered: Option<Moment>,
    /// The newest event timestamp that the sink has accepted.
    pub newest_shipped: Option<Time>,
    /// Not before this the next try begins; the timer's next tick when none.
    pub paused_until: Option<Moment>,
    /// The trouble that the feed waits out; none after a good tick.
    pub trouble: Option<Notice>,
    /// What it has in common with the other feeds of its account.
    pub account: AccountView,
    /// Requests of this tick that failed in a row.
    pub retrying: Option<Retrying>,
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
    /// Dead letters that wait in the store, as last counted.
    pub letters: u64,
    pub minutes: VecDeque<Minute>,
}

/// A trouble that a person may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub at: Moment,
    /// How often in a row.
    pub times: u64,
    pub what: String,
    pub waiting: Waiting,
    /// What a person should do, or that it heals by itself.
    pub remedy: String,
}

/// A request that is tried again within a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retrying {
    pub since: Moment,
    pub times: u64,
    pub what: String,
    pub waiting: Waiting,
    pub remedy: &'static str,
}

/// What the checkpoint says.
#[derive(Clone, Debug)]
pub struct Standing {
    pub written_at: Time,
    pub watermark: Time,
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
    /// Seconds from `covered` to the end of the minute's last tick; none before the first complete tick.
    pub lag: Option<u64>,
}

/// A batch that the sink has accepted.
pub(crate) struct Accepted<'a> {
    pub timestamps: &'a [Option<Time>],
    pub bytes: usize,
    pub late: u64,
    pub dead_letters: u64,
    /// The source's clock; none in a first read of old events, whose lateness says nothing.
    pub date: Option<Time>,
}

impl View {
    pub(crate) fn enter(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.since = Some(Moment::now());
        }
    }

    /// The phase in which a tick ended.
    fn leave(&mut self, phase: Phase) {
        if self.left != phase {
            // What made the tick fail began with the first failed request.
            let began = self.retrying.as_ref().filter(|_| matches!(phase, Phase::Waiting(_))).map(|it| it.since);
            self.left_since = began.or_else(|| Some(Moment::now()));
        }
        (self.left, self.retrying) = (phase, None);
        self.enter(phase);
    }

    pub(crate) fn began(&mut self) {
        self.tick_began = Some(Moment::now());
        self.enter(Phase::Ticking);
    }

    pub(crate) fn went_well(&mut self, drained: &Drained) {
        let now = Moment::now();
        self.counts.ticks_good += 1;
        self.counts.known += drained.known;
        self.last_good = Some(now);
        (self.trouble, self.paused_until) = (None, None);
        if drained.more_pending {
            self.leave(Phase::CatchingUp);
        } else {
            self.covered = self.read.or(Some(now));
            self.leave(Phase::Resting);
        }
        let lag = self.lag(now);
        self.this_minute(|minute| minute.lag = lag);
    }

    pub(crate) fn met(&mut self, trouble: &Trouble, pause: Duration) {
        let now = Moment::now();
        if matches!(trouble, Trouble::Stopped) {
            return self.leave(Phase::Stopped);
        }
        self.paused_until = (!pause.is_zero()).then(|| now.later(pause));
        self.leave(Phase::Waiting(trouble.waiting()));
        let lag = self.lag(now);
        self.this_minute(|minute| minute.lag = lag);
        if matches!(trouble, Trouble::Lost | Trouble::Standby { .. }) {
            self.trouble = None;
            return;
        }
        self.counts.ticks_failed += 1;
        if matches!(trouble, Trouble::Store(_)) {
            *self.counts.failures.entry(edge_name(Edge::Store)).or_default() += 1;
        }
        let what = trouble.what();
        let times =
            self.notices.back().filter(|last| self.trouble.is_some() && last.what == what).map(|last| last.times);
        if times.is_some() {
            self.notices.pop_back();
        }
        let times = times.unwrap_or(0) + 1;
        let notice = Notice { at: now, times, what, waiting: trouble.waiting(), remedy: trouble.remedy() };
        self.trouble = Some(notice.clone());
        self.notices.push_back(notice);
        if self.notices.len() > NOTICES_MAX {
            self.notices.pop_front();
        }
    }

    /// Seconds for which the table may lack events; none before the first complete tick.
    fn lag(&self, now: Moment) -> Option<u64> {
        self.covered.map(|covered| covered.age(now).as_secs())
    }

    pub(crate) fn page_read(&mut self, bytes: usize) {
        self.counts.pages += 1;
        self.counts.page_bytes += bytes as u64;
        self.read = Some(Moment::now());
        self.progressed(Waiting::Source);
    }

    /// A request that was not answered as it should be.
    pub(crate) fn failed(&mut self, edge: Edge, failure: &Failure) {
        let name = edge_name(edge);
        *self.counts.failures.entry(name).or_default() += 1;
        if matches!(failure, Failure::Status { status: 429, .. }) {
            *self.counts.throttles.entry(name).or_default() += 1;
        }
        let waiting = match edge {
            Edge::Source => Waiting::Source,
            Edge::Sink => Waiting::Sink,
            Edge::Store => Waiting::Store,
        };
        let same = self.retrying.take().filter(|retrying| retrying.waiting == waiting);
        let (since, times) = same.map_or_else(|| (Moment::now(), 0), |retrying| (retrying.since, retrying.times));
        let what = format!("{waiting}: {failure}");
        let remedy = remedy::of(edge, failure);
        self.retrying = Some(Retrying { since, times: times + 1, what, waiting, remedy });
    }

    pub(crate) fn introduced(&mut self, expires: Option<Time>) {
        self.token_expires = expires;
        self.retrying.take_if(|retrying| retrying.waiting == Waiting::Source);
    }

    /// An answer as it should be.
    fn progressed(&mut self, from: Waiting) {
        self.progress = Some(Moment::now());
        self.retrying.take_if(|retrying| retrying.waiting == from);
    }

    pub(crate) fn recovered(&mut self, rows: u64, dead_letters: u64) {
        self.counts.batches += 1;
        self.counts.rows += rows;
        self.counts.dead_letters += dead_letters;
        self.progressed(Waiting::Sink);
        self.this_minute(|minute| minute.rows += rows);
    }

    pub(crate) fn stands(&mut self, cp: &Checkpoint) {
        let standing = Standing::of(cp);
        // What was read before this process: all of it is shipped when nothing is open.
        if self.newest_shipped.is_none() && standing.totals.shipped > 0 && standing.intent.is_none() {
            self.newest_shipped = Some(standing.watermark);
        }
        self.standing = Some(standing);
    }

    pub(crate) fn accepted(&mut self, batch: &Accepted<'_>) {
        let rows = batch.timestamps.len() as u64;
        let counts = &mut self.counts;
        counts.batches += 1;
        counts.rows += rows;
        counts.late_rows += batch.late;
        counts.dead_letters += batch.dead_letters;
        counts.body_bytes += batch.bytes as u64;
        self.progressed(Waiting::Sink);
        self.this_minute(|minute| minute.rows += rows);
        // A client with a wrong clock must not make the feed look ahead of its time.
        let latest = batch.date.unwrap_or_else(Utc::now);
        let newest = batch.timestamps.iter().flatten().filter(|time| **time <= latest).max().copied();
        self.newest_shipped = self.newest_shipped.max(newest);
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
        come_back_to(now, &mut self.minutes);
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

/// After the host's clock was set back the history goes with it: none of it lies in the future.
fn come_back_to(now: i64, minutes: &mut VecDeque<Minute>) {
    let ahead = minutes.back().map_or(0, |last| (last.minute - now).max(0));
    minutes.iter_mut().for_each(|minute| minute.minute -= ahead);
}

impl Standing {
    pub fn of(cp: &Checkpoint) -> Self {
        Self {
            written_at: cp.written_at,
            watermark: cp.watermark,
            intent: cp.slot.intent().map(|intent| OpenIntent {
                batch_id: intent.batch_id().to_owned(),
                kind: intent.kind(),
                rows: intent.keys().len(),
                attempt: intent.attempt(),
            }),
            in_doubt: cp.slot.in_doubt().clone(),
            totals: cp.totals.clone(),
        }
    }
}

const fn edge_name(edge: Edge) -> &'static str {
    match edge {
        Edge::Source => "source",
        Edge::Sink => "sink",
        Edge::Store => "store",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault: the host's clock is set back by an hour, by forty days, ahead, or not at all. Shows: no minute of a feed's history lies in the future, and their order stays.
    #[test]
    fn fm_47_the_history_by_the_minute_comes_back_with_the_clock() {
        let history = |minutes: [i64; 3]| minutes.map(|minute| Minute { minute, rows: 1, lag: None });
        for (now, after) in [(103, [100, 101, 103]), (43, [40, 41, 43]), (-57_000, [-57_003, -57_002, -57_000])] {
            let mut minutes = VecDeque::from(history([100, 101, 103]));
            come_back_to(now, &mut minutes);
            assert_eq!(minutes, history(after), "{now}");
        }
        let mut minutes = VecDeque::from(history([100, 101, 103]));
        come_back_to(200, &mut minutes);
        assert_eq!(minutes, history([100, 101, 103]));
    }
}
