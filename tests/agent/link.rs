//! One process' link to the outside world: every call passes through it twice, and it can break or stop the process at any step.

use crate::faults::Kind;
use crate::world::State;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What happens to a process at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// `kill -9`: the driver drops the feed where it stands.
    Crash,
    /// SIGTERM: the stop token fires.
    Stop,
    /// The process hangs for this long, as in a suspended machine.
    Stall(Duration),
    /// A bug: the feed's task panics.
    Panic,
}

#[derive(Clone)]
pub(crate) struct Link {
    state: Arc<Mutex<State>>,
    steps: Arc<AtomicU64>,
    mishap: Arc<Mutex<Option<(u64, Mishap)>>>,
    stalled: Arc<Mutex<Option<Duration>>>,
    stalls: Arc<Notify>,
    waits: Arc<AtomicU64>,
    dies_at_wait: Arc<AtomicU64>,
    /// The seal of the ledger under which the process began.
    pub(crate) born_under: Option<u64>,
    pub(crate) dead: CancellationToken,
    pub(crate) stop: CancellationToken,
}

impl Link {
    pub(crate) fn new(state: Arc<Mutex<State>>) -> Self {
        let (dead, stop) = (CancellationToken::new(), CancellationToken::new());
        let born_under = state.lock().unwrap_or_else(PoisonError::into_inner).store.sealed;
        Self {
            born_under,
            state,
            steps: Arc::default(),
            mishap: Arc::default(),
            stalled: Arc::default(),
            stalls: Arc::default(),
            waits: Arc::default(),
            dies_at_wait: Arc::new(AtomicU64::new(u64::MAX)),
            dead,
            stop,
        }
    }

    /// Lets `mishap` happen at the `k`-th step from now, counted from 1.
    pub(crate) fn at_step(&self, k: u64, mishap: Mishap) {
        let at = self.steps.load(Ordering::Relaxed) + k;
        *self.mishap.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, mishap));
    }

    /// The process dies at the `k`-th await from now (from 1) that has to wait: for the outside, for a timer, for anything.
    pub(crate) fn die_at_wait(&self, k: u64) {
        self.dies_at_wait.store(self.waits.load(Ordering::Relaxed) + k, Ordering::Relaxed);
    }

    /// Counts the waits of a tick; dead at the one that was asked for, it never moves again.
    pub(crate) async fn dying_at_a_wait<T>(&self, tick: impl Future<Output = T>) -> T {
        let mut tick = std::pin::pin!(tick);
        std::future::poll_fn(|context| {
            let polled = tick.as_mut().poll(context);
            if polled.is_pending()
                && self.waits.fetch_add(1, Ordering::Relaxed) + 1 >= self.dies_at_wait.load(Ordering::Relaxed)
            {
                self.state().struck.by(Kind::Crash);
                self.dead.cancel();
            }
            polled
        })
        .await
    }

    /// Until the process hangs, and for how long.
    pub(crate) async fn stall(&self) -> Duration {
        self.stalls.notified().await;
        self.stalled.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call: the way there, the effect, the way back.
    pub(crate) async fn call<T>(&self, effect: impl FnOnce(&mut State) -> T + Send) -> T {
        self.step().await;
        let done = effect(&mut self.state());
        self.step().await;
        done
    }

    async fn step(&self) {
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let latency = {
            let mut state = self.state();
            state.steps += 1;
            state.latency()
        };
        tokio::time::sleep(latency).await;
        let due = {
            let mut mishap = self.mishap.lock().unwrap_or_else(PoisonError::into_inner);
            mishap.take_if(|(at, _)| *at == step).map(|(_, what)| what)
        };
        match due {
            None => {}
            Some(Mishap::Stop) => {
                let mut state = self.state();
                state.struck.by(Kind::Stop);
                state.sink.begun_at_stop = Some(state.sink.begun);
                self.stop.cancel();
            }
            Some(Mishap::Stall(time)) => {
                self.state().struck.by(Kind::Stall);
                *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) = Some(time);
                self.stalls.notify_one();
                tokio::task::yield_now().await;
            }
            Some(Mishap::Panic) => {
                let mut state = self.state();
                state.effects_at_panic = Some(state.effects());
                drop(state);
                panic!("planted by the test");
            }
            Some(Mishap::Crash) => {
                self.state().struck.by(Kind::Crash);
                self.dead.cancel();
                std::future::pending::<()>().await;
            }
        }
    }
}
