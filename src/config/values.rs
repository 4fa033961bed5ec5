//! The texts that need reading: durations, times, cron, log levels, URLs. The errors say what was expected.

use super::Lookback;
use super::problem::{did_you_mean, found, listed, nearest};
use chrono::{DateTime, Utc};
use croner::parser::{CronParser, Seconds};
use std::ops::RangeInclusive;
use std::time::Duration;
use url::Url;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
/// The API returns nothing older than 120 days; one day is kept for clocks and long runs.
pub(super) const LOOKBACK_MAX: Duration = Duration::from_secs(119 * 24 * 3600);

pub(super) fn duration(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, String> {
    let (low, high) = (written(*bounds.start()), written(*bounds.end()));
    let expected = || format!("expected a duration from {low} to {high}, such as \"5m\" or \"1h 30m\"{}", found(text));
    let parsed = humantime::parse_duration(text.trim()).map_err(|_| expected())?;
    if bounds.contains(&parsed) { Ok(parsed) } else { Err(expected()) }
}

/// A duration in its largest whole unit: unlike humantime's own it has no months of 30.44 days.
pub(super) fn written(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    match (seconds, nanos) {
        (0, 0) => "0s".into(),
        // 24h and 72h, as everyone writes them, but 30d
        (s, 0) if s.is_multiple_of(86_400) && s >= 7 * 86_400 => format!("{}d", s / 86_400),
        (s, 0) if s.is_multiple_of(3600) => format!("{}h", s / 3600),
        (s, 0) if s.is_multiple_of(60) => format!("{}m", s / 60),
        (s, 0) => format!("{s}s"),
        (0, n) => format!("{n}ns"),
        (s, n) => format!("{s}s {n}ns"),
    }
}

pub(super) fn lookback(text: &str) -> Result<Lookback, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(Lookback::Now);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(Lookback::From(time.to_utc()));
    }
    duration(text, Duration::ZERO..=LOOKBACK_MAX).map(Lookback::Back).map_err(|_| {
        format!(
            "expected a duration back of at most {}, an RFC 3339 time such as 2026-11-01T00:00:00Z, or \"now\"{}",
            written(LOOKBACK_MAX),
            found(text)
        )
    })
}

/// Six fields, checked by the parser that the scheduler uses. Five get second 0.
pub(super) fn cron(text: &str) -> Result<String, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let six = match fields.len() {
        5 => format!("0 {}", fields.join(" ")),
        6 => fields.join(" "),
        count => {
            return Err(format!("expected 5 or 6 cron fields ([second] minute hour day month weekday), found {count}"));
        }
    };
    let parser = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build();
    let invalid = || format!("expected a cron expression such as \"*/5 * * * *\"{}", found(text));
    let pattern = parser.parse(&six).map_err(|err| format!("{}: {err}", invalid()))?;
    // any fixed day does: a pattern without a next time, such as 30 February, never has one
    pattern
        .find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, false)
        .map_err(|_| format!("{}: this one never comes", invalid()))?;
    Ok(six)
}

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// `LEVEL` or `MODULE=LEVEL`, with commas between. Checked here because the log filter takes a misspelt level for a module.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    for directive in text.split(',').map(str::trim) {
        let (module, level) = directive.rsplit_once('=').unwrap_or(("opship", directive));
        if module.is_empty() || !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            let hint = did_you_mean(nearest(level, LEVELS));
            let expected = "expected a level or MODULE=LEVEL, the level being one of";
            return Err(format!("{expected} {}{}{hint}", listed(LEVELS), found(level)));
        }
    }
    Ok(text.split(',').map(str::trim).collect::<Vec<_>>().join(","))
}

/// A URL; its text is never repeated, since a wrong one may hold anything.
pub(super) fn url(text: &str) -> Result<Url, String> {
    Url::parse(text.trim()).map_err(|err| format!("expected a URL such as https://host/: {err}"))
}

/// Letters, digits and the given others, 1 to 256 of them.
pub(super) fn word(text: &str, others: &str, expected: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    match (1..=256).contains(&text.len()) && text.chars().all(legal) {
        true => Ok(text.to_owned()),
        false => Err(format!("expected {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_duration_reads_back_the_same() {
        let millis = Duration::from_millis(1500);
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (DAY * 121, "121d"),
            (SECOND * 108_000, "30h"),
            (SECOND * 90, "90s"),
            (millis, "1s 500000000ns"),
        ] {
            assert_eq!(written(duration), text);
            assert_eq!(humantime::parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn bounds_are_inclusive_and_named() {
        assert_eq!(duration("24h", Duration::ZERO..=DAY), Ok(DAY));
        let message = duration("25h", Duration::ZERO..=DAY).unwrap_err();
        assert!(message.contains("from 0s to 24h") && message.contains("`25h`"), "{message}");
        for text in ["", "5", "-5m", "m", "5 parsecs", "99999999999999999999y"] {
            assert!(duration(text, SECOND..=DAY).is_err(), "{text}");
        }
    }

    #[test]
    fn cron_takes_five_or_six_fields_that_come_true() {
        assert_eq!(cron("*/5 * * * *").as_deref(), Ok("0 */5 * * * *"));
        assert_eq!(cron(" 30  0 * * * * ").as_deref(), Ok("30 0 * * * *"));
        for text in ["", "* * * *", "@hourly", "61 * * * *", "0 0 30 2 *", "* * * * * * 2026", "a b c d e"] {
            assert!(cron(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lookback_is_a_duration_a_time_or_now() {
        assert_eq!(lookback("30d"), Ok(Lookback::Back(DAY * 30)));
        assert_eq!(lookback("now"), Ok(Lookback::Now));
        let utc = "2026-11-01T00:00:00Z".parse().map(Lookback::From).map_err(|_| String::new());
        assert_eq!(lookback("2026-11-01T01:00:00+01:00"), utc);
        assert!(lookback("120d").is_err() && lookback("2026-11-01").is_err() && lookback("yesterday").is_err());
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_module() {
        assert_eq!(log_level("info, opship::sink=debug").as_deref(), Ok("info,opship::sink=debug"));
        assert!(log_level("inof").unwrap_err().contains("did you mean `info`?"));
        assert!(log_level("=debug").is_err() && log_level("").is_err());
    }
}
