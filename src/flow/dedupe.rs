//! dedupe: which items of a page are new.

use super::decode::Item;
use super::planted::{self, Bug};
use super::{EventId, EventKey};
use std::collections::HashMap;

/// A page sorted into new and known items.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Places of the new items in the page, in page order, each key once.
    pub new: Vec<usize>,
    /// Items shipped before.
    pub known: u64,
    /// Items that stand in the page twice.
    pub repeated: u64,
    /// Repeated items whose content differs, as places of the one that wins, the first, and of the other. Visible inside a page only.
    pub conflicts: Vec<(usize, usize)>,
    /// Places of new items whose uuid stands under another hour too: each is an event of its own, for the hour is part of its identity.
    pub moved: Vec<usize>,
}

/// `is_known` says whether the ledger or the open intent holds a key.
pub fn sort(items: &[Item<'_>], is_known: impl Fn(&EventKey) -> bool) -> Sorted {
    let mut sorted = Sorted::default();
    // By id the first place, whatever its hour; by key that of the few whose id comes under a second one.
    let mut first_of_id: HashMap<EventId, usize> = HashMap::with_capacity(items.len());
    let mut first_of_key: HashMap<EventKey, usize> = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        let of_id = *first_of_id.entry(item.key.id).or_insert(place);
        let has_moved = items.get(of_id).is_some_and(|first| first.key != item.key);
        let first = if has_moved { *first_of_key.entry(item.key).or_insert(place) } else { of_id };
        if first != place && !planted::is(Bug::ShipRepeats) {
            sorted.repeated += 1;
            if items.get(first).is_some_and(|first| first.raw != item.raw) {
                sorted.conflicts.push((first, place));
            }
        } else if is_known(&item.key) {
            sorted.known += 1;
        } else {
            sorted.new.push(place);
            if has_moved {
                sorted.moved.push(place);
            }
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::decode;

    /// Fault: one uuid four times on a page, once with another content. Shows: one row, the first wins, the conflict is named and counted.
    #[test]
    fn fm_21_the_same_uuid_twice_in_a_page_is_one_row_and_the_first_wins() {
        let items: Vec<_> = [r#"{"uuid":"A"}"#, r#"{"uuid":"B"}"#, r#"{"uuid":"A"}"#, r#"{"uuid":"A","action":"x"}"#]
            .into_iter()
            .map(decode::item)
            .collect();
        let sorted = sort(&items, |key| *key == items[1].key);
        let expected = Sorted { new: vec![0], known: 1, repeated: 2, conflicts: vec![(0, 3)], moved: Vec::new() };
        assert_eq!(sorted, expected);
    }

    /// Fault: one uuid under three hours on a page, two of them twice, one known. Shows: each hour is an event of its own, the new ones beyond the first are told, repeats are repeats of their own hour.
    #[test]
    fn fm_58_one_uuid_under_two_hours_of_a_page_is_two_events_and_told() {
        let at = |hour: &str| format!(r#"{{"uuid":"A","timestamp":"2026-11-22T{hour}:30:00Z"}}"#);
        let raws = ["10", "11", "11", "10", "12"].map(at);
        let items: Vec<_> = raws.iter().map(|raw| decode::item(raw)).collect();
        let all_new = sort(&items, |_| false);
        let expected = Sorted { new: vec![0, 1, 4], repeated: 2, moved: vec![1, 4], ..Sorted::default() };
        assert_eq!(all_new, expected);
        let one_known = sort(&items, |key| *key == items[1].key);
        let expected = Sorted { new: vec![0, 4], known: 1, repeated: 2, moved: vec![4], ..Sorted::default() };
        assert_eq!(one_known, expected);
    }
}
