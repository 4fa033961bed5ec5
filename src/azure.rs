//! Azure: what differs between the clouds, the five credentials, and the tokens they give.

mod certificate;
mod cli;
mod key_vault;
mod passport;
mod places;
mod tokens;
mod witness;

pub use key_vault::key_vault_secret;
pub use passport::Passport;
pub use places::{Places, places};
pub use tokens::Tokens;

use crate::config::{self, Cloud};
use crate::flow::retry::Failure;
use crate::http::one_line;
use azure_core::Error;
use azure_core::cloud::CloudConfiguration;
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::{ClientOptions, ExponentialRetryOptions, HttpClient, RetryOptions, Transport};
use azure_identity as sdk;
use certificate::Certificate;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use witness::Witness;

/// One token, retries included. The SDK's own default is 82 s of retries, longer than an intent may wait.
pub const TOKEN_DEADLINE: Duration = Duration::from_secs(12);
/// Requests for one token.
pub const TOKEN_TRIES_MAX: u32 = 3;
/// How often a credential that is refused is tried: Entra counts failed sign-ins, and a person has to do something.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// A credential that could not be set up, or that gave no token or secret. Never holds a secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AzureError {
    #[error("set up the {kind} credential: azure.{key} is missing")]
    Missing { kind: &'static str, key: &'static str },
    #[error("set up the {who} credential: {why}")]
    Setup { who: Who, why: String },
    #[error("ask for a token for {scope} as {who}: {failure}; {remedy}")]
    NoToken {
        scope: String,
        who: Who,
        failure: Failure,
        remedy: &'static str,
        #[source]
        cause: Option<Said>,
    },
    /// By a credential that is not ours.
    #[error("ask for a token for {scope}")]
    ForeignCredential {
        scope: String,
        #[source]
        cause: Said,
    },
    #[error("read the Key Vault secret {url}: not https on a host of this cloud's vaults ({hosts})")]
    NotAVault { url: String, hosts: String },
    #[error("read the Key Vault secret {url}: {failure}")]
    KeyVault {
        url: String,
        failure: Failure,
        remedy: String,
        #[source]
        cause: Option<Box<Self>>,
    },
}

/// The words of a cause: the SDK's own errors carry answer bodies, so their text is taken over, not they themselves.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Said(String);

/// Who asks for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    kind: config::Credential,
    client_id: Option<String>,
}

/// Who will ask for tokens with this configuration.
pub fn who(azure: &config::Azure) -> Who {
    Who { kind: azure.credential, client_id: azure.client_id.clone() }
}

/// Where the platform gives out tokens of a managed identity, where it says so: Container Apps, App Service.
/// <https://learn.microsoft.com/azure/container-apps/managed-identity#rest-endpoint-reference>
pub fn local_endpoint(azure: &config::Azure) -> Option<url::Url> {
    let is_local = azure.credential == config::Credential::ManagedIdentity;
    std::env::var("IDENTITY_ENDPOINT").ok().filter(|_| is_local)?.parse().ok()
}

impl AzureError {
    /// Whether somebody looked at the credential and said no; anything else may be a network or a setting.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::NoToken { failure: Failure::Status { status: 400..=403, .. }, .. })
    }

    /// What the operator should do about a secret that a vault did not give.
    pub fn vault_remedy(&self) -> Option<&str> {
        let Self::KeyVault { remedy, .. } = self else { return None };
        Some(remedy)
    }

    /// Whether who asked was refused: nothing but another secret, or a person, changes that.
    pub const fn is_a_refusal(&self) -> bool {
        let (Self::NoToken { failure, .. } | Self::KeyVault { failure, .. }) = self else { return false };
        matches!(failure, Failure::Status { status: 400 | 401 | 403, .. })
    }

    /// Whether the configuration must change before anything can be asked.
    pub const fn is_a_setting(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Setup { .. } | Self::NotAVault { .. })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(kind_name(self.kind))?;
        match (&self.client_id, self.kind) {
            (Some(id), _) => write!(f, " (client id {id})"),
            (None, config::Credential::ManagedIdentity) => f.write_str(" (system-assigned)"),
            (None, _) => Ok(()),
        }
    }
}

