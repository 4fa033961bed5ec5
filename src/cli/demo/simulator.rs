//! `opship sim`: only the simulator.

use crate::cli::{CliError, Exit};
use crate::sim;
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// Where to listen; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// Everything the simulator makes up follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// JSON file with scripted faults
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Serve https with a CA of its own
    #[arg(long)]
    tls: bool,
    /// The order in which cursors walk
    #[arg(long, value_enum, default_value_t = CursorOrder::Insert)]
    order: CursorOrder,
    /// Events that exist at the start
    #[arg(long, default_value_t = 1000)]
    history: usize,
    /// How far back they reach
    #[arg(long, value_parser = humantime::parse_duration, default_value = "7d", value_name = "DURATION")]
    history_span: Duration,
    /// Live events a second
    #[arg(long, default_value_t = 0.0)]
    live: f64,
    /// Share of events that become visible late, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    late_share: f64,
    /// How late at most
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1h", value_name = "DURATION")]
    late_max: Duration,
    /// Refuse bodies over 1 MiB uncompressed too
    #[arg(long)]
    strict: bool,
    /// Don't enforce the request limits of the real services
    #[arg(long)]
    no_rate_limits: bool,
    /// Share of accepted rows that the workspace then loses, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    drop_share: f64,
    /// How long after they were accepted rows can be queried
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s", value_name = "DURATION")]
    ingestion_latency: Duration,
    /// Append accepted rows to this file
    #[arg(long, value_name = "FILE")]
    rows_out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CursorOrder {
    Insert,
    EventTime,
}

/// Serves until SIGTERM.
pub(crate) async fn simulate(args: SimArgs) -> Result<Exit, CliError> {
    let (options, faults) = args.options();
    sim::serve(options, faults).await?;
    Ok(Exit::Done)
}

impl SimArgs {
    fn options(self) -> (sim::Options, Option<PathBuf>) {
        let options = sim::Options {
            listen: self.listen,
            seed: self.seed,
            tls: self.tls,
            order: self.order.into(),
            history: self.history,
            history_span: self.history_span,
            live_per_second: self.live,
            late_share: self.late_share,
            late_max: self.late_max,
            strict_uncompressed: self.strict,
            rate_limits: !self.no_rate_limits,
            rows_out: self.rows_out,
            drop_share: self.drop_share,
            ingestion_latency: self.ingestion_latency,
            ..sim::Options::default()
        };
        (options, self.faults)
    }
}

impl From<CursorOrder> for sim::Order {
    fn from(order: CursorOrder) -> Self {
        match order {
            CursorOrder::Insert => Self::Insert,
            CursorOrder::EventTime => Self::EventTime,
        }
    }
}
