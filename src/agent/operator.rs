//! What an operator may do to a feed's position, by the same compare-and-swap as the feed itself.

use super::Feed;
use super::trouble::Trouble;
use crate::flow::checkpoint::{Checkpoint, Doubt, Unknown};
use crate::store::checkpoints::Found;

impl Feed {
    /// Starts the position again at the lookback. The ledger and an open intent stay, so that nothing is shipped twice without a trace;
    /// with `reship` both go.
    ///
    /// # Errors
    /// Another process holds the open intent, or wrote first.
    pub async fn reset(&mut self, reship: bool) -> Result<Checkpoint, Trouble> {
        let fingerprints = self.introduce().await?;
        let mut fresh = self.first(&fingerprints)?;
        let version = match self.checkpoints.load(&self.id).await? {
            Found::Nothing { .. } => None,
            Found::Replaced { version, .. } => Some(version),
            Found::Good(loaded) => {
                if let Some(left) = self.checkpoints.held_by_other(&loaded).await? {
                    return Err(Trouble::Standby { left });
                }
                let old = loaded.checkpoint;
                (fresh.seq, fresh.totals, fresh.in_doubt) = (old.seq, old.totals, old.in_doubt);
                if !reship {
                    fresh.ledger = old.ledger;
                    // Recovered as ever, but it moves nothing: the position is another one now.
                    fresh.intent = old.intent;
                    fresh.intent.iter_mut().for_each(|intent| intent.advance = None);
                } else if let Some(intent) = old.intent {
                    let (rows, attempt) = (intent.keys().len() as u64, intent.attempt);
                    let why = "the checkpoint was reset over an open intent".into();
                    fresh.in_doubt.add(Doubt {
                        batch_id: intent.batch_id,
                        rows,
                        attempt,
                        why,
                        at: self.date,
                        unknown: Unknown::new(),
                    });
                }
                Some(loaded.version)
            }
        };
        self.own(&fresh.fingerprints).await?;
        self.checkpoints.save(&mut fresh, version.as_ref(), self.date).await?;
        self.let_go_of_others(&fresh.fingerprints).await?;
        if reship {
            self.ledger.retire_all().await?;
        }
        Ok(fresh)
    }

    /// Accepts knowingly that account or destination have changed: the position goes on under the present fingerprints. A new
    /// destination has a ledger of its own and gets what lies ahead of the position.
    ///
    /// # Errors
    /// There is no readable checkpoint, another process holds the open intent, or wrote first.
    pub async fn adopt_here(&mut self) -> Result<Checkpoint, Trouble> {
        let fingerprints = self.introduce().await?;
        let Found::Good(loaded) = self.checkpoints.load(&self.id).await? else {
            let what = format!("there is no readable checkpoint of {} to adopt", self.id);
            return Err(Trouble::Halted { what, remedy: "start the agent: it begins at the lookback".into() });
        };
        if let Some(left) = self.checkpoints.held_by_other(&loaded).await? {
            return Err(Trouble::Standby { left });
        }
        let mut cp = loaded.checkpoint;
        if cp.fingerprints.sink != fingerprints.sink {
            // Another destination has a ledger of its own.
            cp.ledger = None;
        }
        cp.fingerprints = fingerprints;
        self.own(&cp.fingerprints).await?;
        self.checkpoints.save(&mut cp, Some(&loaded.version), self.date).await?;
        self.let_go_of_others(&cp.fingerprints).await?;
        Ok(cp)
    }
}
