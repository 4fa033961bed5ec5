//! Ticks by a cron text, watched by the monotonic clock.
//!
//! The cron crate compares its next time with the host's clock. One that is set back would stop it until it has caught up, for an hour
//! or for forty days, so a tick that is long overdue by the monotonic clock comes anyway, and the crate is told the time anew.

use super::next_beat;
use crate::config::Timer;
use crate::flow::Time;
use chrono::Utc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use uuid::Uuid;

/// A tick may be late by once its gap before it comes without the crate; a gap is a second at least.
const GAPS: u32 = 2;
const GAP_MIN: Duration = Duration::from_secs(1);
/// The monotonic timer is set for so long at most and then again: a cron text may have gaps of years.
const LOOK_EVERY: Duration = Duration::from_secs(86_400);
/// The crate hands jobs from task to task; one that never hears of ours must not stop the watch.
const REARM_DEADLINE: Duration = Duration::from_secs(5);

/// The running trigger; its ticks end when it is stopped.
pub(super) struct CronTrigger {
    scheduler: JobScheduler,
    watch: JoinHandle<()>,
}

impl CronTrigger {
    pub(super) async fn start(text: &str, beats: watch::Sender<u64>) -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        let (pull, pulls) = watch::channel(0);
        let mut armed = Armed { scheduler: scheduler.clone(), text: text.into(), pull, job: None };
        armed.arm().await?;
        scheduler.start().await?;
        let timer = Timer::Cron(text.into());
        let watch = tokio::spawn(keep_ticking(armed, pulls, timer, beats));
        Ok(Self { scheduler, watch })
    }

    pub(super) async fn stop(mut self) {
        self.watch.abort();
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::debug!(error = %error, "the cron scheduler had ended already");
        }
    }
}

/// The crate's job, which only pulls the trigger: its jobs would overlap and its shutdown does not wait.
struct Armed {
    scheduler: JobScheduler,
    text: String,
    pull: watch::Sender<u64>,
    job: Option<Uuid>,
}

impl Armed {
    async fn arm(&mut self) -> Result<(), JobSchedulerError> {
        let pull = self.pull.clone();
        let job = Job::new(&*self.text, move |_, _| pull.send_modify(|n| *n += 1))?;
        self.job = Some(self.scheduler.add(job).await?);
        Ok(())
    }

    /// A new job in place of the old one: its next time is the next by the host's clock as it stands now.
    async fn arm_again(&mut self) {
        let again = async {
            if let Some(job) = self.job.take() {
                self.scheduler.remove(&job).await?;
            }
            self.arm().await
        };
        match timeout(REARM_DEADLINE, again).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = %error, "the cron job was not renewed: its ticks come late"),
            Err(_) => tracing::debug!("the cron job was not renewed in time: its ticks come late"),
        }
    }
}

/// Hands the crate's ticks on, and ticks itself where the crate does not.
async fn keep_ticking(mut armed: Armed, mut pulls: watch::Receiver<u64>, timer: Timer, beats: watch::Sender<u64>) {
    let (mut seen, mut was_late) = (0, false);
    let mut late_at = late_from(&timer, Instant::now(), Utc::now());
    loop {
        let look_at = Instant::now() + LOOK_EVERY;
        let pulled = tokio::select! {
            biased;
            pulled = pulls.wait_for(|n| *n > seen) => match pulled {
                Ok(pulled) => *pulled - seen,
                Err(_) => return,
            },
            () = sleep_until(late_at.unwrap_or(look_at).min(look_at)) => 0,
        };
        let is_late = pulled == 0;
        if is_late && late_at.is_none_or(|at| Instant::now() < at) {
            continue;
        }
        seen += pulled;
        beats.send_modify(|n| *n += pulled.max(1));
        if is_late {
            tell(&timer, was_late);
            armed.arm_again().await;
        }
        was_late = is_late;
        late_at = late_from(&timer, Instant::now(), Utc::now());
    }
}

fn tell(timer: &Timer, was_late: bool) {
    if was_late {
        tracing::debug!(scope = "schedule.cron", ?timer, "again no tick came by the host's clock");
    } else {
        tracing::warn!(
            scope = "schedule.cron",
            ?timer,
            "no tick came in twice its time: was the clock of this host set back? ticking on"
        );
    }
}

/// From when on the next tick is late, for one that came `now`; never later than twice the longest gap of the text. None where it has no
/// next time.
fn late_from(timer: &Timer, now: Instant, by_host: Time) -> Option<Instant> {
    let gap = (next_beat(timer, by_host)? - by_host).to_std().unwrap_or_default();
    now.checked_add(gap.max(GAP_MIN).saturating_mul(GAPS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::window::later;
    use crate::schedule::Schedule;

    const TEXTS: [&str; 7] = [
        "* * * * * *",
        "*/7 * * * * *",
        "0 * * * * *",
        "0,50 59 * * * *",
        "0 0,1 6 * * *",
        "0 0 6 * * 1",
        "0 0 0 29 2 *",
    ];
    /// The crate looks twice a second, and a loaded machine is late by as much.
    const CRATE_IS_LATE: Duration = Duration::from_millis(900);

    fn monday() -> Time {
        "2026-11-23T05:59:30Z".parse().unwrap()
    }

    /// Fault: none, the host's clock is sane and the cron crate late by most of a second. Shows: no tick comes besides those of the text.
    #[test]
    fn fm_47_under_a_sane_clock_no_tick_is_ever_late() {
        for text in TEXTS {
            let (timer, mut host, now) = (Timer::Cron(text.into()), monday(), Instant::now());
            for n in 0..200_u32 {
                let due = next_beat(&timer, host).unwrap();
                let waits = (later(due, CRATE_IS_LATE) - host).to_std().unwrap();
                assert!(late_from(&timer, now, host).unwrap() > now + waits, "{text}: at {host}");
                host = later(due, CRATE_IS_LATE * (n % 10) / 10);
            }
        }
    }

    /// Fault: any time on the host's clock when a tick came. Shows: the next one is late after twice the longest gap of the text at most.
    #[test]
    fn fm_47_a_tick_is_never_later_than_twice_the_longest_gap() {
        let hour = Duration::from_secs(3600);
        let longest = [("* * * * * *", hour / 3600), ("0 * * * * *", hour / 60), ("0 0 6 * * *", hour * 24)];
        for (text, longest) in longest {
            let (timer, now) = (Timer::Cron(text.into()), Instant::now());
            for n in 0..500_u32 {
                let host = later(monday(), Duration::from_millis(7_777_777) * n);
                assert!(late_from(&timer, now, host).unwrap() <= now + longest * 2, "{text}: at {host}");
            }
        }
        let never = Timer::Cron("0 0 0 30 2 *".into());
        assert_eq!(late_from(&never, Instant::now(), monday()), None);
    }

    /// Fault: a host clock that stands still, as one set back does until it has caught up. Shows: ticks go on by the monotonic clock.
    #[tokio::test(start_paused = true)]
    async fn fm_47_ticks_go_on_while_the_host_s_clock_stands_still() {
        let schedule = Schedule::start(&Timer::Cron("0 * * * * *".into())).await.unwrap();
        let (mut beats, begun) = (schedule.beats(), Instant::now());
        for n in 1..=100 {
            beats.next().await;
            assert!(begun.elapsed() <= Duration::from_secs(120) * n, "{n} ticks in {:?}", begun.elapsed());
        }
        schedule.stop().await;
    }
}
