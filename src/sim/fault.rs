//! Scripted trouble: which requests it hits, how often, and what happens to them.

use super::call::{BodyKind, Head, Service};
use crate::flow::Stream;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One fault. Each matching request counts; the fault strikes from the `from`th on, `count` times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub on: Target,
    /// Strikes page requests of this kind only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyKind>,
    /// Strikes only requests whose body, decompressed, holds this text: a firewall on the way that takes offence at a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// Counted from 1, from the moment the fault was added.
    #[serde(default = "first")]
    pub from: u64,
    /// Absent: until the faults are cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Share of the matching requests that it strikes; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    pub what: What,
}

const fn first() -> u64 {
    1
}

/// The requests a fault is meant for: `events`, `auditevents`, `itemusages`, `signinattempts`, `introspect`, `identity`,
/// `ingestion`, `query`, or the beginning of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// Pages of all streams.
    Events,
    Stream(Stream),
    Introspect,
    Identity,
    Ingestion,
    Query,
    Path(String),
}

/// What happens to the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum What {
    /// Refused without being processed.
    Status(Refusal),
    /// 307 to another place.
    Redirect { to: String },
    /// Read, not processed, never answered.
    Hang,
    /// The connection breaks before the request's body is read.
    ResetBeforeBody,
    /// The connection breaks before the answer; the request was not processed.
    ResetBeforeHeaders,
    /// Processed (rows are stored), never answered.
    AcceptThenHang,
    /// Processed, then the connection breaks.
    AcceptThenReset,
    /// Processed, but the answer says otherwise.
    AcceptThenStatus(Refusal),
    /// The answer begins later.
    Delay { ms: u64 },
    /// The answer's body comes in small pieces.
    Drip { bytes: usize, every_ms: u64 },
    /// Half of the body, then silence.
    StallInBody,
    /// Half of the body, then the connection breaks.
    ResetInBody,
    /// Half of the body, then a regular close, although Content-Length promised all of it.
    ShortBody,
    /// A body that is never complete and never stops.
    EndlessBody,
    /// Half of the body under a Content-Length that agrees.
    TruncatedBody,
    /// A byte in the body that is not UTF-8.
    InvalidUtf8,
    /// Another body under the same status.
    Body { text: String },
    /// The answer's `Date` is wrong by so many days.
    WrongDate { days: i64 },
    /// A gzip body of so many MiB of spaces.
    GzipBomb { mib: u64 },
    /// A header of so many bytes.
    HeaderBomb { bytes: usize },
    /// Something is wrong with a page of events.
    Page(PageFault),
    /// Something is wrong with an Azure token.
    Token(TokenFault),
    /// The ingestion endpoint's size limits become this many bytes, compressed or not.
    SizeLimit { bytes: usize },
    /// The query API cuts its answers after so many rows, and says so as it does.
    RowsLimit { rows: usize },
    /// The query API keeps rows back, as a protected table, a row condition or a lost right makes it: status 200, and no row of this
    /// `log_source`; absent: no row at all.
    HideRows {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    },
}

impl What {
    /// Says what is wrong, if this can never happen to the target's requests.
    fn check(&self, on: &Target) -> Result<(), String> {
        let path = matches!(on, Target::Path(_));
        let pages = path || matches!(on, Target::Events | Target::Stream(_));
        if matches!(self, Self::Page(_)) && !pages {
            return Err("page faults strike events, a stream or a path".into());
        }
        if matches!(self, Self::Token(_)) && !path && *on != Target::Identity {
            return Err("token faults strike identity or a path".into());
        }
        if matches!(self, Self::SizeLimit { .. }) && !path && *on != Target::Ingestion {
            return Err("size-limit strikes ingestion or a path".into());
        }
        if matches!(self, Self::RowsLimit { .. }) && !path && *on != Target::Query {
            return Err("rows-limit strikes query or a path".into());
        }
        if matches!(self, Self::HideRows { .. }) && !path && *on != Target::Query {
            return Err("hide-rows strikes query or a path".into());
        }
        if let Self::Status(refusal) | Self::AcceptThenStatus(refusal) = self
            && !(200..=599).contains(&refusal.status)
        {
            return Err(format!("status {} is not in 200 to 599", refusal.status));
        }
        if matches!(self, Self::Drip { bytes: 0, .. }) {
            return Err("drip needs bytes above 0".into());
        }
        if matches!(self, Self::GzipBomb { mib } if *mib > GZIP_BOMB_MIB_MAX) {
            return Err(format!("mib is above {GZIP_BOMB_MIB_MAX}"));
        }
        if matches!(self, Self::WrongDate { days } if days.abs() > WRONG_DAYS_MAX) {
            return Err(format!("days is beyond {WRONG_DAYS_MAX}"));
        }
        if matches!(self, Self::HeaderBomb { bytes } if *bytes > HEADER_BOMB_BYTES_MAX) {
            return Err(format!("bytes is above {HEADER_BOMB_BYTES_MAX}"));
        }
        Ok(())
    }
}

