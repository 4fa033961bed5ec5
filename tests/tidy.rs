//! The house rules: which room may use which, how long a file may be, and words that must not stand anywhere.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the project fails loudly")]

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 450;
const LINES_WARN: usize = 400;

/// What each room may use besides itself. `main.rs` and `lib.rs` use nothing; `cli` may use everything.
const ALLOWED: &[(&str, &[&str])] = &[
    ("flow", &[]),
    ("source", EDGE),
    ("sink", EDGE),
    ("store", EDGE),
    ("table", EDGE),
    ("secret", &["flow"]),
    ("private", &[]),
    ("reload", &["secret"]),
    ("config", &["flow", "secret"]),
    ("http", &["flow", "config"]),
    ("azure", &["flow", "config", "secret", "http"]),
    ("schedule", &["config", "flow"]),
    ("telemetry", &["config"]),
    ("sim", &["flow"]),
    ("agent", &["flow", "config", "reload", "schedule", "source", "sink", "store", "table"]),
    ("admin", &["agent", "config", "flow", "http", "secret", "store", "table", "telemetry"]),
    (
        "wire",
        &[
            "admin",
            "agent",
            "azure",
            "config",
            "flow",
            "http",
            "reload",
            "schedule",
            "secret",
            "sink",
            "source",
            "store",
            "table",
            "telemetry",
        ],
    ),
];
const EDGE: &[&str] = &["flow", "http", "azure", "config", "private", "reload", "secret"];
/// Parts of `store` that are typed documents over the trait, not a store.
const DOCUMENTS: &[&str] = &["backfills", "checkpoints", "dead_letters", "ledger", "owners", "rename"];
const EDGES: &[&str] = &["source", "sink", "store", "table"];

