//! run and once: every feed in a task of its own, so that a feed that fails never stops another.

use super::monitor::board::Board;
use super::monitor::health::Health;
use super::position::until_stopped;
use super::trouble::Trouble;
use super::{Drained, Feed, Tick};
use crate::flow::retry::{Failure, Patience};
use crate::flow::{AccountName, FeedId, Time};
use crate::reload::Hurry;
use crate::schedule::{Beats, Schedule};
use crate::sink::SinkError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// How long `once` stands by for another process: its intent expires after 120 s.
pub const ONCE_STANDBY: Duration = Duration::from_secs(150);
/// How long a drain may take once the process is asked to end.
pub const DRAIN_MAX: Duration = Duration::from_secs(25);
/// Waiting dead letters are counted again no sooner: the `dead-letters` command of another process takes them away.
const LETTERS_PACE: Duration = Duration::from_secs(10);
/// So often while a feed rests and some wait, which may be for hours.
const LETTERS_REST_PACE: Duration = Duration::from_secs(30);

/// Every feed, and the health rows of its account.
pub struct Agent {
    pub feeds: Vec<Feed>,
    pub health: BTreeMap<AccountName, Arc<Health>>,
    pub stop: CancellationToken,
    /// What each feed shows of itself.
    pub board: Arc<Board>,
}

/// How each feed ended in `once`.
pub type Outcomes = BTreeMap<FeedId, Result<Drained, Trouble>>;

/// A feed's task died: nothing was committed after that.
#[derive(Debug, thiserror::Error)]
#[error("a feed's task panicked; its position is where its last commit left it")]
pub struct Panicked;

/// One tick of every feed, then a heartbeat per account whose feeds are all well.
///
/// # Errors
/// [`Panicked`]; the trouble of a feed stands in the outcomes, a refused heartbeat too.
pub async fn once(agent: Agent) -> Result<Outcomes, Panicked> {
    let mut tasks = JoinSet::new();
    for mut feed in agent.feeds {
        tasks.spawn(async move {
            let tick = Tick { patience: Patience::ONCE, standby_max: ONCE_STANDBY, late_gives_way: &|| false };
            feed.given.panel.tick_began();
            let outcome = feed.drain(tick).await.map_err(|trouble| feed.given.panel.cut(trouble));
            feed.given.panel.tick_ended(&outcome, Duration::ZERO);
            log(feed.id(), &outcome);
            (feed.id().clone(), feed.given.date(), outcome)
        });
    }
    let mut outcomes = Outcomes::new();
    let mut dates: BTreeMap<AccountName, Time> = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        let (id, date, outcome) = done.map_err(|_| Panicked)?;
        let latest = dates.entry(id.account.clone()).or_insert(date);
        *latest = date.max(*latest);
        outcomes.insert(id, outcome);
    }
    for (account, health) in &agent.health {
        tell_health(account, health, dates.get(account).copied(), &mut outcomes).await;
    }
    Ok(outcomes)
}

/// `once` that exits 0 always posts a heartbeat, so a heartbeat that is refused is a failure.
async fn tell_health(account: &AccountName, health: &Health, date: Option<Time>, outcomes: &mut Outcomes) {
    let mut of_account = outcomes.iter_mut().filter(|(id, _)| id.account == *account);
    if let Some((id, trouble)) = of_account.find_map(|(id, outcome)| Some((id, outcome.as_ref().err()?))) {
        health.report(id.stream, Err(trouble)).await;
        return;
    }
    let Some(date) = date else { return };
    if let Err(trouble) = health.heartbeat(date).await {
        let (what, remedy) = (trouble.what(), trouble.remedy());
        let remedy = format!("the rows were shipped, and the next run posts the heartbeat; {remedy}");
        tracing::error!(account = %account, error = what, remedy, "the heartbeat was not accepted");
        if let Some((_, outcome)) = outcomes.iter_mut().find(|(id, _)| id.account == *account) {
            // With its own meaning for the exit code.
            *outcome = Err(trouble);
        }
    }
}

/// Ticks at once, then by the timer, until `agent.stop` fires and every feed has drained.
///
/// # Errors
/// [`Panicked`]: a feed's task died; the others were drained.
pub async fn run(agent: Agent, schedule: Schedule) -> Result<(), Panicked> {
    let mut tasks = JoinSet::new();
    for feed in agent.feeds {
        let health = agent.health.get(&feed.id().account).cloned();
        tasks.spawn(keep_draining(feed, schedule.beats(), health, agent.stop.clone()));
    }
    let mut outcome = Ok(());
    while let Some(done) = tasks.join_next().await {
        if done.is_err() {
            // A panic is a bug: end the process cleanly and let its supervisor start it again from the last commit.
            agent.stop.cancel();
            outcome = Err(Panicked);
        }
    }
    schedule.stop().await;
    outcome
}

/// How long a refusal by the destination counts as a role that is still spreading (it takes up to 30 minutes).
const ROLE_SPREADS_MAX: Duration = Duration::from_secs(45 * 60);

/// Tells a role that is still spreading from one that is missing.
#[derive(Default)]
struct RoleWatch(Option<Instant>);

