//! The opt-in filter on values: drops the configured column paths from each row, or replaces them by a keyed pseudonym.

use super::decode::{COLUMN_COUNT, COLUMNS, column_of};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::borrow::Cow;

/// What `filter.redact` asks for. Empty: nothing is touched.
#[derive(Clone, Default)]
pub struct Redact {
    /// By place in [`COLUMNS`]: the paths below that column; an empty path is the whole column.
    paths: Vec<Vec<Vec<String>>>,
    key: Option<Vec<u8>>,
}

impl std::fmt::Debug for Redact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redact").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl Redact {
    /// Column paths such as `client.ip_address` (names of columns, then of members); `key` turns dropping into a pseudonym:
    /// the first 16 bytes of HMAC-SHA256 in hex, equal for equal values.
    ///
    /// # Errors
    /// The path whose column does not exist.
    pub fn new(paths: &[String], key: Option<Vec<u8>>) -> Result<Self, String> {
        if paths.is_empty() {
            return Ok(Self::default());
        }
        let mut by_place = vec![Vec::new(); COLUMN_COUNT];
        for path in paths {
            let mut parts = path.split('.').map(str::to_owned);
            let column = parts.next().unwrap_or_default();
            let place = COLUMNS.iter().position(|c| c.name == column).ok_or_else(|| path.clone())?;
            if let Some(slot) = by_place.get_mut(place) {
                slot.push(parts.collect());
            }
        }
        Ok(Self { paths: by_place, key })
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Whether any path starts at this column.
    pub fn touches(&self, place: usize) -> bool {
        self.paths.get(place).is_some_and(|paths| !paths.is_empty())
    }

    /// What a text of ours for this column becomes, such as the account of an event that names none.
    pub fn text<'t>(&self, field: &str, text: &'t str) -> Option<Cow<'t, str>> {
        match column_of(field).filter(|place| self.touches(*place)) {
            None => Some(Cow::Borrowed(text)),
            Some(place) => {
                serde_json::from_str(&self.apply(place, &Value::from(text).to_string())?).ok().map(Cow::Owned)
            }
        }
    }

    /// Tells two keys apart and says nothing of either; none without a key.
    pub fn key_fingerprint(&self) -> Option<String> {
        self.key.as_ref()?;
        self.pseudonym(&Value::from("opship redact key fingerprint"))
            .and_then(|value| value.as_str().map(str::to_owned))
    }

    /// The column's JSON with the configured paths dropped or replaced; `None` when nothing of it is left.
    pub fn apply(&self, place: usize, raw: &str) -> Option<String> {
        // What cannot be read cannot be redacted: it goes as a whole.
        let mut value: Value = serde_json::from_str(raw).ok()?;
        for path in self.paths.get(place)? {
            value = self.without(value, path)?;
        }
        Some(value.to_string())
    }

    /// The value with what the path leads to dropped or replaced; `None` when that is all of it. It fails closed: a path that meets a list
    /// goes on in each of its elements, and what stands where an object was expected goes as a whole.
    fn without(&self, value: Value, path: &[String]) -> Option<Value> {
        let Some((name, rest)) = path.split_first() else { return self.pseudonym(&value) };
        match value {
            Value::Object(mut object) => {
                if let Some(member) = object.remove(name)
                    && let Some(member) = self.without(member, rest)
                {
                    object.insert(name.clone(), member);
                }
                Some(Value::Object(object))
            }
            Value::Array(items) => {
                Some(Value::Array(items.into_iter().filter_map(|item| self.without(item, path)).collect()))
            }
            Value::Null => Some(Value::Null),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => self.pseudonym(&value),
        }
    }

    fn pseudonym(&self, value: &Value) -> Option<Value> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_deref()?).ok()?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        mac.update(text.as_bytes());
        Some(Value::String(mac.finalize().into_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(paths: &[&str], key: Option<&str>) -> Redact {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        Redact::new(&paths, key.map(|key| key.as_bytes().to_vec())).unwrap()
    }

    fn client(redact: &Redact, raw: &str) -> Option<String> {
        redact.apply(column_of("client").unwrap(), raw)
    }

    #[test]
    fn without_a_key_a_member_or_a_column_is_dropped() {
        let raw = r#"{"ip_address":"::1","os":{"name":"x","version":"1"}}"#;
        let member = client(&redact(&["client.ip_address", "client.os.name"], None), raw);
        assert_eq!(member.as_deref(), Some(r#"{"os":{"version":"1"}}"#));
        assert_eq!(client(&redact(&["client"], None), raw), None);
        assert_eq!(client(&redact(&["client.absent", "client.ip_address.deeper"], None), "{}").as_deref(), Some("{}"));
    }

    #[test]
    fn with_a_key_equal_values_have_equal_pseudonyms_that_depend_on_the_key() {
        let of =
            |key, value: &str| client(&redact(&["client.ip"], Some(key)), &format!(r#"{{"ip":{value}}}"#)).unwrap();
        assert_eq!(of("k", "\"a\""), of("k", "\"\\u0061\""));
        assert_ne!(of("k", "\"a\""), of("k", "\"b\""));
        assert_ne!(of("k", "\"a\""), of("l", "\"a\""));
        let whole = client(&redact(&["client"], Some("k")), "17").unwrap();
        assert!(whole.len() == 34 && whole.bytes().skip(1).take(32).all(|b| b.is_ascii_hexdigit()), "{whole}");
    }

    /// Fault: a list, a text, a number or a list in a list where the path expects an object. Shows: nothing that the path is to hide is left, with and without a key; what it does not lead to stays.
    #[test]
    fn fm_70_a_path_that_meets_another_shape_fails_closed() {
        const SECRET: &str = "203.0.113.9";
        for (raw, dropped) in [
            (r#"[{"ip":"203.0.113.9","os":"x"},{"ip":"203.0.113.9"}]"#, Some(r#"[{"os":"x"},{}]"#)),
            (r#"{"ip":[{"v4":"203.0.113.9"}],"os":"x"}"#, Some(r#"{"os":"x"}"#)),
            (r#"[[{"ip":"203.0.113.9"}]]"#, Some("[[{}]]")),
            (r#"["203.0.113.9",{"os":"x"}]"#, Some(r#"[{"os":"x"}]"#)),
            (r#""203.0.113.9""#, None),
            (r#""{\"ip\":\"203.0.113.9\"}""#, None),
            ("203", None),
            ("true", None),
            ("null", Some("null")),
        ] {
            assert_eq!(client(&redact(&["client.ip"], None), raw).as_deref(), dropped, "{raw}");
            let kept = client(&redact(&["client.ip"], Some("k")), raw).unwrap();
            assert!(!kept.contains(SECRET) && (kept != "203" && kept != "true"), "{raw}: {kept}");
        }
        let deep = redact(&["client.os.name"], None);
        assert_eq!(client(&deep, r#"{"os":"203.0.113.9","ip":1}"#).as_deref(), Some(r#"{"ip":1}"#));
        assert_eq!(
            client(&deep, r#"{"os":[{"name":"n","v":1}],"ip":1}"#).as_deref(),
            Some(r#"{"ip":1,"os":[{"v":1}]}"#)
        );
    }

    #[test]
    fn what_cannot_be_read_goes_as_a_whole() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for raw in ["{", "NaN", &deep] {
            assert_eq!(client(&redact(&["client.ip"], Some("k")), raw), None);
        }
    }

    #[test]
    fn an_unknown_column_is_named_and_untouched_columns_stay() {
        assert_eq!(Redact::new(&["clientele.ip".to_owned()], None).unwrap_err(), "clientele.ip");
        let redact = redact(&["client.ip"], None);
        assert!(redact.touches(column_of("client").unwrap()) && !redact.touches(column_of("user").unwrap()));
        assert!(!Redact::default().touches(0) && Redact::default().is_empty());
    }
}
