//! The faults: each has a test named after its number, and the table in docs/PROOF.md is made from these tests.
//! `OPSHIP_BLESS=1` writes the table anew.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the project fails loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rows whose tests are still being written: exactly those without a test, so that this list can only shrink.
const IN_THE_MAKING: &[u32] = &[];
const ROWS: u32 = 75;
const BEGIN: &str = "<!-- failure modes -->";
const END: &str = "<!-- /failure modes -->";

/// A row of the list of faults.
struct Mode {
    title: String,
    invariants: String,
}

/// A test of one of them.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    row: u32,
    name: String,
    fault: String,
    shows: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn modes() -> BTreeMap<u32, Mode> {
    let csv = fs::read_to_string(root().join("tests/data/failure_modes.csv")).unwrap();
    let mode = |line: &str| {
        let (number, rest) = line.split_once(',').unwrap();
        let (title, invariants) = rest.rsplit_once(',').unwrap();
        (number.parse().unwrap(), Mode { title: title.to_owned(), invariants: invariants.to_owned() })
    };
    csv.lines().skip(1).map(mode).collect()
}

/// Every Rust file of the program and its tests but this one, as (path from the root, text).
fn files(below: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !path.ends_with("node_modules") {
            found.extend(files(&path));
        } else if name.ends_with(".rs") && name != file!() {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The name of the function that this line begins, when it is named after a fault.
fn name_of(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("async ");
    let name = line.strip_prefix("fn ")?.split(['(', '<']).next()?;
    name.starts_with("fm_").then_some(name)
}

/// The tests of a file, or what is wrong with one: a name without a row, a doc line that is missing or not of the form.
fn tests(text: &str) -> Vec<Result<Test, String>> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let named = lines.iter().enumerate().filter_map(|(at, line)| Some((at, name_of(line)?)));
    named.map(|(at, name)| test(lines.get(..at).unwrap_or_default(), name)).collect()
}

fn test(above: &[&str], name: &str) -> Result<Test, String> {
    let number = name.strip_prefix("fm_").and_then(|rest| rest.split_once('_')).map(|(number, _)| number);
    let row = number.filter(|number| number.len() == 2).and_then(|number| number.parse().ok());
    let Some(row) = row.filter(|row| (1..=ROWS).contains(row)) else {
        return Err(format!("{name}: its number is none of 01 to {ROWS}"));
    };
    let mut above = above.iter().rev().skip_while(|line| line.starts_with("#["));
    let doc =
        above.next().and_then(|line| line.strip_prefix("/// Fault: ")?.strip_suffix('.')?.split_once(". Shows: "));
    let is_alone = above.next().is_none_or(|line| !line.starts_with("///"));
    match doc.filter(|(fault, shows)| is_alone && !fault.is_empty() && !shows.is_empty()) {
        Some((fault, shows)) => Ok(Test { row, name: name.into(), fault: fault.into(), shows: shows.into() }),
        None => Err(format!("{name}: above it must stand one line `/// Fault: <injected>. Shows: <asserted>.`")),
    }
}

/// Every test of every row with its file; nothing may be wrong with any of them.
fn all() -> Vec<(String, Test)> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (path, text) in ["src", "tests"].iter().flat_map(|folder| files(&root().join(folder))) {
        for test in tests(&text) {
            match test {
                Ok(test) => good.push((path.clone(), test)),
                Err(what) => bad.push(format!("{path}: {what}")),
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    good.sort_by(|(path, a), (other, b)| (a.row, path, &a.name).cmp(&(b.row, other, &b.name)));
    good
}

fn table() -> String {
    let mut lines = vec![
        String::from("| row | fault | test (file) | what it shows | invariants |"),
        String::from("|---|---|---|---|---|"),
    ];
    let modes = modes();
    for (path, Test { row, name, fault, shows }) in all() {
        let Mode { title, invariants } = modes.get(&row).unwrap();
        let line = format!("{row} | {title} | `{name}` ([{path}](../{path})) | *{fault}:* {shows} | {invariants}");
        lines.push(format!("| {line} |"));
    }
    lines.join("\n")
}

#[test]
fn the_list_has_every_row_once_with_a_title_and_invariants() {
    let modes = modes();
    assert!(modes.keys().copied().eq(1..=ROWS));
    for (row, Mode { title, invariants }) in modes {
        assert!(!title.is_empty() && !title.contains('|'), "row {row}");
        assert!(
            !invariants.is_empty() && invariants.split(' ').all(|one| ["L", "D", "A", "B", "S", "V"].contains(&one))
        );
    }
}

#[test]
fn every_row_has_a_test() {
    let tested: BTreeSet<u32> = all().into_iter().map(|(_, test)| test.row).collect();
    let missing: Vec<u32> = (1..=ROWS).filter(|row| !tested.contains(row)).collect();
    assert_eq!(missing, IN_THE_MAKING, "rows without a test (left), rows that may be without one (right)");
}

#[test]
fn the_table_is_made_from_the_tests() {
    let (path, wanted) = (root().join("docs/PROOF.md"), table());
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (stands, tail) = rest.split_once(END).unwrap();
    if stands.trim() == wanted {
        return;
    }
    assert!(std::env::var_os("OPSHIP_BLESS").is_some(), "docs/PROOF.md is stale: run this test with OPSHIP_BLESS=1");
    fs::write(&path, format!("{head}{BEGIN}\n{wanted}\n{END}{tail}")).unwrap();
}

#[test]
fn a_wrong_number_and_a_wrong_doc_line_are_seen() {
    let good = "/// Fault: a. Shows: b.\n#[tokio::test]\nasync fn fm_07_x() {}";
    let of_good = Test { row: 7, name: "fm_07_x".into(), fault: "a".into(), shows: "b".into() };
    assert_eq!(tests(good), [Ok(of_good)]);
    for bad in [
        "#[test]\nfn fm_07_x() {}",
        "/// Shows: b.\n#[test]\nfn fm_07_x() {}",
        "/// Fault: a. Shows: b\n#[test]\nfn fm_07_x() {}",
        "/// More.\n/// Fault: a. Shows: b.\n#[test]\nfn fm_07_x() {}",
        "/// Fault: a. Shows: b.\n\n#[test]\nfn fm_07_x() {}",
        "/// Fault: a. Shows: b.\nfn fm_99_x() {}",
        "/// Fault: a. Shows: b.\nfn fm_00_x() {}",
        "/// Fault: a. Shows: b.\npub(crate) async fn fm_7_x(world: &World) {}",
    ] {
        assert!(matches!(&*tests(bad), [Err(_)]), "{bad}");
    }
}
