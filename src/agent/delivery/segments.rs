//! segments: that the ledger takes appends is proven before a POST that it alone would tell of, what is missing of it is told, and what nothing
//! can ask for any more is retired.

use super::Delivery;
use crate::agent::position::{STOP_COMMIT, Stand, until_stopped};
use crate::agent::trouble::{Trouble, chain};
use crate::flow::EventKey;
use crate::flow::checkpoint::LedgerSize;
use crate::flow::intent::Known;
use crate::store::checkpoints::Found;
use crate::store::ledger::{Ledger, Stock};
use std::collections::HashMap;
use std::sync::Arc;

/// A torn tail that is cut may take so much with it without an id being lost: one byte less than a frame with an id.
const TORN_BYTES_MAX: u64 = 43;
const ID_BYTES: u64 = 16;
/// Why rows are in doubt that stood in a segment which is gone.
pub(crate) const MISSING: &str = "segments of the ledger are missing";

impl Delivery {
    /// Brings the segments of these keys into memory, and says so when some of the ledger is missing.
    pub(crate) async fn load_ledger(
        &mut self,
        stand: &mut Stand,
        keys: impl Iterator<Item = EventKey>,
    ) -> Result<(), Trouble> {
        self.ledger.load(keys).await?;
        self.notice_missing_segments(stand).await
    }

    /// Before a recovery posts: what it posts can be recorded.
    pub(crate) async fn prove_ledger(
        &mut self,
        batch_id: [u8; 16],
        attempt: u32,
        keys: &[EventKey],
    ) -> Result<(), Trouble> {
        let proof = self.ledger.prepare(batch_id, attempt, keys);
        until_stopped(&self.given.stop, STOP_COMMIT, proof).await.unwrap_or(Err(Trouble::Stopped))
    }

    /// Before the first intent of this process: what it posts can be recorded. Nothing is open yet that a refusal would leave behind.
    pub(crate) async fn prove_ledger_once(&mut self, keys: &[EventKey]) -> Result<(), Trouble> {
        let proof = self.ledger.prepare_first(keys);
        until_stopped(&self.given.stop, STOP_COMMIT, proof).await.unwrap_or(Err(Trouble::Stopped))
    }

    /// A listing that shows less than the checkpoint says: what is missing is told once, and counted as in doubt.
    async fn notice_missing_segments(&mut self, stand: &mut Stand) -> Result<(), Trouble> {
        let (Some(stock), Some(position)) = (self.ledger.unchecked_stock(), &stand.position) else { return Ok(()) };
        if let Some(size) = position.cp.ledger.clone().filter(|size| is_less(stock, size)) {
            // Another process may have retired them since our position was read.
            match stand.checkpoints.load(&self.given.id).await? {
                Found::Good(loaded) if loaded.version == position.version => self.tell_missing(stand, stock, &size)?,
                Found::Good(_) | Found::Nothing { .. } | Found::Replaced { .. } => return Err(Trouble::Lost),
            }
        }
        self.ledger.is_checked();
        Ok(())
    }

    fn tell_missing(&mut self, stand: &mut Stand, stock: Stock, size: &LedgerSize) -> Result<(), Trouble> {
        let bytes = size.bytes.saturating_sub(stock.bytes);
        let (segments, rows) = (size.segments.saturating_sub(stock.segments), bytes / ID_BYTES);
        let remedy = "find out who deletes or empties blobs or files under ledger/ (a clean-up rule, a person); restore them while opship stands still, or expect duplicates";
        tracing::error!(feed = %self.given.id, segments, bytes, rows, remedy,
            "a part of the ledger is gone: what it told of is shipped again when it is read again, and such copies are in no frame");
        let at = self.given.date();
        let cp = &mut stand.position()?.cp;
        cp.slot.lose_track(rows, MISSING, at);
        cp.set_ledger(stock.segments, stock.bytes);
        Ok(())
    }

    /// Deletes the ledger's segments that nothing can ask for any more, after the checkpoint has said what is left: in the other order
    /// a crash in between would look like a loss. Returns how many.
    pub(crate) async fn retire_segments(&mut self, stand: &mut Stand) -> Result<usize, Trouble> {
        let retiring = self.ledger.retiring(self.given.clocks().earlier(), self.given.settings.ledger_keep).await?;
        self.notice_missing_segments(stand).await?;
        if retiring.is_empty() {
            return Ok(0);
        }
        let Stock { segments, bytes } = retiring.left;
        stand.position()?.cp.set_ledger(segments, bytes);
        stand.save_as_it_is(&mut self.ledger).await?;
        self.ledger.delete(&retiring).await.map_err(Trouble::from)
    }

    /// Housekeeping at the pace of the late sweep: ledger segments and dead letters that nothing can ask for any more.
    pub(crate) async fn retire(&mut self, stand: &mut Stand) {
        let retired = self.retire_segments(stand).await;
        let letters = self.dead_letters.retire(&self.given.id).await;
        match (retired, letters) {
            (Ok(0), Ok(0)) => {}
            (Ok(segments), Ok(letters)) => tracing::info!(feed = %self.given.id, segments, letters, "retired"),
            (Err(trouble), _) => {
                tracing::warn!(feed = %self.given.id, error = %chain(&trouble), "old ledger segments were not retired");
            }
            (_, Err(error)) => {
                tracing::warn!(feed = %self.given.id, error = %chain(&error), "old dead letters were not retired");
            }
        }
    }

    /// What the ledger knows of these, for a batch that ships them all the same.
    pub(crate) fn known_by_ledger(&self, keys: impl Iterator<Item = EventKey>, why: &str) -> Option<Arc<Known>> {
        let attempts: HashMap<_, _> = keys.filter_map(|key| Some((key, self.ledger.attempt(&key)?))).collect();
        (!attempts.is_empty()).then(|| Arc::new(Known { attempts, why: why.to_owned() }))
    }
}

impl Stand {
    /// Before a write of the checkpoint: how much of the ledger there is, as far as that is known and was compared.
    pub(crate) fn note_ledger(&mut self, ledger: &Ledger) {
        if let (Some(Stock { segments, bytes }), Some(position)) = (ledger.checked_stock(), &mut self.position) {
            position.cp.set_ledger(segments, bytes);
        }
    }
}

fn is_less(stock: Stock, size: &LedgerSize) -> bool {
    stock.segments < size.segments || stock.bytes.saturating_add(TORN_BYTES_MAX) < size.bytes
}
