//! What the README says of keys, columns and exit codes is what the program has.
#![expect(clippy::unwrap_used, reason = "a test that cannot read a document fails loudly")]

use opship::flow::decode::{COLUMNS, Kind};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The cells of the table under a heading of the README, without the two header lines.
fn table(heading: &str) -> Vec<Vec<String>> {
    let readme = file("README.md");
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Every key below a schema, with its schema; NAME stands for an account's name.
fn keys(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    let named = schema["properties"].as_object().into_iter().flatten().map(|(key, below)| (key.as_str(), below));
    let any = schema.get("additionalProperties").filter(|below| below.is_object()).map(|below| ("NAME", below));
    for (key, below) in named.chain(any) {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match below["type"].as_str() {
            Some("object") => keys(below, &path, found),
            _ => found.push((path, below.clone())),
        }
    }
}

/// A key as the README's table shows it.
fn row_of(key: &str, schema: &Value) -> Vec<String> {
    let default = schema.get("default").map_or_else(|| "-".into(), |default| format!("`{}`", toml_of(default)));
    let mut meaning = schema["description"].as_str().unwrap().to_owned();
    if let Some(choices) = schema["enum"].as_array() {
        let choices: Vec<String> = choices.iter().map(|choice| format!("`{}`", toml_of(choice))).collect();
        meaning = format!("{} One of {}.", meaning.trim_end(), choices.join(", "));
    }
    vec![format!("`{key}`"), default, meaning]
}

/// A value as it is written in TOML.
fn toml_of(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[test]
fn the_configuration_table_is_the_schema() {
    let schema: Value = serde_json::from_str(&opship::config::show::schema()).unwrap();
    let mut found = Vec::new();
    keys(&schema, "", &mut found);
    let expected: Vec<Vec<String>> = found.iter().map(|(key, schema)| row_of(key, schema)).collect();
    let lines = |rows: &[Vec<String>]| rows.iter().map(|row| format!("| {} |", row.join(" | "))).collect::<Vec<_>>();
    let (expected, stands) = (lines(&expected), lines(&table("Configuration")));
    assert!(expected == stands, "the table under `## Configuration` must be:\n{}", expected.join("\n"));
}

const fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "string",
        Kind::DateTime => "datetime",
        Kind::Int => "int",
        Kind::Dynamic => "dynamic",
    }
}

/// Name, type and API field of each column; the three that no field of an event fills come first.
fn columns() -> BTreeSet<(String, &'static str, String)> {
    let own = [("TimeGenerated", "datetime"), ("SourceSystem", "string"), ("log_source", "string")];
    let own = own.map(|(name, kind)| (name.to_owned(), kind, "-".to_owned()));
    let events = COLUMNS.iter().map(|column| (column.name.to_owned(), type_of(column.kind), column.field.to_owned()));
    own.into_iter().chain(events).collect()
}

#[test]
fn the_table_of_columns_is_what_rows_are_made_of() {
    let bare = |cell: &String| cell.trim_matches('`').to_owned();
    let stands: BTreeSet<_> =
        table("Columns").iter().map(|row| (bare(&row[0]), row[1].clone(), bare(&row[2]))).collect();
    let expected: BTreeSet<_> =
        columns().into_iter().map(|(name, kind, field)| (name, kind.to_owned(), field)).collect();
    assert_eq!(stands, expected);
    assert_eq!((stands.len(), table("Columns").len()), (33, 33));
}

/// Name and type of the columns in a document of Azure.
fn declared(columns: &Value) -> BTreeSet<(String, String)> {
    let text = |column: &Value, key: &str| column[key].as_str().unwrap().to_owned();
    columns.as_array().unwrap().iter().map(|column| (text(column, "name"), text(column, "type"))).collect()
}

#[test]
fn the_azure_documents_have_the_same_columns() {
    let table: Value = serde_json::from_str(&file("docs/azure/table.json")).unwrap();
    let rule: Value = serde_json::from_str(&file("docs/azure/rule.json")).unwrap();
    let all: BTreeSet<_> = columns().into_iter().map(|(name, kind, _)| (name, kind.to_owned())).collect();
    let of_table = declared(&table["properties"]["schema"]["columns"]);
    assert_eq!(of_table.into_iter().map(|(name, kind)| (name, kind.to_lowercase())).collect::<BTreeSet<_>>(), all);
    // Rows have neither: one is the rule's, the other is filled by nobody.
    let sent: BTreeSet<_> =
        all.into_iter().filter(|(name, _)| !["TimeGenerated", "SourceSystem"].contains(&name.as_str())).collect();
    let streams = rule["properties"]["streamDeclarations"].as_object().unwrap();
    assert_eq!(streams.keys().collect::<Vec<_>>(), ["Custom-OnePasswordEventLogs_CL"]);
    assert_eq!(declared(&streams["Custom-OnePasswordEventLogs_CL"]["columns"]), sent);
    let flow = &rule["properties"]["dataFlows"][0];
    assert_eq!(flow["streams"][0], flow["outputStream"]);
    assert_eq!(flow["transformKql"], "source | extend TimeGenerated = now()");
}

#[test]
fn the_commands_are_those_of_the_program() {
    let help = Command::new(env!("CARGO_BIN_EXE_opship")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let lines = list.lines().take_while(|line| !line.is_empty()).filter(is_name);
    let has: BTreeSet<String> = lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect();
    let commands = table("Commands and exit codes");
    let named = |row: &Vec<String>| row[0].trim_matches('`').split(' ').nth(1).unwrap().to_owned();
    let stands: BTreeSet<String> = commands.iter().map(named).collect();
    assert_eq!(stands, has.into_iter().filter(|name| name != "help").collect());
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    for name in [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/METRICS.md",
        "docs/PROOF.md",
        "docs/deploy.md",
        "docs/systemd.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "docs/packages.md",
    ] {
        let text = file(name);
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("https://") && !target.starts_with('#')) {
            let target = target.split('#').next().unwrap();
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
            assert!(path.exists(), "{name} links to {target}");
        }
    }
}
