//! What must hold whatever happened: nothing lost, every copy traceable and paid for by a doubt, no position ahead of the table.

use crate::faults::Kind;
use crate::source::Event;
use crate::world::{State, World};
use opship::flow::checkpoint::{Checkpoint, Decoded};
use opship::flow::intent::Intent;
use opship::flow::{EventId, EventKey, Hour, Time};
use std::collections::{HashMap, HashSet};

/// Attempts by (hour, id).
type Attempts = HashMap<(String, EventId), u32>;

/// One append: these ids were accepted under this batch and attempt.
pub(crate) struct Frame {
    pub(crate) batch_id: String,
    pub(crate) attempt: u32,
    pub(crate) ids: Vec<(String, EventId)>,
}

/// The highest attempt under which each event stands in the ledger, by (hour, id).
pub(crate) fn ledger(world: &World) -> Attempts {
    let mut attempts = HashMap::new();
    for frame in frames(world) {
        for id in frame.ids {
            let entry = attempts.entry(id).or_insert(0);
            *entry = frame.attempt.max(*entry);
        }
    }
    attempts
}

/// Every frame of the ledger. Read without the program's own reader.
pub(crate) fn frames(world: &World) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (name, blob) in world.state().store.blobs.iter().filter(|(name, _)| name.starts_with("ledger/")) {
        let file = name.rsplit('/').next().expect("a name");
        let hour = file.split('.').next().expect("a name").to_owned();
        let mut rest = &*blob.bytes;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some(frame) = after.get(..length) else { break };
            let batch_id = frame[..16].iter().map(|byte| format!("{byte:02x}")).collect();
            let attempt = u32::from_le_bytes(*frame[16..].first_chunk::<4>().expect("a head"));
            let ids = frame[20..length - 4].as_chunks::<16>().0.iter().map(|id| (hour.clone(), EventId(*id))).collect();
            frames.push(Frame { batch_id, attempt, ids });
            rest = &after[length..];
        }
    }
    frames
}

/// What the commits of a watched world have shown so far.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) commits: u64,
    /// Copies whose trace went with a store that was rolled back; not to be asked for.
    pub(crate) excused: HashSet<String>,
    /// The sequence number and the marks of the last commit; none when the store was tampered with since.
    last: Option<(u64, Time, Time)>,
}

impl Seen {
    /// The store no longer holds what was committed last.
    pub(crate) fn forget_last(&mut self) {
        self.last = None;
    }
}

/// What the oracle looks at in a checkpoint. Read without the program's own reader.
#[derive(serde::Deserialize)]
struct Committed {
    seq: u64,
    floor: Time,
    cursor: Option<String>,
    sweep_mark: Time,
    late_mark: Time,
    overlap_sweep: Option<Sweep>,
    late_sweep: Option<Sweep>,
    totals: Totals,
}

#[derive(serde::Deserialize)]
struct Sweep {
    cursor: Option<String>,
}

#[derive(serde::Deserialize)]
struct Totals {
    read: u64,
    shipped: u64,
    known: u64,
    repeated: u64,
    filtered: u64,
}

impl Committed {
    fn read(bytes: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Document {
            body: Committed,
        }
        serde_json::from_slice::<Document>(bytes).expect("a readable checkpoint").body
    }
}

impl State {
    /// A checkpoint was just written: is it true?
    pub(crate) fn look_at_commit(&mut self, key: &str) {
        if !key.starts_with("checkpoints/") || !key.ends_with(".json") || key.ends_with(".prev.json") {
            return;
        }
        let cp = Committed::read(&self.store.blobs[key].bytes);
        self.seen.commits += 1;
        self.position_is_covered(&cp);
        if let Some(lookback) = self.lookback {
            // No clock is ahead of the true one but for an answer here and there, which alone must not decide where a feed starts.
            let latest = self.now() - lookback;
            assert!(cp.floor <= latest, "L: the feed starts at {}, after its lookback {latest}", cp.floor);
        }
        let (seq, sweep_mark, late_mark) = (cp.seq, cp.sweep_mark, cp.late_mark);
        if let Some(last) = self.seen.last {
            // One that lies ahead of the present, as far as the clocks tell, is taken back: more is read again, never less.
            let clocks = [Kind::WrongDate, Kind::SourceClockAhead, Kind::SourceClockBehind, Kind::HostClockBehind];
            let may_fall = clocks.iter().any(|kind| self.struck.times(*kind) > 0);
            let is_kept = |before: Time, mark: Time| before <= mark || may_fall || before > self.now();
            let rises = last.0 <= seq && is_kept(last.1, sweep_mark) && is_kept(last.2, late_mark);
            assert!(rises, "L: a mark fell: {last:?}, now {:?}", (seq, sweep_mark, late_mark));
        }
        self.seen.last = Some((seq, sweep_mark, late_mark));
    }