/// An answer other than success; what is absent is filled in the service's own way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Sent in place of the service's own error body: HTML, an empty text, anything. Without a `code` the answer is no word of the
    /// service's own, as from a firewall on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
}

impl Refusal {
    pub const fn status(status: u16) -> Self {
        Self { status, code: None, message: None, text: None, retry_after: None }
    }
}

/// The forms a `Retry-After` header takes in the wild.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RetryAfter {
    Seconds(u64),
    /// An HTTP date so many seconds from now.
    DateIn(i64),
    /// Anything else: huge, negative, garbage.
    Text(String),
}

/// What can be wrong with a page of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum PageFault {
    /// `{}`
    EmptyObject,
    MissingCursor,
    MissingHasMore,
    MissingItems,
    /// `"items": null`, as a nil slice of Go.
    NullItems,
    /// Items, `has_more: true`, and the position as it was: bait for an endless loop.
    SameCursor,
    /// No items, `has_more: true`, and the position as it was.
    SameCursorEmpty,
    /// No items, `has_more: true`, a new cursor for the old position.
    EmptyPage,
    /// `has_more: true` whatever is left.
    MoreForever,
    /// `has_more: false` whatever is left.
    MoreDenied,
    /// So many items, whatever `limit` says.
    Oversized {
        items: usize,
    },
    /// The first item stands in the page twice.
    DuplicateInside,
    /// The page begins with the last items of the page before.
    Overlap {
        items: usize,
    },
    /// The first item comes a second time with the same uuid and another payload.
    ChangedCopy,
    /// Items in reverse order.
    Reversed,
    /// Each item has a field nobody knows.
    UnknownField,
    /// A cursor of so many bytes.
    LongCursor {
        bytes: usize,
    },
}

/// What can be wrong with an Azure token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TokenFault {
    /// It ends so many seconds from now.
    Lifetime { seconds: i64 },
    /// It is for another service than was asked for.
    WrongAudience,
    /// `expires_on` is a number; the real endpoints send a string.
    NumericExpiresOn,
}

/// A list of faults that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    #[error("read the list of faults")]
    Syntax(#[source] serde_json::Error),
    #[error("fault {number}: {why}")]
    Invalid { number: usize, why: String },
}

impl Fault {
    /// Strikes every matching request.
    pub const fn new(on: Target, what: What) -> Self {
        Self { on, body: None, holds: None, from: 1, count: None, probability: None, what }
    }

    #[must_use]
    pub const fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    #[must_use]
    pub const fn from(mut self, from: u64) -> Self {
        self.from = from;
        self
    }

    #[must_use]
    pub const fn only(mut self, body: BodyKind) -> Self {
        self.body = Some(body);
        self
    }

    #[must_use]
    pub fn holding(mut self, text: impl Into<String>) -> Self {
        self.holds = Some(text.into());
        self
    }

    /// Reads and checks a JSON list.
    ///
    /// # Errors
    /// Text that is no list of faults, an unknown name, or a fault that could never strike.
    pub fn parse_list(json: &[u8]) -> Result<Vec<Self>, FaultError> {
        let faults: Vec<Self> = serde_json::from_slice(json).map_err(FaultError::Syntax)?;
        Self::check_all(&faults)?;
        Ok(faults)
    }

    pub(super) fn check_all(faults: &[Self]) -> Result<(), FaultError> {
        let numbered = (1..).zip(faults);
        numbered
            .into_iter()
            .try_for_each(|(number, fault)| fault.check().map_err(|why| FaultError::Invalid { number, why }))
    }

