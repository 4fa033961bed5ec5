//! What an operator may do to a feed's position, by the same compare-and-swap as the feed itself.

use crate::agent::Feed;
use crate::agent::trouble::Trouble;
use crate::flow::checkpoint::Checkpoint;
use crate::store::checkpoints::Found;

impl Feed {
    /// Starts the position again at the lookback. The ledger and an open intent stay, so that nothing is shipped twice without a trace;
    /// with `reship` both go.
    ///
    /// # Errors
    /// Another process holds the open intent, or wrote first.
    pub async fn reset(&mut self, reship: bool) -> Result<Checkpoint, Trouble> {
        let fingerprints = self.introduce().await?;
        let mut fresh = self.given.first(&fingerprints)?;
        let version = match self.stand.checkpoints.load(&self.given.id).await? {
            Found::Nothing { .. } => None,
            Found::Replaced { version, .. } => Some(version),
            Found::Good(loaded) => {
                if let Some(left) = self.stand.checkpoints.held_by_other(&loaded).await? {
                    return Err(Trouble::Standby { left });
                }
                let old = loaded.checkpoint;
                (fresh.slot, fresh.totals) = (old.slot, old.totals);
                if reship {
                    fresh.slot.abandon("the checkpoint was reset over an open intent", self.given.date());
                } else {
                    fresh.ledger = old.ledger;
                    // Recovered as ever, but it moves nothing: the position is another one now.
                    fresh.slot.forget_advance();
                }
                Some(loaded.version)
            }
        };
        self.stand.own(&fresh.fingerprints).await?;
        self.stand.checkpoints.save(&mut fresh, version.as_ref(), self.given.date()).await?;
        self.stand.let_go_of_others(&fresh.fingerprints).await?;
        if reship {
            self.delivery.ledger.retire_all().await?;
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
        let Found::Good(loaded) = self.stand.checkpoints.load(&self.given.id).await? else {
            let what = format!("there is no readable checkpoint of {} to adopt", self.given.id);
            return Err(Trouble::Halted { what, remedy: "start the agent: it begins at the lookback".into() });
        };
        if let Some(left) = self.stand.checkpoints.held_by_other(&loaded).await? {
            return Err(Trouble::Standby { left });
        }
        let mut cp = loaded.checkpoint;
        if cp.fingerprints.sink != fingerprints.sink {
            // Another destination has a ledger of its own.
            cp.ledger = None;
        }
        cp.fingerprints = fingerprints;
        self.stand.own(&cp.fingerprints).await?;
        self.stand.checkpoints.save(&mut cp, Some(&loaded.version), self.given.date()).await?;
        self.stand.let_go_of_others(&cp.fingerprints).await?;
        Ok(cp)
    }
}
