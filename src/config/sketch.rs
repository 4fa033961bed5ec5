//! A refused file line by line without its values: for support, who must see where it is broken and may see nothing that is meant for
//! nobody. What is no known word is hidden, wherever it stands: in a value, a name, a key or a comment.

use super::load::{ConfigFile, read_first};
use super::schema::{Kind, Node, json_schema};
use std::collections::BTreeSet;

const HIDDEN: &str = "***";
/// Characters that keep their place: they are what a file is broken by.
const SHAPE: &[char] = &['"', '\'', '[', ']', '{', '}', ','];
/// Digits of a number that is shown.
const DIGITS_MAX: usize = 6;

/// The lines of the file, as many as there are; `None` where there is no file to read.
pub fn as_written(file: &ConfigFile) -> Option<String> {
    let (_, text) = read_first(file).ok()?;
    let schema = json_schema();
    (!text.is_empty()).then(|| sketch(&text, Node(&schema)))
}

fn sketch(text: &str, root: Node<'_>) -> String {
    let leaves = root.leaves();
    let known: BTreeSet<&str> =
        leaves.iter().flat_map(|(path, _)| path.split('.')).filter(|word| *word != "*").collect();
    let (mut section, mut shown) = (Vec::new(), String::with_capacity(text.len()));
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            let end = line.find(']').unwrap_or(line.len());
            let (head, rest) = line.split_at(end);
            section = head.trim_start_matches('[').split('.').map(|word| word.trim().to_owned()).collect();
            let words = names(section.iter().map(String::as_str), &known);
            shown.push_str(&format!("[{words}{}", masked(rest)));
        } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let path = section.iter().map(String::as_str).chain(key.split('.').map(str::trim));
            let node = path.into_iter().try_fold(root, Node::child);
            let (value, comment) = value.split_once('#').map_or((value, ""), |(value, _)| (value, " # ***"));
            let is_plain = node.is_some_and(|node| is_harmless(node, value.trim()));
            let value = if is_plain { value.trim().to_owned() } else { masked(value.trim()) };
            shown.push_str(&format!("{} = {value}{comment}", names(key.split('.').map(str::trim), &known)));
        } else if line.starts_with('#') {
            shown.push_str("# ***");
        } else {
            shown.push_str(&masked(line));
        }
        shown.push('\n');
    }
    shown
}

/// Sections and keys that are ours; others were chosen, or misspelt, by somebody.
fn names<'a>(words: impl Iterator<Item = &'a str>, known: &BTreeSet<&str>) -> String {
    let words: Vec<&str> = words.map(|word| if known.contains(word) { word } else { HIDDEN }).collect();
    words.join(".")
}

/// Numbers, switches, words of a closed list and durations say nothing but what they set.
fn is_harmless(node: Node<'_>, value: &str) -> bool {
    let is_number = |text: &str| (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match node.kind() {
        _ if node.is_secret() => false,
        Kind::Bool => ["true", "false"].contains(&value),
        Kind::Integer => is_number(value),
        Kind::Text => {
            let text = value.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default();
            node.choices().contains(&text)
                || ["s", "m", "h", "d"].iter().any(|unit| text.strip_suffix(unit).is_some_and(is_number))
        }
        Kind::List | Kind::Section => false,
    }
}

/// The text with its quotes, brackets and commas, and nothing of what stands between them.
fn masked(text: &str) -> String {
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        if SHAPE.contains(&first) {
            shown.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        let (run, after) = rest.split_at(rest.find(SHAPE).unwrap_or(rest.len()));
        shown.push_str(if run.trim().is_empty() { " " } else { HIDDEN });
        rest = after;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "eyJhbGciOi.canary=='5m#x";

    #[test]
    fn what_is_no_known_word_is_hidden_wherever_it_stands() {
        let schema = json_schema();
        for (written, shown) in [
            ("[accounts.default]", "[accounts.***]"),
            ("[ sink ] # S", "[sink]***"),
            ("[S", "[***"),
            ("[store].S]", "[store]***]"),
            ("# S", "# ***"),
            ("S", "***"),
            ("token = \"S", "token = \"***"),
            ("token = 5m", "token = ***"),
            ("S = 1", "*** = ***"),
            ("schedule.every = \"5m\" # S", "schedule.every = \"5m\" # ***"),
            ("schedule.every = \"5m", "schedule.every = \"***"),
            ("schedule.every = \"S5m\"", "schedule.every = \"***\""),
            ("sink.gzip_level = 1", "sink.gzip_level = 1"),
            ("sink.gzip_level = 1234567", "sink.gzip_level = ***"),
            ("sink.kind = \"azure\"", "sink.kind = \"azure\""),
            ("sink.kind = \"S\"", "sink.kind = \"***\""),
            ("delivery.allow_insecure_loopback = true", "delivery.allow_insecure_loopback = true"),
            ("filter.redact = [\"S\", 'S']", "filter.redact = [\"***\", '***']"),
            ("password = \"S\"", "*** = \"***\""),
        ] {
            let plain = written.replace('S', "canary-token");
            assert_eq!(sketch(&plain, Node(&schema)), format!("{shown}\n"), "{plain}");
            let text = sketch(&written.replace('S', SECRET), Node(&schema));
            assert!(!["canary", "eyJ", "==", "5m#"].iter().any(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn a_line_of_the_file_is_a_line_of_its_sketch_and_a_key_is_judged_in_its_section() {
        let schema = json_schema();
        let text = "[sink]\nkind = \"file\"\n\n[store]\nkind = \"file\"\r\npath = \"\"\"\nhunter2\nkind = \"file\"\n";
        let shown = "[sink]\nkind = \"***\"\n\n[store]\nkind = \"file\"\npath = \"\"\"\n***\nkind = \"file\"\n";
        assert_eq!(sketch(text, Node(&schema)), shown);
    }
}
