//! A feed under another name: position, ledger, dead letters and whatever else it has in the store, moved so that nothing ships twice.
//!
//! Killed anywhere it can be run again, and goes on where it stood. Neither name ships meanwhile: the owner's document says that the
//! feed is on its way, and a write of the old checkpoint makes a process that still ships it look there.

use super::backfills;
use super::checkpoints::{CheckpointError, Checkpoints, Found, Loaded};
use super::dead_letters::DeadLetter;
use super::owners::{self, Claim, Owner, Unreadable};
use super::{Expect, Key, Store, StoreError, Version};
use crate::flow::checkpoint::{Checkpoint, Decoded};
use crate::flow::identity::Identity;
use crate::flow::{AccountName, FeedId, Time};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use std::time::Duration;

/// Documents and segments copied at once.
const PARALLEL: usize = 8;
/// Bytes of one append.
const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Readings of a segment's copy before it is given up.
const COPY_TRIES: u32 = 4;

/// What was moved of a feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Rows that its position had shipped; none: an earlier try had moved it, or there was none.
    pub shipped: Option<u64>,
    pub segments: usize,
    pub letters: usize,
    pub backfills: usize,
}

/// A feed that was not moved, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum RenameError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("a process ships {feed} now: stop it, then run the same command again; if it was killed, in {} s", left.as_secs())]
    Held { feed: FeedId, left: Duration },
    /// Nothing was changed, or what an earlier try began stands as it stood.
    #[error("{what}: {remedy}")]
    Refused { what: String, remedy: String },
}

impl From<StoreError> for RenameError {
    fn from(error: StoreError) -> Self {
        Self::Checkpoint(error.into())
    }
}

/// The move of one stream from one name to another.
pub struct Rename<'a> {
    store: Arc<dyn Store>,
    checkpoints: Checkpoints,
    from: &'a FeedId,
    to: &'a FeedId,
    now: Time,
}

/// An owner's document; without a version there is none yet.
struct Document {
    key: Key,
    owner: Owner,
    version: Option<Version>,
}

/// Where the feed stands under its old name.
struct Position {
    cp: Checkpoint,
    version: Option<Version>,
}

impl<'a> Rename<'a> {
    /// `owner` names this process; `now` is written into the documents.
    pub fn new(store: Arc<dyn Store>, owner: String, from: &'a FeedId, to: &'a FeedId, now: Time) -> Self {
        let checkpoints = Checkpoints::new(store.clone(), owner);
        Self { store, checkpoints, from, to, now }
    }

    /// Moves everything. `None`: there is nothing under the old name.
    ///
    /// # Errors
    /// The store; a process that ships the feed; a position under the new name that is another one.
    pub async fn run(&self) -> Result<Option<Moved>, RenameError> {
        let mut documents = self.documents().await?;
        if !documents.is_empty() && documents.iter().all(|document| self.has_arrived(&document.owner)) {
            let left = self.clear().await?;
            return Ok((left > 0).then_some(Moved::default()));
        }
        documents.retain(|document| !self.has_arrived(&document.owner));
        let mut position = self.position().await?;
        if let Some(position) = &position {
            self.add_document_of(&position.cp, &mut documents).await?;
        } else if documents.is_empty() {
            return Ok(None);
        }
        self.is_free(position.as_ref(), &documents).await?;
        self.stop_both_names(&mut documents, position.as_mut()).await?;
        let mut moved = self.copy().await?;
        if let Some(Position { cp, .. }) = &position {
            self.arrive(cp).await?;
            moved.shipped = Some(cp.totals.shipped);
        }
        self.hand_over(documents).await?;
        self.clear().await?;
        Ok(Some(moved))
    }

    /// The documents that name the old entry, or that an earlier try has moved from it. The one of the present destination comes last,
    /// the youngest of several: with it the new name may ship.
    async fn documents(&self) -> Result<Vec<Document>, RenameError> {
        let listed = self.store.list(owners::FOLDER).await?;
        let each = listed.into_iter().map(|entry| async move { self.document(entry.key).await });
        let read: Vec<Option<Document>> = stream::iter(each).buffer_unordered(PARALLEL).try_collect().await?;
        let is_of_us = |owner: &Owner| {
            owner.stream == self.from.stream && (owner.entry == self.from.account || self.has_arrived(owner))
        };
        let mut documents: Vec<Document> = read.into_iter().flatten().filter(|one| is_of_us(&one.owner)).collect();
        documents.sort_by_key(|document| document.owner.written_at);
        Ok(documents)
    }

