//! Who ships a stream of an account to a destination: a document for each, naming the entry of the configuration.
//!
//! It names no process and has no lease: every process of that entry may ship, of another entry none, until it is renamed.

use super::checkpoints::{CheckpointError, Checkpoints};
use super::{Expect, Key, Object, Store, StoreError, Version};
use crate::flow::checkpoint::{Checkpoint, Decoded, Unknown};
use crate::flow::envelope::{Kind, Opened};
use crate::flow::identity::{Identity, TokenHash};
use crate::flow::{AccountName, FeedId, Stream, Time};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const KIND: Kind = Kind { format: "opship-owner", version: 1, min_reader: 1 };
pub(super) const FOLDER: &str = "owners/";
/// Beyond it a document is not ours.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024;
/// Races for one document before it is given up; each is lost to a document that then decides.
const CLAIM_TRIES: u32 = 4;
/// Checkpoints read at once.
const PARALLEL: usize = 8;
/// How long a look at all checkpoints serves: the feeds of a process start together, and must not read them all for each other.
const SURVEY_FRESH: Duration = Duration::from_secs(10);
/// A living process renews the copies of its checkpoints every few minutes. Who wrote nothing for so long ships no more, whatever it
/// shipped once: it must not stop the entry that took its place.
const SILENT: Duration = Duration::from_secs(86_400);

/// What may be shipped by one entry alone: a stream of an account to a destination; and the feed that wants to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub feed: FeedId,
    pub account: Identity,
    /// The token that it is read with: it stands for the account where an introduction fails, also that of another entry.
    pub token: Option<TokenHash>,
    /// The destination's fingerprint, as in checkpoints.
    pub sink: String,
}

impl Claim {
    /// Where the owner's document stands.
    pub fn key(&self) -> Key {
        self.key_of(&self.account)
    }

    /// Every document that must name this entry.
    pub fn keys(&self) -> (Key, Option<Key>) {
        (self.key(), self.token_key())
    }

    /// Where the same stands for who knows the token alone; none where that is all that is known.
    fn token_key(&self) -> Option<Key> {
        let token = self.token.clone().filter(|_| matches!(self.account, Identity::Named(_)));
        token.map(|token| self.key_of(&Identity::Unnamed(token)))
    }

    fn key_of(&self, account: &Identity) -> Key {
        Key::new(format!("{FOLDER}{}", account.digest(self.feed.stream, &self.sink)))
    }
}

/// The document: no event content, no uuid, nothing of the token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Owner {
    /// As the configuration names the account.
    pub entry: AccountName,
    pub stream: Stream,
    pub sink: String,
    pub written_at: Time,
    /// A rename is under way: neither name ships until it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<AccountName>,
    /// The name before the last rename; what is left under it may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<AccountName>,
    /// Fields of newer versions survive a round trip.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Owner {
    pub(super) fn new(claim: &Claim, entry: AccountName, now: Time) -> Self {
        let (stream, sink) = (claim.feed.stream, claim.sink.clone());
        Self { entry, stream, sink, written_at: now, moving_to: None, moved_from: None, unknown: Unknown::new() }
    }

    pub(super) fn encode(&self, key: &Key) -> Result<Vec<u8>, CheckpointError> {
        KIND.seal(self).map_err(|cause| CheckpointError::Unwritable { key: key.clone(), cause })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(Unreadable::Corrupt(format!("it has {} bytes", bytes.len())));
        }
        match KIND.open(bytes) {
            Opened::Body(body) => serde_json::from_str(body)
                .map_err(|error| Unreadable::Corrupt(format!("its body cannot be read: {error}"))),
            Opened::Corrupt(why) => Err(Unreadable::Corrupt(why)),
            Opened::TooNew { writer, min_reader } => Err(Unreadable::TooNew { writer, min_reader }),
        }
    }
}

pub(super) enum Unreadable {
    Corrupt(String),
    TooNew { writer: String, min_reader: u32 },
}

/// Another entry ships what this feed wants to ship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// The one that is refused.
    pub feed: FeedId,
    pub owner: AccountName,
    pub rival: Rival,
}

/// What the owner is to this configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rival {
    /// An entry of it that ships the same stream.
    Configured,
    /// An entry of it that ships other streams: the former entry of this one, or one of another configuration too.
    OtherStreams,
    /// None of it: the former name of this entry, or an entry of another configuration.
    Elsewhere,
    /// A rename to this name was begun and not finished.
    Moving { to: AccountName },
}

