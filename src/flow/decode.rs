//! decode: the items of a page, one bad item never harming its neighbours. The page around them is read in `page.rs`.

pub use super::page::{DecodeError, Page, page, page_after, text};

use super::scan::{self, Span};
use super::{EventId, EventKey, Hour, Time};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::sync::LazyLock;

/// A field of an event that has a column. The order is the order of the row.
pub struct Column {
    /// The name at the source.
    pub field: &'static str,
    /// The name in `OnePasswordEventLogs_CL`.
    pub name: &'static str,
    pub kind: Kind,
}

/// The column types of Log Analytics that events use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    DateTime,
    Int,
    Dynamic,
}

macro_rules! columns {
    ($($field:literal => $name:literal $kind:ident,)*) => {
        /// Every column that is filled from an event's own fields: the 33 of the table minus `SourceSystem` (nobody fills it),
        /// `TimeGenerated` (the DCR's) and `log_source` (the endpoint's name).
        pub const COLUMNS: [Column; COLUMN_COUNT] = [$(Column { field: $field, name: $name, kind: Kind::$kind },)*];
        /// How many columns an event's own fields fill.
        pub const COLUMN_COUNT: usize = [$($field,)*].len();
    };
}

columns! {
    "uuid" => "uuid_s" Text,
    "timestamp" => "timestamp" DateTime,
    "account_uuid" => "account_uuid" Text,
    "session_uuid" => "session_uuid" Text,
    "country" => "country" Text,
    "category" => "category" Text,
    "type" => "action_type" Text,
    "details" => "details" Dynamic,
    "target_user" => "target_user" Dynamic,
    "client" => "client" Dynamic,
    "location" => "location" Dynamic,
    "actor_uuid" => "actor_uuid" Text,
    "actor_details" => "actor_details" Dynamic,
    "actor_type" => "actor_type" Text,
    "actor_account_uuid" => "actor_account_uuid" Text,
    "action" => "action" Text,
    "object_type" => "object_type" Text,
    "object_uuid" => "object_uuid" Text,
    "object_details" => "object_details" Dynamic,
    "aux_id" => "aux_id" Int,
    "aux_uuid" => "aux_uuid" Text,
    "aux_details" => "aux_details" Dynamic,
    "aux_info" => "aux_info" Text,
    "session" => "session" Dynamic,
    "used_version" => "used_version" Int,
    "vault_uuid" => "vault_uuid" Text,
    "item_uuid" => "item_uuid" Text,
    "user" => "user" Dynamic,
    "user_type" => "user_type" Text,
    "user_account_uuid" => "user_account_uuid" Text,
}

/// Places in [`COLUMNS`] by the length of the field's name: looked up twenty times an event, so not by comparing all names.
static PLACES_BY_LENGTH: LazyLock<Vec<Vec<usize>>> = LazyLock::new(|| {
    let longest = COLUMNS.iter().map(|column| column.field.len()).max().unwrap_or(0);
    let mut places = vec![Vec::new(); longest + 1];
    for (place, column) in COLUMNS.iter().enumerate() {
        if let Some(places) = places.get_mut(column.field.len()) {
            places.push(place);
        }
    }
    places
});

/// The place of a field in [`COLUMNS`].
pub fn column_of(field: &str) -> Option<usize> {
    let places = PLACES_BY_LENGTH.get(field.len())?;
    places.iter().copied().find(|place| COLUMNS.get(*place).is_some_and(|column| column.field == field))
}

/// One event as read: its identity, and the raw JSON of each field that has a column.
#[derive(Debug)]
pub struct Item<'a> {
    pub key: EventKey,
    pub timestamp: Option<Time>,
    /// False when the id had to be derived from the item's bytes.
    pub has_uuid: bool,
    /// The whole item as it stands in the page.
    pub raw: &'a str,
    /// By place in [`COLUMNS`]; `null` is absent.
    pub fields: [Option<&'a RawValue>; COLUMN_COUNT],
    /// Values of known fields that are no JSON (`NaN`), as text: (place, text).
    pub mangled: Vec<(usize, &'a str)>,
    /// How many top-level fields have no column.
    pub unknown_fields: u32,
    /// False for an item that is no JSON object: only `raw` is of use.
    pub is_object: bool,
}

/// Decodes one item; also used for items that come back one by one (recovery).
pub fn item(raw: &str) -> Item<'_> {
    let mut item = blank(raw);
    if !raw.trim_start().starts_with('{') {
        // A text or a list is not read to its end to learn that it is no event.
        item.is_object = false;
        identify(&mut item);
        return item;
    }
    let mut json = serde_json::Deserializer::from_str(raw);
    let strict = json.deserialize_map(FieldVisitor(&mut item)).and_then(|()| json.end());
    if strict.is_err() {
        item = blank(raw);
        if lenient_fields(&mut item).is_none() {
            item = Item { is_object: false, ..blank(raw) };
        }
    }
    identify(&mut item);
    item
}

fn blank(raw: &str) -> Item<'_> {
    Item {
        key: EventKey { hour: Hour::Odd, id: EventId([0; 16]) },
        timestamp: None,
        has_uuid: false,
        raw,
        fields: [None; COLUMN_COUNT],
        mangled: Vec::new(),
        unknown_fields: 0,
        is_object: true,
    }
}

