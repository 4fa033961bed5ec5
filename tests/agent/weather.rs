//! How rough the outside is in a seeded run: failing calls, failing processes, a tampered store, wrong clocks, late events.

use crate::dice::Dice;
use crate::faults::Kind;
use crate::link::Mishap;
use crate::sink::{Outcome, POISONED};
use crate::source::{Envelope, Event, Reply, status};
use crate::store::{Blob, Fault, Op};
use crate::world::{Process, World};
use chrono::TimeDelta;
use opship::flow::retry::Failure;
use opship::flow::words::Words;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const HOUR_MS: u64 = 3_600_000;
/// An event becomes visible at most this long after its timestamp; the source's clock may be ahead by `AHEAD_MAX_S` besides, and both
/// together stay within the late sweep's horizon of 72 hours.
const LATE_MAX_MS: u64 = 60 * HOUR_MS;
/// Where no late sweep helps, no event is later than the overlap.
const LATE_MAX_OF_OVERLAP_MS: u64 = 295_000;
const AHEAD_MAX_S: u64 = 11 * 3600;
/// Poisoned rows are among the first so many events, which every run has.
const POISONED_MAX: u64 = 200;

/// One call in so many fails; 0 is never.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    source: u64,
    sink: u64,
    store: u64,
    /// One tick in so many.
    crash: u64,
    reject: u64,
    calamity: u64,
    /// The overlap has to carry the feed alone: no late sweep, no event later than the overlap, no clock of the source ahead.
    pub(crate) overlap_alone: bool,
}

pub(crate) fn hits(dice: &mut Dice, odds: u64) -> bool {
    odds > 0 && dice.one_in(odds)
}

impl Weather {
    pub(crate) fn of(dice: &mut Dice) -> Self {
        let mut pick = |choices: [u64; 4]| choices[dice.below(4) as usize];
        Self {
            source: pick([0, 60, 20, 8]),
            sink: pick([0, 30, 8, 4]),
            store: pick([0, 100, 40, 15]),
            crash: pick([0, 8, 3, 2]),
            reject: pick([0, 20, 6, 3]),
            calamity: pick([0, 0, 20, 6]),
            overlap_alone: pick([0, 0, 0, 1]) == 1,
        }
    }

    /// Lets calls fail from now on.
    pub(crate) fn blow(self, world: &World, seed: u64) {
        let (mut dice, mut shapes) = (Dice::new(seed ^ 0x50), Dice::new(seed ^ 0x53));
        let shapes_odds = [0, 0, 60, 15][shapes.below(4) as usize];
        world.on_page(move |_| {
            let shape = hits(&mut shapes, shapes_odds).then(|| shapes.below(Envelope::ALL.len() as u64) as usize);
            let usual = hits(&mut dice, self.source).then(|| page_trouble(&mut dice));
            usual.or_else(|| Some(Reply::Envelope(Envelope::ALL[shape?])))
        });
        let wind = Arc::new(Mutex::new(Wind {
            dice: Dice::new(seed ^ 0x51),
            odds: self.sink,
            storm: None,
            is_of_long_bodies: false,
            calm_until: None,
            alone: HashMap::new(),
            is_verified: world.settings.verify_after.is_some(),
        }));
        let again = wind.clone();
        world.on_post(move |rows| wind.lock().unwrap_or_else(PoisonError::into_inner).blow(rows));
        world.on_probe(move || again.lock().unwrap_or_else(PoisonError::into_inner).blow(&[]));
        let mut dice = Dice::new(seed ^ 0x52);
        world.on_store(move |op, _| {
            hits(&mut dice, self.store).then(|| match (op, dice.below(3)) {
                (Op::Append | Op::Prove, 0) => Fault::Tear,
                (_, 1) => Fault::LoseReply,
                _ => Fault::Fail,
            })
        });
    }

