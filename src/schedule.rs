//! The timer: ticks by cron or interval, coalesced so that a feed never has more than one waiting.

use crate::config::Timer;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// The running timer; ticks end when it is dropped.
pub struct Schedule {
    ticks: watch::Receiver<u64>,
    running: Running,
}

enum Running {
    Cron(JobScheduler),
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
    /// Starts the timer. The cron crate only pulls the trigger: its jobs would overlap and its shutdown does not wait.
    pub async fn start(timer: &Timer) -> Result<Self, ScheduleError> {
        let (tx, ticks) = watch::channel(0_u64);
        let running = match timer {
            Timer::Cron(cron) => {
                let started = cron_trigger(cron, tx).await;
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
            Running::Cron(mut scheduler) => {
                if let Err(error) = scheduler.shutdown().await {
                    tracing::debug!(error = %error, "the cron scheduler had ended already");
                }
            }
            Running::Interval(task) => task.abort(),
        }
    }
}

async fn cron_trigger(cron: &str, tx: watch::Sender<u64>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let job = Job::new(cron, move |_, _| tx.send_modify(|n| *n += 1))?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    Ok(scheduler)
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
    use std::time::Duration;

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
}
