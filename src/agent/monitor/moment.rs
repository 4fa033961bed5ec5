//! A moment by two clocks: the host's, for people to read, and the monotonic one, from which every age is told.

use crate::flow::Time;
use crate::flow::window::{earlier, later};
use chrono::Utc;
use std::time::Duration;
use tokio::time::Instant;

/// The host's clock counts as set when it went so far another way than the monotonic one.
const SET_BY: Duration = Duration::from_secs(2);

/// When something was. The host's clock may be set at any time, so an age is never a difference of its readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// As the host's clock read then.
    pub at: Time,
    instant: Instant,
}

impl Moment {
    pub fn now() -> Self {
        Self { at: Utc::now(), instant: Instant::now() }
    }

    /// How long ago this was `now`, by the monotonic clock; zero for what is still to come.
    pub fn age(self, now: Self) -> Duration {
        now.instant.saturating_duration_since(self.instant)
    }

    /// So long afterwards, by both clocks.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        let instant = self.instant.checked_add(by).unwrap_or(self.instant);
        Self { at: later(self.at, by), instant }
    }

    /// The same of what lies behind us: a tick may end between the reading of `now` and that of a feed.
    pub fn past(self, now: Self) -> Time {
        self.shown(now).min(now.at)
    }

    /// What the host's clock read then or, where it was set since, what it would have read as it goes now. So whoever subtracts it from
    /// the time of now finds the age, never a negative one.
    pub fn shown(self, now: Self) -> Time {
        let ahead = self.instant.saturating_duration_since(now.instant);
        let (at, latest) = match ahead {
            Duration::ZERO => (earlier(now.at, self.age(now)), now.at),
            ahead => (later(now.at, ahead), Time::MAX_UTC),
        };
        let is_set = (at - self.at).abs().to_std().is_ok_and(|by| by > SET_BY);
        if is_set { at } else { self.at.min(latest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    const MINUTE: Duration = Duration::from_secs(60);

    /// `now`, with the host's clock set by so many seconds meanwhile.
    fn set_by(now: Moment, seconds: i64) -> Moment {
        Moment { at: now.at + TimeDelta::seconds(seconds), ..now }
    }

    /// Fault: the host's clock is set back or ahead after the moment. Shows: its age and the age that its shown time gives are those of the monotonic clock.
    #[test]
    fn fm_47_an_age_is_never_negative_nor_from_a_future_stamp() {
        let then = Moment::now();
        let now = then.later(MINUTE);
        assert_eq!((then.age(now), then.shown(now)), (MINUTE, then.at));
        for seconds in [3600, -120, -40 * 86_400] {
            let now = set_by(now, seconds);
            assert_eq!(then.age(now), MINUTE, "{seconds}");
            assert_eq!(now.at - then.shown(now), TimeDelta::seconds(60), "{seconds}");
        }
        let set_back_a_little = set_by(then, -1);
        assert_eq!(then.shown(set_back_a_little), set_back_a_little.at);
        assert_eq!(now.age(then), Duration::ZERO, "what is to come has no age");
    }

    #[test]
    fn what_is_to_come_is_as_far_away_by_the_clock_as_it_stands() {
        let now = Moment::now();
        let next = now.later(MINUTE);
        assert_eq!(next.shown(now), next.at);
        let now = set_by(now, -3600);
        assert_eq!(next.shown(now) - now.at, TimeDelta::seconds(60));
        assert_eq!(now.later(Duration::MAX).age(now), Duration::ZERO);
    }
}