impl<'a> Item<'a> {
    /// The raw JSON of a field by its name at the source.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.fields.get(column_of(name)?)?.map(RawValue::get)
    }

    /// A field's text, when it is a string.
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.field(name)?).ok()
    }

    /// The first value of a field wins; a repeated one counts as unknown.
    fn set(&mut self, place: Option<usize>, value: &'a RawValue) {
        match place.and_then(|place| self.fields.get_mut(place)) {
            Some(field @ None) if value.get() != "null" => *field = Some(value),
            Some(None) => {}
            Some(Some(_)) | None => self.unknown_fields += 1,
        }
    }
}

struct FieldVisitor<'i, 'a>(&'i mut Item<'a>);

impl<'a> Visitor<'a> for FieldVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an event object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(place) = map.next_key_seed(PlaceOfKey)? {
            self.0.set(place, map.next_value::<&'a RawValue>()?);
        }
        Ok(())
    }
}

/// Looks a key up without keeping its text.
struct PlaceOfKey;

impl<'a> DeserializeSeed<'a> for PlaceOfKey {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'a>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for PlaceOfKey {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(column_of(key))
    }
}

/// For an item that is no JSON because of one value: every other field is kept.
fn lenient_fields<'a>(item: &mut Item<'a>) -> Option<()> {
    scan::each_member(item.raw, |Span { key, value }| {
        let place = column_of(key);
        match (serde_json::from_str::<&'a RawValue>(value), place) {
            (Ok(value), place) => item.set(place, value),
            (Err(_), Some(place)) => item.mangled.push((place, value)),
            (Err(_), None) => item.unknown_fields += 1,
        }
    })
}

fn identify(item: &mut Item<'_>) {
    let plain = |raw: &str| serde_json::from_str::<String>(raw).ok().filter(|text| !text.is_empty());
    item.timestamp = item.field("timestamp").and_then(plain).and_then(|text| timestamp(&text));
    let uuid = item.field("uuid").and_then(plain);
    item.has_uuid = uuid.is_some();
    let id = match uuid {
        Some(uuid) => EventId::of_uuid(&uuid),
        None => EventId::of_raw(item.raw.as_bytes()),
    };
    item.key = EventKey { hour: Hour::of(item.timestamp), id };
}

/// RFC 3339 with any offset and 0 to 9 fraction digits.
pub fn timestamp(text: &str) -> Option<Time> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(items: &str) -> String {
        format!(r#"{{"cursor":"c1","has_more":true,"items":[{items}]}}"#)
    }

    #[test]
    fn one_broken_item_leaves_its_neighbours_alone() {
        let text = page_of(
            r#"{"uuid":"A","action":"view"}, {"uuid":"B","aux_id":NaN,"action":"x"}, 17, {"uuid":"C",,}, {"uuid":"D"}"#,
        );
        let page = page(&text).unwrap();
        assert_eq!(page.cursor.as_str(), "c1");
        let uuids: Vec<_> = page.items.iter().map(|i| i.text("uuid")).collect();
        assert_eq!(uuids, [Some("A".into()), Some("B".into()), None, None, Some("D".into())]);
        assert_eq!(page.items[1].text("action").as_deref(), Some("x"));
        assert_eq!(page.items[1].mangled.len(), 1);
        assert!(!page.items[2].is_object && !page.items[3].is_object);
    }

    /// Fault: a page with a BOM, invalid UTF-8, a lone surrogate and NUL. Shows: it is flagged and read whole, only the bad characters are replaced.
    #[test]
    fn fm_18_invalid_utf8_bom_and_lone_surrogates_are_repaired() {
        let mut body = b"\xef\xbb\xbf".to_vec();
        body.extend_from_slice(
            page_of(r#"{"uuid":"A","aux_info":"\ud83d\ude00 \ud83d \\ud800"},{"uuid":"B\u0000"}"#).as_bytes(),
        );
        body.extend_from_slice(b" ");
        let at = body.iter().position(|&b| b == b'B').unwrap();
        body[at] = 0xff;
        let (text, repaired) = text(&body);
        assert!(repaired);
        let page = page(&text).unwrap();
        assert_eq!(page.items[0].text("aux_info").unwrap(), "\u{1f600} \u{fffd} \\ud800");
        assert_eq!(page.items[1].text("uuid").unwrap(), "\u{fffd}\0");
    }

    #[test]
    fn an_item_without_uuid_is_known_by_its_bytes_and_depth_does_not_matter() {
        let deep = format!(r#"{{"uuid":"E","details":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let text = page_of(&format!(r#"{{"action":"a"}},{{"action":"b"}},{{"action":"a"}},{deep}"#));
        let page = page(&text).unwrap();
        assert_eq!(page.items[0].key, page.items[2].key);
        assert_ne!(page.items[0].key, page.items[1].key);
        assert!(page.items[3].is_object);
    }

    #[test]
    fn timestamps_keep_every_digit_and_offset() {
        let item = item(r#"{"uuid":"A","timestamp":"2026-11-22T06:30:00.123456789-03:30"}"#);
        assert_eq!(item.timestamp, "2026-11-22T10:00:00.123456789Z".parse().ok());
        assert_eq!(item.field("timestamp"), Some("\"2026-11-22T06:30:00.123456789-03:30\""));
    }
}
