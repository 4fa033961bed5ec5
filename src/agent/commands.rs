//! commands: what an operator has a feed do beside its ticks: a range shipped, compared or mended, a letter replayed, the position set.

pub(super) mod backfill;
pub(super) mod operator;
pub mod reconcile;
pub mod repair;
pub(super) mod replay;