/// As in the configuration.
const fn kind_name(kind: config::Credential) -> &'static str {
    match kind {
        config::Credential::ManagedIdentity => "managed-identity",
        config::Credential::WorkloadIdentity => "workload-identity",
        config::Credential::ClientSecret => "client-secret",
        config::Credential::ClientCertificate => "client-certificate",
        config::Credential::AzureCli => "azure-cli",
    }
}

/// The configured credential. It caches nothing, so that each call really asks: hold it in [`Tokens`], or in an SDK client,
/// which keeps its token itself.
///
/// # Errors
/// A missing setting, an unusable certificate, or a platform without the identity asked for. Nothing is sent.
pub fn credential(
    azure: &config::Azure,
    client_secret: Option<SecretString>,
    certificate: Option<SecretString>,
    http: &reqwest::Client,
) -> Result<Arc<dyn TokenCredential>, AzureError> {
    credential_over(azure, client_secret, certificate, Arc::new(http.clone()))
}

/// [`credential`] over another transport: a test answers for the addresses that are constants of the SDK.
///
/// # Errors
/// As [`credential`].
pub fn credential_over(
    azure: &config::Azure,
    client_secret: Option<SecretString>,
    certificate: Option<SecretString>,
    http: Arc<dyn HttpClient>,
) -> Result<Arc<dyn TokenCredential>, AzureError> {
    let recipe = Recipe::read(azure, client_secret, certificate)?;
    let credential = Credential { who: who(azure), recipe, cloud: azure.cloud, http };
    credential
        .build(&Arc::new(Witness::new(credential.http.clone())))
        .map_err(|error| credential.not_set_up(&error))?;
    Ok(Arc::new(credential))
}

/// Builds a new SDK credential for each token: the SDK's cache hands back the same token until 5 minutes before its end,
/// whoever refused it meanwhile, and turns into an error in those 5 minutes when the refresh fails.
struct Credential {
    who: Who,
    recipe: Recipe,
    cloud: Cloud,
    http: Arc<dyn HttpClient>,
}

/// What a credential is made of.
enum Recipe {
    ManagedIdentity { client_id: Option<String> },
    WorkloadIdentity { tenant_id: Option<String>, client_id: Option<String> },
    ClientSecret { tenant_id: String, client_id: String, secret: SecretString },
    ClientCertificate { tenant_id: String, client_id: String, certificate: Arc<Certificate> },
    AzureCli { tenant_id: Option<String> },
}

impl Recipe {
    fn read(
        azure: &config::Azure,
        client_secret: Option<SecretString>,
        certificate: Option<SecretString>,
    ) -> Result<Self, AzureError> {
        let kind = kind_name(azure.credential);
        let missing = |key| AzureError::Missing { kind, key };
        let tenant_id = azure.tenant_id.clone();
        let client_id = azure.client_id.clone();
        Ok(match azure.credential {
            config::Credential::ManagedIdentity => Self::ManagedIdentity { client_id },
            config::Credential::WorkloadIdentity => Self::WorkloadIdentity { tenant_id, client_id },
            config::Credential::AzureCli => Self::AzureCli { tenant_id },
            config::Credential::ClientSecret => Self::ClientSecret {
                tenant_id: tenant_id.ok_or(missing("tenant_id"))?,
                client_id: client_id.ok_or(missing("client_id"))?,
                secret: client_secret.ok_or(missing("client_secret"))?,
            },
            config::Credential::ClientCertificate => {
                let (tenant_id, client_id) =
                    (tenant_id.ok_or(missing("tenant_id"))?, client_id.ok_or(missing("client_id"))?);
                let certificate = Certificate::read(&certificate.ok_or(missing("certificate"))?).map_err(|why| {
                    let who = Who { kind: azure.credential, client_id: Some(client_id.clone()) };
                    AzureError::Setup { who, why: format!("azure.certificate: {why}") }
                })?;
                Self::ClientCertificate { tenant_id, client_id, certificate: Arc::new(certificate) }
            }
        })
    }
}

