//! kill -9 at seeded moments, whatever is open then: nothing lost, every copy traceable, nothing shipped again afterwards.
//!
//! `scripts/proof/kill9` runs the same by the thousand: `OPSHIP_KILLS` kills per store in rounds of 25, the first with the seed
//! `OPSHIP_KILL_SEED`; each round adds a line to the file `OPSHIP_FIGURES`.

use crate::agent::Agent;
use crate::dice::Dice;
use crate::world::{Kind, World, feed, history};
use opship::flow::Stream;
use opship::sim::{Entry, Fault, Options, Order, Refusal, Service, Target, What, When};
use opship::store::Store;
use opship::store::checkpoints::{Checkpoints, Found};
use std::env::var;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

both_stores! {
    fm_39_killed_at_any_moment_nothing_is_lost_and_every_copy_is_traceable
}

const SOON: Duration = Duration::from_secs(60);
/// Rows of a batch at most, hence copies of a feed per kill.
const BATCH_ROWS: u64 = 20;
/// Fewer kills that leave an intent would prove little.
const INTENTS_MIN_PERCENT: u64 = 30;
const SEED: u64 = 1;

/// What the environment asks for; without it a small proof.
struct Plan {
    kills: u64,
    round: u64,
    seed: u64,
}

impl Plan {
    fn read() -> Self {
        let number = |name: &str| var(name).ok().map(|text| text.parse().unwrap());
        let asked = number("OPSHIP_KILLS");
        Self {
            kills: asked.unwrap_or(20),
            round: if asked.is_some() { 25 } else { 10 },
            seed: number("OPSHIP_KILL_SEED").unwrap_or(SEED),
        }
    }
}

/// Fault: kill -9 at seeded random moments, again and again. Shows: nothing lost, at most a batch of copies for each feed, kill and doubtful POST, each in the ledger.
async fn fm_39_killed_at_any_moment_nothing_is_lost_and_every_copy_is_traceable(kind: Kind) {
    let Plan { mut kills, round, mut seed } = Plan::read();
    let (all, mut intents) = (kills, 0);
    while kills > 0 {
        let now = kills.min(round);
        intents += Round::new(kind, seed).await.run(now).await;
        (kills, seed) = (kills - now, seed + 1);
    }
    assert!(intents * 100 >= all * INTENTS_MIN_PERCENT, "only {intents} of {all} kills left an intent");
}

/// When a process is killed: so many milliseconds after so many requests of this kind.
struct Moment {
    of: fn(&Entry) -> bool,
    requests: usize,
    then: Duration,
}

struct Round {
    kind: Kind,
    seed: u64,
    dice: Dice,
    world: World,
    /// Opened before the first kill: opening a directory would tidy up what a killed process left.
    store: Arc<dyn Store>,
}

impl Round {
    async fn new(kind: Kind, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let hours = |hours: u64| Duration::from_secs(3600 * hours);
        let past = Options { history_span: hours(4), late_share: 0.2, late_max: hours(1), seed, ..history(200) };
        let order = if dice.one_in(2) { Order::Insert } else { Order::EventTime };
        let options = Options { order, live_per_second: 40.0, rate_limits: false, ..past };
        let mut world = World::behind_a_gate(kind, options).await;
        world.set("OPSHIP_DELIVERY__BATCH_ROWS_MAX", BATCH_ROWS).sweep_late_each_second();
        let store = world.store().await;
        Self { kind, seed, dice, world, store }
    }

    /// So many kills, then a clean run, then the audit. Returns how many kills left an intent.
    async fn run(mut self, kills: u64) -> u64 {
        let begun = Instant::now();
        println!("{:?}: seed {}, {kills} kills; to replay it alone: {}", self.kind, self.seed, self.replay(kills));
        let (mut intents, mut done, mut started) = (0, 0, 0);
        while done < kills {
            started += 1;
            assert!(started <= 3 * kills, "seed {}: too many processes were done before their moment", self.seed);
            if self.kill_one().await {
                done += 1;
                intents += u64::from(self.has_intent().await);
            }
            self.world.an_hour_passes();
        }
        self.ship_the_rest().await;
        self.settle(kills, intents, begun).await;
        intents
    }

    fn replay(&self, kills: u64) -> String {
        let store = if self.kind == Kind::File { "file_store" } else { "azure_blob_store" };
        let seed = self.seed;
        format!(
            "OPSHIP_KILLS={kills} OPSHIP_KILL_SEED={seed} cargo test --test binary kills::{store} -- --nocapture --test-threads 1"
        )
    }

    /// Starts a process and kills it at some moment. False when it was done before.
    async fn kill_one(&mut self) -> bool {
        self.add_events();
        let moment = self.choose_moment();
        let from = self.world.sim.world().requests();
        let mut agent = if self.dice.one_in(3) { self.world.start(&["once"]) } else { self.world.run() };
        let is_reached = self.reach(&moment, from, &mut agent).await;
        if is_reached {
            tokio::time::sleep(moment.then).await;
        }
        let is_killed = is_reached && !agent.has_ended();
        agent.kill().await;
        self.world.sim.world().clear_faults();
        is_killed
    }

    /// Something to ship for each feed, some of it late.
    fn add_events(&mut self) {
        for stream in Stream::ALL {
            for _ in 0..=self.dice.below(25) {
                let when = match self.dice.below(4) {
                    0 => When::Late(Duration::from_secs(self.dice.below(3600))),
                    _ => When::Now,
                };
                self.world.sim.world().append(stream, when);
            }
        }
    }

