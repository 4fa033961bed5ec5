//! The faults in force: counts requests and says which are struck.

use super::call::{BodyKind, Head};
use super::dice::Dice;
use super::fault::{Fault, What};
use axum::http::header;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use memchr::memmem;
use std::cell::LazyCell;
use std::io::Read as _;

/// Of a compressed body, so much is looked at.
const LOOKED_AT_BYTES_MAX: u64 = 50 * 1024 * 1024;

/// The faults in force, each with its counts.
pub(super) struct Faults {
    dice: Dice,
    active: Vec<Active>,
}

struct Active {
    fault: Fault,
    seen: u64,
    struck: u64,
}

impl Faults {
    pub(super) fn new(seed: u64, faults: Vec<Fault>) -> Self {
        let mut book = Self { dice: Dice::of(seed, "faults", 0), active: Vec::new() };
        faults.into_iter().for_each(|fault| book.add(fault));
        book
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.active.push(Active { fault, seen: 0, struck: 0 });
    }

    pub(super) fn clear(&mut self) {
        self.active.clear();
    }

    /// True when the connection is to break before the body is read.
    pub(super) fn strike_head(&mut self, head: &Head) -> bool {
        !self.strike(|fault| fault.strikes_before_body() && fault.on.matches(head)).is_empty()
    }

    /// Everything that happens to a request whose body was read.
    pub(super) fn strike_call(&mut self, head: &Head, body: &Bytes) -> Vec<What> {
        let kind = BodyKind::of(body);
        let text = LazyCell::new(|| plain(head, body));
        self.strike(|fault| {
            !fault.strikes_before_body()
                && fault.on.matches(head)
                && fault.body.is_none_or(|wanted| kind == Some(wanted))
                && fault.holds.as_ref().is_none_or(|held| memmem::find(&text, held.as_bytes()).is_some())
        })
    }

    fn strike(&mut self, matches: impl Fn(&Fault) -> bool) -> Vec<What> {
        let mut struck = Vec::new();
        for active in self.active.iter_mut().filter(|active| matches(&active.fault)) {
            active.seen += 1;
            let due = active.seen >= active.fault.from && active.fault.count.is_none_or(|count| active.struck < count);
            if due && active.fault.probability.is_none_or(|share| self.dice.chance(share)) {
                active.struck += 1;
                struck.push(active.fault.what.clone());
            }
        }
        struck
    }
}

/// A body as it was before it was compressed; what is no gzip has nothing in it.
fn plain(head: &Head, body: &Bytes) -> Vec<u8> {
    if head.header(header::CONTENT_ENCODING.as_str()) != Some("gzip") {
        return body.to_vec();
    }
    let mut text = Vec::new();
    // A torn stream is looked at as far as it goes.
    let _ = MultiGzDecoder::new(body.as_ref()).take(LOOKED_AT_BYTES_MAX).read_to_end(&mut text);
    text
}