impl Credential {
    fn build(&self, witness: &Arc<Witness>) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let client_options = self.client_options(witness);
        let options = || sdk::ClientAssertionCredentialOptions { client_options: client_options.clone() };
        Ok(match &self.recipe {
            Recipe::ManagedIdentity { client_id } => {
                let user_assigned_id = client_id.clone().map(sdk::UserAssignedId::ClientId);
                let options = sdk::ManagedIdentityCredentialOptions { user_assigned_id, client_options };
                sdk::ManagedIdentityCredential::new(Some(options))?
            }
            Recipe::WorkloadIdentity { tenant_id, client_id } => {
                sdk::WorkloadIdentityCredential::new(Some(sdk::WorkloadIdentityCredentialOptions {
                    credential_options: options(),
                    client_id: client_id.clone(),
                    tenant_id: tenant_id.clone(),
                    token_file_path: None,
                }))?
            }
            Recipe::ClientSecret { tenant_id, client_id, secret } => {
                let secret = Secret::new(secret.expose_secret().to_owned());
                let options = sdk::ClientSecretCredentialOptions { client_options };
                sdk::ClientSecretCredential::new(tenant_id, client_id.clone(), secret, Some(options))?
            }
            Recipe::ClientCertificate { tenant_id, client_id, certificate } => {
                let assertion = certificate.clone().assertion(places(self.cloud).authority, tenant_id, client_id);
                let (tenant_id, client_id) = (tenant_id.clone(), client_id.clone());
                sdk::ClientAssertionCredential::new(tenant_id, client_id, assertion, Some(options()))?
            }
            Recipe::AzureCli { tenant_id } => {
                let tenant_id = tenant_id.clone();
                let executor: Arc<dyn sdk::Executor> = Arc::new(cli::Az);
                let options =
                    sdk::AzureCliCredentialOptions { tenant_id, executor: Some(executor), ..Default::default() };
                sdk::AzureCliCredential::new(Some(options))?
            }
        })
    }

    fn client_options(&self, witness: &Arc<Witness>) -> ClientOptions {
        let cloud = match self.cloud {
            Cloud::Public => CloudConfiguration::AzurePublic,
            Cloud::UsGov => CloudConfiguration::AzureGovernment,
            Cloud::China => CloudConfiguration::AzureChina,
        };
        ClientOptions {
            retry: RetryOptions::exponential(ExponentialRetryOptions {
                max_retries: TOKEN_TRIES_MAX - 1,
                max_total_elapsed: azure_core::time::Duration::seconds(10),
                ..Default::default()
            }),
            transport: Some(Transport::new(witness.clone())),
            cloud: Some(Arc::new(cloud)),
            ..Default::default()
        }
    }

    async fn ask(&self, scope: &str) -> Result<AccessToken, AzureError> {
        let witness = Arc::new(Witness::new(self.http.clone()));
        let credential = self.build(&witness).map_err(|error| self.not_set_up(&error))?;
        let deadline = match self.recipe {
            // It says itself that it was too slow.
            Recipe::AzureCli { .. } => cli::DEADLINE + Duration::from_secs(2),
            _ => TOKEN_DEADLINE,
        };
        let (failure, cause) = match tokio::time::timeout(deadline, credential.get_token(&[scope], None)).await {
            Ok(Ok(token)) => return Ok(token),
            Ok(Err(error)) => witness.verdict().unwrap_or_else(|| (Failure::NoCredential, Some(said(&error)))),
            Err(_) => (Failure::Interrupted, Some(Said(format!("no token within {} s", deadline.as_secs())))),
        };
        let remedy = remedy(self.who.kind, &failure);
        Err(AzureError::NoToken { scope: scope.to_owned(), who: self.who.clone(), failure, remedy, cause })
    }

    fn not_set_up(&self, error: &Error) -> AzureError {
        AzureError::Setup { who: self.who.clone(), why: said(error).0 }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.who)
    }
}

#[async_trait::async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let &[scope] = scopes else {
            return Err(Error::with_message(ErrorKind::Credential, "exactly one scope is needed"));
        };
        self.ask(scope).await.map_err(|error| Error::new(ErrorKind::Credential, error))
    }
}

