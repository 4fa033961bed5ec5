//! The row that stands for an event which cannot be shipped whole: who did what to which, and nothing of what anybody may have written.

use super::{COLUMNS, Mapper, Row, sha256_hex};
use crate::flow::decode::{Column, Item, Kind};
use crate::flow::redact::Redact;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How much a stub says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stub {
    /// Every column that holds an id, a number or a word of a closed list.
    Ids,
    /// For a destination that takes offence at one of those: what the event was, not who did it.
    Short,
    /// Which event it was.
    Bare,
}

impl Stub {
    /// The next smaller one.
    pub const fn smaller(self) -> Option<Self> {
        match self {
            Self::Ids => Some(Self::Short),
            Self::Short => Some(Self::Bare),
            Self::Bare => None,
        }
    }

    fn keeps(self, field: &str) -> Keep {
        let keep = keep(field);
        match self {
            Self::Ids => keep,
            Self::Short if SHORT.contains(&field) => keep,
            Self::Bare if BARE.contains(&field) => keep,
            Self::Short | Self::Bare => Keep::Nothing,
        }
    }
}

const SHORT: &[&str] = &["uuid", "timestamp", "account_uuid", "action", "category", "type", "object_type"];
const BARE: &[&str] = &["uuid", "timestamp"];

/// What a stub keeps of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Its text, if it looks like an id or a word.
    Plain,
    /// Its number.
    Number,
    /// The event's own name or time, as it is.
    Own,
    /// Of an object these members, if they look like ids.
    Members(&'static [&'static str]),
    Nothing,
}

/// Decided for each of [`COLUMNS`]: ids and words of closed lists tell who did what; names, texts and addresses are what somebody may have
/// written, and what a proxy may take offence at.
fn keep(field: &str) -> Keep {
    match field {
        "uuid" | "timestamp" => Keep::Own,
        "account_uuid" | "session_uuid" | "country" | "category" | "type" | "actor_uuid" | "actor_type"
        | "actor_account_uuid" | "action" | "object_type" | "object_uuid" | "aux_uuid" | "vault_uuid" | "item_uuid"
        | "user_type" | "user_account_uuid" => Keep::Plain,
        "aux_id" | "used_version" => Keep::Number,
        "actor_details" | "object_details" | "aux_details" | "target_user" | "user" => Keep::Members(&["uuid"]),
        "session" => Keep::Members(&["uuid", "device_uuid"]),
        // `details`, `client`, `location`, `aux_info`, and any column to come until it is decided.
        _ => Keep::Nothing,
    }
}

/// The longest id or word kept; those of 1Password have 26 characters and fewer.
const PLAIN_BYTES_MAX: usize = 64;
/// The longest uuid kept, whatever it looks like: a stub without it stands for nothing.
const OWN_BYTES_MAX: usize = 1024;

/// Whether a text looks like an id or a word of a closed list: nobody plants a sentence, a path or a query in it.
fn is_plain(text: &str) -> bool {
    let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=PLAIN_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_of_it)
}

impl Mapper<'_> {
    /// Appends the row that stands for an item; the item itself goes to the dead letters. What `filter.redact` touches stays out.
    pub fn stub(&self, item: &Item<'_>, size: Stub, why: &str, out: &mut Vec<u8>) {
        let mut row = Row { out, changes: super::Changes::default(), notes: BTreeMap::new() };
        row.open(self.stream);
        let (mut lifted, nothing) = (self.lifted_user_fields(item), Redact::default());
        let as_sent = Mapper { redact: &nothing, ..*self }.lifted_user_fields(item);
        lifted.retain(|field, value| as_sent.get(field) == Some(value));
        for (place, column) in COLUMNS.iter().enumerate() {
            let raw = item.field(column.field).or_else(|| lifted.get(column.field).map(String::as_str));
            match (size.keeps(column.field), raw) {
                (Keep::Plain, None) if column.field == "account_uuid" && !self.redact.touches(place) => {
                    row.text_if_any(column.name, self.account_uuid.filter(|uuid| is_plain(uuid)));
                }
                (Keep::Members(members), Some(raw)) => self.members(place, column, raw, members, &mut row),
                (keep, Some(raw)) if !self.redact.touches(place) && holds(keep, column, raw, item) => {
                    row.column(column, raw, item.timestamp);
                }
                (_, Some(_) | None) => {}
            }
        }
        row.note("stub", why);
        row.note("bytes", &item.raw.len().to_string());
        row.note("sha256", &sha256_hex(item.raw.as_bytes()));
        row.close(None);
    }

    /// The members of an object that are ids and that no redaction has touched, as a small object.
    fn members(&self, place: usize, column: &Column, raw: &str, members: &[&str], row: &mut Row<'_>) {
        let object = |raw: &str| serde_json::from_str::<Map<String, Value>>(raw).ok();
        let redacted = self.redacted(place, raw, &mut super::Changes::default());
        let (Some(whole), Some(left)) = (object(raw), redacted.as_deref().and_then(object)) else { return };
        let is_kept = |name: &&&str| {
            let value = left.get(**name);
            value == whole.get(**name) && value.and_then(Value::as_str).is_some_and(is_plain)
        };
        let kept: Map<String, Value> = members
            .iter()
            .filter(is_kept)
            .filter_map(|name| Some(((*name).to_owned(), left.get(*name)?.clone())))
            .collect();
        if !kept.is_empty() {
            row.column(column, &Value::Object(kept).to_string(), None);
        }
    }
}

