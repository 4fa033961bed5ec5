//! Logs: one JSON object a line for machines, readable lines on a terminal. Always on stderr: data goes to stdout.

mod recent;

pub use recent::recent;

use crate::config::{Log, LogFormat};
use anstream::{AutoStream, ColorChoice};
use recent::Ring;
use std::io::IsTerminal;
use tracing::Subscriber;
use tracing_subscriber::fmt::{Layer, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

/// Starts the log. Libraries stay at warn whatever the level is: their traces hold headers and bodies.
pub fn init(log: &Log) {
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    // A second start (tests in one process) keeps the first.
    let _ = subscriber(&log.level, std::io::stderr, json, recent::ring()).try_init();
}

/// What is logged goes to `out`, and as JSON into the ring.
fn subscriber<W>(level: &str, out: W, json: bool, ring: &'static Ring) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(format!("warn,opship={level}"));
    let lines = Layer::new().with_writer(out).with_target(false);
    let lines = if json {
        lines.json().flatten_event(true).with_span_list(false).with_current_span(true).boxed()
    } else {
        // As the commands do: NO_COLOR and TERM=dumb count.
        lines.with_ansi(AutoStream::choice(&std::io::stderr()) != ColorChoice::Never).boxed()
    };
    let kept = Layer::new().with_writer(ring).with_target(false).with_ansi(false).json();
    let kept = kept.flatten_event(true).with_span_list(false).with_current_span(true);
    Registry::default().with(lines).with(kept).with(filter)
}