    /// A document that can be read.
    async fn document(&self, key: Key) -> Result<Option<Document>, RenameError> {
        let Some(object) = self.store.get(&key).await? else { return Ok(None) };
        let version = Some(object.version);
        Ok(Owner::decode(&object.bytes).ok().map(|owner| Document { key, owner, version }))
    }

    fn has_arrived(&self, owner: &Owner) -> bool {
        owner.entry == self.to.account && owner.moved_from.as_ref() == Some(&self.from.account)
    }

    /// The position, from its fallback copy where it is gone or unreadable.
    async fn position(&self) -> Result<Option<Position>, RenameError> {
        match self.checkpoints.load(self.from).await? {
            Found::Good(loaded) => {
                if let Some(left) = self.checkpoints.held_by_other(&loaded).await? {
                    return Err(RenameError::Held { feed: self.from.clone(), left });
                }
                let Loaded { checkpoint, version, .. } = *loaded;
                Ok(Some(Position { cp: checkpoint, version: Some(version) }))
            }
            Found::Nothing { previous } => Ok(previous.map(|cp| Position { cp: *cp, version: None })),
            Found::Replaced { previous: Some(cp), version, .. } => {
                Ok(Some(Position { cp: *cp, version: Some(version) }))
            }
            Found::Replaced { previous: None, why, .. } => Err(refused(
                format!("the checkpoint of {} is unreadable ({why}), and there is no copy of it", self.from),
                "run `opship once` under the old name, which starts it again, then rename",
            )),
        }
    }

    /// The document that the position itself points to, where nothing was written down yet; it must not name somebody else.
    async fn add_document_of(&self, cp: &Checkpoint, documents: &mut Vec<Document>) -> Result<(), RenameError> {
        let sink = cp.fingerprints.sink.clone();
        let own = cp.fingerprints.account.clone().map(|account| {
            let (account, sink) = (Identity::Named(account), sink.clone());
            Claim { feed: self.from.clone(), account, token: None, sink }
        });
        let key = own.as_ref().map(Claim::key);
        if let (Some(claim), Some(key)) = (own, key.clone())
            && documents.iter().all(|document| document.key != key)
        {
            let version = self.version_unless_owned(&key).await?;
            let owner = Owner::new(&claim, self.from.account.clone(), self.now);
            documents.push(Document { key, owner, version });
        }
        // The account's own comes after those of its tokens: with it the new name may ship.
        documents.sort_by_key(|document| {
            (document.owner.sink == sink, Some(&document.key) == key.as_ref(), document.owner.written_at)
        });
        Ok(())
    }

    /// The version to write over; none where nothing stands.
    async fn version_unless_owned(&self, key: &Key) -> Result<Option<Version>, RenameError> {
        let Some(object) = self.store.get(key).await? else { return Ok(None) };
        match Owner::decode(&object.bytes) {
            Ok(owner) => Err(refused(
                format!("accounts.{} ships {} of this account, not {}", owner.entry, owner.stream, self.from.account),
                "leave the stream to it; the position of the other name is of no use any more",
            )),
            Err(Unreadable::Corrupt(_)) => Ok(Some(object.version)),
            Err(Unreadable::TooNew { writer, min_reader }) => {
                Err(CheckpointError::TooNew { key: key.clone(), writer, min_reader }.into())
            }
        }
    }

