//! Sliding-window request limits.

use crate::flow::Time;
use chrono::TimeDelta;
use std::collections::VecDeque;

/// So many requests in any such span.
struct Limit {
    requests: usize,
    span: TimeDelta,
    passed: VecDeque<Time>,
}

/// Several limits that a request must all pass.
pub(super) struct Pace(Vec<Limit>);

impl Pace {
    /// The Events API: 600 in a minute and 30,000 in an hour, over all streams of an account.
    pub(super) fn events() -> Self {
        Self(vec![Limit::new(600, TimeDelta::minutes(1)), Limit::new(30_000, TimeDelta::hours(1))])
    }

    /// The Logs Ingestion API: 12,000 in a minute.
    pub(super) fn ingestion() -> Self {
        Self(vec![Limit::new(12_000, TimeDelta::minutes(1))])
    }

    /// The Log Analytics query API: 200 in 30 seconds for a user.
    pub(super) fn query() -> Self {
        Self(vec![Limit::new(200, TimeDelta::seconds(30))])
    }

    /// True, and counted, when the request is within every limit. Refused requests do not count.
    pub(super) fn admit(&mut self, now: Time) -> bool {
        self.0.iter_mut().for_each(|limit| limit.forget(now));
        let within = self.0.iter().all(|limit| limit.passed.len() < limit.requests);
        if within {
            self.0.iter_mut().for_each(|limit| limit.passed.push_back(now));
        }
        within
    }
}

impl Limit {
    fn new(requests: usize, span: TimeDelta) -> Self {
        Self { requests, span, passed: VecDeque::new() }
    }

    fn forget(&mut self, now: Time) {
        while self.passed.front().is_some_and(|at| now - *at >= self.span) {
            self.passed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minute_fills_and_slides() {
        let start = Time::UNIX_EPOCH;
        let mut pace = Pace::events();
        assert!((0..600).all(|n| pace.admit(start + TimeDelta::milliseconds(n))));
        assert!(!pace.admit(start + TimeDelta::seconds(59)));
        assert!(pace.admit(start + TimeDelta::seconds(60)));
        assert!(!pace.admit(start + TimeDelta::seconds(60)), "one place was free");
    }
}