    /// What was handed out on the way to the stored cursor is in the table, and what was counted adds up.
    fn position_is_covered(&mut self, cp: &Committed) {
        let t = &cp.totals;
        assert_eq!(t.read, t.shipped + t.known + t.repeated + t.filtered, "conservation");
        let sweeps =
            [&cp.overlap_sweep, &cp.late_sweep].map(|sweep| sweep.as_ref().and_then(|sweep| sweep.cursor.clone()));
        for cursor in sweeps.into_iter().chain([cp.cursor.clone()]).flatten() {
            let mut at = Some(cursor);
            // Rows stay in the table: what was covered once is covered for good.
            while let Some(cursor) = at.filter(|cursor| self.source.covered.insert(cursor.clone())) {
                let Some(told) = self.source.told.get(&cursor) else { break };
                let ahead = told.uuids.iter().find(|uuid| !self.sink.copies.contains_key(*uuid));
                assert!(ahead.is_none(), "L: the checkpoint is ahead of {ahead:?}");
                at = told.parent.clone();
            }
        }
    }
}

fn key_of(event: &Event) -> EventKey {
    let time = (!event.is_odd).then_some(event.timestamp);
    EventKey { hour: Hour::of(time), id: EventId::of_uuid(&event.uuid) }
}

impl World {
    /// Every visible event newer than the floor is in the table.
    pub(crate) fn nothing_is_lost(&self) {
        self.nothing_is_lost_but(|_| false);
    }

