//! parcel: a batch on its way from its intent to its commit.

use crate::flow::checkpoint::{Advance, BatchKind, Checkpoint};
use crate::flow::map::Stub;
use crate::flow::pack::Batch;
use crate::flow::suspicion::Sample;

/// A batch on its way, and what its arrival means.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub batch: Batch,
    pub kind: BatchKind,
    pub advance: Option<Advance>,
    /// 1 unless an earlier POST of the same rows is in doubt.
    pub attempt: u32,
    /// Set where the row is a stub for one that was refused.
    pub stub: Option<Stub>,
    /// A part of a body that was refused while another was accepted.
    pub is_suspect: bool,
    /// A part of a batch in doubt: it ships under that batch's intent, which stays until the last part is recorded. A new intent for
    /// this part alone would forget that the others may be in the table already.
    pub is_part_in_doubt: bool,
    /// More parts of the batch in doubt follow.
    pub has_next_part: bool,
}

impl Parcel {
    pub(super) fn new(batch: Batch, kind: BatchKind, advance: Option<Advance>) -> Self {
        let (is_suspect, is_part_in_doubt, has_next_part) = (false, false, false);
        let (attempt, stub) = (1, None);
        Self { batch, kind, advance, attempt, stub, is_suspect, is_part_in_doubt, has_next_part }
    }

    /// What it is to a destination that refuses it.
    pub(super) fn sample(&self) -> Sample {
        match (self.stub, self.batch.rows.len()) {
            (Some(_), _) => Sample::Stub,
            (None, ..=1) => Sample::Alone,
            (None, _) if self.is_suspect => Sample::RowsOfARefusedBody,
            (None, _) => Sample::Rows,
        }
    }

    /// A POST of it may have been accepted without our knowing.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.attempt > 1
    }
}

/// The open intent gives way without a POST that could have arrived: the doubt that was written down for it was none.
pub(super) fn withdraw_unposted(cp: &mut Checkpoint) {
    if let Some(intent) = &cp.intent {
        cp.in_doubt.withdraw(&intent.batch_id);
    }
}
