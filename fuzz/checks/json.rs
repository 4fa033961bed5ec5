//! A second reader of JSON to compare with: the members of an object in their order, their values as written.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// `None` when the text is no JSON object.
pub fn members(text: &str) -> Option<Vec<(String, &str)>> {
    struct Members;
    impl<'a> Visitor<'a> for Members {
        type Value = Vec<(String, &'a str)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                members.push((name, value.get()));
            }
            Ok(members)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let members = json.deserialize_map(Members).ok()?;
    json.end().ok().map(|()| members)
}

/// The first value of that name that is not null.
pub fn first<'a>(members: &[(String, &'a str)], name: &str) -> Option<&'a str> {
    members.iter().find(|(key, value)| key == name && *value != "null").map(|(_, value)| *value)
}

/// The string that a value is.
pub fn text(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}
