//! range: ranges that are read again, by a command beside the live feed or by a recovery: the same flow and the same intent slot, but nothing
//! of the position moves.

use super::walk::{Turn, Walk};
use super::{By, Origin, PAGE_LIMIT, Reader, Way};
use crate::agent::delivery::Delivery;
use crate::agent::position::{Stand, until_stopped};
use crate::agent::trouble::Trouble;
use crate::agent::{Drained, Feed, Tick};
use crate::flow::decode::{self, Page};
use crate::flow::dedupe::{self, Sorted};
use crate::flow::{Cursor, EventKey, Time};
use crate::source::{Lane, PageRequest};
use crate::store::checkpoints::Found;
use bytes::Bytes;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// Pages that one reading of a range may take: a hundred million events.
const RANGE_PAGES_MAX: u32 = 100_000;
/// Pages in a row without an event before a command's range counts as stuck.
const EMPTY_PAGES_MAX: u32 = 100;
/// Pages of one hour's window of a batch in doubt: half a million events.
const WINDOW_PAGES_MAX: u32 = 500;
pub(crate) const WINDOW_TOO_LARGE: &str = "the window of a batch in doubt cannot be read to its end";
/// A checkpoint written so recently belongs to a process that lives.
const COMPANY: Duration = Duration::from_secs(10 * 60);

/// A range of event time on its way through the source's pages.
#[derive(Debug)]
pub struct Range {
    pub from: Time,
    pub to: Time,
    /// Where the next page is; none: at the start of the range.
    pub cursor: Option<Cursor>,
    /// Events asked for per page.
    pub limit: u32,
    /// The last page was read.
    pub is_done: bool,
    pages: u32,
    empty_pages: u32,
    walk: Walk,
    purpose: Purpose,
}

/// Who reads a range, and so how far it may lead and what is said when it leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// A person asked for it.
    Command,
    /// The window of a batch in doubt.
    Recovery,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::Command => "range",
            Self::Recovery => "recovery",
        }
    }

    const fn pages_max(self) -> u32 {
        match self {
            Self::Command => RANGE_PAGES_MAX,
            Self::Recovery => WINDOW_PAGES_MAX,
        }
    }

    const fn empty_pages_max(self) -> u32 {
        match self {
            Self::Command => EMPTY_PAGES_MAX,
            // A feed that cannot recover ships nothing.
            Self::Recovery => WINDOW_PAGES_MAX,
        }
    }

    const fn leads_back(self) -> &'static str {
        match self {
            Self::Command => "a range repeats a cursor: the same command goes on where it stood",
            Self::Recovery => "the window of a batch in doubt repeats a cursor",
        }
    }

    const fn has_no_end(self) -> &'static str {
        match self {
            Self::Command => "a range has no end: ask for a smaller one",
            Self::Recovery => WINDOW_TOO_LARGE,
        }
    }
}

/// One page of a range, to be shipped or looked at.
#[derive(Clone, Debug)]
pub struct RangePage {
    pub body: Bytes,
    pub events: Vec<(EventKey, Option<Time>)>,
}

impl Range {
    /// From the start, or from the cursor where an earlier reading stood.
    pub fn new(from: Time, to: Time, cursor: Option<Cursor>) -> Self {
        let (limit, purpose) = (PAGE_LIMIT, Purpose::Command);
        let walk = Walk::of(purpose.name());
        Self { from, to, cursor, limit, is_done: false, pages: 0, empty_pages: 0, walk, purpose }
    }

    /// Of a batch in doubt.
    pub(crate) fn of_recovery(from: Time, to: Time) -> Self {
        let purpose = Purpose::Recovery;
        Self { purpose, walk: Walk::of(purpose.name()), ..Self::new(from, to, None) }
    }

    fn take(&mut self, page: Page<'_>) -> Result<Vec<(EventKey, Option<Time>)>, Trouble> {
        self.walk.goes_on();
        self.pages += 1;
        self.empty_pages = if page.items.is_empty() { self.empty_pages + 1 } else { 0 };
        if page.has_more && self.walk.has_used(&page.cursor) {
            (self.cursor, self.walk) = (None, Walk::of(self.purpose.name()));
            return Err(Trouble::Stuck(self.purpose.leads_back()));
        }
        (self.is_done, self.cursor) = (!page.has_more, Some(page.cursor));
        Ok(page.items.iter().map(|item| (item.key, item.timestamp)).collect())
    }
}

impl Feed {
    /// For commands: reads the position and settles what is open, as a tick begins. Creates no position where there is none.
    ///
    /// # Errors
    /// There is no position yet, another process holds the open intent, or the trouble of the recovery.
    pub async fn open(&mut self, tick: Tick<'_>) -> Result<(), Trouble> {
        if self.stand.position.is_none()
            && matches!(self.stand.checkpoints.load(&self.given.id).await?, Found::Nothing { previous: None })
        {
            return Err(self.has_no_position().await);
        }
        self.load(tick).await?;
        self.recover(tick).await.map(drop)
    }

