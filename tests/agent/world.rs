//! The outside world of a feed: one source, one sink, one store, one clock, and processes that come and go.

use crate::dice::Dice;
use crate::faults::{Kind, Struck};
use crate::link::Link;
use crate::oracle::Seen;
use crate::sink::{Outcome, Table};
use crate::source::{Archive, Event, Order, Reply};
use crate::store::{Container, Fault, Op};
use chrono::{SubsecRound, TimeDelta};
use opship::agent::account::Account;
use opship::agent::monitor::board::Panel;
use opship::agent::reading::clock::HostClock;
use opship::agent::{Drained, Feed, Parts, Replayed, Settings, Tick, Trouble};
use opship::config::Lookback;
use opship::flow::checkpoint::{Checkpoint, Decoded};
use opship::flow::redact::Redact;
use opship::flow::retry::Patience;
use opship::flow::window::Widths;
use opship::flow::{AccountName, FeedId, Stream, Time};
use opship::source::PageRequest;
use opship::store::dead_letters::DeadLetter;
use opship::store::owners::Owners;
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

pub(crate) const CHECKPOINT: &str = "checkpoints/default/itemusages.json";
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const ROWS_MAX: usize = 4;

/// Everything outside the process.
pub(crate) struct State {
    pub(crate) source: Archive,
    pub(crate) sink: Table,
    pub(crate) store: Container,
    pub(crate) dice: Dice,
    /// Longest way of a call, in milliseconds.
    pub(crate) latency_ms_max: u64,
    pub(crate) begun: Instant,
    pub(crate) struck: Struck,
    /// Calls to and from the outside.
    pub(crate) steps: u64,
    /// Each commit is held against the table; for worlds whose every event becomes a row.
    pub(crate) is_watched: bool,
    pub(crate) seen: Seen,
    /// What had been written and posted when a task panicked.
    pub(crate) effects_at_panic: Option<(u64, usize)>,
    /// The configured lookback of the seeded runs.
    pub(crate) lookback: Option<TimeDelta>,
    /// What the host's clock is ahead by.
    pub(crate) host_skew: TimeDelta,
    base: Time,
}

impl State {
    pub(crate) fn now(&self) -> Time {
        self.base + TimeDelta::from_std(self.begun.elapsed()).expect("short runs")
    }

    /// The source's `Date` header: whole seconds of its own clock.
    pub(crate) fn date(&self) -> Time {
        (self.now() + self.source.skew).trunc_subsecs(0)
    }

    /// What an answer of the source says, which a wrong server may get wrong.
    pub(crate) fn answer_date(&mut self) -> Time {
        let (date, now) = (self.date(), Instant::now());
        if self.source.right_before > 0 {
            self.source.right_before -= 1;
            return date;
        }
        let wrong = self.source.wrong_dates.as_mut().filter(|wrong| wrong.left > 0 && now <= wrong.until);
        let Some(wrong) = wrong else { return date };
        wrong.left -= 1;
        let said = date + wrong.by;
        self.struck.by(Kind::WrongDate);
        said
    }

    /// Writes of the store, POSTs begun.
    pub(crate) fn effects(&self) -> (u64, usize) {
        (self.store.writes, self.sink.begun)
    }

    pub(crate) fn latency(&mut self) -> Duration {
        Duration::from_millis(1 + self.dice.below(self.latency_ms_max))
    }
}

pub(crate) struct World {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) settings: Settings,
    pub(crate) patience: Patience,
    pub(crate) standby_max: Duration,
    pub(crate) crashes: u64,
    pub(crate) stream: Stream,
    /// The feeds of the configuration, for what a refused entry is told.
    pub(crate) configured: BTreeSet<FeedId>,
    started: u64,
}

impl World {
    pub(crate) fn new(order: Order) -> Self {
        Self::seeded(order, 1)
    }

