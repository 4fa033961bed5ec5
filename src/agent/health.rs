//! Who an account is, and the health rows that say how it fares: a heartbeat after good cycles, one row per change into trouble.

use super::board::Panel;
use super::clock::HostClock;
use super::position::until_stopped;
use super::trouble::{Trouble, chain};
use crate::flow::clock::Judge;
use crate::flow::map::health_row;
use crate::flow::planted::{self, Bug};
use crate::flow::redact::Redact;
use crate::flow::retry::{Edge, Failure, Pace, Patience, Verdict, verdict};
use crate::flow::{AccountName, Stream, Time};
use crate::sink::{Body, Sink};
use crate::source::{Introspection, Source, SourceError};
use crate::store::{Expect, Key, Store, StoreError};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Deadline of a health row: shorter than a batch's, because the feeds of the account wait for it.
const POST_DEADLINE: Duration = Duration::from_secs(15);

/// A 1Password account as its token introduces it; shared by its feeds.
pub struct Account {
    pub name: AccountName,
    patience: Patience,
    who: Mutex<Option<Introspection>>,
    /// Last known, kept over a forgotten introspection.
    uuid: Mutex<Option<String>>,
    pub(super) host: HostClock,
    /// Of the source's clock: one for all feeds of the account, which hear the same servers.
    pub(super) judge: Mutex<Judge>,
}

impl Account {
    pub fn new(name: AccountName, patience: Patience, host: HostClock) -> Self {
        Self { name, patience, who: Mutex::new(None), uuid: Mutex::new(None), host, judge: Mutex::default() }
    }

    /// `once` and the commands: what they don't wait for, their next start has to wait for as well.
    pub(super) fn ends_by_itself(&self) -> bool {
        self.patience == Patience::ONCE
    }

    pub fn uuid(&self) -> Option<String> {
        self.uuid.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the source who we are, once per process and again after a refused token or a time that was doubted.
    pub(super) async fn introduce(
        &self,
        source: &dyn Source,
        stop: &CancellationToken,
        panel: &Panel,
    ) -> Result<Introspection, Trouble> {
        if let Some(who) = self.who.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(who);
        }
        let asked = until_stopped(stop, Duration::ZERO, self.ask(source, panel));
        let who = asked.await.unwrap_or(Err(Trouble::Stopped))?;
        self.hear(who.date)?;
        if let Some(uuid) = &who.account_uuid {
            *self.uuid.lock().unwrap_or_else(PoisonError::into_inner) = Some(uuid.clone());
        }
        *self.who.lock().unwrap_or_else(PoisonError::into_inner) = Some(who.clone());
        Ok(who)
    }

    async fn ask(&self, source: &dyn Source, panel: &Panel) -> Result<Introspection, Trouble> {
        let (begun, mut attempts, mut pace) = (Instant::now(), 0, Pace::default());
        loop {
            attempts += 1;
            let error = match source.introspect().await {
                Ok(who) => return Ok(who),
                Err(error) => error,
            };
            panel.failed(Edge::Source, &error.failure);
            let (wait, error) = match verdict(Edge::Source, &error.failure) {
                Verdict::Retry { at_least } => (pace.next(0.5, at_least), error),
                Verdict::Unauthorized { at_least, remedy } => {
                    return Err(Trouble::Unauthorized { error, remedy, again: at_least });
                }
                Verdict::Halt { remedy } => {
                    return Err(Trouble::Halted { what: chain(&error), remedy: remedy.into() });
                }
                Verdict::Rejected | Verdict::Reauthenticate | Verdict::Split | Verdict::DeadLetter => {
                    return Err(Trouble::Source(error));
                }
            };
            if !self.patience.allows(attempts, begun.elapsed(), wait) {
                return Err(Trouble::Source(error));
            }
            self.log(&error, wait);
            tokio::time::sleep(wait).await;
        }
    }

    fn log(&self, error: &SourceError, wait: Duration) {
        let wait_ms = wait.as_millis() as u64;
        tracing::warn!(account = %self.name, wait_ms, error = %chain(error), "the source did not say who we are: trying again");
    }

