//! Room for answers: how much of what others send may be in memory at once, over all feeds of the process.

use crate::http::BODY_BYTES_MAX;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// An answer up to this size never waits for room.
pub const SMALL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Answers of up to [`BODY_BYTES_MAX`] that may be held at once.
const LARGE_AT_ONCE: usize = 1;

static LARGE: Semaphore = Semaphore::const_new(LARGE_AT_ONCE);

/// Leave to hold one large answer; given back when the answer is dropped.
#[derive(Clone, Debug)]
pub struct Room(#[allow(dead_code, reason = "held, not looked at")] Arc<SemaphorePermit<'static>>);

impl Room {
    /// Waits until no other feed holds a large answer. Whoever holds one must not wait here: see [`Room::at_once`].
    pub async fn wait() -> Option<Self> {
        // Never closed.
        LARGE.acquire().await.ok().map(|permit| Self(Arc::new(permit)))
    }

    /// Only what is free at this moment.
    pub fn at_once() -> Option<Self> {
        LARGE.try_acquire().ok().map(|permit| Self(Arc::new(permit)))
    }

    /// The largest answer that may be read.
    pub const fn bytes_max(room: Option<&Self>) -> usize {
        if room.is_some() { BODY_BYTES_MAX } else { SMALL_BYTES_MAX }
    }
}
