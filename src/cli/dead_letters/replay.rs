//! `opship dead-letters replay`: the originals once more, through the same flow.

use super::counted;
use crate::agent::run::ONCE_STANDBY;
use crate::agent::{Feed, Replayed, Tick, Trouble, chain};
use crate::cli::run::signals::{Hangup, stop_on_signals};
use crate::cli::{CliError, Exit, Output, exit_of, print};
use crate::config::Config;
use crate::flow::pack::ROW_BYTES_MAX;
use crate::flow::retry::Patience;
use crate::store::Store;
use crate::store::dead_letters::{DeadLetters, Entry};
use crate::wire::{Outside, WireError};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Tries of a letter while a running agent writes the checkpoint first.
const LOST_TRIES: u32 = 5;

/// How a letter ended: a word for scripts, a sentence for people.
struct End {
    word: &'static str,
    said: String,
    attempt: Option<u32>,
}

impl End {
    fn new(word: &'static str, said: impl Into<String>) -> Self {
        Self { word, said: said.into(), attempt: None }
    }

    fn is_good(&self) -> bool {
        self.word == "replayed"
    }
}

pub(crate) async fn replay(
    config: &Config,
    outside: &Outside,
    store: Arc<dyn Store>,
    entries: Vec<Entry>,
    output: Output,
) -> Result<Exit, CliError> {
    if entries.is_empty() {
        return match output {
            Output::Text => print("no dead letters: there is nothing to replay"),
            Output::Json => Ok(Exit::Done),
        };
    }
    eprintln!(
        "opship: replaying {}; the ledger is bypassed: each stub row stays in the table, the whole row becomes a second one with the same \
         uuid_s, which `opship checkpoint show` counts as in doubt",
        counted(entries.len())
    );
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    Hangup::listen()?.ends_with_its_terminal();
    let agent = outside.agent(store.clone(), Patience::ONCE, stop).await?;
    let mut feeds: BTreeMap<_, _> = agent.feeds.into_iter().map(|feed| (feed.id().clone(), feed)).collect();
    let letters = DeadLetters::new(store);
    let (mut left, mut exit) = (0, Exit::Done);
    for entry in &entries {
        let end = match entry.feed.as_ref().and_then(|id| feeds.get_mut(id)) {
            Some(feed) => one(feed, &letters, entry).await,
            None => Ok(End::new("not-configured", not_configured(config, entry))),
        };
        let (end, trouble) = match end {
            Ok(end) => (end, None),
            Err(trouble) => (End::new("failed", format!("{}; the letter stays", chain(&trouble))), Some(trouble)),
        };
        left += usize::from(!end.is_good());
        print(&shown(entry, &end, output))?;
        if let Some(trouble) = trouble {
            exit = exit_of(&trouble);
            // The next letter of this feed would meet the same.
            feeds.retain(|id, _| entry.feed.as_ref() != Some(id));
        }
    }
    eprintln!("opship: {} of {} replayed", entries.len() - left, counted(entries.len()));
    Ok(if exit == Exit::Done && left > 0 { Exit::DeadLetters } else { exit })
}

/// Ships one letter and, once its row is accepted and recorded, deletes it.
async fn one(feed: &mut Feed, letters: &DeadLetters, entry: &Entry) -> Result<End, Trouble> {
    let letter = match letters.read(entry).await {
        Ok(letter) => letter,
        Err(error) => {
            return Ok(End::new("unreadable", format!("{} ({}); the letter stays", chain(&error), entry.key)));
        }
    };
    let tick = Tick { patience: Patience::ONCE, standby_max: ONCE_STANDBY, late_gives_way: &|| false };
    let mut tries = 0;
    let replayed = loop {
        tries += 1;
        match feed.replay(&letter, tick).await {
            Err(Trouble::Lost) if tries < LOST_TRIES => {}
            other => break other?,
        }
    };
    Ok(match replayed {
        Replayed::Accepted { attempt } => {
            let beside = if attempt > 1 { ", beside its stub" } else { "" };
            let said = format!("accepted as attempt {attempt}{beside}");
            let said = match letters.delete(entry).await {
                Ok(()) => format!("{said}; the letter is deleted"),
                Err(error) => {
                    let error = chain(&WireError::from(error));
                    format!(
                        "{said}; the letter could not be deleted: {error}; `opship dead-letters purge {}`",
                        entry.id
                    )
                }
            };
            End { attempt: Some(attempt), ..End::new("replayed", said) }
        }
        Replayed::Refused { why } => End::new("refused", format!("{why}; the letter stays")),
        Replayed::TooLarge { row_bytes } => {
            let said = "the row still is too large; the letter stays, `opship dead-letters show` prints the event";
            End::new("too-large", format!("{said} ({row_bytes} bytes, a request may carry {ROW_BYTES_MAX})"))
        }
        Replayed::Foreign => {
            let said =
                "the event in it is not the one that it names, so that no copy could be traced; the letter stays";
            End::new("unreadable", format!("{said} ({})", entry.key))
        }
    })
}

fn not_configured(config: &Config, entry: &Entry) -> String {
    let Some(feed) = &entry.feed else {
        return format!("{} names no stream that this version knows; the letter stays", entry.key);
    };
    let is_configured =
        config.accounts.get(&feed.account).is_some_and(|account| account.streams.contains(&feed.stream));
    if is_configured {
        return "not tried after the trouble above; the letter stays".into();
    }
    format!("{feed} is not configured: add accounts.{} with this stream, or purge the letter", feed.account)
}

fn shown(entry: &Entry, end: &End, output: Output) -> String {
    let feed = entry.feed.as_ref().map_or_else(|| "?".into(), ToString::to_string);
    match output {
        Output::Text => format!("{feed} {}: {}", entry.id, end.said),
        Output::Json => json!({
            "feed": feed, "id": entry.id, "ok": end.is_good(), "outcome": end.word, "attempt": end.attempt, "said": end.said,
        })
        .to_string(),
    }
}
