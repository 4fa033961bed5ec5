//! Ids under another hour than theirs: found in what the ledger has in memory, without a read and at a few nanoseconds an event.

use super::Ledger;
use crate::flow::{EventId, EventKey, Hour};

/// Looks into other hours for all new events of a page that may stand in one, and for each of them at least.
const LOOKS_MAX: usize = 2_000;
const LOOKS_MIN: usize = 8;
/// Bits an id, of which three are set. More ids than it was made for make it wrong more often, never blind.
const IDS_A_WORD: usize = 2;
/// Spreads ids over the words: many have a long beginning in common.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Ledger {
    /// Those of these new keys whose id is known under another hour, as far as memory has it: nothing is read. Where many are, only the
    /// nearest hours are looked into.
    pub fn elsewhere(&mut self, keys: &[EventKey]) -> Vec<EventKey> {
        if keys.is_empty() || self.segments.is_empty() {
            return Vec::new();
        }
        if self.sieve.as_ref().is_none_or(Sieve::is_full) {
            let held = self.segments.values().map(|segment| segment.ids.len()).sum();
            self.sieve = Some(Sieve::of(held, self.segments.values().flat_map(|segment| segment.ids.keys())));
        }
        let may_be_held = |key: &&EventKey| self.sieve.as_ref().is_some_and(|sieve| sieve.may_hold(&key.id));
        let doubtful: Vec<EventKey> = keys.iter().filter(may_be_held).copied().collect();
        if doubtful.is_empty() {
            return doubtful;
        }
        let mut hours: Vec<Hour> = self.segments.keys().copied().collect();
        hours.sort_unstable();
        let nearest = (LOOKS_MAX / doubtful.len()).max(LOOKS_MIN);
        let is_elsewhere = |key: &EventKey| {
            let place = hours.partition_point(|hour| *hour < key.hour);
            let from = place.saturating_sub(nearest / 2).min(hours.len().saturating_sub(nearest));
            let others = hours.iter().skip(from).take(nearest).filter(|hour| **hour != key.hour);
            others.filter_map(|hour| self.segments.get(hour)).any(|segment| segment.ids.contains_key(&key.id))
        };
        doubtful.into_iter().filter(is_elsewhere).collect()
    }

    /// Ids that come into memory.
    pub(super) fn sift<'i>(&mut self, ids: impl Iterator<Item = &'i EventId>) {
        if let Some(sieve) = &mut self.sieve {
            ids.for_each(|id| sieve.add(id));
        }
    }
}

/// Which ids may be in memory, wrong for one in a thousand: a Bloom filter whose bits of one id lie in one word.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    words: Vec<u64>,
    room: usize,
}

impl Sieve {
    /// With room for twice as many ids as are held now.
    pub(super) fn of<'i>(held: usize, ids: impl Iterator<Item = &'i EventId>) -> Self {
        let words = (held * 2 / IDS_A_WORD).max(64).next_power_of_two();
        let mut sieve = Self { words: vec![0; words], room: words * IDS_A_WORD };
        ids.for_each(|id| sieve.add(id));
        sieve
    }

    pub(super) fn add(&mut self, id: &EventId) {
        let (place, bits) = self.spot(id);
        if let Some(word) = self.words.get_mut(place) {
            *word |= bits;
        }
        self.room = self.room.saturating_sub(1);
    }

    /// False: it was never added.
    pub(super) fn may_hold(&self, id: &EventId) -> bool {
        let (place, bits) = self.spot(id);
        self.words.get(place).is_some_and(|word| word & bits == bits)
    }

    /// It was made for fewer ids: time to make it anew.
    pub(super) const fn is_full(&self) -> bool {
        self.room == 0
    }

    /// The word of an id and its three bits.
    fn spot(&self, id: &EventId) -> (usize, u64) {
        let id = u128::from_be_bytes(id.0);
        let mixed = (id as u64 ^ (id >> 64) as u64).wrapping_mul(SPREAD);
        let bits = [0, 6, 12].map(|shift| 1 << (mixed >> (16 + shift) & 63)).iter().fold(0, |all, bit: &u64| all | bit);
        ((mixed >> 34) as usize & self.words.len().saturating_sub(1), bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_never_missed_and_little_else_is_taken_for_it() {
        let id = |n: u32| EventId::of_uuid(&format!("EVENT{n:06}"));
        let ids: Vec<EventId> = (0..20_000).map(id).collect();
        let sieve = Sieve::of(ids.len(), ids.iter());
        assert!(ids.iter().all(|id| sieve.may_hold(id)) && !sieve.is_full());
        let wrong = (20_000..60_000).filter(|n| sieve.may_hold(&id(*n))).count();
        assert!(wrong < 80, "{wrong} of 40,000");
        let mut small = Sieve::of(0, [].iter());
        ids.iter().for_each(|id| small.add(id));
        assert!(ids.iter().all(|id| small.may_hold(id)) && small.is_full());
        assert!(!Sieve::default().may_hold(&id(1)));
    }
}
