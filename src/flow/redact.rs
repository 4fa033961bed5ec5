//! The opt-in filter on values: drops the configured column paths from each row, or replaces them by a keyed pseudonym.

use super::decode::{COLUMN_COUNT, COLUMNS};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

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

    /// The column's JSON with the configured paths dropped or replaced; `None` when nothing of it is left.
    pub fn apply(&self, place: usize, raw: &str) -> Option<String> {
        // What cannot be read cannot be redacted: it goes as a whole.
        let mut value: Value = serde_json::from_str(raw).ok()?;
        for path in self.paths.get(place)? {
            match path.split_last() {
                None => value = self.pseudonym(&value)?,
                Some((last, parents)) => self.member(&mut value, parents, last),
            }
        }
        Some(value.to_string())
    }

    fn member(&self, value: &mut Value, parents: &[String], last: &str) {
        let parent = parents.iter().try_fold(value, |value, name| value.get_mut(name));
        let Some(Value::Object(object)) = parent else { return };
        let Some(old) = object.remove(last) else { return };
        if let Some(new) = self.pseudonym(&old) {
            object.insert(last.to_owned(), new);
        }
    }

    fn pseudonym(&self, value: &Value) -> Option<Value> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_deref()?).ok()?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        mac.update(text.as_bytes());
        Some(Value::String(mac.finalize().into_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect()))
    }
}