    /// Nothing else stands under the new name, and no other rename is under way.
    async fn is_free(&self, position: Option<&Position>, documents: &[Document]) -> Result<(), RenameError> {
        let mut is_begun = false;
        for Document { owner, .. } in documents {
            match &owner.moving_to {
                Some(to) if *to != self.to.account => {
                    let (from, stream) = (&self.from.account, self.from.stream);
                    let remedy = format!(
                        "run `opship checkpoint rename {from} {to} --stream {stream}` first: it goes on where it stood"
                    );
                    return Err(refused(format!("{} is on its way to {to}", self.from), &remedy));
                }
                Some(_) => is_begun = true,
                None => {}
            }
        }
        let is_ours = |there: &Checkpoint| {
            position.is_some_and(|position| {
                let copy = self.renamed(&position.cp);
                // Nothing but the write itself is different.
                Checkpoint { write_id: there.write_id.clone(), written_at: there.written_at, ..copy } == *there
            })
        };
        // Looked at, not loaded: that would put aside what cannot be read.
        let stands = match self.store.get(&Checkpoints::key(self.to)).await? {
            Some(object) => !matches!(Checkpoint::decode(&object.bytes), Decoded::Good(there) if is_ours(&there)),
            None => self.store.get(&Checkpoints::previous_key(self.to)).await?.is_some(),
        };
        let ledger = format!("ledger/{}/", self.to);
        if stands || (!is_begun && !documents.is_empty() && !self.store.list(&ledger).await?.is_empty()) {
            let (from, to) = (&self.from.account, &self.to.account);
            return Err(refused(
                format!("{} has a position or a ledger of its own", self.to),
                &format!(
                    "keep the name {from} instead: give accounts.{from} the token and remove accounts.{to}; what {to} has shipped \
                     stays in its ledger"
                ),
            ));
        }
        Ok(())
    }

    /// From now on neither name ships. Whoever still does loses its next write of the checkpoint, and finds the document.
    async fn stop_both_names(
        &self,
        documents: &mut [Document],
        position: Option<&mut Position>,
    ) -> Result<(), RenameError> {
        for document in documents {
            document.owner.moving_to = Some(self.to.account.clone());
            self.write(document).await?;
        }
        if let Some(Position { cp, version }) = position {
            let written_at = cp.written_at;
            *version = Some(self.checkpoints.save(cp, version.as_ref(), written_at).await?);
        }
        Ok(())
    }

    async fn write(&self, document: &mut Document) -> Result<(), RenameError> {
        let bytes: bytes::Bytes = document.owner.encode(&document.key)?.into();
        let expect = document.version.clone().map_or(Expect::Absent, Expect::Is);
        document.version = Some(match self.store.put(&document.key, bytes.clone(), expect).await {
            Ok(version) => version,
            Err(error @ StoreError::Conflict { .. }) => {
                // Our own write, whose reply was lost.
                let there = self.store.get(&document.key).await?.filter(|object| object.bytes == bytes);
                there.ok_or(error)?.version
            }
            Err(error) => return Err(error.into()),
        });
        Ok(())
    }

    async fn copy(&self) -> Result<Moved, RenameError> {
        let segments = self.each("ledger/", |from, to| self.copy_segment(from, to)).await?;
        let letters = self.each("dead-letters/", |from, to| self.copy_letter(from, to)).await?;
        let backfills = self.each("backfill/", |from, to| self.copy_backfill(from, to)).await?;
        let aside = format!("{}{}.corrupt-", Checkpoints::FOLDER, self.from);
        for entry in self.store.list(&aside).await? {
            let to = self.key_of(Checkpoints::FOLDER, &entry.key);
            self.copy_document(entry.key, to, |bytes| bytes).await?;
        }
        Ok(Moved { shipped: None, segments, letters, backfills })
    }

    /// Everything in the feed's folder below `top`, under its new key. Returns how much it was.
    async fn each<F: Future<Output = Result<(), RenameError>>>(
        &self,
        top: &str,
        copy: impl Fn(Key, Key) -> F,
    ) -> Result<usize, RenameError> {
        let listed = self.store.list(&format!("{top}{}/", self.from)).await?;
        // Where folders are listed as such they are empty; nothing that is empty has anything to say.
        let listed = listed.iter().filter(|entry| entry.len > 0);
        let each = listed.map(|entry| copy(entry.key.clone(), self.key_of(top, &entry.key)));
        let copied: Vec<()> = stream::iter(each).buffer_unordered(PARALLEL).try_collect().await?;
        Ok(copied.len())
    }

    fn key_of(&self, top: &str, key: &Key) -> Key {
        let (from, to) = (format!("{top}{}", self.from), format!("{top}{}", self.to));
        Key::new(key.as_str().replacen(&from, &to, 1))
    }

