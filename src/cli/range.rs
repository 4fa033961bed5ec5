//! A stretch of time on the command line: RFC 3339 times, dates, durations back.

use super::CliError;
use crate::flow::Time;
use crate::flow::window::{REACH_BACK_MAX, earlier};
use crate::table::Span;
use chrono::{NaiveDate, NaiveTime, SubsecRound, TimeDelta};
use std::time::Duration;

/// A moment as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    At(Time),
    /// So long before now.
    Back(Duration),
}

/// For clap.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(Moment::Back(Duration::ZERO));
    }
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(Moment::At(time.to_utc()));
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(Moment::At(date.and_time(NaiveTime::MIN).and_utc()));
    }
    humantime::parse_duration(text).map(Moment::Back).map_err(|_| {
        "expected a time such as 2026-11-22T10:00:00Z, a date such as 2026-11-22 (midnight UTC), a duration back such as 7d, or now".into()
    })
}

impl Moment {
    /// The time that is meant when it is `now`; the beginning of all time for durations beyond that.
    pub(crate) fn before(self, now: Time) -> Time {
        match self {
            Self::At(time) => time,
            Self::Back(by) => earlier(now, by),
        }
    }

    pub(crate) const fn is_relative(self) -> bool {
        matches!(self, Self::Back(_))
    }
}

/// The stretch between two moments by a clock that says `now`, in whole milliseconds.
pub(crate) fn span(from: Moment, to: Moment, now: Time) -> Result<Span, CliError> {
    let (from, until) = (from.before(now).trunc_subsecs(3), to.before(now).trunc_subsecs(3));
    let usage = |what: String| Err(CliError::Usage(what));
    if until > now {
        return usage(format!("--to {until} lies in the future: it is {now} at the source"));
    }
    if from >= until {
        return usage(format!("--from {from} is not before --to {until}"));
    }
    let oldest = earlier(now, REACH_BACK_MAX);
    // A duration of exactly the reach is meant, although time has passed since it was typed.
    if from + TimeDelta::minutes(1) < oldest {
        let days = REACH_BACK_MAX.as_secs() / 86_400;
        return usage(format!(
            "--from {from} is older than {days} days: 1Password keeps events for 120 days, so nothing is compared; the oldest --from is {oldest}"
        ));
    }
    Ok(Span { from: from.max(oldest.trunc_subsecs(3)), until })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn read(from: &str, to: &str) -> Result<(Time, Time), String> {
        let now = at("2026-11-22T10:30:00Z");
        let span = span(moment(from).unwrap(), moment(to).unwrap(), now).map_err(|error| error.to_string())?;
        Ok((span.from, span.until))
    }

    #[test]
    fn times_dates_and_durations_back_are_moments() {
        let week = (at("2026-11-15T10:30:00Z"), at("2026-11-22T10:30:00Z"));
        assert_eq!(read("7d", "now"), Ok(week));
        assert_eq!(read("2026-11-20", "2h"), Ok((at("2026-11-20T00:00:00Z"), at("2026-11-22T08:30:00Z"))));
        let offset = read("2026-11-20T12:00:00+01:00", "2026-11-20T11:00:00.1239Z");
        assert_eq!(offset, Ok((at("2026-11-20T11:00:00Z"), at("2026-11-20T11:00:00.123Z"))));
        assert_eq!(read("119d", "now").map(|(from, _)| from), Ok(at("2026-07-26T10:30:00Z")));
        for text in ["", "yesterday", "22.11.2026", "2026-11-22 10:00", "-7d", "7"] {
            assert!(moment(text).unwrap_err().starts_with("expected a time such as"), "{text}");
        }
    }

    #[test]
    fn a_range_that_is_empty_too_old_or_in_the_future_is_refused_in_words() {
        for (from, to, why) in [
            ("1d", "2d", "is not before --to"),
            ("now", "now", "is not before --to"),
            ("1d", "2026-11-22T11:00:00Z", "lies in the future"),
            ("120d", "now", "older than 119 days"),
            ("2020-01-01", "1d", "older than 119 days"),
        ] {
            let said = read(from, to).unwrap_err();
            assert!(said.contains(why), "{from} to {to}: {said}");
        }
    }
}
