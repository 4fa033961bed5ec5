//! opship ships 1Password events to Microsoft Sentinel: poll, decode, dedupe, map, pack, intend, deliver, record, commit.
//!
//! `agent` is the flow on one screen; `flow` is its pure core; `source`, `sink`, `store` and `table` are the edges;
//! `wire` is the only place that names concrete edges; `sim` is the outside world for demo and tests.
#![forbid(unsafe_code)]

pub mod admin;
pub mod agent;
pub mod azure;
pub mod cli;
pub mod config;
pub mod flow;
pub mod http;
pub mod private;
pub mod reload;
pub mod schedule;
pub mod secret;
pub mod sim;
pub mod sink;
pub mod source;
pub mod store;
pub mod table;
pub mod telemetry;
pub mod wire;