impl fmt::Display for Twin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (FeedId { account, stream }, owner) = (&self.feed, &self.owner);
        match &self.rival {
            Rival::Configured | Rival::OtherStreams | Rival::Elsewhere => write!(
                f,
                "accounts.{account} is the same 1Password account as accounts.{owner}, which ships {stream} to this destination: \
                 from both, each event would arrive twice"
            ),
            Rival::Moving { to } => {
                write!(f, "the position of {owner}/{stream} is on its way to accounts.{to}, and has not arrived")
            }
        }
    }
}

impl Twin {
    /// Two entries of one configuration.
    pub fn of_configured(feed: &FeedId, owner: AccountName) -> Self {
        Self { feed: feed.clone(), owner, rival: Rival::Configured }
    }

    /// What the operator should do.
    pub fn remedy(&self) -> String {
        let (FeedId { account, stream }, owner) = (&self.feed, &self.owner);
        match &self.rival {
            Rival::Configured => format!(
                "remove one of the two entries (a rotated token belongs into the one that is there), or give them different streams or \
                 another destination: leave {stream} to accounts.{owner}"
            ),
            Rival::OtherStreams => format!(
                "if {stream} was moved from accounts.{owner} to accounts.{account}, stop opship and run `opship checkpoint rename \
                 {owner} {account} --stream {stream}`; else leave {stream} to accounts.{owner}"
            ),
            Rival::Elsewhere => format!(
                "if {owner} was renamed to {account}, stop opship and run `opship checkpoint rename {owner} {account}`; if another \
                 configuration ships {owner}, leave {stream} to it"
            ),
            Rival::Moving { to } => {
                format!("stop opship and run `opship checkpoint rename {owner} {to}` again: it goes on where it stood")
            }
        }
    }
}

/// A checkpoint as it speaks for its entry.
#[derive(Clone, Debug)]
struct Claimant {
    feed: FeedId,
    account: Option<String>,
    token: Option<String>,
    sink: String,
    shipped: u64,
    is_silent: bool,
}

/// The owners in a store, as one process sees them.
pub struct Owners {
    store: Arc<dyn Store>,
    /// The feeds of this configuration.
    configured: BTreeSet<FeedId>,
    survey: tokio::sync::Mutex<Option<(Instant, Arc<[Claimant]>)>>,
    unnamed_told: Mutex<BTreeSet<AccountName>>,
}

impl Owners {
    pub fn new(store: Arc<dyn Store>, configured: BTreeSet<FeedId>) -> Self {
        let (survey, unnamed_told) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { store, configured, survey, unnamed_told }
    }

    /// Makes sure that the feed's entry is the one that ships what it claims; where nothing is written down, writes down who is.
    /// `None`: it is. Two that claim at the same moment get the same answer.
    ///
    /// # Errors
    /// The store, or a document that a newer program wrote: nothing is certain then, and nothing may be shipped.
    pub async fn claim(&self, claim: &Claim, now: Time) -> Result<Option<Twin>, CheckpointError> {
        self.tell_unnamed(claim);
        if let Stored::Owner(owner, _) = self.read(claim, &claim.key()).await? {
            self.note_token(claim, &owner, now).await?;
            return Ok(self.rule(claim, &owner));
        }
        let shipped_by = self.by_checkpoints(claim).await?;
        let mut entry = shipped_by.clone().unwrap_or_else(|| claim.feed.account.clone());
        // Before the account has an owner, an entry of the same token may ship it whose introduction failed. Of two that begin at the
        // same moment, one named and one not, both get the same answer.
        if let Some(key) = claim.token_key() {
            let owner = self.decide(claim, &key, entry.clone(), now).await?;
            if owner.moving_to.is_some() {
                return Ok(self.rule(claim, &owner));
            }
            // What has shipped says more than what was once written of a token.
            entry = shipped_by.unwrap_or(owner.entry);
        }
        let owner = self.decide(claim, &claim.key(), entry, now).await?;
        Ok(self.rule(claim, &owner))
    }

    /// Lets go of what the entry owned before it was another account: documents of this stream and destination that name it under other
    /// keys. Else whoever takes the former account over would be refused for good.
    ///
    /// # Errors
    /// The store.
    pub async fn let_go_of_others(&self, claim: &Claim) -> Result<(), CheckpointError> {
        let kept = [Some(claim.key()), claim.token_key()];
        for entry in self.store.list(FOLDER).await? {
            if kept.contains(&Some(entry.key.clone())) {
                continue;
            }
            // One that cannot be read, or belongs elsewhere, is nobody's to delete.
            let Ok(Stored::Owner(owner, _)) = self.read(claim, &entry.key).await else { continue };
            if owner.entry == claim.feed.account && owner.moving_to.is_none() {
                self.store.delete(&entry.key).await?;
                tracing::info!(feed = %claim.feed, key = %entry.key, "the entry does not own this any more: it is another account now");
            }
        }
        Ok(())
    }

