//! Azure against a loopback internet: credentials, tokens, Key Vault and the sinks.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests are tests")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod credentials;
mod dcr;
mod ndjson;
mod ndjson_table;
mod tokens;
mod vault;
mod workspace;
mod world;

use opship::config;
use std::sync::Arc;
use world::{Answer, World, reply};

pub const LOGIN: &str = "login.microsoftonline.com";
pub const SECRET: &str = "canary-secret-value";

pub fn azure(credential: config::Credential) -> config::Azure {
    config::Azure {
        credential,
        client_id: Some("client-1".into()),
        tenant_id: Some("tenant-1".into()),
        client_secret: None,
        certificate: None,
        workspace_id: None,
        workspace_url: None,
        cloud: config::Cloud::Public,
    }
}

/// A client that reaches every host of the world through its proxy and trusts its authority.
pub fn proxied(world: &World) -> reqwest::Client {
    client(world, true)
}

pub fn client(world: &World, through_proxy: bool) -> reqwest::Client {
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), world.ca_pem()).unwrap();
    let proxy = through_proxy.then(|| config::ProxyUrl(world.url()));
    let options = config::Http { proxy, no_proxy: Vec::new(), ca_file: Some(ca.path().into()) };
    opship::http::client(&options).unwrap()
}

/// An Entra answer whose token names its number.
pub fn entra(count: usize) -> Answer {
    reply(200, format!(r#"{{"token_type":"Bearer","expires_in":3600,"access_token":"canary-token-{count}"}}"#))
}

/// Everything an error can say: `Display` and `Debug` of it and of its causes.
pub fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error:?}");
    let mut next = Some(error);
    while let Some(cause) = next {
        text.push_str(&format!("\n{cause}\n{cause:?}"));
        next = cause.source();
    }
    assert!(!text.contains("canary"), "a secret leaked: {text}");
    text
}

pub async fn world_with_login(script: fn(&world::Seen, usize) -> Answer) -> Arc<World> {
    let world = World::start().await;
    world.answer(LOGIN, script);
    world
}
