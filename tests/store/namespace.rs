//! Storage with a hierarchical namespace: its listings have directories among the blobs.

use crate::world::{azurite, fresh_container, http, key, open_blob};
use azure_core::http::{AsyncRawResponse, HttpClient, Request};
use bytes::Bytes;
use opship::config::ContainerUrl;
use opship::flow::{AccountName, EventId, EventKey, FeedId, Hour, Stream};
use opship::store::azure_blob::AzureBlobStore;
use opship::store::backfills::{Backfills, Span};
use opship::store::dead_letters::DeadLetters;
use opship::store::ledger::Ledger;
use opship::store::{Expect, Store};
use std::sync::Arc;

/// A way to a real service that shows these directories in each listing whose prefix they fit.
#[derive(Debug)]
struct Namespace {
    http: reqwest::Client,
    /// What marks an entry as a directory.
    mark: &'static str,
}

const DIRECTORIES: [&str; 12] = [
    "backfill",
    "backfill/default",
    "backfill/default/itemusages",
    "checkpoints",
    "checkpoints/default",
    "dead-letters",
    "dead-letters/default",
    "dead-letters/default/itemusages",
    "ledger",
    "ledger/default",
    "ledger/default/itemusages",
    "ledger/default/itemusages/sink",
];
/// The service's word, an older client's, and none at all: then only its place tells.
const MARKS: [&str; 3] = ["<ResourceType>directory</ResourceType>", "hdi_isfolder", ""];

impl Namespace {
    fn entry(&self, name: &str) -> String {
        let (inside, behind) = match self.mark {
            "hdi_isfolder" => ("", "<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata>"),
            mark => (mark, ""),
        };
        format!(
            "<Blob><Name>{name}</Name><Properties><Last-Modified>Sun, 22 Nov 2026 10:00:00 GMT</Last-Modified><Etag>0x1</Etag>\
             <Content-Length>0</Content-Length>{inside}</Properties>{behind}</Blob>"
        )
    }
}

#[async_trait::async_trait]
impl HttpClient for Namespace {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let answer = self.http.execute_request(request).await?;
        if !request.url().query_pairs().any(|(name, value)| name == "comp" && value == "list") {
            return Ok(answer);
        }
        let prefix = request.url().query_pairs().find(|(name, _)| name == "prefix");
        let prefix = prefix.map(|(_, prefix)| prefix.into_owned()).unwrap_or_default();
        let (status, headers, body) = answer.deconstruct();
        let body = String::from_utf8(body.collect().await?.to_vec()).expect("XML");
        let more: String =
            DIRECTORIES.iter().filter(|name| name.starts_with(&prefix)).map(|name| self.entry(name)).collect();
        let body = body.replacen("<Blobs/>", "<Blobs></Blobs>", 1).replacen("<Blobs>", &format!("<Blobs>{more}"), 1);
        Ok(AsyncRawResponse::from_bytes(status, headers, body))
    }
}

fn feed() -> FeedId {
    FeedId { account: AccountName::parse("default").expect("a name"), stream: Stream::ItemUsages }
}

async fn store(mark: &'static str) -> Arc<dyn Store> {
    let url = azurite().await.container_sas_url(&fresh_container());
    open_blob(&url).await.expect("create the container");
    let namespace = Arc::new(Namespace { http: http(), mark });
    Arc::new(AzureBlobStore::open_over(&ContainerUrl(url), None, namespace).await.expect("open"))
}

/// Fault: the storage account has a hierarchical namespace, with empty and full directories. Shows: a directory is no letter, no segment, no backfill and no document, however it is marked.
#[tokio::test]
async fn fm_57_directories_of_a_hierarchical_namespace_are_no_documents() {
    for mark in MARKS {
        let store = store(mark).await;
        let letters = DeadLetters::new(store.clone());
        // Nothing but empty directories.
        assert_eq!(letters.entries().await.expect("entries").len(), 0, "{mark}");
        let (from, to) =
            ("2026-11-22T10:00:00Z".parse().expect("a time"), "2026-11-22T11:00:00Z".parse().expect("a time"));
        let span = Span { from, to, asked: "a to b".into(), is_relative: false };
        let fingerprints = opship::flow::checkpoint::Fingerprints::new("source", None, "sink");
        let found = Backfills::new(store.clone()).find(&feed(), &span, &fingerprints).await.expect("find");
        assert!(found.is_none(), "{mark}");

        let event = EventKey { hour: Hour::of(Some(from)), id: EventId([7; 16]) };
        letters.keep(&feed(), &event, "too large", "{}", from).await.expect("keep");
        let mut ledger = Ledger::new(store.clone(), &feed(), "sink");
        ledger.append([1; 16], 1, &[event]).await.expect("append");
        store
            .put(&key("checkpoints/default/itemusages.json"), Bytes::from_static(b"{}"), Expect::Absent)
            .await
            .expect("put");

        assert_eq!(letters.entries().await.expect("entries").len(), 1, "{mark}");
        assert_eq!(letters.count(&feed()).await.expect("count"), 1, "{mark}");
        let mut fresh = Ledger::new(store.clone(), &feed(), "sink");
        fresh.load([event].into_iter()).await.expect("load");
        assert_eq!((fresh.attempt(&event), fresh.size().0), (Some(1), 1), "{mark}");
        let listed = store.list("").await.expect("list");
        let of_nothing: Vec<_> = listed.iter().filter(|entry| entry.len == 0).map(|entry| entry.key.as_str()).collect();
        // Without a word of the service an empty directory looks like an empty document.
        let left: &[&str] = if mark.is_empty() { &["backfill/default/itemusages"] } else { &[] };
        assert_eq!(of_nothing, left, "{mark}");
    }
}
