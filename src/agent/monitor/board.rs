//! What each feed is doing and what it has done since the process started: written by the agent, read by the admin pages and the
//! metrics. Nothing in the delivery depends on it.

pub use super::account_panel::AccountPanel;
pub use super::moment::Moment;
pub use super::view::{LATENESS_BOUNDS, LedgerSize, Minute, Notice, Phase, Retrying, Standing, View};

use super::view::Accepted;
use crate::agent::Drained;
use crate::agent::hurry::pause_asked_for;
use crate::agent::trouble::{Trouble, Waiting};
use crate::config::Timer;
use crate::flow::checkpoint::Checkpoint;
use crate::flow::retry::{Edge, Failure};
use crate::flow::{AccountName, FeedId, Time};
use crate::schedule::{next_beat, ticks_take};
use crate::source::{BudgetLeft, Source};
use chrono::Utc;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Longer than anything that a tick waits for, the hourly share of the request budget included: a feed that has not moved for so long
/// hangs.
pub const STILL_MAX: Duration = Duration::from_secs(2 * 3600);

/// Every feed of the process.
pub struct Board {
    pub started: Moment,
    timer: Timer,
    panels: BTreeMap<FeedId, Arc<Panel>>,
    accounts: BTreeMap<AccountName, Arc<AccountPanel>>,
    sources: Mutex<BTreeMap<AccountName, Arc<dyn Source>>>,
    /// What keeps all feeds from starting.
    obstacle: Mutex<Option<Notice>>,
    news: watch::Sender<u64>,
}

/// One feed.
pub struct Panel {
    view: Mutex<View>,
    account: Arc<AccountPanel>,
    /// The end of the longest pause that a service has asked for.
    asked_until: Mutex<Option<Instant>>,
    news: watch::Sender<u64>,
}

impl Board {
    pub fn new(feeds: impl IntoIterator<Item = FeedId>, timer: Timer) -> Self {
        let news = watch::Sender::new(0);
        let (mut panels, mut accounts) = (BTreeMap::new(), BTreeMap::new());
        for id in feeds {
            let account =
                accounts.entry(id.account.clone()).or_insert_with(|| Arc::new(AccountPanel::new(news.clone())));
            let panel = Panel { account: account.clone(), news: news.clone(), ..Panel::default() };
            panels.insert(id, Arc::new(panel));
        }
        let (sources, obstacle) = (Mutex::default(), Mutex::default());
        Self { started: Moment::now(), timer, panels, accounts, sources, obstacle, news }
    }

    /// What the feeds of an account show together; what nobody sees when none is on the board.
    pub fn account(&self, name: &AccountName) -> Arc<AccountPanel> {
        self.accounts.get(name).cloned().unwrap_or_default()
    }

    /// The panel of a feed; one that nobody reads when the feed is not on the board.
    pub fn panel(&self, id: &FeedId) -> Arc<Panel> {
        self.panels.get(id).cloned().unwrap_or_default()
    }

    pub fn views(&self) -> impl Iterator<Item = (&FeedId, View)> {
        self.panels.iter().map(|(id, panel)| (id, panel.view()))
    }

    /// Changes whenever a panel does.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Whose request budget is shown.
    pub fn shows(&self, account: &AccountName, source: Arc<dyn Source>) {
        held(&self.sources).insert(account.clone(), source);
    }

    /// What each account may still ask for at this moment.
    pub fn budgets(&self) -> Vec<(AccountName, BudgetLeft)> {
        let sources = held(&self.sources);
        sources.iter().filter_map(|(account, source)| Some((account.clone(), source.budget_left()?))).collect()
    }