impl RoleWatch {
    fn look(&mut self, feed: &FeedId, outcome: &Result<Drained, Trouble>) {
        let Err(Trouble::Sink(SinkError { failure: Failure::Status { status: 403, .. }, .. })) = outcome else {
            self.0 = None;
            return;
        };
        let refused_for = self.0.get_or_insert_with(Instant::now).elapsed();
        let minutes = refused_for.as_secs() / 60;
        if refused_for < ROLE_SPREADS_MAX {
            tracing::warn!(%feed, minutes, "the destination refuses the identity: a new role assignment takes up to 30 minutes");
        } else {
            let remedy = "give the identity the role Monitoring Metrics Publisher on the data collection rule";
            tracing::error!(%feed, minutes, state = "degraded", remedy, "the destination still refuses the identity: the role is missing, not spreading");
        }
    }
}

async fn keep_draining(mut feed: Feed, mut beats: Beats, health: Option<Arc<Health>>, stop: CancellationToken) {
    let (mut role, mut letters, mut ticks) = (RoleWatch::default(), Letters::default(), 0_u64);
    while !stop.is_cancelled() {
        ticks += 1;
        let span = tracing::debug_span!("tick", feed = %feed.id(), tick = ticks);
        let source = feed.reader.source.clone();
        let gives_way = || beats.is_due() || source.late_lane_is_spent();
        let tick = Tick { patience: Patience::RUN, standby_max: Duration::ZERO, late_gives_way: &gives_way };
        feed.given.panel.tick_began();
        feed.delivery.hurry.begin();
        let outcome = feed.drain(tick).instrument(span).await;
        let pause = outcome.as_ref().err().map_or(Duration::ZERO, Trouble::pause);
        feed.given.panel.tick_ended(&outcome, pause);
        log(feed.id(), &outcome);
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        tracing::debug!(feed = %feed.id(), tasks, "tick done");
        letters.look(&feed).await;
        role.look(feed.id(), &outcome);
        if let Some(health) = &health {
            let reported = health.report(feed.id().stream, outcome.as_ref().map(|_| feed.given.date()));
            tokio::select! { biased; () = reported => {}, () = stop.cancelled() => {} }
        }
        if matches!(&outcome, Ok(drained) if drained.more_pending) {
            continue;
        }
        let next = async {
            tokio::time::sleep(pause).await;
            if matches!(outcome, Err(Trouble::Standby { .. } | Trouble::Lost)) { 0 } else { beats.next().await }
        };
        let mut hurry = feed.delivery.hurry.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = hurried(&mut hurry, &outcome, feed.given.panel.asked_to_wait()) => tracing::info!(feed = %feed.id(), "tries now: that was asked for"),
            skipped = next => if skipped > 0 {
                feed.given.panel.skipped(skipped);
                tracing::info!(feed = %feed.id(), skipped, "ticks were skipped: the one before took longer");
            },
            () = letters.keep_looking(&feed) => {}
        }
    }
    feed.given.panel.stopped();
}

/// Ends when a feed that waits is to try now, and may.
async fn hurried(hurry: &mut Hurry, outcome: &Result<Drained, Trouble>, at_least: Duration) {
    if !outcome.as_ref().err().is_some_and(Trouble::may_be_hurried) {
        return std::future::pending().await;
    }
    tokio::time::sleep(at_least).await;
    hurry.asked().await;
}

/// The dead letters of a feed, as last counted.
#[derive(Default)]
struct Letters {
    counted_at: Option<Instant>,
    waiting: usize,
    /// Those ever kept, by the checkpoint.
    kept: u64,
}

impl Letters {
    /// Counts them, by one listing, at the start and wherever their number may have changed since.
    async fn look(&mut self, feed: &Feed) {
        let Some(kept) = feed.stand.position.as_ref().map(|position| position.cp.totals.dead_letters) else { return };
        let is_fresh = self.counted_at.is_some_and(|at| self.waiting == 0 || at.elapsed() < LETTERS_PACE);
        if is_fresh && kept == self.kept {
            return;
        }
        let count = feed.delivery.dead_letters.count(feed.id());
        match until_stopped(&feed.given.stop, Duration::ZERO, async { count.await.map_err(Trouble::from) }).await {
            Some(Ok(waiting)) => {
                // A feed that hangs must not look alive by this.
                if waiting != self.waiting {
                    feed.given.panel.letters(waiting);
                }
                *self = Self { counted_at: Some(Instant::now()), waiting, kept };
            }
            Some(Err(error)) => tracing::debug!(feed = %feed.id(), error = %error, "dead letters were not counted"),
            None => {}
        }
    }

    /// Looks again and again while some wait, and does not end.
    async fn keep_looking(&mut self, feed: &Feed) {
        while self.waiting > 0 {
            tokio::time::sleep(LETTERS_REST_PACE).await;
            self.look(feed).await;
        }
        std::future::pending().await
    }
}

fn log(feed: &FeedId, outcome: &Result<Drained, Trouble>) {
    match outcome {
        Ok(Drained { shipped: 0, more_pending: false, .. }) => tracing::debug!(%feed, "nothing new"),
        Ok(Drained { pages, read, shipped, late, known, dead_letters, more_pending }) => {
            tracing::info!(%feed, pages, read, shipped, late, known, dead_letters, more_pending, "shipped");
        }
        Err(Trouble::Stopped) => tracing::info!(%feed, "stopped; the position is saved"),
        Err(trouble @ (Trouble::Lost | Trouble::Standby { .. } | Trouble::Verifying { .. })) => {
            tracing::info!(%feed, "{trouble}")
        }
        Err(trouble) => {
            let waiting_for = trouble.waiting();
            let (what, remedy) = (trouble.what(), trouble.remedy());
            tracing::error!(%feed, error = what, %waiting_for, remedy, "the tick did not complete; the position covers nothing that was not accepted");
        }
    }
}
