//! What was counted, and which batches are in doubt: the part of a checkpoint that only people read.

use super::Time;
use super::checkpoint::Unknown;
use serde::{Deserialize, Serialize};

/// Doubts remembered one by one; older ones stay in the counters.
const DOUBTS_KEPT: usize = 10;

/// Batches that may stand in the table twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InDoubt {
    pub batches: u64,
    pub rows: u64,
    /// Events of such batches that the source no longer returned.
    pub gone: u64,
    pub last: Vec<Doubt>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// One batch whose POST may have been accepted without our knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    pub batch_id: String,
    pub rows: u64,
    /// The attempt that followed the doubt.
    pub attempt: u32,
    pub why: String,
    pub at: Time,
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl InDoubt {
    /// Takes back the last doubt: its batch was not posted after all.
    pub fn withdraw(&mut self, batch_id: &str) {
        if let Some(doubt) = self.last.pop_if(|doubt| doubt.batch_id == batch_id) {
            self.batches = self.batches.saturating_sub(1);
            self.rows = self.rows.saturating_sub(doubt.rows);
        }
    }

    pub fn add(&mut self, doubt: Doubt) {
        self.batches += 1;
        self.rows += doubt.rows;
        self.last.push(doubt);
        let over = self.last.len().saturating_sub(DOUBTS_KEPT);
        self.last.drain(..over);
    }
}

/// Counters that came later are left out while they count nothing: documents stay as they were.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_none(count: &u64) -> bool {
    *count == 0
}

macro_rules! totals {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What was counted since the checkpoint was created. At each commit: read = shipped + known + repeated + filtered.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
            #[serde(flatten)]
            pub unknown: Unknown,
        }

        impl Totals {
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

totals! {
    /// Items in pages whose outcome is settled.
    read,
    /// Rows accepted by the sink.
    shipped,
    /// Items that the ledger knew.
    known,
    /// Items that stood twice in one page.
    repeated,
    /// Repeated items whose content differed.
    conflicts,
    /// New items whose uuid stood under another hour too, as far as that could be seen without another read.
    #[serde(skip_serializing_if = "is_none")]
    moved,
    /// Shipped rows that a bare 5-minute window would have missed.
    late,
    /// Items dropped by `filter.drop_audit_actions`.
    filtered,
    /// Values dropped or pseudonymised by `filter.redact`.
    redacted,
    /// Fields cut to 64 KB.
    cut,
    /// Values their column could not hold.
    mistyped,
    /// Top-level fields that have no column.
    unknown_fields,
    /// Items without a uuid, without a readable timestamp, or that are no objects.
    malformed,
    /// Items too large for any POST, shipped as a stub.
    stubs,
    /// Originals kept as dead letters.
    dead_letters,
    pages,
    batches,
    cursor_resets,
    cursor_repeats,
    splits,
}
