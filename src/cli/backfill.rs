//! `opship backfill`: a range again, beside the live feed.

pub(super) mod progress;

use super::checkpoint::selected;
use super::range::{Moment, moment};
use super::run::exit;
use super::run::signals::{Hangup, stop_on_signals};
use super::{CliError, Exit, Output, Which, print};
use crate::agent::run::Outcomes;
use crate::agent::{Backfill, Drained, Feed, Tick, Trouble, chain};
use crate::config::{Config, Sink};
use crate::flow::retry::Patience;
use crate::flow::window::{REACH_BACK_MAX, earlier};
use crate::flow::{FeedId, Time};
use crate::store::backfills::{Progress, Span};
use crate::wire::Outside;
use chrono::SecondsFormat;
use clap::Args;
use progress::Bar;
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Azure replaces older stamps by the time of arrival (Logs Ingestion API, data ingestion time).
const STAMP_AGE_MAX: Duration = Duration::from_secs(2 * 86_400);
const STAMP_NOTE: &str = "note: the range has events older than 2 days. With the rule of this project TimeGenerated is the time of arrival. A rule \
     that takes it from the event gets the time of arrival too: Azure replaces stamps older than 2 days. The event's own time is in `timestamp`";

#[derive(Debug, Args)]
pub(super) struct BackfillArgs {
    /// Where the range begins: an RFC 3339 time, a date (its midnight in UTC), or a duration back such as 30d; at most 119 days ago
    #[arg(long, value_name = "TIME")]
    from: When,
    /// Where it ends, in the same forms
    #[arg(long, value_name = "TIME", default_value = "now")]
    to: When,
    #[command(flatten)]
    which: Which,
    /// Read and count only: nothing is posted, nothing is written
    #[arg(long)]
    dry_run: bool,
}

/// A time as it is written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct When {
    text: String,
    moment: Moment,
}

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned(), moment: moment(text)? })
    }
}

/// The range in times; the end is cut to now. Judged by the source's clock.
fn span(args: &BackfillArgs, now: Time) -> Result<Span, CliError> {
    let (from, to) = (args.from.moment.before(now), args.to.moment.before(now));
    let refuse = |why: String| Err(CliError::Usage(why));
    if from >= now {
        return refuse(format!("--from {} lies in the future: it is {} at 1Password", written(from), written(now)));
    }
    if from >= to {
        return refuse(format!("--from {} is not before --to {}: exchange them", written(from), written(to)));
    }
    let oldest = earlier(now, REACH_BACK_MAX);
    if from < oldest {
        let least = written(oldest + chrono::TimeDelta::minutes(1));
        return refuse(format!(
            "--from {} is more than 119 days ago and 1Password keeps 120: the earliest possible is {least}",
            written(from)
        ));
    }
    let is_relative = args.from.moment.is_relative() || args.to.moment.is_relative();
    // A date ahead is cut to now, so it names another end at each start too.
    let is_relative = is_relative || to > now;
    let asked = format!("{} to {}", args.from.text, args.to.text);
    Ok(Span { from, to: to.min(now), asked, is_relative })
}