    /// Says what keeps all feeds from starting, or that nothing does any more.
    pub fn meets(&self, obstacle: Option<Notice>) {
        let mut held = held(&self.obstacle);
        *held = obstacle.map(|notice| match held.take() {
            Some(last) if last.what == notice.what => Notice { times: last.times + 1, ..notice },
            _ => notice,
        });
        drop(held);
        self.news.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub fn obstacle(&self) -> Option<Notice> {
        held(&self.obstacle).clone()
    }

    /// When the feed's next tick begins, as far as one can tell; none while a tick is under way and at the end.
    pub fn next_tick(&self, view: &View, now: Moment) -> Option<Time> {
        let paused_until = view.paused_until.map(|until| until.shown(now));
        match view.phase {
            Phase::Starting | Phase::Ticking | Phase::Stopped => None,
            Phase::CatchingUp => view.since.map(|since| since.shown(now)),
            Phase::Waiting(Waiting::Standby) if paused_until.is_some() => paused_until,
            Phase::Resting | Phase::Waiting(_) => {
                let began = view.tick_began.map(|began| began.shown(now));
                began.and_then(|began| next_beat(&self.timer, began)).max(paused_until)
            }
        }
    }

    /// How long so many ticks of the timer take from now on; cron's are not equally long.
    pub fn ticks_take(&self, ticks: u32) -> Duration {
        ticks_take(&self.timer, ticks, Utc::now())
    }

    /// Feeds that have not moved for longer than anything may take. Nothing outside, were it away for days, makes a feed hang: its tick
    /// ends with trouble and the next one begins.
    pub fn hung(&self) -> Vec<&FeedId> {
        let now = Moment::now();
        let hangs = |view: &View| {
            let Some(moved) = view.moved else { return false };
            let waits =
                self.next_tick(view, now).zip(view.since).map(|(next, since)| (next - since.shown(now)).to_std());
            let waits = waits.and_then(Result::ok).unwrap_or_default();
            view.phase != Phase::Stopped && moved.elapsed() > STILL_MAX.saturating_add(waits)
        };
        self.panels.iter().filter(|(_, panel)| hangs(&panel.view())).map(|(id, _)| id).collect()
    }
}

/// Nothing half done is left by a panic elsewhere.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl Default for Panel {
    fn default() -> Self {
        Self {
            view: Mutex::default(),
            account: Arc::default(),
            asked_until: Mutex::default(),
            news: watch::Sender::new(0),
        }
    }
}

impl Panel {
    pub fn view(&self) -> View {
        let view = held(&self.view).clone();
        View { account: self.account.view(), ..view }
    }

