//! What the seeded runs went through, added up.

use crate::faults::{Kind, Struck};
use crate::world::World;
use std::io::Write;
use std::time::Duration;

/// One seed in so many must meet each kind of fault, else the runs prove less than they say.
const RAREST: u64 = 100;
/// Fewer seeds say nothing of how rare a kind is.
const SEEDS_FOR_RARITY: u64 = 1_000;

const EVENTS_MIN: u64 = 200;
const TICKS_MIN: u64 = 20;
pub(crate) const FAULTS_MIN: u64 = 3;

pub(crate) struct Figures {
    seeds: u64,
    events: u64,
    ticks: u64,
    /// Calls to the outside, there and back.
    steps: u64,
    posts: u64,
    commits: u64,
    simulated: Duration,
    copies: u64,
    /// Copies whose trace went with a store that was rolled back.
    excused: u64,
    /// Events older than the lookback of a feed whose checkpoint was lost with its fallback copy.
    let_go: u64,
    struck: Struck,
    /// Seeds that met each kind.
    seeds_struck: Struck,
}

impl Figures {
    pub(crate) fn none() -> Self {
        let struck = Struck::none();
        let (seeds, events, ticks, steps, posts, commits, copies, excused, let_go) = (0, 0, 0, 0, 0, 0, 0, 0, 0);
        let (simulated, seeds_struck) = (Duration::ZERO, struck.clone());
        Self { seeds, events, ticks, steps, posts, commits, simulated, copies, excused, let_go, struck, seeds_struck }
    }

    /// Of one finished run. A run in which too little happened proves nothing.
    pub(crate) fn of(world: &World, ticks: u64) -> Self {
        let ((copies, excused), let_go) = (world.copies(), world.let_go());
        let state = world.state();
        let mut struck = state.struck.clone();
        struck.add(&state.store.struck);
        let events = state.source.events.len() as u64;
        let faults = struck.faults();
        assert!(events >= EVENTS_MIN && ticks >= TICKS_MIN && faults >= FAULTS_MIN, "{events}, {ticks}, {faults}");
        let seeds_struck = struck.at_all();
        let (steps, posts, commits) = (state.steps, state.sink.posts.len() as u64, state.seen.commits);
        let simulated = state.begun.elapsed();
        Self {
            seeds: 1,
            events,
            ticks,
            steps,
            posts,
            commits,
            simulated,
            copies,
            excused,
            let_go,
            struck,
            seeds_struck,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.ticks += other.ticks;
        self.steps += other.steps;
        self.posts += other.posts;
        self.commits += other.commits;
        self.simulated += other.simulated;
        self.copies += other.copies;
        self.excused += other.excused;
        self.let_go += other.let_go;
        self.struck.add(&other.struck);
        self.seeds_struck.add(&other.seeds_struck);
    }

    /// What a replay must repeat.
    pub(crate) fn story(&self) -> String {
        self.line("", &(0..self.seeds), 0)
    }

    /// Every kind of fault struck often enough.
    pub(crate) fn every_kind_struck(&self) {
        let is_rare = |kind: &&Kind| self.seeds_struck.times(**kind) * RAREST < self.seeds;
        let rare: Vec<_> = Kind::ALL.iter().filter(is_rare).collect();
        assert!(self.seeds < SEEDS_FOR_RARITY || rare.is_empty(), "too rare in {} seeds: {rare:?}", self.seeds);
    }

    /// A line of `docs/proof/seeds.csv`. Loss and untraceable copies end a run, so they are zero in every line.
    fn line(&self, commit: &str, seeds: &std::ops::Range<u64>, seconds: u64) -> String {
        let kind = |kind: &Kind| format!("{kind:?}={}/{}", self.struck.times(*kind), self.seeds_struck.times(*kind));
        let kinds = Kind::ALL.iter().map(kind).collect::<Vec<_>>().join(" ");
        let Self { events, ticks, steps, posts, commits, copies, excused, let_go, .. } = self;
        let (from, to, days) = (seeds.start, seeds.end, self.simulated.as_secs() / 86_400);
        format!(
            "{commit},{from},{to},{events},{ticks},{steps},{posts},{commits},{days},{copies},{excused},{let_go},0,0,{seconds},{kinds}"
        )
    }

    pub(crate) fn tell(&self, seeds: &std::ops::Range<u64>, took: Duration) {
        let commit = std::env::var("OPSHIP_COMMIT").unwrap_or_else(|_| "here".into());
        let line = self.line(&commit, seeds, took.as_secs());
        println!("{line}");
        if let Ok(path) = std::env::var("OPSHIP_FIGURES") {
            let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
            let written = file.and_then(|mut file| writeln!(file, "{line}"));
            written.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}