struct Source {
    path: String,
    room: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the project that people write, as (path from the root, text).
fn files(below: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        match name.as_str() {
            ".git" | "target" | "node_modules" | "demo-out" => {}
            _ if path.is_dir() => found.extend(files(&path)),
            _ => {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                found.push((path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), text));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let is_rust = |(path, _): &(String, String)| Path::new(path).extension().is_some_and(|ending| ending == "rs");
    let source = |(path, text): (String, String)| {
        let inside = path.strip_prefix("src/").unwrap();
        let room = inside.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        Source { path, room, text }
    };
    files(&root().join("src")).into_iter().filter(is_rust).map(source).collect()
}

/// Every path behind `crate::`, use-trees spelt out: `crate::{a::{b, c}, d}` gives `a::b`, `a::c` and `d`.
fn crate_paths(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let after = code.match_indices("crate::").filter_map(|(at, found)| code.get(at + found.len()..));
    after.flat_map(|tree| spell_out("", tree).0).collect()
}

/// The paths of one use-tree, and what follows it.
fn spell_out<'t>(prefix: &str, tree: &'t str) -> (Vec<String>, &'t str) {
    let end = tree.find(|c: char| !c.is_alphanumeric() && !"_:".contains(c)).unwrap_or(tree.len());
    let (head, mut rest) = tree.split_at(end);
    let prefix = format!("{prefix}{head}");
    let Some(inside) = rest.strip_prefix('{').filter(|_| prefix.is_empty() || prefix.ends_with("::")) else {
        return (vec![prefix], rest);
    };
    let mut paths = Vec::new();
    rest = inside.trim_start();
    while !rest.starts_with('}') && !rest.is_empty() {
        let (more, behind) = spell_out(&prefix, rest);
        paths.extend(more);
        // ` as name` and the comma.
        rest = behind.trim_start_matches(|c| c != ',' && c != '}').trim_start_matches(',').trim_start();
    }
    (paths, rest.strip_prefix('}').unwrap_or(rest))
}

fn none(what: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{what}:\n  {}", broken.join("\n  "));
}

#[test]
fn use_trees_are_spelt_out() {
    let text =
        "use crate::{sim, store::{file::FileStore as F, Store}};\nlet x = crate::flow::Time::MIN; // crate::no\n";
    assert_eq!(crate_paths(text), ["sim", "store::file::FileStore", "store::Store", "flow::Time::MIN"]);
}

#[test]
fn rooms_are_used_in_the_allowed_directions_only() {
    let mut broken = Vec::new();
    for Source { path, room, text } in sources() {
        if room == "cli" {
            continue;
        }
        let allowed: &[&str] = match ALLOWED.iter().find(|(name, _)| *name == room) {
            Some((_, allowed)) => allowed,
            None if room == "main" || room == "lib" => &[],
            None => panic!("{path}: say in tests/tidy.rs what the room {room} may use"),
        };
        for used in crate_paths(&text) {
            let first = used.split("::").next().unwrap_or_default();
            if first != room && !allowed.contains(&first) {
                broken.push(format!("{path} uses {used}"));
            }
        }
    }
    none("rooms that must not know each other (DESIGN: allowed directions)", &broken);
}

#[test]
fn only_wire_names_implementations() {
    let mut broken = Vec::new();
    for Source { path, room, text } in sources() {
        if room == "wire" || EDGES.contains(&room.as_str()) {
            continue;
        }
        for used in crate_paths(&text) {
            let mut parts = used.split("::");
            let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let is_module = second.starts_with(|c: char| c.is_ascii_lowercase());
            if EDGES.contains(&first) && is_module && !(first == "store" && DOCUMENTS.contains(&second)) {
                broken.push(format!("{path} uses {used}"));
            }
        }
    }
    none("a concrete source, sink, store or table outside of wire.rs", &broken);
}

#[test]
fn only_cli_uses_wire() {
    let of = |source: &Source| crate_paths(&source.text).iter().any(|used| used.split("::").next() == Some("wire"));
    let broken: Vec<String> =
        sources().into_iter().filter(|source| source.room != "cli" && of(source)).map(|source| source.path).collect();
    none("wire is for cli", &broken);
}

#[test]
fn no_path_climbs_out_of_its_room() {
    let climbs = |source: &Source| {
        let is_root = source.path.matches('/').count() == 1;
        let mut lines = source.text.lines().map(str::trim_start);
        lines.any(|line| line.contains("super::super::") || is_root && line.starts_with("pub use super::"))
    };
    let broken: Vec<String> = sources().into_iter().filter(climbs).map(|source| source.path).collect();
    none("say `crate::` where another room is meant", &broken);
}

/// The attribute of `lib.rs` by which the rooms that are open are judged.
const OPEN: &str = r#"#![cfg_attr(feature = "testing", warn(unreachable_pub))]"#;

/// Where the feature `testing` may change more than which rooms are open: the machine code would be another one.
fn misplaced(path: &str, text: &str) -> Vec<String> {
    let told = |number: usize, line: &str| format!("{path}:{}: {}", number + 1, line.trim());
    let lines: Vec<&str> = text.lines().collect();
    let mut broken = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let mut next = lines.iter().skip(number + 1).skip_while(|line| line.starts_with("#["));
        let module = next.next().and_then(|line| line.strip_suffix(';')).unwrap_or_default();
        let fits = match *line {
            r#"#[cfg(feature = "testing")]"# => module.starts_with("pub mod "),
            r#"#[cfg(not(feature = "testing"))]"# => module.starts_with("mod "),
            line if line == OPEN || !line.contains(concat!("feature = \"tes", "ting\"")) => continue,
            _ => false,
        };
        if path != "src/lib.rs" || !fits {
            broken.push(told(number, line));
        }
    }
    broken
}

