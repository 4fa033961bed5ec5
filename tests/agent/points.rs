//! kill -9 at every wait of a tick, in every scene of the table and both cursor orders; in some also at every wait of the recovery.

use crate::doubts::{DOUBTS, STORE};
use crate::link::Mishap;
use crate::scenes::{DELIVERY, READING};
use crate::source::{BOTH, Event, Order};
use crate::store::TTL;
use crate::world::{HOUR, MINUTE, ROWS_MAX, World};
use futures_util::future::LocalBoxFuture;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Scenes small enough for every pair of waits.
const PAIRS: [&str; 5] = [
    "one event",
    "the reply to a POST is lost",
    "a batch in doubt that was accepted",
    "a part of a split in doubt",
    "the reply to the write of an intent is lost",
];
const SCENES_MIN: usize = 90;
const POINTS_MIN: u64 = 7_000;
const PAIRS_MIN: u64 = 7_000;

/// No process lives for so many waits.
const NEVER: u64 = u64::MAX;

type Arrange = for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, ()>;

pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) arrange: Arrange,
    /// Each commit is held against the table.
    pub(crate) is_watched: bool,
    /// The first process gets a SIGTERM at this step.
    pub(crate) stop_at: Option<u64>,
    /// The tick posts rows.
    pub(crate) ships: bool,
    /// Only a late sweep of a later tick finds all.
    pub(crate) is_late: bool,
}

impl Scene {
    pub(crate) const fn of(name: &'static str, arrange: Arrange) -> Self {
        Self { name, arrange, is_watched: true, stop_at: None, ships: true, is_late: false }
    }

    /// Some events need no row.
    pub(crate) const fn unwatched(self) -> Self {
        Self { is_watched: false, ..self }
    }

    pub(crate) const fn idle(self) -> Self {
        Self { ships: false, ..self }
    }

    pub(crate) const fn late(self) -> Self {
        Self { is_late: true, ..self }
    }

    pub(crate) const fn stopped_at(self, step: u64) -> Self {
        Self { stop_at: Some(step), ..self }
    }
}

/// Tells which point failed.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed in {}", self.0);
        }
    }
}

/// How a run of a scene ended.
struct Ending {
    /// How many of its processes died.
    died: usize,
    copies: u64,
    /// How far the last of them had come.
    rows_at_death: usize,
}

/// One process after the other dies at its wait, what was wrong with the outside heals, and the last process makes it good.
async fn run(scene: &Scene, order: Order, deaths: &[u64]) -> Ending {
    let mut world = World::new(order);
    world.state().is_watched = scene.is_watched;
    (scene.arrange)(&mut world).await;
    let (mut died, mut rows_at_death) = (0, 0);
    for (n, wait) in deaths.iter().enumerate() {
        let mut process = world.start();
        if let Some(step) = scene.stop_at.filter(|_| n == 0) {
            process.link.at_step(step, Mishap::Stop);
        }
        process.link.die_at_wait(*wait);
        let stood = world.stored_bytes();
        let outcome = process.tick().await;
        died += usize::from(outcome.is_none());
        // One that ends in trouble forgets with its end what it had accepted and not recorded.
        world.crashes += u64::from(!matches!(outcome, Some(Ok(_))));
        rows_at_death = world.rows();
        world.let_go_of_what_nobody_owes(is_dropped);
        world.every_copy_is_traceable();
        if world.stored_bytes() != stood {
            world.the_position_is_covered();
        }
        world.heal();
        tokio::time::sleep(TTL).await;
        if outcome.is_some() {
            break;
        }
    }
    make_good(&mut world).await;
    if scene.is_late {
        tokio::time::sleep(2 * HOUR).await;
        make_good(&mut world).await;
    }
    world.let_go_of_what_nobody_owes(is_dropped);
    world.nothing_is_lost_but(is_dropped);
    world.is_sound();
    assert!(world.open_intent().is_none(), "an intent is left open");
    Ending { died, copies: world.copies().0, rows_at_death }
}

/// The scene with a filter filters these.
fn is_dropped(event: &Event) -> bool {
    event.more.contains("dropped")
}

/// A fresh process, tick by tick until one is clean.
async fn make_good(world: &mut World) {
    let mut process = world.start();
    for _ in 0..60 {
        match process.tick().await.expect("nobody kills it") {
            Ok(drained) if !drained.more_pending => return,
            Ok(_) => {}
            Err(trouble) => tokio::time::sleep(trouble.pause().max(MINUTE)).await,
        }
    }
    panic!("the feed does not heal");
}

