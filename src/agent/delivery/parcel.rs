//! parcel: a batch, or a part of one, on its way from its intent to its commit.

use crate::flow::checkpoint::Advance;
use crate::flow::intent::{BatchKind, Known};
use crate::flow::map::Stub;
use crate::flow::pack::Batch;
use crate::flow::suspicion::Sample;
use std::sync::Arc;

/// Rows on their way, and what their arrival means. Attempts and doubts are the slot's.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub batch: Batch,
    pub kind: BatchKind,
    pub advance: Option<Advance>,
    /// The ledger knows some of these, they are shipped all the same.
    pub known: Option<Arc<Known>>,
    /// Set where the row is a stub for one that was refused.
    pub stub: Option<Stub>,
    /// A part of a body that was refused while another was accepted.
    pub is_suspect: bool,
}

impl Parcel {
    pub(crate) fn new(batch: Batch, kind: BatchKind, advance: Option<Advance>) -> Self {
        Self { batch, kind, advance, known: None, stub: None, is_suspect: false }
    }

    pub(crate) fn knowing(self, known: Option<Arc<Known>>) -> Self {
        Self { known, ..self }
    }

    /// What it is to a destination that refuses it.
    pub(crate) fn sample(&self) -> Sample {
        match (self.stub, self.batch.rows.len()) {
            (Some(_), _) => Sample::Stub,
            (None, ..=1) => Sample::Alone,
            (None, _) if self.is_suspect => Sample::RowsOfARefusedBody,
            (None, _) => Sample::Rows,
        }
    }
}
