//! `opship demo`: the unmodified agent against the built-in simulator, and then the two sides compared.

pub(super) mod child;
pub(super) mod folder;
pub(super) mod progress;
pub(super) mod report;
pub(super) mod simulator;

use super::{CliError, CursorOrder, Exit, Output, print};
use crate::sim::{self, Comparison, Sim};
use child::{Agent, LATE_MAX};
use folder::Place;
use indicatif::HumanCount;
use progress::Progress;
use report::{Figures, Files, totals};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;

/// Share of the live events that become visible late: 80 of those that the default trickle makes in 16 s.
const LATE_SHARE: f64 = 0.1;
/// How often the two sides are compared.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the agent may take to catch up once nothing new comes.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
/// More would be about the simulator's memory.
const EVENTS_MAX: u64 = 500_000;
/// With more a second, what is read again each second is more than 600 requests a minute bring.
const RATE_MAX: i64 = 100;

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// How long events come, the time for the history included
    #[arg(long = "for", value_parser = humantime::parse_duration, default_value = "20s", value_name = "DURATION")]
    lasts: Duration,
    /// Events of the last week that exist at the start: shipped first
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=EVENTS_MAX), default_value_t = 20_000)]
    events: u64,
    /// Live events a second once the history is shipped, at most 100; a tenth of them comes late
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=RATE_MAX), default_value_t = 50)]
    rate: u32,
    /// All events follow from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The order in which cursors walk; by event time a cursor never sees what comes late
    #[arg(long, value_enum, default_value_t = CursorOrder::EventTime)]
    order: CursorOrder,
    /// Where rows, log and state are written; emptied first, when it is a demo's
    #[arg(long, default_value = "demo-out", value_name = "DIR")]
    out: PathBuf,
}

impl DemoArgs {
    fn world(&self, place: &Place) -> sim::Options {
        sim::Options {
            seed: self.seed,
            order: self.order.into(),
            history: usize::try_from(self.events).unwrap_or(usize::MAX),
            late_share: LATE_SHARE,
            late_max: LATE_MAX,
            rows_out: Some(place.rows()),
            ..sim::Options::default()
        }
    }
}

pub(super) async fn demo(args: DemoArgs, output: Output) -> Result<Exit, CliError> {
    let place = Place::prepare(&args.out)?;
    let mut asked = Asked::listen()?;
    let sim = Sim::start(args.world(&place)).await?;
    let agent = Agent::spawn(&place, sim.environment())?;
    eprintln!(
        "{} events of a week at the simulator {}, then {} a second; the agent is process {}, its log {}",
        HumanCount(args.events),
        sim.base_url(),
        args.rate,
        agent.pid,
        place.log().display()
    );
    let mut stage = Stage { sim, agent, progress: Progress::new(args.events), look: tokio::time::interval(LOOK_EVERY) };
    let played = tokio::select! {
        played = stage.play(&args, &asked.to_end) => played,
        number = &mut asked.at_once => {
            stage.agent.kill().await;
            // As a second signal ends every other command.
            std::process::exit(128 + number.unwrap_or_else(|_| SignalKind::interrupt().as_raw_value()));
        }
    };
    stage.progress.finish();
    let ended = played?;
    let compared = stage.sim.world().compare();
    stage.sim.stop().await;
    let files = Files { rows: place.rows().display().to_string(), log: place.log().display().to_string() };
    let figures = Figures::new(&compared, totals(place.state()).await, files, ended);
    print(&figures.shown(output)?)?;
    Ok(figures.exit())
}

/// Both sides of a demo.
struct Stage {
    sim: Sim,
    agent: Agent,
    progress: Progress,
    look: Interval,
}

impl Stage {
    /// History, live events, the rest, the agent's end. The inner result is how that was.
    async fn play(
        &mut self,
        args: &DemoArgs,
        asked_to_end: &CancellationToken,
    ) -> Result<Result<(), String>, CliError> {
        let begun = Instant::now();
        let is_shipped = |now: &Comparison| now.shipped >= args.events;
        tokio::select! {
            watched = self.watch(is_shipped) => watched?,
            // Live events are part of every demo, also on a machine that is slow with the history.
            () = tokio::time::sleep(args.lasts / 2) => {}
            () = asked_to_end.cancelled() => {}
        }
        self.sim.world().set_live(f64::from(args.rate));
        tokio::select! {
            watched = self.watch(|_| false) => watched?,
            () = tokio::time::sleep(args.lasts.saturating_sub(begun.elapsed())) => {}
            () = asked_to_end.cancelled() => {}
        }
        self.sim.world().stop_generator();
        // A generator in the middle of its beat finishes it before the next look.
        self.look.reset();
        tokio::select! {
            // The heartbeat follows the first good cycle: before it the agent may not even have begun.
            watched = self.watch(|now| now.lost == 0 && now.health_rows > 0) => watched?,
            () = tokio::time::sleep(CATCH_UP_MAX) => {}
        }
        Ok(self.agent.end().await)
    }

    /// Compares the two sides until they are as wanted.
    ///
    /// # Errors
    /// An agent that died meanwhile.
    async fn watch(&mut self, is_done: impl Fn(&Comparison) -> bool) -> Result<(), CliError> {
        loop {
            tokio::select! {
                died = self.agent.died() => return Err(died),
                _ = self.look.tick() => {}
            }
            let now = self.sim.world().compare();
            self.progress.show(&now);
            if is_done(&now) {
                return Ok(());
            }
        }
    }
}

/// What signals ask for: the first for an orderly end, the second, whose number this gives, for an end at once.
struct Asked {
    to_end: CancellationToken,
    at_once: JoinHandle<i32>,
}

impl Asked {
    fn listen() -> Result<Self, CliError> {
        let failed = |error| CliError::Failed(format!("listen for signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut next = async move || {
            tokio::select! {
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            }
        };
        let to_end = CancellationToken::new();
        let first = to_end.clone();
        let at_once = tokio::spawn(async move {
            next().await;
            first.cancel();
            next().await
        });
        Ok(Self { to_end, at_once })
    }
}
