//! Which time is believed. The source's `Date` decides what is re-read, forgotten and taken over, so one wrong answer must not be enough:
//! whatever is far from what was expected waits for a second answer that agrees.

use super::Time;
use super::planted::{self, Bug};
use super::window::later;
use std::fmt;
use std::time::Duration;

/// How far an answer's clock may be from the expected time and still be believed at once: the tolerance of most sign-in protocols, three
/// times over.
pub const APART_MAX: Duration = Duration::from_secs(15 * 60);
/// How long after a doubted answer another one counts as a second opinion: not the same moment's fault again.
pub const SECOND_OPINION_AFTER: Duration = Duration::from_secs(60);

/// The time as both sides tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The source's, as believed.
    pub date: Time,
    /// This host's.
    pub host: Time,
}

impl Clocks {
    /// Both say the same.
    #[cfg(test)]
    pub fn agreed(date: Time) -> Self {
        Self { date, host: date }
    }

    /// For what must not be too late: where a feed starts, and how far back it may ask.
    pub fn earlier(self) -> Time {
        if planted::is(Bug::BelieveEveryDate) { self.date } else { self.date.min(self.host) }
    }

    /// How far the two are apart, where that is more than clocks may be.
    pub fn disagree(self) -> Option<Duration> {
        let apart = (self.date - self.host).abs().to_std().unwrap_or_default();
        (apart > APART_MAX).then_some(apart)
    }
}

/// An answer whose time is not believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubted {
    pub said: Time,
    pub expected: Time,
    /// The expected time comes from the answers before; else from this host's clock.
    pub by_answers: bool,
}

impl fmt::Display for Doubted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let apart = (self.said - self.expected).abs().to_std().unwrap_or_default();
        let side = if self.said > self.expected { "ahead of" } else { "behind" };
        let whom = if self.by_answers { "its answers before" } else { "this host's clock" };
        let (said, expected) = (shown(self.said), shown(self.expected));
        write!(f, "1Password's clock says {said}, {} {side} {whom}, by which it is {expected}", in_words(apart))
    }
}