    fn note(&self, change: impl FnOnce(&mut View)) {
        let mut view = held(&self.view);
        view.moved = Some(Instant::now());
        change(&mut view);
        drop(view);
        self.news.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn tick_began(&self) {
        self.note(View::began);
    }

    /// What a tick ended with that was stopped while its requests failed says so.
    pub(crate) fn cut(&self, trouble: Trouble) -> Trouble {
        let mut retrying = None;
        self.note(|view| retrying = view.retrying.clone());
        match (trouble, retrying) {
            (Trouble::Stopped, Some(Retrying { what, waiting, remedy, .. })) => Trouble::Cut { what, waiting, remedy },
            (trouble, _) => trouble,
        }
    }

    /// `pause`: how long the feed is left alone beyond its timer.
    pub(crate) fn tick_ended(&self, outcome: &Result<Drained, Trouble>, pause: Duration) {
        self.note(|view| match outcome {
            Ok(drained) => view.went_well(drained),
            Err(trouble) => view.met(trouble, pause),
        });
    }

    pub(crate) fn stopped(&self) {
        self.note(|view| view.enter(Phase::Stopped));
    }

    pub(crate) fn skipped(&self, ticks: u64) {
        self.note(|view| view.counts.ticks_skipped += ticks);
    }

    pub(crate) fn page_read(&self, bytes: usize) {
        self.note(|view| view.page_read(bytes));
    }

    /// A request that was not answered as it should be.
    pub(crate) fn failed(&self, edge: Edge, failure: &Failure) {
        let asked = Instant::now() + pause_asked_for(failure);
        let mut until = held(&self.asked_until);
        *until = until.max(Some(asked));
        drop(until);
        self.note(|view| view.failed(edge, failure));
    }

    /// How long the pauses still last that services asked for.
    pub(crate) fn asked_to_wait(&self) -> Duration {
        held(&self.asked_until).map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn doubted(&self, rows: u64) {
        self.note(|view| {
            view.counts.doubted_batches += 1;
            view.counts.doubted_rows += rows;
        });
    }

    /// A batch that recovery settled.
    pub(crate) fn recovered(&self, rows: u64, dead_letters: u64) {
        self.note(|view| view.recovered(rows, dead_letters));
        self.account.accepted();
    }

    pub(crate) fn accepted(&self, batch: &Accepted<'_>) {
        self.note(|view| view.accepted(batch));
        self.account.accepted();
    }

    pub(crate) fn stands(&self, cp: &Checkpoint) {
        self.note(|view| view.stands(cp));
    }

    pub(crate) fn letters(&self, waiting: usize) {
        self.note(|view| view.letters = waiting as u64);
    }

    pub(crate) fn introduced(&self, expires: Option<Time>) {
        self.note(|view| view.introduced(expires));
    }

    pub(crate) fn ledger(&self, (segments, ids): (usize, usize)) {
        self.note(|view| view.ledger = LedgerSize { segments: segments as u64, ids: ids as u64 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Stream;

    const MINUTE: Duration = Duration::from_secs(60);

    fn board(timer: Timer) -> (Board, Arc<Panel>) {
        let account = AccountName::parse("default").unwrap();
        let id = FeedId { account, stream: Stream::AuditEvents };
        let board = Board::new([id.clone()], timer);
        let panel = board.panel(&id);
        (board, panel)
    }

    #[tokio::test(start_paused = true)]
    async fn a_tick_that_stands_still_for_hours_hangs_and_one_that_moves_does_not() {
        let (board, panel) = board(Timer::Every(MINUTE));
        tokio::time::advance(STILL_MAX * 3).await;
        assert!(board.hung().is_empty(), "before the first tick there is nothing to hang");
        panel.tick_began();
        for _ in 0..3 {
            tokio::time::advance(STILL_MAX).await;
            assert!(board.hung().is_empty());
            panel.page_read(1);
        }
        tokio::time::advance(STILL_MAX + MINUTE).await;
        assert_eq!(board.hung().len(), 1);
        panel.page_read(1);
        assert!(board.hung().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_that_rests_until_its_timer_does_not_hang_but_one_that_oversleeps_does() {
        let day = Duration::from_secs(86_400);
        let (board, panel) = board(Timer::Every(day));
        panel.tick_began();
        panel.tick_ended(&Ok(Drained::default()), Duration::ZERO);
        tokio::time::advance(day + MINUTE).await;
        assert!(board.hung().is_empty());
        tokio::time::advance(STILL_MAX).await;
        assert_eq!(board.hung().len(), 1);
        panel.stopped();
        tokio::time::advance(day * 2).await;
        assert!(board.hung().is_empty(), "a stopped feed has nothing left to do");
    }

    /// Fault: the host's clock is set back by forty days after a tick began, and the feed then stands still. Shows: it hangs after its time, not after forty days more, and its next tick is no further away than the timer's.
    #[tokio::test(start_paused = true)]
    async fn fm_47_a_feed_that_stands_still_hangs_though_the_clock_was_set_back() {
        let (board, panel) = board(Timer::Every(MINUTE));
        panel.tick_began();
        if let Some(began) = &mut held(&panel.view).tick_began {
            began.at += MINUTE * 60 * 24 * 40;
        }
        panel.tick_ended(&Ok(Drained::default()), Duration::ZERO);
        let now = Moment::now();
        assert!(board.next_tick(&panel.view(), now).is_some_and(|next| next <= now.at + MINUTE));
        tokio::time::advance(MINUTE).await;
        assert!(board.hung().is_empty());
        tokio::time::advance(STILL_MAX + MINUTE).await;
        assert_eq!(board.hung().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_outside_is_no_reason_to_hang() {
        let (board, panel) = board(Timer::Every(MINUTE));
        for _ in 0..100 {
            panel.tick_began();
            panel.tick_ended(&Err(Trouble::CoolingDown { left: MINUTE * 15 }), MINUTE * 15);
            tokio::time::advance(MINUTE * 15).await;
            assert!(board.hung().is_empty());
        }
        assert_eq!(panel.view().notices.len(), 1, "the same trouble is one notice");
        assert_eq!(panel.view().notices[0].times, 100);
    }

    #[test]
    fn the_next_tick_is_the_timer_s_or_the_end_of_a_pause_whichever_is_later() {
        let (board, panel) = board(Timer::Cron("0 0 * * * *".into()));
        assert_eq!(board.next_tick(&panel.view(), Moment::now()), None);
        panel.tick_began();
        assert_eq!(board.next_tick(&panel.view(), Moment::now()), None);
        panel.tick_ended(&Ok(Drained::default()), Duration::ZERO);
        let next = board.next_tick(&panel.view(), Moment::now()).unwrap();
        assert_eq!(next.timestamp() % 3600, 0);
        assert!(next > Utc::now() - Duration::from_secs(1) && next <= Utc::now() + Duration::from_secs(3600));
        panel.tick_ended(&Err(Trouble::CoolingDown { left: MINUTE }), MINUTE * 200);
        assert!(board.next_tick(&panel.view(), Moment::now()).unwrap() > Utc::now() + MINUTE * 199);
    }
}
