//! What a simulated world is to be like.

use super::fault::{Fault, RetryAfter};
use crate::flow::Time;
use chrono::TimeDelta;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The order in which a cursor walks through a stream. The real service does not document its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By insertion: late events come behind the cursor's position, so it sees them.
    #[default]
    Insert,
    /// By event time and uuid: a cursor that has passed never sees late events.
    EventTime,
}

/// The shape of an error answer of the Events API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorStyle {
    /// That of the version in the path.
    #[default]
    OfPath,
    V1,
}

/// What other keys beside a cursor mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherKeys {
    #[default]
    Ignored,
    Refused,
}

/// Behaviours of the Events API that are not documented: an agent must be right either way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    pub error_style: ErrorStyle,
    pub other_keys: OtherKeys,
    /// An event exactly at `end_time` is left out.
    pub end_is_excluded: bool,
    /// A page without items says `"items": null`.
    pub null_when_empty: bool,
}

/// A simulated world. The default is a quiet one on a free loopback port, without history.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: SocketAddr,
    pub seed: u64,
    pub tls: bool,
    pub order: Order,
    /// Events that exist at the start, over all streams.
    pub history: usize,
    /// How far back they reach.
    pub history_span: Duration,
    /// When history ends; default: now. To keep events the same over a restart it must be set.
    pub history_end: Option<Time>,
    /// Live events in a second, over all streams; 0 for none.
    pub live_per_second: f64,
    /// Share of the events, of history too, that become visible late.
    pub late_share: f64,
    /// How late at most.
    pub late_max: Duration,
    /// The ingestion endpoint takes 1 MiB of uncompressed rows at most; otherwise only the body as sent counts.
    pub strict_uncompressed: bool,
    /// Every accepted row is appended to this file, one JSON object a line.
    pub rows_out: Option<PathBuf>,
    /// Keep accepted rows in memory; their ids are always kept.
    pub keep_rows: bool,
    /// Share of the accepted event rows that the workspace never shows: lost after the 204.
    pub drop_share: f64,
    /// How long after its 204 a row becomes visible to queries.
    pub ingestion_latency: Duration,
    pub faults: Vec<Fault>,
    /// Enforce 600 requests a minute and 30,000 an hour on the Events API, 12,000 a minute on the rule, and
    /// 200 in 30 seconds on the query API.
    pub rate_limits: bool,
    /// What the Events API says to those over the limit; nothing is documented.
    pub rate_limit_retry_after: Option<RetryAfter>,
    /// The simulator's clock against the real one.
    pub clock_offset: TimeDelta,
    /// Cursors older than this are refused; default: they never expire.
    pub cursor_lifetime: Option<Duration>,
    /// How long the events token is good, from the start; default: for ever.
    pub token_lifetime: Option<Duration>,
    pub azure_token_lifetime: Duration,
    pub quirks: Quirks,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 1,
            tls: false,
            order: Order::default(),
            history: 0,
            history_span: Duration::from_secs(7 * 24 * 3600),
            history_end: None,
            live_per_second: 0.0,
            late_share: 0.0,
            late_max: Duration::from_secs(3600),
            strict_uncompressed: false,
            rows_out: None,
            keep_rows: false,
            drop_share: 0.0,
            ingestion_latency: Duration::ZERO,
            faults: Vec::new(),
            rate_limits: true,
            rate_limit_retry_after: None,
            clock_offset: TimeDelta::zero(),
            cursor_lifetime: None,
            token_lifetime: None,
            azure_token_lifetime: Duration::from_secs(24 * 3600),
            quirks: Quirks::default(),
        }
    }
}
