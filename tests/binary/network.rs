//! TLS under a private authority, and the proxy.

use crate::internet::Internet;
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

#[tokio::test]
async fn source_identity_and_rule_are_reached_over_tls_under_a_private_authority() {
    let mut world = World::file(Options { tls: true, ..history(90) }).await;
    let ca = world.home.path().join("ca.pem");
    std::fs::write(&ca, world.sim.ca_pem().unwrap()).unwrap();
    world.once().await.exits(1).says(&["could not connect"]);
    assert_eq!(world.sim.world().journal().len(), 0, "without the authority nothing is sent");
    world.set("OPSHIP_HTTP__CA_FILE", ca.display());
    world.once().await.exits(0);
    world.assert_exactly_once();
}

#[tokio::test]
async fn source_identity_and_rule_are_reached_through_the_proxy() {
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
