//! What a failed call to Azure Blob Storage means, told without the SAS.

use super::StoreError;
use crate::config::ContainerUrl;
use crate::flow::Time;
use crate::flow::words::{self, Hidden};
use crate::http::one_line;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_storage_blob::StorageError;
use std::error::Error;

const ROLE: &str = "Storage Blob Data Contributor";

/// A failed call, taken apart.
#[derive(Debug)]
pub(super) struct Fault {
    /// `None`: no answer.
    pub(super) status: Option<u16>,
    /// Azure's `x-ms-error-code`; empty when the answer has none, and then it may not come from the storage service at all.
    pub(super) code: String,
    date: Option<Time>,
    credential_refused: bool,
    /// Set by the store when the container is missing and could not be created.
    pub(super) container_missing: bool,
    cause: Scrubbed,
}

impl Fault {
    pub(super) fn of(error: azure_core::Error) -> Self {
        let credential_refused = is_credential_refusal(&error);
        let chain = Scrubbed::of(&error);
        let ErrorKind::HttpResponse { status, raw_response, .. } = error.kind() else {
            return Self { credential_refused, ..Self::from(chain) };
        };
        let status = u16::from(*status);
        let headers = raw_response.as_ref().map(|response| response.headers());
        let code = headers.and_then(|headers| header(headers, "x-ms-error-code")).unwrap_or_default();
        // What repeats a secret was masked on the way in.
        let code = words::code(code, &Hidden::default());
        let date = headers.and_then(|headers| http_date(headers, "date"));
        let message = StorageError::try_from(error).ok().and_then(|error| error.message).unwrap_or_default();
        // The further lines are the id and the time of the request.
        let message = message.lines().next().unwrap_or_default();
        let cause = Scrubbed::text(&format!("HTTP {status} {code} {message}"));
        Self { status: Some(status), code, date, ..Self::from(cause) }
    }

    pub(super) fn is(&self, status: u16, code: &str) -> bool {
        self.status == Some(status) && self.code == code
    }

    /// The condition of a put was not met. Other 409 and 412 (a foreign lease, a container being deleted) are no news about the content.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(
            (self.status, self.code.as_str()),
            (Some(412), "ConditionNotMet" | "TargetConditionNotMet" | "") | (Some(409), "BlobAlreadyExists" | "")
        )
    }

    fn is_refusal(&self) -> bool {
        self.credential_refused || matches!(self.status, Some(401 | 403)) || self.obstacle().is_some()
    }

    /// What a blob itself has against being written, and what to do about it: no repetition helps before a person did.
    fn obstacle(&self) -> Option<&'static str> {
        Some(match self.code.as_str() {
            "BlobImmutableDueToPolicy" | "BlobImmutableDueToLegalHold" | "ContainerImmutabilityPolicyLocked" => {
                "an immutability policy or a legal hold forbids the write: give opship a container without one (\"allow protected append \
                 writes\" is not enough, its positions are overwritten)"
            }
            "BlobArchived" | "BlobBeingRehydrated" => {
                "the blob is in the archive tier: rehydrate it, and leave opship's container out of the rules of lifecycle management"
            }
            "BlobIsSealed" => "the append blob was sealed: copy it to one that is not, under its name",
            "LeaseIdMissing" | "LeaseIdMismatchWithBlobOperation" | "LeaseLost" => {
                "somebody holds a lease on the blob: break it (az storage blob lease break), and leave opship's container to opship"
            }
            "InvalidBlobType" | "BlobTypeMismatch" => {
                "a blob of another type stands under this name: whoever copied the container made block blobs of append blobs; copy it \
                 anew with their type kept"
            }
            _ => return None,
        })
    }
}

/// No token because the credential itself was refused; a network fault on the way to the token is none.
fn is_credential_refusal(error: &azure_core::Error) -> bool {
    if !matches!(error.kind(), ErrorKind::Credential) {
        return false;
    }
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes
        .filter_map(|cause| cause.downcast_ref::<azure_core::Error>()?.http_status())
        .any(|status| matches!(u16::from(status), 400 | 401 | 403))
}

pub(super) fn header<'a>(headers: &'a Headers, name: &'static str) -> Option<&'a str> {
    headers.get_optional_str(&HeaderName::from_static(name))
}

pub(super) fn http_date(headers: &Headers, name: &'static str) -> Option<Time> {
    crate::flow::retry::http_date(header(headers, name)?)
}

