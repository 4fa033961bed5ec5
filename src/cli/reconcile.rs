//! `opship reconcile`: is everything in the table that is at the source? With `--repair` it ships what is missing.

pub(super) mod report;

use super::exit::advice;
use super::range::{Moment, duration, moment, span, written};
use super::run::signals::{Hangup, stop_on_signals};
use super::{CliError, Exit, Output, Which, checkpoint, print};
use crate::agent::commands::reconcile::{Audit, ReconcileError};
use crate::agent::commands::repair::{Repaired, Repairing};
use crate::agent::run::ONCE_STANDBY;
use crate::agent::{Feed, Tick, Trouble, chain};
use crate::config::Config;
use crate::flow::decode::column_of;
use crate::flow::retry::Patience;
use crate::flow::{FeedId, Hour, Time, window};
use crate::table::{Span, Table};
use crate::wire::Outside;
use chrono::TimeDelta;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use report::{Repairs, Report};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Compared at once, unless it holds too many events.
const CHUNK: TimeDelta = TimeDelta::days(1);
/// A span that holds too many events is not cut smaller.
const CHUNK_MIN: TimeDelta = TimeDelta::seconds(1);

const NEEDS: &str = "\
Needs azure.workspace_id and the role Log Analytics Reader on the workspace; with the ndjson sink its files are read.
Exit codes: 0 nothing is missing, 1 something is, may be still on its way, or cannot be seen, 64 usage, 77 credentials refused";

#[derive(Debug, Args)]
#[command(after_help = NEEDS)]
pub(super) struct ReconcileArgs {
    /// Start: RFC 3339, a date (midnight UTC), or a duration back; at most 119d
    #[arg(long, value_parser = moment, value_name = "TIME")]
    from: Moment,
    /// End: the same forms
    #[arg(long, value_parser = moment, default_value = "now", value_name = "TIME")]
    to: Moment,
    #[command(flatten)]
    which: Which,
    /// Ship what is missing, although the ledger knows it; each such event stays traceable
    #[arg(long)]
    repair: bool,
    /// How long the table keeps rows: what is older is not there any more, and is never repaired
    #[arg(long, value_parser = duration, default_value = "30d", value_name = "DURATION")]
    retention: Duration,
    /// How long an accepted row may take to show in the table; younger events are not judged
    #[arg(long, value_parser = duration, default_value = "15m", value_name = "DURATION")]
    latency: Duration,
    /// Print hours without a difference, too
    #[arg(long)]
    all: bool,
}

pub(super) async fn reconcile(config: &Config, args: ReconcileArgs, output: Output) -> Result<Exit, CliError> {
    let wanted = checkpoint::selected(config, &args.which)?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    Hangup::listen()?.ends_with_its_terminal();
    let outside = Outside::new(config).await?;
    let table = outside.table()?;
    let store = if args.repair { outside.proven_store().await? } else { outside.store().await? };
    let agent = outside.agent_over(outside.sink_when_needed()?, store, Patience::ONCE, stop).await?;
    let redacted = column_of("account_uuid").is_some_and(|place| outside.redacts(place));
    let audit = Reconciler {
        table,
        latency: args.latency,
        others_ship_there: config.accounts.len() > 1 && !redacted,
        repair: args.repair,
    };
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for mut feed in agent.feeds.into_iter().filter(|feed| wanted.contains(feed.id())) {
        // A feed that cannot be compared must not hide the others.
        let now = match feed.source_time().await {
            Ok(now) => now,
            Err(Trouble::Stopped) => return Err(stopped()),
            Err(trouble) => {
                tell_failure(feed.id(), &mut failures, trouble.into());
                continue;
            }
        };
        let range = span(args.from, args.to, now)?;
        let Some(range) = judged(range, now, args.latency, reports.is_empty())? else { continue };
        kept(range, now, &args, reports.is_empty())?;
        let mut report = Report::new(feed.id().clone(), range, audit.table.place());
        let outcome = audit.feed(&mut feed, &mut report, range).await;
        print(&report.shown(output, args.all))?;
        reports.push(report);
        match outcome {
            Ok(()) => {}
            Err(CliError::Trouble(Trouble::Stopped)) => return Err(stopped()),
            Err(error) => tell_failure(feed.id(), &mut failures, error),
        }
    }
    let exit = conclude(&reports, &audit);
    let worst = failures.iter().map(CliError::exit).max_by_key(|exit| *exit as u8);
    Ok(worst.unwrap_or(exit))
}

/// An audit that was ended must not look like one that found nothing.
fn stopped() -> CliError {
    CliError::Failed("stopped: not all of the range was compared".into())
}

fn tell_failure(feed: &FeedId, failures: &mut Vec<CliError>, error: CliError) {
    let why = chain(&error);
    why.lines().chain(advice(&error)).for_each(|line| eprintln!("opship: {feed}: {line}"));
    failures.push(error);
}

