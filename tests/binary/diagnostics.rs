//! The archive for a support ticket: what is in it, and what never is.

use crate::internet::LOGIN;
use crate::letters::{MARK, UUIDS};
use crate::raw::{Raw, closed};
use crate::world::{Kind, World, history};
use flate2::read::GzDecoder;
use opship::admin::proof::{CHALLENGE, Prover};
use opship::flow::Stream;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

both_stores! {
    fm_42_no_secret_is_in_a_support_archive
}

/// What this program collects itself.
const ADMIN_TOKEN: &str = "canary-admin-token";
const OWN: [&str; 6] =
    ["version.json", "config.toml", "check.jsonl", "checkpoints.jsonl", "store.json", "dead-letters.jsonl"];
/// What only a running agent has.
const OF_AGENT: [&str; 3] = ["logs.jsonl", "metrics.txt", "status.json"];

/// The files of an archive by name, without its one folder.
fn unpacked(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        assert_eq!((path.components().count(), entry.header().mode().unwrap()), (2, 0o600), "{}", path.display());
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), text);
    }
    files
}

impl World {
    /// `opship diagnostics`, and what is in the archive.
    async fn archive(&self) -> (PathBuf, BTreeMap<String, String>) {
        let ran = self.cli(&["diagnostics"]).await.exits(0).says(&["MANIFEST.txt"]);
        let path = self.home.path().join(ran.stdout.trim());
        let files = unpacked(&std::fs::read(&path).unwrap());
        (path, files)
    }

    /// An admin server that answers everything with this.
    async fn with_admin(&mut self, body: &str) -> Raw {
        let (body, prover) = (body.to_owned(), Prover::new(&ADMIN_TOKEN.to_owned().into()));
        let admin = Raw::by_head(None, move |head| {
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let port = field("host: 127.0.0.1:").parse().unwrap();
            let challenge = field("x-opship-challenge: ").parse().unwrap();
            let proof = prover.answer(&[(CHALLENGE, challenge)].into_iter().collect(), port);
            let proof = proof.map(|proof| format!("x-opship-proof: {proof}\r\n")).unwrap_or_default();
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\n{proof}content-length: {length}\r\nconnection: close\r\n\r\n");
            (head + &body).into_bytes()
        })
        .await;
        self.set("OPSHIP_ADMIN__LISTEN", admin.address);
        admin
    }
}

