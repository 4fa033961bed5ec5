//! The clocks of an account: the source's, once it is believed, beside this host's.

use super::Reader;
use crate::agent::account::Account;
use crate::agent::given::Given;
use crate::agent::trouble::Trouble;
use crate::flow::Time;
use crate::flow::clock::{APART_MAX, Clocks, SECOND_OPINION_AFTER, in_words};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Doubted answers to one request before a run that ends by itself gives up.
const OPINIONS_MAX: u32 = 3;
/// A little more than a second opinion needs, whatever the timer rounds.
pub(crate) const OPINION_PAUSE: Duration = SECOND_OPINION_AFTER.saturating_add(Duration::from_secs(1));

/// The clocks of this host: the one on the wall, and one that nobody can set.
#[derive(Clone)]
pub struct HostClock {
    wall: Arc<dyn Fn() -> Time + Send + Sync>,
    began: Instant,
}

impl HostClock {
    pub fn new(wall: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self { wall: Arc::new(wall), began: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        (self.wall)()
    }

    pub(crate) fn runs_for(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Account {
    /// Hears the time of an answer. Nothing may move by one that is doubted.
    pub(crate) fn hear(&self, date: Time) -> Result<(), Trouble> {
        let mut judge = self.judge.lock();
        let was_sure = judge.is_sure();
        judge.hear(date, self.host.now(), self.host.runs_for()).map_err(Trouble::Clock)?;
        let is_news = judge.is_sure() && !was_sure;
        drop(judge);
        if let Some(apart) = self.clocks(date).disagree().filter(|_| is_news) {
            let (apart, remedy) =
                (in_words(apart), "find out which of the two is wrong, and set this host's clock if it is that one");
            tracing::warn!(account = %self.name, apart, remedy, "1Password's clock and this host's differ: 1Password's decides, two of its answers agree");
        }
        Ok(())
    }

    /// `date`: the source's time, believed.
    pub(crate) fn clocks(&self, date: Time) -> Clocks {
        Clocks { date, host: self.host.now() }
    }

    /// The clocks at this moment, however long ago the last answer was. Before the first one the source's is the host's.
    pub(crate) fn clocks_now(&self) -> Clocks {
        let judge = self.judge.lock();
        self.clocks(judge.now(self.host.runs_for()).unwrap_or_else(|| self.host.now()))
    }

    /// An answer was believed since the process began.
    pub(crate) fn has_heard(&self) -> bool {
        self.judge.lock().now(self.host.runs_for()).is_some()
    }

    /// Two answers a minute apart agree on the source's time.
    pub(crate) fn is_sure_of_the_time(&self) -> bool {
        self.judge.lock().is_sure()
    }
}

impl Given {
    pub(crate) fn clocks(&self) -> Clocks {
        self.account.clocks(self.date())
    }

    /// The clocks at this moment: by the last answer, unless that was long ago.
    pub(crate) fn clocks_now(&self) -> Clocks {
        let now = self.account.clocks_now();
        let is_fresh = (now.date - self.date()).abs().to_std().is_ok_and(|age| age <= APART_MAX);
        if is_fresh { Clocks { date: self.date(), ..now } } else { now }
    }

    /// Hears the time of an answer, the `asked`-th to this request. `false`: the same must be asked for once more. A run that ends by
    /// itself waits for the second opinion, which the next one would have to wait for as well; any other comes back with its next tick.
    pub(crate) async fn hear(&self, date: Time, asked: u32) -> Result<bool, Trouble> {
        match self.account.hear(date) {
            Ok(()) => Ok(true),
            Err(doubt) => self.wait_for_a_second_opinion(doubt, asked).await.map(|()| false),
        }
    }

    /// Fails with the doubt unless this run ends by itself: then it waits.
    pub(crate) async fn wait_for_a_second_opinion(&self, doubt: Trouble, asked: u32) -> Result<(), Trouble> {
        if !self.account.ends_by_itself() || asked >= OPINIONS_MAX {
            return Err(doubt);
        }
        let wait_s = OPINION_PAUSE.as_secs();
        tracing::warn!(feed = %self.id, wait_s, remedy = doubt.remedy(), "{doubt}: asking again");
        // Asked to end meanwhile, it says what it waited for: nothing was shipped, and that is no success.
        self.rest(OPINION_PAUSE).await.map_err(|_| doubt)
    }
}

impl Reader {
    /// The same introduction serves many ticks: only a new one is news of the clock.
    pub(crate) fn note_the_time(&mut self, date: Option<Time>) {
        match date {
            Some(date) if self.introduced == date => {}
            Some(date) => {
                self.introduced = date;
                self.given.set_date(date);
            }
            None if self.given.date() > Time::MIN_UTC => {}
            None => {
                self.given.set_date(self.given.clocks_now().date);
                tracing::warn!(feed = %self.given.id, now = %self.given.date(), "1Password has not told the time yet: this host's clock serves until it does");
            }
        }
    }
}