    /// What befalls a process before or in its next tick.
    pub(crate) fn befall(self, world: &mut World, process: &mut Process, dice: &mut Dice, surely: bool) {
        if process.feed.is_none() || process.link.stop.is_cancelled() || dice.one_in(12) {
            // What it had accepted and not recorded is forgotten with it.
            world.crashes += 1;
            world.state().struck.by(Kind::Restart);
            *process = world.start();
        }
        if surely || hits(dice, self.crash) {
            world.crashes += 1;
            match dice.below(6) {
                0 => process.link.at_step(1 + dice.below(60), Mishap::Stop),
                1 => process.link.at_step(1 + dice.below(60), Mishap::Stall(Duration::from_secs(dice.below(400)))),
                _ => process.link.die_at_wait(1 + dice.below(if surely { 12 } else { 80 })),
            }
        }
    }

    /// What befalls the outside between two ticks.
    pub(crate) fn strike(self, world: &World, backup: &mut Backup, dice: &mut Dice) {
        if hits(dice, self.reject) {
            world.state().source.reject_cursors();
        }
        if hits(dice, self.calamity) {
            match dice.below(6) {
                0 => world.skew(dice, self.overlap_alone),
                1 => {
                    let mut state = world.state();
                    state.store.clock_error = dice.below(600) as i64 - 300;
                    state.struck.by(Kind::StoreClockJumped);
                }
                2 => world.damage_checkpoint(dice),
                3 => world.delete_checkpoint(),
                // Strikes while the processes are at work.
                _ => backup.is_due = true,
            }
        } else if dice.one_in(6) {
            let mut state = world.state();
            state.source.skew = TimeDelta::zero();
            state.store.clock_error = 0;
        }
    }
}

fn page_trouble(dice: &mut Dice) -> Reply {
    let retry_after = dice.one_in(2).then(|| Duration::from_secs(dice.below(90)));
    match dice.below(6) {
        0 => Reply::Fail(Failure::NotConnected),
        1 => Reply::Fail(Failure::Status { status: 429, code: String::new(), message: Words::default(), retry_after }),
        2 => Reply::Fail(status(503)),
        3 => Reply::SameCursor,
        4 => Reply::ItemAgain,
        _ => Reply::Body("{}".into()),
    }
}

/// Of the kinds of [`post_trouble`], those after which nobody knows whether the rows are in.
fn is_doubtful(kind: u64) -> bool {
    matches!(kind, 0..=3 | 6)
}

/// What blows at the destination.
struct Wind {
    dice: Dice,
    odds: u64,
    storm: Option<u64>,
    /// The storm strikes bodies of several rows alone, as a line does on which long requests break or time out.
    is_of_long_bodies: bool,
    calm_until: Option<Instant>,
    /// How often each row was refused alone without an answer.
    alone: HashMap<String, u32>,
    is_verified: bool,
}

impl Wind {
    /// What becomes of these rows, or of an empty array.
    fn blow(&mut self, rows: &[String]) -> Outcome {
        // Trouble comes in storms: the same again, a few times.
        let last = self.storm.take();
        let mut kind = last.filter(|_| self.dice.below(3) > 0);
        if kind.is_none() {
            if last.is_some_and(is_doubtful) {
                self.calm_until = Some(Instant::now() + CALM);
            }
            kind = hits(&mut self.dice, self.odds).then(|| self.dice.below(9));
            // A row that is refused again and again, in the same minutes in which all others are accepted, is what a poisoned row is: no
            // agent could tell such weather from one.
            kind =
                kind.filter(|kind| !is_doubtful(*kind) || self.calm_until.is_none_or(|until| until <= Instant::now()));
        }
        if kind != last {
            self.is_of_long_bodies = kind.is_some_and(is_doubtful) && self.dice.one_in(2);
        }
        self.storm = kind;
        kind.filter(|kind| self.may_meet(*kind, rows))
            .map_or(Outcome::Accept, |kind| post_trouble(kind, &mut self.dice))
    }

