//! Which troubles of an account its health rows have told: kept in memory first, and in the store once it can be written.

use crate::agent::trouble::chain;
use crate::flow::AccountName;
use crate::store::{Expect, Key, Store, StoreError};
use std::time::Duration;
use tokio::time::Instant;

/// Nothing since the last heartbeat.
const GOOD: &str = "good";
/// After the store has failed it is asked again no sooner: every feed of the account comes by with each tick.
const STORE_PAUSE: Duration = Duration::from_secs(60);

/// More and longer words than there are troubles.
const WORDS_MAX: usize = 8;
const WORD_MAX: usize = 40;

/// Categories that were told since the last heartbeat, separated by blanks, or [`GOOD`].
#[derive(Default)]
pub(crate) struct Told {
    /// By this process, on top of what the store held when it was first asked; none before.
    now: Option<String>,
    /// What the store is known to hold; none when that may have changed.
    kept: Option<String>,
    failed_at: Option<Instant>,
    complained: bool,
}

impl Told {
    /// Where the store has it.
    pub(crate) fn key(account: &AccountName) -> Key {
        Key::new(format!("health/{account}"))
    }

    /// Whether a trouble is no news. While the store cannot say, it is news to this process once.
    pub(crate) async fn has(&mut self, category: &str, store: &dyn Store, key: &Key) -> bool {
        if self.now.is_none() {
            match read(store, key).await {
                Ok(kept) => (self.now, self.kept) = (Some(kept.clone()), Some(kept)),
                Err(error) => {
                    self.now = Some(GOOD.into());
                    self.failed(key, &error);
                }
            }
        }
        self.now.as_deref().is_some_and(|told| has(told, category))
    }

    pub(crate) fn add(&mut self, category: &str) {
        let told = self.now.as_deref().unwrap_or(GOOD);
        if !has(told, category) {
            self.now = Some(if told == GOOD { category.into() } else { format!("{told} {category}") });
        }
    }

    /// A heartbeat was accepted: whatever comes is news again.
    pub(crate) fn clear(&mut self) {
        self.now = Some(GOOD.into());
        // Another process may have told a trouble meanwhile, and be gone.
        self.kept = None;
    }

    /// Has the store hold what was told, for the next process. Tried again later where that fails.
    ///
    /// # Errors
    /// The store failed just now.
    pub(crate) async fn keep(&mut self, store: &dyn Store, key: &Key) -> Result<(), StoreError> {
        let Some(now) = self.now.clone().filter(|now| self.kept.as_ref() != Some(now)) else { return Ok(()) };
        if self.failed_at.is_some_and(|at| at.elapsed() < STORE_PAUSE) {
            return Ok(());
        }
        match write(store, key, &now, self.kept.is_none()).await {
            Ok(()) => {
                (self.kept, self.failed_at, self.complained) = (Some(now), None, false);
                Ok(())
            }
            Err(error) => {
                self.failed(key, &error);
                Err(error)
            }
        }
    }

    fn failed(&mut self, key: &Key, error: &StoreError) {
        self.failed_at = Some(Instant::now());
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(%key, error = %chain(error), "the store does not say or keep what the health rows have told: a restart may tell it again");
        }
    }
}

/// The troubles of an account that its health rows have told, or could not tell, since its last heartbeat; none when all was well.
///
/// # Errors
/// The store cannot be read.
pub async fn last_told(store: &dyn Store, account: &AccountName) -> Result<Vec<String>, StoreError> {
    let told = read(store, &Told::key(account)).await?;
    // Words of ours, whatever somebody else has put there.
    let is_ours = |word: &&str| {
        *word != GOOD
            && !word.is_empty()
            && word.len() <= WORD_MAX
            && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    Ok(told.split(' ').filter(is_ours).take(WORDS_MAX).map(str::to_owned).collect())
}

async fn read(store: &dyn Store, key: &Key) -> Result<String, StoreError> {
    let kept = store.get(key).await?;
    Ok(kept.map_or_else(|| GOOD.into(), |object| String::from_utf8_lossy(&object.bytes).into_owned()))
}

async fn write(store: &dyn Store, key: &Key, now: &str, may_stand_there: bool) -> Result<(), StoreError> {
    if may_stand_there && read(store, key).await? == now {
        return Ok(());
    }
    store.put(key, now.to_owned().into_bytes().into(), Expect::Anything).await?;
    Ok(())
}

fn has(told: &str, category: &str) -> bool {
    told.split(' ').any(|told| told == category)
}
