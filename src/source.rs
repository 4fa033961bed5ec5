//! Where events come from: the contract that every source keeps. One file per source.

use crate::flow::identity::TokenHash;
use crate::flow::{Cursor, Stream, Time, retry::Failure};
use async_trait::async_trait;
use bytes::Bytes;

pub mod budget;
pub mod events_api;
pub mod token;

/// One request for a page of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageRequest {
    /// Start a stream at `start`, open-ended; the answer's cursor carries the rest.
    Reset { start: Time, limit: u32 },
    /// Re-read the events whose own timestamp lies in `[from, to]`.
    Window { from: Time, to: Time, limit: u32 },
    /// Go on from a cursor. Nothing but the cursor is sent: limit and window travel inside it.
    Continue(Cursor),
}

/// A page up to this length is one of many in memory; of larger ones there is one at a time in the whole process.
pub const PAGE_BYTES_SMALL: usize = crate::http::SMALL_BYTES;

/// Whose share of the request budget a request uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The live feed: cursor, overlap sweep, recovery.
    Live,
    /// The live feed's next page, asked for while another is in hand: it takes no room that somebody else has.
    Ahead,
    /// The late sweep: at most a quarter of the budget.
    Late,
    /// A command's own reading (backfill, audit): at most half of the budget.
    Backfill,
}

/// Requests that may be sent now without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLeft {
    pub minute: u32,
    pub hour: u32,
}

/// An answer of the source: the undecoded body, and the source's own clock.
#[derive(Clone, Debug)]
pub struct Answer {
    pub body: Bytes,
    /// The `Date` header: the only wall clock that the flow believes.
    pub date: Time,
}

/// Who the token belongs to and what it may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// Absent before API 1.4.1 unless the token's claims name it.
    pub account_uuid: Option<String>,
    /// Of the token that was introduced: it stands for an account that nothing names.
    pub token: TokenHash,
    pub features: Features,
    /// When the token expires, from its claims, where it says so.
    pub expires: Option<Time>,
    /// Of the answer, be it a failed one; none when nothing was answered.
    pub date: Option<Time>,
}

/// Streams a token may read, as the API names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Features {
    /// By the service.
    Said(Vec<String>),
    /// By the token, of which nobody has verified a word: the service decides with each page.
    Claimed(Vec<String>),
}

impl Features {
    /// False only where the service itself says that it may not.
    pub fn may_read(&self, stream: Stream) -> bool {
        match self {
            Self::Said(features) => features.iter().any(|feature| feature == stream.as_str()),
            Self::Claimed(_) => true,
        }
    }

    pub const fn are_claimed(&self) -> bool {
        matches!(self, Self::Claimed(_))
    }
}

/// A request to the source that brought no usable answer.
#[derive(Debug, thiserror::Error)]
#[error("{attempted} at {on}: {failure}")]
pub struct SourceError {
    /// What was attempted, such as "read a page of auditevents".
    pub attempted: String,
    /// On what: the URL without query, never a secret.
    pub on: String,
    pub failure: Failure,
    /// The `Date` of a failed answer, where there was one.
    pub date: Option<Time>,
    /// What the operator should do about a secret, where its place tells.
    pub remedy: Option<String>,
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A paged event source.
///
/// One call is one attempt, bounded by a deadline (60 s) and a body cap (64 MiB); pacing to the request budget happens inside and
/// may take longer than the deadline. Retries are the caller's. Dropping a call is safe: reading changes nothing at the source.
#[async_trait]
pub trait Source: Send + Sync {
    /// Who am I, what may I read, what time is it.
    async fn introspect(&self) -> Result<Introspection, SourceError>;

    /// What the token says of itself; nothing is sent. For when the service does not say it.
    async fn claims(&self) -> Result<Introspection, SourceError>;

    /// One page. `Ok` means a 200 whose body was read to its end; it may still fail to decode.
    async fn page(&self, stream: Stream, request: &PageRequest, lane: Lane) -> Result<Answer, SourceError>;

    /// True while a [`Lane::Late`] request would have to wait for its share of the budget.
    fn late_lane_is_spent(&self) -> bool;

    /// What the request budget still allows at this moment; none for a source without one.
    fn budget_left(&self) -> Option<BudgetLeft> {
        None
    }

    /// Which 1Password service this is (scheme, host and port), for the checkpoint's fingerprint.
    fn place(&self) -> String;
}
