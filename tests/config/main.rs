//! Configuration as its users meet it: what loads, what is refused, and that no refusal repeats a secret.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod refused;

use opship::config::{
    ApiVersion, Cloud, Config, ConfigFile, Credential, Lookback, Need, Sink, Store, Timer, load, show,
};
use opship::flow::{AccountName, Stream};
use opship::secret::SecretRef;
use std::time::Duration;

/// Stands where a secret would; must never come back in a message.
const CANARY: &str = "CANARY0secret0value";

const GOOD: &str = r#"
[accounts.default]
token = "env:OP_EVENTS_TOKEN"
[sink]
kind = "azure"
endpoint = "https://x-1.westeurope-1.ingest.monitor.azure.com"
dcr_immutable_id = "dcr-00000000000000000000000000000000"
[store]
kind = "azure-blob"
container_url = "https://acct.blob.core.windows.net/opship"
"#;

struct Outcome {
    file: String,
    result: Result<Config, String>,
}

fn load_text(text: &str, env: &[(&str, &str)], need: Need) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opship.toml");
    std::fs::write(&path, text).unwrap();
    let env = [("OP_EVENTS_TOKEN", CANARY)].iter().chain(env).map(|(name, text)| ((*name).into(), (*text).into()));
    let result = load(&ConfigFile::Named(path.clone()), env, need).map_err(|err| err.to_string());
    Outcome { file: path.display().to_string(), result }
}

fn good(text: &str, env: &[(&str, &str)]) -> Config {
    load_text(text, env, Need::Everything).result.expect("loads")
}

/// No file, only variables.
fn from_environment(env: &[(&str, &str)], need: Need) -> Result<Config, String> {
    let none = ConfigFile::FirstOf(vec!["/nonexistent/opship.toml".into()]);
    load(&none, env.iter().map(|(name, text)| ((*name).into(), (*text).into())), need).map_err(|err| err.to_string())
}

const ENOUGH: [(&str, &str); 6] = [
    ("OP_EVENTS_TOKEN", CANARY),
    ("OPSHIP_ACCOUNTS__DEFAULT__TOKEN", "env:OP_EVENTS_TOKEN"),
    ("OPSHIP_SINK__KIND", "ndjson"),
    ("OPSHIP_SINK__PATH", "12345"),
    ("OPSHIP_STORE__KIND", "file"),
    ("OPSHIP_STORE__PATH", "true"),
];

#[test]
fn a_small_file_is_enough_and_gets_the_defaults() {
    let config = good(GOOD, &[]);
    let account = config.accounts.get(&AccountName::parse("default").unwrap()).unwrap();
    assert_eq!(account.token, SecretRef::Env("OP_EVENTS_TOKEN".into()));
    assert_eq!((account.api, account.streams.as_slice()), (ApiVersion::V2, Stream::ALL.as_slice()));
    assert_eq!(config.schedule.timer, Timer::Cron("0 * * * * *".into()));
    assert_eq!(config.schedule.lookback, Lookback::Back(Duration::from_secs(30 * 86_400)));
    let item_usages = config.sweep.get(&Stream::ItemUsages).unwrap();
    assert_eq!((item_usages.every.as_secs(), item_usages.horizon.as_secs()), (3600, 72 * 3600));
    let audit_events = config.sweep.get(&Stream::AuditEvents).unwrap();
    assert_eq!((audit_events.every.as_secs(), audit_events.horizon.as_secs()), (6 * 3600, 24 * 3600));
    assert!(
        matches!(&config.sink, Sink::Azure { stream, gzip_level: 1, .. } if stream == "Custom-OnePasswordEventLogs_CL")
    );
    assert_eq!((config.azure.credential, config.azure.cloud), (Credential::ManagedIdentity, Cloud::Public));
    assert_eq!(config.ledger_keep, Duration::from_secs(121 * 86_400));
    assert_eq!((config.delivery.batch_rows_max, config.delivery.heartbeat_every.as_secs()), (500, 300));
}

