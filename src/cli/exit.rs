//! How commands end: what went wrong, what to do about it, the exit code.

use crate::agent::Trouble;
use crate::azure::AzureError;
use crate::config::ConfigError;
use crate::flow::retry::Failure;
use crate::flow::suspicion::is_azures;
use crate::sim;
use crate::sink::SinkError;
use crate::store::StoreError;
use crate::store::checkpoints::CheckpointError;
use crate::table::TableError;
use crate::wire::WireError;
use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// Try again.
    Failed = 1,
    DeadLetters = 2,
    /// Usage, configuration, or a checkpoint that belongs elsewhere.
    Usage = 64,
    Credentials = 77,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    pub(super) const ALL: [Self; 5] = [Self::Done, Self::Failed, Self::DeadLetters, Self::Usage, Self::Credentials];

    /// What it means, and what to do. Help, man pages and README say the same.
    pub(super) const fn says(self) -> (&'static str, &'static str) {
        match self {
            Self::Done => ("done; also after a drain on SIGTERM", "nothing"),
            Self::Failed => (
                "failed; `reconcile`: something is missing, or may be on its way; `status`: a feed is not well",
                "try again; the timer or systemd does",
            ),
            Self::DeadLetters => ("done, with dead letters", "`opship dead-letters list` says which and why"),
            Self::Usage => (
                "usage, configuration, or a checkpoint of another account, destination or entry",
                "correct it; trying again does not help",
            ),
            Self::Credentials => (
                "credentials refused or not readable (`once`, `check` and `reconcile`)",
                "a new token or secret, or a role",
            ),
        }
    }
}

/// Of a process that a signal ended.
const SIGNALLED: (&str, &str, &str) = ("128+n", "ended by a second signal", "the next start settles what was open");

/// Code, meaning and what to do, in order.
fn rows() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    let (code, meaning, remedy) = SIGNALLED;
    let row = |exit: Exit| {
        let (meaning, remedy) = exit.says();
        ((exit as u8).to_string(), meaning, remedy)
    };
    Exit::ALL.into_iter().map(row).chain([(code.to_owned(), meaning, remedy)])
}

/// The exit codes for help: what they mean.
pub(super) fn meanings() -> Vec<(String, String)> {
    rows().map(|(code, meaning, _)| (code, meaning.replace('`', ""))).collect()
}

/// The exit codes for the man pages: what to do about them, too.
pub(super) fn meanings_and_remedies() -> Vec<(String, String)> {
    rows().map(|(code, meaning, remedy)| (code, format!("{meaning}. To do: {remedy}.").replace('`', ""))).collect()
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Sim(#[from] sim::SimError),
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Usage(_) => Exit::Usage,
            Self::Wire(WireError::Http(_) | WireError::Setting(_)) => Exit::Usage,
            Self::Wire(WireError::Secret(_) | WireError::Admin(_)) => Exit::Credentials,
            Self::Wire(WireError::Store(error)) if error.is_of_credentials() => Exit::Credentials,
            Self::Wire(_) | Self::Sim(_) | Self::Failed(_) => Exit::Failed,
            Self::Trouble(trouble) => exit_of(trouble),
            Self::Table(TableError { failure: Failure::NoCredential, .. }) => Exit::Credentials,
            Self::Table(TableError { failure: Failure::Status { status: 401 | 403, .. }, .. }) => Exit::Credentials,
            Self::Table(_) => Exit::Failed,
            Self::Checkpoint(CheckpointError::TooNew { .. }) => Exit::Usage,
            Self::Checkpoint(_) => Exit::Failed,
        }
    }
}

/// What to do about errors whose cause is a library's own words.
pub(super) fn advice(error: &CliError) -> Option<&'static str> {
    match error {
        CliError::Wire(WireError::Store(StoreError::Failed { .. })) => Some(
            "the store did not answer as it should: check store.container_url or store.path, the network and http.proxy; \
             nothing was read or shipped, try again",
        ),
        CliError::Wire(WireError::Store(StoreError::Unfit { .. })) => Some(StoreError::FIT),
        CliError::Wire(WireError::Store(StoreError::Locked { .. }))
        | CliError::Checkpoint(CheckpointError::Store(StoreError::Locked { .. }))
        | CliError::Trouble(Trouble::Store(CheckpointError::Store(StoreError::Locked { .. }))) => {
            Some(StoreError::UNLOCK)
        }
        CliError::Wire(WireError::Http(error)) => error.remedy,
        _ => None,
    }
}

/// The exit code that a feed's trouble asks for.
pub(crate) fn exit_of(trouble: &Trouble) -> Exit {
    match trouble {
        Trouble::Stopped => Exit::Done,
        Trouble::Misfit { .. } | Trouble::Twin(_) | Trouble::Store(CheckpointError::TooNew { .. }) => Exit::Usage,
        Trouble::Unauthorized { .. } => Exit::Credentials,
        Trouble::Sink(error) if is_refused(error) => Exit::Credentials,
        Trouble::Store(CheckpointError::Store(error)) if error.is_of_credentials() => Exit::Credentials,
        _ => Exit::Failed,
    }
}

/// Whether the destination, or who gives tokens for it, refuses who asks: in Azure's own words, not in those of something on the way.
fn is_refused(error: &SinkError) -> bool {
    match &error.failure {
        Failure::Status { status: 401, .. } => true,
        Failure::Status { status: 403, code, .. } => is_azures(code),
        Failure::NoCredential => {
            let first = error.cause.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static));
            let causes = std::iter::successors(first, |cause| (*cause).source());
            causes.filter_map(|cause| cause.downcast_ref::<AzureError>()).any(AzureError::is_a_refusal)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_these_exit_codes_and_no_others() {
        let readme = include_str!("../../README.md");
        let (_, below) = readme.split_once("| exit code | meaning | what to do |\n|---|---|---|\n").unwrap();
        let stands: Vec<&str> = below.lines().take_while(|line| line.starts_with('|')).collect();
        let expected: Vec<String> =
            rows().map(|(code, meaning, remedy)| format!("| {code} | {meaning} | {remedy} |")).collect();
        assert_eq!(stands, expected);
    }

    #[test]
    fn every_exit_is_listed_once_in_order() {
        let codes: Vec<u8> = Exit::ALL.map(|exit| exit as u8).to_vec();
        assert_eq!(codes, [0, 1, 2, 64, 77]);
    }

    #[test]
    fn the_service_is_not_started_anew_for_what_that_cannot_cure_and_has_the_time_to_drain() {
        let unit = include_str!("../../deploy/systemd/opship.service");
        let setting = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
        let incurable = [Exit::Usage, Exit::Credentials].map(|exit| (exit as u8).to_string()).join(" ");
        assert_eq!(setting("RestartPreventExitStatus"), incurable);
        let allowed = humantime::parse_duration(setting("TimeoutStopSec")).unwrap();
        assert!(allowed > crate::agent::run::DRAIN_MAX + std::time::Duration::from_secs(5));
    }
}