/// The modules of `lib.rs` that are not both: open to the tests, and private in the program that ships.
fn one_sided(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut open, mut closed, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for (number, line) in lines.iter().enumerate() {
        let above = lines.get(..number).unwrap_or_default().iter().rev();
        let attributes: Vec<&str> = above.take_while(|line| line.starts_with("#[")).copied().collect();
        match (line.strip_prefix("pub mod "), line.strip_prefix("mod ")) {
            (Some(name), _) if attributes.contains(&r#"#[cfg(feature = "testing")]"#) => open.push(name),
            (_, Some(name)) if attributes.contains(&r#"#[cfg(not(feature = "testing"))]"#) => closed.push(name),
            (None, None) => {}
            _ => broken.push((*line).to_owned()),
        }
    }
    broken.extend(open.iter().filter(|name| !closed.contains(name)).map(|name| format!("pub mod {name}")));
    broken.extend(closed.iter().filter(|name| !open.contains(name)).map(|name| format!("mod {name}")));
    broken
}

/// Targets that cargo leaves out in silence where a feature is off.
fn skipped_targets(manifest: &str) -> Vec<&str> {
    manifest.lines().filter(|line| line.trim_start().starts_with(concat!("required", "-features"))).collect()
}

#[test]
fn the_feature_testing_opens_rooms_and_does_nothing_else() {
    let rust = files(&root()).into_iter().filter(|(path, _)| path.ends_with(".rs") && path != "tests/tidy.rs");
    let misplaced: Vec<String> = rust.flat_map(|(path, text)| misplaced(&path, &text)).collect();
    none("the feature stands in src/lib.rs alone, before modules", &misplaced);
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(lib.lines().any(|line| line == OPEN), "src/lib.rs no longer judges what is reachable");
    none("each module is private in the program that ships, and open to the tests", &one_sided(&lib));
}

#[test]
fn no_target_is_left_out_where_a_feature_is_off() {
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        assert_eq!(skipped_targets(&text), [""; 0], "{manifest}");
    }
}

#[test]
fn a_feature_that_does_more_than_open_rooms_is_seen() {
    let good = r#"#![cfg_attr(feature = "testing", warn(unreachable_pub))]
#[cfg(not(feature = "testing"))]
#[expect(dead_code, reason = "tests")]
mod sim;
#[cfg(feature = "testing")]
pub mod sim;
"#;
    let seen = |text: &str| (misplaced("src/lib.rs", text).len(), one_sided(text).len());
    assert_eq!(seen(good), (0, 0));
    assert_eq!(misplaced("src/sim.rs", good).len(), 2, "in another file");
    for (bad, seen_in) in [
        (good.replace("\npub mod sim;", "\npub fn sim() {}"), (1, 1)),
        (good.replace("\nmod sim;", "\nconst SIM: bool = false;"), (1, 1)),
        (good.replace("\npub mod sim;", "\nmod sim;"), (1, 2)),
        (good.replace("\n#[cfg(feature = \"testing\")]", ""), (0, 2)),
        (
            good.replace("#[cfg(feature", "#[cfg(any(test, feature").replace("testing\")]\npub", "testing\"))]\npub"),
            (1, 2),
        ),
        (good.to_owned() + "pub mod agent;\n", (0, 1)),
        (good.to_owned() + "const IS_OPEN: bool = cfg!(feature = \"testing\");\n", (1, 0)),
    ] {
        assert_eq!(seen(&bad), seen_in, "{bad}");
    }
    assert_eq!(
        skipped_targets(&format!("[[test]]\nname = \"a\"\n{} = [\"x\"]\n", concat!("required", "-features"))).len(),
        1
    );
}

#[test]
fn every_file_says_its_job_and_stays_short() {
    let (mut broken, mut long) = (Vec::new(), Vec::new());
    for Source { path, text, .. } in sources() {
        let lines = text.lines().count();
        if !text.starts_with("//! ") {
            broken.push(format!("{path} does not begin with `//! `"));
        }
        if lines > LINES_MAX {
            broken.push(format!("{path} has {lines} lines, {LINES_MAX} are the limit"));
        } else if lines > LINES_WARN {
            long.push(format!("{path}: {lines}"));
        }
    }
    if !long.is_empty() {
        eprintln!("files over {LINES_WARN} lines, to be split before they reach {LINES_MAX}: {}", long.join(", "));
    }
    none(&format!("files (already over {LINES_WARN} lines: {})", long.join(", ")), &broken);
}

/// The fields of each `tracing::LEVEL!(...)`, up to the statement's end.
fn log_lines<'t>(text: &'t str, level: &str) -> Vec<&'t str> {
    let call = format!("tracing::{level}!(");
    let found = text.match_indices(&call).map(|(at, _)| text.get(at..).unwrap_or_default());
    found.filter_map(|rest| rest.split_once(");").map(|(line, _)| line)).collect()
}

