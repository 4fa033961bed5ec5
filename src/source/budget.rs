//! The request budget of one token: 600 a minute and 30,000 an hour over all its streams, and the late sweep's share of it.

use super::{BudgetLeft, Lane};
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// The documented limits (developer.1password.com/docs/events-api/rate-limits); beyond them the API answers 429.
const PER_MINUTE: u32 = 600;
const PER_HOUR: u32 = 30_000;
/// The late sweep leaves three quarters to the live feeds: it must never make fresh events wait.
const LATE_SHARE: u32 = 4;
/// A command leaves half of them.
const BACKFILL_SHARE: u32 = 2;
/// Slots a window is counted in: more are more exact, and cost memory.
const SLOTS: u32 = 60;

/// How many requests may still be sent, and when the next one.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<State>,
}

impl Budget {
    pub fn new(now: Instant) -> Self {
        Self { state: Mutex::new(State::new(now)) }
    }

    /// Waits for the lane's turn and counts one request. Dropping the call counts nothing.
    pub async fn take(&self, lane: Lane) {
        while let Err(free_at) = self.try_take(Instant::now(), lane) {
            tokio::time::sleep_until(free_at).await;
        }
    }

    /// True while a [`Lane::Late`] request would have to wait.
    pub fn late_lane_is_spent(&self, now: Instant) -> bool {
        self.with(|state| state.free_at(now, Lane::Late)) > now
    }

    /// What both lanes together may still send at once.
    pub fn left(&self, now: Instant) -> BudgetLeft {
        let [minute, hour] = self.with(|state| state.all.each_mut().map(|window| window.left(now)));
        BudgetLeft { minute, hour }
    }