/// Which container, and by what right: what the operator must look at when it is refused.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) place: String,
    sas: Option<Sas>,
}

/// The public part of a SAS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sas {
    pub starts: Option<Time>,
    /// Absent when a stored access policy on the container says it.
    pub expires: Option<Time>,
    /// Letters, one a right; absent when a stored access policy says them.
    pub permissions: Option<String>,
    /// Of the whole account (`ss`), which alone may create containers; else of this container.
    pub of_account: bool,
}

/// What opship does: read, add (append), create, write, delete, list.
const RIGHTS: [(char, &str); 6] =
    [('r', "read"), ('a', "add"), ('c', "create"), ('w', "write"), ('d', "delete"), ('l', "list")];

impl Sas {
    /// `None` where the URL has none.
    pub fn of(container: &ContainerUrl) -> Option<Self> {
        let text = |name: &str| Some(container.0.query_pairs().find(|(key, _)| key == name)?.1.into_owned());
        let time = |name: &str| sas_time(&text(name)?);
        container.has_sas().then(|| Self {
            starts: time("st"),
            expires: time("se"),
            permissions: text("sp"),
            of_account: text("ss").is_some(),
        })
    }

    /// The rights that opship needs and the SAS does not give.
    pub fn missing(&self) -> Vec<&'static str> {
        let Some(given) = &self.permissions else { return Vec::new() };
        RIGHTS.iter().filter(|(letter, _)| !given.contains(*letter)).map(|(_, name)| *name).collect()
    }
}

impl Access {
    pub(super) fn to(container: &ContainerUrl) -> Self {
        Self { place: container.without_sas(), sas: Sas::of(container) }
    }

    pub(super) fn error(&self, attempted: &'static str, on: &str, fault: Fault) -> StoreError {
        let on = if on.is_empty() { self.place.clone() } else { format!("{}/{on}", self.place) };
        if fault.is_refusal() {
            let remedy = self.remedy(&fault);
            let cause: Box<dyn Error + Send + Sync> = if fault.obstacle().is_some() {
                Box::new(fault.cause)
            } else {
                Box::new(CredentialRefused(fault.cause))
            };
            return StoreError::Refused { attempted, on, remedy, cause: Some(cause) };
        }
        StoreError::Failed { attempted, on, cause: Box::new(fault.cause) }
    }

    fn remedy(&self, fault: &Fault) -> String {
        if let Some(obstacle) = fault.obstacle() {
            return obstacle.to_owned();
        }
        let assign = format!("the role \"{ROLE}\" on the container {}", self.place);
        match (&self.sas, fault.code.as_str()) {
            _ if fault.container_missing => {
                format!("the container does not exist and may not be created this way: create it, then use {assign}")
            }
            (_, "AuthorizationFailure") if self.sas.is_none() => format!(
                "let the network of this machine through the firewall of the storage account, and assign the identity in [azure] {assign}"
            ),
            (_, "KeyBasedAuthenticationNotPermitted") => {
                format!(
                    "the storage account takes no SAS signed by its key: remove the SAS and assign the identity in [azure] {assign}"
                )
            }
            (Some(sas), _) => format!(
                "{}: put a new one with sp=racwdl and sr=c into store.container_url, or remove it and assign the identity in [azure] {assign}",
                sas.trouble(fault.date)
            ),
            (None, "AuthorizationPermissionMismatch") => format!(
                "the identity may not do this: it needs {assign}; a custom role needs read, write, add and delete of blobs (it takes up to 10 minutes to work)",
            ),
            (None, _) if fault.credential_refused => {
                format!("no token was issued: correct azure.credential and its settings; the identity needs {assign}")
            }
            (None, _) => format!(
                "assign the identity in [azure] {assign} (it takes up to 10 minutes to work); check azure.tenant_id and azure.cloud"
            ),
        }
    }
}

impl Sas {
    fn trouble(&self, now: Option<Time>) -> String {
        match (now, self.starts, self.expires) {
            (Some(now), _, Some(expires)) if now >= expires => format!("the SAS expired at {}", expires.to_rfc3339()),
            (Some(now), Some(starts), _) if now < starts => {
                format!("the SAS is not valid before {}", starts.to_rfc3339())
            }
            // A SAS with a stored access policy has its times there.
            _ => "the SAS is wrong, expired or lacks a permission".to_owned(),
        }
    }
}