    fn check(&self) -> Result<(), String> {
        if self.from == 0 {
            return Err("from counts from 1".into());
        }
        if self.count == Some(0) {
            return Err("count is 0, so it would never strike".into());
        }
        if let Some(share) = self.probability.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            return Err(format!("probability {share} is not above 0 and up to 1"));
        }
        let pages = matches!(self.on, Target::Events | Target::Stream(_) | Target::Path(_));
        if self.body.is_some() && (!pages || matches!(self.what, What::ResetBeforeBody)) {
            return Err("body picks page requests by their body: not possible here".into());
        }
        if self.holds.as_ref().is_some_and(|text| text.is_empty() || self.strikes_before_body()) {
            return Err("holds needs a text, and a request whose body is read".into());
        }
        self.what.check(&self.on)
    }

    pub(super) const fn strikes_before_body(&self) -> bool {
        matches!(self.what, What::ResetBeforeBody)
    }
}

/// Larger bombs would tell nothing new.
const GZIP_BOMB_MIB_MAX: u64 = 4096;
/// A thousand years.
const WRONG_DAYS_MAX: i64 = 365_250;
/// Larger headers would tell nothing new.
const HEADER_BOMB_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Target {
    pub(super) fn matches(&self, head: &Head) -> bool {
        match self {
            Self::Events => matches!(head.service, Service::Events(Some(_))),
            Self::Stream(stream) => head.service == Service::Events(Some(*stream)),
            Self::Introspect => head.service == Service::Events(None),
            Self::Identity => head.service == Service::Identity,
            Self::Ingestion => head.service == Service::Ingestion,
            Self::Query => head.service == Service::Query,
            Self::Path(start) => head.path.starts_with(start),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "events" => Ok(Self::Events),
            "introspect" => Ok(Self::Introspect),
            "identity" => Ok(Self::Identity),
            "ingestion" => Ok(Self::Ingestion),
            "query" => Ok(Self::Query),
            path if path.starts_with('/') => Ok(Self::Path(text)),
            other => Stream::ALL.into_iter().find(|stream| stream.as_str() == other).map(Self::Stream).ok_or_else(|| {
                format!(
                    "unknown target {other:?}: events, auditevents, itemusages, signinattempts, introspect, identity, \
                     ingestion, query, or a path that starts with a slash"
                )
            }),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Events => "events",
            Self::Stream(stream) => stream.as_str(),
            Self::Introspect => "introspect",
            Self::Identity => "identity",
            Self::Ingestion => "ingestion",
            Self::Query => "query",
            Self::Path(start) => start,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_as_it_is_written() {
        let json = br#"[{"on": "itemusages", "body": "cursor", "from": 3, "count": 2, "what": {"status": {"status": 429,
            "retry_after": {"seconds": 2}}}}, {"on": "/dataCollectionRules", "probability": 0.5, "what": "accept-then-hang"},
            {"on": "events", "what": {"page": {"oversized": {"items": 1500}}}}]"#;
        let faults = Fault::parse_list(json).unwrap();
        assert_eq!(faults.len(), 3);
        assert_eq!(faults[1].what, What::AcceptThenHang);
        let again = Fault::parse_list(&serde_json::to_vec(&faults).unwrap()).unwrap();
        assert_eq!(again, faults);
    }

    #[test]
    fn what_could_never_strike_is_refused() {
        let refused = |json: &str| {
            let error = Fault::parse_list(json.as_bytes()).unwrap_err();
            std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
        };
        assert!(refused(r#"[{"on": "events", "what": "expload"}]"#).contains("unknown variant `expload`"));
        assert!(refused(r#"[{"on": "event", "what": "hang"}]"#).contains("unknown target"));
        assert!(refused(r#"[{"on": "events", "what": "hang", "form": 2}]"#).contains("unknown field `form`"));
        assert!(refused(r#"[{"on": "events", "what": "hang", "count": 0}]"#).contains("fault 1: count is 0"));
        assert!(refused(r#"[{"on": "ingestion", "what": "reset-before-body", "holds": "x"}]"#).contains("holds needs"));
        assert!(refused(r#"[{"on": "events", "what": "hang", "probability": 2}]"#).contains("probability 2"));
        assert!(refused(r#"[{"on": "identity", "what": {"page": "null-items"}}]"#).contains("page faults"));
        assert!(refused(r#"[{"on": "identity", "what": {"status": {"status": 99}}}]"#).contains("status 99"));
        assert!(refused(r#"[{"on": "ingestion", "what": {"hide-rows": {}}}]"#).contains("hide-rows strikes query"));
    }
}
