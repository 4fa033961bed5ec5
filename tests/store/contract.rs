//! The contract of [`opship::store::Store`], one function per sentence.

use crate::world::{World, key};
use bytes::Bytes;
use opship::store::{Expect, Key, Store, StoreError, Version};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WRITERS: usize = 8;
const ROUNDS: usize = 5;

async fn put(store: &dyn Store, key: &Key, text: &str, expect: Expect) -> Result<Version, StoreError> {
    store.put(key, Bytes::copy_from_slice(text.as_bytes()), expect).await
}

async fn text_of(store: &dyn Store, key: &Key) -> Option<String> {
    let object = store.get(key).await.expect("get")?;
    Some(String::from_utf8(object.bytes.to_vec()).expect("text"))
}

fn assert_conflict<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    assert!(matches!(outcome, Err(StoreError::Conflict { .. })), "{outcome:?}");
}

fn assert_wrong_position<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    assert!(matches!(outcome, Err(StoreError::WrongPosition { .. })), "{outcome:?}");
}

pub(crate) async fn an_absent_key_reads_as_nothing(world: &World) {
    let store = world.open().await;
    put(&*store, &key("other/document"), "1", Expect::Absent).await.expect("put");
    assert!(store.get(&key("a/b")).await.expect("get").is_none());
    assert!(store.get(&key("other")).await.expect("get").is_none());
    assert!(store.get(&key("other/document/below")).await.expect("get").is_none());
    assert!(store.read_from(&key("a/b"), 0).await.expect("read").is_none());
    assert!(store.read_from(&key("a/b"), 9).await.expect("read").is_none());
    assert!(store.list("a/").await.expect("list").is_empty());
    assert!(!store.cut(&key("a/b"), 2, 1).await.expect("cut"));
}

pub(crate) async fn create_refuses_an_existing_document(world: &World) {
    let store = world.open().await;
    put(&*store, &key("a"), "1", Expect::Absent).await.expect("put");
    assert_conflict(put(&*store, &key("a"), "2", Expect::Absent).await);
    assert_eq!(text_of(&*store, &key("a")).await.as_deref(), Some("1"));
}

pub(crate) async fn a_swap_needs_the_current_version(world: &World) {
    let store = world.open().await;
    let first = put(&*store, &key("a"), "1", Expect::Absent).await.expect("put");
    let second = put(&*store, &key("a"), "2", Expect::Is(first.clone())).await.expect("swap");
    assert_conflict(put(&*store, &key("a"), "3", Expect::Is(first)).await);
    let object = store.get(&key("a")).await.expect("get").expect("present");
    assert_eq!((object.bytes.as_ref(), object.version), (b"2".as_ref(), second.clone()));
    assert_conflict(put(&*store, &key("absent"), "1", Expect::Is(second)).await);
}

pub(crate) async fn anything_overwrites_whatever_is_there(world: &World) {
    let store = world.open().await;
    put(&*store, &key("a"), "1", Expect::Anything).await.expect("put");
    put(&*store, &key("a"), "", Expect::Anything).await.expect("put");
    assert_eq!(text_of(&*store, &key("a")).await.as_deref(), Some(""));
}

/// Fault: eight writers swap one document at once, on files and on a real Azurite. Shows: exactly one wins each round, its text and ETag stand.
pub(crate) async fn fm_24_of_racing_writers_exactly_one_wins_each_round(world: &World) {
    let store = world.open().await;
    let mut version = put(&*store, &key("a"), "start", Expect::Absent).await.expect("put");
    for round in 0..ROUNDS {
        let winners = race(world, &format!("round {round}"), &Expect::Is(version)).await;
        assert_eq!(winners.len(), 1, "round {round}");
        let object = store.get(&key("a")).await.expect("get").expect("present");
        assert_eq!(object.version, winners[0].1);
        assert_eq!(object.bytes, winners[0].0.as_bytes());
        version = object.version;
    }
}

pub(crate) async fn of_racing_creators_exactly_one_wins(world: &World) {
    assert_eq!(race(world, "create", &Expect::Absent).await.len(), 1);
}

/// Every writer tries to put its own text with the same expectation; the texts and versions of those that succeed.
async fn race(world: &World, what: &str, expect: &Expect) -> Vec<(String, Version)> {
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (store, text, expect) = (world.open().await, format!("{what} writer {writer}"), expect.clone());
        tasks.push(tokio::spawn(async move {
            let outcome = put(&*store, &key("a"), &text, expect).await;
            (text, outcome)
        }));
    }
    let mut winners = Vec::new();
    for task in tasks {
        match task.await.expect("task") {
            (text, Ok(version)) => winners.push((text, version)),
            (_, lost) => assert_conflict(lost),
        }
    }
    winners
}

