//! What is refused, and how: by file or variable, key and hint, without a secret, all at once.

use super::{CANARY, GOOD, from_environment, load_text};
use opship::config::{ConfigFile, Need, load, show};
use std::path::PathBuf;

fn refused(text: &str, env: &[(&str, &str)]) -> String {
    load_text(text, env, Need::Everything).result.expect_err("is refused")
}

/// What is changed in [`GOOD`], which must be named by file, key and hint.
const BAD_FILES: &[(&str, &str, &[&str])] = &[
    // keys
    ("endpoint =", "endpont =", &["`sink.endpont`: unknown key; did you mean `endpoint`?"]),
    ("[store]", "[stor]", &["`stor`: unknown key; did you mean `store`?", "`store.kind`: missing"]),
    ("[store]", "[store]\nclient_id = 'x'", &["`store.client_id`: unknown key; did you mean `azure.client_id`?"]),
    (
        "[store]",
        "[store]\nflavour = 'x'",
        &["`store.flavour`: unknown key; known here: `container_url`, `kind`, `path`"],
    ),
    (
        "[store]",
        "[sweep.itemusage]\nevery='1h'\n[store]",
        &["`sweep.itemusage`: unknown key; did you mean `itemusages`?"],
    ),
    ("[accounts.default]", "[accounts.Default_1]", &["`accounts.Default_1`: expected a name", "a-z, 0-9 and -"]),
    // types
    ("\"azure\"", "5", &["`sink.kind`: expected one of `azure`, `ndjson`, found an integer"]),
    (
        "[store]",
        "[azure]\nclient_id = 12345\n[store]",
        &["`azure.client_id`: expected a string, found an integer: put it in quotes"],
    ),
    ("[store]", "gzip_level = 'high'\n[store]", &["`sink.gzip_level`: expected an integer from 0 to 9, found `high`"]),
    ("[store]", "gzip_level = 10\n[store]", &["`sink.gzip_level`: expected an integer from 0 to 9, found `10`"]),
    (
        "[store]",
        "[delivery]\nbatch_rows_max = 501\n[store]",
        &["`delivery.batch_rows_max`: expected an integer from 1 to 500"],
    ),
    ("[store]", "[delivery]\nallow_insecure_loopback = 'yes'\n[store]", &["expected `true` or `false`, found `yes`"]),
    (
        "[store]",
        "[delivery]\nallow_hosts = 'x'\n[store]",
        &["`delivery.allow_hosts`: expected a list of strings, found a string"],
    ),
    ("[store]", "[log]\nlevel = 'inof'\n[store]", &["`log.level`: expected a level", "did you mean `info`?"]),
    // words
    ("\"azure\"", "'azur'", &["`sink.kind`: expected one of `azure`, `ndjson`, found `azur`; did you mean `azure`?"]),
    (
        "\"azure-blob\"",
        "'azureblob'",
        &["`store.kind`: expected one of `azure-blob`, `file`", "did you mean `azure-blob`?"],
    ),
    ("[sink]", "streams = ['auditevent']\n[sink]", &["`accounts.default.streams`", "did you mean `auditevents`?"]),
    ("[sink]", "streams = []\n[sink]", &["`accounts.default.streams`: expected at least one stream"]),
    ("[sink]", "api = 'v3'\n[sink]", &["`accounts.default.api`: expected one of `v1`, `v2`"]),
    // durations and times
    (
        "[store]",
        "[schedule]\noverlap = '5 parsecs'\n[store]",
        &["`schedule.overlap`: expected a duration from 0s to 24h", "found `5 parsecs`"],
    ),
    ("[store]", "[schedule]\nevery = '500ms'\n[store]", &["`schedule.every`: expected a duration from 1s"]),
    (
        "[store]",
        "[schedule]\nlookback = '120d'\n[store]",
        &["`schedule.lookback`: expected a duration back of at most 119d"],
    ),
    ("[store]", "[schedule]\ncron = '* * *'\n[store]", &["`schedule.cron`: expected 5 or 6 cron fields", "found 3"]),
    ("[store]", "[schedule]\ncron = '99 * * * *'\n[store]", &["`schedule.cron`: expected a cron expression"]),
    (
        "[store]",
        "[schedule]\ncron = '* * * * *'\nevery = '1m'\n[store]",
        &["`schedule.every`: excludes `schedule.cron`"],
    ),
    ("[store]", "[ledger]\nkeep = '120d'\n[store]", &["`ledger.keep`: expected a duration from 121d"]),
    ("[store]", "[sweep.itemusages]\nhorizon = '0s'\n[store]", &["`sweep.itemusages.horizon`: expected a duration"]),
    (
        "[store]",
        "[delivery]\nheartbeat_every = '0s'\n[store]",
        &["`delivery.heartbeat_every`: expected a duration from 1s"],
    ),
    // URLs and hosts
    ("https://x-1", "http://x-1", &["`sink.endpoint`: expected https://", "allow_insecure_loopback"]),
    ("https://x-1", "https://CANARY0secret0value@x-1", &["`sink.endpoint`: a user name or password"]),
    (".azure.com\"", ".azure.com/?sig=CANARY0secret0value\"", &["`sink.endpoint`: a query"]),
    (".azure.com\"", ".azure.com.evil.example\"", &["`sink.endpoint`: the host `x-1.", "delivery.allow_hosts"]),
    ("https://x-1", "CANARY0secret0value", &["`sink.endpoint`: expected a URL"]),
    (
        "acct.blob.core.windows.net/opship",
        "evil.example/opship?sig=CANARY0secret0value",
        &["`store.container_url`: the host `evil.example` is not"],
    ),
    ("/opship\"", "?sig=CANARY0secret0value\"", &["`store.container_url`: expected the URL of a container"]),
    (
        "[sink]",
        "events_url = 'https://1password.com'\n[sink]",
        &["`accounts.default.events_url`: the host `1password.com`", "events.1password.eu"],
    ),
    ("[sink]", "events_url = 'http://127.0.0.1:1'\n[sink]", &["`accounts.default.events_url`: expected https://"]),
    (
        "[store]",
        "[http]\nproxy = 'socks5://u:CANARY0secret0value@p:1'\n[store]",
        &["`http.proxy`: expected http://HOST:PORT"],
    ),
    (
        "[store]",
        "[delivery]\nallow_hosts = ['*.example']\n[store]",
        &["`delivery.allow_hosts`: expected a list of HOST"],
    ),
    (".azure.com\"", ".azure.com/dataCollectionRules\"", &["`sink.endpoint`: expected scheme and host only"]),
    // secrets
    (
        "env:OP_EVENTS_TOKEN",
        "CANARY0secret0value",
        &["`accounts.default.token`: expected a reference to the secret", "env:NAME"],
    ),
    (
        "\"env:OP_EVENTS_TOKEN\"",
        "['CANARY0secret0value']",
        &["`accounts.default.token`: expected a string, found a list"],
    ),
    (
        "\"env:OP_EVENTS_TOKEN\"",
        "{ CANARY = 'CANARY0secret0value' }",
        &["`accounts.default.token`: expected a string, found a table"],
    ),
    (
        "env:OP_EVENTS_TOKEN",
        "op://vault/CANARY0secret0value/x",
        &["`accounts.default.token`: op:// references are not available"],
    ),
    (
        "env:OP_EVENTS_TOKEN",
        "env:OP_EVENTS_TOKNE",
        &["`accounts.default.token`: the environment variable OP_EVENTS_TOKNE"],
    ),
    (
        "env:OP_EVENTS_TOKEN",
        "keyvault:https://evil.example/secrets/x",
        &["`accounts.default.token`: the host `evil.example` is not a key vault"],
    ),
    ("token = \"env:OP_EVENTS_TOKEN\"", "", &["`accounts.default.token`: missing", "OPSHIP_ACCOUNTS__DEFAULT__TOKEN"]),
    ("[store]", "[admin]\ntoken = 'CANARY0secret0value'\n[store]", &["`admin.token`: expected a reference"]),
    ("[store]", "[admin]\nlisten = '0.0.0.0:9464'\n[store]", &["`admin.token`: missing: demanded because"]),
    ("[store]", "[admin]\nlisten = 'here'\n[store]", &["`admin.listen`: expected ADDRESS:PORT"]),
    (
        "[store]",
        "[filter]\nredact_key = 'CANARY0secret0value'\n[store]",
        &["`filter.redact_key`: expected a reference"],
    ),
    ("[store]", "[filter]\nredact = ['clinet.ip_address']\n[store]", &["`filter.redact`", "did you mean `client`?"]),
    (
        "[store]",
        "[azure]\nclient_secret = 'CANARY0secret0value'\n[store]",
        &["`azure.client_secret`: is not a key of the credential `managed-identity`"],
    ),
    (
        "[store]",
        "[azure]\ncredential = 'client-secret'\n[store]",
        &["`azure.tenant_id`: missing", "`azure.client_id`: missing", "`azure.client_secret`: missing"],
    ),
    // kinds
    (
        "kind = \"azure\"\n",
        "",
        &["`sink.kind`: missing: \"azure\" or \"ndjson\"; it has no default", "OPSHIP_SINK__KIND"],
    ),
    ("[store]", "path = '/rows'\n[store]", &["`sink.path`: is not a key of the sink kind `azure`"]),
    (
        "\"azure-blob\"",
        "'file'",
        &["`store.path`: missing", "`store.container_url`: is not a key of the store kind `file`"],
    ),
    ("dcr-0", "/subscriptions/0", &["`sink.dcr_immutable_id`: expected the immutable id"]),
    ("[store]", "stream = 'Custom-../x'\n[store]", &["`sink.stream`: expected a stream"]),
    ("[store]", "[delivery]\non_in_doubt = 'verify'\n[store]", &["`azure.workspace_id`: missing"]),
    // not TOML
    ("\"env:OP_EVENTS_TOKEN\"", "CANARY0secret0value", &[": line 3, column 9: not TOML"]),
    ("\"env:OP_EVENTS_TOKEN\"", "\"CANARY0secret0value", &[": line 3, column"]),
];

