//! ledger: the whole leading frames of a segment are read, no id of a torn one is, and an append behind a torn tail loses nothing.

use crate::memory::{self, Memory};
use opship::flow::{AccountName, EventId, EventKey, FeedId, Hour, Stream};
use opship::store::ledger::Ledger;
use std::collections::BTreeMap;
use std::sync::Arc;

const SEGMENT: &str = "ledger/default/itemusages/sink/odd";
/// Ids by the highest attempt under which they stand in a whole frame.
type Ids = BTreeMap<[u8; 16], u32>;

pub fn check(data: &[u8]) {
    segment_holds(data.to_vec());
    // No mutation finds a checksum: frames made rightly of the first bytes, the rest behind them as it is.
    let Some((count, rest)) = data.split_first() else { return };
    let (made, tail) = rest.split_at(rest.len().min(usize::from(count % 8) * 32));
    let mut segment: Vec<u8> = made.as_chunks::<32>().0.iter().flat_map(frame).collect();
    let whole = leading(&segment).1;
    assert_eq!(whole, segment.len());
    segment.extend_from_slice(tail);
    segment_holds(segment.clone());
    // One byte of it changed, or its end lost.
    if let (Some(at), Some(mask)) = (tail.first(), tail.last()) {
        let place = usize::from(*at) * 31 % segment.len();
        segment[place] ^= (*mask).max(1);
        segment_holds(segment.clone());
        segment.truncate(place);
        segment_holds(segment);
    }
}

/// A frame of one or two ids.
fn frame(seed: &[u8; 32]) -> Vec<u8> {
    let ids = if seed[0].is_multiple_of(2) { &seed[16..] } else { &seed[..] };
    let mut frame = (20 + ids.len() as u32 + 4).to_le_bytes().to_vec();
    frame.extend_from_slice(&seed[..16]);
    frame.extend_from_slice(&u32::from(seed[31]).to_le_bytes());
    frame.extend_from_slice(ids);
    frame.extend_from_slice(&crc32fast::hash(&frame).to_le_bytes());
    frame
}

/// The ids of the whole leading frames, and the bytes these take: `{length, batch, attempt, ids, crc32}`.
fn leading(bytes: &[u8]) -> (Ids, usize) {
    let (mut ids, mut at) = (Ids::new(), 0);
    let number = |at: usize| bytes.get(at..at + 4).map(|four| u32::from_le_bytes(four.try_into().expect("four bytes")));
    while let Some(length) = number(at).map(|length| length as usize) {
        let end = at + 4 + length;
        if length < 24 || !(length - 24).is_multiple_of(16) || end > bytes.len() {
            break;
        }
        if number(end - 4) != Some(crc32fast::hash(&bytes[at..end - 4])) {
            break;
        }
        let attempt = number(at + 20).unwrap_or_default();
        for id in bytes[at + 24..end - 4].as_chunks::<16>().0 {
            let known = ids.entry(*id).or_default();
            *known = attempt.max(*known);
        }
        at = end;
    }
    (ids, at)
}

fn segment_holds(bytes: Vec<u8>) {
    let (mut ids, _) = leading(&bytes);
    // What stands behind the whole frames, taken for ids: must not be known unless it stands in them too.
    let suspects: Vec<[u8; 16]> = bytes.windows(16).step_by(7).take(64).filter_map(|id| id.try_into().ok()).collect();
    for can_cut in [true, false] {
        let store = Arc::new(Memory::with(SEGMENT, bytes.clone(), can_cut));
        knows(&mut open(store.clone()), &ids, &suspects);
        let mut writer = open(store.clone());
        memory::run(writer.append([7; 16], 9, &[key([0xAB; 16])])).expect("memory does not fail");
        let before = ids.insert([0xAB; 16], ids.get(&[0xAB; 16]).copied().unwrap_or_default().max(9));
        knows(&mut writer, &ids, &suspects);
        knows(&mut open(store), &ids, &suspects);
        match before {
            Some(attempt) => _ = ids.insert([0xAB; 16], attempt),
            None => _ = ids.remove(&[0xAB; 16]),
        }
    }
}

fn open(store: Arc<Memory>) -> Ledger {
    let account = AccountName::parse("default").expect("a legal name");
    Ledger::new(store, &FeedId { account, stream: Stream::ItemUsages }, "sink")
}

fn knows(ledger: &mut Ledger, ids: &Ids, suspects: &[[u8; 16]]) {
    memory::run(ledger.load(std::iter::once(key([0; 16])))).expect("memory does not fail");
    for (id, attempt) in ids {
        assert_eq!(ledger.attempt(&key(*id)), Some(*attempt), "an id of a whole frame is lost");
    }
    for id in suspects {
        assert_eq!(ledger.attempt(&key(*id)), ids.get(id).copied(), "an id of no whole frame is known");
    }
}

const fn key(id: [u8; 16]) -> EventKey {
    EventKey { hour: Hour::Odd, id: EventId(id) }
}
