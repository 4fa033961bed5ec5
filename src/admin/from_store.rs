//! The status as far as the store tells it: for when no process answers. Reads alone; nothing is put aside or repaired.

use super::feed::{doubt, intent};
use super::from_board::summary;
use super::status::{FeedStatus, Health, Origin, Status};
use crate::agent::last_told;
use crate::agent::monitor::board::Standing;
use crate::flow::checkpoint::{Checkpoint, Decoded};
use crate::flow::{FeedId, Time};
use crate::store::checkpoints::Checkpoints;
use crate::store::dead_letters::DeadLetters;
use crate::store::{Listed, Store, StoreError};
use std::time::Duration;

/// A living process renews the fallback copy of each checkpoint every ten to twenty minutes, also when there is nothing to ship.
const SILENT_AFTER: Duration = Duration::from_secs(1800);

/// The feeds whose checkpoints are looked at.
pub struct Asked<'a> {
    pub feeds: &'a [FeedId],
    /// How long three ticks of the configured timer take: a feed that ticks rarely is silent later.
    pub three_ticks: Duration,
    /// Fingerprint of the configured destination, where it is known: a checkpoint of another one is foreign.
    pub sink: Option<&'a str>,
    /// The running process was asked first, and none answered: what the store tells is the past.
    pub nobody_answers: bool,
    pub now: Time,
}

/// # Errors
/// The store cannot be read.
pub async fn status_of_store(store: &dyn Store, asked: &Asked<'_>) -> Result<Status, StoreError> {
    let mut feeds = Vec::new();
    for id in asked.feeds {
        feeds.push(feed(store, id, asked).await?);
    }
    Ok(Status {
        from: Origin::Store,
        version: env!("CARGO_PKG_VERSION").into(),
        now: asked.now,
        started: None,
        ready: !feeds.is_empty() && feeds.iter().all(|feed| feed.health == Health::Good),
        summary: summary(&feeds),
        feeds,
        config: None,
    })
}

async fn feed(store: &dyn Store, id: &FeedId, asked: &Asked<'_>) -> Result<FeedStatus, StoreError> {
    let Some(object) = store.get(&Checkpoints::key(id)).await? else {
        let why = "there is no checkpoint of this feed yet".into();
        return Ok(bare(id, Health::Starting, why, "start opship (`opship run`): the first tick writes one".into()));
    };
    let cp = match Checkpoint::decode(&object.bytes) {
        Decoded::Good(cp) if cp.feed() == *id => *cp,
        Decoded::Good(other) => {
            let why = format!("its checkpoint belongs to {}", other.feed());
            return Ok(bare(id, Health::Broken, why, RECOVERS.into()));
        }
        Decoded::Corrupt(why) => {
            return Ok(bare(id, Health::Broken, format!("its checkpoint is unreadable: {why}"), RECOVERS.into()));
        }
        Decoded::TooNew { writer, min_reader } => {
            let why = format!("its checkpoint was written by {writer}, for readers of format {min_reader} or newer");
            return Ok(bare(id, Health::Broken, why, "upgrade this opship".into()));
        }
    };
    let seen = SeenInStore {
        silent_for: silent_for(store, id, object.age).await?,
        troubles: last_told(store, &id.account).await?,
    };
    let letters = DeadLetters::count_of(store, id).await?;
    Ok(FeedStatus { dead_letters: letters as u64, ..told(id, &cp, &seen, asked) })
}

/// What the store tells of a feed besides its checkpoint.
struct SeenInStore {
    /// Since the last sign of life; none where that is not known.
    silent_for: Option<Duration>,
    /// Of its account, since the last heartbeat.
    troubles: Vec<String>,
}

/// The age of the younger of checkpoint and copy, else as read. One that was stamped ahead of the clock says nothing: it is not fresh.
async fn silent_for(store: &dyn Store, id: &FeedId, as_read: Option<Duration>) -> Result<Option<Duration>, StoreError> {
    let signs = store.list(&format!("checkpoints/{}/{}.", id.account, id.stream)).await?;
    let of_life = |listed: &&Listed| {
        listed.key.as_str().ends_with(&format!("{}.json", id.stream)) || listed.key.as_str().ends_with(".prev.json")
    };
    let signs: Vec<_> = signs.iter().filter(of_life).collect();
    let mut youngest = signs.is_empty().then_some(as_read).flatten();
    for sign in signs {
        if youngest.is_none_or(|age| sign.age < age) && !store.is_ahead(&sign.key).await? {
            youngest = Some(sign.age);
        }
    }
    Ok(youngest)
}

