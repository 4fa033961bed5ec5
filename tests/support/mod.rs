//! Outside worlds for the integration tests. Not every test uses every part.
#![allow(dead_code, unreachable_pub, reason = "each test binary compiles its own copy and uses a part of it")]

pub mod azurite;
pub mod broken_transport;