/// Events from before the table's oldest rows are missing there by right: repaired, they would be history with a fresh arrival.
fn kept(range: Span, now: Time, args: &ReconcileArgs, is_first: bool) -> Result<(), CliError> {
    let oldest = window::earlier(now, args.retention);
    // A duration of exactly the retention is meant, although time has passed since it was typed.
    if range.from + TimeDelta::minutes(1) >= oldest {
        return Ok(());
    }
    let (from, oldest) = (written(range.from), written(oldest));
    let keeps = humantime::format_duration(args.retention);
    if args.repair {
        return Err(CliError::Usage(format!(
            "--from {from} is before {oldest}, and the table keeps rows for {keeps} (--retention): what it no longer keeps would be shipped \
             again; say --retention if the table keeps more, or a later --from"
        )));
    }
    if is_first {
        eprintln!(
            "opship: the table keeps rows for {keeps} (--retention): events before {oldest} may count as missing although they were shipped"
        );
    }
    Ok(())
}

/// Cuts what is too young to be judged. `None` when nothing is left is an error of usage: the operator asked for it.
fn judged(range: Span, now: Time, latency: Duration, is_first: bool) -> Result<Option<Span>, CliError> {
    let young = window::earlier(now, latency);
    if range.until <= young {
        return Ok(Some(range));
    }
    let shown = humantime::format_duration(latency);
    if range.from >= young {
        let what = format!(
            "the whole range is younger than {shown}, which rows may take to show in the table: nothing can be judged; wait, or set --latency"
        );
        return Err(CliError::Usage(what));
    }
    if is_first {
        eprintln!(
            "opship: events younger than {shown} are not judged, because rows may take that long to show in the table (--latency): compared up to {young}"
        );
    }
    Ok(Some(Span { until: young, ..range }))
}

/// What all feeds are compared with.
struct Reconciler {
    table: Arc<dyn Table>,
    latency: Duration,
    others_ship_there: bool,
    repair: bool,
}

impl Reconciler {
    /// What was compared stands in the report, whatever ends it.
    async fn feed(&self, feed: &mut Feed, report: &mut Report, range: Span) -> Result<(), CliError> {
        let mut reached = range.from;
        let outcome = self.days(feed, report, range, &mut reached).await;
        if let Err(error) = &outcome {
            report.end_early(reached, chain(error));
        }
        outcome
    }

    async fn days(
        &self,
        feed: &mut Feed,
        report: &mut Report,
        range: Span,
        reached: &mut Time,
    ) -> Result<(), CliError> {
        let tick = Tick { patience: Patience::ONCE, standby_max: ONCE_STANDBY, late_gives_way: &|| false };
        let audit = Audit { table: &*self.table, latency: self.latency, others_ship_there: self.others_ship_there };
        if self.repair {
            feed.settle_open_batch(tick).await?;
        }
        let mut repairing = Repairing::new(audit, tick);
        let progress = progress(feed.id(), range);
        let mut open = chunks(range);
        open.reverse();
        while let Some(span) = open.pop() {
            let Some(compared) = feed.compare(span, audit, tick).await? else {
                open.extend(smaller(span)?.into_iter().rev());
                continue;
            };
            tracing::debug!(feed = %feed.id(), from = %span.from, until = %span.until, missing = compared.missing.len(), "compared");
            report.add(&compared);
            *reached = span.until;
            progress.set_position((span.until - range.from).num_seconds().unsigned_abs());
            if self.repair && !compared.missing.is_empty() {
                let cover = cover(span, compared.missing.keys().map(|key| key.hour));
                let outcome = feed.repair(cover, compared.missing, &mut repairing).await;
                report.repairs.set(repairing.done);
                if let Err(error) = outcome {
                    return Err(interrupted(&report.repairs, error));
                }
            }
        }
        progress.finish_and_clear();
        Ok(())
    }
}

