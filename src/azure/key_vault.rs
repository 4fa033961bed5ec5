//! One secret of a Key Vault, read with a bearer token.

use super::{AzureError, Places, Tokens};
use crate::flow::retry::Failure;
use crate::flow::words::Hidden;
use crate::http::{failure_of, failure_of_status, read_body};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

const API_VERSION: &str = "7.4";
/// A secret's value is at most 25 KB; its attributes and tags come on top.
const SECRET_BYTES_MAX: usize = 256 * 1024;
const EMPTY: &str = "its value is empty";

#[derive(Deserialize)]
struct Bundle {
    value: String,
}

/// Reads a secret by its identifier, `https://VAULT.vault.azure.net/secrets/NAME[/VERSION]`. `tokens` are for the cloud's
/// `key_vault_scope`, so the host must be one of its vaults: the bearer would open every vault the identity may read. `who` is the identity, as a command
/// that gives it a right names it.
///
/// # Errors
/// A URL that is not a vault's, no token, or an answer other than the secret, with what to do about it.
pub async fn key_vault_secret(
    http: &reqwest::Client,
    tokens: &Tokens,
    places: &Places,
    url: &Url,
    who: Option<&str>,
) -> Result<SecretString, AzureError> {
    demand_vault(places, url)?;
    let first = get(http, tokens, url, who).await;
    let Err(AzureError::KeyVault { failure: Failure::Status { status: 401, .. }, .. }) = first else { return first };
    tokens.forget();
    get(http, tokens, url, who).await
}

fn demand_vault(places: &Places, url: &Url) -> Result<(), AzureError> {
    let host = url.host_str().unwrap_or_default();
    let plain = url.scheme() == "https" && url.username().is_empty() && url.password().is_none();
    if plain && places.key_vault_hosts.iter().any(|suffix| host.len() > suffix.len() && host.ends_with(suffix)) {
        return Ok(());
    }
    Err(AzureError::NotAVault { url: name_of(url), hosts: places.key_vault_hosts.join(", ") })
}

/// The identifier as an error may show it: without a query or a user that someone put there.
fn name_of(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

async fn get(
    http: &reqwest::Client,
    tokens: &Tokens,
    url: &Url,
    who: Option<&str>,
) -> Result<SecretString, AzureError> {
    let fail = |failure: Failure, cause: Option<AzureError>| {
        let remedy = remedy(&failure, url, who);
        AzureError::KeyVault { url: name_of(url), failure, remedy, cause: cause.map(Box::new) }
    };
    let token = tokens.token().await.map_err(|error| fail(Failure::NoCredential, Some(error)))?;
    let mut address = url.clone();
    address.set_query(Some(&format!("api-version={API_VERSION}")));
    address.set_fragment(None);
    let request = http.get(address).bearer_auth(token.expose_secret());
    let response = request.send().await.map_err(|error| fail(failure_of(&error), None))?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(fail(
            failure_of_status(response, &Hidden { secrets: &[token.expose_secret()], body: b"" }).await,
            None,
        ));
    }
    let body = read_body(response, SECRET_BYTES_MAX).await.map_err(|failure| fail(failure, None))?;
    // The text of a JSON error may quote the secret.
    let unread = |_| fail(Failure::Malformed("not a secret bundle".into()), None);
    let secret =
        serde_json::from_slice::<Bundle>(&body).map(|bundle| SecretString::from(bundle.value)).map_err(unread)?;
    if secret.expose_secret().trim().is_empty() {
        return Err(fail(Failure::Malformed(EMPTY.into()), None));
    }
    Ok(secret)
}

/// The one command that mends it where there is one; of a text that the vault's own words decide, since its codes are all `Forbidden`:
/// <https://learn.microsoft.com/azure/key-vault/general/rest-error-codes>.
fn remedy(failure: &Failure, url: &Url, who: Option<&str>) -> String {
    let vault = url.host_str().and_then(|host| host.split('.').next()).unwrap_or("VAULT");
    let name = url.path_segments().and_then(|mut parts| parts.nth(1)).unwrap_or("NAME");
    let at = format!("--vault-name {vault} -n {name}");
    match failure {
        Failure::Status { status: 401, .. } => {
            "the vault does not accept the token: check that the identity is of the vault's tenant".into()
        }
        Failure::Status { status: 403, message, .. } => {
            let says = |words: &str| message.raw().contains(words);
            if says("Client address") || says("Public network access") || says("ForbiddenByFirewall") {
                return format!(
                    "let opship's network through the vault's firewall: `az keyvault network-rule add -n {vault} --subnet SUBNET_ID`, or give the \
                     vault a private endpoint there"
                );
            }
            if says("get permission") {
                let who = who.unwrap_or("OBJECT_ID_OF_THE_IDENTITY");
                return format!(
                    "the vault goes by access policies: `az keyvault set-policy -n {vault} --secret-permissions get --spn {who}`"
                );
            }
            if says("disabled secret") {
                return format!("enable the secret: `az keyvault secret set-attributes --enabled true {at}`");
            }
            let who = who.unwrap_or("OBJECT_ID_OF_THE_IDENTITY");
            format!(
                "give the identity the right to read the secret (a new role takes up to ten minutes): `az role assignment create --role \"Key Vault \
                 Secrets User\" --assignee {who} --scope \"$(az keyvault show -n {vault} --query id -o tsv)/secrets/{name}\"`"
            )
        }
        Failure::Status { status: 404, .. } => format!("there is no such secret, or version of it, yet: {}", put(&at)),
        Failure::Status { status: 429 | 500.., .. } => "the vault is in trouble: nothing to do".into(),
        Failure::Malformed(what) if what == EMPTY => format!("the secret is empty: {}", put(&at)),
        Failure::NotConnected | Failure::Interrupted => format!(
            "check that the vault {vault} is there and can be reached from here: its name, its private endpoint, http.proxy and http.ca_file"
        ),
        Failure::NoCredential => "the vault is asked with the Azure identity: see the cause".into(),
        Failure::Status { .. } | Failure::Malformed(_) | Failure::TooLarge | Failure::Local => {
            "check the secret's identifier in the configuration".into()
        }
    }
}

/// The secret is typed in, so that it ends up in no history of a shell.
fn put(at: &str) -> String {
    format!("`read -rs T && printf %s \"$T\" | az keyvault secret set --file /dev/stdin --encoding utf-8 -o none {at}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::places;
    use crate::config::Cloud;

    #[test]
    fn only_https_hosts_of_the_clouds_own_vaults_get_a_token() {
        let ask = |text: &str| demand_vault(places(Cloud::Public), &Url::parse(text).unwrap());
        assert!(ask("https://kv.vault.azure.net/secrets/op").is_ok());
        for foreign in [
            "http://kv.vault.azure.net/secrets/op",
            "https://kv.vault.azure.net.evil.example/secrets/op",
            "https://evilvault.azure.net/secrets/op",
            "https://.vault.azure.net/secrets/op",
            "https://u:p@kv.vault.azure.net/secrets/op",
            "https://kv.vault.usgovcloudapi.net/secrets/op",
        ] {
            let error = ask(foreign).unwrap_err().to_string();
            assert!(!error.contains("u:p@"), "{error}");
        }
    }
}