    fn may_meet(&mut self, kind: u64, rows: &[String]) -> bool {
        match rows {
            // Nothing is too large that is empty; and what is refused alone for its size is refused for good.
            [] | [_] if kind == TOO_LARGE || self.is_of_long_bodies => false,
            // A verifying agent tries a row again hours later, with no state but a count: a third refusal sets it aside.
            [row] if self.is_verified && is_doubtful(kind) => {
                let times = self.alone.entry(row.clone()).or_default();
                *times += 1;
                *times <= 2
            }
            _ => true,
        }
    }
}

const TOO_LARGE: u64 = 5;
/// After a storm of unanswered or failing POSTs none begins for so long.
const CALM: Duration = Duration::from_secs(300);

fn post_trouble(kind: u64, dice: &mut Dice) -> Outcome {
    match kind {
        0 | 1 => Outcome::LoseReply,
        2 => Outcome::Break,
        3 => Outcome::Hang { accepted: dice.one_in(2) },
        4 => Outcome::Refuse(429),
        TOO_LARGE => Outcome::Refuse(413),
        6 => Outcome::Refuse(503),
        7 => Outcome::Refuse(404),
        _ => Outcome::Refuse(403),
    }
}

/// The store as it was some ticks ago, and whether it is about to be brought back.
#[derive(Default)]
pub(crate) struct Backup {
    taken: Option<(BTreeMap<String, Blob>, usize)>,
    pub(crate) is_due: bool,
}

impl Backup {
    pub(crate) fn take(&mut self, world: &World) {
        let state = world.state();
        self.taken = Some((state.store.blobs.clone(), state.sink.rows.len()));
    }

    /// Brings the store, or the checkpoint alone, back to the backup. Returns from which row on copies may have lost their trace.
    pub(crate) fn restore(&mut self, world: &World, dice: &mut Dice) -> Option<usize> {
        if !std::mem::take(&mut self.is_due) {
            return None;
        }
        let (blobs, rows) = self.taken.as_ref()?;
        let open = world.uuids_in_doubt();
        let mut state = world.state();
        state.seen.forget_last();
        state.seen.excused.extend(open);
        if dice.one_in(2) {
            state.struck.by(Kind::StoreRolledBack);
            state.store.restore(blobs);
            drop(state);
            // What was settled since is in the air again.
            let is_in_doubt_again = world.open_intent().is_some();
            world.state().sink.doubts += u64::from(is_in_doubt_again);
            return Some(*rows);
        }
        let key = world.checkpoint_key();
        let bytes = blobs.get(&key)?.bytes.clone();
        state.struck.by(Kind::CheckpointRolledBack);
        state.store.set(&key, bytes);
        Some(state.sink.rows.len())
    }
}

/// Whether the ledger takes appends: in some runs it takes none for a while, now and then.
pub(crate) struct Sealing {
    // Dice of its own: the other runs stay as they were.
    dice: Dice,
    is_due: bool,
    ticks_left: u64,
}

impl Sealing {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5ea1);
        let is_due = dice.one_in(8);
        Self { dice, is_due, ticks_left: 0 }
    }

    /// Seals the ledger or opens it again before a tick, and starts a process anew that finds it so.
    pub(crate) fn strike(&mut self, world: &mut World, processes: &mut [Process]) {
        if !self.is_due {
            return;
        }
        if self.ticks_left == 0 && self.dice.one_in(5) {
            self.ticks_left = 1 + self.dice.below(4);
            world.state().store.seal();
        } else {
            self.ticks_left = self.ticks_left.saturating_sub(1);
        }
        if self.ticks_left == 0 {
            world.state().store.sealed = None;
        } else if let Some(process) = processes.first_mut().filter(|_| self.dice.one_in(2)) {
            world.crashes += 1;
            world.state().struck.by(Kind::Restart);
            *process = world.start();
        }
    }
}

