//! What must hold for any bytes: one file per reader, shared by the fuzz targets and by `tests/fuzz_corpus.rs`.

pub mod checkpoint;
pub mod claims;
pub mod config;
pub mod decode;
pub mod error_body;
pub mod json;
pub mod ledger;
pub mod map;
pub mod memory;
pub mod pack;
pub mod retry_after;
pub mod timestamp;
