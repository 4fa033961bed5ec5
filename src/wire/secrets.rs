//! Secrets behind the Azure identity, and those that are read again while the process runs.

use crate::admin::Lock;
use crate::azure::{self, Tokens, places};
use crate::config;
use crate::reload::{Renew, Renewed};
use crate::secret::{SecretError, SecretReader, SecretRef};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;

/// Reads Key Vault references with the Azure identity.
pub(super) struct Vault {
    pub(super) http: reqwest::Client,
    pub(super) tokens: Tokens,
    pub(super) cloud: config::Cloud,
    /// The client id of the identity, as a command that gives it a right names it.
    pub(super) who: Option<String>,
}

#[async_trait::async_trait]
impl SecretReader for Vault {
    async fn read(&self, reference: &SecretRef) -> Result<SecretString, SecretError> {
        let refuse = |why: &str, remedy, cause| {
            let (reference, why) = (reference.to_string(), why.into());
            SecretError { reference, why, remedy, cause }
        };
        let SecretRef::KeyVault(url) = reference else {
            return Err(refuse("it is no Key Vault reference", None, None));
        };
        let read = azure::key_vault_secret(&self.http, &self.tokens, places(self.cloud), url, self.who.as_deref());
        read.await.map_err(|error| {
            let remedy = error.vault_remedy().map(|remedy| format!("{remedy}; it is read again by itself"));
            refuse("the vault did not give it", remedy, Some(error.into()))
        })
    }
}

/// The token of the admin server.
pub(super) struct AdminKey {
    pub(super) secrets: Arc<dyn SecretReader>,
    pub(super) reference: SecretRef,
    pub(super) lock: Arc<Lock>,
}

#[async_trait::async_trait]
impl Renew for AdminKey {
    async fn renew(&self) -> Result<Renewed, Box<dyn std::error::Error + Send + Sync>> {
        let token = self.secrets.read(&self.reference).await?;
        if token.expose_secret().trim().is_empty() {
            return Err(format!("{}: it is empty", self.reference).into());
        }
        Ok(if self.lock.take_key(&token) { Renewed::Changed } else { Renewed::Same })
    }
}
