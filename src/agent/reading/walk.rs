//! walk: a way through the source's pages, and one answer to each thing that may go wrong on it, whoever walks: the cursor, a sweep, a
//! command's range, a recovery's window.
//!
//! | what comes | answer |
//! |---|---|
//! | an answer that is no page | asked again after a pause; the third in a row is trouble |
//! | a page over the body cap | half as many items; behind a cursor from the start of the walk, because cursors keep their limit |
//! | a rejected cursor | from the start of the walk; the second is trouble, and the walk starts again when it is next taken up |
//! | a rejected start | trouble |
//! | a cursor that this walk has used | trouble, and the walk starts again when it is next taken up |
//! | more pages than a tick may take | the walk goes on with the next; trouble where nothing came of it |
//! | more pages than a range may have, or too many empty ones of a command's in a row | trouble |

use super::{PAGE_LIMIT, Reader};
use crate::agent::Tick;
use crate::agent::position::until_stopped;
use crate::agent::trouble::{Trouble, chain};
use crate::flow::Cursor;
use crate::flow::attempts::Attempts;
use crate::flow::clock::in_words;
use crate::flow::page::DecodeError;
use crate::flow::retry::Patience;
use crate::source::{Answer, Lane, PageRequest, SourceError};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

/// Answers in a row that are no page before a walk is given up.
const THRICE: Patience = Patience { attempts_max: 3, ..Patience::ONCE };
/// Pages that have to fit before a limit that was halved is doubled.
const GOOD_PAGES: u32 = 20;

/// What the pages of one walk have shown so far.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Whose it is, for the log.
    name: &'static str,
    /// Cursors used; forgotten when the walk starts again, because the same ones may be handed out then.
    seen: HashSet<Cursor>,
    /// The next page, fetched while the one before was delivered.
    pub(crate) fetched: Option<Answer>,
    /// Since the last page that was one.
    no_pages: Option<Attempts>,
    /// A cursor was rejected: a second one is trouble, else a source that rejects them all is asked without end.
    is_rejected: bool,
}

/// What a request brought.
pub(crate) enum Turn {
    /// An answer, which may still be no page.
    Answer(Answer),
    /// The same is asked again, for fewer items.
    Again,
    /// The walk starts again: at once, or, where this is trouble, when it is next taken up.
    FromStart(Option<Trouble>),
    /// There is no other start to ask for.
    Refused(SourceError),
}

impl Walk {
    pub(crate) fn of(name: &'static str) -> Self {
        Self { name, seen: HashSet::new(), fetched: None, no_pages: None, is_rejected: false }
    }

    /// Whether this cursor leads back to where the walk has been.
    pub(crate) fn has_used(&self, cursor: &Cursor) -> bool {
        self.seen.contains(cursor)
    }

    /// A page was taken.
    pub(crate) fn goes_on(&mut self) {
        self.no_pages = None;
    }
}

impl Reader {
    /// The answer to `request`, fetched ahead or asked for now.
    pub(crate) async fn turn(
        &mut self,
        request: &PageRequest,
        lane: Lane,
        tick: Tick<'_>,
        walk: &mut Walk,
    ) -> Result<Turn, Trouble> {
        if let PageRequest::Continue(cursor) = request {
            walk.seen.insert(cursor.clone());
        }
        // One whose time is doubted is asked for again.
        let fetched = walk.fetched.take().filter(|answer| self.given.account.hear(answer.date).is_ok());
        if let Some(answer) = fetched {
            return Ok(Turn::Answer(answer));
        }
        match (self.poll(request, lane, tick).await, request) {
            (Ok(answer), _) => Ok(Turn::Answer(answer)),
            (Err(Trouble::TooLarge(_)), PageRequest::Continue(_)) => {
                self.halve_page_limit()?;
                walk.seen.clear();
                Ok(Turn::FromStart(None))
            }
            (Err(Trouble::TooLarge(_)), _) => self.halve_page_limit().map(|()| Turn::Again),
            (Err(Trouble::Rejected(error)), PageRequest::Continue(_)) => {
                tracing::warn!(feed = %self.given.id, walk = walk.name, error = %chain(&error), "a cursor was rejected: starting again");
                walk.seen.clear();
                let is_second = std::mem::replace(&mut walk.is_rejected, true);
                Ok(Turn::FromStart(is_second.then_some(Trouble::Rejected(error))))
            }
            (Err(Trouble::Rejected(error)), _) => Ok(Turn::Refused(error)),
            (Err(trouble), _) => Err(trouble),
        }
    }

    /// An answer was no page of events: a pause before the same is asked again, or trouble.
    pub(crate) async fn pause_after_no_page(&mut self, error: DecodeError, walk: &mut Walk) -> Result<(), Trouble> {
        let attempts = walk.no_pages.get_or_insert_with(|| Attempts::new(THRICE, &mut self.jitter));
        attempts.begin();
        let ControlFlow::Continue(wait) = attempts.pause(Duration::ZERO, None) else {
            return Err(Trouble::Malformed(error));
        };
        tracing::warn!(feed = %self.given.id, walk = walk.name, error = %error, "an answer is no page of events: asking again");
        self.given.rest(wait).await
    }

    fn halve_page_limit(&mut self) -> Result<(), Trouble> {
        if self.page_limit <= 1 {
            return Err(Trouble::Halted {
                what: format!("a single {} item is larger than the body cap", self.given.id.stream),
                remedy: "report this to the maintainers: no event of that size is known".into(),
            });
        }
        self.page_limit /= 2;
        self.good_pages = 0;
        tracing::warn!(feed = %self.given.id, limit = self.page_limit, "a page was over the body cap: asking for fewer items");
        Ok(())
    }

    /// One page was taken: after enough of them what made pages too large is past.
    pub(crate) fn ask_for_more(&mut self) {
        if self.page_limit >= PAGE_LIMIT {
            return;
        }
        self.good_pages += 1;
        if self.good_pages >= GOOD_PAGES {
            self.page_limit = self.page_limit.saturating_mul(2).min(PAGE_LIMIT);
            self.good_pages = 0;
            tracing::info!(feed = %self.given.id, limit = self.page_limit, "pages fit again: asking for more items");
        }
    }

    /// A refused start is never answered by another one.
    pub(crate) fn refused_start(&self, error: &SourceError) -> Trouble {
        // The times came from a clock that may have gone stale: the next try asks for it anew.
        self.given.account.forget();
        let remedy = match self.given.clocks().disagree() {
            Some(apart) => format!(
                "the source refuses a start time or window, and its clock and this host's are {} apart: find out which of them is \
                wrong, and set this host's clock if it is that one",
                in_words(apart)
            ),
            None => "the source refuses a start time or window that this program computed: check schedule.lookback, and report it".into(),
        };
        Trouble::Halted { what: chain(error), remedy }
    }
}

/// Reading changes nothing at the source: once the process is asked to end, it is dropped.
pub(crate) async fn until_stopped_reading<T>(
    stop: &tokio_util::sync::CancellationToken,
    read: impl Future<Output = T>,
) -> Result<T, Trouble> {
    let read = async { Ok::<T, Trouble>(read.await) };
    until_stopped(stop, Duration::ZERO, read).await.unwrap_or(Err(Trouble::Stopped))
}
