//! Seeded runs: virtual days with crashes, lost replies, races, rejected cursors, a store that falls back, wrong clocks and events up to
//! 60 hours late. One seed decides everything. `OPSHIP_SEED=17` replays one (`OPSHIP_SEED_LOG=1`: and
//! tells its story), `OPSHIP_SEEDS=5000..6000` runs a range of them.

use crate::dice::Dice;
use crate::faults::Kind;
use crate::figures::{FAULTS_MIN, Figures};
use crate::source::Order;
use crate::store::TTL;
use crate::twins::Intruder;
use crate::weather::{Backup, Sealing, Weather};
use crate::world::{HOUR, MINUTE, Process, World};
use crate::wrong_times::Clocks;
use opship::flow::planted::{self, Bug};
use opship::flow::retry::Patience;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SEEDS: u64 = 2_000;
/// Seeds beyond those in which a record run found something.
const FOUND: [u64; 8] = [226_728, 231_538, 310_022, 1_101_077, 1_112_479, 1_130_797, 1_135_514, 1_238_586];
const EVENTS_MIN: usize = 200;
/// A run in which nothing goes wrong is not prolonged for ever.
const TICKS_MAX: u64 = 200;
/// Later than any run ends.
const NEVER: Duration = Duration::from_secs(1_000 * 86_400);
/// Outages of days; two at most, so that the source still has everything.
const LONG_OUTAGES_MAX: u32 = 2;

fn seeds() -> Range<u64> {
    let text = |name| std::env::var(name).ok();
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("no seed: {text}"));
    if let Some(seed) = text("OPSHIP_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match text("OPSHIP_SEEDS") {
        None => 0..SEEDS,
        Some(range) => {
            let (from, to) = range.split_once("..").unwrap_or(("0", &range));
            number(from)..number(to)
        }
    }
}

/// Prints the seed of a run that panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}: replay with: scripts/prove --seed {}", self.0, self.0);
        }
    }
}

