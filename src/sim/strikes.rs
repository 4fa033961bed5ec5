//! The faults in force: counts requests and says which are struck.

use super::call::{BodyKind, Head};
use super::dice::Dice;
use super::fault::{Fault, What};
use bytes::Bytes;

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
        self.strike(|fault| {
            !fault.strikes_before_body()
                && fault.on.matches(head)
                && fault.body.is_none_or(|wanted| kind == Some(wanted))
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
