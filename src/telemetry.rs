//! Logs: one JSON object a line for machines, readable lines on a terminal. Always on stderr: data goes to stdout.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts the log. Libraries stay at warn whatever the level is: their traces hold headers and bodies.
pub fn init(log: &Log) {
    let filter = EnvFilter::new(format!("warn,opship={}", log.level));
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start (tests in one process) keeps the first.
    let _ = if json {
        builder.json().flatten_event(true).with_span_list(false).with_current_span(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
}
