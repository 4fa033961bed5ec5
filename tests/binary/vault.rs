//! The token in a Key Vault, read by opship's own identity, as the templates set it up: nothing of it is needed when the container is made.

use crate::agent::{Agent, wait_until};
use crate::world::{Kind, World, history};
use opship::sim::VaultDoor;
use rustix::process::Signal;
use std::time::Duration;

/// Longer than an unreadable secret is left alone.
const SOON: Duration = Duration::from_secs(100);
const SECRET: &str = "onepassword-events-token";
const PUT: &str = "az keyvault secret set --file /dev/stdin --encoding utf-8 -o none --vault-name kv-opship -n onepassword-events-token";

/// What stands between the agent and its token, and what its status must say.
const OBSTACLES: [(&str, Option<&str>, VaultDoor, &[&str]); 4] = [
    ("missing", None, VaultDoor::Open, &["there is no such secret", PUT]),
    ("empty", Some(""), VaultDoor::Open, &["the secret is empty", PUT]),
    ("no role yet", Some("?"), VaultDoor::NoRole, &["Key Vault Secrets User", "az role assignment create"]),
    ("the firewall", Some("?"), VaultDoor::Firewall, &["az keyvault network-rule add -n kv-opship"]),
];

async fn with_a_vault() -> World {
    let (mut world, _internet) = World::behind_a_proxy(Kind::Blob, history(90)).await;
    let identity = world.sim.environment().into_iter().filter(|(name, _)| name.starts_with("IDENTITY_"));
    for (name, value) in identity.collect::<Vec<_>>() {
        world.set(&name, value);
    }
    world
        .unset("AZURE_SECRET")
        .unset("OPSHIP_AZURE__CLIENT_SECRET")
        .unset("OPSHIP_AZURE__TENANT_ID")
        .unset("OP_EVENTS_TOKEN")
        .set("OPSHIP_AZURE__CREDENTIAL", "managed-identity")
        .set("OPSHIP_ACCOUNTS__DEFAULT__TOKEN", format!("keyvault:https://kv-opship.vault.azure.net/secrets/{SECRET}"));
    world
}

impl World {
    fn meet(&self, secret: Option<&str>, door: VaultDoor) {
        self.sim.world().set_vault_door(door);
        if let Some(secret) = secret {
            self.sim.world().keep_secret(SECRET, secret);
        }
    }
}

/// The status names the secret and the way out, and the process lives.
async fn shows(agent: &Agent, told: &[&str]) {
    let browser = agent.browser().await;
    let says = |body: &str, word: &str| body.replace("\\\"", "\"").contains(word);
    let all = |body: &str| told.iter().all(|word| says(body, word));
    let status = browser.wait_for("/status.json", &[], SOON, |answer| all(&answer.body)).await.body;
    assert!(status.contains("kv-opship.vault.azure.net/secrets/onepassword-events-token"), "{status}");
    assert!(status.contains("a secret that can be read"), "{status}");
    assert_eq!(browser.get("/livez").await.body, "ok\n");
    assert_eq!(browser.get("/readyz").await.status, 503);
}

/// Fault: the secret is not there when the app comes up, then empty, then the role is not there yet, then the vault's firewall is in the way. Shows: it is up all the time, the status names the secret, what is missing and the command that mends it; then rows flow without a restart and without a word to the process.
#[tokio::test]
async fn fm_68_an_app_whose_secret_comes_last_is_up_and_says_what_is_missing() {
    let world = with_a_vault().await;
    let agent = world.run();
    for (what, secret, door, told) in OBSTACLES {
        world.meet(secret, door);
        if what != "missing" {
            agent.signal(Signal::HUP);
        }
        shows(&agent, told).await;
    }
    assert_eq!(world.sim.world().compare().rows, 0);
    world.meet(Some(&world.sim.token()), VaultDoor::Open);
    wait_until("everything arrives", SOON, || world.sim.world().compare().lost == 0).await;
    agent.stop().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: the same over the runs of a job. Shows: each ends with 77 and the command that mends it, the next goes on, the last ships.
#[tokio::test]
async fn fm_68_a_job_whose_secret_comes_last_goes_on_with_its_next_run() {
    let world = with_a_vault().await;
    for (_, secret, door, told) in OBSTACLES {
        world.meet(secret, door);
        world.once().await.exits(77).says(told);
    }
    world.meet(Some(&world.sim.token()), VaultDoor::Open);
    world.once().await.exits(0);
    world.assert_exactly_once();
}
