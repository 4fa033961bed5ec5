//! What an operator does: look, reset, adopt, check, configure.

use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, Target, What};
use serde_json::Value;

#[tokio::test]
async fn the_checkpoint_is_readable_and_a_reset_ships_again_only_with_reship() {
    let world = World::file(history(600)).await;
    world.cli(&["checkpoint", "show"]).await.exits(0).says(&["default/auditevents", "no checkpoint yet"]);
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenStatus(Refusal::status(500))).times(1));
    world.once().await.exits(0);
    let copies = world.assert_nothing_lost_and_copies_traceable().await;
    assert!(copies > 0, "the batch that was answered 500 stands twice");

    let shown = world.cli(&["checkpoint", "show"]).await.exits(0);
    let shown =
        shown.says(&["default/itemusages", "watermark", "none: nothing is in the air", "answered 500", "attempt 2"]);
    assert!(shown.stdout.contains("1 batches"), "{}", shown.stdout);
    let json = world.cli(&["--output", "json", "checkpoint", "show"]).await.exits(0).stdout;
    let feeds: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shipped: u64 = feeds.iter().map(|feed| feed["checkpoint"]["totals"]["shipped"].as_u64().unwrap()).sum();
    assert_eq!((feeds.len(), shipped), (3, 600));

    let rows = world.rows().len();
    world.cli(&["checkpoint", "reset"]).await.exits(0).says(&["the ledger is kept"]);
    world.once().await.exits(0).says(&["0 shipped"]);
    assert_eq!(world.rows().len(), rows);

    let one = ["checkpoint", "reset", "--reship", "--stream", "auditevents"];
    world.cli(&one).await.exits(0).says(&["the ledger is retired"]);
    world.once().await.exits(0);
    let audit_events = world.sim.world().uuids(Stream::AuditEvents).len();
    assert_eq!(world.rows().len(), rows + audit_events);
}

/// Fault: the configuration names another rule than the checkpoint. Shows: exit 64 with both fingerprints, no row moves, until it is adopted.
#[tokio::test]
async fn fm_28_another_rule_is_refused_with_both_fingerprints_until_it_is_adopted() {
    let mut world = World::file(history(90)).await;
    world.once().await.exits(0);
    let ours = world.checkpoint(Stream::AuditEvents).await.fingerprints.sink;
    let rule = world.sim.world().dcr_immutable_id();
    world.set("OPSHIP_SINK__DCR_IMMUTABLE_ID", "dcr-ffffffffffffffffffffffffffffffff");
    let refused = world.once().await.exits(64).says(&[&ours, "opship checkpoint adopt"]);
    assert_eq!(world.rows().len(), 90);

    world.cli(&["checkpoint", "adopt"]).await.exits(0).says(&["adopted"]);
    let theirs = world.checkpoint(Stream::AuditEvents).await.fingerprints.sink;
    assert_ne!(ours, theirs);
    assert!(refused.stdout.contains(&theirs), "{}", refused.stdout);
    // Adopted: no longer refused by us, but by the simulator, which has no such rule.
    world.once().await.exits(1).says(&["404"]);

    world.set("OPSHIP_SINK__DCR_IMMUTABLE_ID", rule);
    world.once().await.exits(64);
    world.cli(&["checkpoint", "adopt"]).await.exits(0);
    world.once().await.exits(0).says(&["0 shipped"]);
    world.assert_exactly_once();
}

/// Fault: a misspelt key, a bad value, a foreign host, a missing section. Shows: exit 64 naming key and way out, and nobody is asked anything.
#[tokio::test]
async fn fm_43_errors_of_configuration_exit_64_and_name_the_way_out() {
    let mut world = World::file(history(0)).await;
    world.set("OPSHIP_SHEDULE__EVERY", "1m");
    world.once().await.exits(64).says(&["shedule.every", "OPSHIP_SCHEDULE__EVERY"]);
    world.unset("OPSHIP_SHEDULE__EVERY").set("OPSHIP_SCHEDULE__EVERY", "soon");
    world.once().await.exits(64).says(&["schedule.every", "a duration"]);
    world.unset("OPSHIP_SCHEDULE__EVERY").set("OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL", "https://events.example.com");
    world.once().await.exits(64).says(&["events.example.com", "allow_hosts"]);
    let there = world.sim.base_url().to_owned();
    world.set("OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL", there).unset("OPSHIP_STORE__KIND");
    world.once().await.exits(64).says(&["store.kind"]);
    world.cli(&["ones"]).await.exits(64).says(&["once"]);
    assert_eq!(world.sim.world().journal().len(), 0, "nothing was asked of anybody");
}

#[tokio::test]
async fn config_show_and_completions_print() {
    let world = World::file(history(0)).await;
    let shown = world.cli(&["config", "show"]).await.exits(0).says(&["[accounts.default]", "env:OP_EVENTS_TOKEN"]);
    shown.stdout.parse::<toml::Table>().unwrap();
    let json = world.cli(&["config", "show", "--output", "json"]).await.exits(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["store"]["kind"], "file");
    world.cli(&["completions", "bash"]).await.exits(0).says(&["_opship()", "complete -F _opship"]);
}