/// How far a feed is, on a terminal only.
fn progress(feed: &FeedId, range: Span) -> ProgressBar {
    let bar = ProgressBar::new((range.until - range.from).num_seconds().unsigned_abs());
    let style = ProgressStyle::with_template("{prefix}  {bar:32.cyan} {percent:>3} %  {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_prefix(feed.to_string())
}

/// Days of UTC, the first and the last cut to the range.
fn chunks(range: Span) -> Vec<Span> {
    let mut chunks = Vec::new();
    let mut from = range.from;
    while from < range.until {
        let day = from.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
        let until = (day + CHUNK).min(range.until);
        chunks.push(Span { from, until });
        from = until;
    }
    chunks
}

fn smaller(span: Span) -> Result<[Span; 2], CliError> {
    if span.until - span.from < CHUNK_MIN * 2 {
        let what = format!("there are more events than can be compared between {} and {}", span.from, span.until);
        return Err(CliError::Failed(what));
    }
    Ok(span.halves())
}

/// The part of a span in which these hours lie.
fn cover(span: Span, hours: impl Iterator<Item = Hour>) -> Span {
    let starts: Vec<Time> = hours.filter_map(Hour::start).collect();
    let (first, last) = (starts.iter().min(), starts.iter().max());
    let from = first.map_or(span.from, |first| span.from.max(*first));
    let until = last.map_or(span.until, |last| span.until.min(*last + TimeDelta::hours(1)));
    Span { from, until }
}

/// A repair that met trouble: what it did stands, what is left is found again.
fn interrupted(repairs: &Repairs, error: ReconcileError) -> CliError {
    let next = "the next `opship reconcile` finds the rest";
    eprintln!("opship: the repair stopped after {} rows; they are recorded, {next}", repairs.done.shipped);
    match error {
        ReconcileError::Trouble(Trouble::Stopped) => CliError::Failed(format!("stopped; {next}")),
        error => error.into(),
    }
}

fn conclude(reports: &[Report], audit: &Reconciler) -> Exit {
    let mut total = crate::flow::reconcile::Tally::default();
    let (mut never_shipped, mut done) = (0, Repaired::default());
    for report in reports {
        total.add(&report.total());
        never_shipped += report.never_shipped;
        done.add(&report.repairs.done);
    }
    let latency = humantime::format_duration(audit.latency);
    if total.pending > 0 {
        eprintln!(
            "opship: {} shipped, or shipped with others of the same hour, less than {latency} ago and not in the table: not judged; run this again in {latency}",
            events(total.pending)
        );
    }
    if total.missing > 0 {
        let accepted = total.missing - never_shipped;
        eprintln!(
            "opship: {} missing: {accepted} accepted by the destination and not in the table, {never_shipped} never shipped",
            events(total.missing)
        );
        if audit.repair {
            let Repaired { shipped, overtaken, gone } = done;
            let mut also = String::new();
            if overtaken > 0 {
                also.push_str(&format!("; {} left to another process, which shipped meanwhile", events(overtaken)));
            }
            if gone > 0 {
                also.push_str(&format!("; {} no longer returned by 1Password", events(gone)));
            }
            eprintln!(
                "opship: {} shipped by this repair{also}; run this again without --repair in {latency}",
                events(shipped)
            );
        } else {
            eprintln!(
                "opship: run the same command with --repair to ship them; copies that this may make stay traceable"
            );
        }
    }
    let is_repaired = audit.repair && done.shipped == total.missing;
    if (total.missing == 0 || is_repaired) && total.pending == 0 { Exit::Done } else { Exit::Failed }
}

fn events(count: u64) -> String {
    if count == 1 { "1 event".into() } else { format!("{count} events") }
}

impl From<ReconcileError> for CliError {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Trouble(trouble) => trouble.into(),
            ReconcileError::Table(error) => Self::Table(error),
            blind @ (ReconcileError::Blind { .. } | ReconcileError::Unseen { .. }) => Self::Failed(blind.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn between(from: &str, until: &str) -> Span {
        Span { from: at(from), until: at(until) }
    }

    #[test]
    fn a_range_is_compared_by_days_that_leave_no_moment_out() {
        let found = chunks(between("2026-11-20T22:00:00Z", "2026-11-22T01:00:00Z"));
        let expected = [
            between("2026-11-20T22:00:00Z", "2026-11-21T00:00:00Z"),
            between("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
            between("2026-11-22T00:00:00Z", "2026-11-22T01:00:00Z"),
        ];
        assert_eq!(found, expected);
        assert!(smaller(between("2026-11-20T22:00:00Z", "2026-11-20T22:00:01Z")).is_err());
    }

    #[test]
    fn a_repair_reads_only_the_hours_in_which_something_is_missing() {
        let span = between("2026-11-20T08:30:00Z", "2026-11-20T12:15:00Z");
        let hours = |names: &[&str]| names.iter().map(|name| Hour::parse(name).unwrap()).collect::<Vec<_>>();
        let inside = cover(span, hours(&["2026112010", "2026112009"]).into_iter());
        assert_eq!(inside, between("2026-11-20T09:00:00Z", "2026-11-20T11:00:00Z"));
        assert_eq!(cover(span, hours(&["2026112008", "2026112012"]).into_iter()), span);
    }

    #[test]
    fn what_is_too_young_is_cut_and_a_range_of_nothing_else_is_refused() {
        let (now, quarter) = (at("2026-11-20T12:00:00Z"), Duration::from_secs(900));
        let cut = judged(between("2026-11-20T10:00:00Z", "2026-11-20T12:00:00Z"), now, quarter, false).unwrap();
        assert_eq!(cut, Some(between("2026-11-20T10:00:00Z", "2026-11-20T11:45:00Z")));
        let whole = between("2026-11-20T10:00:00Z", "2026-11-20T11:45:00Z");
        assert_eq!(judged(whole, now, quarter, false).unwrap(), Some(whole));
        assert!(judged(between("2026-11-20T11:50:00Z", "2026-11-20T12:00:00Z"), now, quarter, false).is_err());
    }
}
