//! The supply chain, offline: what deny.toml says of licences, bans and sources holds for the lock file, and exceptions have reasons.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail loudly")]

use std::collections::BTreeMap;
use std::process::Command;

fn file(name: &str) -> toml::Table {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap().parse().unwrap()
}

fn list<'t>(table: &'t toml::Table, section: &str, key: &str) -> Vec<&'t toml::Value> {
    table[section].as_table().unwrap()[key].as_array().unwrap().iter().collect()
}

/// Versions by name of everything in the lock file.
fn locked() -> BTreeMap<String, Vec<String>> {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in file("Cargo.lock")["package"].as_array().unwrap() {
        let text = |key: &str| package[key].as_str().unwrap().to_owned();
        versions.entry(text("name")).or_default().push(text("version"));
    }
    versions
}

#[test]
fn there_is_one_http_client_one_http_library_and_one_tls() {
    let locked = locked();
    for name in ["reqwest", "hyper", "rustls", "tokio", "http", "ring", "serde_json"] {
        assert_eq!(locked[name].len(), 1, "{name}: {:?}", locked[name]);
    }
}

#[test]
fn what_is_banned_is_not_in_the_lock_file() {
    let (deny, locked) = (file("deny.toml"), locked());
    let banned = list(&deny, "bans", "deny");
    assert!(!banned.is_empty());
    for ban in banned {
        let name = ban["crate"].as_str().unwrap();
        assert!(ban["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{name} is banned without a reason");
        assert!(!locked.contains_key(name), "{name} is banned");
    }
}

#[test]
fn every_package_comes_from_the_registry_with_a_checksum() {
    for package in file("Cargo.lock")["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if name != "opship" {
            assert!(package["source"].as_str().unwrap().starts_with("registry+"), "{name}");
            assert!(package["checksum"].as_str().is_some_and(|sum| sum.len() == 64), "{name}");
        }
    }
}

#[test]
fn every_licence_is_allowed() {
    let deny = file("deny.toml");
    let allowed: Vec<&str> = list(&deny, "licenses", "allow").into_iter().filter_map(toml::Value::as_str).collect();
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100);
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{} has no licence", package["name"]));
        let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX).unwrap();
        let fits = expression.evaluate(|wanted| {
            let id = wanted.license.id().map(|id| id.name);
            wanted.addition.is_none() && id.is_some_and(|id| allowed.contains(&id))
        });
        assert!(fits, "{} is under {licence}", package["name"]);
    }
}

#[test]
fn every_ignored_advisory_has_a_reason_and_a_way_out_and_still_concerns_the_tree() {
    let (deny, locked) = (file("deny.toml"), locked());
    for (id, krate) in [("RUSTSEC-2025-0012", "backoff"), ("RUSTSEC-2024-0384", "instant")] {
        assert!(locked.contains_key(krate), "{krate} is gone: take {id} out of deny.toml");
    }
    let ignored = list(&deny, "advisories", "ignore");
    assert_eq!(ignored.len(), 2, "a new exception needs its line in this test");
    for entry in ignored {
        let reason = entry["reason"].as_str().unwrap();
        assert!(reason.contains("way out") || reason.contains("goes with"), "{reason}");
    }
}

#[test]
fn planted_bugs_are_for_the_tests_alone() {
    let manifest = file("Cargo.toml");
    let features = manifest["features"].as_table().unwrap();
    let turns_nothing_on = |(_, on): (&String, &toml::Value)| on.as_array().is_some_and(Vec::is_empty);
    assert!(
        features.keys().eq(["planted", "testing"]) && features.iter().all(turns_nothing_on),
        "no default feature, none that turns one of these on: {features:?}"
    );
    let uses = manifest["dev-dependencies"]["opship"]["features"].as_array().unwrap();
    assert!(["planted", "testing"].iter().all(|wanted| uses.iter().any(|feature| feature.as_str() == Some(wanted))));
    let elsewhere = manifest["dependencies"].as_table().unwrap().contains_key("opship");
    assert!(!elsewhere && !manifest.contains_key("build-dependencies"), "turned on for tests and nowhere else");
}
