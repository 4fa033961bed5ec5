//! The Events API source against a scripted server on loopback: what is sent, what answers mean, how tokens rotate.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod failures;
mod requests;
mod rotation;
mod world;
