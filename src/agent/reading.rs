//! poll: the cursor to its end, and the two sweeps behind it.

pub(super) mod apart;
pub mod clock;
pub mod range;
pub(super) mod walk;

use super::given::Given;
use super::position::Stand;
use super::trouble::{Trouble, chain};
use super::{Drained, Feed, Taken, Tick};
use crate::flow::attempts::{Attempts, Jitter};
use crate::flow::checkpoint::{Advance, SweepProgress, Unknown, Which};
use crate::flow::decode::{self, Page};
use crate::flow::dedupe::Sorted;
use crate::flow::intent::BatchKind;
use crate::flow::map::sha256_hex;
use crate::flow::retry::{Edge, PASSING_PAUSE, Verdict, verdict};
use crate::flow::{Cursor, Time, window};
use crate::source::{Answer, Lane, PAGE_BYTES_SMALL, PageRequest, Source};
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::time::Instant;
use walk::{Turn, Walk, until_stopped_reading};

/// Pages that the cursor, and each sweep, may take in one tick: half a million events.
const PAGES_PER_TICK_MAX: u32 = 500;
/// Bytes that the cursor, and each sweep, may take in one tick.
const BYTES_PER_TICK_MAX: usize = 512 * 1024 * 1024;
/// Items asked for per page: the most that the API gives.
pub(super) const PAGE_LIMIT: u32 = 1000;
/// Conflicts of one page that are told one by one; all are counted.
const CONFLICTS_TOLD_MAX: usize = 10;

/// Which read brought a page, and what it takes to judge and to commit it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub by: By,
    /// Events stamped before this moment are late: a bare 5-minute window would have missed them.
    pub late_before: Option<Time>,
}

/// How a page came here, and what becomes of it.
pub(super) struct Way {
    pub(super) origin: Origin,
    /// How the position moves behind the page; none: it stays.
    pub(super) advance: Option<Advance>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// `born`: the Date of the reset that bore the cursor, while it has not drained.
    Cursor {
        born: Option<Time>,
    },
    Sweep(Which),
    /// A command's own reading of a range.
    Range,
}

/// How a feed reads: the source, how much it is asked for, and when it last told the time.
pub(super) struct Reader {
    pub(super) given: Arc<Given>,
    pub(super) source: Arc<dyn Source>,
    /// The source's clock in the latest introduction that was taken into account.
    pub(super) introduced: Time,
    /// Items asked for per page; halved when an answer is over the body cap, doubled again after good ones.
    pub(super) page_limit: u32,
    /// Pages taken since it was halved or doubled.
    pub(super) good_pages: u32,
    /// It was told that a cursor ends without `items`.
    told_bare: bool,
    pub(super) jitter: Jitter,
}

impl Reader {
    pub(super) fn new(given: Arc<Given>, source: Arc<dyn Source>, jitter: Jitter) -> Self {
        let (introduced, page_limit) = (Time::MIN_UTC, PAGE_LIMIT);
        Self { given, source, introduced, page_limit, good_pages: 0, told_bare: false, jitter }
    }
}

impl Origin {
    pub(super) fn kind(self) -> BatchKind {
        match self.by {
            By::Cursor { .. } => BatchKind::Cursor,
            By::Sweep(Which::Overlap) => BatchKind::OverlapSweep,
            By::Sweep(Which::Late) => BatchKind::LateSweep,
            By::Range => BatchKind::Backfill,
        }
    }

    fn lane(self) -> Lane {
        match self.by {
            By::Cursor { .. } | By::Sweep(Which::Overlap) => Lane::Live,
            By::Sweep(Which::Late) => Lane::Late,
            By::Range => Lane::Backfill,
        }
    }

    /// How the position moves when the page is done.
    pub(super) fn advance_behind(self, page: &Page<'_>, date: Time) -> Option<Advance> {
        let cursor = page.cursor.clone();
        match self.by {
            By::Cursor { born } => {
                Some(Advance::Cursor { cursor, born, drained: !page.has_more, unknown: Unknown::new() })
            }
            By::Sweep(which) => {
                let done = (!page.has_more).then_some(date);
                Some(Advance::Sweep { which, cursor, done, unknown: Unknown::new() })
            }
            By::Range => None,
        }
    }
}