    fn choose_moment(&mut self) -> Moment {
        let is_post = |entry: &Entry| entry.service == Service::Ingestion;
        let is_read = |entry: &Entry| matches!(entry.service, Service::Events(_));
        let then = Duration::from_millis(self.dice.below(31));
        let nth = 1 + self.dice.below(4);
        let moment = |of, requests: u64| Moment { of, requests: usize::try_from(requests).unwrap(), then };
        let plant = |what, from| self.world.fault(Fault::new(Target::Ingestion, what).from(from).times(1));
        let moment = match self.dice.below(8) {
            // In an open POST whose rows are stored.
            0..=2 => {
                plant(What::Delay { ms: 200 }, nth);
                moment(is_post, nth)
            }
            // In an open POST whose rows are not stored.
            3 => {
                plant(What::Hang, nth);
                moment(is_post, nth)
            }
            // Around the answer, the record, the commit and the next intent.
            4 => moment(is_post, nth),
            // While reading, for recovery or for the first time.
            5 => {
                plant(What::Delay { ms: self.dice.below(60) }, 1);
                moment(is_read, 1 + self.dice.below(20))
            }
            // In the sweeps, after the heartbeat, and in the next tick.
            _ => moment(|_| true, 15 + self.dice.below(30)),
        };
        if self.dice.one_in(4) {
            self.plant_trouble();
        }
        moment
    }

    /// One more fault than the kill.
    fn plant_trouble(&mut self) {
        let from = 1 + self.dice.below(3);
        let fault = match self.dice.below(6) {
            0 => Fault::new(Target::Ingestion, What::AcceptThenReset),
            1 => Fault::new(Target::Ingestion, What::AcceptThenStatus(Refusal::status(500))),
            2 => Fault::new(Target::Ingestion, What::Status(Refusal::status(429))),
            3 => Fault::new(Target::Events, What::Status(Refusal::status(503))),
            4 => Fault::new(Target::Events, What::ResetInBody),
            _ => Fault::new(Target::Identity, What::ResetBeforeHeaders),
        };
        self.world.fault(fault.from(from).times(1));
    }

    async fn reach(&self, moment: &Moment, from: u64, agent: &mut Agent) -> bool {
        let started = Instant::now();
        loop {
            let entries = self.world.sim.world().journal_from(from);
            if entries.iter().filter(|entry| (moment.of)(entry)).count() >= moment.requests {
                return true;
            }
            if agent.has_ended() {
                return false;
            }
            assert!(started.elapsed() < SOON, "seed {}: the moment does not come: {}", self.seed, agent.stderr());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether any feed's checkpoint holds an open intent; each must be whole or not there yet.
    async fn has_intent(&self) -> bool {
        let checkpoints = Checkpoints::new(self.store.clone(), "test".into());
        let mut has_intent = false;
        for stream in Stream::ALL {
            match checkpoints.load(&feed(stream)).await.unwrap() {
                Found::Good(loaded) => has_intent |= loaded.checkpoint.slot.intent().is_some(),
                Found::Nothing { previous: None } => {}
                other => panic!("seed {}: a kill left {other:?}", self.seed),
            }
        }
        has_intent
    }

    async fn ship_the_rest(&self) {
        self.world.sim.world().stop_generator();
        // The late sweep is due again.
        self.world.sim.world().shift_clock(chrono::TimeDelta::seconds(2));
        self.world.once().await.exits(0);
    }

    /// Writes the figures down, then judges them.
    async fn settle(&self, kills: u64, intents: u64, begun: Instant) {
        let (seed, audit) = (self.seed, self.world.audit().await);
        let (compared, untraceable, doubts) = (&audit.compared, audit.untraceable(), audit.doubts());
        let store = if self.kind == Kind::File { "file" } else { "blob" };
        let (generated, rows) = (compared.generated, compared.rows);
        let (lost, copies, seconds) = (compared.lost, compared.duplicated, begun.elapsed().as_secs_f64());
        let figures = format!(
            "{store},{seed},{kills},{intents},{generated},{rows},{lost},{copies},{untraceable},{doubts},{seconds:.1}"
        );
        println!("store,seed,kills,intents_left,generated,rows,lost,copies,untraceable,doubts,seconds: {figures}");
        if let Ok(path) = var("OPSHIP_FIGURES") {
            let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
            let line = format!("{},{figures}\n", var("OPSHIP_COMMIT").unwrap_or_default());
            file.write_all(line.as_bytes()).unwrap();
        }
        audit.assert_sound();
        let doubts_max = kills + self.world.doubtful_posts() as u64;
        for feed in &audit.feeds {
            let (doubts, copies) = (feed.checkpoint.slot.in_doubt().batches, feed.copies);
            assert!(doubts <= doubts_max, "seed {seed}: {doubts} doubts of a feed after {doubts_max} causes");
            assert!(copies <= doubts_max * BATCH_ROWS, "seed {seed}: {copies} copies of a feed, {doubts_max} causes");
            assert_eq!(feed.checkpoint.slot.in_doubt().gone, 0, "seed {seed}");
        }
        self.world.sim.world().shift_clock(chrono::TimeDelta::seconds(2));
        let again = self.world.once().await.exits(0);
        assert_eq!(again.stdout.matches(" 0 shipped").count(), 3, "seed {seed}: {}", again.stdout);
        assert_eq!(self.world.sim.world().compare().rows, rows, "seed {seed}");
    }
}
