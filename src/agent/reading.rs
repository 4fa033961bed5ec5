//! poll: the cursor to its end, and the two sweeps behind it.

use super::position::until_stopped;
use super::trouble::{Trouble, chain};
use super::{Drained, Feed, Taken, Tick};
use crate::flow::checkpoint::{Advance, BatchKind, SweepProgress, Which};
use crate::flow::decode::Page;
use crate::flow::retry::{Edge, Pace, Verdict, verdict};
use crate::flow::{Time, window};
use crate::source::{Answer, Lane, PageRequest};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// Pages that the cursor, and each sweep, may take in one tick: half a million events.
const PAGES_PER_TICK_MAX: u32 = 500;
/// Bytes that the cursor, and each sweep, may take in one tick.
const BYTES_PER_TICK_MAX: usize = 512 * 1024 * 1024;
/// Items asked for per page: the most that the API gives.
pub(super) const PAGE_LIMIT: u32 = 1000;
/// Answers in a row that are no page before the tick gives up.
const MALFORMED_MAX: u32 = 3;
/// Cursors that may be rejected in one read of a tick: a source that rejects each one it gave would be walked from the start for ever.
const REJECTED_MAX: u32 = 5;
/// Ticks with a repeated cursor before it is an error, and before the cursor counts as rejected.
const STUCK_TICKS_ERROR: u32 = 3;
const STUCK_TICKS_REJECTED: u32 = 10;

/// Which read brought a page, and what it takes to judge and to commit it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub by: By,
    /// Events stamped before this moment are late: a bare 5-minute window would have missed them.
    pub late_before: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// `born`: the Date of the reset that bore the cursor, while it has not drained.
    Cursor {
        born: Option<Time>,
    },
    Sweep(Which),
}

impl Origin {
    pub fn kind(self) -> BatchKind {
        match self.by {
            By::Cursor { .. } => BatchKind::Cursor,
            By::Sweep(Which::Overlap) => BatchKind::OverlapSweep,
            By::Sweep(Which::Late) => BatchKind::LateSweep,
        }
    }

    fn lane(self) -> Lane {
        if self.by == By::Sweep(Which::Late) { Lane::Late } else { Lane::Live }
    }

    /// How the position moves when the page is done.
    pub fn advance_behind(self, page: &Page<'_>, date: Time) -> Advance {
        let cursor = page.cursor.clone();
        match self.by {
            By::Cursor { born } => Advance::Cursor { cursor, born, drained: !page.has_more },
            By::Sweep(which) => Advance::Sweep { which, cursor, done: (!page.has_more).then_some(date) },
        }
    }
}

impl Feed {
    /// Follows the cursor until the source has no more, or a cap cuts the tick.
    pub(super) async fn follow_cursor(&mut self, tick: Tick<'_>, drained: &mut Drained) -> Result<(), Trouble> {
        let (mut seen, mut fetched, mut bytes, mut malformed, mut rejected) = (HashSet::new(), None, 0, 0, 0);
        for _ in 0..PAGES_PER_TICK_MAX {
            let request = self.cursor_request()?;
            if let PageRequest::Continue(cursor) = &request {
                seen.insert(cursor.clone());
            }
            let answer: Answer = match fetched.take() {
                Some(answer) => answer,
                None => match self.poll(&request, Lane::Live, tick).await {
                    Err(trouble) => {
                        self.answer_refusal(&request, trouble, &mut rejected)?;
                        continue;
                    }
                    Ok(answer) => answer,
                },
            };
            bytes += answer.body.len();
            let by = match request {
                PageRequest::Reset { .. } => By::Cursor { born: Some(answer.date) },
                _ => By::Cursor { born: self.position()?.cp.cursor_born },
            };
            let Some(taken) = self.take_patiently(&answer, by, tick, &mut malformed, drained).await? else { continue };
            if !taken.has_more {
                self.position()?.cp.stuck_ticks = 0;
                return Ok(());
            }
            if seen.contains(&taken.cursor) {
                return self.stuck(taken.items);
            }
            fetched = taken.next;
            if bytes > BYTES_PER_TICK_MAX {
                break;
            }
        }
        if drained.read == 0 {
            // More of the same would only keep the sweeps waiting, tick after tick.
            return Err(Trouble::Stuck(
                "it gives new cursors for pages without an event; the sweeps carry the feed meanwhile",
            ));
        }
        drained.more_pending = true;
        Ok(())
    }