impl Feed {
    /// Follows the cursor until the source has no more, or a cap cuts the tick.
    pub(super) async fn follow_cursor(&mut self, tick: Tick<'_>, drained: &mut Drained) -> Result<(), Trouble> {
        let is_through = self.walk_on(None, tick, drained).await?;
        if !is_through && drained.read == 0 {
            // More of the same would only keep the sweeps waiting, tick after tick.
            return Err(Trouble::Stuck(
                "it gives new cursors for pages without an event; the sweeps carry the feed meanwhile",
            ));
        }
        drained.more_pending = !is_through;
        Ok(())
    }

    /// Re-reads the window of a sweep, a new one or the one that an earlier tick left unfinished.
    pub(super) async fn sweep(&mut self, which: Which, tick: Tick<'_>, drained: &mut Drained) -> Result<(), Trouble> {
        let (clocks, widths) = (self.given.clocks(), self.given.settings.widths);
        let cp = &mut self.stand.position()?.cp;
        if progress(cp, which).is_none() {
            let Some(window) = window::sweep(cp, which, clocks, &widths) else { return Ok(()) };
            *progress(cp, which) = Some(window);
        }
        drained.more_pending = !self.walk_on(Some(which), tick, drained).await?;
        Ok(())
    }

    /// Reads and ships page after page, from where the cursor or the sweep stands. Returns whether it is through: else a cap cut it.
    async fn walk_on(&mut self, sweep: Option<Which>, tick: Tick<'_>, drained: &mut Drained) -> Result<bool, Trouble> {
        let name = match sweep {
            None => "cursor",
            Some(Which::Overlap) => "overlap sweep",
            Some(Which::Late) => "late sweep",
        };
        let (mut walk, mut bytes) = (Walk::of(name), 0);
        let lane = if sweep == Some(Which::Late) { Lane::Late } else { Lane::Live };
        for page in 0..PAGES_PER_TICK_MAX {
            if lane == Lane::Late && page > 0 && (tick.late_gives_way)() {
                return Ok(true);
            }
            let Some(request) = self.next_request(sweep)? else { return Ok(true) };
            let answer = match self.reader.turn(&request, lane, tick, &mut walk).await? {
                Turn::Answer(answer) => answer,
                Turn::Again => continue,
                Turn::FromStart(trouble) => {
                    self.stand.start_again(sweep)?;
                    trouble.map_or(Ok(()), Err)?;
                    continue;
                }
                Turn::Refused(error) => return Err(self.reader.refused_start(&error)),
            };
            bytes += answer.body.len();
            self.given.panel.page_read(answer.body.len());
            let by = self.stand.by(sweep, &request, &answer)?;
            let Some(taken) = self.take_patiently(&answer, by, tick, &mut walk, drained).await? else { continue };
            if !taken.has_more {
                return self.arrive(sweep).await.map(|()| true);
            }
            if walk.has_used(&taken.cursor) {
                return self.stand.led_back(sweep, taken.items).map(|()| true);
            }
            walk.fetched = taken.next;
            if bytes > BYTES_PER_TICK_MAX {
                break;
            }
        }
        Ok(false)
    }

    fn next_request(&mut self, sweep: Option<Which>) -> Result<Option<PageRequest>, Trouble> {
        match sweep {
            None => self.stand.cursor_request(self.reader.page_limit).map(Some),
            Some(which) => self.stand.sweep_request(which, self.reader.page_limit),
        }
    }

    /// The source has no more.
    async fn arrive(&mut self, sweep: Option<Which>) -> Result<(), Trouble> {
        match sweep {
            None => self.stand.position()?.cp.stuck_ticks = 0,
            Some(Which::Overlap) => {}
            Some(Which::Late) => self.delivery.retire(&mut self.stand).await,
        }
        Ok(())
    }

    /// Takes a page in; an answer that is no page is asked for again. `None`: ask again.
    async fn take_patiently(
        &mut self,
        answer: &Answer,
        by: By,
        tick: Tick<'_>,
        walk: &mut Walk,
        drained: &mut Drained,
    ) -> Result<Option<Taken>, Trouble> {
        match self.take(answer, by, tick).await {
            Ok(taken) => {
                walk.goes_on();
                drained.add(&taken.shipped);
                Ok(Some(taken))
            }
            Err(Trouble::Malformed(error)) => self.reader.pause_after_no_page(error, walk).await.map(|()| None),
            Err(trouble) => Err(trouble),
        }
    }
}

