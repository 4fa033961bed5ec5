//! The Azure identity over secrets that may change: read again after a refusal and when asked, and never worn out on one that is refused.

use super::WireError;
use crate::azure::{self, AzureError, REFUSED_PAUSE};
use crate::config;
use crate::flow::identity::TokenHash;
use crate::reload::{Renew, Renewed};
use crate::secret::{SecretError, SecretReader, SecretRef};
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::{Error, ErrorKind};
use parking_lot::{Mutex, MutexGuard};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use url::Url;

/// How often an identity endpoint that is not up yet is asked.
const UP_PAUSE: Duration = Duration::from_secs(3);

/// What asks for tokens, and can be told to read its secret again.
pub(super) struct Identity {
    azure: config::Azure,
    http: reqwest::Client,
    secrets: Arc<dyn SecretReader>,
    held: Mutex<Held>,
}

struct Held {
    credential: Arc<dyn TokenCredential>,
    /// Of the secret that it was made with; none for a credential without one.
    secret: Option<TokenHash>,
    /// The last refusal of this credential: it says the same when it is asked again at once.
    refused: Option<(Instant, AzureError)>,
}

impl Identity {
    /// # Errors
    /// A secret that cannot be read, or a credential that cannot be set up.
    pub(super) async fn new(
        azure: &config::Azure,
        secrets: Arc<dyn SecretReader>,
        http: &reqwest::Client,
    ) -> Result<Self, WireError> {
        let (credential, secret) = made(azure, &*secrets, http).await?;
        let held = Mutex::new(Held { credential, secret, refused: None });
        Ok(Self { azure: azure.clone(), http: http.clone(), secrets, held })
    }

    /// The secret in use and its key, where there is one.
    pub(super) fn reference(&self) -> Option<(&'static str, &SecretRef)> {
        reference(&self.azure)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// Reads the secret again. One that cannot be read, or is empty, leaves the one in use.
    async fn read_again(&self) -> Result<Renewed, WireError> {
        if self.reference().is_none() {
            return Ok(Renewed::Same);
        }
        let (credential, secret) = made(&self.azure, &*self.secrets, &self.http).await?;
        let mut held = self.held();
        if held.secret == secret {
            return Ok(Renewed::Same);
        }
        *held = Held { credential, secret, refused: None };
        Ok(Renewed::Changed)
    }

    /// The refusal that is still young.
    fn refusal(&self) -> Option<AzureError> {
        let held = self.held();
        held.refused.as_ref().filter(|(at, _)| at.elapsed() < REFUSED_PAUSE).map(|(_, error)| error.clone())
    }
}

fn reference(azure: &config::Azure) -> Option<(&'static str, &SecretRef)> {
    match azure.credential {
        config::Credential::ClientSecret => azure.client_secret.as_ref().map(|secret| ("azure.client_secret", secret)),
        config::Credential::ClientCertificate => azure.certificate.as_ref().map(|secret| ("azure.certificate", secret)),
        config::Credential::ManagedIdentity | config::Credential::WorkloadIdentity | config::Credential::AzureCli => {
            None
        }
    }
}

async fn made(
    azure: &config::Azure,
    secrets: &dyn SecretReader,
    http: &reqwest::Client,
) -> Result<(Arc<dyn TokenCredential>, Option<TokenHash>), WireError> {
    let read = match reference(azure) {
        Some((_, reference)) => Some((reference, secrets.read(reference).await?)),
        None => None,
    };
    if let Some((reference, secret)) = &read
        && secret.expose_secret().trim().is_empty()
    {
        let (reference, why) = (reference.to_string(), "it is empty".into());
        return Err(SecretError { reference, why, remedy: None, cause: None }.into());
    }
    let hash = read.as_ref().map(|(_, secret)| TokenHash::of(secret.expose_secret()));
    let text: Option<SecretString> = read.map(|(_, secret)| secret);
    let (secret, certificate) = match azure.credential {
        config::Credential::ClientCertificate => (None, text),
        _ => (text, None),
    };
    Ok((azure::credential(azure, secret, certificate, http)?, hash))
}

/// Waits until somebody listens where the platform gives out tokens, and no longer than `within`. Nothing is asked.
pub(super) async fn is_up(endpoint: &Url, within: Duration) {
    let (Some(host), Some(port)) = (endpoint.host_str(), endpoint.port_or_known_default()) else { return };
    let (begun, mut told) = (Instant::now(), false);
    while let Err(error) = TcpStream::connect((host.trim_matches(['[', ']']), port)).await {
        if error.kind() != std::io::ErrorKind::ConnectionRefused || begun.elapsed() + UP_PAUSE > within {
            return;
        }
        if !std::mem::replace(&mut told, true) {
            let within_s = within.as_secs();
            tracing::warn!(%error, setting = "azure.credential", within_s, "waiting for the Azure identity: nobody listens at its endpoint");
        }
        tokio::time::sleep(UP_PAUSE).await;
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

#[async_trait::async_trait]
impl TokenCredential for Identity {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let wrapped = |error: AzureError| Error::new(ErrorKind::Credential, error);
        if let Some(refusal) = self.refusal()
            && !matches!(self.read_again().await, Ok(Renewed::Changed))
        {
            return Err(wrapped(refusal));
        }
        loop {
            let credential = self.held().credential.clone();
            let error = match credential.get_token(scopes, None).await {
                Ok(token) => {
                    self.held().refused = None;
                    return Ok(token);
                }
                Err(error) => error,
            };
            let refusal =
                std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<AzureError>()).cloned();
            let Some(refusal) = refusal.filter(AzureError::is_a_refusal) else { return Err(error) };
            if matches!(self.read_again().await, Ok(Renewed::Changed)) {
                let setting = self.reference().map_or("azure.credential", |(setting, _)| setting);
                tracing::warn!(setting, "the Azure identity was refused; going on with the secret that replaced it");
                continue;
            }
            self.held().refused = Some((Instant::now(), refusal));
            return Err(error);
        }
    }
}

#[async_trait::async_trait]
impl Renew for Identity {
    async fn renew(&self) -> Result<Renewed, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.read_again().await?)
    }

    fn hurry(&self) {
        self.held().refused = None;
    }
}
