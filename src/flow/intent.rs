//! The life of a batch: the one place that writes its intent, its attempts, its doubts and the number of intents.
//!
//! A feed has one slot. A batch takes it before its first POST and leaves it when it is recorded, or when it certainly never arrived. The
//! caller writes the checkpoint behind each transition, before the next POST: what a process knows and what the next one reads must not
//! differ in a doubt.
//!
//! | state | set by | `open` | `doubt` | `accept` | `record` | `take_over` | `split` | `settle` | `conclude` | `release` |
//! |---|---|---|---|---|---|---|---|---|---|---|
//! | idle: no batch | `settle`, `conclude`, `release`, `abandon` | open | idle | idle | idle | idle | idle | idle | idle | idle |
//! | open: each POST so far was refused for certain, or its rows are recorded | `open`, `record` | open: the new one; the former was never posted | in doubt, attempt + 1 | accepted | open | in doubt, attempt + 1 | open: each part takes an intent of its own | idle | idle | idle |
//! | accepted: rows are in the table, and no frame says so yet | `accept` | accepted: it is recorded first | accepted | accepted | open | in doubt, attempt + 1 | accepted | accepted | idle | accepted |
//! | in doubt: a POST may have been accepted | `doubt`, `take_over` | in doubt: what comes is a part of it | in doubt, attempt + 1 | in doubt | in doubt | in doubt, attempt + 1 | in doubt, until the last part | in doubt, idle behind the last part | idle | in doubt |
//! | found: another process, or an earlier tick, left it | reading the document | found: it is recovered first | found | found | found | in doubt, attempt + 1 | found | found | idle | found |
//!
//! In words: no way leads from a doubt back to certainty; a batch in doubt leaves the slot recorded or given up with a trace, never
//! unseen; attempts rise by one with each POST that may have made a copy.

mod document;

use super::checkpoint::{Advance, Unknown};
use super::planted::{self, Bug};
use super::totals::{Doubt, InDoubt, Totals};
use super::{EventId, EventKey, Stream, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// How long an intent keeps other processes from posting.
pub const INTENT_TTL: Duration = Duration::from_secs(120);
/// Batch id of what is in doubt without a batch: a part of the ledger was lost, or the position went back.
const NO_BATCH: &str = "unknown";

/// How a batch came to be, and so how it can be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchKind {
    Cursor,
    OverlapSweep,
    LateSweep,
    Split,
    Backfill,
}

/// Written before each POST: which events are about to be shipped, by whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    batch_id: String,
    kind: BatchKind,
    /// Base64 of the 16-byte ids, by event hour.
    ids: BTreeMap<String, String>,
    from: Option<Time>,
    to: Option<Time>,
    advance: Option<Advance>,
    owner: String,
    attempt: u32,
    #[serde(default)]
    recoveries: u32,
    /// Where each doubt ends the delivery, what is held against a row of the batch has to outlive it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspect: Option<Suspect>,
    ttl_s: u64,
    #[serde(flatten)]
    unknown: Unknown,
}

/// A row that was refused alone, or as its stub, each time while another body was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Suspect {
    /// The event's id in hex.
    id: String,
    refusals: u32,
    #[serde(flatten)]
    unknown: Unknown,
}

/// Events that are shipped although the ledger knows them: each may stand in the table already.
#[derive(Clone, Debug)]
pub struct Known {
    /// The highest attempt under which each was accepted.
    pub attempts: HashMap<EventKey, u32>,
    pub why: String,
}

/// What is about to be posted.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    pub stream: Stream,
    pub kind: BatchKind,
    pub rows: Vec<(EventKey, Option<Time>)>,
    /// How the position moves when all of it is recorded.
    pub advance: Option<Advance>,
    /// Names this process.
    pub owner: &'a str,
    /// What the ledger knows of the rows; none when it knows none.
    pub known: Option<&'a Known>,
    /// The source's clock.
    pub at: Time,
}

/// What became of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It has an intent of its own, to be written before its POST.
    New,
    /// It is a part of the batch in doubt, whose intent is written already and stays.
    Part,
    /// Another batch has to be recorded or recovered first.
    Unsettled,
}

/// A batch that is through.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    pub shipped: Totals,
    pub advance: Option<Advance>,
}

/// The batch under way, and what this process knows of it beyond the document.
#[derive(Clone, Debug)]
struct Life {
    intent: Intent,
    /// Parts of it that are not settled yet; 1 unless a batch in doubt was split.
    parts: u32,
    /// Some of it is in the ledger.
    is_recorded: bool,
    /// What its settled parts have shipped: counted with the last one, because a recovery counts the whole batch.
    counted: Totals,
}