#[test]
fn the_environment_alone_is_enough() {
    let config = from_environment(&ENOUGH, Need::Everything).unwrap();
    assert!(matches!(config.sink, Sink::Ndjson { path, .. } if path.as_os_str() == "12345"));
    assert!(matches!(config.store, Store::File { path } if path.as_os_str() == "true"));
}

#[test]
fn the_environment_wins_over_the_file_and_is_read_by_the_type_of_its_key() {
    let config = good(
        GOOD,
        &[
            ("OPSHIP_AZURE__CLIENT_ID", "12345678"),
            ("OPSHIP_AZURE__TENANT_ID", "true"),
            ("OPSHIP_DELIVERY__BATCH_ROWS_MAX", " 100 "),
            ("OPSHIP_DELIVERY__ALLOW_INSECURE_LOOPBACK", "True"),
            ("OPSHIP_DELIVERY__ALLOW_HOSTS", "a.example,b.example:8443"),
            ("OPSHIP_ACCOUNTS__DEFAULT__STREAMS", r#"["auditevents","itemusages"]"#),
            ("OPSHIP_ACCOUNTS__NORTH_SEA__TOKEN", "file:/run/secrets/north"),
            ("OPSHIP_SWEEP__ITEMUSAGES__HORIZON", "100h"),
            ("OPSHIP_SINK__GZIP_LEVEL", "6"),
            ("OPSHIP_LOG__FORMAT", "json"),
            ("OPSHIP_STORE__CONTAINER_URL", ""),
            ("HOME", "/root"),
        ],
    );
    assert_eq!(config.azure.client_id.as_deref(), Some("12345678"));
    assert_eq!(config.azure.tenant_id.as_deref(), Some("true"));
    assert_eq!(config.delivery.batch_rows_max, 100);
    assert!(config.delivery.allow_insecure_loopback);
    assert_eq!(
        config.delivery.allow_hosts.iter().map(String::as_str).collect::<Vec<_>>(),
        ["a.example", "b.example:8443"]
    );
    let names: Vec<_> = config.accounts.keys().map(AccountName::as_str).collect();
    assert_eq!(names, ["default", "north-sea"]);
    assert_eq!(config.accounts.values().next().unwrap().streams, [Stream::AuditEvents, Stream::ItemUsages]);
    assert!(matches!(config.sink, Sink::Azure { gzip_level: 6, .. }));
}

#[test]
fn a_time_needs_no_quotes_and_five_cron_fields_get_a_second() {
    let text = format!("{GOOD}[schedule]\ncron = \"*/5 * * * *\"\nlookback = 2026-11-01T00:00:00Z\n");
    let schedule = good(&text, &[]).schedule;
    assert_eq!(schedule.timer, Timer::Cron("0 */5 * * * *".into()));
    assert_eq!(schedule.lookback, Lookback::From("2026-11-01T00:00:00Z".parse().unwrap()));
}

#[test]
fn a_variable_that_a_reference_names_is_no_key() {
    let text = GOOD.replace("env:OP_EVENTS_TOKEN", "env:OPSHIP_TOKEN");
    good(&text, &[("OPSHIP_TOKEN", CANARY)]);
}

#[test]
fn a_command_that_ships_nothing_takes_what_is_there() {
    let config = from_environment(&[], Need::WhatIsThere).unwrap();
    assert!(config.accounts.is_empty() && matches!((config.sink, config.store), (Sink::Unset, Store::Unset)));
    let half = from_environment(&[("OPSHIP_SINK__PATH", "/rows")], Need::WhatIsThere).unwrap_err();
    assert!(half.contains("sink.kind"), "{half}");
    let unset = GOOD.replace("env:OP_EVENTS_TOKEN", "env:NOT_SET");
    assert!(load_text(&unset, &[], Need::WhatIsThere).result.is_ok());
}

#[test]
fn what_is_shown_loads_again_and_hides_sas_and_proxy_user() {
    let text = format!(
        "{}[http]\nproxy = 'http://user:{CANARY}@proxy.example:3128'\n[schedule]\nevery = '90s'\n[azure]\ncredential = 'client-secret'\n\
         tenant_id = 't'\nclient_id = '1'\nclient_secret = 'keyvault:https://v.vault.azure.net/secrets/x'\n",
        GOOD.replace("/opship\"", &format!("/opship?sv=1&sig={CANARY}\""))
    );
    let config = good(&text, &[]);
    let shown = show::normalised_toml(&config);
    for part in [
        "?***",
        "http://***@proxy.example:3128",
        "every = \"90s\"",
        "keyvault:https://v.vault.azure.net/secrets/x",
        "horizon = \"72h\"",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let json: serde_json::Value = serde_json::from_str(&show::normalised_json(&config)).unwrap();
    assert_eq!(json["accounts"]["default"]["token"], "env:OP_EVENTS_TOKEN");
    assert!(!shown.contains(CANARY) && !json.to_string().contains(CANARY) && !format!("{config:?}").contains(CANARY));
    let again = good(&shown, &[]);
    assert_eq!(show::normalised_toml(&again), shown);
}

#[test]
fn what_is_shown_without_sections_loads_again() {
    let shown = show::normalised_toml(&from_environment(&[], Need::WhatIsThere).unwrap());
    assert!(load_text(&shown, &[], Need::WhatIsThere).result.is_ok(), "{shown}");
}

const EXAMPLE: &str = include_str!("../../config.example.toml");

#[test]
fn the_example_loads() {
    let config = good(&EXAMPLE.replace("NAME.REGION-1", "name.region-1").replace("ACCOUNT", "account"), &[]);
    assert_eq!(show::normalised_toml(&config).replace("name.region-1", ""), {
        let plain = good(GOOD, &[]);
        show::normalised_toml(&plain).replace("x-1.westeurope-1", "").replace("acct", "account")
    });
}

#[test]
fn the_example_and_the_schema_have_the_same_keys_and_defaults() {
    let schema: serde_json::Value = serde_json::from_str(&show::schema()).unwrap();
    let example = uncommented(EXAMPLE);
    let example = serde_json::to_value(&example).unwrap();
    let mut keys = (Vec::new(), Vec::new());
    schema_keys("", &schema, &mut keys.0);
    example_keys("", &example, &mut keys.1);
    keys.0.sort();
    keys.1.sort();
    assert_eq!(keys.0, keys.1);
    for key in keys.0 {
        let place = key.replace('.', "/properties/").replace("properties/*", "additionalProperties");
        let default = schema.pointer(&format!("/properties/{place}/default"));
        let written = example.pointer(&format!("/{}", key.replace('*', "default").replace('.', "/")));
        assert!(default.is_none() || default == written, "{key}: {default:?} but the example has {written:?}");
    }
}

/// The example with every `# key = value` switched on.
fn uncommented(text: &str) -> toml::Table {
    let is_key = |line: &str| {
        let name = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")).map(|(name, _)| name);
        name.is_some_and(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let lines: Vec<&str> = text.lines().map(|line| line.get(2..).filter(|_| is_key(line)).unwrap_or(line)).collect();
    lines.join("\n").parse().unwrap()
}

fn schema_keys(path: &str, node: &serde_json::Value, keys: &mut Vec<String>) {
    let below = node["properties"].as_object().into_iter().flatten().map(|(key, child)| (key.as_str(), child));
    let any = node["additionalProperties"].is_object().then(|| ("*", &node["additionalProperties"]));
    if node["type"] != "object" {
        keys.push(path.to_owned());
    }
    below.chain(any).for_each(|(key, child)| schema_keys(format!("{path}.{key}").trim_start_matches('.'), child, keys));
}

fn example_keys(path: &str, node: &serde_json::Value, keys: &mut Vec<String>) {
    match node.as_object() {
        Some(table) => table.iter().for_each(|(key, child)| {
            let key = if path == "accounts" { "*" } else { key };
            example_keys(format!("{path}.{key}").trim_start_matches('.'), child, keys);
        }),
        None => keys.push(path.to_owned()),
    }
}
