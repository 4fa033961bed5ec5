//! A stretch of time on the command line: RFC 3339 times, dates, durations back.

use super::CliError;
use crate::flow::Time;
use crate::flow::window::{REACH_BACK_MAX, earlier};
use crate::table::Span;
use chrono::{NaiveDate, NaiveTime, SecondsFormat, SubsecRound, TimeDelta};
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

/// For clap: how long something takes or is kept.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a duration such as 15m, 36h or 90d".into())
}

/// As [`moment`] reads it.
pub(crate) fn written(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// The stretch between two moments by a clock that says `now`, in whole milliseconds. It ends now at the latest.
pub(crate) fn span(from: Moment, to: Moment, now: Time) -> Result<Span, CliError> {
    let now = now.trunc_subsecs(3);
    let (from, until) = (from.before(now).trunc_subsecs(3), to.before(now).trunc_subsecs(3));
    let usage = |what: String| Err(CliError::Usage(what));
    if from > now {
        return usage(format!("--from {} lies in the future: it is {} at 1Password", written(from), written(now)));
    }
    if from >= until {
        return usage(format!("--from {} is not before --to {}: exchange them", written(from), written(until)));
    }
    let oldest = earlier(now, REACH_BACK_MAX);
    // A duration of exactly the reach is meant, although time has passed since it was typed.
    if from + TimeDelta::minutes(1) < oldest {
        let days = REACH_BACK_MAX.as_secs() / 86_400;
        return usage(format!(
            "--from {} is older than {days} days: 1Password keeps events for 120 days, so nothing is compared; the oldest --from is {}",
            written(from),
            written(oldest)
        ));
    }
    Ok(Span { from: from.max(oldest.trunc_subsecs(3)), until: until.min(now) })
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
        let cut = (at("2026-11-20T00:00:00Z"), at("2026-11-22T10:30:00Z"));
        assert_eq!(read("2026-11-20", "2999-01-01"), Ok(cut), "a range ends now at the latest");
        for text in ["", "yesterday", "22.11.2026", "2026-11-22 10:00", "-7d", "7"] {
            assert!(moment(text).unwrap_err().starts_with("expected a time such as"), "{text}");
        }
    }

    #[test]
    fn a_range_that_is_empty_too_old_or_in_the_future_is_refused_in_words() {
        for (from, to, why) in [
            ("1d", "2d", "is not before --to"),
            ("now", "now", "is not before --to"),
            (
                "2027-01-01",
                "now",
                "--from 2027-01-01T00:00:00Z lies in the future: it is 2026-11-22T10:30:00Z at 1Password",
            ),
            ("2027-01-01", "2027-02-01", "lies in the future"),
            ("2026-11-20", "2026-11-19", "--from 2026-11-20T00:00:00Z is not before --to 2026-11-19T00:00:00Z"),
            ("120d", "now", "older than 119 days"),
            ("2020-01-01", "1d", "the oldest --from is 2026-07-26T10:30:00Z"),
        ] {
            let said = read(from, to).unwrap_err();
            assert!(said.contains(why), "{from} to {to}: {said}");
        }
    }
}
