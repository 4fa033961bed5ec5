//! own: the entry of the configuration that ships this stream of this account to this destination is this one, and no other.

use super::Stand;
use crate::agent::Feed;
use crate::agent::trouble::Trouble;
use crate::flow::checkpoint::Fingerprints;
use crate::flow::identity::{Identity, TokenHash};
use crate::flow::planted::{self, Bug};
use crate::store::checkpoints::Loaded;
use crate::store::owners::Claim;

/// Who the account is by the latest introduction.
pub(crate) struct Me {
    pub fingerprints: Fingerprints,
    pub token: TokenHash,
}

impl Stand {
    /// Before anything is posted from a position: asked again after each write of another process, and never by an idle tick.
    pub(crate) async fn own_still(&mut self, loaded: &Loaded) -> Result<(), Trouble> {
        let claim = self.claim(&loaded.checkpoint.fingerprints)?;
        let is_known = self.owned.as_ref() == Some(&claim.keys()) && self.last_seen.as_ref() == Some(&loaded.version);
        if is_known { Ok(()) } else { self.own_as(&claim).await }
    }

    /// Before a position is created or adopted: a second entry of one account must not begin, nor one that was renamed go on.
    pub(crate) async fn own(&mut self, fingerprints: &Fingerprints) -> Result<(), Trouble> {
        let claim = self.claim(fingerprints)?;
        self.own_as(&claim).await
    }

    /// After the operator has accepted another account: what the entry owned before is free for whoever ships it now.
    pub(crate) async fn let_go_of_others(&mut self, fingerprints: &Fingerprints) -> Result<(), Trouble> {
        let claim = self.claim(fingerprints)?;
        Ok(self.owners.let_go_of_others(&claim).await?)
    }

    async fn own_as(&mut self, claim: &Claim) -> Result<(), Trouble> {
        self.owned = None;
        match self.owners.claim(claim, self.given.date()).await? {
            Some(twin) if !planted::is(Bug::IgnoreOwner) => {
                self.position = None;
                Err(Trouble::Twin(Box::new(twin)))
            }
            Some(_) | None => {
                self.owned = Some(claim.keys());
                Ok(())
            }
        }
    }

    /// An account that was named once stays named, whatever the introduction leaves out now.
    fn claim(&self, stored: &Fingerprints) -> Result<Claim, Trouble> {
        let Some(me) = &self.me else { return Err(Trouble::Lost) };
        let account = Identity::new([&me.fingerprints, stored], &me.token);
        let (token, sink) = (Some(me.token.clone()), me.fingerprints.sink.clone());
        Ok(Claim { feed: self.given.id.clone(), account, token, sink })
    }
}

impl Feed {
    /// Without writing: the other entry that ships what this feed would.
    pub(crate) async fn owned_by_other(&mut self) -> Result<Option<Trouble>, Trouble> {
        let fingerprints = self.introduce().await?;
        let claim = self.stand.claim(&fingerprints)?;
        let owner = self.stand.owners.owner_of(&claim).await?;
        let twin = owner.and_then(|owner| self.stand.owners.rule(&claim, &owner));
        Ok(twin.map(|twin| Trouble::Twin(Box::new(twin))))
    }
}
