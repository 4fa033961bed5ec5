//! SIGTERM and SIGINT: the first asks for a drain, the second ends the process at once.

use crate::agent::run::DRAIN_MAX;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `stop` at the first signal. A second one, or a drain that takes longer than 25 s, ends the process.
pub(super) fn stop_on_signals(stop: &CancellationToken) -> Result<(), super::CliError> {
    let failed = |error| super::CliError::Failed(format!("listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
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
