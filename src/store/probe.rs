//! Proves on the real store what the agent relies on: a refused stale write matters more than an accepted one.

use super::{Expect, Key, Store, StoreError};
use bytes::Bytes;

/// Keys of probes alone: no running agent ever looks there.
pub(super) const PREFIX: &str = "probe/";

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
        return Err(unfit(&document, "it still lists what was deleted"));
    }
    let works = "read, write, compare-and-swap, append, list and delete work; stale writes are refused";
    Ok(format!("{}: {works}", store.place()))
}

async fn prove_at(store: &dyn Store, document: &Key, segment: &Key) -> Result<(), StoreError> {
    let first = store.put(document, Bytes::from_static(b"1"), Expect::Absent).await?;
    store.put(document, Bytes::from_static(b"2"), Expect::Is(first.clone())).await?;
    let stale = store.put(document, Bytes::from_static(b"3"), Expect::Is(first)).await;
    refused(stale.map(drop), document, "it accepts stale writes: two agents would overwrite each other")?;
    store.append(segment, 0, Bytes::from_static(b"ab")).await?;
    store.append(segment, 2, Bytes::from_static(b"c")).await?;
    let misplaced = store.append(segment, 2, Bytes::from_static(b"d")).await;
    refused(misplaced, segment, "it accepts appends at a wrong position")?;
    let document_read = store.get(document).await?.map(|object| object.bytes);
    let segment_read = store.read_from(segment, 1).await?;
    let listed = store.list(PREFIX).await?;
    if !listed.iter().any(|found| found.key == *document) {
        return Err(unfit(document, "it does not list what was just written"));
    }
    match (document_read.as_deref(), segment_read.as_deref()) {
        (Some(b"2"), Some(b"bc")) => Ok(()),
        _ => Err(unfit(document, "it does not return what was just written")),
    }
}

fn refused(outcome: Result<(), StoreError>, on: &Key, otherwise: &'static str) -> Result<(), StoreError> {
    match outcome {
        Err(StoreError::Conflict { .. } | StoreError::WrongPosition { .. }) => Ok(()),
        Ok(()) => Err(unfit(on, otherwise)),
        Err(error) => Err(error),
    }
}

fn unfit(on: &Key, what: &'static str) -> StoreError {
    StoreError::Failed { attempted: "probe of", on: on.to_string(), cause: what.into() }
}