/// One seed's run.
struct Run {
    world: World,
    dice: Dice,
    weather: Weather,
    clocks: Clocks,
    processes: Vec<Process>,
    intruder: Option<Intruder>,
    backup: Backup,
    ticks: u64,
    long_outages: u32,
    sealing: Sealing,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let order = if dice.one_in(2) { Order::Insertion } else { Order::EventTime };
        let mut world = World::seeded(order, seed);
        world.settings.batch_rows_max = [3, 4, 8, 20][dice.below(4) as usize];
        if dice.one_in(3) {
            (world.patience, world.standby_max) = (Patience::ONCE, Duration::from_secs(130));
        }
        {
            let mut state = world.state();
            state.is_watched = true;
            state.lookback = Some(chrono::TimeDelta::days(30));
            state.latency_ms_max = 1 + dice.below(30);
            state.source.page_max = 3 + dice.below(30) as usize;
            state.store.can_cut = dice.one_in(2);
        }
        // Dice of its own: the other runs stay as they were.
        let mut verify = Dice::new(seed ^ 0x7e);
        if verify.one_in(6) {
            world.settings.verify_after = Some(Duration::from_secs(60 + verify.below(900)));
            let mut state = world.state();
            state.sink.shows_after = Duration::from_secs(verify.below(900));
            state.sink.is_silent = verify.one_in(4);
        }
        let weather = Weather::of(&mut dice);
        (0..dice.below(150)).for_each(|_| world.happen(&mut dice, weather, true));
        if weather.overlap_alone {
            world.settings.widths.late_every = NEVER;
        }
        weather.blow(&world, seed);
        world.poison_some(seed);
        let replicas = 1 + dice.below(6).saturating_sub(2).min(2);
        match replicas {
            2 => world.state().struck.by(Kind::TwoReplicas),
            3 => world.state().struck.by(Kind::ThreeReplicas),
            _ => {}
        }
        let clocks = Clocks::of(&world, seed);
        let processes = (0..replicas).map(|_| world.start()).collect();
        let (intruder, backup, sealing) = (Intruder::of(seed), Backup::default(), Sealing::of(seed));
        Self { world, dice, weather, clocks, processes, intruder, backup, ticks: 0, long_outages: 0, sealing }
    }

    async fn go(mut self) -> Figures {
        let ticks = 20 + self.dice.below(8);
        while self.ticks < ticks || (self.is_too_calm(FAULTS_MIN) && self.ticks < TICKS_MAX) {
            self.happen(ticks);
            self.weather.strike(&self.world, &mut self.backup, &mut self.dice);
            self.clocks.strike(&self.world);
            // A run in which too little goes wrong is helped along.
            let is_calm = self.ticks > 12 && self.is_too_calm(FAULTS_MIN + 2);
            for process in &mut self.processes {
                self.weather.befall(&mut self.world, process, &mut self.dice, is_calm);
            }
            self.sealing.strike(&mut self.world, &mut self.processes);
            self.tick().await;
            if let Some(intruder) = &mut self.intruder {
                intruder.try_its_luck(&mut self.world).await;
            }
            self.pause().await;
            self.ticks += 1;
        }
        settle(&mut self.world).await;
        Figures::of(&self.world, self.ticks)
    }

    fn is_too_calm(&self, faults_min: u64) -> bool {
        self.world.state().struck.faults() < faults_min
    }

    /// Events of the coming hour, some of them in one burst.
    fn happen(&mut self, ticks: u64) {
        let burst = if self.dice.one_in(10) { 20 } else { 0 };
        (0..self.dice.below(9) + burst).for_each(|_| self.world.happen(&mut self.dice, self.weather, false));
        if self.ticks + 1 == ticks {
            let there = self.world.state().source.events.len();
            (there..EVENTS_MIN).for_each(|_| self.world.happen(&mut self.dice, self.weather, false));
        }
    }

    /// A tick of each replica, all at nearly the same time.
    async fn tick(&mut self) {
        let rows = self.world.rows();
        let late_gives_way = self.dice.one_in(5);
        let starts: Vec<_> = self.processes.iter().map(|_| Duration::from_millis(self.dice.below(300))).collect();
        let falls_back = Duration::from_millis(self.dice.below(600));
        let ticks = self.processes.iter_mut().zip(starts).map(async |(process, start)| {
            tokio::time::sleep(start).await;
            process.tick_giving_way(&|| late_gives_way).await
        });
        let falling_back = async {
            tokio::time::sleep(falls_back).await;
            self.backup.restore(&self.world, &mut self.dice)
        };
        let (outcomes, restored) = tokio::join!(futures_util::future::join_all(ticks), falling_back);
        if let Some(first) = restored {
            self.world.excuse_rows_from(first.min(rows));
        }
        if outcomes.len() > 1 {
            // A tick that ends in trouble may leave its batch to another replica.
            self.world.crashes += outcomes.iter().filter(|outcome| !matches!(outcome, Some(Ok(_)))).count() as u64;
        }
        if self.dice.one_in(4) {
            self.backup.take(&self.world);
        }
    }

    async fn pause(&mut self) {
        let seconds = match self.dice.below(40) {
            0 => {
                self.world.state().struck.by(Kind::Outage);
                self.dice.below(40) * 3600
            }
            1 if self.long_outages < LONG_OUTAGES_MAX => {
                self.long_outages += 1;
                self.world.state().struck.by(Kind::Outage);
                self.dice.below(35) * 86_400
            }
            _ => [20, 60, 130, 1800, 5400][self.dice.below(5) as usize],
        };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// Calm weather until everything that will ever be visible has been swept.
async fn settle(world: &mut World) {
    world.heal();
    {
        let mut state = world.state();
        state.source.skew = chrono::TimeDelta::zero();
        state.store.clock_error = 0;
        state.source.wrong_dates = None;
        state.host_skew = chrono::TimeDelta::zero();
    }
    tokio::time::sleep(62 * HOUR + TTL).await;
    let mut last = world.start();
    for _ in 0..4 {
        let mut tries = 0;
        while let Err(trouble) = last.tick().await.expect("no crash any more") {
            tries += 1;
            assert!(tries < 60, "the feed does not heal: {trouble}");
            tokio::time::sleep(trouble.pause().max(MINUTE)).await;
        }
        tokio::time::sleep(31 * MINUTE).await;
    }
    world.nothing_is_lost();
    world.is_sound();
    let poisoned: Vec<String> = world.state().sink.poison.keys().cloned().collect();
    world.only_these_are_stubs(&poisoned.iter().collect::<Vec<_>>());
    let checkpoint = world.checkpoint();
    assert!(checkpoint.slot.intent().is_none());
    // Whatever was torn, cut or written by others: nobody took a segment away.
    let tampered =
        [Kind::CheckpointRolledBack, Kind::StoreRolledBack, Kind::CheckpointDamaged, Kind::CheckpointDeleted];
    let is_tampered = tampered.iter().any(|kind| world.state().struck.times(*kind) > 0);
    let of_loss = checkpoint.slot.in_doubt().last.iter().find(|doubt| doubt.why.contains("segments"));
    assert!(of_loss.is_none() || is_tampered, "V: a loss is told that was none: {of_loss:?}");
    world.the_checkpoint_knows_its_ledger();
}

/// Each seed has a runtime, and so a clock, of its own: a replay is the same run.
fn run_alone(seed: u64) -> Figures {
    let _log = std::env::var("OPSHIP_SEED_LOG").is_ok().then(|| {
        let log =
            tracing_subscriber::fmt().without_time().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr);
        tracing::subscriber::set_default(log.finish())
    });
    let paused = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    paused.expect("a runtime").block_on(Run::new(seed).go())
}

/// What the run of a seed says of a planted bug; `None`: it saw nothing wrong.
pub(crate) fn complaint(seed: u64, bug: Bug) -> Option<String> {
    planted::plant(Some(bug));
    let caught = std::panic::catch_unwind(|| run_alone(seed));
    planted::plant(None);
    let said = caught.err()?;
    let text = said.downcast_ref::<String>().cloned();
    Some(text.or_else(|| said.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
}

#[test]
fn whatever_happens_nothing_is_lost_and_every_copy_is_traceable() {
    let (range, started) = (seeds(), Instant::now());
    let seeds = Mutex::new(range.clone());
    let next = || seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let mut all = Figures::none();
    std::thread::scope(|scope| {
        let work = || {
            let mut figures = Figures::none();
            std::iter::from_fn(next).for_each(|seed| {
                let _named = Named(seed);
                figures.add(&run_alone(seed));
            });
            figures
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            all.add(&thread.join().unwrap_or_else(|failed| std::panic::resume_unwind(failed)));
        }
    });
    all.every_kind_struck();
    all.tell(&range, started.elapsed());
}

#[test]
fn what_the_record_runs_found_stays_mended() {
    for seed in FOUND {
        let _named = Named(seed);
        run_alone(seed);
    }
}

#[test]
fn a_seed_replays_the_same_run() {
    for seed in 0..12 {
        assert_eq!(run_alone(seed).story(), run_alone(seed).story(), "seed {seed}");
    }
}
