//! map: an event -> a row of `OnePasswordEventLogs_CL`, spliced from the raw JSON of its fields.

mod stub;

pub use stub::Stub;

use super::decode::{COLUMNS, Column, Item, Kind, column_of};
use super::redact::Redact;
use super::{Stream, Time, datetime, scan};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Log Analytics cuts a field beyond 64 KB without a word; opship cuts it first and says so.
pub const FIELD_BYTES_MAX: usize = 64 * 1024;
/// How much of a dynamic value that is too large or too deep is kept as text.
const HEAD_BYTES: usize = 1024;
/// Deeper values are refused by common JSON readers (128 levels), counted from the row.
const DEPTH_MAX: usize = 100;
/// How much text of a value that its column cannot hold is kept under `details.opship`.
const NOTE_BYTES_MAX: usize = 1024;

/// How much JSON all the notes of a row may take; with the braces around them they leave half a field to `details`.
const NOTES_BYTES_MAX: usize = FIELD_BYTES_MAX / 2 - 64;

/// Maps the events of one feed.
#[derive(Clone, Copy, Debug)]
pub struct Mapper<'a> {
    pub stream: Stream,
    /// From introspection, for events that don't name their account.
    pub account_uuid: Option<&'a str>,
    pub redact: &'a Redact,
}

/// What mapping had to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Fields cut to 64 KB.
    pub cut: u32,
    /// Values their column could not hold.
    pub mistyped: u32,
    /// Values dropped or pseudonymised by `filter.redact`.
    pub redacted: u32,
}

impl Mapper<'_> {
    /// Appends the row of `item` to `out`: one line, no trailing newline. Every item gives a row, whatever it looks like.
    pub fn row(&self, item: &Item<'_>, out: &mut Vec<u8>) -> Changes {
        let mut row = Row { out, changes: Changes::default(), notes: BTreeMap::new() };
        row.open(self.stream);
        if !item.is_object || is_unknown(item) {
            // Its columns would be empty: without this its content would be nowhere.
            match self.redact.is_empty() {
                true => row.note("item", item.raw),
                false => row.note("item", &unquoted(item.raw)),
            }
        }
        let lifted = self.lifted_user_fields(item);
        let mut details = None;
        for (place, column) in COLUMNS.iter().enumerate() {
            let field = item.fields.get(place).copied().flatten().map(RawValue::get);
            let Some(raw) = field.or_else(|| lifted.get(column.field).map(|value| &**value)) else {
                if column.field == "account_uuid" {
                    let uuid = self.account_uuid.and_then(|uuid| self.redact.text(column.field, uuid));
                    row.text_if_any(column.name, uuid.as_deref());
                }
                continue;
            };
            let Some(value) = self.redacted(place, raw, &mut row.changes) else { continue };
            match column.field {
                "details" => details = Some(value),
                _ => row.column(column, &value, item.timestamp),
            }
        }
        for (place, raw) in &item.mangled {
            if let (Some(column), false) = (COLUMNS.get(*place), self.redact.touches(*place)) {
                row.changes.mistyped += 1;
                row.note(column.field, raw);
            }
        }
        row.close(details.as_deref())
    }

    /// The item as read, for a dead letter; with `filter.redact` its row instead, so that nothing redacted is kept.
    pub fn original(&self, item: &Item<'_>) -> String {
        if self.redact.is_empty() {
            return item.raw.to_owned();
        }
        let mut row = Vec::new();
        self.row(item, &mut row);
        String::from_utf8_lossy(&row).into_owned()
    }

    /// API v2 puts `user_type` and `user_account_uuid` inside `user` and `target_user`; the table has columns for them. What
    /// `filter.redact` takes from there does not come back this way.
    fn lifted_user_fields(&self, item: &Item<'_>) -> BTreeMap<&'static str, String> {
        #[derive(Deserialize)]
        struct User<'a> {
            #[serde(borrow)]
            user_type: Option<&'a RawValue>,
            #[serde(borrow)]
            user_account_uuid: Option<&'a RawValue>,
        }
        let mut lifted = BTreeMap::new();
        for field in ["user", "target_user"] {
            let Some(raw) = item.field(field).filter(|raw| raw.contains("\"user_")) else { continue };
            let raw = column_of(field).and_then(|place| self.redacted(place, raw, &mut Changes::default()));
            let Ok(user) = serde_json::from_str::<User<'_>>(raw.as_deref().unwrap_or_default()) else { continue };
            for (name, value) in [("user_type", user.user_type), ("user_account_uuid", user.user_account_uuid)] {
                if let Some(value) = value.map(RawValue::get).filter(|value| *value != "null") {
                    lifted.insert(name, value.to_owned());
                }
            }
        }
        lifted
    }

    fn redacted<'r>(&self, place: usize, raw: &'r str, changes: &mut Changes) -> Option<Cow<'r, str>> {
        if !self.redact.touches(place) {
            return Some(Cow::Borrowed(raw));
        }
        let value = self.redact.apply(place, raw);
        changes.redacted += u32::from(value.as_deref() != Some(raw));
        value.map(Cow::Owned)
    }
}