impl World {
    /// In some runs somebody on the way takes offence at a few rows for good. Dice of its own: the other runs stay as they were.
    pub(crate) fn poison_some(&self, seed: u64) {
        let mut dice = Dice::new(seed ^ 0x9d);
        if dice.one_in(3) {
            let refusal = POISONED[dice.below(POISONED.len() as u64) as usize].clone();
            (0..=dice.below(4)).for_each(|_| self.poison(&uuid(dice.below(POISONED_MAX) as usize), refusal.clone()));
        }
    }

    fn skew(&self, dice: &mut Dice, never_ahead: bool) {
        let mut state = self.state();
        if dice.one_in(2) && !never_ahead {
            state.source.skew = TimeDelta::seconds(dice.below(AHEAD_MAX_S) as i64);
            state.struck.by(Kind::SourceClockAhead);
        } else {
            state.source.skew = -TimeDelta::seconds(dice.below(24 * 3600) as i64);
            state.struck.by(Kind::SourceClockBehind);
        }
    }

    /// The next reader finds half a document, or a flipped bit in it.
    fn damage_checkpoint(&self, dice: &mut Dice) {
        let (key, open) = (self.checkpoint_key(), self.uuids_in_doubt());
        let mut state = self.state();
        let Some(mut bytes) = state.store.blobs.get(&key).map(|blob| blob.bytes.clone()) else { return };
        let at = dice.below(bytes.len() as u64) as usize;
        if dice.one_in(2) {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << dice.below(8);
        }
        state.struck.by(Kind::CheckpointDamaged);
        state.seen.excused.extend(open);
        state.seen.forget_last();
        state.store.set(&key, bytes);
    }

    fn delete_checkpoint(&self) {
        let (key, open) = (self.checkpoint_key(), self.uuids_in_doubt());
        let mut state = self.state();
        if state.store.blobs.remove(&key).is_some() {
            state.struck.by(Kind::CheckpointDeleted);
            state.seen.excused.extend(open);
            state.seen.forget_last();
        }
    }

    /// Rows from this one on may have copies that no frame explains.
    pub(crate) fn excuse_rows_from(&self, first: usize) {
        let mut state = self.state();
        let rows: Vec<String> = state.sink.rows[first..].to_vec();
        state.seen.excused.extend(rows);
    }

    /// An event of the coming hour or, with `back`, of the past: on time, a little late, very late, future-dated or without a time.
    pub(crate) fn happen(&self, dice: &mut Dice, weather: Weather, back: bool) {
        let stamp = if back { -(dice.below(29 * 24 * HOUR_MS) as i64) } else { dice.below(HOUR_MS) as i64 };
        let most = if weather.overlap_alone { LATE_MAX_OF_OVERLAP_MS } else { LATE_MAX_MS };
        let late = match dice.below(6) {
            0 if !back => dice.below(most) as i64,
            1 if !back => dice.below(most.min(600_000)) as i64,
            _ => dice.below(1_000) as i64,
        };
        let (future, odd) = (!back && dice.one_in(100), dice.one_in(100));
        let mut state = self.state();
        let (now, n) = (state.now(), state.source.events.len());
        let happened = now + TimeDelta::milliseconds(stamp);
        let visible_at = happened + TimeDelta::milliseconds(late);
        let ahead = if future { dice.below(48 * HOUR_MS) as i64 } else { 0 };
        let timestamp = happened + TimeDelta::milliseconds(ahead);
        let kinds = [(late > 300_000, Kind::EventLate), (future, Kind::EventFuture), (odd, Kind::EventOdd)];
        kinds.iter().filter(|(is, _)| *is).for_each(|(_, kind)| state.struck.by(*kind));
        state.source.events.push(Event { uuid: uuid(n), timestamp, visible_at, more: String::new(), is_odd: odd });
    }
}

/// Real uuids are 26 base32 characters. Three in four of them are no 16 bytes, and neighbours differ in their last bits alone.
fn uuid(n: usize) -> String {
    const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digits = (0..6).rev().map(|place| char::from(BASE32[n >> (5 * place) & 31]));
    "OPSHIPSEEDEDRUNSEVEN".chars().chain(digits).collect()
}