impl Stand {
    /// The cursor that brought a page, where it was the position's.
    pub(super) fn cursor_of(&mut self, by: By) -> Result<Option<Cursor>, Trouble> {
        Ok(match by {
            By::Cursor { .. } => self.position()?.cp.cursor.clone(),
            By::Sweep(_) | By::Range => None,
        })
    }

    fn by(&mut self, sweep: Option<Which>, request: &PageRequest, answer: &Answer) -> Result<By, Trouble> {
        Ok(match (sweep, request) {
            (Some(which), _) => By::Sweep(which),
            (None, PageRequest::Reset { .. }) => By::Cursor { born: Some(answer.date) },
            (None, _) => By::Cursor { born: self.position()?.cp.cursor_born },
        })
    }

    /// Whether a sweep may run: the cursor's own trouble is no reason not to, a batch in doubt is.
    pub(super) fn may_sweep(&self, which: Which, outcome: &Result<(), Trouble>) -> bool {
        let is_settled = self.position.as_ref().is_some_and(|position| position.cp.slot.intent().is_none());
        let is_due = which == Which::Overlap || self.late_sweep_is_due();
        is_settled && is_due && outcome.as_ref().err().is_none_or(Trouble::is_of_the_cursor_alone)
    }

    /// Whether the late sweep's time has come, by the source's clock.
    fn late_sweep_is_due(&self) -> bool {
        self.position
            .as_ref()
            .is_some_and(|p| window::late_is_due(&p.cp, self.given.date(), &self.given.settings.widths))
    }

    /// Takes the timestamps of a page into account, and tells how its events are judged.
    pub(super) fn see(&mut self, page: &Page<'_>, by: By, date: Time) -> Result<Origin, Trouble> {
        self.given.set_date(date);
        self.keep_sure_marks();
        let overlap = self.given.settings.widths.overlap;
        let cp = &mut self.position()?.cp;
        let late_before = match by {
            By::Cursor { born: Some(_) } => None,
            By::Cursor { born: None } => Some(window::earlier(cp.watermark, overlap)),
            By::Sweep(_) | By::Range => Some(Time::MAX_UTC),
        };
        cp.raise_watermark(page.items.iter().filter_map(|item| item.timestamp).max(), date);
        Ok(Origin { by, late_before })
    }

    pub(super) fn cursor_request(&mut self, limit: u32) -> Result<PageRequest, Trouble> {
        let (clocks, widths) = (self.given.clocks(), self.given.settings.widths);
        let cp = &self.position()?.cp;
        Ok(match &cp.cursor {
            Some(cursor) => PageRequest::Continue(cursor.clone()),
            None => PageRequest::Reset { start: window::reset_start(cp, clocks, &widths), limit },
        })
    }

    pub(super) fn sweep_request(&mut self, which: Which, limit: u32) -> Result<Option<PageRequest>, Trouble> {
        let clocks = self.given.clocks();
        let cp = &mut self.position()?.cp;
        let Some(SweepProgress { from, to, cursor, .. }) = progress(cp, which).clone() else { return Ok(None) };
        if let Some(cursor) = cursor {
            return Ok(Some(PageRequest::Continue(cursor)));
        }
        // A window that was left alone for long may reach back further than the API does by now.
        let from = window::reached(cp, from, clocks);
        if from >= to {
            *progress(cp, which) = None;
            return Ok(None);
        }
        Ok(Some(PageRequest::Window { from, to, limit }))
    }
}

