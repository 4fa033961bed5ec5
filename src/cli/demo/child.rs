//! The agent of a demo: this same program as `run`, in a process of its own.

use super::folder::Place;
use crate::agent::run::DRAIN_MAX;
use crate::cli::CliError;
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

/// How often each late sweep re-reads its window.
const LATE_EVERY: &str = "3s";
/// How late the simulator's events are at most, and how far the agent's late sweeps look back for them: further.
pub(crate) const LATE_MAX: Duration = Duration::from_secs(300);
const LATE_HORIZON: &str = "6m";
/// A minute of live events, instead of the default's five, is read again every second.
const OVERLAP: &str = "30s";
/// Where the agent's status page is, when no other agent of this machine has that port.
const ADMIN_PORT: u16 = 9464;
/// The user's own settings of these families must not reach the agent.
const FOREIGN: &[&str] = &["OPSHIP_", "AZURE_", "IDENTITY_", "MSI_", "IMDS_"];
/// The drain's own limit, and a little for the process to end.
const END_MAX: Duration = DRAIN_MAX.saturating_add(Duration::from_secs(1));
/// Bytes of the log's end that are searched for its last line.
const LOG_TAIL_BYTES: usize = 4096;

/// A running agent. Dropping it kills it.
pub(crate) struct Agent {
    process: Child,
    pub(crate) pid: u32,
    log: PathBuf,
}

impl Agent {
    /// Starts it with the simulator's environment, and settings that make the weeks of a real agent pass in seconds.
    pub(crate) fn spawn(place: &Place, simulator: Vec<(String, String)>) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::Failed(format!("start the agent: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("run").arg("--config").arg(place.config());
        for (name, _) in std::env::vars_os() {
            if FOREIGN.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.envs(simulator).envs(settings(place));
        if TcpListener::bind((Ipv4Addr::LOCALHOST, ADMIN_PORT)).is_err() {
            command.env("OPSHIP_ADMIN__LISTEN", "127.0.0.1:0");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(place.log_file().map_err(failed)?);
        // Ctrl-C is for the demo alone: it ends the agent in order.
        let process = command.process_group(0).kill_on_drop(true).spawn().map_err(failed)?;
        let pid = process.id().ok_or_else(|| CliError::Failed("the agent ended as it began".into()))?;
        Ok(Self { process, pid, log: place.log() })
    }

    /// Waits for an end that nobody asked for, and says what it was.
    pub(crate) async fn died(&mut self) -> CliError {
        let how = self.process.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        let last = self.last_words().map(|line| format!("\n{line}")).unwrap_or_default();
        CliError::Failed(format!("the agent ended early ({how}); the end of its log {}:{last}", self.log.display()))
    }

    /// SIGTERM, and a bounded wait for the drain.
    ///
    /// # Errors
    /// What was wrong with its end.
    pub(crate) async fn end(&mut self) -> Result<(), String> {
        let pid = self.process.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(|error| format!("the agent could not be told to end: {error}"))?;
        }
        match tokio::time::timeout(END_MAX, self.process.wait()).await {
            Ok(Ok(status)) => well(status).map_err(|how| format!("the agent {how}; see {}", self.log.display())),
            Ok(Err(error)) => Err(format!("the agent's end was not seen: {error}")),
            Err(_) => {
                self.kill().await;
                Err(format!("the agent was killed: it had not ended {} s after SIGTERM", END_MAX.as_secs()))
            }
        }
    }

    pub(crate) async fn kill(&mut self) {
        // It may be gone already.
        let _ = self.process.kill().await;
    }

    fn last_words(&self) -> Option<String> {
        let log = std::fs::read(&self.log).ok()?;
        let tail = log.get(log.len().saturating_sub(LOG_TAIL_BYTES)..)?;
        String::from_utf8_lossy(tail).lines().last().map(str::to_owned)
    }
}

fn well(status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
}

/// What the simulator's environment leaves open.
fn settings(place: &Place) -> Vec<(String, String)> {
    let mut settings = vec![
        ("OPSHIP_STORE__KIND".to_owned(), "file".to_owned()),
        ("OPSHIP_STORE__PATH".into(), place.state()),
        ("OPSHIP_SCHEDULE__EVERY".into(), "1s".into()),
        ("OPSHIP_SCHEDULE__OVERLAP".into(), OVERLAP.into()),
        ("OPSHIP_LOG__FORMAT".into(), "json".into()),
    ];
    for stream in ["AUDITEVENTS", "ITEMUSAGES", "SIGNINATTEMPTS"] {
        settings.push((format!("OPSHIP_SWEEP__{stream}__EVERY"), LATE_EVERY.into()));
        settings.push((format!("OPSHIP_SWEEP__{stream}__HORIZON"), LATE_HORIZON.into()));
    }
    settings
}
