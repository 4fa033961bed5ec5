//! opship ships 1Password events to Microsoft Sentinel: poll, decode, dedupe, map, pack, intend, deliver, record, commit.
//!
//! `agent` is the flow on one screen; `flow` is its pure core; `source`, `sink`, `store` and `table` are the edges;
//! `wire` is the only place that names concrete edges; `sim` is the outside world for demo and tests.
//!
//! The program that ships has one public item, `main`: what it does not use, the compiler calls dead. The feature `testing` opens the rooms.
#![forbid(unsafe_code)]
#![cfg_attr(feature = "testing", warn(unreachable_pub))]

#[cfg(not(feature = "testing"))]
mod admin;
#[cfg(feature = "testing")]
pub mod admin;
#[cfg(not(feature = "testing"))]
mod agent;
#[cfg(feature = "testing")]
pub mod agent;
#[cfg(not(feature = "testing"))]
mod azure;
#[cfg(feature = "testing")]
pub mod azure;
#[cfg(not(feature = "testing"))]
mod cli;
#[cfg(feature = "testing")]
pub mod cli;
#[cfg(not(feature = "testing"))]
mod config;
#[cfg(feature = "testing")]
pub mod config;
#[cfg(not(feature = "testing"))]
mod flow;
#[cfg(feature = "testing")]
pub mod flow;
#[cfg(not(feature = "testing"))]
mod http;
#[cfg(feature = "testing")]
pub mod http;
#[cfg(not(feature = "testing"))]
mod private;
#[cfg(feature = "testing")]
pub mod private;
#[cfg(not(feature = "testing"))]
mod reload;
#[cfg(feature = "testing")]
pub mod reload;
#[cfg(not(feature = "testing"))]
mod schedule;
#[cfg(feature = "testing")]
pub mod schedule;
#[cfg(not(feature = "testing"))]
mod secret;
#[cfg(feature = "testing")]
pub mod secret;
#[cfg(not(feature = "testing"))]
#[expect(dead_code, unused_imports, reason = "much of the outside world is there for the tests alone")]
mod sim;
#[cfg(feature = "testing")]
pub mod sim;
#[cfg(not(feature = "testing"))]
mod sink;
#[cfg(feature = "testing")]
pub mod sink;
#[cfg(not(feature = "testing"))]
mod source;
#[cfg(feature = "testing")]
pub mod source;
#[cfg(not(feature = "testing"))]
mod store;
#[cfg(feature = "testing")]
pub mod store;
#[cfg(not(feature = "testing"))]
mod table;
#[cfg(feature = "testing")]
pub mod table;
#[cfg(not(feature = "testing"))]
mod telemetry;
#[cfg(feature = "testing")]
pub mod telemetry;
#[cfg(not(feature = "testing"))]
mod wire;
#[cfg(feature = "testing")]
pub mod wire;

pub use cli::main;
