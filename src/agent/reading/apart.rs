//! Work that takes long is done where it holds up nobody else.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Bytes that are worked through in a few milliseconds.
const QUICK_BYTES: usize = 1024 * 1024;

/// Does work over so many bytes: where it may take long, the other tasks of this thread go on elsewhere meanwhile.
pub(crate) fn apart<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let has_threads =
        || Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes > QUICK_BYTES && has_threads() { tokio::task::block_in_place(work) } else { work() }
}