impl Reader {
    /// One request, tried again as its failures and our patience allow.
    pub(super) async fn poll(&mut self, request: &PageRequest, lane: Lane, tick: Tick<'_>) -> Result<Answer, Trouble> {
        let (begun, mut doubts, mut attempts) = (Instant::now(), 0, Attempts::new(tick.patience, &mut self.jitter));
        let mut has_passed = false;
        loop {
            self.given.go_on()?;
            let attempt = attempts.begin();
            let page = self.source.page(self.given.id.stream, request, lane);
            let error = match until_stopped_reading(&self.given.stop, page).await? {
                Ok(answer) => {
                    doubts += 1;
                    if self.given.hear(answer.date, doubts).await? {
                        self.given.set_date(answer.date);
                        return Ok(answer);
                    }
                    continue;
                }
                Err(error) => error,
            };
            self.given.panel.failed(Edge::Source, &error.failure);
            if error.failure == crate::flow::retry::Failure::TooLarge {
                return Err(Trouble::TooLarge(error));
            }
            match verdict(Edge::Source, &error.failure) {
                Verdict::Retry { at_least } => {
                    let ControlFlow::Continue(wait) = attempts.pause(begun.elapsed(), at_least) else {
                        return Err(Trouble::Source(error));
                    };
                    let wait_ms = wait.as_millis() as u64;
                    tracing::warn!(feed = %self.given.id, attempt, wait_ms, error = %chain(&error), "a page was not read: trying again");
                    self.given.rest(wait).await?;
                }
                Verdict::Halt { .. } if error.failure.may_pass() && !std::mem::replace(&mut has_passed, true) => {
                    let wait_s = PASSING_PAUSE.as_secs();
                    tracing::warn!(feed = %self.given.id, wait_s, error = %chain(&error), "a page was refused as gateways refuse for a moment: trying once more");
                    self.given.rest(PASSING_PAUSE).await?;
                }
                Verdict::Rejected => return Err(Trouble::Rejected(error)),
                Verdict::Unauthorized { at_least, remedy } => {
                    self.given.account.forget();
                    return Err(Trouble::Unauthorized { error, remedy, again: at_least });
                }
                Verdict::Halt { remedy } => {
                    return Err(Trouble::Halted { what: chain(&error), remedy: remedy.into() });
                }
                Verdict::Reauthenticate | Verdict::Split | Verdict::DeadLetter => return Err(Trouble::Source(error)),
            }
        }
    }

    /// The next page, asked for while this one is delivered. One attempt; a failure is met again by [`Reader::poll`].
    /// Not beside a large page: who has one waits for no other.
    pub(super) fn prefetch(
        &self,
        page: &Page<'_>,
        origin: Origin,
        length: usize,
    ) -> impl Future<Output = Option<Answer>> + use<> {
        let is_small = length <= PAGE_BYTES_SMALL;
        let wanted = page.has_more && !page.items.is_empty() && origin.lane() == Lane::Live && is_small;
        let request = PageRequest::Continue(page.cursor.clone());
        let (source, stop, stream) = (self.source.clone(), self.given.stop.clone(), self.given.id.stream);
        async move {
            if !wanted {
                return None;
            }
            until_stopped_reading(&stop, source.page(stream, &request, Lane::Ahead)).await.ok()?.ok()
        }
    }

    /// The page that an answer is. At its end a cursor may leave the items out, a sweep never ends that way.
    pub(super) fn page_of<'a>(&mut self, text: &'a str, sent: Option<&Cursor>) -> Result<Page<'a>, Trouble> {
        let page = match sent {
            Some(sent) => decode::page_after(text, sent),
            None => decode::page(text),
        };
        let page = page.map_err(Trouble::Malformed)?;
        if page.is_bare && !std::mem::replace(&mut self.told_bare, true) {
            tracing::warn!(feed = %self.given.id, remedy = "nothing, unless a proxy changes the answers: the position stays where it is",
                "the source says that there is no more, and leaves the list of items out");
        }
        Ok(page)
    }
}

impl Given {
    /// One id with two contents is a bug or an attack at the source: the hashes tell which one was kept.
    pub(super) fn tell_conflicts(&self, page: &Page<'_>, sorted: &Sorted) {
        for (kept, dropped) in sorted.conflicts.iter().take(CONFLICTS_TOLD_MAX) {
            let (Some(kept), Some(dropped)) = (page.items.get(*kept), page.items.get(*dropped)) else { continue };
            let id = kept.key.id;
            let (kept, dropped) = (sha256_hex(kept.raw.as_bytes()), sha256_hex(dropped.raw.as_bytes()));
            tracing::warn!(feed = %self.id, %id, kept, dropped, "one id has two contents on a page: the first was kept");
        }
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

pub(super) fn progress(cp: &mut crate::flow::checkpoint::Checkpoint, which: Which) -> &mut Option<SweepProgress> {
    match which {
        Which::Overlap => &mut cp.overlap_sweep,
        Which::Late => &mut cp.late_sweep,
    }
}