/// Fault: each kind of mistake in the file: typo, type, empty or pasted secret, http://, foreign host. Shows: refused by file, key and hint, never with the secret.
#[test]
fn fm_43_a_bad_file_is_refused_by_file_key_and_hint_and_without_the_secret() {
    for (from, to, expected) in BAD_FILES {
        assert!(GOOD.contains(from), "{from}");
        let outcome = load_text(&GOOD.replacen(from, to, 1), &[], Need::Everything);
        let message = outcome.result.err().unwrap_or_else(|| format!("accepted: {to}"));
        assert!(message.lines().all(|line| line.starts_with(&outcome.file)), "{to}: {message}");
        for part in *expected {
            assert!(message.contains(part), "{to}\n  expected {part}\n  got {message}");
        }
        assert!(!message.contains(CANARY), "{to}: {message}");
    }
}

/// A variable, its value, and what the message must say.
const BAD_VARIABLES: &[(&str, &str, &[&str])] = &[
    ("OPSHIP_SINK__ENDPONT", CANARY, &["`sink.endpont`: unknown key; did you mean `OPSHIP_SINK__ENDPOINT`?"]),
    ("OPSHIP_SINK_KIND", CANARY, &["unknown key; did you mean `OPSHIP_SINK__KIND`?"]),
    ("OPSHIP_ACCOUNTS_DEFAULT_TOKEN", CANARY, &["unknown key; did you mean `OPSHIP_ACCOUNTS__DEFAULT__TOKEN`?"]),
    ("OPSHIP_ACCOUNTS__DEFAULT__TOKN", CANARY, &["did you mean `OPSHIP_ACCOUNTS__DEFAULT__TOKEN`?"]),
    ("OPSHIP_LOG", "debug", &["`log`: is a section, set its keys: `OPSHIP_LOG__FORMAT`, `OPSHIP_LOG__LEVEL`"]),
    ("OPSHIP_LEDGER__KEPT", "1d", &["did you mean `OPSHIP_LEDGER__KEEP`?"]),
    ("OPSHIP_", CANARY, &["unknown key"]),
    ("OPSHIP_SINK__", CANARY, &["unknown key"]),
    ("OPSHIP_SINK__KIND__X", CANARY, &["unknown key"]),
    ("OPSHIP_SINK__KIND", "azur", &["`sink.kind`: expected one of", "did you mean `azure`?"]),
    ("OPSHIP_DELIVERY__BATCH_ROWS_MAX", "many", &["expected an integer from 1 to 500, found `many`"]),
    ("OPSHIP_DELIVERY__ALLOW_INSECURE_LOOPBACK", "1", &["expected `true` or `false`, found `1`"]),
    ("OPSHIP_ACCOUNTS__DEFAULT__TOKEN", CANARY, &["`accounts.default.token`: expected a reference"]),
    ("OPSHIP_ACCOUNTS__DEFAULT__TOKEN", "123456789", &["`accounts.default.token`: expected a reference"]),
    ("OPSHIP_STORE__CONTAINER_URL", "https://evil.example/c?sig=CANARY0secret0value", &["the host `evil.example`"]),
    ("OPSHIP_ACCOUNTS__NORTH__API", "v1", &["`accounts.north.token`: missing"]),
    ("OPSHIP_ACCOUNTS__DEFAULT__STREAMS", "auditevents,itemusage", &["did you mean `itemusages`?"]),
];

