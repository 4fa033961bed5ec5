//! The status of a process as one document: what `/status.json` serves, the page shows and `opship status` prints. No event content, no
//! personal data, no secret.

use crate::flow::Time;
use serde::{Deserialize, Serialize};

/// The whole document. Times are RFC 3339 in UTC, durations seconds. A time of the process' own past is such that `now` minus it is its age,
/// whatever was done to the host's clock meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `agent`: told by a running process; `store`: put together from its checkpoints.
    pub from: Origin,
    pub version: String,
    pub now: Time,
    /// When the process started; none when told by the store.
    pub started: Option<Time>,
    /// Every feed is well.
    pub ready: bool,
    /// One sentence: the worst that is the matter, or that all is well.
    pub summary: String,
    pub feeds: Vec<FeedStatus>,
    /// `opship config show` as it is printed, secrets hidden; absent from the store's.
    pub config: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Agent,
    Store,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Shipping, or nothing to ship.
    Good,
    /// Not yet one complete tick.
    Starting,
    /// More to ship than one tick takes: the next follows at once.
    CatchingUp,
    /// Another process ships this feed.
    Standby,
    /// Tries again by itself.
    Waiting,
    /// Needs a person.
    Broken,
    Stopped,
    /// Told by the store: nothing was written for long.
    Silent,
}

/// One feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedStatus {
    pub account: String,
    pub stream: String,
    pub health: Health,
    pub since: Option<Time>,
    /// What it waits for and why, with the remedy; none when all is well.
    pub reason: Option<String>,
    pub remedy: Option<String>,
    pub last_good: Option<Time>,
    pub next_tick: Option<Time>,
    /// Seconds for which the table may lack events: since the source was last asked in a complete tick, by the monotonic clock.
    pub lag_seconds: Option<u64>,
    pub newest_shipped: Option<Time>,
    pub pages: u64,
    /// Rows shipped since the checkpoint was created; late: those that a bare five-minute window would have missed.
    pub rows: u64,
    pub late: u64,
    pub in_doubt_batches: u64,
    pub in_doubt_rows: u64,
    /// Events of batches in doubt that the source no longer returned.
    pub in_doubt_gone: u64,
    pub last_doubts: Vec<DoubtStatus>,
    /// Those that wait in the store.
    pub dead_letters: u64,
    pub open_intent: Option<IntentStatus>,
    pub token_expires: Option<Time>,
    pub checkpoint_written: Option<Time>,
    /// The latest troubles, the newest first.
    pub errors: Vec<ErrorStatus>,
    /// The last hours by the minute, the oldest first; empty when told by the store.
    pub minutes: Vec<MinuteStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoubtStatus {
    pub batch_id: String,
    pub rows: u64,
    pub attempt: u32,
    pub why: String,
    pub at: Time,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntentStatus {
    pub batch_id: String,
    pub kind: String,
    pub rows: u64,
    pub attempt: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorStatus {
    pub at: Time,
    pub times: u64,
    pub what: String,
    pub waiting_for: String,
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteStatus {
    /// The minute's begin, seconds since 1970.
    pub at: i64,
    pub rows: u64,
    pub lag_seconds: Option<u64>,
}
