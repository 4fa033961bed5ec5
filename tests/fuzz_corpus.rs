//! What the fuzz targets check, on the compiler of everyone: each seed of `fuzz/corpus`, cut and changed in many places.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a check that does not hold ends in a panic"
)]

#[path = "../fuzz/checks/checkpoint.rs"]
mod checkpoint;
#[path = "../fuzz/checks/claims.rs"]
mod claims;
#[path = "../fuzz/checks/config.rs"]
mod config;
#[path = "../fuzz/checks/decode.rs"]
mod decode;
#[path = "../fuzz/checks/error_body.rs"]
mod error_body;
#[path = "../fuzz/checks/json.rs"]
mod json;
#[path = "../fuzz/checks/ledger.rs"]
mod ledger;
#[path = "../fuzz/checks/map.rs"]
mod map;
#[path = "../fuzz/checks/memory.rs"]
mod memory;
#[path = "../fuzz/checks/pack.rs"]
mod pack;
#[path = "../fuzz/checks/retry_after.rs"]
mod retry_after;
#[path = "../fuzz/checks/timestamp.rs"]
mod timestamp;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Seeds longer than this are there for their size.
const LONG: usize = 8 * 1024;
/// What is set into a seed besides flipped bits: what readers stumble over.
const INTRUDERS: [&[u8]; 12] =
    [b"\0", b"\"", b"\\", b"{", b"]", b",", b"\xff", b"NaN", b"\\ud800", b"1e999", b"\n", "\u{202e}".as_bytes()];

/// Replays the corpus of a target, each seed cut and changed at so many places; a failure names the seed and what was done to it.
fn replay(target: &str, places_max: usize, check: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() >= 3, "{} has {} seeds", folder.display(), seeds.len());
    for seed in seeds {
        let bytes = fs::read(&seed).unwrap();
        let holds = |what: String, bytes: &[u8]| {
            if catch_unwind(AssertUnwindSafe(|| check(bytes))).is_err() {
                panic!("{} {what}: {:.300?}", seed.display(), String::from_utf8_lossy(bytes));
            }
        };
        holds("as it is".into(), &bytes);
        holds("twice".into(), &bytes.repeat(2));
        for place in places(bytes.len(), places_max) {
            holds(format!("cut at {place}"), &bytes[..place]);
            holds(format!("from {place}"), &bytes[place..]);
            for (what, changed) in changed(&bytes, place) {
                holds(format!("with {what} at {place}"), &changed);
            }
        }
    }
}

/// All places of a short seed, evenly spread ones of a long one.
fn places(len: usize, places_max: usize) -> impl Iterator<Item = usize> {
    let places_max = if len > LONG { places_max.min(2) } else { places_max };
    (0..len).step_by(len.div_ceil(places_max).max(1))
}

fn changed(bytes: &[u8], place: usize) -> Vec<(String, Vec<u8>)> {
    let bit = place % 8;
    let mut flipped = bytes.to_vec();
    flipped[place] ^= 1 << bit;
    let intruder = INTRUDERS[place % INTRUDERS.len()];
    let set_in = [&bytes[..place], intruder, &bytes[place..]].concat();
    let end = (place + 5).min(bytes.len());
    let left_out = [&bytes[..place], &bytes[end..]].concat();
    vec![
        (format!("bit {bit} flipped"), flipped),
        (format!("{:?} set in", String::from_utf8_lossy(intruder)), set_in),
        ("five bytes left out".into(), left_out),
    ]
}

macro_rules! replays {
    ($($name:ident: $target:ident at $places:literal,)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($target), $places, $target::check);
        })*

        #[test]
        fn every_corpus_has_a_check() {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
            let mut there: Vec<String> =
                fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            there.sort();
            let mut replayed = vec![$(stringify!($target).to_owned()),*];
            replayed.sort();
            assert_eq!(there, replayed);
        }
    };
}

replays! {
    a_page_is_read_whole_and_its_items_under_their_own_ids: decode at 800,
    a_row_holds_or_counts_every_value: map at 60,
    no_row_is_lost_between_batches: pack at 4,
    a_checkpoint_is_read_as_written_or_called_damaged: checkpoint at 120,
    the_whole_leading_frames_of_a_segment_are_read_and_no_others: ledger at 160,
    no_problem_of_a_configuration_repeats_a_secret: config at 8,
    a_wait_asked_for_is_bounded: retry_after at 2000,
    an_error_answer_has_a_verdict_and_stays_on_one_line: error_body at 400,
    nothing_of_a_token_ends_in_an_error: claims at 1000,
    a_moment_is_read_to_the_nanosecond: timestamp at 2000,
}
