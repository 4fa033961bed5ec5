//! Every kind of fault that the seeded runs know, counted where it strikes.

macro_rules! kinds {
    ($($name:ident,)*) => {
        /// What went wrong, or was out of the ordinary, once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($name,)*
        }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

kinds! {
    Crash,
    Stall,
    Stop,
    Restart,
    SourceUnreachable,
    SourceThrottled,
    SourceUnavailable,
    SourceMalformed,
    CursorRejected,
    CursorRepeated,
    ItemRepeated,
    PostReplyLost,
    PostBroken,
    PostHungAccepted,
    PostHungRefused,
    PostThrottled,
    PostTooLarge,
    PostUnavailable,
    PostNotFound,
    PostForbidden,
    PoisonOtherCode,
    PoisonEmpty,
    PoisonForbidden,
    PoisonNotFound,
    PoisonNotAcceptable,
    PoisonUnprocessable,
    PoisonServerError,
    PoisonBreak,
    ReadFailed,
    PutFailed,
    PutReplyLost,
    PutConflict,
    AppendFailed,
    AppendReplyLost,
    AppendTorn,
    LedgerSealed,
    CheckpointRolledBack,
    StoreRolledBack,
    CheckpointDamaged,
    CheckpointDeleted,
    SourceClockAhead,
    SourceClockBehind,
    StoreClockJumped,
    Outage,
    EventLate,
    EventFuture,
    EventOdd,
    TwoReplicas,
    ThreeReplicas,
    WrongDate,
    HostClockBehind,
    PageWithoutItems,
    PageKeyWrong,
    TwinEntry,
}

impl Kind {
    /// Circumstances make a run harder; only faults count towards the faults that each run must have. One poisoned row is refused many
    /// times.
    fn is_circumstance(self) -> bool {
        use Kind::{EventFuture, EventLate, EventOdd, Outage, Restart, ThreeReplicas, TwinEntry, TwoReplicas};
        matches!(self, Restart | Outage | EventLate | EventFuture | EventOdd | TwoReplicas | ThreeReplicas | TwinEntry)
            || self.is_poison()
    }

    fn is_poison(self) -> bool {
        (Self::PoisonOtherCode as usize..=Self::PoisonBreak as usize).contains(&(self as usize))
    }
}

/// How often each kind struck.
#[derive(Clone, Debug)]
pub(crate) struct Struck([u64; Kind::ALL.len()]);

impl Struck {
    pub(crate) fn none() -> Self {
        Self([0; Kind::ALL.len()])
    }

    pub(crate) fn by(&mut self, kind: Kind) {
        tracing::debug!(?kind, "strikes");
        self.0[kind as usize] += 1;
    }

    pub(crate) fn times(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    pub(crate) fn faults(&self) -> u64 {
        Kind::ALL.iter().filter(|kind| !kind.is_circumstance()).map(|kind| self.times(*kind)).sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, times)| *sum += times);
    }

    /// One for each kind that struck at all.
    pub(crate) fn at_all(&self) -> Self {
        Self(self.0.map(|times| times.min(1)))
    }
}