    /// To the last byte, whatever an earlier try has copied. Read again until both are the same.
    async fn copy_segment(&self, from: Key, to: Key) -> Result<(), RenameError> {
        let all = self.store.read_from(&from, 0).await?.unwrap_or_default();
        let mut failed = None;
        for _ in 0..COPY_TRIES {
            let there = self.store.read_from(&to, 0).await?.unwrap_or_default();
            if there == all {
                return Ok(());
            }
            let Some(rest) = all.strip_prefix(&*there) else {
                let remedy = "move it out of the store, then run the same command again";
                return Err(refused(format!("{to} holds something else than {from}"), remedy));
            };
            let mut at = there.len() as u64;
            for part in rest.chunks(APPEND_BYTES_MAX) {
                match self.store.append(&to, at, all.slice_ref(part)).await {
                    Ok(()) => at += part.len() as u64,
                    Err(error @ StoreError::Refused { .. }) => return Err(error.into()),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
        let error = failed.unwrap_or(StoreError::WrongPosition { at: all.len() as u64, key: to });
        Err(error.into())
    }

    async fn copy_letter(&self, from: Key, to: Key) -> Result<(), RenameError> {
        let feed = self.to.to_string();
        let renamed = |bytes: bytes::Bytes| {
            // A letter that cannot be read stays as it is: a person may still read something in it.
            let letter = serde_json::from_slice::<DeadLetter>(&bytes).ok();
            let letter = letter.and_then(|letter| serde_json::to_vec(&DeadLetter { feed, ..letter }).ok());
            letter.map_or(bytes, Into::into)
        };
        self.copy_document(from, to, renamed).await
    }

    async fn copy_backfill(&self, from: Key, to: Key) -> Result<(), RenameError> {
        let renamed = |bytes: bytes::Bytes| backfills::renamed(&bytes, self.from, self.to).map_or(bytes, Into::into);
        self.copy_document(from, to, renamed).await
    }

    async fn copy_document(
        &self,
        from: Key,
        to: Key,
        change: impl FnOnce(bytes::Bytes) -> bytes::Bytes,
    ) -> Result<(), RenameError> {
        let Some(object) = self.store.get(&from).await? else { return Ok(()) };
        self.store.put(&to, change(object.bytes), Expect::Anything).await?;
        Ok(())
    }

    fn renamed(&self, cp: &Checkpoint) -> Checkpoint {
        Checkpoint { account: self.to.account.clone(), ..cp.clone() }
    }

    /// The checkpoint under its new name; an earlier try may have written it.
    async fn arrive(&self, cp: &Checkpoint) -> Result<(), RenameError> {
        if self.checkpoints.is_there(self.to).await? {
            return Ok(());
        }
        self.checkpoints.save(&mut self.renamed(cp), None, cp.written_at).await?;
        Ok(())
    }

    async fn hand_over(&self, documents: Vec<Document>) -> Result<(), RenameError> {
        for mut document in documents {
            document.owner.entry = self.to.account.clone();
            document.owner.moving_to = None;
            document.owner.moved_from = Some(self.from.account.clone());
            document.owner.written_at = self.now;
            self.write(&mut document).await?;
        }
        Ok(())
    }

    /// Deletes what is left under the old name. The checkpoint goes after its copy, so that no copy is ever taken for it.
    async fn clear(&self) -> Result<usize, RenameError> {
        let checkpoints = format!("{}{}.", Checkpoints::FOLDER, self.from);
        let mut keys: Vec<Key> = self.store.list(&checkpoints).await?.into_iter().map(|entry| entry.key).collect();
        keys.sort_by_key(|key| *key == Checkpoints::key(self.from));
        for top in ["ledger/", "dead-letters/", "backfill/"] {
            let listed = self.store.list(&format!("{top}{}/", self.from)).await?;
            // Backwards: where folders are listed as such, what is in them goes first.
            keys.extend(listed.into_iter().rev().map(|entry| entry.key));
        }
        for key in &keys {
            self.store.delete(key).await?;
        }
        Ok(keys.len())
    }
}

fn refused(what: String, remedy: &str) -> RenameError {
    RenameError::Refused { what, remedy: remedy.to_owned() }
}

/// What the account has told of its health goes with its last feed.
///
/// # Errors
/// The store.
pub async fn rename_health(store: &dyn Store, from: &AccountName, to: &AccountName) -> Result<(), StoreError> {
    let key = |name: &AccountName| Key::new(format!("health/{name}"));
    let has_feeds = !store.list(&format!("{}{from}/", Checkpoints::FOLDER)).await?.is_empty();
    let Some(told) = store.get(&key(from)).await?.filter(|_| !has_feeds) else { return Ok(()) };
    match store.put(&key(to), told.bytes, Expect::Absent).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => store.delete(&key(from)).await,
        Err(error) => Err(error),
    }
}