/// The text of an SDK error that no answer explains: `az` failed, a token file is missing, a platform is not supported.
/// The text of a JSON error may quote the token it stumbled over, so that one is not taken over.
fn said(error: &Error) -> Said {
    let mut texts: Vec<String> = Vec::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if cause.is::<serde_json::Error>() {
            return Said("the answer is not what a token answer looks like".into());
        }
        let text = one_line(&cause.to_string());
        // The SDK's outer error repeats the inner one, with a link to its own guide.
        let repeats = text.contains("authentication failed.") && cause.source().is_some();
        if !repeats && !texts.iter().any(|seen| seen.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    Said(texts.join(": "))
}

/// Entra's own error numbers say more than the status.
const ENTRA_REMEDIES: [(u32, &str); 12] = [
    (7_000_215, "azure.client_secret is wrong: use the secret's value, not its id"),
    (7_000_222, "the client secret has expired: create a new one"),
    (7_000_112, "the application is disabled in this tenant: enable its enterprise application (service principal)"),
    (700_016, "no application with this client id in the tenant: check azure.client_id and azure.tenant_id"),
    (90_002, "the tenant does not exist: check azure.tenant_id and azure.cloud"),
    (900_023, "the tenant does not exist: check azure.tenant_id and azure.cloud"),
    (700_027, "the certificate is not registered with the application, or has expired: upload it"),
    (70_021, "no federated identity credential matches the token's issuer and subject: add or correct it"),
    (700_211, "no federated identity credential matches the token's issuer: add or correct it"),
    (
        700_024,
        "the assertion is not valid now: the token file of the workload identity was not renewed, or this host's clock is wrong",
    ),
    (
        53_003,
        "a Conditional Access policy refuses the sign-in: exempt this workload identity, or let its address in; no secret or role helps",
    ),
    (
        500_011,
        "the tenant does not know the service that a token was asked for: check azure.cloud and azure.tenant_id; for Azure Monitor its \
         resource provider has to be registered in the tenant",
    ),
];

/// The number behind `AADSTS`, whole: one is the beginning of another.
fn entra_number(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("AADSTS")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn remedy(kind: config::Credential, failure: &Failure) -> &'static str {
    use config::Credential as Kind;
    let Failure::Status { status, message, .. } = failure else {
        return match kind {
            Kind::AzureCli => "run `az login`, and check that `az` is on PATH",
            Kind::ManagedIdentity => "check that this runs on Azure with a managed identity assigned",
            Kind::WorkloadIdentity => "check the pod's service account, its token file and the way to the authority",
            Kind::ClientSecret | Kind::ClientCertificate => {
                "check the network, http.proxy, http.ca_file and azure.cloud"
            }
        };
    };
    let number = entra_number(message.raw());
    if let Some((_, remedy)) = ENTRA_REMEDIES.iter().find(|(known, _)| Some(*known) == number) {
        return remedy;
    }
    match (kind, status) {
        (_, 408 | 429 | 500..) => "the identity service is in trouble: it is asked again",
        (Kind::ManagedIdentity, _) => {
            "assign the identity to this resource, and for a user-assigned one set azure.client_id to its client id"
        }
        (Kind::WorkloadIdentity, _) => "check the federated identity credential, azure.client_id and azure.tenant_id",
        (_, _) => "check azure.tenant_id, azure.client_id and the secret or certificate",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::words::{Shape, Words};

    /// Fault: each of Entra's numbers, one that is the beginning of another, and one that nobody knows. Shows: the remedy is that number's own, else that of the status.
    #[test]
    fn fm_71_an_entra_number_chooses_the_remedy_before_the_status_does() {
        for (number, says) in [
            ("7000222", "has expired"),
            ("7000112", "disabled"),
            ("700024", "was not renewed"),
            ("53003", "Conditional Access"),
            ("500011", "resource provider"),
            ("70021", "issuer and subject"),
            ("700211", "token's issuer:"),
            ("700212", "check azure.tenant_id, azure.client_id and the secret"),
        ] {
            let message = Words::said(Shape::Entra, &format!("AADSTS{number}: The provided thing is refused."));
            let failure = Failure::Status { status: 401, code: "invalid_client".into(), message, retry_after: None };
            let remedy = remedy(config::Credential::ClientSecret, &failure);
            assert!(remedy.contains(says), "{number}: {remedy}");
        }
    }
}