/// Fault: each kind of mistake in the environment. Shows: refused by the name of the variable, never with the secret.
#[test]
fn fm_43_a_bad_variable_is_refused_by_its_name_and_without_the_secret() {
    for (name, text, expected) in BAD_VARIABLES {
        let message = refused(GOOD, &[(name, text)]);
        let named = message.contains(&format!("environment variable {name}: ")) || message.contains("missing");
        assert!(named, "{name}: {message}");
        for part in *expected {
            assert!(message.contains(part), "{name}\n  expected {part}\n  got {message}");
        }
        assert!(!message.contains(CANARY) && !message.contains("123456789"), "{name}: {message}");
    }
}

#[test]
fn no_key_that_takes_a_secret_ever_shows_its_value() {
    let schema: serde_json::Value = serde_json::from_str(&show::schema()).unwrap();
    let wrong =
        [CANARY.to_owned(), format!("eyJ{CANARY}"), format!("https://{CANARY}"), format!("x://u:{CANARY}@h/?{CANARY}")];
    let mut tried = 0;
    for (section, node) in schema["properties"].as_object().unwrap() {
        let keys = node["properties"].as_object().into_iter().flatten();
        for (key, _) in keys.filter(|(_, leaf)| leaf["writeOnly"] == true) {
            for value in &wrong {
                let name = format!("OPSHIP_{}__{}", section.to_uppercase(), key.to_uppercase());
                let result = load_text(GOOD, &[(&name, value)], Need::Everything).result;
                let message = result.err().unwrap_or_default().to_lowercase();
                // a host is shown on purpose: it is what has to be allowed
                let shown = message.replace(&format!("the host `{}`", CANARY.to_lowercase()), "");
                assert!(!shown.contains(&CANARY.to_lowercase()), "{name}: {message}");
                tried += 1;
            }
        }
    }
    assert!(tried >= 7 * wrong.len(), "only {tried}");
}

