//! No secret leaves the process, however much it is asked to say.

use crate::agent::Agent;
use crate::world::{Kind, World, history};
use opship::sim::{Fault, Refusal, Target, What};

both_stores! {
    fm_42_tokens_client_secret_and_sas_are_never_printed_nor_stored
}

/// Libraries too, at the level that an operator may ask for: their traces are the likeliest to hold headers and bodies.
const EVERYTHING: &str = "trace,reqwest=trace,hyper=trace,hyper_util=trace,h2=trace,rustls=trace,azure_core=trace,\
    azure_identity=trace,azure_storage_blob=trace,typespec_client_core=trace,tokio=trace,tokio_cron_scheduler=trace";

// Every helper that ends a process looks for the secrets in what it printed, and every world at its end in what is stored.
/// Fault: refusals of every secret, with the log of every library at trace. Shows: no spelling of a secret on stdout, stderr, in the command line or the store.
async fn fm_42_tokens_client_secret_and_sas_are_never_printed_nor_stored(kind: Kind) {
    let (mut world, _internet) = World::behind_a_proxy(kind, history(90)).await;
    world.set("OPSHIP_LOG__LEVEL", EVERYTHING);
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
    world.secret("a-wrong-secret").set("AZURE_SECRET", "a-wrong-secret");
    world.sim.world().restore_token();
    world.once().await.exits(77).says(&["7000215"]);

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

/// Fault: none; the rows go to a file. Shows: no spelling of the token in the rows, the position, the log at trace or the command line.
#[tokio::test]
async fn fm_42_a_token_stands_in_no_row_of_a_file() {
    let mut world = World::file(history(90)).await;
    let rows = world.home.path().join("rows").display().to_string();
    for name in ["ENDPOINT", "DCR_IMMUTABLE_ID", "STREAM"] {
        world.unset(&format!("OPSHIP_SINK__{name}"));
    }
    world.set("OPSHIP_SINK__KIND", "ndjson").set("OPSHIP_SINK__PATH", &rows).set("OPSHIP_LOG__LEVEL", EVERYTHING);
    world.once().await.exits(0);
    let file = std::path::Path::new(&rows).join("OnePasswordEventLogs_CL.ndjson");
    assert!(std::fs::read_to_string(file).unwrap().lines().count() > 90, "rows and heartbeat");
}

/// Fault: a secret is planted in a file of a world and in a command line. Shows: the search that ends every test finds it.
#[test]
fn fm_42_a_planted_secret_fails_the_test_that_left_it() {
    let planted = |plant: fn(&World)| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let test = std::thread::spawn(move || runtime.block_on(async { plant(&World::file(history(0)).await) }));
        test.join().err().map(|panic| *panic.downcast::<String>().unwrap()).unwrap_or_default()
    };
    assert_eq!(planted(|_| ()), "");
    let leak = planted(|world| std::fs::write(world.home.path().join("leak"), world.sim.token()).unwrap());
    assert!(leak.contains("left in a file"), "{leak}");
    // A command that lives until it is killed: the command line of a process that has ended is gone.
    let leaky = |world: &World| {
        let (home, token) = (world.home.path(), world.sim.token());
        drop(Agent::start_by(&["tail", "-f", "/dev/null"], home, &[&token], std::env::vars(), world.canary()));
    };
    assert!(planted(leaky).contains("command line"));
}