#[test]
fn an_error_in_the_log_says_what_to_do_and_a_warning_whom_it_is_about() {
    let mut broken = Vec::new();
    for Source { path, text, .. } in sources().into_iter().filter(|source| source.room != "sim") {
        let silent = log_lines(&text, "error").into_iter().filter(|line| !line.contains("remedy"));
        broken.extend(silent.map(|line| format!("{path}: no remedy: {line}")));
        let subjects = ["feed", "account =", "segment =", "ledger =", "key", "path =", "scope =", "setting", "%listen"];
        let vague = log_lines(&text, "warn").into_iter().filter(|line| !subjects.iter().any(|it| line.contains(it)));
        broken.extend(vague.map(|line| format!("{path}: about what? {line}")));
    }
    none("log lines", &broken);
}

#[test]
fn nothing_is_left_for_later() {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[ig", "nore"), concat!("to", "do!(")];
    none("left for later", &mentions(&words, |path| path != "Cargo.toml" && !is_lock(path)));
}

#[test]
fn no_machine_host_or_author_is_mentioned_that_the_project_does_not_need() {
    let words = [
        concat!("/wo", "rk/"),
        concat!("crates", ".io"),
        concat!("npm", "js"),
        concat!("py", "pi"),
        concat!("cla", "ude"),
        concat!("session", " of"),
    ];
    none("words that must not stand here", &mentions(&words, |path| !is_lock(path)));
}

#[test]
fn only_retry_rs_knows_the_backoff_crate() {
    let crate_path = concat!("back", "off::");
    none("the backoff crate", &mentions(&[crate_path], |path| path != "src/flow/retry.rs" && !is_lock(path)));
}

fn is_lock(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some("Cargo.lock" | "package-lock.json"))
}

/// Where whole words of the list stand, whatever their case; what is no letter at a word's end bounds itself.
fn mentions(words: &[&str], looked_at: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files(&root()).into_iter().filter(|(path, _)| looked_at(path)) {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for word in words {
                if lower.match_indices(&word.to_lowercase()).any(|(at, hit)| stands_alone(&lower, at, hit)) {
                    found.push(format!("{path}:{}: {word}", number + 1));
                }
            }
        }
    }
    found
}

fn stands_alone(line: &str, at: usize, hit: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let before = line.get(..at).and_then(|text| text.chars().next_back());
    let behind = line.get(at + hit.len()..).and_then(|text| text.chars().next());
    let (first, last) = (hit.chars().next(), hit.chars().next_back());
    let goes_on = letter(first) && letter(before) || letter(last) && letter(behind);
    !goes_on
}

#[test]
fn the_states_of_a_batch_are_one_table_in_the_code_and_in_the_documents() {
    let table = |path: &str, prefix: &str| -> Vec<String> {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        let from_head = lines.skip_while(|line| !line.starts_with("| state | set by |"));
        from_head.take_while(|line| line.starts_with('|')).map(str::to_owned).collect()
    };
    let code = table("src/flow/intent.rs", "//! ");
    assert_eq!(code.len(), 7);
    assert_eq!(table("docs/ARCHITECTURE.md", ""), code);
}
