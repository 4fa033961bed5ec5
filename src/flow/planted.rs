//! Faults planted on purpose: the proof shows with them that it would see a real one. Each stands where its opposite is done right.
//!
//! The feature `planted` is turned on by this package's own tests and by nothing else; without it every bug is absent at compile time,
//! so that no shipped program has a switch to be turned. A fault is planted for one thread: seeded runs stay independent.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The ledger is not written: what a crash or a sweep reads again is shipped again, without a trace (A).
    SkipLedger,
    /// The ledger is written before the POST: a refused batch counts as shipped (L).
    RecordBeforeDeliver,
    /// The position moves with the intent, before the 204 (L).
    CommitBeforeDeliver,
    /// The last batch of a page is dropped, and the position moves behind the page (L).
    LoseLastBatch,
    /// Rows are posted without a stored intent: a crash leaves copies without a trace (A).
    PostWithoutIntent,
    /// The checkpoint is written over whatever is there (A, L).
    NoCompareAndSwap,
    /// A ledger segment retires by its hour alone, however young its last append is (A).
    RetireByEventTime,
    /// Any 26 base32 characters are cut to 128 bits: neighbours become one event (L).
    CollapseIds,
    /// The overlap sweep starts 5 minutes ago instead of at its mark; the late sweep has to find the rest, and cannot after an outage (L).
    SweepFromNow,
    /// The late sweep starts at `now - horizon` instead of at its mark: an outage leaves a gap (L).
    LateSweepFromNow,
    /// A mark rises with the first page of its sweep: the rest of a sweep that is cut short is never read (L).
    MarkBeforeLastPage,
    /// A rejected cursor starts again now (L).
    ResetToNow,
    /// A rejected cursor starts again at the watermark, which sweeps lift over events not shipped yet (L).
    ResetToWatermark,
    /// A client with a wrong clock carries watermark and marks into the future (L).
    BelieveTheFuture,
    /// Each batch of a page moves the position behind the whole page (L).
    EachBatchMoves,
    /// A batch in doubt is not posted again, and the position moves behind it (L).
    ForgetIntent,
    /// A page that cannot be read makes the events of a batch in doubt count as gone (L).
    FailedReadIsGone,
    /// A batch in doubt is looked for on its page alone: when the cursor is gone, its events count as gone (A).
    RecoverWithoutWindow,
    /// A part of a batch in doubt ships under an intent of its own (A).
    PartsForgetDoubt,
    /// A recovery posts and records under the attempt that it found (A).
    SameAttemptAgain,
    /// A doubt is kept in memory only: after a crash there are more copies than attempts (A).
    ForgetDoubts,
    /// No answer counts as a refusal: the batch is planned anew (A).
    LostReplyIsNo,
    /// No answer counts as acceptance (L).
    LostReplyIsYes,
    /// The second half of a refused batch is dropped (L).
    LoseSecondHalf,
    /// The first half of a split moves the position behind the whole page (L).
    SplitMovesEarly,
    /// What is cached of the ledger is kept after another process wrote (A).
    KeepStaleLedger,
    /// The same event twice on a page is two rows (A).
    ShipRepeats,
    /// A page without items moves the position all the same (L).
    TakePageWithoutItems,
    /// Whatever Date an answer has is believed at once, and the host's clock is not asked (L).
    BelieveEveryDate,
    /// A row is set aside when it was refused alone once: an accident costs its content (L).
    SetAsideAtOnce,
    /// No empty frame proves that the ledger takes appends: one that takes none lets each start post the open batch again (A).
    SkipEmptyFrame,
    /// An entry ships although another one of the same account does (A).
    IgnoreOwner,
    /// A heartbeat is posted although a feed of the account is in trouble (V).
    HeartbeatInTrouble,
    /// A table that shows no row counts as empty: `reconcile --repair` ships again what a right hides (D).
    TrustEmptyTable,
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
