//! The pure core: values and `now` in, values out. No clock, socket, file, environment or randomness.

pub mod attempts;
pub mod checkpoint;
pub mod clock;
pub mod datetime;
pub mod decode;
pub mod dedupe;
pub mod envelope;
pub mod forbidden;
pub mod identity;
pub mod intent;
pub mod map;
pub mod pack;
pub mod page;
pub mod planted;
pub mod reconcile;
pub mod redact;
pub mod retry;
pub mod scan;
pub mod suspicion;
pub mod totals;
pub mod window;
pub mod words;

use chrono::{DateTime, TimeZone, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// A moment in UTC, to the nanosecond.
pub type Time = DateTime<Utc>;

/// One kind of event of the Events API; also the value of `log_source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    AuditEvents,
    ItemUsages,
    SigninAttempts,
}

impl Stream {
    pub const ALL: [Self; 3] = [Self::AuditEvents, Self::ItemUsages, Self::SigninAttempts];

    /// The name in the API path, the token's features, `log_source` and the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuditEvents => "auditevents",
            Self::ItemUsages => "itemusages",
            Self::SigninAttempts => "signinattempts",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The configured name of a 1Password account: `[a-z0-9-]{1,63}`, so that it is safe in a path and a blob name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct AccountName(String);

impl AccountName {
    /// `None` when the text is not `[a-z0-9-]{1,63}`.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        ((1..=63).contains(&text.len()) && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One stream of one account: the unit of position, of locking and of failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeedId {
    pub account: AccountName,
    pub stream: Stream,
}

impl fmt::Display for FeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.stream)
    }
}

/// The opaque position in a stream that the source hands out. Never empty: an empty cursor would reset the stream.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor(String);

/// Longest cursor accepted; real ones are about 200 characters.
pub const CURSOR_BYTES_MAX: usize = 8 * 1024;

impl Cursor {
    /// `None` when the text is empty or longer than [`CURSOR_BYTES_MAX`].
    pub fn parse(text: String) -> Option<Self> {
        (!text.is_empty() && text.len() <= CURSOR_BYTES_MAX).then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Cursor {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text).ok_or("a cursor is 1 to 8192 bytes")
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.0
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({} bytes)", self.0.len())
    }
}

/// The identity of an event inside its stream and hour, as the ledger keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// A canonical 26-character base32 uuid is its own 16 bytes; any other string is hashed.
    /// 26 x 5 = 130 bits: only strings whose last two bits are zero re-encode to themselves.
    pub fn of_uuid(uuid: &str) -> Self {
        base32_16(uuid.as_bytes()).map_or_else(|| Self::hashed(b"uuid\0", uuid.as_bytes()), Self)
    }

    /// For an item without a uuid: derived from its raw bytes.
    pub fn of_raw(item: &[u8]) -> Self {
        Self::hashed(b"raw\0", item)
    }

    fn hashed(tag: &[u8], text: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(tag).chain_update(text).finalize();
        Self(std::array::from_fn(|i| digest.get(i).copied().unwrap_or_default()))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn base32_16(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 26 {
        return None;
    }
    let mut bits: u128 = 0;
    let (last, head) = text.split_last()?;
    for &c in head {
        bits = bits << 5 | u128::from(base32_digit(c)?);
    }
    let last = base32_digit(*last)?;
    (last & 0b11 == 0 || planted::is(planted::Bug::CollapseIds))
        .then(|| (bits << 3 | u128::from(last >> 2)).to_be_bytes())
}

const fn base32_digit(c: u8) -> Option<u8> {
    match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'2'..=b'7' => Some(c - b'2' + 26),
        _ => None,
    }
}

/// The UTC hour of an event's own timestamp: names the ledger segment, whenever the event is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hour {
    /// Hours since 1970-01-01T00:00Z, for years 2000 to 2100.
    At(u32),
    /// Unreadable timestamps and years outside 2000-2100. Independent of the date of reading.
    Odd,
}

impl Hour {
    const FIRST: i64 = 946_684_800; // 2000-01-01T00:00:00Z
    const LAST: i64 = 4_133_980_799; // 2100-12-31T23:59:59Z

    pub fn of(timestamp: Option<Time>) -> Self {
        match timestamp.map(|t| t.timestamp()) {
            Some(seconds) if (Self::FIRST..=Self::LAST).contains(&seconds) => Self::At((seconds / 3600) as u32),
            _ => Self::Odd,
        }
    }

    /// The first moment of the hour; `None` for [`Hour::Odd`].
    pub fn start(self) -> Option<Time> {
        match self {
            Self::At(hour) => Utc.timestamp_opt(i64::from(hour) * 3600, 0).single(),
            Self::Odd => None,
        }
    }

    /// The first moment after every [`Hour::At`].
    pub fn end_of_all() -> Time {
        Utc.timestamp_opt(Self::LAST + 1, 0).single().unwrap_or(Time::MAX_UTC)
    }

    /// `2026112210` or `odd`: the name of the ledger segment.
    pub fn parse(name: &str) -> Option<Self> {
        if name == "odd" {
            return Some(Self::Odd);
        }
        // The reader below takes a digit from the next field where one is missing: another name would mean the same hour.
        if name.len() != 10 || !name.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let naive = chrono::NaiveDateTime::parse_from_str(&format!("{name}0000"), "%Y%m%d%H%M%S").ok()?;
        match Self::of(Some(naive.and_utc())) {
            hour @ Self::At(_) => Some(hour),
            Self::Odd => None,
        }
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.start() {
            Some(start) => write!(f, "{}", start.format("%Y%m%d%H")),
            None => f.write_str("odd"),
        }
    }
}

/// What makes two reads the same event (with the stream of the feed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey {
    pub hour: Hour,
    pub id: EventId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_that_differ_only_in_the_last_character_stay_apart() {
        let ids: std::collections::HashSet<_> = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
            .chars()
            .map(|c| EventId::of_uuid(&format!("SYNTHETIC0000000000000000{c}")))
            .collect();
        assert_eq!(ids.len(), 32);
        let canonical: std::collections::HashSet<_> = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
            .chars()
            .map(|c| EventId::of_uuid(&format!("SYNTHETICAAAAAAAAAAAAAAAA{c}")))
            .collect();
        assert_eq!(canonical.len(), 32);
    }

    #[test]
    fn an_hour_survives_its_name() {
        let time = "2026-11-22T10:59:59.999999999Z".parse::<Time>().ok();
        let hour = Hour::of(time);
        assert_eq!(hour.to_string(), "2026112210");
        assert_eq!(Hour::parse("2026112210"), Some(hour));
        assert_eq!(Hour::parse("odd"), Some(Hour::Odd));
        assert_eq!(Hour::of(None), Hour::Odd);
        assert_eq!(Hour::of("1999-12-31T23:59:59Z".parse().ok()), Hour::Odd);
        assert_eq!(Hour::of("2101-01-01T00:00:00Z".parse().ok()), Hour::Odd);
        for other in ["2026112299", "202611221", "20261122100", "+202611221", "2026 11221", ""] {
            assert_eq!(Hour::parse(other), None, "{other}");
        }
    }
}
