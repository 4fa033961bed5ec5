//! The store in a container of Azure Blob Storage: block blobs for documents, append blobs for segments.

pub use super::azure_fault::Sas;

use super::azure_fault::{Access, Fault, Scrubbed, header, http_date};
use super::azure_list::{Page, without_directories};
use super::azure_try::client_options;
use super::{Expect, Holder, Key, Listed, Object, Store, StoreError, Version, probe};
use crate::config::ContainerUrl;
use crate::flow::Time;
use crate::http::BODY_BYTES_MAX;
use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::http::{Etag, HttpClient, Url};
use azure_core::xml;
use azure_storage_blob::models::{
    AppendBlobClientAppendBlockOptions, AppendBlobClientCreateOptions, BlobClientDeleteOptions,
    BlobClientDownloadOptions, BlobContainerClientListBlobsOptions, BlockBlobClientUploadOptions,
    DeleteSnapshotsOptionType, HttpRange,
};
use azure_storage_blob::{BlobClient, BlobContainerClient, BlobContainerClientOptions};
use bytes::Bytes;
use futures_util::TryStreamExt;
use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

/// Deadline of one operation, retries and reading the answer included.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Most pages of one listing: a million names at Azure's 5,000 a page.
const LIST_PAGES_MAX: usize = 200;
/// How often a read is tried whose answer breaks off in the middle: the SDK repeats only what fails before the body.
const READS_MAX: usize = 2;

/// A container as a [`Store`].
pub struct AzureBlobStore {
    container: BlobContainerClient,
    access: Access,
}

impl fmt::Debug for AzureBlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureBlobStore").field("access", &self.access).finish_non_exhaustive()
    }
}

impl AzureBlobStore {
    /// Opens the container and creates it when it is missing. A SAS in the URL is used instead of the credential.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when neither gives access, [`StoreError::Failed`] for everything else.
    pub async fn open(
        container: &ContainerUrl,
        credential: Option<Arc<dyn TokenCredential>>,
        http: reqwest::Client,
    ) -> Result<Self, StoreError> {
        Self::open_over(container, credential, Arc::new(http)).await
    }

