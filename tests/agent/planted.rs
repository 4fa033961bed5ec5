//! The proof can fail: a bug planted in the program's own paths is seen by the seeded runs.

use crate::seeds::complaint;
use opship::flow::planted::Bug;

const SEEDS_MAX: u64 = 1_000;

#[test]
fn each_planted_bug_is_caught_within_a_thousand_seeds() {
    for bug in Bug::ALL {
        let caught = (0..SEEDS_MAX).find_map(|seed| complaint(seed, *bug).map(|said| (seed, said)));
        let (seed, said) = caught.unwrap_or_else(|| panic!("{bug:?} was not caught"));
        println!("{bug:?}: seed {seed}: {said}");
    }
}
