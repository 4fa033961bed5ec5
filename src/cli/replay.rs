//! `opship dead-letters replay`: the originals once more, through the same flow.

use super::{CliError, Exit, Output};
use crate::config::Config;
use crate::store::Store;
use crate::store::dead_letters::Entry;
use std::sync::Arc;

pub(super) async fn replay(
    _config: &Config,
    _store: Arc<dyn Store>,
    _entries: Vec<Entry>,
    _output: Output,
) -> Result<Exit, CliError> {
    Ok(Exit::Failed)
}