    /// Why there is none: nothing was started yet, or another entry of the account ships.
    pub(crate) async fn has_no_position(&mut self) -> Trouble {
        match self.owned_by_other().await {
            Ok(None) => {}
            Ok(Some(trouble)) | Err(trouble) => return trouble,
        }
        let what = format!("{} has no position yet", self.given.id);
        let remedy = "start `opship run` or `opship once` first, then repeat this command".into();
        Trouble::Halted { what, remedy }
    }

    /// Ships what the ledger does not know of a page, under intents that move nothing: neither cursor nor watermark nor mark.
    /// [`Feed::open`] comes before each. Returns when everything is committed.
    ///
    /// # Errors
    /// As [`Feed::drain`]. What was accepted until then is recorded, and the same page can be shipped again.
    pub async fn ship_page(&mut self, body: &[u8], tick: Tick<'_>) -> Result<Drained, Trouble> {
        let (text, _) = decode::text(body);
        let page = decode::page(&text).map_err(Trouble::Malformed)?;
        let origin = Origin { by: By::Range, late_before: None };
        let shipped = self.ship(&page, Way { origin, advance: None }, tick).await;
        let (outcome, drained) = match shipped {
            Ok(drained) => (Ok(()), drained),
            Err(trouble) => (Err(trouble), Drained::default()),
        };
        let settled = self.settle(&outcome).await;
        outcome.and(settled).map(|()| drained)
    }

    /// The next page of a range, for commands. Asked again as failures and our patience allow.
    ///
    /// # Errors
    /// The source cannot be read, refuses the range or leads nowhere. The range stands where it stood, or at its start.
    pub async fn read_range(&mut self, range: &mut Range, lane: Lane, tick: Tick<'_>) -> Result<RangePage, Trouble> {
        self.reader.read_range(range, lane, tick).await
    }
}

impl Reader {
    /// The next page of a range. Asked again as failures and our patience allow; a rejected cursor starts the range again, once.
    ///
    /// # Errors
    /// The source cannot be read, refuses the range or leads nowhere. The range stands where it stood, or at its start.
    pub(crate) async fn read_range(
        &mut self,
        range: &mut Range,
        lane: Lane,
        tick: Tick<'_>,
    ) -> Result<RangePage, Trouble> {
        if range.pages >= range.purpose.pages_max() || range.empty_pages >= range.purpose.empty_pages_max() {
            return Err(Trouble::Stuck(range.purpose.has_no_end()));
        }
        loop {
            let request = match &range.cursor {
                Some(cursor) => PageRequest::Continue(cursor.clone()),
                None => PageRequest::Window { from: range.from, to: range.to, limit: self.page_limit.min(range.limit) },
            };
            let answer = match self.turn(&request, lane, tick, &mut range.walk).await? {
                Turn::Answer(answer) => answer,
                Turn::Again => continue,
                Turn::FromStart(trouble) => {
                    range.cursor = None;
                    trouble.map_or(Ok(()), Err)?;
                    continue;
                }
                Turn::Refused(error) if range.purpose == Purpose::Recovery => return Err(self.refused_start(&error)),
                Turn::Refused(error) => return Err(Trouble::Rejected(error)),
            };
            let (text, _) = decode::text(&answer.body);
            match decode::page(&text) {
                Ok(page) => {
                    let events = range.take(page)?;
                    return Ok(RangePage { body: answer.body.clone(), events });
                }
                Err(error) => self.pause_after_no_page(error, &mut range.walk).await?,
            }
        }
    }
}

impl Delivery {
    /// The keys among these that the ledger knows.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn known(&mut self, keys: &[EventKey]) -> Result<HashSet<EventKey>, Trouble> {
        let load = self.ledger.load(keys.iter().copied());
        until_stopped(&self.given.stop, Duration::ZERO, load).await.unwrap_or(Err(Trouble::Stopped))?;
        Ok(keys.iter().copied().filter(|key| self.ledger.attempt(key).is_some()).collect())
    }

    /// What of a page is new.
    pub(crate) fn sort(&mut self, page: &Page<'_>) -> Sorted {
        let mut sorted = dedupe::sort(&page.items, |key| self.ledger.attempt(key).is_some());
        self.notice_moved(page, &mut sorted);
        sorted
    }
}

impl Stand {
    /// Whether another process was seen to write this feed's checkpoint, or to wait for it, in the last minutes.
    pub(crate) fn has_company(&self) -> bool {
        self.company.is_some_and(|at| at.elapsed() < COMPANY)
    }

    pub(crate) fn notice_company(&mut self, age: Duration) {
        if age < COMPANY {
            self.company = Some(Instant::now());
        }
    }
}
