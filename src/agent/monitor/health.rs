//! The health rows that say how an account fares: a heartbeat after good cycles, one row per change into trouble.

use super::account_panel::AccountPanel;
use super::refused::{self, Refused};
use super::told::Told;
use crate::agent::account::Account;
use crate::agent::trouble::{Trouble, chain};
use crate::flow::attempts::Attempts;
use crate::flow::map::health_row;
use crate::flow::planted::{self, Bug};
use crate::flow::redact::Redact;
use crate::flow::retry::{Failure, Patience};
use crate::flow::{Stream, Time};
use crate::sink::{Body, Sink, SinkError};
use crate::store::{Key, Store};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Deadline of a health row: shorter than a batch's, because the feeds of the account wait for it.
const POST_DEADLINE: Duration = Duration::from_secs(15);

/// The health rows of one account.
pub struct Health {
    account: Arc<Account>,
    sink: Arc<dyn Sink>,
    store: Arc<dyn Store>,
    streams: BTreeSet<Stream>,
    every: Duration,
    redact: Redact,
    panel: Arc<AccountPanel>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Feeds with a good tick since the last heartbeat.
    good: BTreeSet<Stream>,
    told: Told,
    refused: Refused,
    beat_at: Option<Instant>,
}

/// What the store keeps while health rows are refused; none can be posted that says so.
const DELIVERY_FAILED: &str = "delivery_failed";
/// In `run` the next tick tries again.
const ONE_TRY: Patience = Patience { attempts_max: 1, ..Patience::RUN };

impl Health {
    pub fn new(
        account: Arc<Account>,
        sink: Arc<dyn Sink>,
        store: Arc<dyn Store>,
        streams: BTreeSet<Stream>,
        every: Duration,
        redact: Redact,
    ) -> Self {
        Self {
            account,
            sink,
            store,
            streams,
            every,
            redact,
            panel: Arc::default(),
            state: tokio::sync::Mutex::default(),
        }
    }

    /// Shows there whether the destination takes the rows; nobody sees it otherwise.
    #[must_use]
    pub fn shown_on(self, panel: Arc<AccountPanel>) -> Self {
        Self { panel, ..self }
    }

    fn row(&self, at: Time, trouble: Option<(&str, &str)>) -> Vec<u8> {
        health_row(self.account.uuid().as_deref(), &self.redact, at, trouble)
    }

    /// Takes note of a tick. Posts a heartbeat when every feed has had a good one and the last is old enough, or one trouble row when
    /// the state changes: repeated it would keep the published "no health rows" rule quiet. A row that is refused makes the account
    /// wait, at once or with the second in a row, until one is accepted.
    pub async fn report(&self, stream: Stream, outcome: Result<Time, &Trouble>) {
        let mut state = self.state.lock().await;
        match outcome {
            Ok(date) => {
                state.good.insert(stream);
                if self.is_due(&state)
                    && let Err(error) = self.beat(&mut state, date, ONE_TRY).await
                {
                    self.refused(&mut state, error).await;
                }
            }
            Err(trouble) => {
                state.good.remove(&stream);
                self.tell(&mut state, trouble).await;
            }
        }
        // A store that fails has said so, and is asked again later.
        let _ = state.told.keep(&*self.store, &self.key()).await;
    }

    fn is_due(&self, state: &State) -> bool {
        let all_good = state.good == self.streams || planted::is(Bug::HeartbeatInTrouble);
        all_good && state.refused.may_try() && state.beat_at.is_none_or(|at| at.elapsed() >= self.every)
    }

    /// The heartbeat that ends a good `once`.
    ///
    /// # Errors
    /// When the sink does not take it, what a refused batch would mean; or the store does not keep that all is well again.
    pub async fn heartbeat(&self, date: Time) -> Result<(), Trouble> {
        let mut state = self.state.lock().await;
        let posted = self.beat(&mut state, date, Patience::ONCE).await;
        let posted =
            posted.map_err(|error| refused::trouble(SinkError { attempted: "post the heartbeat".into(), ..error }));
        if posted.is_err() {
            self.told_by_silence(&mut state).await;
        }
        let kept = state.told.keep(&*self.store, &self.key()).await.map_err(Trouble::from);
        posted.and(kept)
    }