    /// Re-reads the window of a sweep, a new one or the one that an earlier tick left unfinished.
    pub(super) async fn sweep(&mut self, which: Which, tick: Tick<'_>, drained: &mut Drained) -> Result<(), Trouble> {
        let (date, widths) = (self.date, self.settings.widths);
        let cp = &mut self.position()?.cp;
        if progress(cp, which).is_none() {
            let Some(window) = window::sweep(cp, which, date, &widths) else { return Ok(()) };
            *progress(cp, which) = Some(window);
        }
        let (mut seen, mut fetched, mut bytes, mut malformed, mut rejected) = (HashSet::new(), None, 0, 0, 0);
        for page in 0..PAGES_PER_TICK_MAX {
            if which == Which::Late && page > 0 && (tick.late_gives_way)() {
                return Ok(());
            }
            let Some(request) = self.sweep_request(which)? else { return Ok(()) };
            if let PageRequest::Continue(cursor) = &request {
                seen.insert(cursor.clone());
            }
            let lane = if which == Which::Late { Lane::Late } else { Lane::Live };
            let answer: Answer = match fetched.take() {
                Some(answer) => answer,
                None => match self.poll(&request, lane, tick).await {
                    Err(trouble) => {
                        self.answer_refusal_of_sweep(which, &request, trouble, &mut rejected)?;
                        continue;
                    }
                    Ok(answer) => answer,
                },
            };
            bytes += answer.body.len();
            let by = By::Sweep(which);
            let Some(taken) = self.take_patiently(&answer, by, tick, &mut malformed, drained).await? else { continue };
            if !taken.has_more {
                return Ok(());
            }
            if seen.contains(&taken.cursor) {
                self.restart_sweep(which)?;
                return Err(Trouble::Stuck("a sweep made no progress and starts its window again with the next tick"));
            }
            fetched = taken.next;
            if bytes > BYTES_PER_TICK_MAX {
                break;
            }
        }
        drained.more_pending = true;
        Ok(())
    }

    /// Whether the late sweep's time has come, by the source's clock.
    pub(super) fn late_sweep_is_due(&self) -> bool {
        self.position.as_ref().is_some_and(|p| window::late_is_due(&p.cp, self.date, &self.settings.widths))
    }

