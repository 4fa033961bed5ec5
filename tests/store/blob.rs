//! What only the blob store must withstand: lost replies, refused access, broken answers.

use crate::support::azurite::Azurite;
use crate::support::broken_transport::{BrokenTransport, Fault};
use crate::world::{World, azurite, fresh_container, http, key, open_blob};
use azure_core::http::Method;
use bytes::Bytes;
use opship::config::{ContainerUrl, Http};
use opship::store::azure_blob::AzureBlobStore;
use opship::store::{Expect, Holder, Store, StoreError};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use url::Url;

const ROLE: &str = "Storage Blob Data Contributor";

/// A store whose transport misbehaves, and the transport.
async fn broken(
    fault: Fault,
    method: Method,
    url_has: &'static str,
    times: usize,
) -> (AzureBlobStore, Arc<BrokenTransport>) {
    let url = azurite().await.container_sas_url(&fresh_container());
    open_blob(&url).await.expect("create the container");
    let transport = Arc::new(BrokenTransport::new(http(), fault, method, url_has, times));
    let store = AzureBlobStore::open_over(&ContainerUrl(url), None, transport.clone()).await.expect("open");
    (store, transport)
}

/// A healthy store on the same container.
async fn beside(store: &AzureBlobStore) -> AzureBlobStore {
    let place = store.place();
    let name = place.rsplit('/').next().expect("container name");
    open_blob(&azurite().await.container_sas_url(name)).await.expect("open")
}

/// Everything that can be printed of an error.
fn whole_text(error: &StoreError) -> String {
    let mut text = format!("{error:?} {error:#?}");
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}

fn sig_of(url: &Url) -> [String; 2] {
    let sig = url.query_pairs().find(|(name, _)| name == "sig").expect("sig").1.into_owned();
    let encoded: String = url::form_urlencoded::byte_serialize(sig.as_bytes()).collect();
    [sig, encoded]
}

fn assert_refused_without_sas(outcome: Result<AzureBlobStore, StoreError>, url: &Url, remedy_has: &str) {
    let error = outcome.expect_err("refused");
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
    let text = whole_text(&error);
    assert!(text.contains(ROLE) && text.contains(remedy_has), "{text}");
    assert_no_sas(&text, url);
}

fn assert_no_sas(text: &str, url: &Url) {
    for sig in sig_of(url) {
        assert!(!text.contains(&sig), "{text}");
    }
}

#[tokio::test]
async fn a_lost_reply_to_a_create_is_a_conflict_with_our_own_document() {
    let (store, transport) = broken(Fault::LoseReply, Method::Put, "document", 1).await;
    let outcome = store.put(&key("document"), Bytes::from_static(b"ours"), Expect::Absent).await;
    assert!(transport.is_spent() && matches!(outcome, Err(StoreError::Conflict { .. })), "{outcome:?}");
    assert_eq!(store.get(&key("document")).await.expect("get").expect("present").bytes, "ours");
}

#[tokio::test]
async fn a_lost_reply_to_a_swap_is_a_conflict_with_our_own_document() {
    let (store, transport) = broken(Fault::LoseReply, Method::Put, "swapped", 1).await;
    let version =
        beside(&store).await.put(&key("swapped"), Bytes::from_static(b"before"), Expect::Absent).await.expect("put");
    let outcome = store.put(&key("swapped"), Bytes::from_static(b"ours"), Expect::Is(version)).await;
    assert!(transport.is_spent() && matches!(outcome, Err(StoreError::Conflict { .. })), "{outcome:?}");
    assert_eq!(store.get(&key("swapped")).await.expect("get").expect("present").bytes, "ours");
}

#[tokio::test]
async fn a_lost_reply_to_an_append_doubles_no_block() {
    for before in ["", "before"] {
        let (store, transport) = broken(Fault::LoseReply, Method::Put, "comp=appendblock", 1).await;
        if !before.is_empty() {
            beside(&store).await.append(&key("segment"), 0, before.into()).await.expect("append");
        }
        let outcome = store.append(&key("segment"), before.len() as u64, Bytes::from_static(b"ours")).await;
        assert!(transport.is_spent() && matches!(outcome, Err(StoreError::WrongPosition { .. })), "{outcome:?}");
        let whole = store.read_from(&key("segment"), 0).await.expect("read").expect("present");
        assert_eq!(whole, format!("{before}ours"));
    }
}

#[tokio::test]
async fn a_lost_reply_to_the_creation_of_a_segment_goes_unnoticed() {
    let (store, transport) = broken(Fault::LoseReply, Method::Put, "segment", 1).await;
    store.append(&key("segment"), 0, Bytes::from_static(b"one")).await.expect("append");
    assert!(transport.is_spent());
    assert_eq!(store.read_from(&key("segment"), 0).await.expect("read").as_deref(), Some(b"one".as_ref()));
}

