//! Reading a Key Vault secret.

use crate::tokens::Desk;
use crate::world::{World, reply};
use crate::{proxied, said};
use opship::azure::{AzureError, Tokens, key_vault_secret, places};
use opship::config::Cloud;
use secrecy::{ExposeSecret, SecretString};

const VAULT: &str = "kv.vault.azure.net";

async fn read(world: &World, tokens: &Tokens, url: &str) -> Result<SecretString, AzureError> {
    key_vault_secret(&proxied(world), tokens, places(Cloud::Public), &url.parse().unwrap(), Some("the-client")).await
}

#[tokio::test]
async fn a_secret_is_read_with_the_bearer_and_the_api_version() {
    let world = World::start().await;
    world.answer(VAULT, |_, _| reply(200, r#"{"value":"canary-value","id":"x"}"#));
    let tokens = Desk::open(3600).tokens();
    let secret = read(&world, &tokens, "https://kv.vault.azure.net/secrets/op/0123").await.unwrap();
    assert_eq!(secret.expose_secret(), "canary-value");
    let seen = &world.seen(VAULT)[0];
    assert_eq!(seen.path, "/secrets/op/0123?api-version=7.4");
    assert_eq!(seen.header("authorization"), "Bearer canary-token-0");
}

/// Fault: every refusal that a vault has words for, an empty secret, and a vault that is away. Shows: the error names the secret and what the vault said, the remedy is the one command that mends it.
#[tokio::test]
async fn fm_68_a_vault_that_gives_nothing_says_which_command_mends_it() {
    let put = "az keyvault secret set --file /dev/stdin --encoding utf-8 -o none --vault-name kv -n op";
    for (status, code, words, remedy) in [
        (401, "Unauthorized", "AKV10032: Invalid issuer.", "the vault's tenant"),
        (
            403,
            "Forbidden",
            "Caller is not authorized to perform action on resource.",
            "az role assignment create --role \"Key Vault Secrets User\" --assignee the-client --scope \"$(az keyvault show -n kv --query id -o tsv)/secrets/op\"",
        ),
        (
            403,
            "Forbidden",
            "Client address is not authorized and caller is not a trusted service.",
            "az keyvault network-rule add -n kv",
        ),
        (
            403,
            "Forbidden",
            "Operation get is not allowed on a disabled secret.",
            "az keyvault secret set-attributes --enabled true --vault-name kv -n op",
        ),
        (
            403,
            "Forbidden",
            "The user, group or application 'appid=1' does not have secrets get permission on key vault 'kv'.",
            "az keyvault set-policy -n kv --secret-permissions get --spn the-client",
        ),
        (404, "SecretNotFound", "A secret with (name/id) op was not found", put),
    ] {
        let world = World::start().await;
        let body = format!(r#"{{"error":{{"code":"{code}","message":"{words}"}}}}"#);
        world.answer(VAULT, move |_, _| reply(status, body.clone()));
        let error =
            read(&world, &Desk::open(3600).tokens(), "https://kv.vault.azure.net/secrets/op").await.unwrap_err();
        let text = said(&error);
        for part in ["https://kv.vault.azure.net/secrets/op", code, words] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let told = error.vault_remedy().unwrap();
        assert!(told.contains(remedy), "{remedy} is not in {told}");
        assert_eq!(error.is_a_refusal(), matches!(status, 401 | 403));
    }
    let world = World::start().await;
    world.answer(VAULT, |_, _| reply(200, r#"{"value":" \n"}"#));
    let empty = read(&world, &Desk::open(3600).tokens(), "https://kv.vault.azure.net/secrets/op").await.unwrap_err();
    assert!(said(&empty).contains("empty") && empty.vault_remedy().unwrap().contains(put), "{}", said(&empty));
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let world = World::start().await;
    world.answer(VAULT, |seen, _| match seen.header("authorization") {
        "Bearer canary-token-0" => reply(401, ""),
        _ => reply(200, r#"{"value":"canary-value"}"#),
    });
    read(&world, &Desk::open(3600).tokens(), "https://kv.vault.azure.net/secrets/op").await.unwrap();
    assert_eq!(world.seen(VAULT).len(), 2);
}

#[tokio::test]
async fn a_host_that_is_no_vault_gets_no_token_and_a_strange_answer_is_not_quoted() {
    let world = World::start().await;
    let desk = Desk::open(3600);
    let error = read(&world, &desk.tokens(), "https://kv.vault.azure.net.evil.example/secrets/op").await.unwrap_err();
    assert!(said(&error).contains(".vault.azure.net"));
    assert_eq!(desk.asked(), 0);
    world.answer(VAULT, |_, _| reply(200, r#"{"value":["canary-value"]}"#));
    let error = read(&world, &desk.tokens(), "https://kv.vault.azure.net/secrets/op").await.unwrap_err();
    assert!(said(&error).contains("not a secret bundle"));
}
