//! The timer: ticks by cron or interval, coalesced so that a feed never has more than one waiting.

mod cron;

use crate::config::Timer;
use crate::flow::Time;
use crate::flow::window::later;
use cron::CronTrigger;
use croner::parser::{CronParser, Seconds};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_cron_scheduler::JobSchedulerError;

/// The running timer; ticks end when it is dropped.
pub struct Schedule {
    ticks: watch::Receiver<u64>,
    running: Running,
}

enum Running {
    Cron(CronTrigger),
    Interval(tokio::task::JoinHandle<()>),
}

/// A timer that cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("start the timer {timer:?}")]
pub struct ScheduleError {
    timer: Timer,
    #[source]
    cause: JobSchedulerError,
}

impl Schedule {
    /// Starts the timer. A clock of the host that is set, back or ahead, stops no ticks: those of a cron text are watched, see `cron.rs`.
    pub async fn start(timer: &Timer) -> Result<Self, ScheduleError> {
        let (tx, ticks) = watch::channel(0_u64);
        let running = match timer {
            Timer::Cron(cron) => {
                let started = CronTrigger::start(cron, tx).await;
                Running::Cron(started.map_err(|cause| ScheduleError { timer: timer.clone(), cause })?)
            }
            Timer::Every(every) => {
                let mut interval = tokio::time::interval(*every);
                interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
                Running::Interval(tokio::spawn(async move {
                    interval.tick().await;
                    loop {
                        interval.tick().await;
                        tx.send_modify(|n| *n += 1);
                    }
                }))
            }
        };
        Ok(Self { ticks, running })
    }

    /// A view of the ticks for one feed.
    pub fn beats(&self) -> Beats {
        Beats { seen: *self.ticks.borrow(), ticks: self.ticks.clone() }
    }

    /// Ends the ticks.
    pub async fn stop(self) {
        match self.running {
            Running::Cron(trigger) => trigger.stop().await,
            Running::Interval(task) => task.abort(),
        }
    }
}

/// When the timer ticks next after `after`, for people: the interval's own ticks may be some milliseconds off.
pub fn next_beat(timer: &Timer, after: Time) -> Option<Time> {
    match timer {
        Timer::Every(every) => Some(later(after, *every)),
        Timer::Cron(cron) => {
            let parser = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build();
            parser.parse(cron).ok()?.find_next_occurrence(&after, false).ok()
        }
    }
}

/// How long so many ticks take, from `now` on.
pub fn ticks_take(timer: &Timer, ticks: u32, now: Time) -> Duration {
    let mut at = now;
    for _ in 0..ticks {
        at = next_beat(timer, at).unwrap_or(at);
    }
    (at - now).to_std().unwrap_or_default()
}

/// The ticks as one feed sees them.
pub struct Beats {
    ticks: watch::Receiver<u64>,
    seen: u64,
}

impl Beats {
    /// Waits for the next tick; one that came meanwhile is taken at once. Returns how many were skipped before it.
    pub async fn next(&mut self) -> u64 {
        let seen = self.seen;
        let Ok(now) = self.ticks.wait_for(|n| *n > seen).await.map(|n| *n) else {
            // The timer has ended: the process is on its way out.
            return std::future::pending().await;
        };
        self.seen = now;
        now - seen - 1
    }

    /// Whether a tick is waiting.
    pub fn is_due(&self) -> bool {
        *self.ticks.borrow() > self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ticks_that_come_while_a_feed_is_busy_are_one() {
        let schedule = Schedule::start(&Timer::Every(Duration::from_secs(1))).await.unwrap();
        let mut beats = schedule.beats();
        assert!(!beats.is_due());
        assert_eq!(beats.next().await, 0);
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        assert!(beats.is_due());
        assert_eq!(beats.next().await, 2);
        assert!(!beats.is_due());
        schedule.stop().await;
    }

    #[tokio::test]
    async fn a_cron_text_pulls_the_trigger() {
        let schedule = Schedule::start(&Timer::Cron("* * * * * *".into())).await.unwrap();
        assert_eq!(schedule.beats().next().await, 0);
        schedule.stop().await;
        assert!(Schedule::start(&Timer::Cron("61 * * * * *".into())).await.is_err());
    }

    #[test]
    fn the_next_beat_is_the_cron_text_s_or_an_interval_away() {
        let at = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let monday = at("2026-11-23T10:00:30Z");
        let cron = |text: &str| Timer::Cron(text.into());
        assert_eq!(next_beat(&cron("0 * * * * *"), monday), Some(at("2026-11-23T10:01:00Z")));
        assert_eq!(next_beat(&cron("0 0 6 * * 1"), monday), Some(at("2026-11-30T06:00:00Z")));
        let every = Timer::Every(Duration::from_secs(90));
        assert_eq!(next_beat(&every, monday), Some(at("2026-11-23T10:02:00Z")));
        assert_eq!(ticks_take(&every, 3, monday), Duration::from_secs(270));
        assert_eq!(ticks_take(&cron("0 0 6 * * 1"), 3, monday).as_secs() / 86_400, 20);
    }
}