impl From<Intent> for Life {
    fn from(intent: Intent) -> Self {
        Self { intent, parts: 1, is_recorded: false, counted: Totals::default() }
    }
}

/// Where a batch is in its life: the table above.
#[derive(Clone, Debug)]
enum State {
    Idle,
    Open(Life),
    Accepted(Life),
    InDoubt(Life),
    Found(Life),
}

/// The part of a checkpoint that tells of batches: the one under way, how many there were, and which may stand in the table twice.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Counts intents; makes every batch id unique.
    seq: u64,
    state: State,
    in_doubt: InDoubt,
}

impl Slot {
    /// Of a feed that has never posted.
    pub(super) fn new() -> Self {
        Self { seq: 0, state: State::Idle, in_doubt: InDoubt::default() }
    }

    pub const fn seq(&self) -> u64 {
        self.seq
    }

    pub fn intent(&self) -> Option<&Intent> {
        match &self.state {
            State::Idle => None,
            State::Open(life) | State::Accepted(life) | State::InDoubt(life) | State::Found(life) => Some(&life.intent),
        }
    }

    /// Of the open batch; empty without one.
    pub fn batch_id(&self) -> &str {
        self.intent().map_or("", Intent::batch_id)
    }

    /// Of the open batch: what its rows are recorded under. 0 without one.
    pub fn attempt(&self) -> u32 {
        self.intent().map_or(0, Intent::attempt)
    }

    /// Batches that may stand in the table twice, as counted.
    pub const fn in_doubt(&self) -> &InDoubt {
        &self.in_doubt
    }

    /// Whether a POST of the open batch may have been accepted without our knowing.
    pub const fn is_in_doubt(&self) -> bool {
        match &self.state {
            State::Idle | State::Open(_) | State::Accepted(_) => false,
            State::InDoubt(_) | State::Found(_) => true,
        }
    }

    /// Idle or open -> open: the draft gets the slot, with an attempt above every one under which a row of it was accepted before. Copies
    /// that are known beforehand are in doubt from now on, in the same write as the intent. A batch that was open gives way: it was
    /// refused for certain, and what was foreseen for it did not come.
    pub fn open(&mut self, draft: Draft<'_>) -> Opened {
        match &self.state {
            State::Idle => {}
            State::Open(_) => self.withdraw(),
            State::InDoubt(_) if planted::is(Bug::PartsForgetDoubt) => {}
            State::InDoubt(life) if life.intent.names(&draft.rows) => return Opened::Part,
            State::InDoubt(_) | State::Accepted(_) | State::Found(_) => return Opened::Unsettled,
        }
        self.seq += 1;
        let (known, at) = (draft.known, draft.at);
        let attempts = || draft.rows.iter().filter_map(|(key, _)| known?.attempts.get(key));
        let (rows, highest) = (attempts().count() as u64, attempts().max().copied());
        let attempt = highest.map_or(1, |highest| highest.saturating_add(1));
        let intent = Intent::new(self.seq, attempt, draft);
        if let Some(known) = known.filter(|_| rows > 0) {
            self.in_doubt.add(intent.doubt(rows, known.why.clone(), at));
        }
        self.state = State::Open(intent.into());
        Opened::New
    }

