//! The checkpoint document of a feed: position, marks, the open intent and what was counted. No event content, no personal data.

pub use super::totals::Totals;

use super::envelope::{Kind, Opened};
use super::identity::TokenHash;
use super::intent::Slot;
use super::map::sha256_hex;
use super::planted::{self, Bug};
use super::{AccountName, Cursor, FeedId, Stream, Time};
use serde::{Deserialize, Serialize};

/// The format this program writes, and the oldest program that may read it.
const KIND: Kind = Kind { format: "opship-checkpoint", version: 1, min_reader: 1 };
/// Fields of newer versions survive a round trip, at every level.
pub type Unknown = serde_json::Map<String, serde_json::Value>;

/// What is known of a feed's position. Times are the source's, never the local clock's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub account: AccountName,
    pub stream: Stream,
    /// Where the events come from and where they go: a checkpoint is of use only there.
    pub fingerprints: Fingerprints,
    /// The batch under way, and what was counted of batches: `seq`, `intent`, `in_doubt`.
    #[serde(flatten)]
    pub slot: Slot,
    /// Unique to each write: tells a write of our own whose reply was lost from another process's.
    pub write_id: String,
    pub written_at: Time,
    /// No re-read starts before it.
    pub floor: Time,
    pub cursor: Option<Cursor>,
    /// The Date of the reset that bore the cursor, until the cursor drains for the first time.
    pub cursor_born: Option<Time>,
    /// Ticks in a row that ended with a repeated cursor.
    #[serde(default)]
    pub stuck_ticks: u32,
    /// Latest event timestamp read, at most Date: the ceiling of the marks, never a position.
    pub watermark: Time,
    /// Everything up to here was re-read by a completed overlap sweep.
    pub sweep_mark: Time,
    /// Everything up to here was re-read by a completed late sweep.
    pub late_mark: Time,
    /// When the last late sweep was completed.
    pub late_at: Time,
    pub overlap_sweep: Option<SweepProgress>,
    pub late_sweep: Option<SweepProgress>,
    #[serde(default)]
    pub totals: Totals,
    /// How much of the ledger there must be: less of it later was lost. None: not known yet, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerSize>,
    /// While the source's clock is ahead of the host's: where the marks stood before it was. Should it be the source's that is wrong, what
    /// lies behind the other marks was perhaps not there yet when it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sure: Option<SureMarks>,
    /// Fields of newer versions survive a round trip.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Marks that were set while both clocks told the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SureMarks {
    pub sweep_mark: Time,
    pub late_mark: Time,
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The segments that have something in them, and their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSize {
    pub segments: u64,
    pub bytes: u64,
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Hashes of where events come from and go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprints {
    /// Of the 1Password service's address.
    pub source: String,
    /// Of the account's uuid; absent until the API or the token names it.
    pub account: Option<String>,
    /// Of the token, as long as nothing names the account: it tells whose position this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Of rule and stream, or of the file.
    pub sink: String,
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Fingerprints {
    pub fn new(source: &str, account_uuid: Option<&str>, sink: &str) -> Self {
        let short = |text: &str| sha256_hex(text.as_bytes()).chars().take(16).collect();
        let (source, account, sink) = (short(source), account_uuid.map(short), short(sink));
        Self { source, account, token: None, sink, unknown: Unknown::new() }
    }

    /// The same, told by the token where nothing names the account.
    pub fn told_by(mut self, token: &TokenHash) -> Self {
        self.token = self.account.is_none().then(|| token.fingerprint());
        self
    }

    /// Whether a checkpoint with these may be used where `now` holds. An account that was not named then or is not named now fits.
    pub fn fits(&self, now: &Self) -> bool {
        let account_fits = match (&self.account, &now.account) {
            (Some(then), Some(now)) => then == now,
            (None, _) | (_, None) => true,
        };
        self.source == now.source && self.sink == now.sink && account_fits
    }
}

impl std::fmt::Display for Fingerprints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "source {}, account {}, sink {}",
            self.source,
            self.account.as_deref().unwrap_or("unknown"),
            self.sink
        )
    }
}

/// Which of the two sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    Overlap,
    Late,
}

/// A sweep under way: its window stands still, so that it can be resumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepProgress {
    pub from: Time,
    pub to: Time,
    /// None: the window has not been asked for yet, or its cursor was rejected.
    pub cursor: Option<Cursor>,
    pub watermark_at_start: Time,
    pub date_at_start: Time,
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// How far the position moves when a batch, or a page without new rows, is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "kebab-case")]
pub enum Advance {
    Cursor {
        cursor: Cursor,
        /// The Date of the reset that bore this cursor, while it has not drained.
        born: Option<Time>,
        /// The source has no more for now.
        drained: bool,
        #[serde(flatten)]
        unknown: Unknown,
    },
    Sweep {
        which: Which,
        cursor: Cursor,
        /// The Date of its last page: the sweep is complete.
        done: Option<Time>,
        #[serde(flatten)]
        unknown: Unknown,
    },
}

