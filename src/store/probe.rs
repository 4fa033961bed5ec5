//! Proves on the real store what the agent relies on: a refused stale write matters more than an accepted one.
//!
//! `check` tries everything, under names of its own that it deletes. Before anything is posted [`prove_versions`] tries what must be refused,
//! on two documents that stay: it needs no right to delete, and leaves nothing behind that a retention of deleted blobs would keep.

use super::{Expect, Key, Store, StoreError, Version};
use bytes::Bytes;

/// Keys of probes alone: no running agent ever looks there.
pub(super) const PREFIX: &str = "probe/";
const CONTENT: &[u8] = b"opship";
/// No store ever gave a document this version.
const INVENTED: &str = "\"0x8D0000000000000\"";
/// No segment is so long.
const BEYOND: u64 = 1 << 40;
const NO_CREATE: &str = "If-None-Match (a document that exists is created again)";
const NO_MATCH: &str = "If-Match (a write over a version that never was is accepted)";
const NO_POSITION: &str = "the position of an append (an append at a wrong one is accepted)";

/// Proves that stale writes are refused: what keeps two processes, and a process and its own repeated requests, from overwriting each
/// other. Processes that prove it side by side don't disturb each other.
///
/// # Errors
/// [`StoreError::Unfit`] names what the store ignores; any other means that it could not be tried.
pub async fn prove_versions(store: &dyn Store) -> Result<(), StoreError> {
    let (document, segment) = (Key::new(format!("{PREFIX}versions")), Key::new(format!("{PREFIX}segment")));
    let content = || Bytes::from_static(CONTENT);
    let create = || store.put(&document, content(), Expect::Absent);
    if is_accepted(create().await)? && is_accepted(create().await)? {
        return Err(unfit(store, NO_CREATE));
    }
    if is_accepted(store.put(&document, content(), Expect::Is(Version(INVENTED.into()))).await)? {
        return Err(unfit(store, NO_MATCH));
    }
    // It must exist: an append to an absent one is refused in any case.
    is_accepted(store.append(&segment, 0, content()).await)?;
    if is_accepted(store.append(&segment, BEYOND, content()).await)? {
        return Err(unfit(store, NO_POSITION));
    }
    Ok(())
}

/// Refused for its condition, or not.
fn is_accepted<T>(outcome: Result<T, StoreError>) -> Result<bool, StoreError> {
    match outcome {
        Ok(_) => Ok(true),
        Err(StoreError::Conflict { .. } | StoreError::WrongPosition { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn unfit(store: &dyn Store, what: &'static str) -> StoreError {
    StoreError::Unfit { place: store.place(), what }
}

/// Runs the probe and deletes what it wrote, also when it failed.
pub(super) async fn prove(store: &dyn Store) -> Result<String, StoreError> {
    let id = uuid::Uuid::new_v4().simple();
    let key = |ending: &str| Key::new(format!("{PREFIX}{id}.{ending}"));
    let (document, segment) = (key("json"), key("log"));
    let proved = prove_at(store, &document, &segment).await;
    let deleted = store.delete(&document).await.and(store.delete(&segment).await);
    proved?;
    deleted?;
    let left = store.list(PREFIX).await?.into_iter().any(|left| left.key == document || left.key == segment);
    if left {
        return Err(broken(&document, "it still lists what was deleted"));
    }
    let works = "read, write, compare-and-swap, append, list and delete work; stale writes are refused";
    Ok(format!("{}: {works}", store.place()))
}

async fn prove_at(store: &dyn Store, document: &Key, segment: &Key) -> Result<(), StoreError> {
    let first = store.put(document, Bytes::from_static(b"1"), Expect::Absent).await?;
    store.put(document, Bytes::from_static(b"2"), Expect::Is(first.clone())).await?;
    if is_accepted(store.put(document, Bytes::from_static(b"3"), Expect::Absent).await)? {
        return Err(unfit(store, NO_CREATE));
    }
    if is_accepted(store.put(document, Bytes::from_static(b"3"), Expect::Is(first)).await)? {
        return Err(unfit(store, NO_MATCH));
    }
    store.append(segment, 0, Bytes::from_static(b"ab")).await?;
    store.append(segment, 2, Bytes::from_static(b"c")).await?;
    if is_accepted(store.append(segment, 2, Bytes::from_static(b"d")).await)? {
        return Err(unfit(store, NO_POSITION));
    }
    let document_read = store.get(document).await?.map(|object| object.bytes);
    let segment_read = store.read_from(segment, 1).await?;
    let listed = store.list(PREFIX).await?;
    if !listed.iter().any(|found| found.key == *document) {
        return Err(broken(document, "it does not list what was just written"));
    }
    match (document_read.as_deref(), segment_read.as_deref()) {
        (Some(b"2"), Some(b"bc")) => Ok(()),
        _ => Err(broken(document, "it does not return what was just written")),
    }
}

fn broken(on: &Key, what: &'static str) -> StoreError {
    StoreError::Failed { attempted: "probe of", on: on.to_string(), cause: what.into() }
}