fn written(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

pub(super) async fn backfill(config: &Config, args: BackfillArgs, output: Output) -> Result<Exit, CliError> {
    let wanted = selected(config, &args.which)?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    Hangup::listen()?.ends_with_its_terminal();
    let outside = Outside::new(config).await?;
    let store = if args.dry_run { outside.store().await? } else { outside.proven_store().await? };
    let mut feeds = outside.agent(store, Patience::RUN, stop.clone()).await?.feeds;
    feeds.retain(|feed| wanted.contains(feed.id()));
    let now = source_time(&mut feeds).await?;
    let span = span(&args, now)?;
    tell(config, &args, &span, now);
    let mut results = Vec::new();
    for feed in &mut feeds {
        let result = one(feed, &span, args.dry_run).await;
        results.push((feed.id().clone(), result));
    }
    print(&report(&results, &span, args.dry_run, output))?;
    let is_whole = results.iter().all(|(_, result)| result.outcome.is_ok());
    if !is_whole && !args.dry_run {
        for (feed, remedy) in remedies(&results) {
            eprintln!("opship: {feed}: next: {remedy}");
        }
        eprintln!(
            "opship: not all of the range is shipped; what was shipped is recorded: then the same command goes on where it stood"
        );
    }
    let outcomes: Outcomes = results.into_iter().map(|(feed, result)| (feed, result.into_outcome())).collect();
    match exit(&outcomes) {
        Exit::Done if !is_whole => Ok(Exit::Failed),
        exit => Ok(exit),
    }
}

/// The clock of the first source that answers: a refused token must not keep the other accounts from their backfill.
async fn source_time(feeds: &mut [Feed]) -> Result<Time, CliError> {
    let mut refused = None;
    for feed in feeds {
        match feed.source_time().await {
            Ok(now) => return Ok(now),
            Err(trouble) => refused = refused.or(Some(trouble)),
        }
    }
    Err(refused.map_or_else(|| CliError::Usage("no feed matches".into()), CliError::from))
}

/// What to know before it begins.
fn tell(config: &Config, args: &BackfillArgs, span: &Span, now: Time) {
    let what = if args.dry_run { "counting" } else { "backfill of" };
    eprintln!("opship: {what} {} to {}", written(span.from), written(span.to));
    if args.to.moment.before(now) > now {
        eprintln!("opship: note: --to lies in the future: the range ends now");
    }
    if !args.dry_run && matches!(config.sink, Sink::Azure { .. }) && span.from < earlier(now, STAMP_AGE_MAX) {
        eprintln!("opship: {STAMP_NOTE}");
    }
}

/// What became of a feed: how far it came, and what ended it early.
struct Backfilled {
    progress: Option<Progress>,
    outcome: Result<(), Trouble>,
}

impl Backfilled {
    fn into_outcome(self) -> Result<Drained, Trouble> {
        let dead_letters = self.progress.map_or(0, |progress| progress.done.dead_letters);
        self.outcome.map(|()| Drained { dead_letters, ..Drained::default() })
    }
}

fn remedies(results: &[(FeedId, Backfilled)]) -> impl Iterator<Item = (&FeedId, String)> {
    results.iter().filter_map(|(feed, result)| Some((feed, result.outcome.as_ref().err()?.remedy())))
}

/// The range; one whose `now` was an earlier one, because it was interrupted, has what came since behind it.
async fn one(feed: &mut Feed, span: &Span, dry_run: bool) -> Backfilled {
    let first = part(feed, span, dry_run).await;
    let Some(begun) = first.progress.as_ref().filter(|begun| first.outcome.is_ok() && begun.span.to < span.to) else {
        return first;
    };
    let since = part(feed, &Span { from: begun.span.to, ..span.clone() }, dry_run).await;
    let mut done = begun.done;
    done.add(since.progress.as_ref().map(|since| since.done).unwrap_or_default());
    let to = since.progress.as_ref().map_or(begun.span.to, |since| since.span.to);
    let reached = since.progress.as_ref().map_or(begun.reached, |since| since.reached);
    let span = Span { to, ..begun.span.clone() };
    let progress = Progress { span, done, reached, ..begun.clone() };
    Backfilled { progress: Some(progress), outcome: since.outcome }
}

async fn part(feed: &mut Feed, span: &Span, dry_run: bool) -> Backfilled {
    let mut bar = Bar::new(feed.id());
    let mut last = None;
    let mut watch = |progress: &Progress| {
        bar.show(progress);
        last = Some(progress.clone());
    };
    // The budget of its lane paces it; no sweep is part of it.
    let tick = Tick { patience: Patience::RUN, standby_max: Duration::ZERO, late_gives_way: &|| false };
    let ended = feed.backfill(Backfill { span: span.clone(), dry_run, watch: &mut watch }, tick).await;
    bar.finish();
    match ended {
        Ok(progress) => Backfilled { progress: Some(progress), outcome: Ok(()) },
        Err(trouble) => Backfilled { progress: last, outcome: Err(trouble) },
    }
}

fn report(results: &[(FeedId, Backfilled)], span: &Span, dry_run: bool, output: Output) -> String {
    let line = |(feed, result): &(FeedId, Backfilled)| {
        let done = result.progress.as_ref().map(|progress| progress.done).unwrap_or_default();
        let range = result.progress.as_ref().map_or(span, |progress| &progress.span);
        let error = result.outcome.as_ref().err().map(|trouble| chain(trouble));
        let next = result.progress.as_ref().map(|progress| written(progress.reached));
        match output {
            Output::Json => json!({
                "feed": feed.to_string(), "from": written(range.from), "to": written(range.to), "dry_run": dry_run,
                "complete": result.outcome.is_ok(), "reached": next, "pages": done.pages, "read": done.read,
                (if dry_run { "would_ship" } else { "shipped" }): done.shipped, "known": done.known, "left_out": done.left_out,
                "dead_letters": done.dead_letters, "error": error,
            })
            .to_string(),
            Output::Text => {
                let shipped = if dry_run { "would be shipped" } else { "shipped" };
                let mut text = format!("{feed}: {} read, {} known, {} {shipped}", done.read, done.known, done.shipped);
                if range != span {
                    // An interrupted run had begun it at another time.
                    text.push_str(&format!(", of {} to {}", written(range.from), written(range.to)));
                }
                if done.left_out > 0 {
                    text.push_str(&format!(", {} filtered or repeated", done.left_out));
                }
                if done.dead_letters > 0 {
                    text.push_str(&format!(", {} dead letters", done.dead_letters));
                }
                if let Some(error) = error {
                    let reached = next.map_or("at its start".into(), |next| format!("at {next}"));
                    text.push_str(&format!("; ended {reached}: {error}"));
                }
                text
            }
        }
    };
    results.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(from: &str, to: &str) -> Result<Span, String> {
        let which = Which { account: None, stream: None };
        let args = BackfillArgs { from: from.parse()?, to: to.parse()?, which, dry_run: false };
        span(&args, "2026-11-22T10:00:00Z".parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_range_is_times_dates_or_durations_back_in_utc() {
        for (from, to, is_relative, expected) in [
            ("2026-10-01", "2026-10-08", false, "2026-10-01T00:00:00Z 2026-10-08T00:00:00Z"),
            (
                "2026-10-01T08:00:00+02:00",
                "2026-10-01T09:30:00.5Z",
                false,
                "2026-10-01T06:00:00Z 2026-10-01T09:30:00.500Z",
            ),
            ("30d", "now", true, "2026-10-23T10:00:00Z 2026-11-22T10:00:00Z"),
            ("36h", "2026-11-22", true, "2026-11-20T22:00:00Z 2026-11-22T00:00:00Z"),
            ("2026-11-20", "2026-12-24", true, "2026-11-20T00:00:00Z 2026-11-22T10:00:00Z"),
        ] {
            let span = asked(from, to).unwrap();
            assert_eq!(format!("{} {}", written(span.from), written(span.to)), expected);
            assert_eq!((span.is_relative, span.asked), (is_relative, format!("{from} to {to}")));
        }
    }

    #[test]
    fn a_wrong_range_is_refused_with_what_is_possible() {
        for (from, to, expected) in [
            ("2026-10-08", "2026-10-01", "--from 2026-10-08T00:00:00Z is not before --to 2026-10-01T00:00:00Z"),
            ("1d", "1d", "is not before --to"),
            ("2026-12-01", "now", "lies in the future: it is 2026-11-22T10:00:00Z at 1Password"),
            ("120d", "now", "the earliest possible is 2026-07-26T10:01:00Z"),
            ("1970-01-01", "now", "more than 119 days ago"),
            ("yesterday", "now", "expected a time such as"),
            ("2026-10-01T06:00:00", "now", "expected a time such as"),
            ("2026-02-30", "now", "expected a time such as"),
            ("-3d", "now", "expected a time such as"),
            ("", "now", "expected a time such as"),
        ] {
            let why = asked(from, to).unwrap_err();
            assert!(why.contains(expected), "{from} to {to}: {why}");
        }
    }
}
