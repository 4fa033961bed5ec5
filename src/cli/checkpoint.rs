//! `opship checkpoint show|reset|adopt|rename`.

pub(super) mod rename;

use super::{CliError, Exit, Output, Which, print};
use crate::agent::Feed;
use crate::config::Config;
use crate::flow::FeedId;
use crate::flow::checkpoint::{Checkpoint, Decoded};
use crate::flow::retry::Patience;
use crate::store::Store;
use crate::store::checkpoints::Checkpoints;
use crate::wire::Outside;
use clap::Subcommand;
use rename::{RenameArgs, rename};
use std::fmt::Write as _;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Subcommand)]
pub(super) enum CheckpointCommand {
    /// Where each feed stands, what is in doubt, what was counted
    Show(Which),
    /// Start again at the lookback; what the ledger knows is not shipped twice
    Reset {
        #[command(flatten)]
        which: Which,
        /// Retire the ledger too: everything within the lookback is shipped again
        #[arg(long)]
        reship: bool,
    },
    /// Accept that the account or the destination has changed
    Adopt(Which),
    /// The account has another name in the configuration: its position, ledger and dead letters go with it
    ///
    /// Stop opship first. Killed in the middle it goes on when the same command is given again; neither name ships until then.
    Rename(RenameArgs),
}

pub(super) async fn checkpoint(config: &Config, command: CheckpointCommand, output: Output) -> Result<Exit, CliError> {
    let outside = Outside::new(config).await?;
    let store = outside.store().await?;
    match command {
        CheckpointCommand::Rename(args) => rename(config, store, &args).await,
        CheckpointCommand::Show(which) => {
            let feeds = selected(config, &which)?;
            let mut text = String::new();
            for feed in feeds {
                text.push_str(&shown(&*store, &feed, output).await?);
            }
            print(&text)
        }
        CheckpointCommand::Reset { which, reship } => {
            for mut feed in feeds(config, &outside, store, &which).await? {
                let cp = feed.reset(reship).await?;
                let ledger = if reship { "the ledger is retired" } else { "the ledger is kept" };
                print(&format!("{}: starts again at {}; {ledger}", feed.id(), cp.floor))?;
            }
            Ok(Exit::Done)
        }
        CheckpointCommand::Adopt(which) => {
            for mut feed in feeds(config, &outside, store, &which).await? {
                let cp = feed.adopt_here().await?;
                print(&format!("{}: adopted, now {}", feed.id(), cp.fingerprints))?;
            }
            Ok(Exit::Done)
        }
    }
}

pub(super) fn selected(config: &Config, which: &Which) -> Result<Vec<FeedId>, CliError> {
    let mut feeds = Vec::new();
    for (account, settings) in &config.accounts {
        for stream in &settings.streams {
            let wanted = which.account.as_ref().is_none_or(|name| name == account)
                && which.stream.is_none_or(|name| name == *stream);
            if wanted {
                feeds.push(FeedId { account: account.clone(), stream: *stream });
            }
        }
    }
    if feeds.is_empty() {
        return Err(CliError::Usage("no configured feed matches --account and --stream".into()));
    }
    Ok(feeds)
}

async fn feeds(
    config: &Config,
    outside: &Outside,
    store: Arc<dyn Store>,
    which: &Which,
) -> Result<Vec<Feed>, CliError> {
    let wanted = selected(config, which)?;
    let agent = outside.agent(store, Patience::ONCE, CancellationToken::new()).await?;
    Ok(agent.feeds.into_iter().filter(|feed| wanted.contains(feed.id())).collect())
}

pub(super) async fn shown(store: &dyn Store, feed: &FeedId, output: Output) -> Result<String, CliError> {
    let key = Checkpoints::key(feed);
    let object = store.get(&key).await.map_err(crate::store::checkpoints::CheckpointError::from)?;
    let Some(object) = object else {
        return Ok(match output {
            Output::Text => format!("{feed}\n  no checkpoint yet: the first run starts at the lookback\n"),
            Output::Json => format!("{}\n", serde_json::json!({ "feed": feed.to_string(), "checkpoint": null })),
        });
    };
    match (Checkpoint::decode(&object.bytes), output) {
        (Decoded::Good(cp), Output::Text) => Ok(readable(feed, &cp)),
        (Decoded::Good(cp), Output::Json) => {
            Ok(format!("{}\n", serde_json::json!({ "feed": feed.to_string(), "checkpoint": cp })))
        }
        (Decoded::Corrupt(why), _) => {
            Ok(format!("{feed}\n  unreadable: {why}; the next run puts it aside and starts from the fallback copy\n"))
        }
        (Decoded::TooNew { writer, min_reader }, _) => Ok(format!(
            "{feed}\n  written by {writer} for readers of format {min_reader} or newer: upgrade this program\n"
        )),
    }
}

fn readable(feed: &FeedId, cp: &Checkpoint) -> String {
    let mut text = format!("{feed}\n");
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<14}{value}");
    };
    line("written", format!("{} (write {})", cp.written_at, cp.slot.seq()));
    line("floor", cp.floor.to_string());
    line(
        "cursor",
        cp.cursor
            .as_ref()
            .map_or("none: the next tick resets".into(), |cursor| format!("{} characters", cursor.as_str().len())),
    );
    line("watermark", cp.watermark.to_string());
    line(
        "sweep mark",
        format!("{}{}", cp.sweep_mark, if cp.overlap_sweep.is_some() { ", a sweep is under way" } else { "" }),
    );
    line(
        "late mark",
        format!("{}{}", cp.late_mark, if cp.late_sweep.is_some() { ", a sweep is under way" } else { "" }),
    );
    match cp.slot.intent() {
        None => line("intent", "none: nothing is in the air".into()),
        Some(intent) => line(
            "intent",
            format!(
                "batch {}, {} events, attempt {}, {:?}",
                intent.batch_id(),
                intent.keys().len(),
                intent.attempt(),
                intent.kind()
            ),
        ),
    }
    let doubt = cp.slot.in_doubt();
    line("in doubt", format!("{} batches, {} rows, {} gone", doubt.batches, doubt.rows, doubt.gone));
    for last in &doubt.last {
        line(
            "",
            format!("{} batch {}: {} rows, attempt {}, {}", last.at, last.batch_id, last.rows, last.attempt, last.why),
        );
    }
    let totals = &cp.totals;
    line("shipped", format!("{} ({} of them late), batches: {}", totals.shipped, totals.late, totals.batches));
    line("not shipped", format!("{} known, {} repeated, {} filtered", totals.known, totals.repeated, totals.filtered));
    line("dead letters", totals.dead_letters.to_string());
    line("fingerprints", cp.fingerprints.to_string());
    text
}
