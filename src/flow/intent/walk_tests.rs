//! The machine is walked at random, crashes included, beside a table and a ledger that count: every copy is in an attempt and in a doubt.

use super::*;
use crate::flow::attempts::Jitter;
use std::collections::HashSet;

const WALKS: u64 = 400;
const STEPS: u32 = 120;

/// Numbers that look random and are the same each time.
struct Dice(Jitter);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        (self.0.unit() * n as f64) as u64
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn at() -> Time {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn key(n: u64) -> EventKey {
    EventKey { hour: crate::flow::Hour::of(Some(at())), id: EventId(u128::from(n).to_be_bytes()) }
}

fn draft<'a>(keys: &[EventKey], known: Option<&'a Known>) -> Draft<'a> {
    let rows = keys.iter().map(|key| (*key, Some(at()))).collect();
    Draft { stream: Stream::AuditEvents, kind: BatchKind::Backfill, rows, advance: None, owner: "us", known, at: at() }
}

fn read_back(slot: &Slot) -> Slot {
    serde_json::from_value(serde_json::to_value(slot).unwrap()).unwrap()
}

/// One feed: what it has in memory, what it wrote, and the world that it cannot see.
struct Walk {
    dice: Dice,
    slot: Slot,
    stored: Slot,
    /// Rows of the batch under way that are not recorded, part by part.
    parts: Vec<Vec<EventKey>>,
    table: HashMap<EventKey, u64>,
    ledger: HashMap<EventKey, u32>,
    batches: HashSet<String>,
    events: u64,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let (slot, stored) = (Slot::new(), Slot::new());
        let (table, ledger, batches) = (HashMap::new(), HashMap::new(), HashSet::new());
        Self { dice: Dice(Jitter::new(seed)), slot, stored, parts: Vec::new(), table, ledger, batches, events: 0 }
    }

    fn step(&mut self) {
        let before = self.slot.clone();
        match self.slot.intent() {
            None => self.open(),
            Some(_) if self.dice.one_in(6) => self.crash(),
            Some(_) if matches!(self.slot.state, State::Found(_)) => self.recover(),
            Some(_) => self.post(),
        }
        self.holds(&before);
    }

    fn save(&mut self) {
        self.stored = self.slot.clone();
    }

    /// New events, and sometimes old ones that are shipped once more.
    fn open(&mut self) {
        let first = self.events;
        self.events += 1 + self.dice.below(5);
        let mut keys: Vec<EventKey> = (first..self.events).map(key).collect();
        if first > 0 && self.dice.one_in(3) {
            keys.push(key(self.dice.below(first)));
        }
        let attempts: HashMap<_, _> = keys.iter().filter_map(|key| Some((*key, *self.ledger.get(key)?))).collect();
        let known = Known { attempts, why: "again".into() };
        assert_eq!(self.slot.open(draft(&keys, Some(&known))), Opened::New);
        assert!(self.batches.insert(self.slot.batch_id().to_owned()), "a batch id twice");
        self.parts = vec![keys];
        self.save();
    }

    fn post(&mut self) {
        let Some(part) = self.parts.pop() else { unreachable!("an open batch without a part") };
        match self.dice.below(6) {
            0 => self.is_refused(part),
            1 | 2 => {
                if self.dice.one_in(2) {
                    self.arrive(&part);
                }
                assert!(self.slot.doubt(part.len() as u64, "no answer".into(), at()));
                self.parts.push(part);
                // Killed here, the document does not say so: it was one POST under the attempt that is stored.
                if self.dice.one_in(5) { self.crash() } else { self.save() }
            }
            _ => {
                self.arrive(&part);
                self.slot.accept();
                if self.dice.one_in(5) {
                    return self.crash();
                }
                if self.dice.one_in(5) {
                    // The ledger takes nothing, and whoever posted it gives up.
                    assert!(!self.slot.release(), "what was accepted stays until it is recorded");
                    return self.crash();
                }
                let attempt = self.slot.attempt();
                part.iter().for_each(|key| _ = self.ledger.insert(*key, attempt));
                self.slot.record();
                self.slot.settle(&Totals::default());
            }
        }
    }

    fn arrive(&mut self, rows: &[EventKey]) {
        rows.iter().for_each(|key| *self.table.entry(*key).or_default() += 1);
    }

    /// Certainly not accepted: smaller parts, or none at all.
    fn is_refused(&mut self, mut part: Vec<EventKey>) {
        if part.len() > 1 && self.slot.is_in_doubt() {
            let rest = part.split_off(part.len() / 2);
            self.slot.split(2);
            self.parts.extend([rest, part]);
            let half = self.parts.last().cloned().unwrap_or_default();
            assert_eq!(self.slot.open(draft(&half, None)), Opened::Part);
            return;
        }
        let (was_in_doubt, doubts) = (self.slot.is_in_doubt(), self.slot.in_doubt().batches);
        assert_eq!(self.slot.release(), !was_in_doubt, "what is in doubt stays");
        if was_in_doubt {
            self.parts.push(part);
        } else {
            assert!(self.slot.intent().is_none() && self.slot.in_doubt().batches <= doubts);
            self.parts.clear();
            self.save();
        }
    }

    /// The next process knows what was written, and nothing else.
    fn crash(&mut self) {
        self.slot = read_back(&self.stored);
        assert_eq!(self.slot, self.stored);
        assert_eq!(self.slot.open(draft(&[key(9_999_999)], None)), Opened::Unsettled);
        assert!(
            !self.slot.doubt(1, String::new(), at())
                && !self.slot.release()
                && self.slot.settle(&Totals::default()).is_none()
        );
        assert_eq!(self.slot, self.stored, "what was found is recovered before anything else");
    }

    /// Everything that the ledger has not under an attempt as high is posted again, as one part.
    fn recover(&mut self) {
        let intent = self.slot.intent().cloned().unwrap();
        let is_left = |key: &EventKey| self.ledger.get(key).is_none_or(|attempt| *attempt < intent.attempt());
        let left: Vec<EventKey> = intent.keys().into_iter().filter(is_left).collect();
        if left.is_empty() || self.dice.one_in(8) {
            // Through with it, or the source returns it no more: whoever counts is told.
            left.iter().filter(|key| self.table.contains_key(*key)).for_each(|key| {
                let attempt = self.ledger.entry(*key).or_default();
                *attempt = (*attempt).max(intent.attempt());
            });
            self.slot.conclude(left.len() as u64);
            self.parts.clear();
        } else {
            let attempt = self.slot.take_over("us", left.len() as u64, "a process ended", at());
            assert_eq!(attempt, Some(intent.attempt() + 1));
            self.parts = vec![left];
        }
        self.save();
    }

    fn holds(&self, before: &Slot) {
        let in_doubt = self.slot.in_doubt();
        let copies: u64 = self.table.values().map(|copies| copies - 1).sum();
        assert!(copies <= in_doubt.rows, "{copies} copies, {} rows in doubt", in_doubt.rows);
        for (key, attempt) in &self.ledger {
            let copies = self.table.get(key).copied().unwrap_or_default();
            let open = self.slot.intent().filter(|intent| intent.keys().contains(key)).map_or(0, Intent::attempt);
            assert!(copies <= u64::from((*attempt).max(open)), "{copies} copies under attempt {attempt}");
        }
        if let (Some(was), Some(is)) = (before.intent(), self.slot.intent())
            && was.batch_id() == is.batch_id()
        {
            // A crash may lose the attempt that was not written, and no POST came after it.
            assert!(is.attempt() >= self.stored.attempt().min(was.attempt()), "an attempt fell");
        }
        assert!(self.slot.seq() >= self.stored.seq());
    }
}