    /// Open or in doubt -> in doubt: a POST of `rows` rows had an answer that does not tell whether they were accepted. The next one may
    /// make a copy of each, and counts as an attempt more. Returns whether there was a batch.
    pub fn doubt(&mut self, rows: u64, why: String, at: Time) -> bool {
        let state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Open(mut life) | State::InDoubt(mut life) => {
                life.intent.attempt = life.intent.attempt.saturating_add(1);
                self.in_doubt.add(life.intent.doubt(rows, why, at));
                State::InDoubt(life)
            }
            other @ (State::Idle | State::Accepted(_) | State::Found(_)) => other,
        };
        self.state = state;
        matches!(self.state, State::InDoubt(_))
    }

    /// Open -> accepted: rows of it are in the table. Until they are in the ledger it is not given back, whatever happens meanwhile.
    pub fn accept(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Open(life) => State::Accepted(life),
            other => other,
        };
    }

    /// Open, accepted, in doubt or found -> in doubt, by a recovery that is about to post `rows` rows of it again. Returns the attempt, none without a
    /// batch.
    pub fn take_over(&mut self, owner: &str, rows: u64, why: &str, at: Time) -> Option<u32> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => None,
            State::Open(mut life) | State::Accepted(mut life) | State::InDoubt(mut life) | State::Found(mut life) => {
                let intent = &mut life.intent;
                owner.clone_into(&mut intent.owner);
                intent.attempt = intent.attempt.saturating_add(u32::from(!planted::is(Bug::SameAttemptAgain)));
                intent.recoveries = intent.recoveries.saturating_add(1);
                let attempt = intent.attempt;
                self.in_doubt.add(intent.doubt(rows, why.into(), at));
                self.state = State::InDoubt(life);
                Some(attempt)
            }
        }
    }

    /// A body that was refused goes in so many parts. In doubt they all ship under its intent, which stays until the last is settled: an
    /// intent for one would forget that the others may be in the table already (ADR 6).
    pub fn split(&mut self, parts: usize) {
        if let State::InDoubt(life) = &mut self.state {
            let more = u32::try_from(parts.saturating_sub(1)).unwrap_or(u32::MAX);
            life.parts = life.parts.saturating_add(more);
        }
    }

    /// Accepted -> open: what was accepted stands in the ledger.
    pub fn record(&mut self) {
        self.life().into_iter().for_each(|life| life.is_recorded = true);
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Accepted(life) => State::Open(life),
            other => other,
        };
    }

    /// A part of the batch, or all of it, is accepted and recorded, and shipped so much: behind the last one -> idle, all of it counts, and
    /// the position may move.
    pub fn settle(&mut self, shipped: &Totals) -> Option<Settled> {
        let (State::Open(life) | State::InDoubt(life)) = &mut self.state else { return None };
        life.counted.add(shipped);
        life.parts = life.parts.saturating_sub(1);
        if life.parts > 0 {
            return None;
        }
        let shipped = std::mem::take(&mut life.counted);
        Some(Settled { shipped, advance: self.leave() })
    }

    /// Any -> idle, by a recovery or a command that is through with all of it; so many of its events the source no longer returned.
    pub fn conclude(&mut self, gone: u64) -> Option<Advance> {
        self.in_doubt.gone += gone;
        self.leave()
    }

    /// Open -> idle: it certainly never arrived, and what was foreseen for it did not come, unless a part of it is recorded. Returns whether
    /// there is something to write. A batch in doubt stays.
    pub fn release(&mut self) -> bool {
        let State::Open(life) = &self.state else { return false };
        if !life.is_recorded {
            self.withdraw();
        }
        self.state = State::Idle;
        true
    }

    /// Any -> idle, for an operator who ships everything again: what is open may then be there twice.
    pub fn abandon(&mut self, why: &str, at: Time) {
        if let Some(intent) = self.intent() {
            let doubt = intent.doubt(intent.keys().len() as u64, why.into(), at);
            self.in_doubt.add(doubt);
        }
        self.state = State::Idle;
    }

    /// Rows of which no frame may tell any more, whatever batch they came in.
    pub fn lose_track(&mut self, rows: u64, why: &str, at: Time) {
        let (batch_id, why) = (NO_BATCH.into(), why.into());
        self.in_doubt.add(Doubt { batch_id, rows, attempt: 1, why, at, unknown: Unknown::new() });
    }

    /// One more refusal of this row of the batch alone, while another body was accepted.
    pub fn suspect(&mut self, id: EventId) {
        if let Some(life) = self.life() {
            let refusals = life.intent.refusals_of(id).saturating_add(1);
            life.intent.suspect = Some(Suspect { id: id.to_string(), refusals, unknown: Unknown::new() });
        }
    }

    /// Nothing is held against a row of the batch any more.
    pub fn acquit(&mut self) {
        self.life().into_iter().for_each(|life| life.intent.suspect = None);
    }

    /// The batch goes on, and moves nothing when it is through: the position is another one now.
    pub fn forget_advance(&mut self) {
        self.life().into_iter().for_each(|life| life.intent.advance = None);
    }

    /// The batch goes on, and lifts no mark by the moment at which its cursor was born.
    pub fn forget_birth(&mut self) {
        if let Some(Advance::Cursor { born, .. }) = self.life().and_then(|life| life.intent.advance.as_mut()) {
            *born = None;
        }
    }

    /// For a copy that is used when the document is gone, long after the batch.
    #[must_use]
    pub fn without_batch(&self) -> Self {
        Self { state: State::Idle, ..self.clone() }
    }

    fn life(&mut self) -> Option<&mut Life> {
        match &mut self.state {
            State::Idle => None,
            State::Open(life) | State::Accepted(life) | State::InDoubt(life) | State::Found(life) => Some(life),
        }
    }

    fn leave(&mut self) -> Option<Advance> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => None,
            State::Open(life) | State::Accepted(life) | State::InDoubt(life) | State::Found(life) => {
                life.intent.advance
            }
        }
    }

    /// What was foreseen for the open batch did not come.
    fn withdraw(&mut self) {
        if let State::Open(life) = &self.state {
            self.in_doubt.withdraw(&life.intent.batch_id);
        }
    }
}

#[cfg(test)]
#[path = "intent/walk_tests.rs"]
mod tests;
