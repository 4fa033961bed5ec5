//! Checks the two edges that have kinds, sink and store, and the credential they share.

use super::check::Context;
use super::hosts::{HostRules, Service, check_url};
use super::load::Need;
use super::raw::{self, RawAzure, RawConfig, RawSink, RawStore, SinkKind, StoreKind};
use super::values;
use super::{Azure, ContainerUrl, Credential, OnInDoubt, Sink, Store};
use std::path::PathBuf;
use url::Url;

/// Why there is no default kind.
const NO_DEFAULT: &str = "a forgotten section must not write to a disk that vanishes";

/// Keys of the other kind, with whether they are set.
type OtherKeys<'a> = &'a [(&'a str, bool)];

pub(super) fn sink(raw: &RawSink, rules: &HostRules, cx: &mut Context) -> Option<Sink> {
    let Some(kind) = raw.kind else {
        if cx.need == Need::WhatIsThere && raw.is_unset() {
            return Some(Sink::Unset);
        }
        cx.missing("sink.kind", &format!("\"azure\" or \"ndjson\"; it has no default: {NO_DEFAULT}"));
        return None;
    };
    let stream = raw.stream.as_deref().unwrap_or(raw::SINK_STREAM);
    let stream = cx.take("sink.stream", stream_name(stream));
    match kind {
        SinkKind::Azure => {
            refuse(cx, "sink", "azure", &[("path", raw.path.is_some())]);
            let endpoint = required(cx, "sink.endpoint", &raw.endpoint, "the sink kind azure needs it");
            let endpoint = endpoint.and_then(|text| cx.service_url("sink.endpoint", &text, Service::Ingestion, rules));
            let rule = required(cx, "sink.dcr_immutable_id", &raw.dcr_immutable_id, "the sink kind azure needs it");
            let dcr_immutable_id = rule.and_then(|text| cx.take("sink.dcr_immutable_id", immutable_id(&text)))?;
            let gzip_level = raw.gzip_level.unwrap_or(raw::GZIP_LEVEL);
            Some(Sink::Azure { endpoint: endpoint?, dcr_immutable_id, stream: stream?, gzip_level })
        }
        SinkKind::Ndjson => {
            let others = [
                ("endpoint", raw.endpoint.is_some()),
                ("dcr_immutable_id", raw.dcr_immutable_id.is_some()),
                ("gzip_level", raw.gzip_level.is_some()),
            ];
            refuse(cx, "sink", "ndjson", &others);
            let path = required(cx, "sink.path", &raw.path, "the sink kind ndjson needs the folder of its files")?;
            Some(Sink::Ndjson { path: PathBuf::from(path), stream: stream? })
        }
    }
}

pub(super) fn store(raw: &RawStore, rules: &HostRules, cx: &mut Context) -> Option<Store> {
    let Some(kind) = raw.kind else {
        if cx.need == Need::WhatIsThere && raw.is_unset() {
            return Some(Store::Unset);
        }
        cx.missing("store.kind", &format!("\"azure-blob\" or \"file\"; it has no default: {NO_DEFAULT}"));
        return None;
    };
    match kind {
        StoreKind::AzureBlob => {
            refuse(cx, "store", "azure-blob", &[("path", raw.path.is_some())]);
            let key = "store.container_url";
            let text = required(cx, key, &raw.container_url, "the store kind azure-blob needs it")?;
            let url = cx.take(key, values::url(&text))?;
            cx.take(key, check_url(&url, Service::Blob, rules))?;
            cx.take(key, container(&url))?;
            Some(Store::AzureBlob { container: ContainerUrl(url) })
        }
        StoreKind::File => {
            refuse(cx, "store", "file", &[("container_url", raw.container_url.is_some())]);
            let path = required(cx, "store.path", &raw.path, "the store kind file needs its folder")?;
            Some(Store::File { path: PathBuf::from(path) })
        }
    }
}

/// A set and not empty text.
fn required(cx: &mut Context, key: &str, text: &Option<String>, why: &str) -> Option<String> {
    let given = text.as_deref().map(str::trim).filter(|text| !text.is_empty());
    if given.is_none() {
        cx.missing(key, why);
    }
    given.map(str::to_owned)
}

fn refuse(cx: &mut Context, section: &str, kind: &str, others: OtherKeys<'_>) {
    for (key, _) in others.iter().filter(|(_, is_set)| *is_set) {
        cx.bad(&format!("{section}.{key}"), format!("is not a key of the {section} kind `{kind}`: remove it"));
    }
}

/// It becomes the name of a file and stands in a URL.
fn stream_name(text: &str) -> Result<String, String> {
    let expected = "a stream such as \"Custom-OnePasswordEventLogs_CL\"";
    let table = text.strip_prefix("Custom-").ok_or_else(|| format!("expected {expected}, beginning with `Custom-`"))?;
    values::word(table, "_", &format!("{expected}, of letters, digits and _"))?;
    Ok(text.to_owned())
}

fn immutable_id(text: &str) -> Result<String, String> {
    let expected = "the immutable id of the rule, `dcr-` and 32 hexadecimal digits (not its resource id or name)";
    match text.starts_with("dcr-") {
        true => values::word(text, "-", expected),
        false => Err(format!("expected {expected}")),
    }
}

/// One path segment, or two behind an emulator's account name.
fn container(url: &Url) -> Result<(), String> {
    let segments: Vec<&str> = url.path_segments().into_iter().flatten().filter(|segment| !segment.is_empty()).collect();
    match segments.len() {
        1 | 2 => Ok(()),
        _ => Err("expected the URL of a container, https://ACCOUNT.blob.core.windows.net/CONTAINER".into()),
    }
}

pub(super) fn azure(raw: &RawConfig, rules: &HostRules, cx: &mut Context) -> Azure {
    let azure = &raw.azure;
    for (key, id) in [("client_id", &azure.client_id), ("tenant_id", &azure.tenant_id)] {
        let id = id.as_deref().map(|id| values::word(id, "-.", "an id such as 00000000-0000-0000-0000-000000000000"));
        id.and_then(|id| cx.take(&format!("azure.{key}"), id));
    }
    if let Some(id) = &azure.workspace_id {
        let id = values::word(id, "-", "the workspace id, a GUID (not its resource id or name)");
        cx.take("azure.workspace_id", id);
    }
    let workspace_url = azure.workspace_url.as_deref();
    let workspace_url =
        workspace_url.and_then(|text| cx.service_url("azure.workspace_url", text, Service::Query, rules));
    credential_keys(azure, cx);
    if raw.delivery.on_in_doubt == OnInDoubt::Verify && azure.workspace_id.is_none() {
        cx.missing("azure.workspace_id", "`delivery.on_in_doubt = \"verify\"` asks the workspace");
    }
    if raw.delivery.on_in_doubt == OnInDoubt::Verify && raw.sink.kind == Some(SinkKind::Ndjson) {
        cx.bad("delivery.on_in_doubt", "`verify` asks a Log Analytics workspace, which the sink kind `ndjson` has not");
    }
    let mut secret = |key: &str, text: &Option<String>| text.as_ref().and_then(|text| cx.secret(key, text, rules));
    Azure {
        credential: azure.credential,
        client_id: azure.client_id.clone(),
        tenant_id: azure.tenant_id.clone(),
        client_secret: secret("azure.client_secret", &azure.client_secret),
        certificate: secret("azure.certificate", &azure.certificate),
        workspace_id: azure.workspace_id.clone(),
        workspace_url,
        cloud: azure.cloud,
    }
}

/// What the kind of credential needs and what it has no use for.
fn credential_keys(azure: &RawAzure, cx: &mut Context) {
    let (kind, needed): (&str, &[&str]) = match azure.credential {
        Credential::ManagedIdentity => ("managed-identity", &[]),
        Credential::WorkloadIdentity => ("workload-identity", &[]),
        Credential::ClientSecret => ("client-secret", &["tenant_id", "client_id", "client_secret"]),
        Credential::ClientCertificate => ("client-certificate", &["tenant_id", "client_id", "certificate"]),
        Credential::AzureCli => ("azure-cli", &[]),
    };
    let keys = [
        ("tenant_id", azure.tenant_id.is_some()),
        ("client_id", azure.client_id.is_some()),
        ("client_secret", azure.client_secret.is_some()),
        ("certificate", azure.certificate.is_some()),
    ];
    for (key, is_set) in keys {
        let path = format!("azure.{key}");
        let secret = matches!(key, "client_secret" | "certificate");
        if needed.contains(&key) && !is_set {
            cx.missing(&path, &format!("`azure.credential = \"{kind}\"` needs it"));
        }
        if secret && is_set && !needed.contains(&key) {
            cx.bad(&path, format!("is not a key of the credential `{kind}`: remove it or change `azure.credential`"));
        }
    }
}