fn shown(time: Time) -> String {
    time.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A length of time by its two largest units, rounded to the second of them: `130 d 4 h`, `2 h 5 min`.
pub fn in_words(time: Duration) -> String {
    let to = match time.as_secs() {
        86_370.. => 3600,
        3_570.. => 60,
        _ => 1,
    };
    let seconds = time.saturating_add(Duration::from_millis(to * 500)).as_secs() / to * to;
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = parts.iter().skip(first).take(2).filter(|(count, _)| *count > 0 || first == 3);
    shown.map(|(count, unit)| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

/// Hears the time of each answer of one account. `at` is always the time since the process began, by a clock that nobody can set.
#[derive(Debug, Default)]
pub struct Judge {
    believed: Option<(Time, Duration)>,
    doubted: Option<(Time, Duration)>,
    /// Since when every believed answer has continued the one before it.
    since: Option<Duration>,
}

impl Judge {
    /// Whether the time of an answer may be used. The first answer is held against the host's clock, each later one against the last
    /// believed one and the time since. One that does not fit is believed when the next that does not fit, a minute later, continues it.
    ///
    /// # Errors
    /// Not yet: nothing may move by this answer.
    pub fn hear(&mut self, date: Time, host: Time, at: Duration) -> Result<(), Doubted> {
        let expected = self.believed.map_or(host, |(said, then)| later(said, at.saturating_sub(then)));
        if fits(date, expected) || planted::is(Bug::BelieveEveryDate) {
            self.since.get_or_insert(at);
            (self.believed, self.doubted) = (Some((date, at)), None);
            return Ok(());
        }
        let by_answers = self.believed.is_some();
        let continues = |(said, then): &(Time, Duration)| fits(date, later(*said, at.saturating_sub(*then)));
        match self.doubted.filter(continues) {
            Some((_, then)) if at.saturating_sub(then) >= SECOND_OPINION_AFTER => {
                self.since = Some(then);
                (self.believed, self.doubted) = (Some((date, at)), None);
                Ok(())
            }
            Some(_) => Err(Doubted { said: date, expected, by_answers }),
            None => {
                self.doubted = Some((date, at));
                Err(Doubted { said: date, expected, by_answers })
            }
        }
    }

    /// The time by the last believed answer; none before there was one.
    pub fn now(&self, at: Duration) -> Option<Time> {
        self.believed.map(|(said, then)| later(said, at.saturating_sub(then)))
    }

    /// Two answers at least a minute apart agree on the time.
    pub fn is_sure(&self) -> bool {
        self.since.zip(self.believed).is_some_and(|(since, (_, at))| at.saturating_sub(since) >= SECOND_OPINION_AFTER)
    }
}

fn fits(said: Time, expected: Time) -> bool {
    (said - expected).abs().to_std().unwrap_or(Duration::MAX) <= APART_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Time {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    /// What is said of answers that are ahead of the true time by so many seconds, a second and a half minute apart in turn.
    fn heard(ahead: &[i64], gap: Duration) -> Vec<bool> {
        let (mut judge, mut at) = (Judge::default(), Duration::ZERO);
        let mut hear = |ahead: &i64| {
            let truth = later(start(), at);
            let believed = judge.hear(truth + TimeDelta::seconds(*ahead), truth, at).is_ok();
            at += gap;
            believed
        };
        ahead.iter().map(&mut hear).collect()
    }

    /// Fault: one answer, several within a minute, and answers that differ from each other, each years or minutes off. Shows: none is believed, and the next right one is.
    #[test]
    fn fm_46_a_time_out_of_line_is_not_believed() {
        const YEAR: i64 = 365 * 86_400;
        for wrong in [YEAR, -YEAR, 901, -901] {
            assert_eq!(heard(&[wrong, 0, 0], SECOND), [false, true, true], "at the start");
            assert_eq!(heard(&[0, wrong, 0], SECOND), [true, false, true], "in between");
            assert_eq!(heard(&[0, wrong, wrong, wrong, 0], SECOND * 20), [true, false, false, false, true]);
            assert_eq!(heard(&[0, wrong, wrong * 2, wrong * 4, 0], SECOND * 90), [true, false, false, false, true]);
            assert_eq!(heard(&[0, wrong, 0, wrong, 0], SECOND * 90), [true, false, true, false, true], "taking turns");
        }
        assert_eq!(heard(&[0, 900, -900, 900], SECOND), [true, true, false, true], "little by little is no jump");
    }

    #[test]
    fn a_second_answer_a_minute_later_is_believed_against_the_host_and_against_what_was() {
        for ahead in [130 * 86_400, -130 * 86_400] {
            assert_eq!(heard(&[ahead, ahead, ahead], SECOND * 60), [false, true, true]);
            assert_eq!(heard(&[0, ahead, ahead, ahead], SECOND * 60), [true, false, true, true]);
            assert_eq!(heard(&[0, ahead, ahead, ahead, ahead], SECOND * 59), [true, false, false, true, true]);
        }
    }

    #[test]
    fn two_answers_a_minute_apart_are_sure_and_a_jump_begins_anew() {
        let mut judge = Judge::default();
        let mut hear = |ahead: i64, at: u64| {
            let truth = later(start(), SECOND * at as u32);
            _ = judge.hear(truth + TimeDelta::seconds(ahead), truth, SECOND * at as u32);
            judge.is_sure()
        };
        assert_eq!([hear(0, 0), hear(0, 59), hear(0, 60)], [false, false, true]);
        assert!(!hear(7200, 70) || hear(7200, 100), "a doubted answer changes nothing");
        assert!(hear(7200, 130), "it took a minute to be believed");
    }

    #[test]
    fn what_is_doubted_says_how_far_and_from_what() {
        let mut judge = Judge::default();
        let off = start() + TimeDelta::seconds(130 * 86_400 + 4 * 3600);
        let said = judge.hear(off, start(), Duration::ZERO).unwrap_err().to_string();
        assert_eq!(
            said,
            "1Password's clock says 2027-04-01 14:00:00Z, 130 d 4 h ahead of this host's clock, by which it is 2026-11-22 10:00:00Z"
        );
        judge.hear(start(), start(), Duration::ZERO).unwrap();
        let said = judge.hear(start() - TimeDelta::hours(2), start(), SECOND).unwrap_err().to_string();
        assert!(said.contains("2 h behind its answers before"), "{said}");
        assert_eq!([0, 59, 3_599, 86_461, 86_399].map(|s| in_words(SECOND * s)), ["0 s", "59 s", "1 h", "1 d", "1 d"]);
    }

    #[test]
    fn the_earlier_clock_decides_and_a_quarter_of_an_hour_is_no_disagreement() {
        let clocks = |ahead: i64| Clocks { date: start() + TimeDelta::seconds(ahead), host: start() };
        assert_eq!(clocks(400 * 86_400).earlier(), start());
        assert_eq!(clocks(-60).earlier(), start() - TimeDelta::seconds(60));
        assert_eq!([900, -900].map(|ahead| clocks(ahead).disagree()), [None, None]);
        assert_eq!([901, -901].map(|ahead| clocks(ahead).disagree()), [Some(SECOND * 901); 2]);
    }
}