pub(crate) async fn an_append_needs_the_exact_position(world: &World) {
    let store = world.open().await;
    let segment = key("ledger/x");
    assert_wrong_position(store.append(&segment, 3, Bytes::from_static(b"no")).await);
    assert!(store.read_from(&segment, 0).await.expect("read").is_none());
    store.append(&segment, 0, Bytes::from_static(b"abc")).await.expect("append");
    assert_wrong_position(store.append(&segment, 0, Bytes::from_static(b"no")).await);
    assert_wrong_position(store.append(&segment, 2, Bytes::from_static(b"no")).await);
    assert_wrong_position(store.append(&segment, 4, Bytes::from_static(b"no")).await);
    store.append(&segment, 3, Bytes::from_static(b"def")).await.expect("append");
    assert_eq!(store.read_from(&segment, 0).await.expect("read").as_deref(), Some(b"abcdef".as_ref()));
}

pub(crate) async fn concurrent_appenders_lose_and_double_nothing(world: &World) {
    let segment = key("ledger/x");
    let mut tasks = Vec::new();
    for appender in 0..4 {
        let (store, segment) = (world.open().await, segment.clone());
        tasks.push(tokio::spawn(async move {
            for frame in 0..10 {
                append_at_the_end(&*store, &segment, &format!("<{appender}:{frame}>")).await;
            }
        }));
    }
    for task in tasks {
        task.await.expect("task");
    }
    let whole = world.open().await.read_from(&segment, 0).await.expect("read").expect("present");
    let mut frames: Vec<&str> = std::str::from_utf8(&whole).expect("text").split_inclusive('>').collect();
    frames.sort_unstable();
    let mut expected: Vec<String> = (0..4).flat_map(|a| (0..10).map(move |f| format!("<{a}:{f}>"))).collect();
    expected.sort_unstable();
    assert_eq!(frames, expected);
}