    pub(crate) fn seeded(order: Order, seed: u64) -> Self {
        let state = State {
            source: Archive::new(order),
            sink: Table::new(),
            store: Container::new(),
            dice: Dice::new(seed),
            latency_ms_max: 1,
            begun: Instant::now(),
            struck: Struck::none(),
            steps: 0,
            is_watched: false,
            seen: Seen::default(),
            effects_at_panic: None,
            host_skew: TimeDelta::zero(),
            lookback: None,
            base: "2026-11-22T10:00:00Z".parse().expect("a date"),
        };
        let widths = Widths { overlap: 5 * MINUTE, late_every: HOUR, late_horizon: 72 * HOUR };
        let settings = Settings {
            widths,
            lookback: Lookback::Back(24 * 30 * HOUR),
            batch_rows_max: ROWS_MAX,
            drop_audit_actions: Default::default(),
            redact: Redact::default(),
            ledger_keep: 24 * 121 * HOUR,
            verify_after: None,
        };
        let state = Arc::new(Mutex::new(state));
        let (patience, standby_max) = (Patience::RUN, Duration::ZERO);
        let (stream, configured) = (Stream::ItemUsages, BTreeSet::new());
        Self { state, settings, patience, standby_max, crashes: 0, stream, configured, started: 0 }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `n` events that happen now, a millisecond apart.
    pub(crate) fn add(&self, n: usize) -> Vec<String> {
        (0..n).map(|i| self.add_at(-(i as i64), 0, "")).collect()
    }

    /// One event stamped `stamp_ms` from now that becomes visible `late_ms` from now.
    pub(crate) fn add_at(&self, stamp_ms: i64, late_ms: i64, more: &str) -> String {
        let mut state = self.state();
        let (now, n) = (state.now(), state.source.events.len());
        let uuid = format!("EVENT{n:06}");
        let (timestamp, visible_at) = (now + TimeDelta::milliseconds(stamp_ms), now + TimeDelta::milliseconds(late_ms));
        state.source.events.push(Event { uuid: uuid.clone(), timestamp, visible_at, more: more.into(), is_odd: false });
        uuid
    }

    /// A new process with an owner of its own.
    pub(crate) fn start(&mut self) -> Process {
        self.start_as("default")
    }

    /// A process of this entry of the configuration.
    pub(crate) fn start_as(&mut self, entry: &str) -> Process {
        self.start_shown_on(entry, Arc::default())
    }

    pub(crate) fn start_shown_on(&mut self, entry: &str, panel: Arc<Panel>) -> Process {
        self.started += 1;
        let link = Link::new(self.state.clone());
        let account = AccountName::parse(entry).expect("a legal name");
        let edge = Arc::new(link.clone());
        let owner = format!("owner-{}", self.started);
        let feed = Feed::new(Parts {
            panel: panel.clone(),
            table: Some(edge.clone()),
            owners: Arc::new(Owners::new(edge.clone(), self.configured.clone())),
            id: FeedId { account: account.clone(), stream: self.stream },
            account: Arc::new(Account::new(account, self.patience, self.host_clock(), 1)),
            source: edge.clone(),
            sink: edge.clone(),
            store: edge,
            owner: owner.clone(),
            settings: Arc::new(self.settings.clone()),
            stop: link.stop.clone(),
            seed: self.started,
        });
        Process { feed: Some(feed), panel, link, owner, patience: self.patience, standby_max: self.standby_max }
    }

    pub(crate) fn host_clock(&self) -> HostClock {
        let state = self.state.clone();
        HostClock::new(move || {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.now() + state.host_skew
        })
    }

    /// A process that dies at its `k`-th wait. True when it got that far.
    pub(crate) async fn crash_at(&mut self, k: u64) -> bool {
        let mut process = self.start();
        process.link.die_at_wait(k);
        let crashed = process.tick().await.is_none();
        self.crashes += u64::from(crashed);
        crashed
    }

    pub(crate) fn checkpoint_key(&self) -> String {
        format!("checkpoints/default/{}.json", self.stream)
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let key = self.checkpoint_key();
        match Checkpoint::decode(&self.state().store.blobs[&key].bytes) {
            Decoded::Good(checkpoint) => *checkpoint,
            other => panic!("no checkpoint: {other:?}"),
        }
    }

    pub(crate) fn on_page(&self, hook: impl FnMut(&PageRequest) -> Option<Reply> + Send + 'static) {
        self.state().source.hook = Some(Box::new(hook));
    }

    pub(crate) fn on_post(&self, hook: impl FnMut(&[String]) -> Outcome + Send + 'static) {
        self.state().sink.hook = Some(Box::new(hook));
    }

    /// What becomes of an empty array; accepted unless this says otherwise.
    pub(crate) fn on_probe(&self, hook: impl FnMut() -> Outcome + Send + 'static) {
        self.state().sink.probe_hook = Some(Box::new(hook));
    }

    /// The destination is at fault: whatever is posted ends like this.
    pub(crate) fn refuses_everything(&self, outcome: Outcome) {
        let again = outcome.clone();
        self.on_post(move |_| outcome.clone());
        self.on_probe(move || again.clone());
    }

    /// From now on every body is refused that holds the row of this event; its stub is taken.
    pub(crate) fn poison(&self, uuid: &str, outcome: Outcome) {
        self.state().sink.poison.insert(uuid.into(), outcome);
    }

    /// Nobody takes offence at a row any more.
    pub(crate) fn cure(&self) {
        let mut state = self.state();
        state.sink.poison.clear();
        state.sink.offence = None;
    }

    /// The ids of the dead letters in the store.
    pub(crate) fn letters(&self) -> Vec<String> {
        let state = self.state();
        let names = state.store.blobs.keys().filter_map(|name| name.strip_prefix("dead-letters/"));
        names.map(|name| name.rsplit('/').next().expect("a name").trim_end_matches(".json").to_owned()).collect()
    }

    /// The first POSTs end like this; the others are accepted.
    pub(crate) fn posts_end(&self, outcomes: impl Into<Vec<Outcome>>) {
        let mut outcomes = outcomes.into().into_iter();
        self.on_post(move |_| outcomes.next().unwrap_or(Outcome::Accept));
    }

    pub(crate) fn on_store(&self, hook: impl FnMut(Op, &str) -> Option<Fault> + Send + 'static) {
        self.state().store.hook = Some(Box::new(hook));
    }

    /// The `n`-th such operation (from 1) meets the fault.
    pub(crate) fn fault_at(&self, n: u64, op: Op, on: &'static str, fault: Fault) {
        let mut seen = 0;
        self.on_store(move |done, key| {
            seen += u64::from(done == op && key.contains(on));
            (done == op && key.contains(on) && seen == n).then_some(fault)
        });
    }

    /// Heartbeats of the account, one an hour for the next ten days: another process ships its other streams.
    pub(crate) fn beats_hourly(&self) {
        let mut state = self.state();
        let now = state.now();
        (0..240).for_each(|hour| state.sink.beat(now + TimeDelta::hours(hour)));
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.source.hook = None;
        state.sink.hook = None;
        state.sink.probe_hook = None;
        state.sink.is_silent = false;
        state.store.hook = None;
        state.store.sealed = None;
        state.sink.rows_max = usize::MAX;
    }

    pub(crate) fn rows(&self) -> usize {
        self.state().sink.rows.len()
    }

    pub(crate) fn uuids(&self) -> Vec<String> {
        self.state().source.events.iter().map(|event| event.uuid.clone()).collect()
    }

    /// How many rows this event has.
    pub(crate) fn rows_of(&self, uuid: &str) -> usize {
        self.state().sink.copies(uuid)
    }

    pub(crate) fn requests(&self) -> Vec<PageRequest> {
        self.state().source.requests.iter().map(|(request, _)| request.clone()).collect()
    }
}

pub(crate) struct Process {
    pub(crate) feed: Option<Feed>,
    pub(crate) panel: Arc<Panel>,
    pub(crate) link: Link,
    pub(crate) owner: String,
    patience: Patience,
    standby_max: Duration,
}

impl Process {
    /// One tick; `None`: the process died in it.
    pub(crate) async fn tick(&mut self) -> Option<Result<Drained, Trouble>> {
        self.tick_giving_way(&|| false).await
    }

