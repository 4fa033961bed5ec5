//! The windows that a feed re-reads, and when: where it starts, what a sweep covers, when a late sweep is due.

use super::checkpoint::{Checkpoint, Fingerprints, SweepProgress, Totals, Which};
use super::clock::Clocks;
use super::intent::Slot;
use super::planted::{self, Bug};
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
pub fn first(feed: &FeedId, fingerprints: Fingerprints, floor: Time, clocks: Clocks, widths: &Widths) -> Checkpoint {
    let date = clocks.date;
    Checkpoint {
        account: feed.account.clone(),
        stream: feed.stream,
        fingerprints,
        slot: Slot::new(),
        write_id: String::new(),
        written_at: date,
        floor,
        cursor: None,
        cursor_born: None,
        stuck_ticks: 0,
        watermark: floor,
        sweep_mark: later(floor, widths.overlap),
        // A mark: too early costs a longer sweep, too late would leave a gap.
        late_mark: clocks.earlier(),
        late_at: date,
        overlap_sweep: None,
        late_sweep: None,
        totals: Totals::default(),
        ledger: None,
        sure: None,
        unknown: serde_json::Map::new(),
    }
}

/// Where a stream without a cursor starts: behind the sweep mark, never the watermark, which sweeps and out-of-order pages lift over
/// events that were not shipped yet.
pub fn reset_start(cp: &Checkpoint, clocks: Clocks, widths: &Widths) -> Time {
    if planted::is(Bug::ResetToNow) {
        return clocks.date;
    }
    if planted::is(Bug::ResetToWatermark) {
        return reached(cp, earlier(cp.watermark, widths.overlap), clocks);
    }
    reached(cp, earlier(cp.sweep_mark.min(clocks.date), widths.overlap), clocks)
}

/// The window of a new sweep; it ends at the source's now and stands still from then on. `None` when it would be empty.
pub fn sweep(cp: &Checkpoint, which: Which, clocks: Clocks, widths: &Widths) -> Option<SweepProgress> {
    let date = clocks.date;
    let from = match which {
        Which::Overlap if planted::is(Bug::SweepFromNow) => earlier(date, widths.overlap),
        Which::Late if planted::is(Bug::LateSweepFromNow) => earlier(date, widths.late_horizon),
        // A mark ahead of a clock that was set back must not leave a gap behind the clock.
        Which::Overlap => earlier(cp.sweep_mark.min(date), widths.overlap),
        Which::Late => earlier(cp.late_mark.min(date), widths.late_horizon),
    };
    let from = reached(cp, from, clocks);
    (from < date).then_some(SweepProgress {
        from,
        to: date,
        cursor: None,
        watermark_at_start: cp.watermark,
        date_at_start: date,
        unknown: serde_json::Map::new(),
    })
}

/// Whether a late sweep is due: by its schedule, or because the clock it was completed by lies in the future.
pub fn late_is_due(cp: &Checkpoint, date: Time, widths: &Widths) -> bool {
    cp.late_sweep.is_some() || cp.late_at > date || later(cp.late_at, widths.late_every) <= date
}

/// Where recovery looks for events of `hours` that lie between `from` and `to`: one window an hour, because a batch may hold events
/// days apart with a whole backlog between them. A little wider than the timestamps, for sources that keep milliseconds.
/// Events whose time is unreadable, or beyond every hour, may be anywhere that the cursor or a sweep has still to read: all of it.
///
/// Every hour has its window, the floor notwithstanding, unless both clocks say that the API returns nothing of it any more: what was
/// not asked for must not count as gone.
pub fn recovery(
    cp: &Checkpoint,
    hours: &BTreeSet<Hour>,
    from: Time,
    to: Time,
    clocks: Clocks,
    widths: &Widths,
) -> Vec<(Time, Time)> {
    let (from, to) = (earlier(from, Duration::from_secs(1)), later(to, Duration::from_secs(1)));
    let unread = earlier(cp.sweep_mark, widths.overlap).min(earlier(cp.late_mark, widths.late_horizon));
    let window = |hour: &Hour| match hour.start() {
        Some(start) if planted::is(Bug::BelieveEveryDate) => {
            (reached(cp, start.max(from), clocks), later(start, HOUR).min(to))
        }
        Some(start) => (start.max(from).max(reach(clocks)), later(start, HOUR).min(to)),
        None => (reached(cp, unread.min(clocks.earlier()), clocks), to.max(Hour::end_of_all())),
    };
    hours.iter().map(window).filter(|(start, end)| start < end).collect()
}

