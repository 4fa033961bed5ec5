//! reconcile: the events at the source held against the rows in the table, hour by hour.

use super::{EventKey, Hour};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// The events of one hour, or of all. `at_source` = `in_table` - `unexpected` + `missing` + `pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Distinct events that the source returns and that the filter lets through.
    pub at_source: u64,
    /// Distinct events that the table holds.
    pub in_table: u64,
    /// At the source and not in the table.
    pub missing: u64,
    /// The same, but shipped so recently that the table may not show them yet: not judged.
    pub pending: u64,
    /// Rows beyond the first of an event.
    pub duplicated: u64,
    /// Events at the source whose ledger frame has an attempt above 1: copies of them are explained.
    pub in_doubt: u64,
    /// In the table and not at the source: shipped by another program, or no longer returned.
    pub unexpected: u64,
}

impl Tally {
    pub const fn add(&mut self, other: &Self) {
        self.at_source += other.at_source;
        self.in_table += other.in_table;
        self.missing += other.missing;
        self.pending += other.pending;
        self.duplicated += other.duplicated;
        self.in_doubt += other.in_doubt;
        self.unexpected += other.unexpected;
    }

    /// Source and table agree. A doubt without a copy is no difference.
    pub const fn is_even(&self) -> bool {
        self.missing == 0 && self.pending == 0 && self.duplicated == 0 && self.unexpected == 0
    }
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub hours: BTreeMap<Hour, Tally>,
    /// What a repair has to ship, with the highest attempt that the ledger had of it; none: it was never shipped.
    pub missing: HashMap<EventKey, Option<u32>>,
}

impl Compared {
    /// Missing events that the ledger does not know.
    pub fn never_shipped(&self) -> u64 {
        self.missing.values().filter(|attempt| attempt.is_none()).count() as u64
    }

    /// How long ago the last append came to any hour in which something is missing; `None`: nothing of these hours was ever accepted.
    /// A row that the table took since speaks for these batches: what came before it should be there by now.
    pub fn last_accepted(&self, ages: &HashMap<Hour, Duration>) -> Option<Duration> {
        self.missing.keys().filter_map(|key| ages.get(&key.hour)).min().copied()
    }
}

/// Compares the events at the source, each with its attempt in the ledger, with what the table holds. `is_settled` says whether
/// nothing of an hour was shipped so recently that the table may not show it yet.
pub fn compare<H>(
    source: &HashMap<EventKey, Option<u32>>,
    held: &HashMap<EventKey, H>,
    copies: impl Fn(&H) -> u64,
    is_settled: impl Fn(Hour) -> bool,
) -> Compared {
    let mut compared = Compared::default();
    for (key, attempt) in source {
        let tally = compared.hours.entry(key.hour).or_default();
        tally.at_source += 1;
        tally.in_doubt += u64::from(attempt.is_some_and(|attempt| attempt > 1));
        if held.contains_key(key) {
            continue;
        }
        if attempt.is_some() && !is_settled(key.hour) {
            tally.pending += 1;
        } else {
            tally.missing += 1;
            compared.missing.insert(*key, *attempt);
        }
    }
    for (key, held) in held {
        let tally = compared.hours.entry(key.hour).or_default();
        tally.in_table += 1;
        tally.duplicated += copies(held).saturating_sub(1);
        tally.unexpected += u64::from(!source.contains_key(key));
    }
    compared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::EventId;

    fn key(hour: u32, id: u8) -> EventKey {
        EventKey { hour: Hour::At(hour), id: EventId([id; 16]) }
    }

    #[test]
    fn each_event_is_counted_in_its_hour_under_what_became_of_it() {
        let source = HashMap::from([
            (key(1, 1), Some(1)),
            (key(1, 2), Some(2)),
            (key(1, 3), Some(1)),
            (key(1, 4), None),
            (key(2, 5), Some(1)),
            (key(2, 6), None),
        ]);
        let held = HashMap::from([(key(1, 1), 1), (key(1, 2), 3), (key(3, 9), 2)]);
        let compared = compare(&source, &held, |copies| *copies, |hour| hour != Hour::At(2));
        let first = Tally { at_source: 4, in_table: 2, missing: 2, duplicated: 2, in_doubt: 1, ..Tally::default() };
        let second = Tally { at_source: 2, missing: 1, pending: 1, ..Tally::default() };
        let third = Tally { in_table: 1, duplicated: 1, unexpected: 1, ..Tally::default() };
        let hours = [(Hour::At(1), first), (Hour::At(2), second), (Hour::At(3), third)];
        assert_eq!(compared.hours, BTreeMap::from(hours));
        assert_eq!(compared.missing, HashMap::from([(key(1, 3), Some(1)), (key(1, 4), None), (key(2, 6), None)]));
        assert_eq!(compared.never_shipped(), 2);
    }

    #[test]
    fn the_last_append_is_that_of_the_hours_in_which_something_is_missing() {
        let missing = HashMap::from([(key(1, 1), Some(1)), (key(2, 2), None)]);
        let compared = Compared { missing, ..Compared::default() };
        let age = |hour, seconds| (Hour::At(hour), Duration::from_secs(seconds));
        let last = |ages: &[(Hour, Duration)]| compared.last_accepted(&ages.iter().copied().collect());
        assert_eq!(last(&[age(1, 90), age(2, 60), age(3, 1)]), Some(Duration::from_secs(60)));
        assert_eq!(last(&[age(3, 1)]), None);
    }

    #[test]
    fn the_parts_of_a_tally_add_up_and_a_doubt_alone_is_no_difference() {
        let source = HashMap::from([(key(1, 1), Some(2)), (key(1, 2), Some(1))]);
        let held = HashMap::from([(key(1, 1), 1), (key(1, 2), 1)]);
        let compared = compare(&source, &held, |copies| *copies, |_| false);
        let mut total = Tally::default();
        compared.hours.values().for_each(|tally| total.add(tally));
        assert!(total.is_even() && total.in_doubt == 1, "{total:?}");
        assert_eq!(total.at_source, total.in_table - total.unexpected + total.missing + total.pending);
    }
}