    /// [`Self::open`] over another transport: tests lose replies there.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_over(
        container: &ContainerUrl,
        credential: Option<Arc<dyn TokenCredential>>,
        http: Arc<dyn HttpClient>,
    ) -> Result<Self, StoreError> {
        let store = Self::at(container, credential, http)?;
        store.bounded("open of", "", store.ensure_container()).await?;
        Ok(store)
    }

    /// Opens the container if it is there, and changes nothing: `None` when it is missing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn look(
        container: &ContainerUrl,
        credential: Option<Arc<dyn TokenCredential>>,
        http: reqwest::Client,
    ) -> Result<Option<Self>, StoreError> {
        let store = Self::at(container, credential, Arc::new(http))?;
        let looked = async {
            match store.list_page_of_one().await {
                Err(fault) if fault.is(404, "ContainerNotFound") => Ok(false),
                outcome => outcome.map(|()| true),
            }
        };
        let is_there = store.bounded("open of", "", looked).await?;
        Ok(is_there.then_some(store))
    }

    fn at(
        container: &ContainerUrl,
        credential: Option<Arc<dyn TokenCredential>>,
        http: Arc<dyn HttpClient>,
    ) -> Result<Self, StoreError> {
        let container = &without_trailing_slash(container);
        let access = Access::to(container);
        let refuse = |remedy: &str| StoreError::Refused {
            attempted: "open of",
            on: container.without_sas(),
            remedy: remedy.to_owned(),
            cause: None,
        };
        let credential = if container.has_sas() { None } else { credential };
        match (credential.is_some() || container.has_sas(), is_loopback(&container.0), container.0.scheme()) {
            (false, _, _) => return Err(refuse("store.container_url needs a SAS, or [azure] a credential")),
            (true, _, "https") => {}
            (true, true, "http") if credential.is_none() => {}
            (true, _, _) => return Err(refuse("store.container_url must be https (http only to loopback with a SAS)")),
        }
        let options = BlobContainerClientOptions { client_options: client_options(http), ..Default::default() };
        let client = BlobContainerClient::new(container.0.clone(), credential, Some(options))
            .map_err(|error| access.error("open of", "", Fault::of(error)))?;
        Ok(Self { container: client, access })
    }

    /// Lists before it creates: the usual case needs no right to create containers.
    async fn ensure_container(&self) -> Result<(), Fault> {
        match self.list_page_of_one().await {
            Err(fault) if fault.is(404, "ContainerNotFound") => {}
            outcome => return outcome,
        }
        match self.container.create(None).await.map_err(Fault::of) {
            Ok(_) => Ok(()),
            Err(fault) if fault.is(409, "ContainerAlreadyExists") => Ok(()),
            Err(mut fault) => {
                fault.container_missing = true;
                Err(fault)
            }
        }
    }

    async fn list_page_of_one(&self) -> Result<(), Fault> {
        let options = BlobContainerClientListBlobsOptions { maxresults: Some(1), ..Default::default() };
        let mut pages = self.container.list_blobs(Some(options)).map_err(Fault::of)?.into_pages();
        pages.try_next().await.map(drop).map_err(Fault::of)
    }

    fn blob(&self, key: &Key) -> BlobClient {
        self.container.blob_client(key.as_str())
    }

    /// Bounds the whole operation and words its fault.
    async fn bounded<T>(
        &self,
        attempted: &'static str,
        on: &str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, StoreError> {
        let outcome = tokio::time::timeout(CALL_DEADLINE, work).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Fault::from(Scrubbed::text("no answer within 30 s"))));
        outcome.map_err(|fault| self.access.error(attempted, on, fault))
    }

    /// `None` when the blob is absent. Absent is only what the storage service calls so: a 404 of a proxy or a missing container must
    /// never look like a lost checkpoint.
    async fn download(&self, key: &Key, offset: u64) -> Result<Option<Object>, Fault> {
        let mut tries = 1;
        loop {
            match self.download_once(key, offset).await {
                Ok(object) => return Ok(Some(object)),
                Err(fault) if fault.is(404, "BlobNotFound") => return Ok(None),
                Err(fault) if fault.status.is_none() && tries < READS_MAX => tries += 1,
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn download_once(&self, key: &Key, offset: u64) -> Result<Object, Fault> {
        let most = BODY_BYTES_MAX as u64;
        let options = BlobClientDownloadOptions {
            range: Some(HttpRange::new(offset, most)),
            // One request: several would read an appended blob in several states.
            partition_size: NonZero::new(BODY_BYTES_MAX),
            ..Default::default()
        };
        let answer = match self.blob(key).download(Some(options)).await.map_err(Fault::of) {
            Err(fault) if fault.is(416, "InvalidRange") => return Ok(nothing_behind_the_end()),
            answer => answer?,
        };
        let total = header(&answer.headers, "content-range").and_then(|range| range.rsplit('/').next()?.parse().ok());
        if total.is_some_and(|total: u64| total.saturating_sub(offset) > most) {
            return Err(Fault::from(Scrubbed::text("it is larger than anything opship writes")));
        }
        let version = header(&answer.headers, "etag").map(|etag| Version(etag.to_owned()));
        let version = version.ok_or_else(|| Fault::from(Scrubbed::text("the answer has no ETag")))?;
        let age = age_between(http_date(&answer.headers, "last-modified"), http_date(&answer.headers, "date"));
        let bytes = answer.body.collect().await.map_err(Fault::of)?;
        Ok(Object { bytes, version, age })
    }

    async fn upload(&self, key: &Key, bytes: Bytes, expect: &Expect) -> Result<Version, Fault> {
        let mut options = BlockBlobClientUploadOptions {
            blob_content_type: Some("application/json".to_owned()),
            // One request, one condition, one answer.
            partition_size: NonZero::new(BODY_BYTES_MAX as u64),
            ..Default::default()
        };
        match expect {
            Expect::Absent => options = options.if_not_exists(),
            Expect::Is(Version(etag)) => options.if_match = Some(Etag::from(etag.as_str())),
            Expect::Anything => {}
        }
        let answer = self.blob(key).upload(bytes.into(), Some(options)).await.map_err(Fault::of)?;
        let etag = answer.etag.ok_or_else(|| Fault::from(Scrubbed::text("the answer has no ETag")))?;
        Ok(Version(etag.into()))
    }

    async fn append_block(&self, key: &Key, at: u64, bytes: Bytes) -> Result<(), Fault> {
        let blob = self.blob(key).append_blob_client();
        if at == 0 {
            let created = blob.create(Some(AppendBlobClientCreateOptions::default().if_not_exists())).await;
            match created.map_err(Fault::of) {
                Ok(_) => {}
                Err(fault) if fault.is(409, "BlobAlreadyExists") => {}
                Err(fault) => return Err(fault),
            }
        }
        // Without the position a repeated request after a lost reply would append the block twice.
        let options = AppendBlobClientAppendBlockOptions {
            append_position: Some(i64::try_from(at).unwrap_or(i64::MAX)),
            ..Default::default()
        };
        let len = bytes.len() as u64;
        blob.append_block(bytes.into(), len, Some(options)).await.map(drop).map_err(Fault::of)
    }

    async fn list_all(&self, prefix: &str) -> Result<Vec<Listed>, Fault> {
        let options = BlobContainerClientListBlobsOptions { prefix: Some(prefix.to_owned()), ..Default::default() };
        let mut pages = self.container.list_blobs(Some(options)).map_err(Fault::of)?.into_pages();
        let mut listed = Vec::new();
        let mut pages_read = 0;
        while let Some(page) = pages.try_next().await.map_err(Fault::of)? {
            pages_read += 1;
            if pages_read > LIST_PAGES_MAX {
                return Err(Fault::from(Scrubbed::text("there are more names than opship ever writes")));
            }
            let now = http_date(page.headers(), "date");
            let page: Page = xml::from_xml(page.into_body()).map_err(Fault::of)?;
            listed.extend(page.listed(now));
        }
        listed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(without_directories(listed))
    }
}

/// None where one of the two is not told. A write in the future, by a clock that fell back, counts as one of just now.
pub(super) fn age_between(modified: Option<Time>, now: Option<Time>) -> Option<Duration> {
    now.zip(modified).map(|(now, modified)| (now - modified).to_std().unwrap_or_default())
}

/// A 416: the blob is there and ends at or before the offset. Only `read_from` asks with an offset, and it looks at the bytes alone.
fn nothing_behind_the_end() -> Object {
    Object { bytes: Bytes::new(), version: Version(String::new()), age: None }
}

/// Else the names of blobs would start with a slash.
fn without_trailing_slash(container: &ContainerUrl) -> ContainerUrl {
    let mut url = container.0.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty();
    }
    ContainerUrl(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(_)) | None => false,
    }
}

