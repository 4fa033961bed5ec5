//! `opship dead-letters list|show|replay|purge`.

pub(super) mod replay;

use super::text::{clean, clean_lines};
use super::{CliError, Exit, Output, Which, print};
use crate::agent::chain;
use crate::config::{Config, Need};
use crate::flow::decode;
use crate::flow::{EventId, Time};
use crate::store::Store;
use crate::store::dead_letters::{DeadLetter, DeadLetters, Entry, Unreadable};
use crate::wire::{Outside, WireError};
use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use replay::replay;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

/// Characters of an id that a table shows; so many are enough to name a letter.
const ID_SHOWN: usize = 12;
/// Letters that a support archive names.
const SUPPORT_LETTERS_MAX: usize = 1_000;
/// Shortest beginning of an id that names a letter.
const ID_MIN: usize = 4;

#[derive(Debug, Subcommand)]
pub(super) enum LettersCommand {
    /// Which events could not be shipped whole, why and when
    List(Which),
    /// Print one letter with its event: personal data, on stdout
    Show {
        /// Id, its first characters, or the uuid of the event
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        which: Which,
    },
    /// Ship the originals again after what stopped them was repaired; a letter goes when its row was accepted
    Replay(ReplayArgs),
    /// Delete letters: their originals stand nowhere else once 1Password has forgotten them
    Purge(PurgeArgs),
}