const RECOVERS: &str = "start opship: it puts this document aside, goes on from the fallback copy or the lookback, and the ledger keeps \
    that free of duplicates";

fn told(id: &FeedId, cp: &Checkpoint, seen: &SeenInStore, asked: &Asked<'_>) -> FeedStatus {
    let standing = Standing::of(cp);
    let (health, reason, remedy) = match what_is_wrong(cp, seen, asked) {
        Some((health, reason, remedy)) => (health, Some(reason), Some(remedy.to_owned())),
        None => (Health::Good, None, None),
    };
    let totals = &standing.totals;
    FeedStatus {
        health,
        reason,
        remedy,
        newest_shipped: (totals.shipped > 0).then_some(standing.watermark),
        pages: totals.pages,
        rows: totals.shipped,
        late: totals.late,
        in_doubt_batches: standing.in_doubt.batches,
        in_doubt_rows: standing.in_doubt.rows,
        in_doubt_gone: standing.in_doubt.gone,
        last_doubts: standing.in_doubt.last.iter().rev().map(doubt).collect(),
        open_intent: intent(&standing),
        checkpoint_written: Some(standing.written_at),
        ..bare(id, health, String::new(), String::new())
    }
}

/// Health, why, and what to do; none when all is well.
fn what_is_wrong(cp: &Checkpoint, seen: &SeenInStore, asked: &Asked<'_>) -> Option<(Health, String, &'static str)> {
    if asked.sink.is_some_and(|sink| sink != cp.fingerprints.sink) {
        let why = format!("its checkpoint belongs to another destination ({})", cp.fingerprints);
        return Some((Health::Broken, why, FOREIGN));
    }
    let Some(silent_for) = seen.silent_for else {
        let why = "when it was last written is not known: its files are stamped ahead of this host's clock";
        return Some((Health::Silent, why.into(), STAMPED_AHEAD));
    };
    let minutes = silent_for.as_secs() / 60;
    if silent_for > SILENT_AFTER.max(asked.three_ticks) {
        return Some((Health::Silent, format!("nothing was written for {minutes} min"), DOES_IT_RUN));
    }
    if asked.nobody_answers {
        let why = format!("no process answers; the last one wrote {minutes} min ago");
        return Some((Health::Silent, why, START_IT));
    }
    if !seen.troubles.is_empty() {
        let why = format!("its account told {} and has had no heartbeat since", seen.troubles.join(", "));
        return Some((Health::Waiting, why, TOLD));
    }
    None
}

const FOREIGN: &str =
    "check [sink] and [store] of the configuration; if the change is meant, run `opship checkpoint adopt`";
const STAMPED_AHEAD: &str = "look at the clock of this host, it was ahead when opship wrote and was set back; look whether opship \
    runs, and at its log";
const DOES_IT_RUN: &str = "look whether opship runs, and at its log; `opship check` tries every part";
const START_IT: &str = "start opship and look at its log, or check admin.listen; where a timer runs `opship once` no process \
    stays: look with --from-store";
const TOLD: &str = "look at the log of opship, which says why; `opship check` tries every part. After a repair the next heartbeat \
    clears this";

fn bare(id: &FeedId, health: Health, reason: String, remedy: String) -> FeedStatus {
    FeedStatus {
        account: id.account.to_string(),
        stream: id.stream.to_string(),
        health,
        since: None,
        reason: Some(reason),
        remedy: Some(remedy),
        last_good: None,
        next_tick: None,
        lag_seconds: None,
        newest_shipped: None,
        pages: 0,
        rows: 0,
        late: 0,
        in_doubt_batches: 0,
        in_doubt_rows: 0,
        in_doubt_gone: 0,
        last_doubts: Vec::new(),
        dead_letters: 0,
        open_intent: None,
        token_expires: None,
        checkpoint_written: None,
        errors: Vec::new(),
        minutes: Vec::new(),
    }
}
