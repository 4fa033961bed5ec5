//! Faults planted on purpose: the proof shows with them that it would see a real one. Each stands where its opposite is done right.
//!
//! The feature `planted` is turned on by this package's own tests and by nothing else; without it [`is`] is `false` at compile time,
//! so that no shipped program has a switch to be turned. A fault is planted for one thread: seeded runs stay independent.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The ledger is not written.
    SkipLedger,
}

impl Bug {
    pub const ALL: &[Self] = &[Self::SkipLedger];
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in what this thread runs from now on; `None` heals it.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted here.
#[cfg(feature = "planted")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
