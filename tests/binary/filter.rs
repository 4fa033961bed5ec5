//! The opt-in filters.

use crate::world::{World, history};
use opship::flow::Stream;
use std::collections::BTreeSet;

#[tokio::test]
async fn dropped_audit_actions_are_left_out_and_counted() {
    let (all, mut world) = (World::file(history(600)).await, World::file(history(600)).await);
    all.once().await.exits(0);
    let actions = |world: &World| {
        let rows = world.rows().into_iter().filter(|row| row["log_source"] == "auditevents");
        rows.map(|row| row["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let every = actions(&all);
    let dropped = every.first().unwrap();
    let count = every.iter().filter(|action| *action == dropped).count();
    world.set("OPSHIP_FILTER__DROP_AUDIT_ACTIONS", format!("[{dropped:?}]"));
    world.once().await.exits(0);
    let left = actions(&world);
    assert!(!left.contains(dropped) && left.len() == every.len() - count, "{dropped}: {count} of {}", every.len());
    let totals = world.checkpoint(Stream::AuditEvents).await.totals;
    // An event that the overlap sweep reads again is filtered again.
    assert!(totals.filtered >= count as u64 && totals.filtered <= 2 * count as u64, "{totals:?}");
    assert_eq!(totals.read, totals.shipped + totals.known + totals.filtered);
    for stream in [Stream::ItemUsages, Stream::SigninAttempts] {
        assert_eq!(world.sim.world().missing(stream).len(), 0);
    }
}

#[tokio::test]
async fn redacted_values_are_dropped_or_become_equal_pseudonyms_and_are_counted() {
    let (plain, mut dropping) = (World::file(history(300)).await, World::file(history(300)).await);
    let mut hashing = World::file(history(300)).await;
    let paths = r#"["client.ip_address", "country"]"#;
    dropping.set("OPSHIP_FILTER__REDACT", paths);
    hashing.set("OPSHIP_FILTER__REDACT", paths);
    hashing.set("OPSHIP_FILTER__REDACT_KEY", "env:REDACT_KEY").set("REDACT_KEY", "key-of-32-bytes-for-pseudonyms-00");
    for world in [&plain, &dropping, &hashing] {
        world.once().await.exits(0);
        world.assert_exactly_once();
    }
    let signins = |world: &World| {
        let rows = world.rows().into_iter().filter(|row| row["log_source"] == "signinattempts");
        rows.map(|row| (row["uuid_s"].as_str().unwrap().to_owned(), row)).collect::<std::collections::BTreeMap<_, _>>()
    };
    let (before, dropped, hashed) = (signins(&plain), signins(&dropping), signins(&hashing));
    let (mut addresses, mut pseudonyms) = (BTreeSet::new(), BTreeSet::new());
    for (uuid, row) in &before {
        let Some(address) = row["client"]["ip_address"].as_str() else { continue };
        assert!(dropped[uuid]["client"].get("ip_address").is_none() && dropped[uuid].get("country").is_none());
        assert!(!dropped[uuid].to_string().contains(address) || row["location"].to_string().contains(address));
        let pseudonym = hashed[uuid]["client"]["ip_address"].as_str().unwrap();
        assert!(pseudonym.len() == 32 && pseudonym != address, "{pseudonym}");
        assert_eq!(dropped[uuid]["client"]["app_name"], row["client"]["app_name"]);
        addresses.insert(address.to_owned());
        pseudonyms.insert(pseudonym.to_owned());
    }
    assert!(addresses.len() > 1 && addresses.len() == pseudonyms.len(), "{} {}", addresses.len(), pseudonyms.len());
    for world in [&dropping, &hashing] {
        let totals = world.checkpoint(Stream::SigninAttempts).await.totals;
        assert!(totals.redacted >= before.len() as u64, "{totals:?}");
    }
}
