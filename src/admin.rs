//! What an operator sees: health, metrics, the status page. Reads the agent's board; changes nothing.

pub mod page;
pub mod status;