/// `from`, but not before the floor nor further back than the API returns anything.
pub fn reached(cp: &Checkpoint, from: Time, clocks: Clocks) -> Time {
    from.max(cp.floor).max(reach(clocks))
}

/// The first moment of which the API still returns anything, by the earlier clock: a wrong one asks for too much rather than too little.
pub fn reach(clocks: Clocks) -> Time {
    earlier(clocks.earlier(), REACH_BACK_MAX)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{AccountName, Stream};

    const WIDTHS: Widths = Widths {
        overlap: Duration::from_secs(300),
        late_every: Duration::from_secs(3600),
        late_horizon: Duration::from_secs(72 * 3600),
    };

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    /// Both clocks agree.
    fn at(text: &str) -> Clocks {
        Clocks::agreed(time(text))
    }

    fn cp(floor: &str, date: &str) -> Checkpoint {
        let feed = FeedId { account: AccountName::parse("a").unwrap(), stream: Stream::ItemUsages };
        first(&feed, Fingerprints::new("", None, ""), time(floor), at(date), &WIDTHS)
    }

    #[test]
    fn no_read_starts_before_the_floor_or_the_reach_of_the_api() {
        let mut cp = cp("2026-11-01T00:00:00Z", "2026-11-22T00:00:00Z");
        assert_eq!(reset_start(&cp, at("2026-11-22T00:00:00Z"), &WIDTHS), cp.floor);
        let late = sweep(&cp, Which::Late, at("2026-11-22T00:00:00Z"), &WIDTHS).unwrap();
        assert_eq!(late.from, time("2026-11-19T00:00:00Z"), "late_mark - horizon");
        let much_later = at("2027-11-22T00:00:00Z");
        let reach = earlier(much_later.date, REACH_BACK_MAX);
        assert_eq!(reset_start(&cp, much_later, &WIDTHS), reach);
        assert_eq!(sweep(&cp, Which::Late, much_later, &WIDTHS).unwrap().from, reach);
        cp.floor = time("2026-11-21T00:00:00Z");
        assert_eq!(sweep(&cp, Which::Late, at("2026-11-22T00:00:00Z"), &WIDTHS).unwrap().from, cp.floor);
    }

    #[test]
    fn a_late_sweep_starts_behind_its_mark_however_long_ago_that_was() {
        let cp = cp("2026-09-01T00:00:00Z", "2026-11-01T00:00:00Z");
        let window = sweep(&cp, Which::Late, at("2026-11-20T00:00:00Z"), &WIDTHS).unwrap();
        assert_eq!((window.from, window.to), (time("2026-10-29T00:00:00Z"), time("2026-11-20T00:00:00Z")));
    }

    #[test]
    fn a_reset_ignores_the_watermark() {
        let mut cp = cp("2026-11-01T00:00:00Z", "2026-11-22T00:00:00Z");
        cp.watermark = time("2026-11-22T00:00:00Z");
        assert_eq!(reset_start(&cp, at("2026-11-22T00:00:00Z"), &WIDTHS), cp.floor);
    }

    #[test]
    fn marks_ahead_of_a_clock_that_fell_back_leave_no_gap() {
        let mut cp = cp("2026-11-01T00:00:00Z", "2026-11-22T00:00:00Z");
        (cp.sweep_mark, cp.late_mark) = (time("2026-12-24T00:00:00Z"), time("2026-12-24T00:00:00Z"));
        let date = at("2026-11-22T00:00:00Z");
        assert_eq!(sweep(&cp, Which::Overlap, date, &WIDTHS).unwrap().from, time("2026-11-21T23:55:00Z"));
        assert_eq!(sweep(&cp, Which::Late, date, &WIDTHS).unwrap().from, time("2026-11-19T00:00:00Z"));
        assert_eq!(reset_start(&cp, date, &WIDTHS), time("2026-11-21T23:55:00Z"));
    }

    #[test]
    fn a_late_sweep_is_due_by_its_schedule_when_under_way_or_when_its_date_lies_ahead() {
        let mut cp = cp("2026-11-01T00:00:00Z", "2026-11-22T10:00:00Z");
        let due = |cp: &Checkpoint, date: &str| late_is_due(cp, time(date), &WIDTHS);
        assert!(
            !due(&cp, "2026-11-22T10:59:59Z") && due(&cp, "2026-11-22T11:00:00Z") && due(&cp, "2026-11-22T09:59:59Z")
        );
        cp.late_sweep = sweep(&cp, Which::Late, at("2026-11-22T10:00:00Z"), &WIDTHS);
        assert!(due(&cp, "2026-11-22T10:00:01Z"));
    }

    #[test]
    fn recovery_asks_for_the_hours_of_what_is_missing_and_no_others() {
        let cp = cp("2026-11-01T00:00:00Z", "2026-11-22T12:00:00Z");
        let hours = ["2026-11-20T10:30:00Z", "2026-11-22T11:00:00Z"].map(|at| Hour::of(Some(time(at)))).into();
        let (from, to) = (time("2026-11-20T10:30:00Z"), time("2026-11-22T11:05:00Z"));
        let windows = recovery(&cp, &hours, from, to, at("2026-11-22T12:00:00Z"), &WIDTHS);
        let expected =
            [("2026-11-20T10:29:59Z", "2026-11-20T11:00:00Z"), ("2026-11-22T11:00:00Z", "2026-11-22T11:05:01Z")];
        assert_eq!(windows, expected.map(|(from, to)| (time(from), time(to))));
        let far = time("2150-01-01T00:00:00Z");
        let odd = |to| recovery(&cp, &[Hour::Odd].into(), from, to, at("2026-11-22T12:00:00Z"), &WIDTHS);
        assert_eq!(odd(far), [(cp.floor, later(far, Duration::from_secs(1)))], "from the first event still unread on");
        assert_eq!(odd(to), [(cp.floor, time("2101-01-01T00:00:00Z"))]);
    }

    /// Fault: a Date that is 130 or 400 days ahead, believed. Shows: every hour of a batch in doubt is asked for, and nothing starts later than the host's clock asks for.
    #[test]
    fn fm_46_a_date_far_ahead_shortens_no_window() {
        let cp = cp("2026-11-01T00:00:00Z", "2026-11-22T12:00:00Z");
        let hours = ["2026-11-08T10:30:00Z"].map(|at| Hour::of(Some(time(at)))).into();
        let (from, to) = (time("2026-11-08T10:30:00Z"), time("2026-11-08T10:40:00Z"));
        for days in [130, 400] {
            let wrong = Clocks {
                date: time("2026-11-22T12:00:00Z") + TimeDelta::days(days),
                host: time("2026-11-22T12:00:00Z"),
            };
            let expected = (time("2026-11-08T10:29:59Z"), time("2026-11-08T10:40:01Z"));
            assert_eq!(recovery(&cp, &hours, from, to, wrong, &WIDTHS), [expected]);
            assert_eq!(reset_start(&cp, wrong, &WIDTHS), cp.floor);
            assert_eq!(sweep(&cp, Which::Overlap, wrong, &WIDTHS).unwrap().from, cp.floor);
            let agreed = Clocks { host: wrong.date, ..wrong };
            assert_eq!(recovery(&cp, &hours, from, to, agreed, &WIDTHS), [], "both say that it is out of reach");
        }
    }

    #[test]
    fn times_at_the_ends_of_the_calendar_saturate() {
        assert_eq!(earlier(Time::MIN_UTC, Duration::MAX), Time::MIN_UTC);
        assert_eq!(later(Time::MAX_UTC, Duration::MAX), Time::MAX_UTC);
    }
}