/// Each run has a runtime, and so a clock, of its own. Copies are held against the same scene without a death.
fn run_alone(scene: &Scene, order: Order, deaths: &[u64], copies: Option<u64>) -> Ending {
    let _named = Named(format!("{:?}, {order:?}, killed at wait {deaths:?}", scene.name));
    let paused = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let ending = paused.expect("a runtime").block_on(run(scene, order, deaths));
    let paid = (ending.died * ROWS_MAX) as u64;
    let most = copies.map_or(u64::MAX, |copies| copies + paid);
    assert!(ending.copies <= most, "D: {} copies, {copies:?} without a death, {paid} for it", ending.copies);
    ending
}

/// How many points there are: every wait of the tick.
fn every_wait(scene: &Scene, order: Order) -> u64 {
    let calm = run_alone(scene, order, &[NEVER], None);
    let mut points = 0;
    let mut stages = HashSet::new();
    for wait in 1.. {
        let ending = run_alone(scene, order, &[wait], Some(calm.copies));
        stages.insert(ending.rows_at_death);
        if ending.died == 0 {
            break;
        }
        points += 1;
    }
    assert!(!scene.ships || stages.len() > 1, "{:?}: each death left the same rows", scene.name);
    points
}

/// How many points there are: every wait of the tick and, for each, every wait of the process that recovers it.
fn every_pair(scene: &Scene, order: Order) -> u64 {
    let calm = run_alone(scene, order, &[NEVER], None);
    let mut points = 0;
    for first in 1.. {
        for second in 1.. {
            let ending = run_alone(scene, order, &[first, second], Some(calm.copies));
            match ending.died {
                2 => points += 1,
                1 => break,
                _ => return points,
            }
        }
    }
    points
}

/// Works through the scenes in both orders on all processors, tells what each had, and returns the sum.
fn points(scenes: &[&Scene], of: fn(&Scene, Order) -> u64) -> u64 {
    let work = Mutex::new(scenes.iter().flat_map(|scene| BOTH.map(|order| (*scene, order))));
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let work = || {
            let told = |(scene, order): (&Scene, Order)| {
                let points = of(scene, order);
                println!("{points:5} points: {} ({order:?})", scene.name);
                points
            };
            std::iter::from_fn(next).map(told).sum::<u64>()
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|points| points.unwrap_or_else(|failed| std::panic::resume_unwind(failed))).sum()
    })
}

fn scenes() -> Vec<&'static Scene> {
    let asked = std::env::var("OPSHIP_SCENE").unwrap_or_default();
    let all = [READING, DELIVERY, DOUBTS, STORE].into_iter().flatten();
    all.filter(|scene| scene.name.contains(&asked)).collect()
}

/// Fault: kill -9 at every wait of a tick, in every scene. Shows: nothing is lost, copies are traced and one batch at most, no intent is left.
#[test]
fn fm_39_a_crash_at_any_wait_of_any_scene_loses_nothing() {
    let scenes = scenes();
    let points = points(&scenes, every_wait);
    println!("{points:5} points in {} scenes", scenes.len());
    if std::env::var_os("OPSHIP_SCENE").is_none() {
        let names: HashSet<_> = scenes.iter().map(|scene| scene.name).collect();
        assert!(names.len() == scenes.len() && scenes.len() >= SCENES_MIN, "{} scenes", names.len());
        assert!(points >= POINTS_MIN, "{points} points");
    }
}

/// Fault: kill -9 at every wait, and again at every wait of the recovery. Shows: nothing is lost, copies are traced and two batches at most.
#[test]
fn fm_39_a_crash_at_any_wait_of_the_recovery_of_any_crash_loses_nothing() {
    let scenes: Vec<_> = scenes().into_iter().filter(|scene| PAIRS.contains(&scene.name)).collect();
    let points = points(&scenes, every_pair);
    println!("{points:5} pairs in {} scenes", scenes.len());
    if std::env::var_os("OPSHIP_SCENE").is_none() {
        assert!(scenes.len() == PAIRS.len() && points >= PAIRS_MIN, "{points} pairs in {} scenes", scenes.len());
    }
}
