//! Where a feed starts: the floor, which no re-read goes below. One that is too late loses events, one that is too early ships more.

use super::Stand;
use crate::agent::given::Given;
use crate::agent::reading::clock::OPINION_PAUSE;
use crate::agent::trouble::Trouble;
use crate::config::Lookback;
use crate::flow::checkpoint::{Checkpoint, Fingerprints};
use crate::flow::clock::{APART_MAX, Clocks, in_words};
use crate::flow::{Time, window};
use std::time::Duration;
use tokio::time::Instant;

/// How far back a feed starts again that was told to start now and whose checkpoint cannot be read; the ledger drops what is known.
const LOST_LOOKBACK: Duration = Duration::from_secs(30 * 86_400);
/// How far ahead of this host's clock 1Password's may be for the two to agree again.
const AGREE_MAX: Duration = Duration::from_secs(10 * 60);
/// How long a run that ends by itself waits to be sure of the time before it gives up on a floor that lies ahead.
const SURE_WAIT_MAX: Duration = OPINION_PAUSE.saturating_mul(3);

impl Given {
    /// The checkpoint of a feed that has none yet.
    ///
    /// # Errors
    /// The configured start lies ahead, or is "now" and the clocks do not agree on when that is.
    pub(crate) fn first(&self, fingerprints: &Fingerprints) -> Result<Checkpoint, Trouble> {
        self.first_from(fingerprints, self.settings.lookback)
    }

    /// The checkpoint of a feed whose own cannot be read: never from now, or what came since its last write would be lost.
    pub(crate) fn first_again(&self, fingerprints: &Fingerprints) -> Result<Checkpoint, Trouble> {
        let lookback = match self.settings.lookback {
            Lookback::Now => Lookback::Back(LOST_LOOKBACK),
            lookback @ (Lookback::Back(_) | Lookback::From(_)) => lookback,
        };
        self.first_from(fingerprints, lookback)
    }

    fn first_from(&self, fingerprints: &Fingerprints, lookback: Lookback) -> Result<Checkpoint, Trouble> {
        let clocks = self.clocks_now();
        let now = clocks.earlier();
        let floor = match (lookback, clocks.disagree()) {
            (Lookback::Back(by), _) => window::earlier(now, by),
            (Lookback::From(time), _) if time > clocks.date.max(clocks.host) => return Err(starts_later(time)),
            (Lookback::From(time), _) => time.min(now),
            (Lookback::Now, Some(apart)) => return Err(whose_now(apart)),
            (Lookback::Now, None) => now,
        };
        let floor = floor.max(window::reach(clocks));
        Ok(window::first(&self.id, fingerprints.clone(), floor, clocks, &self.settings.widths))
    }

    /// Whether to look again: the stored floor lies ahead of the present, and it is not yet sure that it is the floor that is wrong. A
    /// floor that a wrong clock made is replaced, with every position beside it, where nothing was shipped under it.
    pub(crate) async fn has_a_floor_to_come(
        &self,
        cp: &mut Checkpoint,
        fingerprints: &Fingerprints,
        started: Instant,
    ) -> Result<bool, Trouble> {
        let clocks = self.clocks_now();
        if cp.floor <= window::later(clocks.date, APART_MAX) {
            return Ok(false);
        }
        let what = format!("the position starts at {}, and it is {} by 1Password's clock", cp.floor, clocks.date);
        if cp.totals.shipped > 0 || clocks.disagree().is_some() {
            let remedy = "if this host's clock is wrong, set it; if it is right, the clock was wrong when this feed was first started: \
                run `opship checkpoint reset`, which starts at the lookback and ships nothing twice";
            return Err(Trouble::Halted { what, remedy: remedy.into() });
        }
        if !self.account.is_sure_of_the_time() {
            self.account.forget();
            let remedy = "nothing: the feed starts anew as soon as a second answer, a minute later, agrees on the time";
            let unsure = Trouble::Halted { what, remedy: remedy.into() };
            if self.account.ends_by_itself() && started.elapsed() < SURE_WAIT_MAX {
                // Asked to end meanwhile, it says what it waited for: nothing was shipped, and that is no success.
                self.rest(OPINION_PAUSE).await.map_err(|_| unsure)?;
                return Ok(true);
            }
            return Err(unsure);
        }
        let fresh = self.first(fingerprints)?;
        tracing::error!(feed = %self.id, stored = %cp.floor, floor = %fresh.floor, remedy = "nothing: it is mended; find out whose clock was wrong at the first start",
            "the position was to start in the future, and nothing was shipped: it starts at the lookback again");
        let (mut slot, totals) = (cp.slot.clone(), std::mem::take(&mut cp.totals));
        slot.forget_advance();
        let unknown = std::mem::take(&mut cp.unknown);
        *cp = Checkpoint { slot, totals, unknown, ..fresh };
        Ok(false)
    }
}

