//! One way to try again: a pace that grows, full jitter, and an end.

use super::retry::{Pace, Patience};
use std::ops::ControlFlow;
use std::time::Duration;

/// Tries of one thing. The caller has the clock, and the process's end.
#[derive(Debug)]
pub struct Attempts {
    patience: Patience,
    pace: Pace,
    jitter: Jitter,
    made: u32,
}

impl Attempts {
    pub fn new(patience: Patience, jitter: &mut Jitter) -> Self {
        Self { patience, pace: Pace::default(), jitter: jitter.fork(), made: 0 }
    }

    /// One more begins. Returns its number, from 1 on.
    pub const fn begin(&mut self) -> u32 {
        self.made = self.made.saturating_add(1);
        self.made
    }

    /// How long to wait before the next, `elapsed` after the first began and not below `at_least`. `Break`: patience allows no next one; with
    /// the wait all the same, for a caller who has another limit.
    pub fn pause(&mut self, elapsed: Duration, at_least: Option<Duration>) -> ControlFlow<Duration, Duration> {
        let wait = self.pace.next(self.jitter.unit(), at_least);
        if self.patience.allows(self.made, elapsed, wait) {
            ControlFlow::Continue(wait)
        } else {
            ControlFlow::Break(wait)
        }
    }
}

/// Numbers in `[0, 1)` for full jitter, from a seed: splitmix64.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers of its own for another loop.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn unit(&mut self) -> f64 {
        self.next() as f64 / 2_f64.powi(64)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn pauses_grow_and_differ_and_end_with_the_number_of_tries() {
        let mut jitter = Jitter::new(7);
        let (mut one, mut other) =
            (Attempts::new(Patience::ONCE, &mut jitter), Attempts::new(Patience::ONCE, &mut jitter));
        let mut longest = Pace::FIRST;
        for attempt in 1..Patience::ONCE.attempts_max {
            assert_eq!((one.begin(), other.begin()), (attempt, attempt));
            let [ControlFlow::Continue(a), ControlFlow::Continue(b)] =
                [&mut one, &mut other].map(|tries| tries.pause(Duration::ZERO, None))
            else {
                panic!("attempt {attempt} was the last")
            };
            assert!(a != b && a.max(b) <= longest, "{a:?} {b:?}");
            longest *= 2;
        }
        one.begin();
        assert!(one.pause(Duration::ZERO, None).is_break());
    }

    #[test]
    fn what_a_service_asks_for_is_waited_for_or_is_the_end() {
        let tries = || Attempts::new(Patience::within(MINUTE), &mut Jitter::new(1));
        let asked = |of: Duration, elapsed: Duration| tries().pause(elapsed, Some(of));
        assert_eq!(asked(MINUTE, Duration::ZERO), ControlFlow::Continue(MINUTE));
        assert_eq!(asked(MINUTE, Duration::from_millis(1)), ControlFlow::Break(MINUTE));
    }
}