/// What stands behind a file's name in the manifest.
fn said<'m>(manifest: &'m str, name: &str) -> &'m str {
    let line = manifest.lines().find(|line| line.starts_with(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{name} is not in {manifest}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test]
async fn an_archive_holds_configuration_check_positions_and_statistics_and_a_manifest_that_names_each() {
    let mut world = World::with_letters(Kind::File, 1).await;
    world.sim.world().clear_faults();
    world.set("OPSHIP_ADMIN__LISTEN", closed());
    let (path, files) = world.archive().await;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut names: Vec<&str> = files.keys().map(String::as_str).collect();
    names.retain(|name| *name != "MANIFEST.txt");
    let mut own = OWN.to_vec();
    own.sort();
    assert_eq!(names, own);
    let manifest = &files["MANIFEST.txt"];
    for name in OWN {
        assert!(said(manifest, name).contains(&format!("{} bytes, 0 hidden", files[name].len())), "{manifest}");
    }
    for name in OF_AGENT {
        assert!(said(manifest, name).contains("MISSING: nothing answers there"), "{manifest}");
    }
    assert!(manifest.contains("Left out everywhere: events"), "{manifest}");

    assert!(files["config.toml"].contains("kind = \"file\"") && files["config.toml"].contains("env:OP_EVENTS_TOKEN"));
    let check = lines(&files["check.jsonl"]);
    assert!(check.len() >= 5 && check.iter().any(|step| step["step"] == "configuration"), "{check:?}");
    assert_eq!(check.last().unwrap()["exit_code"], "0");
    let shipped: u64 = lines(&files["checkpoints.jsonl"])
        .iter()
        .map(|cp| cp["checkpoint"]["totals"]["shipped"].as_u64().unwrap())
        .sum();
    assert_eq!(shipped, 31);
    let store: Value = serde_json::from_str(&files["store.json"]).unwrap();
    let folders = store["folders"].as_object().unwrap();
    let ledger: u64 = folders
        .iter()
        .filter(|(name, _)| name.starts_with("ledger/"))
        .map(|(_, sum)| sum["bytes"].as_u64().unwrap())
        .sum();
    assert!(ledger >= 31 * 16, "{store}");
    assert_eq!(folders["dead-letters/default/auditevents"]["documents"], 1);
    let letters = lines(&files["dead-letters.jsonl"]);
    assert_eq!((letters.len(), &letters[0]["uuid"]), (1, &Value::Null));
    let version: Value = serde_json::from_str(&files["version.json"]).unwrap();
    assert_eq!((&version["version"], &version["os"]), (&env!("CARGO_PKG_VERSION").into(), &"linux".into()));
}

#[tokio::test]
async fn nothing_of_any_event_is_in_an_archive() {
    let world = World::with_letters(Kind::File, 1).await;
    let (_, files) = world.archive().await;
    let mut foreign: Vec<String> = vec![MARK.into(), UUIDS[0].into()];
    for row in world.rows() {
        foreign.push(row["uuid_s"].as_str().unwrap().into());
        for pointer in ["/client/ip_address", "/target_user/email", "/target_user/name", "/user/email", "/actor_uuid"] {
            foreign.extend(row.pointer(pointer).and_then(Value::as_str).map(str::to_owned));
        }
    }
    assert!(foreign.len() > 60 && foreign.iter().any(|text| text.contains('@')), "{foreign:?}");
    for (name, text) in &files {
        let found = foreign.iter().find(|foreign| text.contains(foreign.as_str()));
        assert_eq!(found, None, "in {name}");
    }
}

/// What a running agent says is fetched with the token of its admin server; were it careless, the archive would not be.
#[tokio::test]
async fn logs_metrics_and_status_come_from_the_running_agent_and_carelessness_is_hidden() {
    let mut world = World::file(history(30)).await;
    let token = world.sim.token();
    let careless = format!(
        "{{\"message\":\"hello\",\"error\":\"GET https://h/c?sig=abc123&x=1 by wendy@example.com from 81.2.69.142\"}}\n\
         {{\"message\":\"token {token}\"}}\n"
    );
    let admin = world.with_admin(&careless).await;
    world.secret(ADMIN_TOKEN).set("ADMIN_TOKEN", ADMIN_TOKEN).set("OPSHIP_ADMIN__TOKEN", "env:ADMIN_TOKEN");
    let (_, files) = world.archive().await;
    for name in OF_AGENT {
        let told = lines(&files[name]);
        assert_eq!(told[0]["message"], "hello");
        assert_eq!(told[0]["error"], "GET https://h/c?sig=***&x=1 by *** from ***");
        assert_eq!(told[1]["message"], "token ***");
        assert!(said(&files["MANIFEST.txt"], name).contains(", 4 hidden"), "{}", files["MANIFEST.txt"]);
    }
    // Each time it proves first that it knows the token.
    let (mut asked, proofs): (Vec<_>, Vec<_>) =
        admin.heads().into_iter().partition(|head| !head.starts_with("GET /livez "));
    assert!(proofs.len() == 3 && proofs.iter().all(|head| !head.contains("Bearer")), "{proofs:?}");
    asked.sort();
    for (head, path) in asked.iter().zip(["/logs.jsonl", "/metrics", "/status.json"]) {
        assert!(head.starts_with(&format!("GET {path} ")) && head.contains("Bearer canary-admin-token"), "{head}");
    }
    assert_eq!(asked.len(), 3);
}

#[tokio::test]
async fn an_archive_overwrites_nothing_and_leaves_no_half_of_itself() {
    let world = World::file(history(0)).await;
    let taken = world.home.path().join("taken.tar.gz");
    std::fs::write(&taken, "mine").unwrap();
    let asked = world.sim.world().journal().len();
    world.cli(&["diagnostics", "--out", "taken.tar.gz"]).await.exits(64).says(&["taken.tar.gz", "not overwritten"]);
    world.cli(&["diagnostics", "--out", "nowhere/a.tar.gz"]).await.exits(64).says(&["no folder nowhere"]);
    assert_eq!(world.sim.world().journal().len(), asked, "refused before anything is collected");
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "mine");
    world.cli(&["diagnostics", "--out", "mine.tar.gz"]).await.exits(0).says(&["mine.tar.gz"]);
    let left = std::fs::read_dir(world.home.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| Path::new(name).extension().is_some_and(|end| end == "part")).count(), 0);
    let to_stdout = world.by_script("\"$@\" > piped.tar.gz; exit $?", &["diagnostics", "--out", "-"]).await.exits(0);
    assert_eq!(to_stdout.stdout, "");
    let piped = unpacked(&std::fs::read(world.home.path().join("piped.tar.gz")).unwrap());
    assert!(piped.contains_key("MANIFEST.txt") && piped.contains_key("version.json"), "{:?}", piped.keys());
}