#[test]
fn a_walk_through_every_transition_leaves_no_copy_without_attempt_and_doubt() {
    let (mut batches, mut doubts) = (0, 0);
    for seed in 0..WALKS {
        let mut walk = Walk::new(seed);
        (0..STEPS).for_each(|_| walk.step());
        batches += walk.batches.len();
        doubts += walk.slot.in_doubt().batches;
    }
    // It came through most of the table, most of the time.
    assert!(batches > 5_000 && doubts > 5_000, "{batches} batches, {doubts} doubts");
}

#[test]
fn what_was_foreseen_for_a_batch_that_never_arrived_is_taken_back() {
    let known = Known { attempts: HashMap::from([(key(1), 3)]), why: "again".into() };
    let mut slot = Slot::new();
    slot.open(draft(&[key(1), key(2)], Some(&known)));
    assert_eq!((slot.attempt(), slot.in_doubt().rows, slot.is_in_doubt()), (4, 1, false));
    assert_eq!(slot.in_doubt().last.last().map(|doubt| (doubt.attempt, doubt.why.as_str())), Some((4, "again")));
    // The first part of it opens anew, with what is foreseen for itself.
    slot.open(draft(&[key(2)], Some(&known)));
    assert_eq!((slot.seq(), slot.attempt(), slot.in_doubt().rows), (2, 1, 0));
    slot.open(draft(&[key(1)], Some(&known)));
    assert!(slot.release() && slot.in_doubt().batches == 0 && slot.intent().is_none());
    // A part of it is there: so are its copies.
    slot.open(draft(&[key(1), key(2)], Some(&known)));
    slot.record();
    assert!(slot.release() && slot.in_doubt().rows == 1);
}