    fn try_take(&self, now: Instant, lane: Lane) -> Result<(), Instant> {
        self.with(|state| {
            let free_at = state.free_at(now, lane);
            if free_at > now {
                return Err(free_at);
            }
            state.windows(lane).for_each(|window| window.count(now));
            Ok(())
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        // Counters stay usable after a panic elsewhere: there is nothing half done in them.
        look(&mut self.state.lock())
    }
}

#[derive(Debug)]
struct State {
    /// All lanes.
    all: [Window; 2],
    late: [Window; 2],
    backfill: [Window; 2],
}

impl State {
    fn new(now: Instant) -> Self {
        let windows = |share| [Window::new(now, MINUTE, PER_MINUTE / share), Window::new(now, HOUR, PER_HOUR / share)];
        Self { all: windows(1), late: windows(LATE_SHARE), backfill: windows(BACKFILL_SHARE) }
    }

    fn windows(&mut self, lane: Lane) -> impl Iterator<Item = &mut Window> {
        let share: &mut [Window] = match lane {
            Lane::Live | Lane::Ahead => &mut [],
            Lane::Late => &mut self.late,
            Lane::Backfill => &mut self.backfill,
        };
        self.all.iter_mut().chain(share)
    }

    fn free_at(&mut self, now: Instant, lane: Lane) -> Instant {
        self.windows(lane).map(|window| window.free_at(now)).max().unwrap_or(now)
    }
}

/// At most `limit` requests in any stretch of time as long as the window, wherever it begins.
///
/// A token bucket of 600 refilled at 10/s does not keep that promise: a full bucket and a minute's refill make 1,199 in 60 s; one
/// that does keep it (capacity + 60 x rate <= 600) must give up either the burst that catches up after an outage or the lasting
/// rate. So requests are counted in 60 slots a window, and the last 61 slots together never hold more than `limit`: a stretch as
/// long as the window touches at most 61 slots, hence never holds more than `limit` either. The price is one slot: 600 in 61 s.
#[derive(Debug)]
struct Window {
    origin: Instant,
    slot: Duration,
    limit: u32,
    /// Number of the slot and requests in it; the oldest first, none empty.
    counts: VecDeque<(u32, u32)>,
}

impl Window {
    fn new(origin: Instant, length: Duration, limit: u32) -> Self {
        Self { origin, slot: length / SLOTS, limit, counts: VecDeque::new() }
    }

    fn slot_of(&self, now: Instant) -> u32 {
        // Slots of a second last for 136 years.
        u32::try_from(now.saturating_duration_since(self.origin).as_nanos() / self.slot.as_nanos()).unwrap_or(u32::MAX)
    }

    fn count(&mut self, now: Instant) {
        let slot = self.slot_of(now);
        match self.counts.back_mut() {
            // `>=`: two threads may have read their clocks in the other order; the later slot is kept longer, which is safe.
            Some((last, count)) if *last >= slot => *count += 1,
            _ => self.counts.push_back((slot, 1)),
        }
    }

    fn left(&mut self, now: Instant) -> u32 {
        let slot = self.slot_of(now);
        let counts = self.counts.iter().filter(|(oldest, _)| oldest.saturating_add(SLOTS) >= slot);
        self.limit.saturating_sub(counts.map(|(_, count)| count).sum())
    }

    /// When the next request may be sent: `now`, or the moment when enough of the oldest slots are out of sight.
    fn free_at(&mut self, now: Instant) -> Instant {
        let slot = self.slot_of(now);
        while self.counts.front().is_some_and(|(oldest, _)| oldest.saturating_add(SLOTS) < slot) {
            self.counts.pop_front();
        }
        let mut held: u32 = self.counts.iter().map(|(_, count)| count).sum();
        let mut free_at = now;
        for (oldest, count) in &self.counts {
            if held < self.limit {
                break;
            }
            held -= count;
            free_at = self.origin + self.slot * oldest.saturating_add(SLOTS + 1);
        }
        free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as fast as the budget lets it until `until`, with pauses and bursts drawn from `seed`; the moments of sending.
    async fn hammer(budget: &Budget, lanes: &[Lane], seed: u64, until: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let (mut sent, mut random) = (Vec::new(), seed | 1);
        while start.elapsed() < until {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Seed 0: flat out. Others: now and then a pause, mostly of milliseconds, sometimes of minutes.
            match random >> 56 {
                0..=1 if seed != 0 => tokio::time::advance(Duration::from_millis(random >> 47 & 0x1_ffff)).await,
                2..=90 if seed != 0 => tokio::time::advance(Duration::from_millis(random >> 40 & 0xff)).await,
                _ => {}
            }
            budget.take(lanes[(random >> 33) as usize % lanes.len()]).await;
            sent.push(start.elapsed());
        }
        sent
    }

    fn most_in_any(window: Duration, sent: &[Duration]) -> usize {
        let (mut first, mut most) = (0, 0);
        for last in 0..sent.len() {
            while sent[last] - sent[first] > window {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        most
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_and_no_hour_ever_holds_more_than_the_limits() {
        for seed in 0..12 {
            let budget = Budget::new(Instant::now());
            tokio::time::advance(Duration::from_millis(seed * 173)).await;
            let sent = hammer(&budget, &[Lane::Live, Lane::Late, Lane::Backfill], seed, HOUR * 2).await;
            assert!(most_in_any(MINUTE, &sent) <= 600, "seed {seed}");
            assert!(most_in_any(HOUR, &sent) <= 30_000, "seed {seed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_600_is_sent_at_once_and_the_hour_is_used_well() {
        let budget = Budget::new(Instant::now());
        let start = Instant::now();
        for _ in 0..600 {
            budget.take(Lane::Live).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        budget.take(Lane::Live).await;
        assert_eq!(start.elapsed(), Duration::from_secs(61));
        let sent = hammer(&budget, &[Lane::Live], 0, HOUR * 4).await;
        assert!(sent.len() > 4 * 29_000, "{}", sent.len());
    }

    #[tokio::test(start_paused = true)]
    async fn the_late_sweep_gets_a_quarter_and_never_makes_a_live_request_wait() {
        let budget = Budget::new(Instant::now());
        let start = Instant::now();
        for sent in 0..150 {
            assert!(!budget.late_lane_is_spent(Instant::now()), "{sent}");
            budget.take(Lane::Late).await;
        }
        assert!(budget.late_lane_is_spent(Instant::now()));
        for _ in 0..450 {
            budget.take(Lane::Live).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(!budget.late_lane_is_spent(Instant::now()));
        let sent = hammer(&budget, &[Lane::Late], 0, HOUR * 2).await;
        assert!(most_in_any(MINUTE, &sent) <= 150 && most_in_any(HOUR, &sent) <= 7_500);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_falls_with_each_request_and_comes_back() {
        let budget = Budget::new(Instant::now());
        for _ in 0..600 {
            budget.take(Lane::Live).await;
        }
        assert_eq!(budget.left(Instant::now()), BudgetLeft { minute: 0, hour: 29_400 });
        tokio::time::advance(MINUTE + Duration::from_secs(1)).await;
        assert_eq!(budget.left(Instant::now()), BudgetLeft { minute: 600, hour: 29_400 });
        tokio::time::advance(HOUR + MINUTE).await;
        assert_eq!(budget.left(Instant::now()), BudgetLeft { minute: 600, hour: 30_000 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_backfill_gets_half_and_never_makes_a_live_request_wait() {
        let budget = Budget::new(Instant::now());
        let sent = hammer(&budget, &[Lane::Backfill], 0, HOUR * 2).await;
        assert!(most_in_any(MINUTE, &sent) == 300 && most_in_any(HOUR, &sent) == 15_000);
        let start = Instant::now();
        for _ in 0..300 {
            budget.take(Lane::Live).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wait_counts_nothing() {
        let budget = Budget::new(Instant::now());
        for _ in 0..600 {
            budget.take(Lane::Live).await;
        }
        for _ in 0..1_000 {
            assert!(tokio::time::timeout(Duration::from_millis(1), budget.take(Lane::Live)).await.is_err());
        }
        tokio::time::advance(MINUTE).await;
        for _ in 0..600 {
            assert!(budget.try_take(Instant::now(), Lane::Live).is_ok());
        }
        assert!(budget.try_take(Instant::now(), Lane::Live).is_err());
    }
}
