//! The bearer token of one scope: renewed from half of its life on, and used to its end when renewing fails.

use super::AzureError;
use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::time::OffsetDateTime;
use parking_lot::{Mutex, MutexGuard};
use secrecy::SecretString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two attempts to renew a token that is still good.
const EARLY_RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// Longest life believed; managed identity tokens live 24 h.
const LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The tokens of one scope.
pub struct Tokens {
    credential: Arc<dyn TokenCredential>,
    scope: String,
    held: Mutex<Option<Held>>,
    /// Locked while a token is asked for, so that one request serves all who wait; holds how the last one failed.
    flight: tokio::sync::Mutex<Option<(Instant, AzureError)>>,
}

struct Held {
    token: SecretString,
    /// When half of its life is over; later while renewing fails.
    renew_at: Instant,
    ends_at: Instant,
}

enum Look {
    Fresh(SecretString),
    /// Good, but it is time to renew it.
    Ageing(SecretString),
    Nothing,
}

impl Tokens {
    /// `credential` must not cache, else renewing and forgetting give the same token again: [`super::credential`] does not.
    pub fn new(credential: Arc<dyn TokenCredential>, scope: &str) -> Self {
        let flight = tokio::sync::Mutex::new(None);
        Self { credential, scope: scope.to_owned(), held: Mutex::new(None), flight }
    }

    /// A token that is good now, as far as its own date says.
    ///
    /// # Errors
    /// [`AzureError::NoToken`] when none is held that is still good and none could be had.
    pub async fn token(&self) -> Result<SecretString, AzureError> {
        let now = Instant::now();
        match self.look(now) {
            Look::Fresh(token) => Ok(token),
            Look::Ageing(token) => Ok(self.renew_early(now).await.unwrap_or(token)),
            Look::Nothing => self.renew(now).await,
        }
    }

    /// Drops the token after a 401: the next call asks for a new one. A managed identity endpoint may hand out the same
    /// token again, because the platform caches too.
    pub fn forget(&self) {
        *self.held() = None;
    }

    fn look(&self, now: Instant) -> Look {
        match &*self.held() {
            Some(held) if now < held.renew_at.min(held.ends_at) => Look::Fresh(held.token.clone()),
            Some(held) if now < held.ends_at => Look::Ageing(held.token.clone()),
            Some(_) | None => Look::Nothing,
        }
    }

    /// `None` when another task is at it, or when it failed: the old token serves meanwhile.
    async fn renew_early(&self, now: Instant) -> Option<SecretString> {
        let _flight = self.flight.try_lock().ok()?;
        if let Some(held) = &mut *self.held() {
            // Before the request, so that a caller who gives up does not make the next one ask at once.
            held.renew_at = now + EARLY_RENEWAL_PAUSE;
        }
        match self.ask().await {
            Ok(token) => Some(token),
            Err(error) => {
                tracing::warn!(scope = %self.scope, %error, "the token could not be renewed; the old one is still good");
                None
            }
        }
    }

    async fn renew(&self, asked_at: Instant) -> Result<SecretString, AzureError> {
        let mut flight = self.flight.lock().await;
        if let Look::Fresh(token) | Look::Ageing(token) = self.look(Instant::now()) {
            return Ok(token);
        }
        if let Some((_, error)) = flight.as_ref().filter(|(failed_at, _)| *failed_at > asked_at) {
            return Err(error.clone());
        }
        let answer = self.ask().await;
        *flight = answer.as_ref().err().map(|error| (Instant::now(), error.clone()));
        answer
    }

    async fn ask(&self) -> Result<SecretString, AzureError> {
        let answer = self.credential.get_token(&[&self.scope], None).await;
        Ok(self.keep(&answer.map_err(|error| self.explain(error))?))
    }

    fn keep(&self, token: &AccessToken) -> SecretString {
        let life = Duration::try_from(token.expires_on - OffsetDateTime::now_utc()).unwrap_or_default().min(LIFE_MAX);
        let now = Instant::now();
        let secret = SecretString::from(token.token.secret().to_owned());
        *self.held() = Some(Held { token: secret.clone(), renew_at: now + life / 2, ends_at: now + life });
        secret
    }

    fn explain(&self, error: azure_core::Error) -> AzureError {
        error.into_downcast::<AzureError>().unwrap_or_else(|foreign| AzureError::ForeignCredential {
            scope: self.scope.clone(),
            cause: super::said(&foreign),
        })
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("scope", &self.scope).finish_non_exhaustive()
    }
}