#[test]
fn the_parts_of_a_batch_in_doubt_keep_its_intent_and_move_the_position_with_the_last() {
    let cursor = crate::flow::Cursor::parse("NEXT".into()).unwrap();
    let advance = Advance::Cursor { cursor, born: Some(at()), drained: false, unknown: Unknown::new() };
    let mut slot = Slot::new();
    slot.open(Draft { advance: Some(advance.clone()), ..draft(&[key(1), key(2), key(3)], None) });
    slot.doubt(3, "no answer".into(), at());
    let batch = slot.batch_id().to_owned();
    slot.split(2);
    for part in [[key(1)], [key(2)]] {
        assert_eq!((slot.open(draft(&part, None)), slot.batch_id()), (Opened::Part, batch.as_str()));
        slot.split(1);
    }
    let rows = |shipped| Totals { shipped, ..Totals::default() };
    assert_eq!((slot.settle(&rows(1)), slot.is_in_doubt()), (None, true), "a recovery would count it with the whole");
    assert_eq!(slot.settle(&rows(2)), Some(Settled { shipped: rows(3), advance: Some(advance) }));
    assert_eq!(slot.intent(), None);
}

#[test]
fn an_operator_s_reset_leaves_a_trace_of_what_was_open() {
    let mut slot = Slot::new();
    slot.open(draft(&[key(1), key(2)], None));
    slot.suspect(key(1).id);
    slot.suspect(key(1).id);
    assert_eq!(slot.intent().map(|intent| intent.refusals_of(key(1).id)), Some(2));
    slot.acquit();
    assert_eq!(slot.intent().map(|intent| intent.refusals_of(key(1).id)), Some(0));
    assert!(slot.without_batch().intent().is_none());
    slot.abandon("reset", at());
    assert_eq!((slot.intent(), slot.in_doubt().rows, slot.seq()), (None, 2, 1));
    slot.lose_track(7, "segments are missing", at());
    assert_eq!((slot.in_doubt().rows, slot.in_doubt().last.last().map(|d| d.batch_id.as_str())), (9, Some("unknown")));
}

#[test]
fn a_batch_id_depends_on_stream_number_and_ids() {
    let id = |seq, stream, keys: &[EventKey]| {
        Intent::new(seq, 1, Draft { stream, ..draft(keys, None) }).batch_id().to_owned()
    };
    let (audit, usage) = (Stream::AuditEvents, Stream::ItemUsages);
    let ids = [id(1, audit, &[key(1)]), id(2, audit, &[key(1)]), id(1, usage, &[key(1)]), id(1, audit, &[key(2)])];
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 4);
    assert_eq!(id(1, audit, &[key(1), key(2)]), id(1, audit, &[key(2), key(1)]));
}

#[test]
fn only_the_last_doubts_are_kept_one_by_one() {
    let mut slot = Slot::new();
    (0..25).for_each(|n| slot.lose_track(2, &n.to_string(), at()));
    let in_doubt = slot.in_doubt();
    assert_eq!((in_doubt.batches, in_doubt.rows, in_doubt.last.len()), (25, 50, 10));
    assert_eq!(in_doubt.last.last().map(|doubt| doubt.why.as_str()), Some("24"));
}

/// A slot in the state of this name; in doubt in two parts.
fn in_state(name: &str) -> Slot {
    let mut slot = Slot::new();
    if name != "idle" {
        slot.open(draft(&[key(1), key(2)], None));
    }
    if name == "in doubt" {
        slot.doubt(2, "no answer".into(), at());
        slot.split(2);
    }
    if name == "accepted" {
        slot.accept();
    }
    if name == "found" { read_back(&slot) } else { slot }
}

fn name_of(slot: &Slot) -> &'static str {
    match &slot.state {
        State::Idle => "idle",
        State::Open(_) => "open",
        State::Accepted(_) => "accepted",
        State::InDoubt(_) => "in doubt",
        State::Found(_) => "found",
    }
}

fn apply(transition: &str, slot: &mut Slot) {
    match transition {
        "open" => _ = slot.open(draft(&[key(1)], None)),
        "doubt" => _ = slot.doubt(1, "no answer".into(), at()),
        "accept" => slot.accept(),
        "record" => slot.record(),
        "take_over" => _ = slot.take_over("us", 1, "a process ended", at()),
        "split" => slot.split(2),
        "settle" => _ = slot.settle(&Totals::default()),
        "conclude" => _ = slot.conclude(0),
        "release" => _ = slot.release(),
        other => panic!("the table names {other}, which is no transition"),
    }
}

#[test]
fn the_table_at_the_top_is_what_the_machine_does() {
    let text = include_str!("../intent.rs");
    let rows: Vec<Vec<String>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .map(|line| line.trim_end_matches(" |").split(" | ").map(|cell| cell.replace('`', "")).collect())
        .collect();
    let (head, states) = rows.split_first().unwrap();
    assert_eq!((head.len(), states.len()), (11, 5), "{rows:?}");
    for row in states {
        let state = row[0].split(':').next().unwrap();
        assert_eq!(name_of(&in_state(state)), state);
        for (transition, cell) in head.iter().zip(row).skip(2) {
            let (mut slot, before) = (in_state(state), in_state(state).attempt());
            apply(transition, &mut slot);
            let is = name_of(&slot);
            assert!(cell.starts_with(is), "{state}, {transition}: the table says {cell}, it is {is}");
            assert_eq!(
                cell.contains("attempt + 1"),
                slot.attempt() == before + 1 && is == "in doubt",
                "{state}, {transition}"
            );
        }
    }
}
