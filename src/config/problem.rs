//! What is wrong with a configuration: every problem at once, each with its origin and key, never with a secret.

use std::collections::BTreeSet;
use std::fmt;

/// Longest key, origin or value that is repeated in a message.
const SHOWN_CHARS_MAX: usize = 120;

/// One thing to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the environment variable, that says it.
    pub origin: String,
    /// `section.key`; empty when the file as a whole is meant.
    pub key: String,
    /// What was expected, and what is near it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, key, what } = self;
        match key.is_empty() {
            true => write!(f, "{}: {what}", printable(origin)),
            false => write!(f, "{}: `{}`: {what}", printable(origin), printable(key)),
        }
    }
}

/// A configuration that cannot be used. `Display` has one line per problem.
#[derive(Debug)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let line_end = if i == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collects problems in the order in which they are found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
    keys: BTreeSet<String>,
}

impl Problems {
    pub(super) fn add(&mut self, origin: impl Into<String>, key: impl Into<String>, what: impl Into<String>) {
        let problem = Problem { origin: origin.into(), key: key.into(), what: what.into() };
        self.keys.insert(problem.key.clone());
        self.found.push(problem);
    }

    /// Adds a problem, unless one of that key or of its section is known: this one merely follows from it.
    pub(super) fn add_first(&mut self, origin: impl Into<String>, key: &str, what: impl Into<String>) {
        let sections = key.match_indices('.').filter_map(|(at, _)| key.get(..at));
        if !sections.chain([key]).any(|known| self.keys.contains(known)) {
            self.add(origin, key, what);
        }
    }

    /// The file could not be read at all: what seems missing is merely unread.
    pub(super) fn is_about_the_file(&self) -> bool {
        self.found.iter().any(|problem| problem.key.is_empty())
    }

    /// Whether some way into the network may be meant by what could not be read.
    pub(super) fn concern_the_network(&self) -> bool {
        let sections = ["http", "azure", "delivery"];
        self.found.iter().any(|problem| {
            let section = problem.key.split('.').next().unwrap_or_default();
            // A key outside of every section may be one of a section that was misspelt.
            problem.key.is_empty() || nearest(section, sections).is_some() || sections.contains(&section)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

impl From<Problems> for ConfigError {
    fn from(problems: Problems) -> Self {
        Self { problems: problems.found }
    }
}

/// The text on one line and of bounded length: keys and paths come from outside.
fn printable(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let dots = if cut.len() < text.len() { ".." } else { "" };
    format!("{}{dots}", cut.replace(char::is_control, "?"))
}

/// `found ...` for a harmless key; values that do not look like a plain word or number are left out even there.
pub(super) fn found(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || " ._:+*/,-".contains(c);
    match !value.is_empty() && value.len() <= 32 && value.chars().all(plain) && !value.starts_with("eyJ") {
        true => format!(", found `{value}`"),
        false => String::new(),
    }
}

/// The candidate that was probably meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| text.to_lowercase().replace(['-', '.'], "_");
    let word = fold(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &fold(candidate)), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= (candidate.len().min(word.len()) / 3).clamp(1, 3))
        .map(|(_, candidate)| candidate)
}

/// `; did you mean ...?`, or nothing.
pub(super) fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|candidate| format!("; did you mean `{candidate}`?")).unwrap_or_default()
}

/// `` `a`, `b` `` for messages.
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_a_foreign_word_finds_none() {
        let words = ["endpoint", "kind", "stream", "gzip_level"];
        assert_eq!(nearest("endpont", words), Some("endpoint"));
        assert_eq!(nearest("gzip-level", words), Some("gzip_level"));
        assert_eq!(nearest("knid", words), Some("kind"));
        assert_eq!(nearest("workspace", words), None);
    }

    #[test]
    fn a_key_from_outside_stays_on_its_line() {
        let problem = Problem { origin: "a.toml".into(), key: "x\n\u{1b}[31m".into(), what: "unknown key".into() };
        assert_eq!(problem.to_string(), "a.toml: `x??[31m`: unknown key");
    }

    #[test]
    fn only_plain_short_values_are_repeated() {
        assert_eq!(found("5 m"), ", found `5 m`");
        assert_eq!(found("eyJhbGciOi"), "");
        assert_eq!(found("a=b"), "");
        assert_eq!(found(&"x".repeat(33)), "");
    }
}
