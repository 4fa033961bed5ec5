//! The agent against an outside world in memory: every delicate path of reading, delivery, recovery and shutdown.
#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on has failed")]

mod again;
mod backfill;
mod crashes;
mod cursor;
mod damage;
mod delivery;
mod dice;
mod doubts;
mod faults;
mod figures;
mod health;
mod letters;
mod link;
mod log;
mod loops;
mod oracle;
mod planted;
mod points;
mod recovery;
mod repair;
mod replicas;
mod scenes;
mod seeds;
mod shapes;
mod sink;
mod source;
mod stop;
mod storage;
mod store;
mod sweeps;
mod ticks;
mod twins;
mod verify;
mod weather;
mod world;
