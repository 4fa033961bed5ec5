//! config: any file and environment give a configuration or a list of problems, and no problem repeats a secret.

use opship::config::{ConfigFile, Need, load};
use std::collections::BTreeMap;
use std::io::{Seek, Write};

/// Stands for a secret in the corpus.
const CANARY: &str = "eyJDQU5BUlk9PQ.canary/canary+canary==";
/// Divides the file from the environment.
const BORDER: &str = "\n=== environment\n";
/// Keys under which a secret may stand, by a slip or within a URL.
const SECRET_KEYS: [&str; 7] =
    ["token", "client_secret", "certificate", "redact_key", "proxy", "container_url", "OP_EVENTS_TOKEN"];

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return file_alone(data) };
    let (file, environment) = text.split_once(BORDER).unwrap_or((text, ""));
    let environment: BTreeMap<String, String> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let may_tell = names_hold_it(file, &environment);
    for need in [Need::Everything, Need::WhatIsThere] {
        let said = match with_file(file.as_bytes(), |file| load(file, environment.clone(), need)) {
            // References are told, what stands inside of an address is not.
            Ok(config) if is_in_addresses_alone(text) => format!("{config:?}"),
            Ok(_) => String::new(),
            Err(problems) => {
                assert!(!problems.problems.is_empty(), "refused without a reason");
                assert!(problems.problems.iter().all(|problem| !problem.what.is_empty()));
                format!("{problems}\n{problems:?}")
            }
        };
        assert!(may_tell || !said.contains(CANARY), "a secret was repeated: {said}");
    }
}

fn is_in_addresses_alone(text: &str) -> bool {
    let parts: Vec<&str> = text.split(CANARY).collect();
    parts.iter().rev().skip(1).all(|before| before.ends_with("sig=") || before.ends_with("http://user:"))
}

/// Not UTF-8: refused, and without a word of it.
fn file_alone(data: &[u8]) {
    let refused = with_file(data, |file| load(file, [], Need::WhatIsThere)).expect_err("no text");
    assert!(!refused.to_string().contains(CANARY));
}

/// Whether the canary stands where names are told: in a key, in the name of a variable, or in a value that is no secret.
fn names_hold_it(file: &str, environment: &BTreeMap<String, String>) -> bool {
    let is_secret = |name: &str| SECRET_KEYS.iter().any(|key| name.to_lowercase().ends_with(&key.to_lowercase()));
    let in_environment =
        environment.iter().any(|(name, value)| name.contains(CANARY) || value.contains(CANARY) && !is_secret(name));
    let in_file = match file.parse::<toml::Table>() {
        Ok(table) => table.iter().any(|(name, value)| tells(name, value, &is_secret)),
        // A key that stands twice is named by the parser.
        Err(error) => error.message().contains("duplicate key"),
    };
    in_environment || in_file
}

fn tells(name: &str, value: &toml::Value, is_secret: &impl Fn(&str) -> bool) -> bool {
    name.contains(CANARY)
        || match value {
            toml::Value::Table(table) => table.iter().any(|(name, value)| tells(name, value, is_secret)),
            toml::Value::Array(items) => items.iter().any(|item| tells(name, item, is_secret)),
            // A path is told: the file is looked for there.
            toml::Value::String(text) => {
                text.contains(CANARY) && (!is_secret(name) || text.trim().starts_with("file:"))
            }
            _ => false,
        }
}

fn with_file<T>(bytes: &[u8], read: impl FnOnce(&ConfigFile) -> T) -> T {
    thread_local! {
        static FILE: tempfile::NamedTempFile = tempfile::NamedTempFile::new().expect("a temporary file");
    }
    FILE.with(|named| {
        let mut file = named.as_file();
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(bytes)).expect("a writable file");
        read(&ConfigFile::Named(named.path().to_owned()))
    })
}
