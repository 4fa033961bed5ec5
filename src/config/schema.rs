//! The JSON Schema of the configuration: for editors, and the one list of keys and types that loading goes by.

use super::raw::{RawConfig, sweep_defaults};
use crate::flow::Stream;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

/// JSON Schema, draft 2020-12, without references, so that it can be walked from key to key.
pub(super) fn json_schema() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(fit_toml));
    let mut schema = settings.into_generator().into_root_schema_for::<RawConfig>().to_value();
    for stream in Stream::ALL {
        let (every, horizon) = sweep_defaults(stream);
        for (key, default) in [("every", every), ("horizon", horizon)] {
            let pointer = format!("/properties/sweep/properties/{stream}/properties/{key}");
            if let Some(node) = schema.pointer_mut(&pointer).and_then(Value::as_object_mut) {
                node.insert("default".into(), default.into());
            }
        }
    }
    schema
}

/// TOML has no null, and the default of a section is that of its keys.
fn fit_toml(schema: &mut Schema) {
    let Some(node) = schema.as_object_mut() else { return };
    if let Some(Value::Array(choices)) = node.remove("anyOf") {
        let given = choices.into_iter().filter(|choice| choice.get("type") != Some(&"null".into()));
        for (key, value) in given.filter_map(|choice| choice.as_object().cloned()).flatten() {
            node.entry(key).or_insert(value);
        }
    }
    for list in ["type", "enum"] {
        if let Some(Value::Array(values)) = node.get_mut(list) {
            values.retain(|value| !value.is_null() && value != "null");
        }
    }
    if let Some([only]) = node.get("type").and_then(Value::as_array).map(Vec::as_slice) {
        let only = only.clone();
        node.insert("type".into(), only);
    }
    if node.get("default").is_some_and(|default| default.is_null() || default.is_object()) {
        node.remove("default");
    }
}

/// One place in the schema: a section, or a key with its type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a>(pub(super) &'a Value);

/// What a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Section,
    Text,
    Integer,
    Bool,
    List,
}

impl<'a> Node<'a> {
    pub(super) fn kind(self) -> Kind {
        match self.0.get("type").and_then(Value::as_str) {
            Some("object") => Kind::Section,
            Some("integer") => Kind::Integer,
            Some("boolean") => Kind::Bool,
            Some("array") => Kind::List,
            Some(_) | None => Kind::Text,
        }
    }

    /// The node under a key; `None` when there is no such key.
    pub(super) fn child(self, key: &str) -> Option<Self> {
        let named = self.0.get("properties").and_then(|properties| properties.get(key));
        named.or_else(|| self.any_name()).map(Node)
    }

    /// The schema under a name of the user's choice, such as an account.
    fn any_name(self) -> Option<&'a Value> {
        self.0.get("additionalProperties").filter(|schema| schema.is_object())
    }

    pub(super) fn item(self) -> Option<Self> {
        self.0.get("items").map(Node)
    }

    pub(super) fn keys(self) -> impl Iterator<Item = &'a str> {
        self.0.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.as_str())
    }

    pub(super) fn choices(self) -> Vec<&'a str> {
        self.0.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Smallest and largest integer.
    pub(super) fn range(self) -> (Option<i64>, Option<i64>) {
        let bound = |name| self.0.get(name).and_then(Value::as_i64);
        (bound("minimum"), bound("maximum"))
    }

    /// The value may be or hold a secret and is never repeated.
    pub(super) fn is_secret(self) -> bool {
        self.0.get("writeOnly") == Some(&Value::Bool(true))
    }

    /// Every key below, as a path; `*` stands for a name of the user's choice.
    pub(super) fn leaves(self) -> Vec<(String, Self)> {
        let named = self.keys().filter_map(|key| Some((key, self.child(key)?)));
        let any = self.any_name().map(|schema| ("*", Node(schema)));
        named.chain(any).flat_map(|(key, node)| node.leaves_under(key)).collect()
    }

    fn leaves_under(self, key: &str) -> Vec<(String, Self)> {
        match self.kind() {
            Kind::Section => self.leaves().into_iter().map(|(path, leaf)| (format!("{key}.{path}"), leaf)).collect(),
            Kind::Text | Kind::Integer | Kind::Bool | Kind::List => vec![(key.to_owned(), self)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_flat_described_and_free_of_null() {
        let schema = json_schema();
        let text = schema.to_string();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(!text.contains("$ref") && !text.contains("null") && !text.contains("anyOf") && !text.contains("oneOf"));
        for (path, leaf) in Node(&schema).leaves() {
            assert!(leaf.0["description"].is_string(), "{path} has no description");
        }
        assert_eq!(schema["properties"]["sink"]["properties"]["kind"]["enum"], serde_json::json!(["azure", "ndjson"]));
        assert_eq!(
            schema["properties"]["sweep"]["properties"]["itemusages"]["properties"]["horizon"]["default"],
            "72h"
        );
        assert_eq!(schema["properties"]["schedule"]["properties"]["overlap"]["default"], "5m");
    }

    #[test]
    fn every_key_that_takes_a_secret_says_so() {
        let schema = json_schema();
        let secret: Vec<_> =
            Node(&schema).leaves().into_iter().filter(|(_, leaf)| leaf.is_secret()).map(|(path, _)| path).collect();
        for key in ["accounts.*.token", "azure.client_secret", "azure.certificate", "store.container_url", "http.proxy"]
        {
            assert!(secret.iter().any(|path| path == key), "{key} in {secret:?}");
        }
        assert!(
            secret.iter().any(|path| path == "admin.token") && secret.iter().any(|path| path == "filter.redact_key")
        );
    }
}
