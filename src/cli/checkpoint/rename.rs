//! `opship checkpoint rename`: an entry of the configuration has another name, its feeds go on where they stood.

use crate::cli::{CliError, Exit, account_name, print, stream_name};
use crate::config::Config;
use crate::flow::{AccountName, FeedId, Stream};
use crate::store::Store;
use crate::store::checkpoints::{CheckpointError, Checkpoints};
use crate::store::rename::{Moved, Rename, RenameError, rename_health};
use clap::Args;
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// The name that the account had
    #[arg(value_name = "OLD", value_parser = account_name)]
    from: AccountName,
    /// The name that it has in the configuration now
    #[arg(value_name = "NEW", value_parser = account_name)]
    to: AccountName,
    /// Only this stream
    #[arg(long, value_parser = stream_name)]
    stream: Option<Stream>,
}

pub(crate) async fn rename(config: &Config, store: Arc<dyn Store>, args: &RenameArgs) -> Result<Exit, CliError> {
    let streams = streams(config, args)?;
    let (owner, mut moved_any) = (uuid::Uuid::new_v4().simple().to_string(), false);
    store.announce(&owner).await.map_err(CheckpointError::from)?;
    for stream in streams {
        let of = |account: &AccountName| FeedId { account: account.clone(), stream };
        let (from, to) = (of(&args.from), of(&args.to));
        let rename = Rename::new(store.clone(), owner.clone(), &from, &to, chrono::Utc::now());
        if let Some(moved) = rename.run().await.map_err(told)? {
            moved_any = true;
            print(&said(&from, &to, moved))?;
        }
    }
    if !moved_any {
        return Err(CliError::Usage(nothing_there(&*store, args).await?));
    }
    rename_health(&*store, &args.from, &args.to).await.map_err(CheckpointError::from)?;
    Ok(Exit::Done)
}

/// What is to be moved. A name that is still in use must not lose its position, and a misspelt one must not get it.
fn streams(config: &Config, args: &RenameArgs) -> Result<BTreeSet<Stream>, CliError> {
    let RenameArgs { from, to, stream } = args;
    let Some(account) = config.accounts.get(to) else {
        let what = format!("there is no account {to} in the configuration: change the name there first, then run this");
        return Err(CliError::Usage(what));
    };
    if from == to {
        return Err(CliError::Usage(format!("{from} and {to} are the same name")));
    }
    let wanted: BTreeSet<Stream> =
        account.streams.iter().copied().filter(|one| stream.is_none_or(|s| s == *one)).collect();
    if wanted.is_empty() {
        return Err(CliError::Usage(format!(
            "accounts.{to} does not ship this stream: add it to accounts.{to}.streams"
        )));
    }
    let of_from = config.accounts.get(from).map(|account| &account.streams);
    if let Some(used) = wanted.iter().find(|stream| of_from.is_some_and(|streams| streams.contains(stream))) {
        let what = format!(
            "accounts.{from} ships {used} in this configuration: take the entry out (or the stream, and name it with --stream) before \
             its position goes to {to}"
        );
        return Err(CliError::Usage(what));
    }
    Ok(wanted)
}

fn told(error: RenameError) -> CliError {
    match error {
        RenameError::Checkpoint(error) => CliError::Checkpoint(error),
        error @ RenameError::Held { .. } => CliError::Failed(error.to_string()),
        error @ RenameError::Refused { .. } => CliError::Usage(error.to_string()),
    }
}

fn said(from: &FeedId, to: &FeedId, moved: Moved) -> String {
    let Moved { shipped, segments, letters, backfills } = moved;
    match shipped {
        Some(shipped) => format!(
            "{from} is {to} now: {shipped} rows shipped so far, {segments} ledger segments, {letters} dead letters, {backfills} \
             unfinished backfills"
        ),
        None if segments > 0 => format!("{from} is {to} now: it had no position, {segments} ledger segments"),
        None => format!("{from} is {to} now: an earlier try had moved it, what it left behind is deleted"),
    }
}

async fn nothing_there(store: &dyn Store, args: &RenameArgs) -> Result<String, CliError> {
    let feeds = Checkpoints::feeds(store).await.map_err(CheckpointError::from)?;
    let names: BTreeSet<&str> = feeds.iter().map(|feed| feed.account.as_str()).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    let there = if names.is_empty() { "no account at all".to_owned() } else { names };
    Ok(format!("there is nothing of {} to rename in {}; it has positions of {there}", args.from, store.place()))
}
