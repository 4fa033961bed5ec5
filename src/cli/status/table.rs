//! The table of `opship status`: the sentence first, a row a feed, then what is wrong and what to do.

use super::Told;
use crate::admin::status::{FeedStatus, Health, Status};
use crate::cli::text::{Colour, Look, ago, clean, seconds, span};
use crate::flow::Time;
use indicatif::HumanCount;
use std::fmt::Write as _;

/// Troubles of the past that are shown per feed; the page and the log have more.
const PAST_MAX: usize = 3;

const HEAD: [&str; 11] =
    ["FEED", "STATE", "LAG", "NEWEST EVENT", "LAST GOOD", "NEXT TICK", "PAGES", "ROWS", "LATE", "IN DOUBT", "DEAD"];
/// Columns of words; the others are numbers and times, aligned to the right.
const WORDS: usize = 2;

pub(crate) fn table(told: &Told, look: Look) -> String {
    let status = &told.status;
    let mut text = format!("{}\n", look.paint(&clean(&status.summary), colour(worst(status))));
    // Writing into a String cannot fail.
    let up = status.started.map(|started| format!(", up {}", span(seconds(started, status.now)))).unwrap_or_default();
    let _ = writeln!(text, "opship {}{up}, {}\n", clean(&status.version), clean(&told.by));
    let rows: Vec<[String; 11]> = status.feeds.iter().map(|feed| row(feed, status.now)).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(HEAD.get(column).map(|head| head.len())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    line(&mut text, &HEAD.map(str::to_owned), &widths, None, look);
    for (row, feed) in rows.iter().zip(&status.feeds) {
        line(&mut text, row, &widths, Some(feed.health), look);
    }
    status.feeds.iter().for_each(|feed| trouble(&mut text, feed, status.now));
    text
}

fn line(text: &mut String, cells: &[String; 11], widths: &[usize], health: Option<Health>, look: Look) {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let gap = if column == 0 { "" } else { "  " };
        let padded = if column < WORDS { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
        let padded = match health {
            Some(health) if column == 1 => look.paint(&padded, colour(health)),
            _ => padded,
        };
        let _ = write!(line, "{gap}{padded}");
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

fn row(feed: &FeedStatus, now: Time) -> [String; 11] {
    let ago = |time: Option<Time>| time.map_or_else(|| "-".into(), |time| ago(time, now));
    let next = match feed.next_tick {
        Some(next) if next <= now => "now".into(),
        Some(next) => format!("in {}", span(seconds(now, next))),
        None => "-".into(),
    };
    let in_doubt = match (feed.in_doubt_batches, feed.in_doubt_rows) {
        (0, _) => "0".into(),
        (batches, rows) => format!("{} ({} rows)", grouped(batches), grouped(rows)),
    };
    [
        clean(&format!("{}/{}", feed.account, feed.stream)),
        name(feed.health).into(),
        feed.lag_seconds.map_or_else(|| "-".into(), span),
        ago(feed.newest_shipped),
        ago(feed.last_good),
        next,
        grouped(feed.pages),
        grouped(feed.rows),
        grouped(feed.late),
        in_doubt,
        grouped(feed.dead_letters),
    ]
}

fn trouble(text: &mut String, feed: &FeedStatus, now: Time) {
    let feed_name = clean(&format!("{}/{}", feed.account, feed.stream));
    if let Some(reason) = &feed.reason {
        let _ = writeln!(text, "\n{feed_name}: {}", clean(reason));
        if let Some(remedy) = &feed.remedy {
            let _ = writeln!(text, "  what to do: {}", clean(remedy));
        }
    }
    if let Some(intent) = &feed.open_intent {
        let (batch, kind) = (clean(&intent.batch_id), clean(&intent.kind));
        let _ = writeln!(
            text,
            "\n{feed_name}: batch {batch} ({kind}, {} rows) is open, attempt {}",
            intent.rows, intent.attempt
        );
    }
    let told = |what: &str| feed.reason.as_ref().is_some_and(|reason| reason.ends_with(what));
    let past: Vec<_> = feed.errors.iter().filter(|error| !told(&error.what)).take(PAST_MAX).collect();
    if past.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{feed_name}, earlier:");
    for error in past {
        let times = if error.times > 1 { format!(" ({} times)", error.times) } else { String::new() };
        let _ = writeln!(text, "  {}{times}: {}", ago(error.at, now), clean(&error.what));
        if let Some(remedy) = &error.remedy {
            let _ = writeln!(text, "    what to do: {}", clean(remedy));
        }
    }
}

pub(crate) const fn name(health: Health) -> &'static str {
    match health {
        Health::Good => "good",
        Health::Starting => "starting",
        Health::CatchingUp => "catching up",
        Health::Standby => "standby",
        Health::Waiting => "waiting",
        Health::Broken => "broken",
        Health::Stopped => "stopped",
        Health::Silent => "silent",
    }
}

fn worst(status: &Status) -> Health {
    if status.ready {
        return Health::Good;
    }
    let broken = |feed: &FeedStatus| matches!(feed.health, Health::Broken | Health::Silent);
    if status.feeds.iter().any(broken) { Health::Broken } else { Health::Waiting }
}

const fn colour(health: Health) -> Colour {
    match health {
        Health::Good | Health::CatchingUp | Health::Standby => Colour::Green,
        Health::Starting | Health::Waiting => Colour::Yellow,
        Health::Broken | Health::Stopped | Health::Silent => Colour::Red,
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}