    /// The same, but of the events that need no row none is there.
    pub(crate) fn nothing_is_lost_but(&self, needs_no_row: impl Fn(&Event) -> bool) {
        let floor = self.stored_checkpoint().map(|cp| cp.floor);
        let state = self.state();
        let now = state.now();
        let shipped = |event: &Event| state.sink.copies.contains_key(&event.uuid);
        assert!(!state.source.events.iter().any(|event| needs_no_row(event) && shipped(event)), "a row too many");
        let is_new = |event: &Event| floor.is_none_or(|floor| event.timestamp >= floor);
        let is_owed = |event: &Event| event.visible_at <= now && is_new(event) && !needs_no_row(event);
        let is_lost = |event: &&Event| is_owed(event) && !shipped(event);
        let lost: Vec<_> = state.source.events.iter().filter(is_lost).collect();
        assert!(lost.is_empty(), "L: {} events lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    }

    /// Each copy beyond the first is explained by a ledger frame with an attempt for each, and there are at most a batch of them a doubt.
    pub(crate) fn every_copy_is_traceable(&self) {
        let attempts = ledger(self);
        // A batch still in doubt is traced by its open intent; its frame follows.
        let intent = self.open_intent();
        let open: HashMap<EventKey, u32> =
            intent.iter().flat_map(|intent| intent.keys().into_iter().map(|key| (key, intent.attempt()))).collect();
        let told = self.stored_checkpoint().map_or(0, |cp| cp.slot.in_doubt().batches);
        let state = self.state();
        let mut extra = 0;
        for event in &state.source.events {
            let copies = state.sink.copies(&event.uuid);
            if copies < 2 || state.seen.excused.contains(&event.uuid) {
                continue;
            }
            extra += copies - 1;
            let key = key_of(event);
            let recorded = attempts.get(&(key.hour.to_string(), key.id)).copied();
            let is_traced = recorded.is_some_and(|attempt| attempt > 1) || open.contains_key(&key);
            assert!(is_traced, "A: {} has {copies} copies, the ledger says {recorded:?}", event.uuid);
            let known = recorded.max(open.get(&key).copied()).unwrap_or_default() as usize;
            let is_counted = open.contains_key(&key) || known >= copies;
            assert!(is_counted, "A: {} has {copies} copies of {known} attempts", event.uuid);
        }
        // Accepted, and then the ledger took nothing for longer than anybody waits: in doubt too, as far as that was told.
        let unrecorded = state.store.struck.times(Kind::LedgerSealed).min(told);
        let doubts = (state.sink.doubts + self.crashes + unrecorded) as usize;
        let rows_max = self.settings.batch_rows_max;
        assert!(extra <= doubts * rows_max, "D: {extra} copies for {doubts} doubts of {rows_max} rows");
    }

    fn stored_checkpoint(&self) -> Option<Checkpoint> {
        match Checkpoint::decode(&self.stored_bytes()?) {
            Decoded::Good(cp) => Some(*cp),
            _ => None,
        }
    }

    pub(crate) fn stored_bytes(&self) -> Option<Vec<u8>> {
        let key = self.checkpoint_key();
        self.state().store.blobs.get(&key).map(|blob| blob.bytes.clone())
    }

    pub(crate) fn open_intent(&self) -> Option<Intent> {
        self.stored_checkpoint()?.slot.intent().cloned()
    }

    /// Events older than the floor that a lost checkpoint left behind; nobody owes them.
    pub(crate) fn let_go(&self) -> u64 {
        let floor = self.stored_checkpoint().map(|cp| cp.floor);
        let state = self.state();
        let is_old = |event: &&Event| floor.is_some_and(|floor| event.timestamp < floor);
        let old = state.source.events.iter().filter(is_old);
        old.filter(|event| !state.sink.copies.contains_key(&event.uuid)).count() as u64
    }

    /// These events, and no others, are in the table as stubs, and no other has a dead letter. Letters end after 30 days.
    pub(crate) fn only_these_are_stubs(&self, marked: &[&String]) {
        let ids: HashSet<String> = marked.iter().map(|uuid| EventId::of_uuid(uuid).to_string()).collect();
        let strange: Vec<String> = self.letters().into_iter().filter(|id| !ids.contains(id)).collect();
        assert!(strange.is_empty(), "L: dead letters of events that nothing is wrong with: {strange:?}");
        let state = self.state();
        let blamed: Vec<_> = state.sink.stubs.iter().filter(|uuid| !marked.contains(uuid)).collect();
        assert!(blamed.is_empty(), "L: stubs of events that nothing is wrong with: {blamed:?}");
        let came_whole = |uuid: &&String| state.sink.copies(uuid) > 0 && !state.sink.stubs.contains(*uuid);
        assert!(!marked.iter().any(came_whole), "a poisoned row came whole");
    }

    /// What the checkpoint says of the ledger is there, as far as whole frames go.
    pub(crate) fn the_checkpoint_knows_its_ledger(&self) {
        let size = self.checkpoint().ledger.unwrap_or_default();
        let state = self.state();
        let segments = state.store.blobs.iter().filter(|(name, _)| name.starts_with("ledger/"));
        let there: Vec<u64> = segments.map(|(_, blob)| blob.bytes.len() as u64).filter(|len| *len > 0).collect();
        let (count, bytes) = (there.len() as u64, there.iter().sum::<u64>());
        assert!(size.segments <= count && size.bytes <= bytes, "{size:?} of {count} segments with {bytes} bytes");
    }

    pub(crate) fn each_event_has_one_row(&self) {
        self.nothing_is_lost();
        let state = self.state();
        assert_eq!(state.sink.rows.len(), state.source.events.len(), "one row an event");
    }

    /// What was handed out on the way to the stored cursor is in the table, and what was counted adds up.
    pub(crate) fn the_position_is_covered(&self) {
        if self.state().store.blobs.contains_key(&self.checkpoint_key()) {
            let bytes = self.stored_bytes().unwrap_or_default();
            self.state().position_is_covered(&Committed::read(&bytes));
        }
    }

    /// No position has to wait for events that were dropped on purpose or that the source no longer has.
    pub(crate) fn let_go_of_what_nobody_owes(&self, needs_no_row: impl Fn(&Event) -> bool) {
        let mut state = self.state();
        let owed = state.source.events.iter().filter(|event| !needs_no_row(event));
        let owed: HashSet<String> = owed.map(|event| event.uuid.clone()).collect();
        state.source.told.values_mut().for_each(|told| told.uuids.retain(|uuid| owed.contains(uuid)));
    }

    pub(crate) fn is_sound(&self) {
        self.every_copy_is_traceable();
        self.the_position_is_covered();
    }

    /// Copies in the table, and those of them whose trace a rollback took away.
    pub(crate) fn copies(&self) -> (u64, u64) {
        let state = self.state();
        let extra = |(_, copies): &(&String, &usize)| **copies as u64 - 1;
        let all = state.sink.copies.iter().map(|pair| extra(&pair)).sum();
        let excused = state.sink.copies.iter().filter(|(uuid, _)| state.seen.excused.contains(*uuid));
        (all, excused.map(|pair| extra(&pair)).sum())
    }

    /// The keys of the open intent, if any, as uuids.
    pub(crate) fn uuids_in_doubt(&self) -> HashSet<String> {
        let keys: HashSet<EventKey> = self.open_intent().iter().flat_map(Intent::keys).collect();
        let state = self.state();
        state
            .source
            .events
            .iter()
            .filter(|event| keys.contains(&key_of(event)))
            .map(|event| event.uuid.clone())
            .collect()
    }
}