impl LettersCommand {
    /// To look and to delete takes the store alone.
    pub(super) const fn need(&self) -> Need {
        match self {
            Self::Replay(_) => Need::Everything,
            Self::List(_) | Self::Show { .. } | Self::Purge(_) => Need::WhatIsThere,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    pub(super) these: These,
    #[command(flatten)]
    pub(super) which: Which,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct These {
    /// Ids, their first characters, or the uuids of the events
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Every letter that --account and --stream leave
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
#[group(id = "purged", args = ["ids", "older_than", "all"], required = true, multiple = false)]
pub(super) struct PurgeArgs {
    /// Ids, their first characters, or the uuids of the events
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Letters that were kept longer ago than this
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    older_than: Option<Duration>,
    /// Every letter that --account and --stream leave
    #[arg(long)]
    all: bool,
    /// Don't ask; demanded where nobody can be asked
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    which: Which,
}

pub(super) async fn letters(config: &Config, command: LettersCommand, output: Output) -> Result<Exit, CliError> {
    let outside = Outside::new(config).await?;
    let posts = matches!(command, LettersCommand::Replay(_));
    let store = if posts { outside.proven_store().await? } else { outside.store().await? };
    let letters = DeadLetters::new(store.clone());
    match command {
        LettersCommand::List(which) => list(&letters, entries(config, &letters, &which).await?, output).await,
        LettersCommand::Show { id, which } => {
            let entries = entries(config, &letters, &which).await?;
            show(&letters, one(&entries, &id)?, output).await
        }
        LettersCommand::Replay(args) => {
            let entries = entries(config, &letters, &args.which).await?;
            let entries = if args.these.all { entries } else { picked(&entries, &args.these.ids)? };
            replay(config, &outside, store, entries, output).await
        }
        LettersCommand::Purge(args) => {
            let entries = entries(config, &letters, &args.which).await?;
            let entries = match args.older_than {
                Some(than) => entries.into_iter().filter(|entry| entry.age > than).collect(),
                None if args.all => entries,
                None => picked(&entries, &args.ids)?,
            };
            purge(&letters, &entries, args.yes, output).await
        }
    }
}

/// The letters that --account and --stream leave.
async fn entries(config: &Config, letters: &DeadLetters, which: &Which) -> Result<Vec<Entry>, CliError> {
    let all = letters.entries().await.map_err(WireError::from)?;
    let of = |entry: &Entry| entry.feed.as_ref().map(|feed| (feed.account.clone(), feed.stream));
    if let Some(account) = &which.account {
        let has_letters = all.iter().filter_map(of).any(|(name, _)| name == *account);
        if !has_letters && !config.accounts.contains_key(account) {
            let names: Vec<&str> = config.accounts.keys().map(|name| name.as_str()).collect();
            let what = format!("there is no account {account}, and no letter of one; configured: {}", names.join(", "));
            return Err(CliError::Usage(what));
        }
    }
    let wanted = |entry: &Entry| match of(entry) {
        Some((account, stream)) => {
            which.account.as_ref().is_none_or(|name| *name == account) && which.stream.is_none_or(|name| name == stream)
        }
        None => which.account.is_none() && which.stream.is_none(),
    };
    Ok(all.into_iter().filter(wanted).collect())
}

fn picked(entries: &[Entry], ids: &[String]) -> Result<Vec<Entry>, CliError> {
    let mut picked: Vec<Entry> = Vec::new();
    for id in ids {
        let entry = one(entries, id)?;
        if !picked.contains(entry) {
            picked.push(entry.clone());
        }
    }
    Ok(picked)
}

/// The letter that an id, its beginning, or the uuid of the event names.
fn one<'e>(entries: &'e [Entry], id: &str) -> Result<&'e Entry, CliError> {
    let (of_uuid, lower) = (EventId::of_uuid(id).to_string(), id.to_lowercase());
    let exact = |entry: &&Entry| entry.id == lower || entry.id == of_uuid;
    let begins = |entry: &&Entry| lower.len() >= ID_MIN && entry.id.starts_with(&lower);
    let mut found: Vec<&Entry> = entries.iter().filter(exact).collect();
    if found.is_empty() {
        found = entries.iter().filter(begins).collect();
    }
    match found.as_slice() {
        [entry] => Ok(entry),
        [] if lower.len() < ID_MIN => Err(CliError::Usage(format!(
            "{} is too short for the id of a dead letter: give at least its first {ID_MIN} characters (`opship dead-letters list` \
             shows all)",
            clean(id)
        ))),
        [] => {
            Err(CliError::Usage(format!("there is no dead letter {}: `opship dead-letters list` shows all", clean(id))))
        }
        [first, second, ..] => Err(CliError::Usage(format!(
            "{} is the beginning of {} letters, such as {} and {}: give more characters, or --account and --stream",
            clean(id),
            found.len(),
            first.key,
            second.key
        ))),
    }
}

/// What a listing says of a letter: nothing of the event but its id and size.
struct Seen {
    why: String,
    at: Time,
    uuid: Option<String>,
    event_bytes: usize,
}

impl Seen {
    fn new(letter: &DeadLetter) -> Self {
        let uuid = decode::item(&letter.event);
        let uuid = uuid.text("uuid").or_else(|| {
            let row: Value = serde_json::from_str(&letter.event).ok()?;
            Some(row.get("uuid_s")?.as_str()?.to_owned())
        });
        Self { why: letter.why.clone(), at: letter.at, uuid, event_bytes: letter.event.len() }
    }
}

async fn list(letters: &DeadLetters, entries: Vec<Entry>, output: Output) -> Result<Exit, CliError> {
    let mut seen = letters.look(entries, Seen::new).await;
    // Oldest first; what cannot be read stands at the end.
    seen.sort_by_key(|(entry, seen)| (seen.is_err(), std::cmp::Reverse(entry.age)));
    match output {
        Output::Json => {
            let lines: Vec<String> = seen.iter().map(|(entry, seen)| as_json(entry, seen).to_string()).collect();
            if lines.is_empty() { Ok(Exit::Done) } else { print(&lines.join("\n")) }
        }
        Output::Text if seen.is_empty() => print("no dead letters: every event was shipped whole"),
        Output::Text => {
            print(&table(&seen))?;
            eprintln!(
                "opship: {}; a letter goes by itself after 30 days; next: `opship dead-letters show ID`, repair the cause, \
                 `opship dead-letters replay ID`",
                counted(seen.len())
            );
            Ok(Exit::Done)
        }
    }
}

fn as_json(entry: &Entry, seen: &Result<Seen, Unreadable>) -> Value {
    let feed = entry.feed.as_ref().map(ToString::to_string);
    let place = json!({
        "feed": feed, "id": entry.id, "key": entry.key.as_str(), "bytes": entry.bytes,
        "age_s": entry.age.as_secs(), "expires_in_s": entry.left().as_secs(),
    });
    let said = match seen {
        Ok(seen) => json!({
            "ok": true, "why": seen.why, "at": seen.at, "uuid": seen.uuid, "event_bytes": seen.event_bytes,
        }),
        Err(error) => json!({ "ok": false, "error": chain(error) }),
    };
    let members =
        [place, said].into_iter().filter_map(|part| if let Value::Object(map) = part { Some(map) } else { None });
    Value::Object(members.flatten().collect())
}

/// A line of JSON per letter for a support archive: without the uuid, which names an event.
pub(super) async fn for_support(store: Arc<dyn Store>) -> Result<String, CliError> {
    let letters = DeadLetters::new(store);
    let mut entries = letters.entries().await.map_err(WireError::from)?;
    entries.truncate(SUPPORT_LETTERS_MAX);
    let seen = letters.look(entries, |letter| Seen { uuid: None, ..Seen::new(letter) }).await;
    Ok(seen.iter().map(|(entry, seen)| format!("{}\n", as_json(entry, seen))).collect())
}

fn table(seen: &[(Entry, Result<Seen, Unreadable>)]) -> String {
    let header = ["FEED", "ID", "WHEN", "SIZE", "EXPIRES IN", "WHY"].map(str::to_owned);
    let rows = seen.iter().map(|(entry, seen)| {
        let feed = entry.feed.as_ref().map_or_else(|| "?".into(), ToString::to_string);
        let left = left(entry);
        let id: String = entry.id.chars().take(ID_SHOWN).collect();
        match seen {
            Ok(seen) => {
                let (at, size) = (seen.at.format("%Y-%m-%d %H:%M:%S").to_string(), HumanBytes(seen.event_bytes as u64));
                [feed, id, at, size.to_string(), left, clean(&seen.why)]
            }
            Err(error) => {
                let why = format!("unreadable: {} ({})", chain(error), entry.key);
                [feed, id, "?".into(), HumanBytes(entry.bytes).to_string(), left, clean(&why)]
            }
        }
    });
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: [usize; 6] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

async fn show(letters: &DeadLetters, entry: &Entry, output: Output) -> Result<Exit, CliError> {
    let letter = letters.read(entry).await.map_err(|error| {
        let remedy = "look at the document in the store; `opship dead-letters purge` deletes it";
        CliError::Failed(format!("{}: {}; {remedy}", entry.key, chain(&error)))
    })?;
    if output == Output::Json {
        return print(&json!(letter).to_string());
    }
    let event: Option<Value> = serde_json::from_str(&letter.event).ok();
    let event = event.and_then(|event| serde_json::to_string_pretty(&event).ok()).unwrap_or(letter.event);
    print(&format!(
        "feed     {}\nid       {}\nwhen     {}\nwhy      {}\nexpires  in {}\n\n{}",
        letter.feed,
        letter.id,
        letter.at,
        clean(&letter.why),
        left(entry),
        clean_lines(&event)
    ))
}

async fn purge(letters: &DeadLetters, entries: &[Entry], yes: bool, output: Output) -> Result<Exit, CliError> {
    if !entries.is_empty() && !yes && !confirmed(entries.len())? {
        eprintln!("opship: nothing was deleted");
        return Ok(Exit::Done);
    }
    let mut purged = 0;
    for entry in entries {
        letters.delete(entry).await.map_err(|error| {
            let what = chain(&WireError::from(error));
            CliError::Failed(format!("{} of {} deleted, then {}: {what}", purged, counted(entries.len()), entry.key))
        })?;
        purged += 1;
        tracing::info!(letter = %entry.key, "purged");
    }
    match output {
        Output::Text => print(&format!("{} deleted", counted(purged))),
        Output::Json => print(&json!({ "deleted": purged }).to_string()),
    }
}

/// Asks on a terminal.
///
/// # Errors
/// Nobody can be asked.
fn confirmed(letters: usize) -> Result<bool, CliError> {
    let what = counted(letters);
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(CliError::Usage(format!("{what} would be deleted for ever: say --yes where nobody can be asked")));
    }
    eprint!("Delete {what} for ever? The originals stand nowhere else in reach of opship. [y/N] ");
    let mut answer = String::new();
    let read = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    read.map_err(|error| CliError::Failed(format!("read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// How long a letter will still be kept: days, at the end hours.
fn left(entry: &Entry) -> String {
    let hours = entry.left().as_secs() / 3600;
    if hours < 48 { format!("{hours} h") } else { format!("{} d", hours / 24) }
}

pub(super) fn counted(letters: usize) -> String {
    if letters == 1 { "1 dead letter".into() } else { format!("{letters} dead letters") }
}
