//! Who an account is: as 1Password introduces its token, else as the token says itself. An introspection that fails stops nothing that
//! the pages themselves do not stop.

use super::monitor::board::Panel;
use super::position::until_stopped;
use super::reading::clock::HostClock;
use super::trouble::{Trouble, chain};
use crate::flow::attempts::{Attempts, Jitter};
use crate::flow::clock::Judge;
use crate::flow::retry::{Edge, Failure, Patience, Verdict, verdict};
use crate::flow::{AccountName, Time};
use crate::source::{Introspection, Source, SourceError};
use parking_lot::Mutex;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long an introduction is waited for before the token's own claims serve.
pub const INTRODUCED_WITHIN: Duration = Duration::from_secs(10);
/// How often a service that did not introduce the token is asked again.
const ASKED_AGAIN: Duration = Duration::from_secs(300);

/// A 1Password account as its token introduces it; shared by its feeds.
pub struct Account {
    pub name: AccountName,
    patience: Patience,
    /// Held while the service is asked: one introduction serves all feeds.
    known: tokio::sync::Mutex<Known>,
    forgotten: AtomicBool,
    /// Last known, kept over a forgotten introspection.
    uuid: Mutex<Option<String>>,
    pub(super) host: HostClock,
    jitter: Mutex<Jitter>,
    /// Of the source's clock: one for all feeds of the account, which hear the same servers.
    pub(super) judge: Mutex<Judge>,
}

#[derive(Default)]
struct Known {
    who: Option<Introspection>,
    asked: Option<Instant>,
    /// It was told that the claims serve.
    told: bool,
}

impl Known {
    /// What the service has said, else what the token claims until it is time to ask again.
    fn still(&self) -> Option<&Introspection> {
        let is_young = self.asked.is_some_and(|asked| asked.elapsed() < ASKED_AGAIN);
        self.who.as_ref().filter(|who| !who.features.are_claimed() || is_young)
    }
}

impl Account {
    /// `seed` is that of the jitter of waits.
    pub fn new(name: AccountName, patience: Patience, host: HostClock, seed: u64) -> Self {
        Self {
            jitter: Mutex::new(Jitter::new(seed)),
            name,
            patience,
            known: tokio::sync::Mutex::default(),
            forgotten: AtomicBool::new(false),
            uuid: Mutex::new(None),
            host,
            judge: Mutex::default(),
        }
    }

    /// For one loop that waits.
    pub(super) fn jitter(&self) -> Jitter {
        self.jitter.lock().fork()
    }

    /// `once` and the commands: what they don't wait for, their next start has to wait for as well.
    pub(super) fn ends_by_itself(&self) -> bool {
        self.patience == Patience::ONCE
    }

    pub fn uuid(&self) -> Option<String> {
        self.uuid.lock().clone()
    }

    /// Who we are: asked once per process, again after a refused token or a time that was doubted, and every five minutes while only
    /// the token's claims say it.
    pub(super) async fn introduce(
        &self,
        source: &dyn Source,
        stop: &CancellationToken,
        panel: &Panel,
    ) -> Result<Introspection, Trouble> {
        let asked = until_stopped(stop, Duration::ZERO, self.introduced(source, panel));
        asked.await.unwrap_or(Err(Trouble::Stopped))
    }

    async fn introduced(&self, source: &dyn Source, panel: &Panel) -> Result<Introspection, Trouble> {
        let mut known = self.known.lock().await;
        if self.forgotten.swap(false, Ordering::Relaxed) {
            known.who = None;
        }
        if let Some(who) = known.still() {
            return Ok(who.clone());
        }
        let who = self.ask(source, panel, &mut known).await?;
        who.date.map_or(Ok(()), |date| self.hear(date))?;
        if let Some(uuid) = &who.account_uuid {
            *self.uuid.lock() = Some(uuid.clone());
        }
        known.asked = Some(Instant::now());
        known.who = Some(who.clone());
        Ok(who)
    }

    /// Only a refusal of the token is an answer that stops a feed. After any other, or none in time, the token speaks for itself.
    async fn ask(&self, source: &dyn Source, panel: &Panel, known: &mut Known) -> Result<Introspection, Trouble> {
        let begun = Instant::now();
        let mut attempts = Attempts::new(Patience::within(INTRODUCED_WITHIN), &mut self.jitter());
        loop {
            attempts.begin();
            let left = INTRODUCED_WITHIN.saturating_sub(begun.elapsed());
            let error = match tokio::time::timeout(left, source.introspect()).await {
                Ok(Ok(who)) => {
                    if std::mem::take(&mut known.told) {
                        tracing::info!(account = %self.name, "1Password introduces the token again");
                    }
                    return Ok(who);
                }
                Ok(Err(error)) => error,
                Err(_) => return self.claimed(source, known, None, "no answer in time".into()).await,
            };
            panel.failed(Edge::Source, &error.failure);
            let error = refused(error)?;
            let nobody_answered = matches!(error.failure, Failure::NotConnected | Failure::Interrupted);
            match attempts.pause(begun.elapsed(), None) {
                ControlFlow::Continue(wait) if nobody_answered => tokio::time::sleep(wait).await,
                _ => return self.claimed(source, known, error.date, chain(&error)).await,
            }
        }
    }

    async fn claimed(
        &self,
        source: &dyn Source,
        known: &mut Known,
        date: Option<Time>,
        error: String,
    ) -> Result<Introspection, Trouble> {
        let claims = source.claims().await.map_err(|error| match refused(error) {
            Ok(error) => Trouble::Source(error),
            Err(trouble) => trouble,
        })?;
        if !std::mem::replace(&mut known.told, true) {
            let remedy = "nothing, while the feeds ship: it is asked again every 5 minutes; if it stays, look for a proxy that does not let /auth/introspect through";
            tracing::warn!(account = %self.name, error, remedy, "1Password does not introduce the token: what the token says of itself serves until it does");
        }
        Ok(Introspection { date, ..claims })
    }

    /// After a refused token: ask again.
    pub(super) fn forget(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }
}

/// Fails if the error means that the token is refused, or that there is none.
fn refused(error: SourceError) -> Result<SourceError, Trouble> {
    match verdict(Edge::Source, &error.failure) {
        Verdict::Unauthorized { at_least, remedy } => Err(Trouble::Unauthorized { error, remedy, again: at_least }),
        Verdict::Retry { .. }
        | Verdict::Halt { .. }
        | Verdict::Rejected
        | Verdict::Reauthenticate
        | Verdict::Split
        | Verdict::DeadLetter => Ok(error),
    }
}