    /// Takes a page in; an answer that is no page is asked for again. `None`: ask again.
    async fn take_patiently(
        &mut self,
        answer: &Answer,
        by: By,
        tick: Tick<'_>,
        malformed: &mut u32,
        drained: &mut Drained,
    ) -> Result<Option<Taken>, Trouble> {
        match self.take(answer, by, tick).await {
            Ok(taken) => {
                *malformed = 0;
                drained.add(&taken.shipped);
                Ok(Some(taken))
            }
            Err(Trouble::Malformed(error)) if *malformed + 1 < MALFORMED_MAX => {
                *malformed += 1;
                tracing::warn!(feed = %self.id, error = %error, "an answer is no page of events: asking again");
                let wait = Pace::default().next(self.jitter.unit(), None);
                self.rest(wait).await?;
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// One request, tried again as its failures and our patience allow.
    pub(super) async fn poll(&mut self, request: &PageRequest, lane: Lane, tick: Tick<'_>) -> Result<Answer, Trouble> {
        let (begun, mut attempts, mut pace) = (Instant::now(), 0, Pace::default());
        loop {
            self.go_on()?;
            attempts += 1;
            let page = self.source.page(self.id.stream, request, lane);
            let error = match until_stopped_reading(&self.stop, page).await? {
                Ok(answer) => {
                    self.date = answer.date;
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if error.failure == crate::flow::retry::Failure::TooLarge {
                return Err(Trouble::TooLarge(error));
            }
            match verdict(Edge::Source, &error.failure) {
                Verdict::Retry { at_least } => {
                    let wait = pace.next(self.jitter.unit(), at_least);
                    if !tick.patience.allows(attempts, begun.elapsed(), wait) {
                        return Err(Trouble::Source(error));
                    }
                    let wait_ms = wait.as_millis() as u64;
                    tracing::warn!(feed = %self.id, attempt = attempts, wait_ms, error = %chain(&error), "a page was not read: trying again");
                    self.rest(wait).await?;
                }
                Verdict::Rejected => return Err(Trouble::Rejected(error)),
                Verdict::Unauthorized { at_least, remedy } => {
                    self.account.forget();
                    return Err(Trouble::Unauthorized { error, remedy, again: at_least });
                }
                Verdict::Halt { remedy } => {
                    return Err(Trouble::Halted { what: chain(&error), remedy: remedy.into() });
                }
                Verdict::Reauthenticate | Verdict::Split | Verdict::DeadLetter => return Err(Trouble::Source(error)),
            }
        }
    }

    /// The next page, asked for while this one is delivered. One attempt; a failure is met again by [`Feed::poll`].
    pub(super) fn prefetch(&self, page: &Page<'_>, origin: Origin) -> impl Future<Output = Option<Answer>> + use<> {
        let wanted = page.has_more && !page.items.is_empty() && origin.lane() == Lane::Live;
        let request = PageRequest::Continue(page.cursor.clone());
        let (source, stop, stream) = (self.source.clone(), self.stop.clone(), self.id.stream);
        async move {
            if !wanted {
                return None;
            }
            until_stopped_reading(&stop, source.page(stream, &request, Lane::Live)).await.ok()?.ok()
        }
    }

    /// Takes the timestamps of a page into account, and tells how its events are judged.
    pub(super) fn see(&mut self, page: &Page<'_>, by: By, date: Time) -> Result<Origin, Trouble> {
        self.date = date;
        let overlap = self.settings.widths.overlap;
        let cp = &mut self.position()?.cp;
        let late_before = match by {
            By::Cursor { born: Some(_) } => None,
            By::Cursor { born: None } => Some(window::earlier(cp.watermark, overlap)),
            By::Sweep(_) => Some(Time::MAX_UTC),
        };
        cp.raise_watermark(page.items.iter().filter_map(|item| item.timestamp).max(), date);
        Ok(Origin { by, late_before })
    }

    pub(super) fn cursor_request(&mut self) -> Result<PageRequest, Trouble> {
        let (date, widths, limit) = (self.date, self.settings.widths, self.page_limit);
        let cp = &self.position()?.cp;
        Ok(match &cp.cursor {
            Some(cursor) => PageRequest::Continue(cursor.clone()),
            None => PageRequest::Reset { start: window::reset_start(cp, date, &widths), limit },
        })
    }

    pub(super) fn sweep_request(&mut self, which: Which) -> Result<Option<PageRequest>, Trouble> {
        let limit = self.page_limit;
        let progress = progress(&mut self.position()?.cp, which).clone();
        Ok(progress.map(|SweepProgress { from, to, cursor, .. }| match cursor {
            Some(cursor) => PageRequest::Continue(cursor),
            None => PageRequest::Window { from, to, limit },
        }))
    }

    /// A refused cursor starts the stream again behind the sweep mark; a refused start is never answered by another one.
    fn answer_refusal(&mut self, request: &PageRequest, trouble: Trouble, rejected: &mut u32) -> Result<(), Trouble> {
        match (request, trouble) {
            (PageRequest::Continue(_), Trouble::Rejected(error)) if *rejected < REJECTED_MAX => {
                *rejected += 1;
                tracing::warn!(feed = %self.id, error = %chain(&error), "the cursor was rejected: starting again behind the sweep mark");
                self.reset_cursor()
            }
            (PageRequest::Continue(_), trouble @ Trouble::Rejected(_)) => Err(trouble),
            (PageRequest::Continue(_), Trouble::TooLarge(_)) => {
                self.halve_page_limit()?;
                self.reset_cursor()
            }
            (_, Trouble::TooLarge(_)) => self.halve_page_limit(),
            (_, Trouble::Rejected(error)) => Err(refused_start(&error)),
            (_, trouble) => Err(trouble),
        }
    }

    fn answer_refusal_of_sweep(
        &mut self,
        which: Which,
        request: &PageRequest,
        trouble: Trouble,
        rejected: &mut u32,
    ) -> Result<(), Trouble> {
        match (request, trouble) {
            (PageRequest::Continue(_), Trouble::Rejected(_)) if *rejected < REJECTED_MAX => {
                *rejected += 1;
                self.restart_sweep(which)
            }
            (PageRequest::Continue(_), trouble @ Trouble::Rejected(_)) => Err(trouble),
            (PageRequest::Continue(_), Trouble::TooLarge(_)) => {
                self.halve_page_limit()?;
                self.restart_sweep(which)
            }
            (_, Trouble::TooLarge(_)) => self.halve_page_limit(),
            (_, Trouble::Rejected(error)) => Err(refused_start(&error)),
            (_, trouble) => Err(trouble),
        }
    }

    fn reset_cursor(&mut self) -> Result<(), Trouble> {
        let cp = &mut self.position()?.cp;
        (cp.cursor, cp.cursor_born, cp.stuck_ticks) = (None, None, 0);
        cp.totals.cursor_resets += 1;
        Ok(())
    }

    fn restart_sweep(&mut self, which: Which) -> Result<(), Trouble> {
        if let Some(progress) = progress(&mut self.position()?.cp, which) {
            progress.cursor = None;
        }
        Ok(())
    }

    fn halve_page_limit(&mut self) -> Result<(), Trouble> {
        if self.page_limit <= 1 {
            return Err(Trouble::Halted {
                what: format!("a single {} item is larger than the body cap", self.id.stream),
                remedy: "report this to the maintainers: no event of that size is known".into(),
            });
        }
        self.page_limit /= 2;
        tracing::warn!(feed = %self.id, limit = self.page_limit, "a page was over the body cap: asking for fewer items");
        Ok(())
    }

    /// A cursor came back that this tick has used already.
    fn stuck(&mut self, items: usize) -> Result<(), Trouble> {
        let cp = &mut self.position()?.cp;
        cp.stuck_ticks += 1;
        cp.totals.cursor_repeats += 1;
        if cp.stuck_ticks >= STUCK_TICKS_REJECTED {
            tracing::warn!(feed = %self.id, "the cursor has made no progress for {STUCK_TICKS_REJECTED} ticks: starting again behind the sweep mark");
            return self.reset_cursor();
        }
        if items > 0 || cp.stuck_ticks >= STUCK_TICKS_ERROR {
            return Err(Trouble::Stuck("the sweeps carry the feed meanwhile"));
        }
        Ok(())
    }
}

impl Drained {
    fn add(&mut self, other: &Self) {
        self.pages += other.pages;
        self.read += other.read;
        self.shipped += other.shipped;
        self.late += other.late;
        self.known += other.known;
        self.dead_letters += other.dead_letters;
    }
}

fn progress(cp: &mut crate::flow::checkpoint::Checkpoint, which: Which) -> &mut Option<SweepProgress> {
    match which {
        Which::Overlap => &mut cp.overlap_sweep,
        Which::Late => &mut cp.late_sweep,
    }
}

fn refused_start(error: &crate::source::SourceError) -> Trouble {
    Trouble::Halted {
        what: chain(error),
        remedy: "the source refuses a start time or window that this program computed: check schedule.lookback, and report it".into(),
    }
}

/// Reading changes nothing at the source: once the process is asked to end, it is dropped.
async fn until_stopped_reading<T>(
    stop: &tokio_util::sync::CancellationToken,
    read: impl Future<Output = T>,
) -> Result<T, Trouble> {
    let read = async { Ok::<T, Trouble>(read.await) };
    until_stopped(stop, Duration::ZERO, read).await.unwrap_or(Err(Trouble::Stopped))
}
