//! The result of a demo: what was generated against what arrived, and what the agent counted.

use crate::agent::chain;
use crate::cli::{CliError, Exit, Output};
use crate::config::{ConfigFile, Need, load};
use crate::flow::checkpoint::{Checkpoint, Decoded, Totals};
use crate::flow::{AccountName, FeedId, Stream};
use crate::sim::Comparison;
use crate::store::checkpoints::{CheckpointError, Checkpoints};
use crate::wire::Outside;
use indicatif::HumanCount;
use serde::Serialize;
use std::fmt::Write as _;

/// The final figures, under the names that `--output json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    generated: u64,
    shipped: u64,
    /// Read again and known: not shipped a second time.
    deduplicated: u64,
    /// As the agent counts: found by a sweep before the cursor, or by the cursor beyond the overlap.
    late: u64,
    duplicated: u64,
    lost: u64,
    invented: u64,
    rows: u64,
    health_rows: u64,
    posts: u64,
    rows_file: String,
    log_file: String,
    /// Everything that was not as it must be.
    problems: Vec<String>,
}

/// The two files that outlive a demo.
pub(crate) struct Files {
    pub(crate) rows: String,
    pub(crate) log: String,
}

impl Figures {
    pub(crate) fn new(
        compared: &Comparison,
        totals: Result<Totals, CliError>,
        files: Files,
        ended: Result<(), String>,
    ) -> Self {
        let &Comparison { generated, shipped, duplicated, lost, invented, rows, health_rows, posts, .. } = compared;
        let mut problems = Vec::new();
        if lost > 0 {
            problems.push(format!("{lost} events were lost"));
        }
        if invented > 0 {
            problems.push(format!("{invented} rows are of no generated event"));
        }
        problems.extend(ended.err());
        let totals = totals.unwrap_or_else(|error| {
            problems.push(chain(&error));
            Totals::default()
        });
        Self {
            generated,
            shipped,
            deduplicated: totals.known + totals.repeated,
            late: totals.late,
            duplicated,
            lost,
            invented,
            rows,
            health_rows,
            posts,
            rows_file: files.rows,
            log_file: files.log,
            problems,
        }
    }

    pub(crate) const fn exit(&self) -> Exit {
        if self.problems.is_empty() { Exit::Done } else { Exit::Failed }
    }

    pub(crate) fn shown(&self, output: Output) -> Result<String, CliError> {
        match output {
            Output::Text => Ok(self.table()),
            Output::Json => {
                serde_json::to_string(self).map_err(|error| CliError::Failed(format!("print the figures: {error}")))
            }
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let lines = [
            ("generated", self.generated, "events, by the simulator"),
            ("shipped", self.shipped, "of them, to the simulated data collection rule"),
            ("deduplicated", self.deduplicated, "read again, found in the ledger, not shipped again"),
            ("late", self.late, "found by a sweep first, or by the cursor beyond the overlap"),
            ("duplicated", self.duplicated, "rows beyond the first of an event"),
            ("lost", self.lost, "events that never arrived"),
            ("rows", self.rows, "accepted"),
            ("health rows", self.health_rows, "heartbeats, beside them"),
            ("POSTs", self.posts, ""),
        ];
        // Writing to a String cannot fail.
        for (name, count, meaning) in lines {
            let line = format!("{name:<13}{:>10}  {meaning}", HumanCount(count).to_string());
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let _ = writeln!(text, "the rows are in {}, the agent's log is {}", self.rows_file, self.log_file);
        for problem in &self.problems {
            let _ = writeln!(text, "FAILED: {problem}");
        }
        let _ = writeln!(text, "lost {}, duplicates {}, late {}", self.lost, self.duplicated, self.late);
        text
    }
}

/// What the agent counted in its checkpoints, over all feeds.
pub(crate) async fn totals(state: String) -> Result<Totals, CliError> {
    let settings = [("OPSHIP_STORE__KIND", "file".to_owned()), ("OPSHIP_STORE__PATH", state)];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let config = load(&ConfigFile::FirstOf(Vec::new()), settings, Need::WhatIsThere)?;
    let store = Outside::new(&config).await?.store().await?;
    let account =
        AccountName::parse("default").ok_or_else(|| CliError::Failed("the demo's account has no name".into()))?;
    let mut all = Totals::default();
    for stream in Stream::ALL {
        let key = Checkpoints::key(&FeedId { account: account.clone(), stream });
        let Some(object) = store.get(&key).await.map_err(CheckpointError::from)? else { continue };
        match Checkpoint::decode(&object.bytes) {
            Decoded::Good(checkpoint) => all.add(&checkpoint.totals),
            Decoded::Corrupt(why) => {
                return Err(CliError::Failed(format!("the checkpoint of {stream} is unreadable: {why}")));
            }
            Decoded::TooNew { writer, .. } => {
                return Err(CliError::Failed(format!("the checkpoint of {stream} was written by {writer}")));
            }
        }
    }
    Ok(all)
}