/// As the ledger does it: after a wrong position, what stands there decides.
async fn append_at_the_end(store: &dyn Store, segment: &Key, frame: &str) {
    let mut at = 0;
    loop {
        match store.append(segment, at, Bytes::copy_from_slice(frame.as_bytes())).await {
            Ok(()) => return,
            Err(StoreError::WrongPosition { .. }) => {
                let behind = store.read_from(segment, at).await.expect("read").unwrap_or_default();
                if behind.windows(frame.len()).any(|window| window == frame.as_bytes()) {
                    return;
                }
                at += behind.len() as u64;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub(crate) async fn reserving_room_changes_nothing_that_can_be_read(world: &World) {
    let store = world.open().await;
    let segment = key("ledger/x");
    store.reserve(&segment, 0, 8192).await.expect("reserve");
    assert!(store.read_from(&segment, 0).await.expect("read").unwrap_or_default().is_empty());
    store.append(&segment, 0, Bytes::from_static(b"abc")).await.expect("append");
    store.reserve(&segment, 3, 8192).await.expect("reserve");
    assert_eq!(store.read_from(&segment, 0).await.expect("read").as_deref(), Some(b"abc".as_ref()));
    assert_eq!(store.list("ledger/").await.expect("list")[0].len, 3);
    store.append(&segment, 3, Bytes::from_static(b"def")).await.expect("append into the room");
    assert_eq!(store.read_from(&segment, 0).await.expect("read").as_deref(), Some(b"abcdef".as_ref()));
}

pub(crate) async fn reading_starts_at_the_offset(world: &World) {
    let store = world.open().await;
    let segment = key("ledger/x");
    store.append(&segment, 0, Bytes::from_static(b"0123456789")).await.expect("append");
    for (offset, expected) in [(0, "0123456789"), (4, "456789"), (9, "9"), (10, ""), (11, "")] {
        let read = store.read_from(&segment, offset).await.expect("read").expect("present");
        assert_eq!(read, expected.as_bytes(), "from {offset}");
    }
}

pub(crate) async fn a_cut_needs_the_exact_length(world: &World) {
    let store = world.open().await;
    let segment = key("ledger/x");
    store.append(&segment, 0, Bytes::from_static(b"whole torn")).await.expect("append");
    assert!(!store.cut(&segment, 9, 5).await.expect("cut"));
    assert_eq!(store.cut(&segment, 10, 5).await.expect("cut"), world.cuts());
    let left = store.read_from(&segment, 0).await.expect("read").expect("present");
    assert_eq!(left, if world.cuts() { b"whole".as_ref() } else { b"whole torn" });
    store.append(&segment, left.len() as u64, Bytes::from_static(b"!")).await.expect("append behind the cut");
}

pub(crate) async fn a_list_has_the_prefix_and_byte_order(world: &World) {
    let store = world.open().await;
    // The directory `b-` sorts before the children of `b`, and both after the upper case.
    for name in ["p/b/2", "p/b-/1", "p/b/10", "p/B", "p/a.json", "p/b0", "q/x", "p.x"] {
        put(&*store, &key(name), name, Expect::Absent).await.expect("put");
    }
    let names = |listed: Vec<opship::store::Listed>| listed.into_iter().map(|l| l.key.to_string()).collect::<Vec<_>>();
    let all = store.list("p/").await.expect("list");
    assert!(all.iter().all(|listed| listed.len == listed.key.as_str().len() as u64), "{all:?}");
    assert_eq!(names(all), ["p/B", "p/a.json", "p/b-/1", "p/b/10", "p/b/2", "p/b0"]);
    assert_eq!(names(store.list("p/b").await.expect("list")), ["p/b-/1", "p/b/10", "p/b/2", "p/b0"]);
    assert_eq!(names(store.list("p/b/").await.expect("list")), ["p/b/10", "p/b/2"]);
    assert_eq!(names(store.list("").await.expect("list")).len(), 8);
    assert!(store.list("../").await.expect("list").is_empty());
}

pub(crate) async fn delete_is_idempotent(world: &World) {
    let store = world.open().await;
    let version = put(&*store, &key("a/b"), "1", Expect::Absent).await.expect("put");
    store.append(&key("a/c"), 0, Bytes::from_static(b"1")).await.expect("append");
    for _ in 0..2 {
        store.delete(&key("a/b")).await.expect("delete");
        store.delete(&key("a/c")).await.expect("delete");
    }
    assert!(store.list("").await.expect("list").is_empty());
    assert_conflict(put(&*store, &key("a/b"), "2", Expect::Is(version)).await);
    assert_wrong_position(store.append(&key("a/c"), 1, Bytes::from_static(b"2")).await);
    put(&*store, &key("a/b"), "2", Expect::Absent).await.expect("put again");
}

pub(crate) async fn every_legal_character_makes_a_key(world: &World) {
    let store = world.open().await;
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ/abcdefghijklmnopqrstuvwxyz/0123456789._-";
    for name in [letters, "...", ".hidden/-dash", "a..b", "checkpoints/default/auditevents.json"] {
        put(&*store, &key(name), name, Expect::Absent).await.expect("put");
        assert_eq!(text_of(&*store, &key(name)).await.as_deref(), Some(name));
        assert_eq!(store.list(name).await.expect("list")[0].key, key(name));
    }
}

pub(crate) async fn a_document_of_a_megabyte_survives(world: &World) {
    let store = world.open().await;
    let bytes: Bytes = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let version = store.put(&key("big"), bytes.clone(), Expect::Absent).await.expect("put");
    let object = store.get(&key("big")).await.expect("get").expect("present");
    assert!(object.bytes == bytes && object.version == version);
    store.append(&key("segment"), 0, bytes.clone()).await.expect("append");
    assert!(store.read_from(&key("segment"), 1).await.expect("read").expect("present") == bytes.slice(1..));
}

pub(crate) async fn age_grows(world: &World) {
    let store = world.open().await;
    put(&*store, &key("a"), "1", Expect::Absent).await.expect("put");
    let age = |store: Arc<dyn Store>| async move {
        let object = store.get(&key("a")).await.expect("get").expect("present");
        object.age.expect("it tells the time")
    };
    let first = age(Arc::clone(&store)).await;
    assert!(first < Duration::from_secs(30), "{first:?}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while age(Arc::clone(&store)).await < first + Duration::from_secs(1) {
        assert!(Instant::now() < deadline, "the age does not grow");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(store.list("").await.expect("list")[0].age >= Duration::from_secs(1));
    put(&*store, &key("a"), "2", Expect::Anything).await.expect("put");
    assert!(age(Arc::clone(&store)).await < Duration::from_secs(5));
}

pub(crate) async fn the_probe_proves_and_leaves_nothing(world: &World) {
    let store = world.open().await;
    let proof = store.probe().await.expect("probe");
    assert!(proof.starts_with(&store.place()), "{proof}");
    assert!(store.list("").await.expect("list").is_empty());
}

/// Fault: two processes prove side by side, again and again, that versions are honoured. Shows: neither disturbs the other, two documents stay, and no more are made.
pub(crate) async fn fm_56_the_proof_of_versions_is_repeatable_and_disturbs_nobody(world: &World) {
    let prove = async || {
        for _ in 0..3 {
            opship::store::prove_versions(&*world.open().await).await.expect("proof");
        }
    };
    tokio::join!(prove(), prove());
    let names: Vec<_> = world.open().await.list("").await.expect("list");
    let names: Vec<_> = names.iter().map(|listed| (listed.key.as_str(), listed.len)).collect();
    assert_eq!(names, [("probe/segment", 6), ("probe/versions", 6)]);
    world.open().await.probe().await.expect("the probe of `check` beside it");
    assert_eq!(world.open().await.list("").await.expect("list").len(), 2);
}
