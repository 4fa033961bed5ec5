//! References to secrets: what stands in the configuration instead of the secret itself.

use secrecy::SecretString;
use std::path::PathBuf;
use url::Url;

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    Env(String),
    File(PathBuf),
    /// A Key Vault secret identifier, from `keyvault:URL` or `@Microsoft.KeyVault(SecretUri=URL)`.
    KeyVault(Url),
}

/// A secret that could not be read: names the reference, never the value.
#[derive(Debug, thiserror::Error)]
#[error("read the secret {reference}: {why}")]
pub struct SecretError {
    pub reference: String,
    pub why: String,
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Reads secrets at the moment they are needed, so that a rotated one is picked up without a restart.
#[async_trait::async_trait]
pub trait SecretReader: Send + Sync {
    async fn read(&self, reference: &SecretRef) -> Result<SecretString, SecretError>;
}