#[tokio::test]
async fn a_document_that_breaks_off_is_read_again() {
    let (store, transport) = broken(Fault::BreakBody, Method::Get, "document", 1).await;
    store.put(&key("document"), Bytes::from_static(b"whole"), Expect::Absent).await.expect("put");
    assert_eq!(store.get(&key("document")).await.expect("get").expect("present").bytes, "whole");
    assert!(transport.is_spent());
}

#[tokio::test]
async fn transient_errors_are_retried_and_lasting_ones_returned() {
    let (store, _) = broken(Fault::Answer(503, "ServerBusy"), Method::Get, "document", 2).await;
    assert!(store.get(&key("document")).await.expect("get").is_none());
    let (store, _) = broken(Fault::Answer(500, "InternalError"), Method::Get, "document", usize::MAX).await;
    let error = store.get(&key("document")).await.expect_err("no answer");
    assert!(matches!(error, StoreError::Failed { .. }) && whole_text(&error).contains("InternalError"), "{error:?}");
}

#[tokio::test]
async fn only_the_word_of_the_storage_service_makes_a_blob_absent() {
    for code in ["", "ContainerNotFound", "ResourceNotFound"] {
        let (store, _) = broken(Fault::Answer(404, code), Method::Get, "document", 1).await;
        let outcome = store.get(&key("document")).await;
        assert!(matches!(outcome, Err(StoreError::Failed { .. })), "{code}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_segment_at_its_block_limit_is_full() {
    let (store, _) = broken(Fault::Answer(409, "BlockCountExceedsLimit"), Method::Put, "comp=appendblock", 1).await;
    let outcome = store.append(&key("segment"), 0, Bytes::from_static(b"one")).await;
    assert!(matches!(outcome, Err(StoreError::Full { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_segment_deleted_in_between_has_a_wrong_position() {
    let (store, _) = broken(Fault::Answer(404, "BlobNotFound"), Method::Put, "comp=appendblock", 1).await;
    let outcome = store.append(&key("segment"), 0, Bytes::from_static(b"one")).await;
    assert!(matches!(outcome, Err(StoreError::WrongPosition { at: 0, .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_list_of_many_pages_is_whole() {
    let (store, transport) = broken(Fault::SmallPages, Method::Get, "prefix=many", 4).await;
    for n in 0..7 {
        store.put(&key(&format!("many/{n}")), Bytes::new(), Expect::Absent).await.expect("put");
    }
    let names: Vec<_> = store.list("many/").await.expect("list").into_iter().map(|l| l.key.to_string()).collect();
    assert_eq!(names, (0..7).map(|n| format!("many/{n}")).collect::<Vec<_>>());
    assert!(transport.is_spent(), "7 names are 4 pages of 2");
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up_within_thirty_seconds() {
    let (store, _) = broken(Fault::Hang, Method::Get, "document", usize::MAX).await;
    // From here on only timers run, and they need no waiting.
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    let outcome = store.get(&key("document")).await;
    assert!(matches!(outcome, Err(StoreError::Failed { .. })), "{outcome:?}");
    assert!(started.elapsed() <= Duration::from_secs(31), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_missing_container_is_created_where_the_sas_allows_it() {
    let azurite = azurite().await;
    let name = fresh_container();
    let limited = azurite.container_service_sas_url(&name, "racwdl", "2099-01-01T00:00:00Z");
    assert_refused_without_sas(open_blob(&limited).await, &limited, "does not exist");
    open_blob(&azurite.container_sas_url(&name)).await.expect("create");
    let store = open_blob(&limited).await.expect("open what exists");
    store.probe().await.expect("probe");
    assert_eq!(store.place(), azurite.container_url(&name).to_string());
}

#[tokio::test]
async fn a_slash_at_the_end_of_the_container_url_changes_nothing() {
    let mut url = azurite().await.container_sas_url(&fresh_container());
    let plain = open_blob(&url).await.expect("open");
    url.set_path(&format!("{}/", url.path()));
    let slashed = open_blob(&url).await.expect("open");
    slashed.put(&key("a/b"), Bytes::from_static(b"1"), Expect::Absent).await.expect("put");
    assert_eq!(plain.list("a").await.expect("list")[0].key, key("a/b"));
    assert_eq!(plain.place(), slashed.place());
}

#[tokio::test]
async fn a_wrong_or_expired_sas_is_refused_and_never_shown() {
    let azurite = azurite().await;
    let name = fresh_container();
    open_blob(&azurite.container_sas_url(&name)).await.expect("create");
    let expired = azurite.container_service_sas_url(&name, "racwdl", "2024-01-01T00:00:00Z");
    assert_refused_without_sas(open_blob(&expired).await, &expired, "expired at 2024-01-01");
    let wrong: Url = expired.as_str().replace("2024-", "2098-").parse().expect("url");
    assert_refused_without_sas(open_blob(&wrong).await, &wrong, "the SAS is wrong");
}

#[tokio::test]
async fn a_sas_without_write_permission_is_refused_at_the_write() {
    let name = fresh_container();
    open_blob(&azurite().await.container_sas_url(&name)).await.expect("create");
    let reader = azurite().await.container_service_sas_url(&name, "rl", "2099-01-01T00:00:00Z");
    let store = open_blob(&reader).await.expect("open");
    let error = store.probe().await.expect_err("refused");
    assert!(matches!(error, StoreError::Refused { .. }) && error.to_string().contains("sp=racwdl"), "{error:?}");
    assert_no_sas(&whole_text(&error), &reader);
}

#[tokio::test]
async fn an_unreachable_server_shows_no_sas_in_error_debug_or_log() {
    // Which call sites log is decided once per process, by whichever test comes first: only a process of its own logs all.
    if std::env::var_os("OPSHIP_TEST_ALONE").is_none() {
        return run_alone("blob::an_unreachable_server_shows_no_sas_in_error_debug_or_log");
    }
    let logged = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&logged);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || Log(Arc::clone(&sink)))
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let url = azurite().await.container_sas_url(&fresh_container());
    let store = open_blob(&url).await.expect("open");
    store.probe().await.expect("probe");
    let closed: Url = url.as_str().replace(&format!(":{}", url.port().expect("port")), ":1").parse().expect("url");
    let error = open_blob(&closed).await.expect_err("unreachable");
    drop(guard);
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    assert_no_sas(&format!("{} {store:?} {}", whole_text(&error), store.place()), &url);
    let log = String::from_utf8(logged.lock().expect("lock").clone()).expect("text");
    assert!(log.contains("sig=REDACTED"), "the SDK logged nothing: {log}");
    assert_no_sas(&log, &url);
}

fn run_alone(test: &str) {
    let mut child = std::process::Command::new(std::env::current_exe().expect("path of this test"));
    let output = child.args([test, "--exact", "--nocapture"]).env("OPSHIP_TEST_ALONE", "1").output().expect("run");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_credential_works_over_https() {
    let azurite = Azurite::start_tls_oauth().await;
    let http = opship::http::client(&Http { ca_file: Some(azurite.ca_file()), ..Http::default() }).expect("client");
    let container = ContainerUrl(azurite.container_url(&fresh_container()));
    let store = AzureBlobStore::open(&container, Some(Azurite::credential()), http).await.expect("open");
    store.probe().await.expect("probe");
}

#[tokio::test]
async fn plain_http_is_for_a_sas_on_loopback_only() {
    let open = |url: &str, credential: bool| {
        let container = ContainerUrl(url.parse().expect("url"));
        async move { AzureBlobStore::open(&container, credential.then(Azurite::credential), http()).await }
    };
    for (url, credential) in [
        ("http://storage.example/c?sv=1&sig=x", false),
        ("http://127.0.0.1:1/account/c", true),
        ("https://account.blob.core.windows.net/c", false),
        ("ftp://account.blob.core.windows.net/c?sig=x", false),
    ] {
        let outcome = open(url, credential).await;
        assert!(matches!(outcome, Err(StoreError::Refused { .. })), "{url}: {outcome:?}");
    }
}

#[tokio::test]
async fn foreign_blobs_in_the_container_are_not_listed() {
    let World::Blob(url) = World::blob().await else { panic!("a blob world") };
    let store = open_blob(&url).await.expect("open");
    store.put(&key("ours"), Bytes::new(), Expect::Absent).await.expect("put");
    let container = azure_storage_blob::BlobContainerClient::new(
        url.clone(),
        None,
        Some(azure_storage_blob::BlobContainerClientOptions {
            client_options: azure_core::http::ClientOptions {
                transport: Some(azure_core::http::Transport::new(Arc::new(http()))),
                ..Default::default()
            },
            ..Default::default()
        }),
    );
    let foreign = container.expect("client").blob_client("a person's notes & more.txt");
    foreign.upload(Bytes::from_static(b"x").into(), None).await.expect("upload");
    assert_eq!(store.list("").await.expect("list").len(), 1);
}

#[tokio::test]
async fn the_container_cannot_tell_who_lives() {
    let store = World::blob().await.open().await;
    store.announce("owner").await.expect("announce");
    assert_eq!(store.holder("owner").await.expect("holder"), Holder::Unknown);
}