struct Row<'o> {
    out: &'o mut Vec<u8>,
    changes: Changes,
    /// What could not go into its column: ends up under `details.opship`.
    notes: BTreeMap<&'static str, String>,
}

impl Row<'_> {
    fn open(&mut self, stream: Stream) {
        self.out.extend_from_slice(b"{\"log_source\":\"");
        self.out.extend_from_slice(stream.as_str().as_bytes());
        self.out.push(b'"');
    }

    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Line breaks between JSON tokens become spaces: a row is one line.
    fn raw(&mut self, raw: &str) {
        let start = self.out.len();
        self.out.extend_from_slice(raw.as_bytes());
        if memchr::memchr2(b'\n', b'\r', raw.as_bytes()).is_some() {
            let tail = self.out.get_mut(start..).unwrap_or_default();
            tail.iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.out.extend_from_slice(quoted(text).as_bytes());
    }

    fn text_if_any(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn note(&mut self, field: &'static str, text: &str) {
        let text = self.cut(text, NOTE_BYTES_MAX);
        self.notes.insert(field, text.into_owned());
    }

    fn column(&mut self, column: &Column, raw: &str, timestamp: Option<Time>) {
        let holds = match column.kind {
            Kind::Text => return self.text_column(column.name, raw),
            Kind::Dynamic => return self.dynamic_column(column.name, raw),
            Kind::DateTime => datetime::holds(raw, timestamp),
            Kind::Int => raw.parse::<i32>().is_ok(),
        };
        if holds {
            self.name(column.name);
            self.raw(raw);
        } else {
            self.changes.mistyped += 1;
            let text = serde_json::from_str::<String>(raw);
            self.note(column.field, text.as_deref().unwrap_or(raw));
        }
    }

    /// A text column holds any value as text; only a string goes in verbatim.
    fn text_column(&mut self, name: &str, raw: &str) {
        let is_string = raw.starts_with('"');
        if is_string && raw.len() <= FIELD_BYTES_MAX {
            self.name(name);
            return self.raw(raw);
        }
        let decoded = if is_string { serde_json::from_str::<String>(raw).ok() } else { None };
        self.changes.mistyped += u32::from(!is_string);
        let text = decoded.as_deref().unwrap_or(raw);
        let text = self.cut(text, FIELD_BYTES_MAX);
        self.text(name, &text);
    }

    /// The text, or what fits of it with a marker of its length and hash: nothing is cut in silence.
    fn cut<'t>(&mut self, text: &'t str, bytes_max: usize) -> Cow<'t, str> {
        if text.len() <= bytes_max {
            return Cow::Borrowed(text);
        }
        self.changes.cut += 1;
        let marker = format!(" [cut by opship: {} bytes, sha256 {}]", text.len(), sha256_hex(text.as_bytes()));
        let kept = head(text, bytes_max.saturating_sub(marker.len()));
        Cow::Owned(format!("{kept}{marker}"))
    }

    /// A dynamic column holds any JSON; one too large or too deep becomes a marker, never cut JSON.
    fn dynamic_column(&mut self, name: &str, raw: &str) {
        self.name(name);
        if raw.len() <= FIELD_BYTES_MAX && !scan::is_deeper_than(raw, DEPTH_MAX) {
            return self.raw(raw);
        }
        self.changes.cut += 1;
        self.raw(&marker(raw));
    }

    fn close(mut self, details: Option<&str>) -> Changes {
        if self.notes.is_empty() {
            if let Some(details) = details {
                self.dynamic_column("details", details);
            }
        } else {
            let notes = serde_json::to_string(&self.notes).unwrap_or_default();
            // A thousand control characters are six thousand bytes of JSON, in each of thirty fields.
            let notes = if notes.len() > NOTES_BYTES_MAX { marker(&notes) } else { notes };
            self.noted_details(details, &notes);
        }
        self.out.push(b'}');
        self.changes
    }

    /// `details` with our notes inside it: an object keeps its own members; anything else, and an object that has an `opship` of its
    /// own, moves to `details.value`.
    fn noted_details(&mut self, details: Option<&str>, notes: &str) {
        let details = match details {
            Some(raw) if raw.len() + notes.len() + 64 > FIELD_BYTES_MAX || scan::is_deeper_than(raw, DEPTH_MAX) => {
                self.changes.cut += 1;
                Some(Cow::Owned(marker(raw)))
            }
            other => other.map(Cow::Borrowed),
        };
        self.name("details");
        let members = details.as_deref().and_then(|raw| raw.strip_prefix('{')?.strip_suffix('}')).map(str::trim);
        let members = members.filter(|_| !details.as_deref().is_some_and(has_notes_of_its_own));
        match (members, details.as_deref()) {
            (Some(""), _) | (None, None) => self.raw(&format!("{{\"opship\":{notes}}}")),
            (Some(members), _) => self.raw(&format!("{{\"opship\":{notes},{members}}}")),
            (None, Some(value)) => self.raw(&format!("{{\"opship\":{notes},\"value\":{value}}}")),
        }
    }
}