#[async_trait]
impl Store for AzureBlobStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.bounded("read of", key.as_str(), self.download(key, 0)).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, expect: Expect) -> Result<Version, StoreError> {
        let work = async {
            match self.upload(key, bytes, &expect).await {
                Ok(version) => Ok(Some(version)),
                Err(fault) if fault.is_conflict() => Ok(None),
                // A version was expected, and the blob is gone.
                Err(fault) if fault.is(404, "BlobNotFound") => Ok(None),
                Err(fault) => Err(fault),
            }
        };
        let written = self.bounded("write of", key.as_str(), work).await?;
        written.ok_or_else(|| StoreError::Conflict { key: key.clone() })
    }

    async fn append(&self, key: &Key, at: u64, bytes: Bytes) -> Result<(), StoreError> {
        let work = async {
            match self.append_block(key, at, bytes).await {
                Ok(()) => Ok(Ok(())),
                Err(fault) if fault.is(409, "BlockCountExceedsLimit") => Ok(Err(StoreError::Full { key: key.clone() })),
                // Absent is not `at` bytes long either: deleted meanwhile, or never there.
                Err(fault) if fault.is(412, "AppendPositionConditionNotMet") || fault.is(404, "BlobNotFound") => {
                    Ok(Err(StoreError::WrongPosition { key: key.clone(), at }))
                }
                Err(fault) => Err(fault),
            }
        };
        self.bounded("append to", key.as_str(), work).await?
    }

    async fn read_from(&self, key: &Key, offset: u64) -> Result<Option<Bytes>, StoreError> {
        let found = self.bounded("read of", key.as_str(), self.download(key, offset)).await?;
        Ok(found.map(|object| object.bytes))
    }

    async fn cut(&self, _key: &Key, _len: u64, _to: u64) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.bounded("list of", prefix, self.list_all(prefix)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let work = async {
            // A backup policy may have made snapshots, which would keep the blob undeletable.
            let delete_snapshots = Some(DeleteSnapshotsOptionType::Include);
            let options = BlobClientDeleteOptions { delete_snapshots, ..Default::default() };
            match self.blob(key).delete(Some(options)).await.map_err(Fault::of) {
                Ok(_) => Ok(()),
                Err(fault) if fault.is(404, "BlobNotFound") => Ok(()),
                Err(fault) => Err(fault),
            }
        };
        self.bounded("delete of", key.as_str(), work).await
    }

    async fn announce(&self, _owner: &str) -> Result<(), StoreError> {
        Ok(())
    }

    async fn holder(&self, _owner: &str) -> Result<Holder, StoreError> {
        Ok(Holder::Unknown)
    }

    async fn probe(&self) -> Result<String, StoreError> {
        let late = || Err(self.access.error("probe of", "", Fault::from(Scrubbed::text("not finished within 30 s"))));
        tokio::time::timeout(CALL_DEADLINE, probe::prove(self)).await.unwrap_or_else(|_| late())
    }

    fn place(&self) -> String {
        self.access.place.clone()
    }
}
