//! Where the position's own walks start again, and what a cursor means that makes no progress.

use super::Stand;
use crate::agent::reading::progress;
use crate::agent::trouble::Trouble;
use crate::flow::checkpoint::Which;

/// Ticks with a repeated cursor before it is an error, and before the cursor counts as rejected.
const STUCK_TICKS_ERROR: u32 = 3;
const STUCK_TICKS_REJECTED: u32 = 10;

impl Stand {
    /// The stream starts again behind the sweep mark, a sweep with its window.
    pub(crate) fn start_again(&mut self, sweep: Option<Which>) -> Result<(), Trouble> {
        let Some(which) = sweep else { return self.reset_cursor() };
        if let Some(progress) = progress(&mut self.position()?.cp, which) {
            progress.cursor = None;
        }
        Ok(())
    }

    fn reset_cursor(&mut self) -> Result<(), Trouble> {
        let cp = &mut self.position()?.cp;
        (cp.cursor, cp.cursor_born, cp.stuck_ticks) = (None, None, 0);
        cp.totals.cursor_resets += 1;
        Ok(())
    }

    /// A cursor came back that this walk has used already.
    pub(crate) fn led_back(&mut self, sweep: Option<Which>, items: usize) -> Result<(), Trouble> {
        if sweep.is_some() {
            self.start_again(sweep)?;
            return Err(Trouble::Stuck("a sweep made no progress and starts its window again with the next tick"));
        }
        let cp = &mut self.position()?.cp;
        cp.stuck_ticks += 1;
        cp.totals.cursor_repeats += 1;
        if cp.stuck_ticks >= STUCK_TICKS_REJECTED {
            tracing::warn!(feed = %self.given.id, "the cursor has made no progress for {STUCK_TICKS_REJECTED} ticks: starting again behind the sweep mark");
            return self.reset_cursor();
        }
        if items > 0 || cp.stuck_ticks >= STUCK_TICKS_ERROR {
            return Err(Trouble::Stuck("the sweeps carry the feed meanwhile"));
        }
        Ok(())
    }
}