    pub(crate) async fn tick_giving_way(
        &mut self,
        late_gives_way: &(dyn Fn() -> bool + Send + Sync),
    ) -> Option<Result<Drained, Trouble>> {
        let tick = Tick { patience: self.patience, standby_max: self.standby_max, late_gives_way };
        let feed = self.feed.as_mut().expect("the process lives");
        let outcome = alive(&self.link, feed.drain(tick)).await;
        self.ends_with(outcome)
    }

    /// An operator's replay of a dead letter; `None`: the process died in it.
    pub(crate) async fn replay(&mut self, letter: &DeadLetter) -> Option<Result<Replayed, Trouble>> {
        let (patience, standby_max) = (self.patience, self.standby_max);
        let tick = Tick { patience, standby_max, late_gives_way: &|| false };
        let feed = self.feed.as_mut().expect("the process lives");
        let outcome = alive(&self.link, feed.replay(letter, tick)).await;
        self.ends_with(outcome)
    }

    fn ends_with<T>(&mut self, outcome: Option<T>) -> Option<T> {
        if outcome.is_none() {
            self.feed = None;
        }
        outcome
    }

    /// A tick that must go well.
    pub(crate) async fn good(&mut self) -> Drained {
        self.tick().await.expect("no crash").expect("a good tick")
    }

    /// A tick that doubts the time, and a minute later a good one: another answer agreed.
    pub(crate) async fn good_after_a_doubt(&mut self) -> Drained {
        let doubt = self.bad().await;
        assert!(matches!(doubt, Trouble::Clock(_)), "{doubt}");
        tokio::time::sleep(doubt.pause()).await;
        self.good().await
    }

    /// A tick that must meet trouble.
    pub(crate) async fn bad(&mut self) -> Trouble {
        self.tick().await.expect("no crash").expect_err("a tick with trouble")
    }
}

/// What the work comes to, unless the process dies in it.
pub(crate) async fn alive<T>(link: &Link, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(link.dying_at_a_wait(work));
    loop {
        tokio::select! {
            biased;
            () = link.dead.cancelled() => return None,
            // Nothing inside the process moves meanwhile.
            time = link.stall() => tokio::time::sleep(time).await,
            outcome = &mut work => return Some(outcome),
        }
    }
}