/// Whether no column takes anything of an object.
fn is_unknown(item: &Item<'_>) -> bool {
    item.mangled.is_empty() && item.fields.iter().all(Option::is_none)
}

/// What is said of an item where columns are redacted: what cannot be taken apart cannot be redacted.
fn unquoted(raw: &str) -> String {
    format!("left out: filter.redact is set; {} bytes, sha256 {}", raw.len(), sha256_hex(raw.as_bytes()))
}

/// Whether an object has a member `opship`, escaped or not: a second one would hide the first.
fn has_notes_of_its_own(object: &str) -> bool {
    let is_ours = |key: &str| {
        key == "opship"
            || key.contains('\\')
                && serde_json::from_str::<String>(&format!("\"{key}\"")).is_ok_and(|key| key == "opship")
    };
    let mut has = false;
    scan::each_member(object, |member| has |= is_ours(member.key)).is_none() || has
}

fn marker(raw: &str) -> String {
    let (bytes, sha256, head) = (raw.len(), sha256_hex(raw.as_bytes()), quoted(head(raw, HEAD_BYTES)));
    format!("{{\"truncated\":true,\"bytes\":{bytes},\"sha256\":\"{sha256}\",\"head\":{head}}}")
}

/// The longest prefix of at most `bytes` bytes that ends between characters.
fn head(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes).into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// The heartbeat or trouble row of an account: `log_source` `healthevents`.
pub fn health_row(account_uuid: Option<&str>, redact: &Redact, at: Time, trouble: Option<(&str, &str)>) -> Vec<u8> {
    let mut row = serde_json::Map::new();
    row.insert("log_source".into(), "healthevents".into());
    row.insert("timestamp".into(), at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true).into());
    if let Some(uuid) = account_uuid.and_then(|uuid| redact.text("account_uuid", uuid)) {
        row.insert("account_uuid".into(), uuid.into());
    }
    if let Some((category, action_type)) = trouble {
        row.insert("category".into(), category.into());
        row.insert("action_type".into(), action_type.into());
    }
    serde_json::Value::Object(row).to_string().into_bytes()
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
