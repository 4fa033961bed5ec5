//! monitor: what a feed tells of itself: to the board that the status page reads, to the table as health rows, to the next process.

pub(super) mod account_panel;
pub mod board;
pub mod health;
pub(super) mod moment;
pub(super) mod refused;
pub(super) mod told;
pub(super) mod view;
