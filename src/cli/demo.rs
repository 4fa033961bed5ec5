//! `opship demo`.
use super::{CliError, Exit, Output};
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {}
pub(super) async fn demo(_: DemoArgs, _: Output) -> Result<Exit, CliError> {
    Ok(Exit::Done)
}
