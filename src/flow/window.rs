//! The windows that a feed re-reads, and when: where it starts, what a sweep covers, when a late sweep is due.

use super::checkpoint::{Checkpoint, Fingerprints, InDoubt, SweepProgress, Totals, Which};
use super::{FeedId, Hour, Time};
use chrono::TimeDelta;
use std::collections::BTreeSet;
use std::time::Duration;

/// How far back any request reaches: the API returns events of the last 120 days.
pub const REACH_BACK_MAX: Duration = Duration::from_secs(119 * 86_400);

const HOUR: Duration = Duration::from_secs(3600);

/// The configured widths.
#[derive(Clone, Copy, Debug)]
pub struct Widths {
    pub overlap: Duration,
    pub late_every: Duration,
    pub late_horizon: Duration,
}

/// The checkpoint of a feed that has none: starts at `floor`.
pub fn first(feed: &FeedId, fingerprints: Fingerprints, floor: Time, date: Time, widths: &Widths) -> Checkpoint {
    Checkpoint {
        account: feed.account.clone(),
        stream: feed.stream,
        fingerprints,
        seq: 0,
        write_id: String::new(),
        written_at: date,
        floor,
        cursor: None,
        cursor_born: None,
        stuck_ticks: 0,
        watermark: floor,
        sweep_mark: later(floor, widths.overlap),
        late_mark: date,
        late_at: date,
        overlap_sweep: None,
        late_sweep: None,
        intent: None,
        in_doubt: InDoubt::default(),
        totals: Totals::default(),
        unknown: serde_json::Map::new(),
    }
}

/// Where a stream without a cursor starts: behind the sweep mark, never the watermark, which sweeps and out-of-order pages lift over
/// events that were not shipped yet.
pub fn reset_start(cp: &Checkpoint, date: Time, widths: &Widths) -> Time {
    reached(cp, earlier(cp.sweep_mark.min(date), widths.overlap), date)
}

/// The window of a new sweep; it ends at the source's now and stands still from then on. `None` when it would be empty.
pub fn sweep(cp: &Checkpoint, which: Which, date: Time, widths: &Widths) -> Option<SweepProgress> {
    let from = match which {
        // A mark ahead of a clock that was set back must not leave a gap behind the clock.
        Which::Overlap => earlier(cp.sweep_mark.min(date), widths.overlap),
        Which::Late => earlier(cp.late_mark.min(date), widths.late_horizon),
    };
    let from = reached(cp, from, date);
    (from < date).then_some(SweepProgress {
        from,
        to: date,
        cursor: None,
        watermark_at_start: cp.watermark,
        date_at_start: date,
    })
}

/// Whether a late sweep is due: by its schedule, or because the clock it was completed by lies in the future.
pub fn late_is_due(cp: &Checkpoint, date: Time, widths: &Widths) -> bool {
    cp.late_sweep.is_some() || cp.late_at > date || later(cp.late_at, widths.late_every) <= date
}

/// Where recovery looks for events of `hours` that lie between `from` and `to`: one window an hour, because a batch may hold events
/// days apart with a whole backlog between them. A little wider than the timestamps, for sources that keep milliseconds.
pub fn recovery(cp: &Checkpoint, hours: &BTreeSet<Hour>, from: Time, to: Time, date: Time) -> Vec<(Time, Time)> {
    let (from, to) = (earlier(from, Duration::from_secs(1)), later(to, Duration::from_secs(1)));
    let window = |hour: &Hour| {
        // Of the odd ones, those ahead of every hour can be asked for.
        let (start, end) = hour.start().map_or((Hour::end_of_all(), to), |start| (start, later(start, HOUR)));
        (reached(cp, start.max(from), date), end.min(to))
    };
    hours.iter().map(window).filter(|(start, end)| start < end).collect()
}

/// `from`, but not before the floor nor further back than the API returns anything.
pub fn reached(cp: &Checkpoint, from: Time, date: Time) -> Time {
    from.max(cp.floor).max(earlier(date, REACH_BACK_MAX))
}

/// `time - by`, saturating.
pub fn earlier(time: Time, by: Duration) -> Time {
    let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
    time.checked_sub_signed(by).unwrap_or(Time::MIN_UTC)
}

/// `time + by`, saturating.
pub fn later(time: Time, by: Duration) -> Time {
    let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
    time.checked_add_signed(by).unwrap_or(Time::MAX_UTC)
}
