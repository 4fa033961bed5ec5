//! The command line: parse, dispatch, exit codes.

mod checkpoint;
mod demo;
mod demo_child;
mod demo_place;
mod demo_progress;
mod demo_report;
mod doctor;
mod ship;
mod signals;

use crate::agent::{Trouble, chain};
use crate::config::{Config, ConfigError, ConfigFile, Need, load, show};
use crate::flow::{AccountName, Stream};
use crate::store::StoreError;
use crate::store::checkpoints::CheckpointError;
use crate::wire::WireError;
use crate::{sim, telemetry};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The work is waiting for others; one thread would do, a second one keeps the timer exact.
const WORKERS: usize = 2;
/// Threads for files, compression and name look-ups. Each has a heap of its own, so that more of them make the memory creep.
const BLOCKING_THREADS_MAX: usize = 16;

/// Ships 1Password events to Microsoft Sentinel: nothing lost, every duplicate traceable.
#[derive(Debug, Parser)]
#[command(name = "opship", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    /// Configuration file [default: ./opship.toml, else /etc/opship/config.toml, else the environment alone]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How results are printed on stdout
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  opship demo --for 20s                 the whole path against a built-in simulator, no account needed
  opship check                          is everything right? one line per step, with the remedy
  opship run                            ship for ever (Container App, systemd service)
  opship once                           ship what there is and exit (Container Apps job, systemd timer)

Exit codes: 0 done, 1 failed (try again), 2 done with dead letters, 64 usage or configuration, 77 credentials refused";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ship for ever: at once, then by the timer, until SIGTERM
    Run,
    /// Ship everything there is, post a heartbeat, exit
    Once {
        /// Stop after this long; what is left is shipped by the next run
        #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
        max_duration: Option<Duration>,
    },
    /// The same agent against the built-in simulator; rows land in demo-out/
    Demo(demo::DemoArgs),
    /// Only the simulator: prints one JSON line with its URLs and the environment a client needs; ends on SIGTERM
    Sim(SimArgs),
    /// Check every part of the setup: a line each, with the remedy
    Check,
    /// Look at or change the stored position
    Checkpoint {
        #[command(subcommand)]
        command: checkpoint::CheckpointCommand,
    },
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Every setting in effect, secrets hidden
    Show,
    /// JSON schema of the configuration file, for editors
    Schema,
}

#[derive(Debug, Args)]
struct SimArgs {
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
    /// Append accepted rows to this file
    #[arg(long, value_name = "FILE")]
    rows_out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CursorOrder {
    Insert,
    EventTime,
}

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
    Checkpoint(#[from] CheckpointError),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Usage(_) => Exit::Usage,
            Self::Wire(WireError::Http(_) | WireError::Setting(_)) => Exit::Usage,
            Self::Wire(WireError::Secret(_)) => Exit::Usage,
            Self::Wire(_) | Self::Sim(_) | Self::Failed(_) => Exit::Failed,
            Self::Trouble(trouble) => exit_of(trouble),
            Self::Checkpoint(CheckpointError::TooNew { .. }) => Exit::Usage,
            Self::Checkpoint(_) => Exit::Failed,
        }
    }
}

/// What to do about errors whose cause is a library's own words.
fn advice(error: &CliError) -> Option<&'static str> {
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

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // Nothing can be done about a closed stderr.
            let _ = error.print();
            return exit.into();
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("opship: start the async runtime: {error}");
            return Exit::Failed.into();
        }
    };
    let outcome = match check_clock(SystemTime::now()) {
        Ok(()) => runtime.block_on(dispatch(cli)),
        Err(error) => Err(error),
    };
    // Blocking file operations that hang must not keep the process from ending.
    runtime.shutdown_timeout(Duration::from_millis(500));
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            chain(&error).lines().chain(advice(&error)).for_each(|line| eprintln!("opship: {line}"));
            error.exit().into()
        }
    }
}

/// A time that nanoseconds since 1970 cannot hold (before 1970, after 2262) is a clock that was never set. TLS cannot judge
/// certificates by it, and libraries panic.
fn check_clock(now: SystemTime) -> Result<(), CliError> {
    let is_a_time = now.duration_since(UNIX_EPOCH).is_ok_and(|since| i64::try_from(since.as_nanos()).is_ok());
    let wrong = || {
        CliError::Failed("the clock of this host is before 1970 or after 2262: set it (NTP), then start again".into())
    };
    is_a_time.then_some(()).ok_or_else(wrong)
}

async fn dispatch(cli: Cli) -> Result<Exit, CliError> {
    let Cli { config, output, command } = cli;
    match command {
        Command::Run => ship::run(&started(config, Need::Everything)?).await,
        Command::Once { max_duration } => ship::once(&started(config, Need::Everything)?, max_duration, output).await,
        Command::Demo(args) => demo::demo(args, output).await,
        Command::Sim(args) => {
            let (options, faults) = args.options();
            sim::serve(options, faults).await?;
            Ok(Exit::Done)
        }
        Command::Check => doctor::check(loaded(config, Need::Everything), output).await,
        Command::Checkpoint { command } => {
            checkpoint::checkpoint(&started(config, Need::Everything)?, command, output).await
        }
        Command::Config { command: ConfigCommand::Schema } => print(&show::schema()),
        Command::Config { command: ConfigCommand::Show } => {
            let config = loaded(config, Need::WhatIsThere)?;
            match output {
                Output::Text => print(&show::normalised_toml(&config)),
                Output::Json => print(&show::normalised_json(&config)),
            }
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "opship", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Data goes to stdout; a reader that went away is no error.
pub(crate) fn print(text: &str) -> Result<Exit, CliError> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| if text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") })
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Failed(format!("write to stdout: {error}")))
        }
        _ => Ok(Exit::Done),
    }
}

fn loaded(file: Option<PathBuf>, need: Need) -> Result<Config, ConfigError> {
    let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    load(&ConfigFile::from_flag(file), std::env::vars_os().filter_map(utf8), need)
}

fn started(file: Option<PathBuf>, need: Need) -> Result<Config, ConfigError> {
    let config = loaded(file, need)?;
    telemetry::init(&config.log);
    Ok(config)
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

/// Which feeds a command is about.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only this account
    #[arg(long, value_parser = account_name)]
    account: Option<AccountName>,
    /// Only this stream
    #[arg(long, value_parser = stream_name)]
    stream: Option<Stream>,
}

fn account_name(text: &str) -> Result<AccountName, String> {
    AccountName::parse(text).ok_or_else(|| "an account name is [a-z0-9-], 1 to 63 characters".into())
}

fn stream_name(text: &str) -> Result<Stream, String> {
    let found = Stream::ALL.into_iter().find(|stream| stream.as_str() == text);
    found.ok_or_else(|| "a stream is auditevents, itemusages or signinattempts".into())
}