/// What a stored document turned out to be.
#[derive(Debug)]
pub enum Decoded {
    Good(Box<Checkpoint>),
    /// Torn, changed, empty or not ours; why.
    Corrupt(String),
    /// Written by a program whose format this one must not touch.
    TooNew {
        writer: String,
        min_reader: u32,
    },
}

impl Checkpoint {
    pub fn feed(&self) -> FeedId {
        FeedId { account: self.account.clone(), stream: self.stream }
    }

    /// Writes down how much of the ledger there is.
    pub fn set_ledger(&mut self, segments: u64, bytes: u64) {
        let size = self.ledger.take().unwrap_or_default();
        self.ledger = (segments > 0).then_some(LedgerSize { segments, bytes, ..size });
    }

    /// The document as stored: an envelope with a checksum over everything else in it.
    ///
    /// # Errors
    /// Never for a checkpoint built by this program; JSON cannot hold it.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        KIND.seal(self)
    }

    pub fn decode(bytes: &[u8]) -> Decoded {
        match KIND.open(bytes) {
            Opened::Body(body) => match serde_json::from_str(body) {
                Ok(checkpoint) => Decoded::Good(Box::new(checkpoint)),
                Err(error) => Decoded::Corrupt(format!("its body cannot be read: {error}")),
            },
            Opened::Corrupt(why) => Decoded::Corrupt(why),
            Opened::TooNew { writer, min_reader } => Decoded::TooNew { writer, min_reader },
        }
    }

    /// Takes a new reading of the source into account; a client with a wrong clock must not carry the watermark into the future.
    pub fn raise_watermark(&mut self, latest: Option<Time>, date: Time) {
        if let Some(latest) = latest {
            let latest = if planted::is(Bug::BelieveTheFuture) { latest } else { latest.min(date) };
            self.watermark = self.watermark.max(latest);
        }
    }

    /// Keeps where the marks stand, unless that is kept from before: those that follow are not sure.
    pub fn keep_sure_marks(&mut self) {
        let (sweep_mark, late_mark) = (self.sweep_mark, self.late_mark);
        self.sure.get_or_insert_with(|| SureMarks { sweep_mark, late_mark, unknown: Unknown::new() });
    }

    /// Takes the marks back, at most to those given, with everything that would lift them when it is done: sweeps under way, a cursor
    /// that has not drained, an open intent. They go on, and move no mark by what they began with.
    pub fn take_marks_back(&mut self, sweep_mark: Time, late_mark: Time) {
        self.sweep_mark = self.sweep_mark.min(sweep_mark);
        self.late_mark = self.late_mark.min(late_mark);
        for (sweep, mark) in [(&mut self.overlap_sweep, sweep_mark), (&mut self.late_sweep, late_mark)] {
            sweep.iter_mut().for_each(|sweep| sweep.watermark_at_start = sweep.watermark_at_start.min(mark));
        }
        self.cursor_born = None;
        self.slot.forget_birth();
    }

    /// Moves the position. It moves no mark back.
    pub fn apply(&mut self, advance: Advance) {
        match advance {
            Advance::Cursor { cursor, born, drained, .. } => {
                if let (true, Some(born)) = (drained, born) {
                    self.sweep_mark = self.sweep_mark.max(self.watermark.min(born));
                }
                self.cursor = Some(cursor);
                self.cursor_born = if drained { None } else { born };
            }
            Advance::Sweep { which, cursor, done, .. } => {
                let progress = match which {
                    Which::Overlap => &mut self.overlap_sweep,
                    Which::Late => &mut self.late_sweep,
                };
                let Some(done) = done.or_else(|| planted::is(Bug::MarkBeforeLastPage).then_some(self.written_at))
                else {
                    if let Some(progress) = progress {
                        progress.cursor = Some(cursor);
                    }
                    return;
                };
                let Some(done_sweep) = progress.take() else { return };
                let clamp = if planted::is(Bug::BelieveTheFuture) { Time::MAX_UTC } else { done_sweep.date_at_start };
                let mark = done_sweep.watermark_at_start.min(clamp);
                match which {
                    Which::Overlap => self.sweep_mark = self.sweep_mark.max(mark),
                    Which::Late => {
                        self.late_mark = self.late_mark.max(mark);
                        self.late_at = done;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "checkpoint_damage_tests.rs"]
mod damage;
