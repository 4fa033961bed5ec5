//! Seeded runs: virtual days with crashes, lost replies, races, rejected cursors and events up to 60 hours late.
//! `OPSHIP_SEED=17` replays one seed, `OPSHIP_SEEDS=5000` runs more of them.

use crate::dice::Dice;
use crate::link::Mishap;
use crate::sink::Outcome;
use crate::source::{Order, Reply, status};
use crate::store::{Fault, Op, TTL};
use crate::world::{HOUR, MINUTE, Process, World};
use opship::flow::planted::{self, Bug};
use opship::flow::retry::Failure;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SEEDS: u64 = 300;

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("OPSHIP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OPSHIP_SEEDS").unwrap_or(SEEDS),
    }
}

/// Prints the seed of a run that panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with OPSHIP_SEED={}", self.0);
        }
    }
}

/// How rough the outside is, by seed.
#[derive(Clone, Copy)]
struct Weather {
    /// One call in so many fails; 0 is never.
    source: u64,
    sink: u64,
    store: u64,
    /// One tick in so many ends in a crash.
    crash: u64,
    reject: u64,
}

impl Weather {
    fn of(dice: &mut Dice) -> Self {
        let mut pick = |choices: [u64; 4]| choices[dice.below(4) as usize];
        Self {
            source: pick([0, 40, 12, 5]),
            sink: pick([0, 30, 8, 4]),
            store: pick([0, 60, 25, 12]),
            crash: pick([0, 8, 3, 2]),
            reject: pick([0, 20, 6, 3]),
        }
    }

    fn blow(self, world: &World, seed: u64) {
        let hits = |dice: &mut Dice, odds: u64| odds > 0 && dice.one_in(odds);
        let mut dice = Dice::new(seed ^ 0x50);
        world.on_page(move |_| {
            hits(&mut dice, self.source).then(|| match dice.below(4) {
                0 => Reply::Fail(Failure::NotConnected),
                1 => Reply::Fail(status(429)),
                2 => Reply::Fail(status(503)),
                _ => Reply::Body("{}".into()),
            })
        });
        let (mut dice, mut storm) = (Dice::new(seed ^ 0x51), None);
        world.on_post(move |_| {
            // Trouble comes in storms: the same again, a few times.
            let kind = match storm.take().filter(|_| dice.below(3) > 0) {
                None => hits(&mut dice, self.sink).then(|| dice.below(9)),
                kind => kind,
            };
            storm = kind;
            match kind {
                None => Outcome::Accept,
                Some(0 | 1) => Outcome::LoseReply,
                Some(2) => Outcome::Break,
                Some(3) => Outcome::Hang { accepted: dice.one_in(2) },
                Some(4) => Outcome::Refuse(429),
                Some(5) => Outcome::Refuse(413),
                Some(6) => Outcome::Refuse(503),
                Some(7) => Outcome::Refuse(404),
                Some(_) => Outcome::Refuse(403),
            }
        });
        let mut dice = Dice::new(seed ^ 0x52);
        world.on_store(move |op, _| {
            hits(&mut dice, self.store).then(|| match (op, dice.below(3)) {
                (Op::Append, 0) => Fault::Tear,
                (_, 1) => Fault::LoseReply,
                _ => Fault::Fail,
            })
        });
    }
}

/// Events of the coming hour, some of them late, some in one moment, some from a wrong clock.
fn events(world: &World, dice: &mut Dice) {
    for _ in 0..dice.below(6) {
        let ahead = dice.below(3_600_000) as i64;
        let late = match dice.below(6) {
            0 => dice.below(60 * 3_600_000) as i64,
            1 => dice.below(600_000) as i64,
            _ => dice.below(1_000) as i64,
        };
        let copies = if dice.one_in(8) { 9 } else { 1 };
        (0..copies).for_each(|_| _ = world.add_at(ahead, ahead + late, ""));
    }
    if dice.one_in(40) {
        world.add_at(dice.below(48 * 3_600_000) as i64, 0, "");
    }
}

fn prepare(world: &mut World, process: &mut Process, weather: Weather, dice: &mut Dice) {
    if process.feed.is_none() || dice.one_in(12) {
        // What it had accepted and not recorded is forgotten with it.
        world.crashes += 1;
        *process = world.start();
    }
    if weather.crash > 0 && dice.one_in(weather.crash) {
        world.crashes += 1;
        let k = 1 + dice.below(60);
        let stall = Mishap::Stall(Duration::from_secs(dice.below(400)));
        process.link.at_step(k, if dice.one_in(3) { stall } else { Mishap::Crash });
    }
}

async fn run(seed: u64) {
    let _named = Named(seed);
    let mut dice = Dice::new(seed);
    let order = if dice.one_in(2) { Order::Insertion } else { Order::EventTime };
    let replicas = 1 + dice.below(2);
    let mut world = World::seeded(order, seed);
    world.state().latency_ms_max = 1 + dice.below(30);
    world.state().source.page_max = 3 + dice.below(16) as usize;
    let weather = Weather::of(&mut dice);
    weather.blow(&world, seed);
    let (mut a, mut b) = (world.start(), world.start());
    for _ in 0..20 + dice.below(20) {
        events(&world, &mut dice);
        if weather.reject > 0 && dice.one_in(weather.reject) {
            world.state().source.reject_cursors();
        }
        prepare(&mut world, &mut a, weather, &mut dice);
        if replicas == 2 {
            prepare(&mut world, &mut b, weather, &mut dice);
            let wait = Duration::from_millis(dice.below(300));
            let second = async {
                tokio::time::sleep(wait).await;
                b.tick().await
            };
            let (first, second) = tokio::join!(a.tick(), second);
            // A tick that ends in trouble may leave its batch to the other replica.
            world.crashes += [first, second].iter().filter(|outcome| !matches!(outcome, Some(Ok(_)))).count() as u64;
        } else {
            _ = a.tick().await;
        }
        world.the_position_is_covered();
        let outage = dice.one_in(30);
        let pause = if outage { dice.below(40) * 3600 } else { [20, 60, 130, 1800, 5400][dice.below(5) as usize] };
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
    settle(&mut world).await;
}

/// Calm weather until everything that will ever be visible has been swept.
async fn settle(world: &mut World) {
    world.heal();
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
    assert!(world.checkpoint().intent.is_none());
}

/// Each seed has a runtime, and so a clock, of its own: a replay is the same run.
fn run_alone(seed: u64) {
    let paused = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    paused.expect("a runtime").block_on(run(seed));
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
    let seeds = Mutex::new(seeds());
    let next = || seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| std::iter::from_fn(next).for_each(run_alone));
        }
    });
}
