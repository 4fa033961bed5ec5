//! Compares what was written with the schema: unknown keys, wrong types and unknown words, all of them at once.
//! What does not fit is reported and left out, so that the rest can still be checked.

use super::problem::{Problems, did_you_mean, found, listed, nearest};
use super::schema::{Kind, Node};
use figment::value::{Dict, Value};

/// One origin (a file or an environment variable) on its way through the schema.
pub(super) struct Conform<'a> {
    pub(super) root: Node<'a>,
    pub(super) origin: &'a str,
    pub(super) problems: &'a mut Problems,
}

impl Conform<'_> {
    /// The sections of a file.
    pub(super) fn table(&mut self, node: Node<'_>, path: &str, table: toml::Table) -> Dict {
        let mut dict = Dict::new();
        for (key, value) in table {
            let below = join(path, &key);
            let Some(child) = node.child(&key) else {
                self.unknown_key(node, &key, &below);
                continue;
            };
            if let Some(value) = self.value(child, &below, value) {
                dict.insert(key, value);
            }
        }
        dict
    }

    /// One value of the type that its key demands.
    pub(super) fn value(&mut self, node: Node<'_>, path: &str, value: toml::Value) -> Option<Value> {
        match (node.kind(), value) {
            (Kind::Section, toml::Value::Table(table)) => Some(self.table(node, path, table).into()),
            (Kind::Text, toml::Value::String(text)) => self.text(node, path, text),
            // an RFC 3339 time may be written without quotes
            (Kind::Text, toml::Value::Datetime(time)) => self.text(node, path, time.to_string()),
            (Kind::Integer, toml::Value::Integer(number)) => self.integer(node, path, number),
            (Kind::Bool, toml::Value::Boolean(flag)) => Some(flag.into()),
            (Kind::List, toml::Value::Array(items)) => self.list(node, path, items),
            (kind, value) => self.wrong_type(node, kind, path, &value),
        }
    }

    fn text(&mut self, node: Node<'_>, path: &str, text: String) -> Option<Value> {
        let choices = node.choices();
        if choices.is_empty() || choices.contains(&text.as_str()) {
            return Some(text.into());
        }
        let hint = did_you_mean(nearest(&text, choices.iter().copied()));
        let value = found(&text);
        self.problems.add(self.origin, path, format!("expected one of {}{value}{hint}", listed(choices)));
        None
    }

    fn integer(&mut self, node: Node<'_>, path: &str, number: i64) -> Option<Value> {
        let (low, high) = node.range();
        if low.is_none_or(|low| low <= number) && high.is_none_or(|high| number <= high) {
            return Some(number.into());
        }
        self.problems.add(self.origin, path, format!("expected {}, found `{number}`", expected(node)));
        None
    }

    fn list(&mut self, node: Node<'_>, path: &str, items: Vec<toml::Value>) -> Option<Value> {
        let item_node = node.item()?;
        let length = items.len();
        let values: Vec<Value> = items.into_iter().filter_map(|item| self.value(item_node, path, item)).collect();
        (values.len() == length).then(|| values.into())
    }

    fn wrong_type(&mut self, node: Node<'_>, kind: Kind, path: &str, value: &toml::Value) -> Option<Value> {
        let expected = expected(node);
        let (typed, repeated) = match value {
            toml::Value::String(text) => ("a string", found(text)),
            toml::Value::Integer(number) => ("an integer", found(&number.to_string())),
            toml::Value::Float(number) => ("a float", found(&number.to_string())),
            toml::Value::Boolean(flag) => ("a boolean", found(&flag.to_string())),
            toml::Value::Datetime(_) => ("a time", String::new()),
            toml::Value::Array(_) => ("a list", String::new()),
            toml::Value::Table(_) => ("a table", String::new()),
        };
        // what stands in place of a free text, or of a section, may be a misplaced secret
        let harmless = !node.is_secret() && matches!(kind, Kind::Integer | Kind::Bool);
        let found = if harmless && !repeated.is_empty() { repeated } else { format!(", found {typed}") };
        let quote = matches!((kind, value), (Kind::Text, toml::Value::Integer(_) | toml::Value::Boolean(_)));
        let hint = if quote { ": put it in quotes" } else { "" };
        self.problems.add(self.origin, path, format!("expected {expected}{found}{hint}"));
        None
    }

    fn unknown_key(&mut self, node: Node<'_>, key: &str, path: &str) {
        let near = nearest(key, node.keys()).map(|sibling| format!("; did you mean `{sibling}`?"));
        let hint =
            near.or_else(|| self.elsewhere(key)).unwrap_or_else(|| format!("; known here: {}", listed(node.keys())));
        self.problems.add(self.origin, path, format!("unknown key{hint}"));
    }

    /// A key of that name in another section.
    fn elsewhere(&self, key: &str) -> Option<String> {
        let leaves = self.root.leaves();
        let (path, _) = leaves.iter().find(|(path, _)| path.rsplit('.').next() == Some(key))?;
        Some(format!("; did you mean `{}`?", path.replace('*', "NAME")))
    }
}

/// What a key takes, in words.
fn expected(node: Node<'_>) -> String {
    match node.kind() {
        Kind::Section => "a section with keys".into(),
        Kind::Text if node.choices().is_empty() => "a string".into(),
        Kind::Text => format!("one of {}", listed(node.choices())),
        Kind::Integer => match node.range() {
            (Some(low), Some(high)) => format!("an integer from {low} to {high}"),
            _ => "an integer".into(),
        },
        Kind::Bool => "`true` or `false`".into(),
        Kind::List => match node.item().map(Node::choices) {
            Some(choices) if !choices.is_empty() => format!("a list of {}", listed(choices)),
            Some(_) | None => "a list of strings".into(),
        },
    }
}

/// The text of an environment variable as the type that its key takes; a text that does not fit stays a string.
pub(super) fn typed(node: Node<'_>, text: &str) -> toml::Value {
    let trimmed = text.trim();
    match node.kind() {
        Kind::Integer => trimmed.parse().map(toml::Value::Integer).unwrap_or_else(|_| trimmed.into()),
        Kind::Bool => match trimmed.to_ascii_lowercase().as_str() {
            "true" => true.into(),
            "false" => false.into(),
            _ => trimmed.into(),
        },
        Kind::List => toml::Value::Array(list_items(trimmed)),
        Kind::Text | Kind::Section => text.into(),
    }
}

/// `a,b`, `[a, b]` or `["a", "b"]`.
fn list_items(text: &str) -> Vec<toml::Value> {
    let as_toml = toml::from_str::<toml::Table>(&format!("list = {text}")).ok();
    if let Some(toml::Value::Array(items)) = as_toml.and_then(|mut table| table.remove("list")) {
        return items
            .into_iter()
            .map(|item| item.as_str().map(Into::into).unwrap_or_else(|| item.to_string().into()))
            .collect();
    }
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let items = inner.split(',').map(|item| item.trim().trim_matches(['"', '\''])).filter(|item| !item.is_empty());
    items.map(Into::into).collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_be_written_in_three_ways() {
        let expected: Vec<toml::Value> = vec!["a".into(), "2".into()];
        for text in ["a,2", "[a, 2]", r#"["a", "2"]"#, "['a',2]", " a , 2 ,"] {
            assert_eq!(list_items(text.trim()), expected, "{text}");
        }
        assert!(list_items("[]").is_empty() && list_items("").is_empty());
    }
}