fn holds(keep: Keep, column: &Column, raw: &str, item: &Item<'_>) -> bool {
    let is_number = || column.kind == Kind::Int && raw.parse::<i32>().is_ok();
    let text = || serde_json::from_str::<String>(raw).ok();
    match keep {
        Keep::Plain => text().is_some_and(|text| is_plain(&text)),
        Keep::Number => is_number(),
        Keep::Own if column.kind == Kind::DateTime => item.timestamp.is_some(),
        Keep::Own => raw.len() <= OWN_BYTES_MAX,
        Keep::Members(_) | Keep::Nothing => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Stream;
    use crate::flow::decode;
    use serde_json::json;

    const WHY: &str = "refused";

    fn stub_of(redact: &[&str], size: Stub, event: &Value) -> Value {
        let paths: Vec<String> = redact.iter().map(|path| (*path).to_owned()).collect();
        let redact = Redact::new(&paths, Some(b"key".to_vec())).unwrap();
        let mapper = Mapper { stream: Stream::AuditEvents, account_uuid: Some("ACCOUNT"), redact: &redact };
        let mut out = Vec::new();
        let text = event.to_string();
        mapper.stub(&decode::item(&text), size, WHY, &mut out);
        let mut row: Value = serde_json::from_slice(&out).unwrap();
        let details = row.as_object_mut().unwrap().remove("details").unwrap();
        let (bytes, sha256) = (text.len().to_string(), sha256_hex(text.as_bytes()));
        assert_eq!(details, json!({"opship": {"stub": WHY, "bytes": bytes, "sha256": sha256}}));
        row
    }

    fn event() -> Value {
        json!({
            "uuid": "U", "timestamp": "2026-11-22T10:00:00Z", "session_uuid": "SE", "country": "CH", "category": "success",
            "type": "mfa_ok", "details": {"value": "free text"}, "client": {"ip_address": "203.0.113.9", "app_name": "x"},
            "location": {"city": "Wil"}, "actor_uuid": "AC", "actor_details": {"uuid": "AD", "name": "Wendy"},
            "actor_type": "user", "actor_account_uuid": "AA", "action": "view", "object_type": "item", "object_uuid": "OB",
            "object_details": {"uuid": "OD", "email": "w@example.com"}, "aux_id": 7, "aux_uuid": "AU",
            "aux_details": {"uuid": "AX"}, "aux_info": "free text",
            "session": {"uuid": "SS", "ip": "203.0.113.9", "device_uuid": "DE"}, "used_version": 3, "vault_uuid": "VA",
            "item_uuid": "IT", "user": {"uuid": "US", "name": "Wendy", "user_type": "guest", "user_account_uuid": "UA"},
            "target_user": {"uuid": "TU", "email": "w@example.com"},
        })
    }

    #[test]
    fn every_column_is_decided_and_only_texts_and_places_stay_out() {
        let nothing = COLUMNS.iter().filter(|column| keep(column.field) == Keep::Nothing);
        let nothing: Vec<_> = nothing.map(|column| column.field).collect();
        assert_eq!(nothing, ["details", "client", "location", "aux_info"]);
    }

    /// Fault: an event whose row is refused. Shows: its stub says who did what to which, down to session, vault and item, and nothing that somebody wrote.
    #[test]
    fn fm_53_a_stub_keeps_every_id_and_word_and_no_text() {
        let expected = json!({
            "log_source": "auditevents", "uuid_s": "U", "timestamp": "2026-11-22T10:00:00Z", "account_uuid": "ACCOUNT",
            "session_uuid": "SE", "country": "CH", "category": "success", "action_type": "mfa_ok", "actor_uuid": "AC",
            "actor_details": {"uuid": "AD"}, "actor_type": "user", "actor_account_uuid": "AA", "action": "view",
            "object_type": "item", "object_uuid": "OB", "object_details": {"uuid": "OD"}, "aux_id": 7, "aux_uuid": "AU",
            "aux_details": {"uuid": "AX"}, "session": {"uuid": "SS", "device_uuid": "DE"}, "used_version": 3,
            "vault_uuid": "VA", "item_uuid": "IT", "user": {"uuid": "US"}, "user_type": "guest",
            "user_account_uuid": "UA", "target_user": {"uuid": "TU"},
        });
        assert_eq!(stub_of(&[], Stub::Ids, &event()), expected);
        let short = json!({"log_source": "auditevents", "uuid_s": "U", "timestamp": "2026-11-22T10:00:00Z",
            "account_uuid": "ACCOUNT", "category": "success", "action_type": "mfa_ok", "action": "view", "object_type": "item"});
        assert_eq!(stub_of(&[], Stub::Short, &event()), short);
        let bare = json!({"log_source": "auditevents", "uuid_s": "U", "timestamp": "2026-11-22T10:00:00Z"});
        assert_eq!(stub_of(&[], Stub::Bare, &event()), bare);
        assert_eq!(
            [Stub::Ids, Stub::Short, Stub::Bare].map(Stub::smaller),
            [Some(Stub::Short), Some(Stub::Bare), None]
        );
    }

    /// Fault: a text planted where an id, a word, a number or an object belongs. Shows: it does not ride along in the stub.
    #[test]
    fn fm_53_a_text_planted_in_an_id_stays_out_of_the_stub() {
        let long = "A".repeat(65);
        for planted in ["../../etc/passwd", "' OR 1=1 --", "<script>", "a b", "", &long, "ü"] {
            let mut event = event();
            let object = event.as_object_mut().unwrap();
            for (field, value) in object.iter_mut().filter(|(field, _)| !BARE.contains(&field.as_str())) {
                *value = match keep(field) {
                    Keep::Members(members) => members.iter().map(|name| ((*name).to_owned(), json!(planted))).collect(),
                    _ => json!(planted),
                };
            }
            let expected = json!({"log_source": "auditevents", "uuid_s": "U", "timestamp": "2026-11-22T10:00:00Z",
                "account_uuid": "ACCOUNT"});
            assert_eq!(stub_of(&[], Stub::Ids, &event), expected, "{planted:?}");
        }
        let odd = json!({"uuid": "U", "timestamp": "' OR 1=1", "actor_uuid": ["x"], "user": "x", "aux_id": 1.5});
        let expected = json!({"log_source": "auditevents", "uuid_s": "U", "account_uuid": "ACCOUNT"});
        assert_eq!(stub_of(&[], Stub::Ids, &odd), expected);
    }

    /// Fault: redacted columns and members in an event that is refused. Shows: none of them, nor a pseudonym, is in the stub; their neighbours are.
    #[test]
    fn fm_53_what_is_redacted_stays_out_of_the_stub() {
        let redact = ["actor_uuid", "user.email", "object_details.uuid", "session", "account_uuid", "aux_id"];
        let stub = stub_of(&redact, Stub::Ids, &event());
        for gone in ["actor_uuid", "object_details", "session", "account_uuid", "aux_id"] {
            assert_eq!(stub.get(gone), None, "{gone}");
        }
        assert_eq!((&stub["user"], &stub["object_uuid"]), (&json!({"uuid": "US"}), &json!("OB")));
        assert_eq!(stub_of(&["user.user_type"], Stub::Ids, &event()).get("user_type"), None);
    }
}
