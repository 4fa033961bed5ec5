//! TLS under a private authority, and the proxy.

use crate::internet::{Internet, LOGIN};
use crate::raw::{Raw, closed};
use crate::world::{Kind, World, history};
use opship::sim::Options;
use std::sync::Arc;

impl World {
    /// 1Password, Microsoft Entra ID and the rule under their real names, reached through a proxy; the store is reached without it.
    pub async fn behind_a_proxy(kind: Kind, options: Options) -> (Self, Arc<Internet>) {
        let mut world = Self::new(kind, options).await;
        let address = world.sim.base_url().trim_start_matches("http://").parse().unwrap();
        let internet = Internet::start(address).await;
        let ca = world.home.path().join("ca.pem");
        std::fs::write(&ca, internet.ca_pem()).unwrap();
        let (tenant, client, secret) = {
            let sim = world.sim.world();
            (sim.tenant_id(), sim.client_id(), sim.client_secret())
        };
        world
            .unset("IDENTITY_ENDPOINT")
            .unset("IDENTITY_HEADER")
            .set("OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL", "https://events.1password.com")
            .set("OPSHIP_SINK__ENDPOINT", "https://sentinel-x1y2.westeurope-1.ingest.monitor.azure.com")
            .set("OPSHIP_AZURE__CREDENTIAL", "client-secret")
            .set("OPSHIP_AZURE__TENANT_ID", tenant)
            .set("OPSHIP_AZURE__CLIENT_ID", client)
            .set("OPSHIP_AZURE__CLIENT_SECRET", "env:AZURE_SECRET")
            .set("AZURE_SECRET", secret)
            .set("OPSHIP_HTTP__PROXY", format!("http://{}", internet.address))
            .set("OPSHIP_HTTP__NO_PROXY", r#"["127.0.0.1"]"#)
            .set("OPSHIP_HTTP__CA_FILE", ca.display());
        (world, internet)
    }
}

/// Fault: source, identity endpoint and rule under an authority nobody knows. Shows: nothing is sent until `http.ca_file` names it, then everything arrives once.
#[tokio::test]
async fn fm_31_source_identity_and_rule_are_reached_over_tls_under_a_private_authority() {
    let mut world = World::file(Options { tls: true, ..history(90) }).await;
    let ca = world.home.path().join("ca.pem");
    std::fs::write(&ca, world.sim.ca_pem().unwrap()).unwrap();
    world.once().await.exits(1).says(&["could not connect"]);
    assert_eq!(world.sim.world().journal().len(), 0, "without the authority nothing is sent");
    world.set("OPSHIP_HTTP__CA_FILE", ca.display());
    world.once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: no way out but a CONNECT proxy. Shows: every host is reached through it by name, everything arrives once.
#[tokio::test]
async fn fm_32_source_identity_and_rule_are_reached_through_the_proxy() {
    let (world, internet) = World::behind_a_proxy(Kind::File, history(90)).await;
    world.cli(&["check"]).await.exits(0);
    world.once().await.exits(0);
    world.assert_exactly_once();
    let hosts = [
        "events.1password.com:443",
        "login.microsoftonline.com:443",
        "sentinel-x1y2.westeurope-1.ingest.monitor.azure.com:443",
    ];
    assert_eq!(internet.hosts(), hosts);
}

/// Fault: the proxy is down. Shows: exit 1, nothing goes past the proxy; when it is back everything arrives once.
#[tokio::test]
async fn fm_32_a_proxy_that_is_down_is_never_gone_around() {
    let (mut world, internet) = World::behind_a_proxy(Kind::File, history(90)).await;
    world.set("OPSHIP_HTTP__PROXY", format!("http://{}", closed()));
    world.once().await.exits(1).says(&["could not connect"]);
    assert_eq!((world.sim.world().journal().len(), internet.hosts().len()), (0, 0));
    world.set("OPSHIP_HTTP__PROXY", format!("http://{}", internet.address));
    world.once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: the proxy wants a login that is missing or wrong. Shows: exit 1 naming the proxy's refusal, nothing gets through; the right login serves and is never shown.
#[tokio::test]
async fn fm_32_a_proxy_that_wants_a_login_gets_it_and_nobody_else_sees_it() {
    let (mut world, internet) = World::behind_a_proxy(Kind::File, history(90)).await;
    internet.demand_login();
    let (user, password) = LOGIN;
    world.secret(password).secret("a-wrong-password");
    for login in ["", &format!("{user}:a-wrong-password@")] {
        world.set("OPSHIP_HTTP__PROXY", format!("http://{login}{}", internet.address));
        world.once().await.exits(1).says(&["proxy"]);
        assert_eq!((world.sim.world().journal().len(), internet.hosts().len()), (0, 0));
    }
    world.set("OPSHIP_HTTP__PROXY", format!("http://{user}:{password}@{}", internet.address));
    world.once().await.exits(0);
    world.cli(&["check"]).await.exits(0);
    world.cli(&["config", "show"]).await.exits(0).says(&["[http]", &internet.address.to_string()]);
    world.assert_exactly_once();
}

/// Fault: the environment names a proxy that is not configured. Shows: it gets no connection, everything arrives once.
#[tokio::test]
async fn fm_32_a_proxy_of_the_environment_is_not_used_unasked() {
    let mut world = World::file(history(30)).await;
    let stray = Raw::always(None, "HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n").await;
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        world.set(name, stray.url());
    }
    world.once().await.exits(0);
    assert_eq!(stray.connections(), 0);
    world.assert_exactly_once();
}