#[test]
fn all_problems_come_at_once_one_a_line() {
    let text = GOOD.replace("endpoint", "endpont").replace("\"azure-blob\"", "'azure-bolb'");
    let message = refused(&text, &[("OPSHIP_LEDGER__KEEP", "1d"), ("OPSHIP_LOG__FORMAT", "yaml")]);
    let lines: Vec<_> = message.lines().collect();
    for key in ["`sink.endpont`", "`sink.endpoint`", "`store.kind`", "`ledger.keep`", "`log.format`"] {
        assert_eq!(lines.iter().filter(|line| line.contains(key)).count(), 1, "{key} in {message}");
    }
    assert_eq!(lines.len(), 5, "{message}");
}

#[test]
fn the_same_key_may_be_wrong_twice_but_not_wrong_and_missing() {
    let text = GOOD.replace("\"azure\"", "5");
    let message = refused(&text, &[("OPSHIP_SINK__KIND", "azur")]);
    assert_eq!(message.lines().count(), 2, "{message}");
    let message = refused("accounts = 5\nsink = 5\nstore = 5\n", &[]);
    assert_eq!(message.lines().count(), 3, "{message}");
}

#[test]
fn a_named_file_must_exist_and_a_searched_one_need_not() {
    let path = PathBuf::from("/nonexistent/opship.toml");
    let message = load(&ConfigFile::Named(path), [], Need::WhatIsThere).unwrap_err().to_string();
    assert!(message.starts_with("/nonexistent/opship.toml: there is no such file"), "{message}");
    let folder = tempfile::tempdir().unwrap();
    let message = load(&ConfigFile::Named(folder.path().into()), [], Need::WhatIsThere).unwrap_err().to_string();
    assert!(message.contains("it is a folder"), "{message}");
    let message = from_environment(&[], Need::Everything).unwrap_err();
    assert!(message.contains("environment (no file at /nonexistent/opship.toml)"), "{message}");
    assert!(
        message.contains("accounts.default.token") && message.contains("sink.kind") && message.contains("store.kind")
    );
}
