//! The command line: parse, dispatch, exit codes.

mod check;
mod dead_letters;
mod manual;
mod run;

mod backfill;
mod checkpoint;
mod demo;
mod diagnostics;
mod exit;
mod range;
mod reconcile;
mod status;
mod text;

use crate::agent::chain;
use crate::config::{Config, ConfigError, ConfigFile, Need, load, show};
use crate::flow::{AccountName, Stream};
use crate::http::descriptors;
use crate::{private, telemetry};
use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum};
pub(crate) use demo::simulator::CursorOrder;
use exit::advice;
pub(crate) use exit::{CliError, Exit, exit_of};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The work is waiting for others; one thread would do, a second one keeps the timer exact.
const WORKERS: usize = 2;
/// Threads for files, compression and name look-ups. Each has a heap of its own, so that more of them make the memory creep.
const BLOCKING_THREADS_MAX: usize = 16;

/// Ships 1Password events to Microsoft Sentinel: nothing lost, every duplicate traceable.
#[derive(Debug, Parser)]
#[command(name = "opship", version, arg_required_else_help = true)]
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
    Sim(demo::simulator::SimArgs),
    /// How every feed is: asked of the running process, else read from the store
    Status(status::StatusArgs),
    /// Ship a range again: what is not in the ledger of it, beside the live feed, whatever the position is
    ///
    /// A range may lie before the position; the position stays where it is. `opship run` may go on meanwhile. A backfill that was ended,
    /// by whatever, goes on where it stood when the same command is given again. What the ledger knows is never shipped again.
    Backfill(backfill::BackfillArgs),
    /// Check every part of the setup: a line each, with the remedy
    Check,
    /// Look at or change the stored position
    Checkpoint {
        #[command(subcommand)]
        command: checkpoint::CheckpointCommand,
    },
    /// Is everything in the table that is at the source? Hour by hour; --repair ships what is missing
    Reconcile(reconcile::ReconcileArgs),
    /// Events that could not be shipped whole: look, ship again, delete
    DeadLetters {
        #[command(subcommand)]
        command: dead_letters::LettersCommand,
    },
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// One redacted archive for a support ticket: configuration, positions, logs, metrics, check
    Diagnostics(diagnostics::DiagnosticsArgs),
    /// Print completions for a shell, or write those of all shells
    Completions(manual::CompletionsArgs),
    /// Print the manual, or write a page for each command and one for the configuration
    Man(manual::ManArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Every setting in effect, secrets hidden
    Show,
    /// JSON schema of the configuration file, for editors
    Schema,
}

/// Runs the program.
pub fn main() -> ExitCode {
    // Secrets are in memory: none of them belongs into a core file, or to another process of the same user. Best effort, as a kernel
    // that refuses is one that a filter keeps from it.
    let _ = private::keep_memory_private();
    let parsed = manual::help::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // Nothing can be done about a closed stderr.
            let _ = error.print();
            return exit.into();
        }
    };
    descriptors::raise();
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
    run::signals::outlive_others()?;
    let Cli { config, output, command } = cli;
    match command {
        Command::Run => run::run(&started(config, Need::Everything)?).await,
        Command::Once { max_duration } => run::once(&started(config, Need::Everything)?, max_duration, output).await,
        Command::Demo(args) => demo::demo(args, output).await,
        Command::Sim(args) => demo::simulator::simulate(args).await,
        Command::Check => check::check(config, output).await,
        Command::Status(args) => status::status(&started(config, Need::WhatIsThere)?, &args, output).await,
        Command::Backfill(args) => backfill::backfill(&started(config, Need::Everything)?, args, output).await,
        Command::Checkpoint { command } => {
            checkpoint::checkpoint(&started(config, Need::Everything)?, command, output).await
        }
        Command::Reconcile(args) => reconcile::reconcile(&started(config, Need::Everything)?, args, output).await,
        Command::DeadLetters { command } => {
            dead_letters::letters(&started(config, command.need())?, command, output).await
        }
        Command::Config { command: ConfigCommand::Schema } => print(&show::schema()),
        Command::Config { command: ConfigCommand::Show } => {
            let config = loaded(config, Need::WhatIsThere)?;
            match output {
                Output::Text => print(&show::normalised_toml(&config)),
                Output::Json => print(&show::normalised_json(&config)),
            }
        }
        Command::Diagnostics(args) => diagnostics::diagnostics(config, args, output).await,
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::manual(&args),
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
