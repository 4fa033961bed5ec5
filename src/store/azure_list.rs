//! One page of a listing of blobs, as the service writes it: the SDK's model leaves out what tells a directory from a blob.
//!
//! Storage with a hierarchical namespace lists its directories among the blobs:
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/list-blobs>

use super::azure_blob::age_between;
use super::{Key, Listed};
use crate::flow::Time;
use serde::Deserialize;
use std::collections::HashSet;

#[derive(Deserialize)]
pub(super) struct Page {
    #[serde(rename = "Blobs", default)]
    blobs: Blobs,
}

#[derive(Default, Deserialize)]
struct Blobs {
    #[serde(rename = "Blob", default)]
    blob: Vec<Blob>,
}

#[derive(Deserialize)]
struct Blob {
    #[serde(rename = "Name")]
    name: Name,
    #[serde(rename = "Properties")]
    properties: Properties,
    #[serde(rename = "Metadata", default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Name {
    #[serde(rename = "$text", default)]
    text: String,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "Last-Modified")]
    last_modified: Option<String>,
    #[serde(rename = "Content-Length")]
    content_length: Option<u64>,
    #[serde(rename = "ResourceType")]
    resource_type: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    hdi_isfolder: Option<String>,
}

impl Blob {
    fn is_directory(&self) -> bool {
        let is =
            |text: &Option<String>, word| text.as_deref().is_some_and(|text: &str| text.eq_ignore_ascii_case(word));
        is(&self.properties.resource_type, "directory")
            || self.metadata.as_ref().is_some_and(|metadata| is(&metadata.hdi_isfolder, "true"))
    }

    /// Blobs that a person put there under other names are not ours to list, and must not stop us.
    fn listed(self, now: Option<Time>) -> Option<Listed> {
        let name = Some(self.name.text).filter(|name| Key::is_legal(name))?;
        let modified = self.properties.last_modified.as_deref();
        let modified = modified.and_then(|text| chrono::DateTime::parse_from_rfc2822(text).ok()).map(|at| at.to_utc());
        Some(Listed {
            key: Key::new(name),
            len: self.properties.content_length?,
            age: age_between(modified, now).unwrap_or_default(),
        })
    }
}

impl Page {
    /// The blobs that are ours; the page was answered at `now`.
    pub(super) fn listed(self, now: Option<Time>) -> impl Iterator<Item = Listed> {
        self.blobs.blob.into_iter().filter(|blob| !blob.is_directory()).filter_map(move |blob| blob.listed(now))
    }
}

/// Takes out what is a directory by its looks: empty, and others lie below it. An older service does not say so itself.
pub(super) fn without_directories(mut listed: Vec<Listed>) -> Vec<Listed> {
    let parents = |entry: &Listed| {
        let name = entry.key.as_str();
        name.match_indices('/').filter_map(|(at, _)| Some(name.get(..at)?.to_owned())).collect::<Vec<_>>()
    };
    if listed.iter().all(|entry| entry.len > 0) {
        return listed;
    }
    let folders: HashSet<String> = listed.iter().flat_map(parents).collect();
    listed.retain(|entry| entry.len > 0 || !folders.contains(entry.key.as_str()));
    listed
}
