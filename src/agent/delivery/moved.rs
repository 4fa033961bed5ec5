//! A uuid that comes again under another hour: told and counted where it can be seen without another read. It ships all the same, as an
//! event of its own: the hour of the timestamp is part of an event's identity.

use super::Delivery;
use crate::agent::given::Given;
use crate::flow::decode::{Item, Page};
use crate::flow::dedupe::Sorted;
use crate::flow::{EventId, EventKey};
use std::collections::HashSet;

/// Of one page.
const MOVED_TOLD_MAX: usize = 10;

/// The items of a page that have the uuid of a missing event and another hour.
pub(crate) fn moved_from(page: &Page<'_>, missing: &HashSet<EventKey>) -> Vec<EventKey> {
    let ids: HashSet<EventId> = missing.iter().map(|key| key.id).collect();
    let is_moved = |item: &&Item<'_>| ids.contains(&item.key.id) && !missing.contains(&item.key);
    page.items.iter().filter(is_moved).map(|item| item.key).collect()
}

impl Delivery {
    /// Adds what the hours in memory know of the page's new items.
    pub(crate) fn notice_moved(&mut self, page: &Page<'_>, sorted: &mut Sorted) {
        let new = sorted.new.iter().filter_map(|place| Some((*place, page.items.get(*place)?)));
        let new: Vec<(usize, EventKey)> =
            new.filter(|(_, item)| item.has_uuid).map(|(place, item)| (place, item.key)).collect();
        let keys: Vec<EventKey> = new.iter().map(|(_, key)| *key).collect();
        let moved: HashSet<EventKey> = self.ledger.elsewhere(&keys).into_iter().collect();
        if moved.is_empty() {
            return;
        }
        let places = new.into_iter().filter(|(_, key)| moved.contains(key)).map(|(place, _)| place);
        sorted.moved.extend(places);
        sorted.moved.sort_unstable();
        sorted.moved.dedup();
    }
}

impl Given {
    /// Of a batch in doubt: what is gone from the source under its hour and has come back under another one. Returns how many.
    pub(crate) fn tell_moved_away(&self, moved: &HashSet<EventKey>, gone: &HashSet<EventKey>) -> u64 {
        let gone: HashSet<EventId> = gone.iter().map(|key| key.id).collect();
        let away: Vec<EventKey> = moved.iter().copied().filter(|key| gone.contains(&key.id)).collect();
        self.tell_moved(away.iter().copied());
        away.len() as u64
    }

    /// A changed timestamp, or a bug or an attack at the source.
    pub(crate) fn tell_moved(&self, keys: impl IntoIterator<Item = EventKey>) {
        for EventKey { hour, id } in keys.into_iter().take(MOVED_TOLD_MAX) {
            tracing::warn!(feed = %self.id, %id, %hour, "one uuid has events in two hours: this one ships as an event of its own");
        }
    }
}