    /// After a refused token: ask again.
    pub(super) fn forget(&self) {
        *self.who.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The health rows of one account.
pub struct Health {
    account: Arc<Account>,
    sink: Arc<dyn Sink>,
    store: Arc<dyn Store>,
    streams: BTreeSet<Stream>,
    every: Duration,
    redact: Redact,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Feeds with a good tick since the last heartbeat.
    good: BTreeSet<Stream>,
    /// The troubles told since the last heartbeat, or [`GOOD`], as kept in the store; none before it was read.
    told: Option<String>,
    beat_at: Option<Instant>,
}

const GOOD: &str = "good";

impl Health {
    pub fn new(
        account: Arc<Account>,
        sink: Arc<dyn Sink>,
        store: Arc<dyn Store>,
        streams: BTreeSet<Stream>,
        every: Duration,
        redact: Redact,
    ) -> Self {
        Self { account, sink, store, streams, every, redact, state: tokio::sync::Mutex::default() }
    }

    fn row(&self, at: Time, trouble: Option<(&str, &str)>) -> Vec<u8> {
        health_row(self.account.uuid().as_deref(), &self.redact, at, trouble)
    }

    /// Takes note of a tick. Posts a heartbeat when every feed has had a good one and the last is old enough, or one trouble row when
    /// the state changes: repeated it would keep the published "no health rows" rule quiet.
    pub async fn report(&self, stream: Stream, outcome: Result<Time, &Trouble>) {
        let mut state = self.state.lock().await;
        let posted = match outcome {
            Ok(date) => {
                state.good.insert(stream);
                let due = state.beat_at.is_none_or(|at| at.elapsed() >= self.every);
                if !due || (state.good != self.streams && !planted::is(Bug::HeartbeatInTrouble)) {
                    return;
                }
                self.beat(&mut state, date, Patience { attempts_max: 1, ..Patience::RUN }).await
            }
            Err(trouble) => {
                state.good.remove(&stream);
                self.tell(&mut state, trouble).await
            }
        };
        if let Err(error) = posted {
            tracing::warn!(account = %self.account.name, error = %error, "a health row was not posted");
        }
    }

    /// The heartbeat that ends a good `once`.
    ///
    /// # Errors
    /// When the sink does not take it.
    pub async fn heartbeat(&self, date: Time) -> Result<(), String> {
        self.beat(&mut *self.state.lock().await, date, Patience::ONCE).await
    }

    async fn beat(&self, state: &mut State, date: Time, patience: Patience) -> Result<(), String> {
        self.post(self.row(date, None), patience).await?;
        state.good.clear();
        state.beat_at = Some(Instant::now());
        self.remember(state, GOOD).await
    }

    async fn tell(&self, state: &mut State, trouble: &Trouble) -> Result<(), String> {
        let Some((category, action_type)) = trouble.health() else { return Ok(()) };
        let told = self.told(state).await?;
        // Feeds in different trouble would otherwise take turns.
        if told.split(' ').any(|told| told == category) {
            return Ok(());
        }
        // Rows that the sink does not take cannot tell that it does not take them.
        if !matches!(trouble, Trouble::Sink(_) | Trouble::Undeliverable { .. }) {
            let row = self.row(chrono::Utc::now(), Some((category, action_type)));
            self.post(row, Patience { attempts_max: 1, ..Patience::RUN }).await?;
        }
        let told = if told == GOOD { category.to_owned() } else { format!("{told} {category}") };
        self.remember(state, &told).await
    }

    async fn post(&self, row: Vec<u8>, patience: Patience) -> Result<(), String> {
        let body = Body { json: [b"[", &*row, b"]"].concat().into(), rows: 1 };
        let (begun, mut attempts, mut pace) = (Instant::now(), 0, Pace::default());
        loop {
            attempts += 1;
            let posted = tokio::time::timeout(POST_DEADLINE, self.sink.deliver(&body)).await;
            let error = match posted {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                // May have arrived: another one says the same.
                Err(_) => return Err(format!("no answer in {} s", POST_DEADLINE.as_secs())),
            };
            if matches!(error.failure, Failure::Status { status: 401, .. }) {
                self.sink.reauthenticate().await;
            }
            let wait = pace.next(0.5, None);
            if !patience.allows(attempts, begun.elapsed(), wait) {
                return Err(chain(&error));
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn key(&self) -> Key {
        Key::new(format!("health/{}", self.account.name))
    }

    async fn told(&self, state: &mut State) -> Result<String, String> {
        if let Some(told) = &state.told {
            return Ok(told.clone());
        }
        let kept = self.store.get(&self.key()).await.map_err(|error: StoreError| chain(&error))?;
        let told = kept.map_or_else(|| GOOD.into(), |object| String::from_utf8_lossy(&object.bytes).into_owned());
        state.told = Some(told.clone());
        Ok(told)
    }

    async fn remember(&self, state: &mut State, told: &str) -> Result<(), String> {
        if self.told(state).await? != told {
            let bytes = told.to_owned().into_bytes().into();
            self.store.put(&self.key(), bytes, Expect::Anything).await.map_err(|error| chain(&error))?;
            state.told = Some(told.to_owned());
        }
        Ok(())
    }
}
