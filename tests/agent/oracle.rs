//! What must hold whatever happened: nothing lost, every copy traceable and paid for by a doubt, no position ahead of the table.

use crate::world::{ROWS_MAX, World};
use opship::flow::checkpoint::Intent;
use opship::flow::{EventId, EventKey, Hour};
use std::collections::{HashMap, HashSet};

/// One append: these ids were accepted under this batch and attempt.
pub(crate) struct Frame {
    pub(crate) batch_id: String,
    pub(crate) attempt: u32,
    pub(crate) ids: Vec<(String, EventId)>,
}

/// The highest attempt under which each event stands in the ledger, by (hour, id).
pub(crate) fn ledger(world: &World) -> HashMap<(String, EventId), u32> {
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

impl World {
    /// Every visible event is in the table.
    pub(crate) fn nothing_is_lost(&self) {
        let shipped: HashSet<String> = self.state().sink.rows.iter().cloned().collect();
        let state = self.state();
        let now = state.now();
        let lost: Vec<_> = state
            .source
            .events
            .iter()
            .filter(|event| event.visible_at <= now && !shipped.contains(&event.uuid))
            .map(|event| (&event.uuid, event.timestamp, event.visible_at))
            .collect();
        assert!(lost.is_empty(), "L: {} events lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    }

    /// Each copy beyond the first stands in a ledger frame with attempt > 1, and there are at most a batch of them a doubt.
    pub(crate) fn every_copy_is_traceable(&self) {
        let attempts = ledger(self);
        // A batch still in doubt is traced by its open intent; its frame follows.
        let open: HashSet<_> = self.open_intent().iter().flat_map(Intent::keys).collect();
        let state = self.state();
        let mut copies: HashMap<&str, usize> = HashMap::new();
        state.sink.rows.iter().for_each(|uuid| *copies.entry(uuid).or_default() += 1);
        let mut extra = 0;
        for event in &state.source.events {
            let (hour, id) = (Hour::of(Some(event.timestamp)), EventId::of_uuid(&event.uuid));
            let key = (hour.to_string(), id);
            match copies.get(&*event.uuid).copied().unwrap_or_default() {
                0 | 1 => {}
                n => {
                    extra += n - 1;
                    let attempt = attempts.get(&key).copied();
                    let is_traced = attempt.is_some_and(|attempt| attempt > 1) || open.contains(&EventKey { hour, id });
                    assert!(is_traced, "A: {} has {n} copies, ledger says {attempt:?}", event.uuid);
                }
            }
        }
        let doubts = state.sink.doubts + self.crashes;
        assert!(extra <= doubts as usize * ROWS_MAX, "D: {extra} copies for {doubts} doubts");
    }

    pub(crate) fn open_intent(&self) -> Option<Intent> {
        let is_there = self.state().store.blobs.contains_key(&self.checkpoint_key());
        if is_there { self.checkpoint().intent } else { None }
    }

    pub(crate) fn each_event_has_one_row(&self) {
        self.nothing_is_lost();
        let state = self.state();
        assert_eq!(state.sink.rows.len(), state.source.events.len(), "one row an event");
    }

    /// What was handed out on the way to the stored cursor is in the table, and what was counted adds up.
    pub(crate) fn the_position_is_covered(&self) {
        if !self.state().store.blobs.contains_key(&self.checkpoint_key()) {
            return;
        }
        let cp = self.checkpoint();
        let t = &cp.totals;
        assert_eq!(t.read, t.shipped + t.known + t.repeated + t.filtered, "conservation");
        let mut state = self.state();
        let shipped: HashSet<String> = state.sink.rows.iter().cloned().collect();
        let mut covered = std::mem::take(&mut state.source.covered);
        let sweeps =
            [&cp.overlap_sweep, &cp.late_sweep].map(|sweep| sweep.as_ref().and_then(|sweep| sweep.cursor.clone()));
        for cursor in sweeps.into_iter().chain([cp.cursor]).flatten() {
            let mut at = Some(String::from(cursor));
            // Rows stay in the table: what was covered once is covered for good.
            while let Some(cursor) = at.filter(|cursor| covered.insert(cursor.clone())) {
                let Some(told) = state.source.told.get(&cursor) else { break };
                let ahead = told.uuids.iter().find(|uuid| !shipped.contains(*uuid));
                assert!(ahead.is_none(), "the checkpoint is ahead of {ahead:?}");
                at = told.parent.clone();
            }
        }
        state.source.covered = covered;
    }

    pub(crate) fn is_sound(&self) {
        self.every_copy_is_traceable();
        self.the_position_is_covered();
    }
}