/// The three forms that a SAS may have:
/// <https://learn.microsoft.com/en-us/rest/api/storageservices/formatting-datetime-values>
fn sas_time(text: &str) -> Option<Time> {
    let seconds = chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    let minutes = || Some(chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%MZ").ok()?.and_utc());
    let day = || Some(text.parse::<chrono::NaiveDate>().ok()?.and_hms_opt(0, 0, 0)?.and_utc());
    seconds.or_else(minutes).or_else(day)
}

/// An error chain as text without query strings: the SDK and reqwest put whole URLs, SAS included, into theirs.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Scrubbed {
    text: String,
    #[source]
    source: Option<Box<Self>>,
}

impl Scrubbed {
    pub(super) fn text(text: &str) -> Self {
        Self { text: one_line(&scrub(text)), source: None }
    }

    fn of(error: &dyn Error) -> Self {
        Self { source: error.source().map(|source| Box::new(Self::of(source))), ..Self::text(&error.to_string()) }
    }
}

/// The service does not let this identity or SAS in.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct CredentialRefused(Scrubbed);

impl From<Scrubbed> for Fault {
    fn from(cause: Scrubbed) -> Self {
        Self {
            status: None,
            code: String::new(),
            date: None,
            credential_refused: false,
            container_missing: false,
            cause,
        }
    }
}

/// Cuts what follows a `?` or a `sig=` up to the end of the word.
fn scrub(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ')' | '>' | '}' | ']' | '<');
    let mut scrubbed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = [rest.find('?'), rest.find("sig=")].into_iter().flatten().min() {
        let (head, tail) = rest.split_at(at);
        let (secret, after) = tail.split_at(tail.find(ends).unwrap_or(tail.len()));
        scrubbed.push_str(head);
        scrubbed.push_str(if secret.contains('=') { "***" } else { secret });
        rest = after;
    }
    scrubbed + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_string_is_cut_from_any_text() {
        let text =
            "error sending request for url (http://127.0.0.1:1/a/c?sv=1&sig=AbC%2F=) why? query: Some(\"sv=1&sig=Ab\")";
        let scrubbed = scrub(text);
        assert_eq!(
            scrubbed,
            "error sending request for url (http://127.0.0.1:1/a/c***) why? query: Some(\"sv=1&***\")"
        );
    }

    #[test]
    fn an_expired_sas_is_named_as_such() {
        for expires in ["2025-01-01T00:00:00Z", "2025-01-01T00:00Z", "2025-01-01"] {
            let url = format!("https://a.blob.core.windows.net/c?st=2024-01-01&se={expires}&sig=x");
            let access = Access::to(&ContainerUrl(url.parse().unwrap()));
            let mut fault = Fault::from(Scrubbed::text("HTTP 403"));
            fault.status = Some(403);
            fault.date = "2025-01-01T00:00:01Z".parse().ok();
            let remedy = access.remedy(&fault);
            assert!(remedy.contains("expired at 2025-01-01T00:00:00+00:00") && remedy.contains(ROLE), "{remedy}");
        }
    }

    #[test]
    fn what_stands_against_an_append_names_what_to_do() {
        let access = Access::to(&ContainerUrl("https://a.blob.core.windows.net/c".parse().unwrap()));
        for (status, code, names) in [
            (409, "BlobImmutableDueToPolicy", "immutability policy"),
            (409, "BlobImmutableDueToLegalHold", "legal hold"),
            (409, "BlobArchived", "rehydrate"),
            (409, "BlobIsSealed", "sealed"),
            (412, "LeaseIdMissing", "lease break"),
            (409, "InvalidBlobType", "type kept"),
            (403, "AuthorizationPermissionMismatch", "write, add"),
        ] {
            let mut fault = Fault::from(Scrubbed::text("HTTP"));
            (fault.status, fault.code) = (Some(status), code.to_owned());
            assert!(!fault.is_conflict(), "{code} is no news about the content");
            let error = access.error("append to", "ledger/x", fault);
            assert!(matches!(&error, StoreError::Refused { remedy, .. } if remedy.contains(names)), "{error:?}");
        }
    }

    #[test]
    fn a_lease_of_somebody_else_is_no_conflict() {
        let mut fault = Fault::from(Scrubbed::text("HTTP 412"));
        (fault.status, fault.code) = (Some(412), "LeaseIdMissing".to_owned());
        assert!(!fault.is_conflict());
        fault.code = "ConditionNotMet".to_owned();
        assert!(fault.is_conflict());
    }
}
