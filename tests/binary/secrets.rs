//! No secret leaves the process, however much it is asked to say.

use crate::world::{Kind, World, history};
use opship::sim::{Fault, Refusal, Target, What};

both_stores! {
    tokens_client_secret_and_sas_are_never_printed_nor_stored
}

/// Every helper that ends a process looks for the secrets in what it printed.
async fn tokens_client_secret_and_sas_are_never_printed_nor_stored(kind: Kind) {
    let (mut world, _internet) = World::behind_a_proxy(kind, history(90)).await;
    world.set("OPSHIP_LOG__LEVEL", "trace");
    world.fault(Fault::new(Target::Events, What::Status(Refusal::status(500))).times(1));
    world.fault(Fault::new(Target::Ingestion, What::Status(Refusal::status(401))).times(1));
    let ran = world.once().await.exits(0).says(&["trying again"]);
    assert!(ran.stderr.lines().count() > 3, "the log was on: {}", ran.stderr);
    world.assert_exactly_once();
    for args in [&["check"][..], &["config", "show"], &["config", "show", "--output", "json"], &["checkpoint", "show"]]
    {
        world.cli(args).await.exits(0);
    }
    world.sim.world().revoke_token();
    world.once().await.exits(77);
    world.set("AZURE_SECRET", "a-wrong-secret");
    world.sim.world().restore_token();
    world.once().await.exits(1).says(&["7000215"]);

    let store = world.store().await;
    let listed = store.list("").await.unwrap();
    assert!(listed.len() >= 7, "three checkpoints, their ledgers, the health state: {listed:?}");
    for entry in listed {
        let bytes = store.read_from(&entry.key, 0).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for secret in world.secrets() {
            assert!(!text.contains(&secret) && !entry.key.as_str().contains(&secret), "a secret in {}", entry.key);
        }
    }
}
