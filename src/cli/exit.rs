//! How commands end: what went wrong, what to do about it, the exit code.

use crate::agent::Trouble;
use crate::config::ConfigError;
use crate::flow::retry::Failure;
use crate::sim;
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
            Self::Wire(WireError::Secret(_)) => Exit::Usage,
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
        _ => None,
    }
}

/// The exit code that a feed's trouble asks for.
pub(crate) fn exit_of(trouble: &Trouble) -> Exit {
    match trouble {
        Trouble::Stopped => Exit::Done,
        Trouble::Misfit { .. } | Trouble::Store(CheckpointError::TooNew { .. }) => Exit::Usage,
        Trouble::Unauthorized { .. } => Exit::Credentials,
        _ => Exit::Failed,
    }
}
