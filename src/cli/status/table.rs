//! The table of `opship status`: the sentence first, a row a feed, then what is wrong and what to do.

use super::Told;
use crate::admin::status::{FeedStatus, Health, Status};
use crate::flow::Time;
use std::fmt::Write as _;

/// With colours or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Plain,
    Coloured,
}

/// Troubles of the past that are shown per feed; the page and the log have more.
const PAST_MAX: usize = 3;

/// Clocks that differ by so many seconds are right enough: what an event was stamped a moment ahead is told as 0 s ago.
const AHEAD_MAX: u64 = 60;

const HEAD: [&str; 11] =
    ["FEED", "STATE", "LAG", "NEWEST EVENT", "LAST GOOD", "NEXT TICK", "PAGES", "ROWS", "LATE", "IN DOUBT", "DEAD"];
/// Columns of words; the others are numbers and times, aligned to the right.
const WORDS: usize = 2;

pub(crate) fn table(told: &Told, look: Look) -> String {
    let status = &told.status;
    let mut text = format!("{}\n", look.paint(&plain(&status.summary), worst(status)));
    // Writing into a String cannot fail.
    let up = status.started.map(|started| format!(", up {}", span(seconds(started, status.now)))).unwrap_or_default();
    let _ = writeln!(text, "opship {}{up}, {}\n", plain(&status.version), plain(&told.by));
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
            Some(health) if column == 1 => look.paint(&padded, health),
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
        plain(&format!("{}/{}", feed.account, feed.stream)),
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
    let feed_name = plain(&format!("{}/{}", feed.account, feed.stream));
    if let Some(reason) = &feed.reason {
        let _ = writeln!(text, "\n{feed_name}: {}", plain(reason));
        if let Some(remedy) = &feed.remedy {
            let _ = writeln!(text, "  what to do: {}", plain(remedy));
        }
    }
    if let Some(intent) = &feed.open_intent {
        let (batch, kind) = (plain(&intent.batch_id), plain(&intent.kind));
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
        let _ = writeln!(text, "  {}{times}: {}", ago(error.at, now), plain(&error.what));
        if let Some(remedy) = &error.remedy {
            let _ = writeln!(text, "    what to do: {}", plain(remedy));
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

impl Look {
    fn paint(self, text: &str, health: Health) -> String {
        let colour = match health {
            Health::Good | Health::CatchingUp | Health::Standby => "32",
            Health::Starting | Health::Waiting => "33",
            Health::Broken | Health::Stopped | Health::Silent => "31",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{colour}m{text}\x1b[0m"),
        }
    }
}

/// What others said must not reach the terminal as commands.
fn plain(text: &str) -> String {
    let is_bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_bad(c) { '\u{fffd}' } else { c }).collect()
}

/// Also of what another clock stamped: a time that is still to come is not called fresh.
fn ago(time: Time, now: Time) -> String {
    let (past, ahead) = (seconds(time, now), seconds(now, time));
    if ahead > AHEAD_MAX { format!("in {}", span(ahead)) } else { format!("{} ago", span(past)) }
}

fn seconds(from: Time, to: Time) -> u64 {
    (to - from).num_seconds().max(0).unsigned_abs()
}

/// The two largest units: 3 d 4 h, 12 min 5 s, 0 s.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let comma = |(at, digit): (usize, char)| {
        let comma = at > 0 && (digits.len() - at).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(comma).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_for_people() {
        let grouped = [0, 7, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(grouped, ["0", "7", "999", "1,000", "123,456", "1,234,567"]);
        let spans = [0, 59, 61, 3_600, 90_061, 864_000].map(span);
        assert_eq!(spans, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h", "10 d 0 h"]);
    }

    /// Fault: a stamp of another clock that lies an hour ahead of the host's. Shows: the table says that it is to come, not that it is fresh.
    #[test]
    fn fm_47_a_stamp_from_the_future_is_not_called_fresh() {
        let now: Time = "2026-11-23T06:00:00Z".parse().unwrap();
        let seconds = |seconds| now + chrono::TimeDelta::seconds(seconds);
        let told = [-61, 0, 30, 3600].map(|ahead| ago(seconds(ahead), now));
        assert_eq!(told, ["1 min 1 s ago", "0 s ago", "0 s ago", "in 1 h 0 min"]);
    }

    #[test]
    fn a_table_obeys_nobody_but_us() {
        assert_eq!(plain("a\u{1b}[31m\r\nb\u{202e}c"), "a\u{fffd}[31m\u{fffd}\u{fffd}b\u{fffd}c");
        assert_eq!(Look::Plain.paint("x", Health::Broken), "x");
        assert_eq!(Look::Coloured.paint("x", Health::Broken), "\x1b[31mx\x1b[0m");
    }
}
