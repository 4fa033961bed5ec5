//! The environment that the templates of `deploy/` give to a container is one that the program takes.
#![expect(clippy::unwrap_used, reason = "a test that cannot read a document fails loudly")]

use std::collections::BTreeMap;
use std::process::Command;

/// Case -> name -> value: made from the templates, and kept the same by `scripts/deploy-check`.
fn environments() -> BTreeMap<String, BTreeMap<String, String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/deploy/environments.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What is in effect with these variables and no others, or what the program has against them.
fn in_effect(environment: &BTreeMap<String, String>) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opship"));
    let output = command.args(["config", "show"]).current_dir("/").env_clear().envs(environment).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn what_the_templates_set_is_what_the_program_reads() {
    let cases = environments();
    let expected = [
        ("app", "cloud = \"public\"", "listen = \"0.0.0.0:9464\""),
        ("job", "kind = \"azure-blob\"", "listen = \"127.0.0.1:9464\""),
        ("app in the US government cloud", "cloud = \"usgov\"", "streams = [\"itemusages\"]"),
        ("job that verifies", "on_in_doubt = \"verify\"", "lookback = \"now\""),
    ];
    assert_eq!(cases.len(), expected.len());
    for (case, one, other) in expected {
        let shown = in_effect(&cases[case]).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(shown.contains(one) && shown.contains(other), "{case}:\n{shown}");
        let of_vault = "token = \"keyvault:https://kv-opship-";
        assert!(shown.contains(of_vault) && shown.contains("/secrets/onepassword-events-token\""), "{case}:\n{shown}");
    }
}

#[test]
fn a_setting_that_the_program_does_not_know_is_refused() {
    let mut environment = environments().remove("app").unwrap();
    environment.insert("OPSHIP_SINK__ENDPIONT".into(), "https://a.ingest.monitor.azure.com".into());
    let refusal = in_effect(&environment).unwrap_err();
    assert!(refusal.contains("did you mean `OPSHIP_SINK__ENDPOINT`?"), "{refusal}");
}
