//! A request as the simulated services see it.

use crate::flow::Stream;
use axum::http::{HeaderMap, Method, Uri, header};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

/// Which of the simulated services a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// The 1Password Events API: a stream, or introspection.
    Events(Option<Stream>),
    Identity,
    Ingestion,
    /// The Log Analytics query API.
    Query,
    Vault,
    /// The simulator's own control API.
    Control,
    Unknown,
}

/// What the body of a page request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BodyKind {
    Cursor,
    /// A start without an end.
    Reset,
    /// A start and an end.
    Window,
}

impl BodyKind {
    /// `None` for a body that is no JSON object.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let body: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
        Some(if body.contains_key("cursor") {
            Self::Cursor
        } else if body.contains_key("end_time") {
            Self::Window
        } else {
            Self::Reset
        })
    }
}

/// Which shape the Events API answers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// A request without its body.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) service: Service,
    pub(super) version: Version,
    pub(super) method: Method,
    pub(super) path: String,
    query: String,
    headers: HeaderMap,
}

impl Head {
    pub(super) fn new(method: Method, uri: &Uri, headers: HeaderMap) -> Self {
        let path = uri.path().to_owned();
        let (service, version) = route(&path);
        Self { service, version, method, path, query: uri.query().unwrap_or_default().to_owned(), headers }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        self.header(header::AUTHORIZATION.as_str())?.strip_prefix("Bearer ")
    }

    pub(super) fn query(&self, name: &str) -> Option<String> {
        form_value(self.query.as_bytes(), name)
    }

    pub(super) fn accepts_gzip(&self) -> bool {
        let accepted = self.header(header::ACCEPT_ENCODING.as_str()).unwrap_or_default();
        accepted.split(',').any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "gzip"))
    }
}

/// A request that was read to its end.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) head: Head,
    pub(super) body: Bytes,
}

/// One value of a form or a query.
pub(super) fn form_value(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn route(path: &str) -> (Service, Version) {
    if let Some(stream) = path.strip_prefix("/api/v1/").and_then(stream_named) {
        return (Service::Events(Some(stream)), Version::V1);
    }
    if let Some(stream) = path.strip_prefix("/api/v2/").and_then(stream_named) {
        return (Service::Events(Some(stream)), Version::V2);
    }
    let service = match path {
        "/api/auth/introspect" => return (Service::Events(None), Version::V1),
        "/api/v2/auth/introspect" => Service::Events(None),
        "/msi/token" | "/metadata/identity/oauth2/token" => Service::Identity,
        path if path.ends_with("/oauth2/v2.0/token") => Service::Identity,
        path if path.starts_with("/dataCollectionRules/") => Service::Ingestion,
        path if path.starts_with("/v1/workspaces/") => Service::Query,
        path if path.starts_with("/secrets/") => Service::Vault,
        path if path.starts_with("/sim/") => Service::Control,
        _ => Service::Unknown,
    };
    (service, Version::V2)
}

fn stream_named(name: &str) -> Option<Stream> {
    Stream::ALL.into_iter().find(|stream| stream.as_str() == name)
}