/// Fault: no room for the archive. Shows: exit 1 naming the place, and neither an archive nor half of one.
#[tokio::test]
async fn without_room_there_is_no_archive_and_no_half_of_one() {
    let mut world = World::file(history(0)).await;
    world.set("OPSHIP_LOG__LEVEL", "error");
    let full = "trap '' XFSZ; ulimit -f 1; exec \"$@\"";
    let ran = world.by_script(full, &["diagnostics", "--out", "full.tar.gz"]).await.exits(1);
    ran.says(&["full.tar.gz", "free space"]);
    let left: Vec<_> = std::fs::read_dir(world.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().contains("tar.gz") || name.to_string_lossy().contains(".part"))
    );
}

/// Fault: a misspelt key, then a store that is away. Shows: exit 0 with an archive that says what is missing and why.
#[tokio::test]
async fn what_is_broken_is_named_in_the_archive_and_keeps_nothing_else_out() {
    let mut world = World::file(history(0)).await;
    world.set("OPSHIP_SHEDULE__EVERY", "1m");
    let (_, files) = world.archive().await;
    assert!(files["config.toml"].starts_with("# This configuration is refused:\n#   "), "{}", files["config.toml"]);
    assert!(files["config.toml"].contains("shedule.every") && files["config.toml"].contains("[store]"));
    assert!(files.contains_key("store.json") && files.contains_key("version.json"), "{:?}", files.keys());
    assert!(files["check.jsonl"].contains("shedule.every") && files["check.jsonl"].contains("\"exit_code\":\"64\""));

    world.unset("OPSHIP_SHEDULE__EVERY").set("OPSHIP_STORE__PATH", "/sys/kernel/opship");
    let ran = world.cli(&["diagnostics", "--out", "second.tar.gz", "--output", "json"]).await.exits(0);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    let missing: Vec<&str> = told["missing"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(missing, [&["checkpoints.jsonl", "store.json", "dead-letters.jsonl"][..], &OF_AGENT].concat());
    let files = unpacked(&std::fs::read(world.home.path().join("second.tar.gz")).unwrap());
    assert!(said(&files["MANIFEST.txt"], "store.json").contains("/sys/kernel/opship"), "{}", files["MANIFEST.txt"]);
    assert!(files["config.toml"].contains("/sys/kernel/opship"));
}

/// Fault: a file with a token in a comment, a table's name, a key and a text without its end. Shows: its readable part serves, and the token stands nowhere.
#[tokio::test]
async fn fm_42_a_file_that_is_no_toml_is_named_by_its_line_and_the_rest_is_collected_without_its_secrets() {
    let mut world = World::file(history(30)).await;
    world.once().await.exits(0);
    let admin = world.with_admin("{\"message\":\"from the agent\"}\n").await;
    let (token, file) = (world.sim.token(), world.home.path().join("torn.toml"));
    let text = format!(
        "# {token}\n[admin]\nlisten = \"{}\"\n\n[accounts.default]\ntoken = \"env:OP_EVENTS_TOKEN\"\n\
         [store]\nkind = \"file\"\npath = {:?}\n[{token}]\n{token} = 1\ntoken = \"{token}\n",
        admin.address,
        world.home.path().join("state"),
    );
    std::fs::write(&file, text).unwrap();
    for variable in ["ADMIN__LISTEN", "STORE__KIND", "STORE__PATH", "ACCOUNTS__DEFAULT__TOKEN"] {
        world.unset(&format!("OPSHIP_{variable}"));
    }
    let file = file.to_str().unwrap();
    world.cli(&["diagnostics", "--config", file, "--out", "torn.tar.gz"]).await.exits(0);
    std::fs::remove_file(file).unwrap();
    let files = unpacked(&std::fs::read(world.home.path().join("torn.tar.gz")).unwrap());
    assert!(files["config.toml"].contains("line 12, column ") && files["config.toml"].contains("not TOML"));
    assert!(files["logs.jsonl"].contains("from the agent"), "{:?}", files.keys());
    assert!(files["store.json"].contains("checkpoints/default"), "{}", files["MANIFEST.txt"]);
    let canary = world.canary();
    for (name, text) in &files {
        assert_eq!(canary.found(text.as_bytes()), None, "in {name}");
    }
}

/// Fault: a token without its closing quote at the top of the file. Shows: that costs its own section alone, the file is there line by line,
/// and the token stands nowhere.
#[tokio::test]
async fn a_torn_section_keeps_no_other_out_and_the_file_is_shown_without_its_values() {
    let mut world = World::file(history(30)).await;
    world.once().await.exits(0);
    let admin = world.with_admin("{\"message\":\"from the agent\"}\n").await;
    let (token, state) = (world.sim.token(), world.home.path().join("state"));
    let text = format!(
        "[accounts.default]\ntoken = \"{token}\napi = \"v2\"\n# {token}\n{token}\n\n[store]\nkind = \"file\" # {token}\n\
         path = {state:?}\n[admin]\nlisten = \"{}\"\n",
        admin.address,
    );
    std::fs::write(world.home.path().join("torn.toml"), text).unwrap();
    for variable in ["ADMIN__LISTEN", "STORE__KIND", "STORE__PATH", "ACCOUNTS__DEFAULT__TOKEN"] {
        world.unset(&format!("OPSHIP_{variable}"));
    }
    world.cli(&["diagnostics", "--config", "torn.toml", "--out", "torn.tar.gz"]).await.exits(0);
    std::fs::remove_file(world.home.path().join("torn.toml")).unwrap();
    let files = unpacked(&std::fs::read(world.home.path().join("torn.tar.gz")).unwrap());
    assert!(files["config.toml"].contains("line 2, column "), "{}", files["config.toml"]);
    assert!(files["logs.jsonl"].contains("from the agent"), "{:?}", files.keys());
    assert!(files["store.json"].contains("checkpoints/default"), "{}", files["MANIFEST.txt"]);
    let shown = "[accounts.***]\ntoken = \"***\napi = \"v2\"\n# ***\n***\n\n[store]\nkind = \"file\" # ***\n\
                 path = \"***\"\n[admin]\nlisten = \"***\"\n";
    assert_eq!(files["config-as-written.toml"], shown);
    let canary = world.canary();
    for (name, text) in &files {
        assert_eq!(canary.found(text.as_bytes()), None, "in {name}");
    }
}

/// Fault: none; every secret of a deployment is in use: token, client secret, SAS, proxy login, admin token. Shows: no spelling of any stands in the unpacked archive.
async fn fm_42_no_secret_is_in_a_support_archive(kind: Kind) {
    let (mut world, internet) = World::behind_a_proxy(kind, history(90)).await;
    internet.demand_login();
    let proxy = format!("http://{}:{}@{}", LOGIN.0, LOGIN.1, internet.address);
    world.secret(LOGIN.1).set("OPSHIP_HTTP__PROXY", proxy);
    world.secret(ADMIN_TOKEN).set("ADMIN_TOKEN", ADMIN_TOKEN).set("OPSHIP_ADMIN__TOKEN", "env:ADMIN_TOKEN");
    world.once().await.exits(0);
    let (unused, all) = (world.sim.world().identity_header(), world.secrets());
    let in_use: Vec<&str> = all.iter().map(String::as_str).filter(|secret| *secret != unused).collect();
    let log = format!("{{\"message\":\"careless: {}\"}}\n", in_use.join(" "));
    let _admin = world.with_admin(&log).await;
    let (path, files) = world.archive().await;
    assert_eq!(files.len(), 1 + OWN.len() + OF_AGENT.len(), "{:?}", files.keys());
    let canary = world.canary();
    for (name, text) in &files {
        assert_eq!(canary.found(text.as_bytes()), None, "in {name}");
    }
    assert!(files["logs.jsonl"].contains("careless") && files["checkpoints.jsonl"].contains("auditevents"));
    // The search that ends every test looks into archives too.
    assert_eq!(canary.found_below(path.parent().unwrap()), None);
    assert!(world.checkpoint(Stream::AuditEvents).await.totals.shipped > 0);
}
