//! dedupe: which items of a page are new.

use super::EventKey;
use super::decode::Item;
use super::planted::{self, Bug};
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
}

/// `is_known` says whether the ledger or the open intent holds a key.
pub fn sort(items: &[Item<'_>], is_known: impl Fn(&EventKey) -> bool) -> Sorted {
    let mut sorted = Sorted::default();
    let mut seen: HashMap<EventKey, (usize, &str)> = HashMap::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        if let Some((first, raw)) = seen.get(&item.key).filter(|_| !planted::is(Bug::ShipRepeats)) {
            sorted.repeated += 1;
            if *raw != item.raw {
                sorted.conflicts.push((*first, place));
            }
        } else {
            seen.insert(item.key, (place, item.raw));
            if is_known(&item.key) { sorted.known += 1 } else { sorted.new.push(place) }
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
        assert_eq!(sorted, Sorted { new: vec![0], known: 1, repeated: 2, conflicts: vec![(0, 3)] });
    }
}
