//! The two places that a store can be in, each fresh for one test.

use crate::support::azurite::Azurite;
use opship::config::{ContainerUrl, Http};
use opship::store::azure_blob::AzureBlobStore;
use opship::store::file::FileStore;
use opship::store::{Key, Store, StoreError};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use url::Url;

pub(crate) enum World {
    File(TempDir),
    Blob(Url),
}

impl World {
    pub(crate) fn file() -> Self {
        Self::File(tempfile::tempdir().expect("temporary directory"))
    }

    pub(crate) async fn blob() -> Self {
        Self::Blob(azurite().await.container_sas_url(&fresh_container()))
    }

    /// A handle of its own, as another process would have.
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        match self {
            Self::File(directory) => Arc::new(FileStore::open(directory.path()).await.expect("open")),
            Self::Blob(url) => Arc::new(open_blob(url).await.expect("open")),
        }
    }

    pub(crate) fn cuts(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// One for all tests of this process; it ends with the process.
pub(crate) async fn azurite() -> &'static Azurite {
    static AZURITE: OnceCell<Azurite> = OnceCell::const_new();
    AZURITE.get_or_init(Azurite::start).await
}

pub(crate) fn fresh_container() -> String {
    format!("test-{}", uuid::Uuid::new_v4())
}

pub(crate) async fn open_blob(url: &Url) -> Result<AzureBlobStore, StoreError> {
    AzureBlobStore::open(&ContainerUrl(url.clone()), None, http()).await
}

pub(crate) fn http() -> reqwest::Client {
    opship::http::client(&Http::default()).expect("client")
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(name)
}
