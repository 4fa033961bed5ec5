//! The real program as child processes, between a simulated outside world and a real store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests"
)]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

/// Each sentence once for the file store and once for blobs in a real Azurite.
macro_rules! both_stores {
    ($($sentence:ident)*) => {
        mod file_store {
            $(#[tokio::test]
            async fn $sentence() {
                super::$sentence($crate::world::Kind::File).await;
            })*
        }
        mod azure_blob_store {
            $(#[tokio::test]
            async fn $sentence() {
                super::$sentence($crate::world::Kind::Blob).await;
            })*
        }
    };
}

mod admin;
mod agent;
mod audit;
mod backfill;
mod browse;
mod canary;
mod clock;
#[cfg(target_os = "linux")]
mod confined;
mod crowds;
mod cursors;
mod delivery;
mod descriptors;
mod diagnostics;
#[path = "../agent/dice.rs"]
mod dice;
mod disk;
mod doctor;
mod doctor_cases;
mod doctor_places;
mod echoes;
mod edges;
mod endings;
mod filter;
#[cfg(target_os = "linux")]
mod folders;
mod gate;
mod heartbeats;
mod hostile;
mod internet;
mod introspection;
mod kills;
mod kubernetes;
mod late_secrets;
mod letters;
mod logs;
mod network;
mod operator;
mod page;
mod poison;
#[path = "../support/raw.rs"]
mod raw;
mod reconcile;
mod refusals;
mod reload;
mod replays;
mod replicas;
mod sealed;
mod secrets;
mod shapes;
mod signals;
mod slow;
mod status;
mod stops;
#[cfg(target_os = "linux")]
mod supervised;
#[path = "../support/mod.rs"]
mod support;
mod times;
mod tls;
mod tokens;
mod truth;
mod twins;
#[cfg(target_os = "linux")]
mod units;
mod unseen;
mod vault;
mod verify;
mod versions;
mod weight;
mod world;
