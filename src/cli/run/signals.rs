//! SIGTERM and SIGINT: the first asks for a drain, the second ends the process at once. SIGHUP: see [`Hangup`]. The others end nothing.

use crate::agent::run::DRAIN_MAX;
use crate::cli::CliError;
use crate::reload::Reload;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGXFSZ has the number of this system alone.
const XFSZ: i32 = rustix::process::Signal::XFSZ.as_raw();

fn listen(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| CliError::Failed(format!("listen for signals: {error}")))
}

/// From now on these end no command: what scripts send to every daemon, a reader that went away, a file that may not grow. The last two
/// are errors of the write that met them.
pub(crate) fn outlive_others() -> Result<(), CliError> {
    for kind in
        [SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::pipe(), SignalKind::from_raw(XFSZ)]
    {
        // Once listened for, a signal never gets its default meaning back.
        drop(listen(kind)?);
    }
    Ok(())
}

/// Cancels `stop` at the first signal. A second one, or a drain that takes longer than 25 s, ends the process.
pub(crate) fn stop_on_signals(stop: &CancellationToken) -> Result<(), CliError> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            }
        };
        next().await;
        tracing::info!("asked to end: finishing the open delivery, then saving the position");
        stop.cancel();
        tokio::select! {
            number = next() => std::process::exit(128 + number),
            () = tokio::time::sleep(DRAIN_MAX) => {
                tracing::error!(remedy = "start opship again", "the drain took longer than 25 s: what was open is settled by the next start");
                std::process::exit(1);
            }
        }
    });
    Ok(())
}

/// SIGHUP has two meanings. From a terminal that was closed it asks for the end, as users of commands expect it, unless the command was
/// started to outlive it (`nohup`). From anybody else it asks a daemon to read again what may have changed.
pub(crate) struct Hangup {
    heard: Signal,
    /// The process was started on a terminal, and not so that it outlives it.
    is_of_a_terminal: bool,
}

impl Hangup {
    /// From now on SIGHUP ends nothing by itself.
    pub(crate) fn listen() -> Result<Self, CliError> {
        // Asked before: listening changes it.
        let is_of_a_terminal = has_terminal() && !is_ignored();
        Ok(Self { heard: listen(SignalKind::hangup())?, is_of_a_terminal })
    }

    /// Reads again at each request, and asks for the end when the terminal was closed.
    pub(crate) async fn reloads(mut self, reload: Arc<Reload>) -> Infallible {
        self.until_the_terminal_s(async || {
            tracing::info!("SIGHUP: reading secrets again");
            reload.now().await;
        })
        .await;
        std::future::pending().await
    }

    /// For a command that ends by itself: its secrets are as new as its start.
    pub(crate) fn ends_with_its_terminal(mut self) {
        tokio::spawn(async move {
            self.until_the_terminal_s(async || {
                tracing::info!(
                    "SIGHUP changes nothing: this command ends by itself, and the next one reads everything anew"
                );
            })
            .await;
        });
    }

    /// Answers every SIGHUP but that of the terminal, which asks for the end: once, because a second request would cut the drain short.
    async fn until_the_terminal_s(&mut self, answer: impl AsyncFn()) {
        while self.heard.recv().await.is_some() {
            if self.is_the_terminal_s() {
                return ask_for_the_end();
            }
            answer().await;
        }
    }

    fn is_the_terminal_s(&self) -> bool {
        self.is_of_a_terminal && !has_terminal()
    }
}

/// As SIGTERM asks for it: a second one ends the process at once.
fn ask_for_the_end() {
    // Whoever may listen for signals may send them to itself.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
}

/// Whether there is a terminal whose end would end this process: Linux takes it away before it sends SIGHUP.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// As `nohup` starts commands. `/proc/self/status` is the only place that tells without `unsafe`; where it is missing nobody said so.
fn is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    ignored & (1 << (SignalKind::hangup().as_raw_value() - 1)) != 0
}
