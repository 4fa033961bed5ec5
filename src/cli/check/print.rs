//! How `check` looks: aligned lines on a terminal, one JSON object a step for machines.

use super::step::{Status, Step};
use crate::cli::text::{Colour, Look};
use crate::cli::{CliError, Exit, Output, print};
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

/// Where the time starts: behind the longest usual name.
const NAME_WIDTH: usize = 29;
/// Where remedies start: under the names.
const INDENT: usize = 6;

/// What the steps came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    ok: usize,
    warn: usize,
    fail: usize,
    skipped: usize,
    pub(crate) exit: Exit,
}

impl Tally {
    pub(crate) fn of<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Self {
        let mut tally = Self { ok: 0, warn: 0, fail: 0, skipped: 0, exit: Exit::Done };
        for step in steps {
            match step.finding.status {
                Status::Ok => tally.ok += 1,
                Status::Warn => tally.warn += 1,
                Status::Fail => tally.fail += 1,
                Status::Skipped => tally.skipped += 1,
            }
            let exit = step.finding.exit;
            if weight(exit) > weight(tally.exit) {
                tally.exit = exit;
            }
        }
        tally
    }
}

/// What a person must do comes first: neither credentials nor settings heal by trying again.
const fn weight(exit: Exit) -> u8 {
    match exit {
        Exit::Done => 0,
        Exit::DeadLetters => 1,
        Exit::Failed => 2,
        Exit::Usage => 3,
        Exit::Credentials => 4,
    }
}

/// Prints steps as they end.
pub(crate) struct Printer {
    output: Output,
    look: Look,
}

impl Printer {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, look: Look::of(&std::io::stdout()) }
    }

    pub(crate) fn step(&self, step: &Step) -> Result<Exit, CliError> {
        match self.output {
            Output::Text => print(&self.line(step)),
            Output::Json => print(&json_of(step)?),
        }
    }

    fn line(&self, step: &Step) -> String {
        let (mark, colour) = match step.finding.status {
            Status::Ok => ("ok  ", Colour::Green),
            Status::Warn => ("WARN", Colour::Yellow),
            Status::Fail => ("FAIL", Colour::Red),
            Status::Skipped => ("skip", Colour::Faint),
        };
        let mark = self.look.paint(mark, colour);
        let mut line = format!("{mark}  {:<NAME_WIDTH$} {:>8}  {}", step.title(), took(step), step.finding.said);
        for remedy in step.finding.remedy.iter().flat_map(|remedy| remedy.lines()) {
            line.push_str(&format!("\n{:INDENT$}-> {remedy}", ""));
        }
        line
    }

    pub(crate) fn summary(&self, tally: Tally, took: Duration) -> Result<Exit, CliError> {
        let Tally { ok, warn, fail, skipped, exit } = tally;
        let (ready, seconds) = (exit == Exit::Done, took.as_secs_f64());
        match self.output {
            Output::Text => {
                let counts = [(ok, "ok"), (warn, "to look at"), (fail, "failed"), (skipped, "skipped")];
                let counts =
                    counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
                let verdict = if ready { "Ready to ship" } else { "Not ready" };
                print(&format!("\n{verdict}: {} in {seconds:.1} s", counts.collect::<Vec<_>>().join(", ")))
            }
            Output::Json => print(
                &json!({ "summary": true, "ready": ready, "ok": ok, "warn": warn, "fail": fail, "skipped": skipped,
                    "exit_code": exit as u8, "ms": millis(took), "version": env!("CARGO_PKG_VERSION") })
                .to_string(),
            ),
        }
    }
}

/// A step as JSON: these names are documented and stay.
#[derive(Serialize)]
struct Record<'a> {
    step: &'a str,
    of: &'a str,
    status: &'a str,
    finding: &'a str,
    remedy: Option<&'a str>,
    ms: u64,
}

fn json_of(step: &Step) -> Result<String, CliError> {
    let record = Record {
        step: step.step,
        of: &step.of,
        status: step.finding.status.name(),
        finding: &step.finding.said,
        remedy: step.finding.remedy.as_deref(),
        ms: millis(step.took),
    };
    serde_json::to_string(&record).map_err(|error| CliError::Failed(error.to_string()))
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

fn took(step: &Step) -> String {
    match step.finding.status {
        Status::Skipped => String::new(),
        Status::Ok | Status::Warn | Status::Fail => format!("{} ms", millis(step.took)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::step::{Finding, Plan};

    async fn step(finding: Finding) -> Step {
        (*Plan::new("rule", "").run(async { finding }).await).clone()
    }

    #[tokio::test]
    async fn credentials_weigh_more_than_settings_and_settings_more_than_the_rest() {
        let fail = |exit| Finding::fail(exit, "x", "y");
        let (plain, setting, refused) =
            (step(fail(Exit::Failed)).await, step(fail(Exit::Usage)).await, step(fail(Exit::Credentials)).await);
        let good =
            [step(Finding::ok("x")).await, step(Finding::warn("x", "y")).await, step(Finding::skipped("z")).await];
        assert_eq!(Tally::of(&good).exit, Exit::Done);
        assert_eq!(Tally::of([&plain, &good[0]]).exit, Exit::Failed);
        assert_eq!(Tally::of([&setting, &plain]).exit, Exit::Usage);
        assert_eq!(Tally::of([&plain, &refused, &setting]).exit, Exit::Credentials);
    }

    #[tokio::test]
    async fn colours_are_for_terminals_and_each_line_of_a_remedy_is_marked() {
        let failed = step(Finding::fail(Exit::Failed, "broken", "do this\nthen that")).await;
        let line = |look| Printer { output: Output::Text, look }.line(&failed);
        let plain = line(Look::Plain);
        assert!(plain.starts_with("FAIL  rule ") && plain.ends_with("  broken\n      -> do this\n      -> then that"));
        assert_eq!(line(Look::Coloured).replace("\u{1b}[31m", "").replace("\u{1b}[0m", ""), plain);
    }
}
