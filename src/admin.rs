//! What an operator sees: health, metrics, the status page. Reads the agent's board; changes nothing.

mod accepts;
mod access;
mod feed;
pub mod from_board;
mod from_store;
pub mod metrics;
mod page;
mod patient;
mod places;
mod process;
pub mod proof;
mod routes;
mod server;
pub mod status;

pub use access::{Access, Lock};
pub use from_board::public_summary;
pub use from_store::{Asked, status_of_store};
pub use routes::Pages;
pub use server::{Admin, start};