impl Stand {
    /// While the source's clock is ahead of this host's, one of the two is wrong, and nobody knows which: where the marks stood before is kept.
    pub(crate) fn keep_sure_marks(&mut self) {
        if is_ahead_of_the_host(self.given.clocks_now()) {
            self.position.iter_mut().for_each(|position| position.cp.keep_sure_marks());
        }
    }

    /// Takes back the marks that a wrong time of the source has moved: what lies before them was perhaps not there yet when it was read.
    /// That shows when the clocks agree again, or when marks are ahead of both. From where they were right all is read again, as far as
    /// the ledger knows what was shipped.
    pub(crate) fn mend_marks(&mut self) {
        // This host's clock agrees with itself: nothing shows before 1Password has told the time.
        if !self.given.account.has_heard() {
            return;
        }
        let clocks = self.given.clocks_now();
        // Closer than what sets it, or a clock on the edge would set and clear it in turn.
        let is_sure = clocks.date <= window::later(clocks.host, AGREE_MAX);
        // Where this host's clock agrees with the marks, it is 1Password's that is wrong now, and they are right.
        let latest = window::later(clocks.date.max(clocks.host), APART_MAX);
        let known = window::earlier(clocks.earlier(), self.given.settings.ledger_keep);
        let Some(position) = &mut self.position else { return };
        let cp = &mut position.cp;
        // A late sweep that is due in the future counts as due.
        let is_ahead = [cp.watermark, cp.sweep_mark, cp.late_mark].iter().any(|mark| *mark > latest);
        if !is_ahead && (!is_sure || cp.sure.is_none()) {
            return self.keep_sure_marks();
        }
        let from = window::reached(cp, known, clocks);
        let back = |mark: Time| if mark > latest { from } else { mark };
        let (sweep_mark, late_mark) = match &cp.sure {
            Some(sure) => (from.max(back(sure.sweep_mark)), from.max(back(sure.late_mark))),
            None => (back(cp.sweep_mark), back(cp.late_mark)),
        };
        if is_ahead {
            tracing::error!(feed = %self.given.id, watermark = %cp.watermark, now = %clocks.date, from = %sweep_mark, remedy = "nothing: find out whose clock was wrong, 1Password's or a proxy's on the way",
                "the position is ahead of the present, because a wrong time was believed: events are read again from where it is sure");
        } else if cp.sweep_mark > sweep_mark || cp.late_mark > late_mark {
            tracing::warn!(feed = %self.given.id, from = %sweep_mark, remedy = "nothing: what was shipped is not shipped again",
                "1Password's clock is not ahead of this host's any more: events are read again from before it was");
        }
        cp.take_marks_back(sweep_mark, late_mark);
        if is_ahead {
            cp.watermark = cp.watermark.min(cp.sweep_mark);
        }
        cp.sure = None;
        self.keep_sure_marks();
    }
}

fn is_ahead_of_the_host(clocks: Clocks) -> bool {
    clocks.date > window::later(clocks.host, APART_MAX)
}

fn starts_later(time: Time) -> Trouble {
    let what = format!("schedule.lookback is {time}, which is still to come");
    let remedy = "nothing, if that is meant: the feed starts then; otherwise set an earlier time or a duration";
    Trouble::Halted { what, remedy: remedy.into() }
}

fn whose_now(apart: Duration) -> Trouble {
    let what = format!(
        "schedule.lookback is \"now\", and 1Password's clock and this host's are {} apart: from which of the two on events are shipped \
         is not for this program to guess",
        in_words(apart)
    );
    let remedy = "set this host's clock if it is wrong; or set schedule.lookback to the RFC 3339 time at which the other connector stops";
    Trouble::Halted { what, remedy: remedy.into() }
}
