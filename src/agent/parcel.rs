//! parcel: a batch on its way from its intent to its commit.

use super::again::Known;
use crate::flow::Time;
use crate::flow::checkpoint::{Advance, BatchKind, Checkpoint, Doubt, Unknown};
use crate::flow::map::Stub;
use crate::flow::pack::Batch;
use crate::flow::suspicion::Sample;
use std::sync::Arc;

/// A batch on its way, and what its arrival means.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub batch: Batch,
    pub kind: BatchKind,
    pub advance: Option<Advance>,
    /// 1 unless an earlier POST of the same rows is in doubt, or the ledger knows some of them.
    pub attempt: u32,
    /// The attempt before the first POST: a higher one tells that a POST is in doubt.
    pub first_attempt: u32,
    /// The ledger knows these, they are shipped all the same.
    pub known: Option<Arc<Known>>,
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
    pub fn new(batch: Batch, kind: BatchKind, advance: Option<Advance>) -> Self {
        let (is_suspect, is_part_in_doubt, has_next_part) = (false, false, false);
        let (attempt, first_attempt, known, stub) = (1, 1, None, None);
        Self { batch, kind, advance, attempt, first_attempt, known, stub, is_suspect, is_part_in_doubt, has_next_part }
    }

    /// Above every attempt under which one of its rows was accepted before.
    pub fn knowing(mut self, known: Option<&Arc<Known>>) -> Self {
        let Some(known) = known else { return self };
        let highest = self.batch.rows.iter().filter_map(|row| known.attempts.get(&row.key)).max();
        self.first_attempt = highest.map_or(1, |highest| highest.saturating_add(1));
        (self.attempt, self.known) = (self.first_attempt, Some(known.clone()));
        self
    }

    /// What it is to a destination that refuses it.
    pub fn sample(&self) -> Sample {
        match (self.stub, self.batch.rows.len()) {
            (Some(_), _) => Sample::Stub,
            (None, ..=1) => Sample::Alone,
            (None, _) if self.is_suspect => Sample::RowsOfARefusedBody,
            (None, _) => Sample::Rows,
        }
    }

    /// A POST of it may have been accepted without our knowing.
    pub fn is_in_doubt(&self) -> bool {
        self.attempt > self.first_attempt
    }

    /// What is written down before the first POST of rows that the ledger knows.
    pub fn doubt_of_known(&self, batch_id: &str, at: Time) -> Option<Doubt> {
        let known = self.known.as_ref()?;
        let rows = self.batch.rows.iter().filter(|row| known.attempts.contains_key(&row.key)).count() as u64;
        let (batch_id, attempt, why) = (batch_id.to_owned(), self.attempt, known.why.clone());
        (rows > 0).then(|| Doubt { batch_id, rows, attempt, why, at, unknown: Unknown::new() })
    }
}

/// The open intent gives way without a POST that could have arrived: the doubt that was written down for it was none.
pub(super) fn withdraw_unposted(cp: &mut Checkpoint) {
    if let Some(intent) = &cp.intent {
        cp.in_doubt.withdraw(&intent.batch_id);
    }
}