    /// The owner by this document; where there is none, the entry, which is written down.
    async fn decide(&self, claim: &Claim, key: &Key, entry: AccountName, now: Time) -> Result<Owner, CheckpointError> {
        let owner = Owner::new(claim, entry, now);
        let mut lost = None;
        for _ in 0..CLAIM_TRIES {
            let expect = match self.read(claim, key).await? {
                Stored::Owner(owner, _) => return Ok(owner),
                Stored::Nothing => Expect::Absent,
                Stored::Damaged { why, version } => tell_damaged(claim, key, &why, version),
            };
            match self.store.put(key, owner.encode(key)?.into(), expect).await {
                Ok(_) => {
                    tracing::info!(feed = %claim.feed, owner = %owner.entry, "which entry ships this is written down");
                    return Ok(owner);
                }
                // Another process wrote it first, or the reply of our own write was lost: what stands there decides.
                Err(error @ StoreError::Conflict { .. }) => lost = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(lost.unwrap_or(StoreError::Conflict { key: key.clone() }).into())
    }

    /// What an account's token is read by has the same owner. A race for its document is left to the next claim.
    async fn note_token(&self, claim: &Claim, owner: &Owner, now: Time) -> Result<(), CheckpointError> {
        let Some(key) = claim.token_key().filter(|_| owner.moving_to.is_none()) else { return Ok(()) };
        let expect = match self.read(claim, &key).await? {
            Stored::Owner(known, _) if known.entry == owner.entry || known.moving_to.is_some() => return Ok(()),
            Stored::Owner(_, version) => Expect::Is(version),
            Stored::Nothing => Expect::Absent,
            Stored::Damaged { why, version } => tell_damaged(claim, &key, &why, version),
        };
        let owner = Owner::new(claim, owner.entry.clone(), now);
        match self.store.put(&key, owner.encode(&key)?.into(), expect).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The owner by its document, else by the checkpoints, without writing; `None` where nobody ships it yet.
    ///
    /// # Errors
    /// As [`Owners::claim`].
    pub async fn owner_of(&self, claim: &Claim) -> Result<Option<Owner>, CheckpointError> {
        match self.read(claim, &claim.key()).await? {
            Stored::Owner(owner, _) => Ok(Some(owner)),
            Stored::Nothing | Stored::Damaged { .. } => {
                let of_token = match claim.token_key() {
                    Some(key) => self.read(claim, &key).await?,
                    None => Stored::Nothing,
                };
                let entry = self.by_checkpoints(claim).await?;
                Ok(match (entry, of_token) {
                    (Some(entry), _) => Some(Owner::new(claim, entry, Time::MIN_UTC)),
                    (None, Stored::Owner(owner, _)) => Some(owner),
                    (None, Stored::Nothing | Stored::Damaged { .. }) => None,
                })
            }
        }
    }

    /// What is refused to a feed because another entry has it.
    fn twin_of(&self, feed: &FeedId, owner: AccountName) -> Twin {
        let is_configured = |stream: Stream| self.configured.contains(&FeedId { account: owner.clone(), stream });
        let rival = match () {
            () if is_configured(feed.stream) => Rival::Configured,
            () if Stream::ALL.into_iter().any(is_configured) => Rival::OtherStreams,
            () => Rival::Elsewhere,
        };
        Twin { feed: feed.clone(), owner, rival }
    }

    /// What follows from an owner for who claims the same; `None`: it may ship.
    pub fn rule(&self, claim: &Claim, owner: &Owner) -> Option<Twin> {
        match &owner.moving_to {
            Some(to) => {
                let (feed, owner, rival) = (claim.feed.clone(), owner.entry.clone(), Rival::Moving { to: to.clone() });
                Some(Twin { feed, owner, rival })
            }
            None if owner.entry == claim.feed.account => None,
            None => Some(self.twin_of(&claim.feed, owner.entry.clone())),
        }
    }

    async fn read(&self, claim: &Claim, key: &Key) -> Result<Stored, CheckpointError> {
        let Some(Object { bytes, version, .. }) = self.store.get(key).await? else { return Ok(Stored::Nothing) };
        match Owner::decode(&bytes) {
            Ok(owner) if owner.stream == claim.feed.stream && owner.sink == claim.sink => {
                Ok(Stored::Owner(owner, version))
            }
            Ok(_) => Ok(Stored::Damaged { why: "it belongs elsewhere".into(), version }),
            Err(Unreadable::Corrupt(why)) => Ok(Stored::Damaged { why, version }),
            Err(Unreadable::TooNew { writer, min_reader }) => {
                Err(CheckpointError::TooNew { key: key.clone(), writer, min_reader })
            }
        }
    }

    /// Where nothing is written down, as in a store of an earlier version: of the entries that still ship, the one that has shipped
    /// most; of several, the first by name. A checkpoint that names neither account nor token speaks for nobody.
    async fn by_checkpoints(&self, claim: &Claim) -> Result<Option<AccountName>, CheckpointError> {
        let (account, token) = match &claim.account {
            Identity::Named(account) => (Some(account), claim.token.as_ref()),
            Identity::Unnamed(token) => (None, Some(token)),
        };
        let token = token.map(TokenHash::fingerprint);
        let survey = self.survey().await?;
        let of_claim = survey.iter().filter(|claimant| {
            let is_named = account.is_some() && claimant.account.as_ref() == account;
            let is_told = token.is_some() && claimant.token == token;
            (is_named || is_told) && claimant.feed.stream == claim.feed.stream && claimant.sink == claim.sink
        });
        let first = of_claim.min_by_key(|claimant| {
            (claimant.is_silent, std::cmp::Reverse(claimant.shipped), claimant.feed.account.clone())
        });
        Ok(first.map(|claimant| claimant.feed.account.clone()))
    }

    async fn survey(&self) -> Result<Arc<[Claimant]>, CheckpointError> {
        let mut kept = self.survey.lock().await;
        if let Some((at, survey)) = kept.as_ref().filter(|(at, _)| at.elapsed() < SURVEY_FRESH) {
            tracing::trace!(age_ms = at.elapsed().as_millis() as u64, "the last look at the checkpoints still serves");
            return Ok(survey.clone());
        }
        let survey: Arc<[Claimant]> = claimants(&*self.store).await?.into();
        *kept = Some((Instant::now(), survey.clone()));
        Ok(survey)
    }

    /// Once per entry: two entries of an account that nothing names are told apart by their tokens alone.
    fn tell_unnamed(&self, claim: &Claim) {
        let mut told = self.unnamed_told.lock();
        if matches!(claim.account, Identity::Unnamed(_)) && told.insert(claim.feed.account.clone()) {
            let remedy = "make sure that no other entry has a token of the same 1Password account: each event would arrive twice";
            tracing::warn!(account = %claim.feed.account, remedy, "neither 1Password nor the token says which account this is");
        }
    }
}

fn tell_damaged(claim: &Claim, key: &Key, why: &str, version: Version) -> Expect {
    tracing::error!(feed = %claim.feed, %key, why, remedy = "find out who wrote it; nothing needs repair",
        "the document that says which entry ships this is unreadable: it is written again, by what the checkpoints say");
    Expect::Is(version)
}

enum Stored {
    Nothing,
    Owner(Owner, Version),
    Damaged { why: String, version: Version },
}

/// What every checkpoint of the store says of itself; unreadable ones speak by their fallback copy.
async fn claimants(store: &dyn Store) -> Result<Vec<Claimant>, CheckpointError> {
    let mut youngest: BTreeMap<FeedId, Duration> = BTreeMap::new();
    for listed in store.list(Checkpoints::FOLDER).await? {
        if let Some(feed) = Checkpoints::feed_of(&listed.key) {
            let age = youngest.entry(feed).or_insert(Duration::MAX);
            *age = listed.age.min(*age);
        }
    }
    let each = youngest.into_iter().map(|(feed, age)| async move { claimant(store, feed, age).await });
    let read: Vec<Option<Claimant>> = stream::iter(each).buffer_unordered(PARALLEL).try_collect().await?;
    Ok(read.into_iter().flatten().collect())
}

async fn claimant(store: &dyn Store, feed: FeedId, age: Duration) -> Result<Option<Claimant>, CheckpointError> {
    for key in [Checkpoints::key(&feed), Checkpoints::previous_key(&feed)] {
        let Some(object) = store.get(&key).await? else { continue };
        // A program too new for us keeps owners itself: where it ships, the document is there.
        let Decoded::Good(checkpoint) = Checkpoint::decode(&object.bytes) else { continue };
        if checkpoint.feed() != feed {
            continue;
        }
        let Checkpoint { fingerprints, totals, .. } = *checkpoint;
        let (shipped, sink, is_silent) = (totals.shipped, fingerprints.sink, age > SILENT);
        let (account, token) = (fingerprints.account, fingerprints.token);
        return Ok(Some(Claimant { feed, account, token, sink, shipped, is_silent }));
    }
    Ok(None)
}
