//! `opship demo` as a user runs it: the real program, its agent as a second process, and the files that they leave.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that meets the unexpected shall panic")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

/// The table's columns but `SourceSystem`, which nobody fills.
const COLUMNS: [&str; 32] = [
    "TimeGenerated",
    "uuid_s",
    "session_uuid",
    "timestamp",
    "country",
    "category",
    "action_type",
    "details",
    "target_user",
    "client",
    "location",
    "actor_uuid",
    "actor_details",
    "actor_type",
    "actor_account_uuid",
    "account_uuid",
    "user_type",
    "user_account_uuid",
    "action",
    "object_type",
    "object_uuid",
    "object_details",
    "aux_id",
    "aux_uuid",
    "aux_details",
    "aux_info",
    "session",
    "used_version",
    "vault_uuid",
    "item_uuid",
    "user",
    "log_source",
];
const SOURCES: [&str; 4] = ["auditevents", "healthevents", "itemusages", "signinattempts"];

/// A demo in a folder with a configuration, and with variables, that would break an agent.
fn command(home: &Path, args: &[&str]) -> Command {
    fs::write(home.join("opship.toml"), "nonsense = true").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_opship"));
    command.current_dir(home).arg("demo").args(args);
    command.env("OPSHIP_LOG__FORMAT", "nonsense").env("OPSHIP_NO__SUCH_KEY", "1").env("AZURE_CLIENT_ID", "nobody");
    command
}

fn demo(home: &Path, args: &[&str]) -> Output {
    command(home, args).output().unwrap()
}

/// A demo that is under way, and the process id of its agent.
fn started(home: &Path, args: &[&str]) -> (Child, Lines<BufReader<ChildStderr>>, Pid) {
    let mut demo = command(home, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let agent = first.split("process ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    (demo, lines, Pid::from_raw(agent).unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The number behind a name in the table.
fn figure(table: &str, name: &str) -> u64 {
    let line = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().split_whitespace().next().unwrap().replace(',', "").parse().unwrap()
}

fn rows(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("OnePasswordEventLogs_CL.ndjson")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The agent holds the lock of its log for as long as it lives.
fn assert_nothing_runs(out: &Path) {
    File::open(out.join("agent.log")).unwrap().try_lock().unwrap();
}

#[test]
fn it_ships_everything_once_in_table_shape_and_a_second_demo_may_follow() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("demo-out");
    let ended = demo(home.path(), &["--for", "8s", "--events", "20000", "--out", out.to_str().unwrap()]);
    let (table, told) = (text(&ended.stdout), text(&ended.stderr));
    assert_eq!(ended.status.code(), Some(0), "{table}{told}");
    assert_eq!([figure(&table, "lost"), figure(&table, "duplicated")], [0, 0], "{table}");
    let [shipped, late] = ["shipped", "late"].map(|name| figure(&table, name));
    assert!(shipped > 20_000 && late > 0, "{table}");
    assert_eq!([figure(&table, "generated"), figure(&table, "rows")], [shipped, shipped], "{table}");
    assert!(figure(&table, "deduplicated") > 0 && figure(&table, "POSTs") >= 40, "{table}");
    assert_eq!(table.lines().last(), Some(&*format!("lost 0, duplicates 0, late {late}")));
    assert!(told.contains("2 s: history"), "{told}");

    let rows = rows(&out);
    assert_eq!(rows.len() as u64, shipped + figure(&table, "health rows"));
    let filled = |row: &Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let columns: BTreeSet<String> = rows.iter().flat_map(filled).collect();
    assert_eq!(columns, COLUMNS.map(str::to_owned).into());
    let sources: BTreeSet<&str> = rows.iter().map(|row| row["log_source"].as_str().unwrap()).collect();
    assert_eq!(sources, SOURCES.into());
    assert_nothing_runs(&out);
    let log = fs::read_to_string(out.join("agent.log")).unwrap();
    assert!(log.lines().last().unwrap().contains("drained; every position is saved"), "{log}");

    it_runs_again(home.path(), &out);
}

fn it_runs_again(home: &Path, out: &Path) {
    let args = ["--for", "3s", "--events", "500", "--order", "insert", "--output", "json"];
    let ended = demo(home, &[&args, &["--out", out.to_str().unwrap()][..]].concat());
    let figures: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{figures}");
    assert_eq!((&figures["lost"], &figures["problems"]), (&0.into(), &Value::Array(Vec::new())), "{figures}");
    let lines = figures["rows"].as_u64().unwrap() + figures["health_rows"].as_u64().unwrap();
    assert!(lines > 500 && rows(out).len() as u64 == lines, "{figures}");
    assert_nothing_runs(out);
}

#[test]
fn a_folder_with_foreign_files_is_refused_untouched() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("work");
    fs::create_dir_all(out.join("state")).unwrap();
    fs::write(out.join("state/thesis"), "years of work").unwrap();
    let ended = demo(home.path(), &["--out", "work"]);
    assert_eq!(ended.status.code(), Some(64));
    let told = text(&ended.stderr);
    assert!(told.contains("work holds state, which is not a demo's") && told.contains("use another --out"), "{told}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    assert!(out.join("state/thesis").exists());
}

#[test]
fn ctrl_c_ends_it_in_order_with_the_table() {
    let home = tempfile::tempdir().unwrap();
    let (mut demo, mut told, _) = started(home.path(), &["--for", "1h", "--events", "1000"]);
    told.next().unwrap().unwrap();
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    let mut table = String::new();
    demo.stdout.take().unwrap().read_to_string(&mut table).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(0), "{table}");
    assert_eq!([figure(&table, "lost"), figure(&table, "duplicated")], [0, 0], "{table}");
    assert_nothing_runs(&home.path().join("demo-out"));
}

#[test]
fn an_agent_that_dies_ends_it_at_once_and_its_log_is_named() {
    let home = tempfile::tempdir().unwrap();
    let (mut demo, told, agent) = started(home.path(), &["--for", "1h", "--events", "1000"]);
    kill_process(agent, Signal::KILL).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    let told = told.map(Result::unwrap).collect::<Vec<_>>().join("\n");
    assert!(told.contains("the agent ended early") && told.contains("demo-out/agent.log"), "{told}");
}
