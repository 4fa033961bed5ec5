//! References to secrets: what stands in the configuration instead of the secret itself.

mod local;

pub use local::{LocalSecrets, open_to_others};

use secrecy::SecretString;
use std::fmt;
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

/// A text that is no reference. Never repeats it: it may be the secret itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefError {
    #[error(
        "expected a reference to the secret, not the secret: env:NAME, file:PATH, keyvault:URL or \
         @Microsoft.KeyVault(SecretUri=URL); put the secret itself into an environment variable, a file or a key vault"
    )]
    NotAReference,
    #[error("op:// references are not available in this version: use env:NAME, file:PATH or keyvault:URL")]
    OnePassword,
    #[error("expected env:NAME with the name of an environment variable (letters, digits and _), not its value")]
    EnvName,
    #[error("expected file:PATH with the path of a file")]
    FilePath,
    #[error("expected keyvault:https://VAULT.vault.azure.net/secrets/NAME, without query or user name")]
    KeyVaultUrl,
    #[error(
        "expected @Microsoft.KeyVault(SecretUri=https://VAULT.vault.azure.net/secrets/NAME) or \
         @Microsoft.KeyVault(VaultName=VAULT;SecretName=NAME)"
    )]
    AppServiceForm,
}

/// Longest name of a variable; tokens are longer.
const ENV_NAME_BYTES_MAX: usize = 128;

impl SecretRef {
    /// # Errors
    /// The text is no reference, or one of a form that is not known.
    pub fn parse(text: &str) -> Result<Self, SecretRefError> {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix("@Microsoft.KeyVault(") {
            return app_service(inner.strip_suffix(')').ok_or(SecretRefError::AppServiceForm)?);
        }
        let (scheme, rest) = text.split_once(':').ok_or(SecretRefError::NotAReference)?;
        match scheme {
            "env" if is_env_name(rest) => Ok(Self::Env(rest.to_owned())),
            "env" => Err(SecretRefError::EnvName),
            "file" if !rest.is_empty() && !rest.contains('\0') => Ok(Self::File(rest.into())),
            "file" => Err(SecretRefError::FilePath),
            "keyvault" => key_vault(rest, SecretRefError::KeyVaultUrl),
            "op" => Err(SecretRefError::OnePassword),
            _ => Err(SecretRefError::NotAReference),
        }
    }
}

fn is_env_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=ENV_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(legal)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// `https://HOST/secrets/NAME` or `.../NAME/VERSION`. Which hosts may be asked is decided by `config::hosts`.
fn key_vault(text: &str, otherwise: SecretRefError) -> Result<SecretRef, SecretRefError> {
    let url = Url::parse(text).map_err(|_| otherwise)?;
    let path: Vec<&str> = url.path_segments().into_iter().flatten().filter(|part| !part.is_empty()).collect();
    let names_a_secret = matches!(path.as_slice(), ["secrets", _] | ["secrets", _, _]);
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host();
    if names_a_secret && plain { Ok(SecretRef::KeyVault(url)) } else { Err(otherwise) }
}

/// The inside of the form that App Service and Functions use in their settings.
fn app_service(inner: &str) -> Result<SecretRef, SecretRefError> {
    let otherwise = SecretRefError::AppServiceForm;
    if let Some(url) = inner.strip_prefix("SecretUri=") {
        return key_vault(url, otherwise);
    }
    let (mut vault, mut name, mut version) = (None, None, "");
    for (key, value) in inner.split(';').filter_map(|part| part.split_once('=')) {
        match key.trim() {
            "VaultName" => vault = Some(value.trim()),
            "SecretName" => name = Some(value.trim()),
            "SecretVersion" => version = value.trim(),
            _ => return Err(otherwise),
        }
    }
    let legal = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match (vault, name) {
        (Some(vault), Some(name)) if !vault.is_empty() && [vault, name, version].into_iter().all(legal) => {
            let url = format!("https://{vault}.vault.azure.net/secrets/{name}/{version}");
            key_vault(url.trim_end_matches('/'), otherwise)
        }
        _ => Err(otherwise),
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::KeyVault(url) => write!(f, "keyvault:{url}"),
        }
    }
}

/// A secret that could not be read: names the reference, never the value.
#[derive(Debug, thiserror::Error)]
#[error("read the secret {reference}: {why}")]
pub struct SecretError {
    pub reference: String,
    pub why: String,
    /// What the operator should do, where the place of the secret tells more than its reference does.
    pub remedy: Option<String>,
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Reads secrets at the moment they are needed, so that a rotated one is picked up without a restart.
#[async_trait::async_trait]
pub trait SecretReader: Send + Sync {
    async fn read(&self, reference: &SecretRef) -> Result<SecretString, SecretError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_survives_its_display() {
        for text in [
            "env:OP_EVENTS_TOKEN",
            "file:/run/secrets/token",
            "keyvault:https://v.vault.azure.net/secrets/op",
            "keyvault:https://v.vault.azure.net/secrets/op/0123456789abcdef",
        ] {
            assert_eq!(SecretRef::parse(text).map(|reference| reference.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn the_app_service_forms_are_key_vault_references() {
        let vault = SecretRef::parse("keyvault:https://v.vault.azure.net/secrets/op");
        for text in [
            "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/op)",
            "@Microsoft.KeyVault(VaultName=v;SecretName=op)",
            " @Microsoft.KeyVault(VaultName=v; SecretName=op) ",
        ] {
            assert_eq!(SecretRef::parse(text), vault, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_explained_and_not_repeated() {
        use SecretRefError::{AppServiceForm, EnvName, FilePath, KeyVaultUrl, NotAReference, OnePassword};
        for (text, expected) in [
            ("eyJhbGciOiJFUzI1NiJ9.CANARY.x", NotAReference),
            ("", NotAReference),
            ("12345", NotAReference),
            ("ENV:CANARY", NotAReference),
            ("https://CANARY", NotAReference),
            ("op://vault/CANARY/field", OnePassword),
            ("env:", EnvName),
            ("env:eyJhbGci.CANARY", EnvName),
            ("env:1CANARY", EnvName),
            ("file:", FilePath),
            ("keyvault:CANARY", KeyVaultUrl),
            ("keyvault:https://v.vault.azure.net/keys/CANARY", KeyVaultUrl),
            ("keyvault:https://u:CANARY@v.vault.azure.net/secrets/x", KeyVaultUrl),
            ("keyvault:https://v.vault.azure.net/secrets/x?sig=CANARY", KeyVaultUrl),
            ("@Microsoft.KeyVault(SecretUri=CANARY)", AppServiceForm),
            ("@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/x", AppServiceForm),
            ("@Microsoft.KeyVault(VaultName=evil.example/CANARY;SecretName=x)", AppServiceForm),
            ("@Microsoft.KeyVault(SecretName=x)", AppServiceForm),
        ] {
            assert_eq!(SecretRef::parse(text), Err(expected), "{text}");
            assert!(!expected.to_string().contains("CANARY"));
        }
    }
}
