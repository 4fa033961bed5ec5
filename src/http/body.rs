//! The body of an answer, with caps on its length and on how many long ones there are at a time.

use super::{BODY_BYTES_MAX, one_line};
use crate::flow::retry::Failure;
use bytes::Bytes;
use reqwest::header::CONTENT_ENCODING;
use std::io::Read as _;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A body up to this length waits for nobody.
pub const SMALL_BYTES: usize = 4 * 1024 * 1024;
/// Longer ones are let in one at a time, in the whole process, each up to its cap: what is made of it needs as much again. It counts until
/// its last byte is dropped.
static LONG: Semaphore = Semaphore::const_new(1);

/// A long body, and its leave to be one.
struct Long {
    body: Vec<u8>,
    _leave: SemaphorePermit<'static>,
}

impl AsRef<[u8]> for Long {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

fn kept(body: Vec<u8>, leave: Option<SemaphorePermit<'static>>) -> Bytes {
    match leave {
        Some(leave) => Bytes::from_owner(Long { body, _leave: leave }),
        None => body.into(),
    }
}

/// Leave for a long body: a page of events, or what a table shows. A feed that has one asks for no other page, and a wait for it ends with
/// the deadline of its request at the latest.
async fn leave_for(max: usize, turn: Turn) -> Result<Option<SemaphorePermit<'static>>, Failure> {
    if max < BODY_BYTES_MAX {
        return Ok(None);
    }
    match turn {
        Turn::Awaited => LONG.acquire().await.map(Some).map_err(|_| Failure::Interrupted),
        Turn::NowOrNever => LONG.try_acquire().map(Some).map_err(|_| Failure::Interrupted),
    }
}

/// Whether a long body waits until there is room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Awaited,
    /// Whoever has a body in hand waits for no room, or two could wait for each other: [`Failure::Interrupted`] where there is none.
    NowOrNever,
}

/// Reads an answer to its end, decompressed, up to `max` bytes.
///
/// # Errors
/// [`Failure::TooLarge`] beyond `max`; [`Failure::Interrupted`] when the body breaks off; [`Failure::Malformed`] in an encoding other
/// than gzip.
pub async fn read_body(response: reqwest::Response, max: usize) -> Result<Bytes, Failure> {
    read_body_in_turn(response, max, Turn::Awaited).await
}

/// The same.
///
/// # Errors
/// As [`read_body`]; and without room, where it is not waited for.
pub async fn read_body_in_turn(response: reqwest::Response, max: usize, turn: Turn) -> Result<Bytes, Failure> {
    // What the client has decoded itself has lost this header: it knows gzip in lower case alone.
    let encoding = response.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    let (body, leave) = read_as_it_is(response, max, turn).await?;
    match encoding.as_deref().map(<[u8]>::trim_ascii) {
        None | Some(b"" | b"identity") => Ok(kept(body, leave)),
        Some(b"gzip" | b"x-gzip") => inflate(body, leave, (max, turn)).await,
        Some(other) => {
            let name = one_line(&String::from_utf8_lossy(other.get(..other.len().min(40)).unwrap_or_default()));
            Err(Failure::Malformed(format!("it is encoded as {name}, which was not asked for")))
        }
    }
}

async fn inflate(
    body: Vec<u8>,
    leave: Option<SemaphorePermit<'static>>,
    (max, turn): (usize, Turn),
) -> Result<Bytes, Failure> {
    let body = Bytes::from(body);
    let attempt = |max: usize| {
        let body = body.clone();
        async move {
            let inflated = tokio::task::spawn_blocking(move || inflated(&body, max)).await;
            inflated.unwrap_or(Err(Failure::Interrupted))
        }
    };
    if leave.is_some() || max <= SMALL_BYTES {
        return attempt(max).await.map(|inflated| kept(inflated, leave));
    }
    match attempt(SMALL_BYTES).await {
        Err(Failure::TooLarge) => {
            let leave = leave_for(max, turn).await?;
            attempt(max).await.map(|inflated| kept(inflated, leave))
        }
        small => small.map(|inflated| kept(inflated, None)),
    }
}

fn inflated(body: &[u8], max: usize) -> Result<Vec<u8>, Failure> {
    let mut inflated = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(body).take(max as u64 + 1).read_to_end(&mut inflated);
    match read {
        Ok(length) if length > max => Err(Failure::TooLarge),
        Ok(_) => Ok(inflated),
        Err(_) => Err(Failure::Malformed("it calls itself gzip and is not".into())),
    }
}

async fn read_as_it_is(
    mut response: reqwest::Response,
    max: usize,
    turn: Turn,
) -> Result<(Vec<u8>, Option<SemaphorePermit<'static>>), Failure> {
    let expected = response.content_length().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    if expected > max {
        return Err(Failure::TooLarge);
    }
    let (mut body, mut leave) = (Vec::with_capacity(expected.min(SMALL_BYTES)), None);
    while let Some(chunk) = response.chunk().await.map_err(|_| Failure::Interrupted)? {
        if body.len() + chunk.len() > max {
            return Err(Failure::TooLarge);
        }
        if leave.is_none() && body.len() + chunk.len() > SMALL_BYTES {
            leave = leave_for(max, turn).await?;
            body.reserve_exact(expected.saturating_sub(body.len()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, leave))
}