    async fn beat(&self, state: &mut State, date: Time, patience: Patience) -> Result<(), SinkError> {
        self.post(state, self.row(date, None), patience).await?;
        state.good.clear();
        state.beat_at = Some(Instant::now());
        state.told.clear();
        Ok(())
    }

    async fn tell(&self, state: &mut State, trouble: &Trouble) {
        let Some((category, action_type)) = trouble.health() else { return };
        // Feeds in different trouble would otherwise take turns.
        if state.told.has(category, &*self.store, &self.key()).await {
            return;
        }
        // Rows that the sink does not take cannot tell that it does not take them.
        if !matches!(trouble, Trouble::Sink(_) | Trouble::Undeliverable { .. }) {
            if !state.refused.may_try() {
                return;
            }
            let row = self.row(chrono::Utc::now(), Some((category, action_type)));
            if let Err(error) = self.post(state, row, ONE_TRY).await {
                self.refused(state, error).await;
                if !state.refused.has_doubts_enough() {
                    return;
                }
            }
        }
        // Known here, whatever the store does: it cannot make news of it again.
        state.told.add(category);
    }

    async fn post(&self, state: &mut State, row: Vec<u8>, patience: Patience) -> Result<(), SinkError> {
        self.deliver(row, patience).await.inspect_err(|_| self.panel.row_refused())?;
        self.panel.accepted();
        if state.refused.clear() {
            tracing::info!(account = %self.account.name, "the destination takes the health rows again");
        }
        Ok(())
    }

    async fn deliver(&self, row: Vec<u8>, patience: Patience) -> Result<(), SinkError> {
        let body = Body { json: [b"[", &*row, b"]"].concat().into(), rows: 1 };
        let (begun, mut renewed) = (Instant::now(), false);
        let mut attempts = Attempts::new(patience, &mut self.account.jitter());
        loop {
            attempts.begin();
            let posted = tokio::time::timeout(POST_DEADLINE, self.sink.deliver(&body)).await;
            let error = match posted {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                // May have arrived: another one says the same.
                Err(_) => return Err(self.no_answer()),
            };
            if matches!(error.failure, Failure::Status { status: 401, .. }) {
                self.sink.reauthenticate().await;
                // A credential that has just run out is no refusal.
                if !std::mem::replace(&mut renewed, true) {
                    continue;
                }
            }
            let ControlFlow::Continue(wait) = attempts.pause(begun.elapsed(), None) else { return Err(error) };
            tokio::time::sleep(wait).await;
        }
    }

    fn no_answer(&self) -> SinkError {
        SinkError {
            attempted: format!("post a health row (no answer in {} s)", POST_DEADLINE.as_secs()),
            on: self.sink.place(),
            failure: Failure::Interrupted,
            cause: None,
        }
    }

    /// A row that was not accepted: told on every feed of the account once it is no accident, and logged once.
    async fn refused(&self, state: &mut State, error: SinkError) {
        let (account, what) = (&self.account.name, chain(&error));
        let Some(trouble) = state.refused.count(error) else {
            return tracing::warn!(account = %account, error = what, "a health row was not accepted: one more is tried");
        };
        self.panel.waits(&trouble);
        self.told_by_silence(state).await;
        if state.refused.is_news(&trouble) {
            let remedy = trouble.remedy();
            tracing::error!(%account, error = what, remedy, "the destination does not take the health rows: the account waits");
        } else {
            tracing::debug!(%account, error = what, "a health row was refused again");
        }
    }

    /// No row can say it, so the store does, for `opship status --from-store`.
    async fn told_by_silence(&self, state: &mut State) {
        if !state.told.has(DELIVERY_FAILED, &*self.store, &self.key()).await {
            state.told.add(DELIVERY_FAILED);
        }
    }

    fn key(&self) -> Key {
        Told::key(&self.account.name)
    }
}
