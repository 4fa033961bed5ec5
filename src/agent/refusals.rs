//! What a refused request or a repeated cursor leads to: another start, a smaller page, or trouble.

use super::Feed;
use super::reading::{PAGE_LIMIT, Reads, progress};
use super::trouble::{Trouble, chain};
use crate::flow::checkpoint::Which;
use crate::flow::clock::in_words;
use crate::source::{PageRequest, SourceError};

/// Pages that have to fit before a limit that was halved is doubled.
const GOOD_PAGES: u32 = 20;
/// Ticks with a repeated cursor before it is an error, and before the cursor counts as rejected.
const STUCK_TICKS_ERROR: u32 = 3;
const STUCK_TICKS_REJECTED: u32 = 10;

impl Feed {
    /// A refused cursor starts the stream again behind the sweep mark, a sweep its window; a refused start is never answered by
    /// another one.
    pub(super) fn answer_refusal(
        &mut self,
        sweep: Option<Which>,
        request: &PageRequest,
        trouble: Trouble,
        reads: &mut Reads,
    ) -> Result<(), Trouble> {
        match (request, trouble) {
            (PageRequest::Continue(_), Trouble::Rejected(error)) => {
                tracing::warn!(feed = %self.id, ?sweep, error = %chain(&error), "a cursor was rejected: starting again");
                self.start_again(sweep, reads)?;
                if std::mem::replace(&mut reads.rejected, true) { Err(Trouble::Rejected(error)) } else { Ok(()) }
            }
            (PageRequest::Continue(_), Trouble::TooLarge(_)) => {
                self.halve_page_limit()?;
                self.start_again(sweep, reads)
            }
            (_, Trouble::TooLarge(_)) => self.halve_page_limit(),
            (_, Trouble::Rejected(error)) => Err(self.refused_start(&error)),
            (_, trouble) => Err(trouble),
        }
    }

    fn start_again(&mut self, sweep: Option<Which>, reads: &mut Reads) -> Result<(), Trouble> {
        reads.seen.clear();
        match sweep {
            Some(which) => self.restart_sweep(which),
            None => self.reset_cursor(),
        }
    }

    fn reset_cursor(&mut self) -> Result<(), Trouble> {
        let cp = &mut self.position()?.cp;
        (cp.cursor, cp.cursor_born, cp.stuck_ticks) = (None, None, 0);
        cp.totals.cursor_resets += 1;
        Ok(())
    }

    pub(super) fn restart_sweep(&mut self, which: Which) -> Result<(), Trouble> {
        if let Some(progress) = progress(&mut self.position()?.cp, which) {
            progress.cursor = None;
        }
        Ok(())
    }

    pub(super) fn halve_page_limit(&mut self) -> Result<(), Trouble> {
        if self.page_limit <= 1 {
            return Err(Trouble::Halted {
                what: format!("a single {} item is larger than the body cap", self.id.stream),
                remedy: "report this to the maintainers: no event of that size is known".into(),
            });
        }
        self.page_limit /= 2;
        self.good_pages = 0;
        tracing::warn!(feed = %self.id, limit = self.page_limit, "a page was over the body cap: asking for fewer items");
        Ok(())
    }

    /// One page was taken: after enough of them what made pages too large is past.
    pub(super) fn ask_for_more(&mut self) {
        if self.page_limit >= PAGE_LIMIT {
            return;
        }
        self.good_pages += 1;
        if self.good_pages >= GOOD_PAGES {
            self.page_limit = self.page_limit.saturating_mul(2).min(PAGE_LIMIT);
            self.good_pages = 0;
            tracing::info!(feed = %self.id, limit = self.page_limit, "pages fit again: asking for more items");
        }
    }

    pub(super) fn refused_start(&self, error: &SourceError) -> Trouble {
        // The times came from a clock that may have gone stale: the next try asks for it anew.
        self.account.forget();
        let remedy = match self.clocks().disagree() {
            Some(apart) => format!(
                "the source refuses a start time or window, and its clock and this host's are {} apart: find out which of them is \
                wrong, and set this host's clock if it is that one",
                in_words(apart)
            ),
            None => "the source refuses a start time or window that this program computed: check schedule.lookback, and report it".into(),
        };
        Trouble::Halted { what: chain(error), remedy }
    }

    /// A cursor came back that this tick has used already.
    pub(super) fn stuck(&mut self, items: usize) -> Result<(), Trouble> {
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
