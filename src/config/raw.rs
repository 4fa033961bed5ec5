//! The configuration as it is written: names, types and defaults. The doc comments are the descriptions in the JSON schema.

use super::{ApiVersion, Cloud, Credential, LogFormat, OnInDoubt};
use crate::flow::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const CRON: &str = "0 * * * * *";
pub(super) const SINK_STREAM: &str = "Custom-OnePasswordEventLogs_CL";
pub(super) const GZIP_LEVEL: u32 = 1;
pub(super) const BATCH_ROWS_MAX: usize = 500;

/// `every` and `horizon` of a stream's late sweep: item usages arrive when a client syncs, hence later than the others.
pub(super) const fn sweep_defaults(stream: Stream) -> (&'static str, &'static str) {
    match stream {
        Stream::ItemUsages => ("1h", "72h"),
        Stream::AuditEvents | Stream::SigninAttempts => ("6h", "24h"),
    }
}

/// Configuration of opship, which ships 1Password events to Microsoft Sentinel. Every key can also be set by the environment variable OPSHIP_SECTION__KEY.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "opship configuration")]
pub(super) struct RawConfig {
    /// One table per 1Password account; the name is [a-z0-9-].
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z0-9-]{1,63}$" }))]
    pub(super) accounts: BTreeMap<String, RawAccount>,
    /// When the feeds are polled and how far they look back.
    pub(super) schedule: RawSchedule,
    /// The late sweep of each stream: re-reads a window by event time, for events that became visible late.
    pub(super) sweep: RawSweeps,
    /// Where rows go; `run`, `once` and `check` demand `kind`.
    #[serde(skip_serializing_if = "RawSink::is_unset")]
    pub(super) sink: RawSink,
    /// Where the position, the ledger and the dead letters are kept; `run`, `once` and `check` demand `kind`.
    #[serde(skip_serializing_if = "RawStore::is_unset")]
    pub(super) store: RawStore,
    /// The credential for the Azure sink, the blob store and Key Vault.
    pub(super) azure: RawAzure,
    /// The ids of what was shipped.
    pub(super) ledger: RawLedger,
    /// How rows are delivered, and to which hosts.
    pub(super) delivery: RawDelivery,
    /// What is left out of the rows: nothing, unless it is said here.
    pub(super) filter: RawFilter,
    /// Proxy and certificate authorities.
    pub(super) http: RawHttp,
    /// Messages on standard error.
    pub(super) log: RawLog,
    /// Health, metrics and the status page.
    pub(super) admin: RawAdmin,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAccount {
    /// Reference to the Events API bearer token: env:NAME, file:PATH, keyvault:URL or @Microsoft.KeyVault(SecretUri=URL). Never the token itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true), example = "env:OP_EVENTS_TOKEN")]
    pub(super) token: Option<String>,
    /// Address of the Events API. Default: from the token's `aud` claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true), example = "https://events.1password.com")]
    pub(super) events_url: Option<String>,
    /// Version of the Events API.
    pub(super) api: ApiVersion,
    /// The streams to ship. Default: all.
    pub(super) streams: Vec<Stream>,
}

impl Default for RawAccount {
    fn default() -> Self {
        Self { token: None, events_url: None, api: ApiVersion::V2, streams: Stream::ALL.to_vec() }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSchedule {
    /// When to poll: cron with 5 or 6 fields (the first of 6 is the second), UTC. Excludes `every`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = CRON), example = "*/5 * * * *")]
    pub(super) cron: Option<String>,
    /// Poll at this interval instead of `cron`, at least 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "1m")]
    pub(super) every: Option<String>,
    /// How far each tick re-reads behind what it has read, at most 24h.
    pub(super) overlap: String,
    /// Where a feed without a checkpoint starts: a duration back (at most 119d), an RFC 3339 time, or now.
    #[schemars(example = "30d", example = "2026-11-01T00:00:00Z", example = &"now")]
    pub(super) lookback: String,
}

impl Default for RawSchedule {
    fn default() -> Self {
        Self { cron: None, every: None, overlap: "5m".into(), lookback: "30d".into() }
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSweeps {
    /// Late sweep of the audit events.
    pub(super) auditevents: RawSweep,
    /// Late sweep of the item usages.
    pub(super) itemusages: RawSweep,
    /// Late sweep of the sign-in attempts.
    pub(super) signinattempts: RawSweep,
}

impl RawSweeps {
    pub(super) fn of(&mut self, stream: Stream) -> &mut RawSweep {
        match stream {
            Stream::AuditEvents => &mut self.auditevents,
            Stream::ItemUsages => &mut self.itemusages,
            Stream::SigninAttempts => &mut self.signinattempts,
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSweep {
    /// How often the window is re-read, at least 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) every: Option<String>,
    /// How late an event may become visible and still be shipped, at most 119d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) horizon: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SinkKind {
    Azure,
    Ndjson,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSink {
    /// azure: a data collection rule; ndjson: one row per line in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<SinkKind>,
    /// azure: the logs ingestion endpoint of the data collection rule or of its endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true), example = "https://NAME.REGION-1.ingest.monitor.azure.com")]
    pub(super) endpoint: Option<String>,
    /// azure: the immutable id of the data collection rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "dcr-00000000000000000000000000000000")]
    pub(super) dcr_immutable_id: Option<String>,
    /// The stream declared in the data collection rule; without Custom- it names the table, or the file of ndjson.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = SINK_STREAM))]
    pub(super) stream: Option<String>,
    /// azure: gzip level of the request bodies; 0 stores, 9 is smallest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9), extend("default" = GZIP_LEVEL))]
    pub(super) gzip_level: Option<u32>,
    /// ndjson: the folder of the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/var/lib/opship/rows")]
    pub(super) path: Option<String>,
}

impl RawSink {
    pub(super) fn is_unset(&self) -> bool {
        let Self { kind, endpoint, dcr_immutable_id, stream, gzip_level, path } = self;
        kind.is_none() && gzip_level.is_none() && all_unset(&[endpoint, dcr_immutable_id, stream, path])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StoreKind {
    AzureBlob,
    File,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStore {
    /// azure-blob: a blob container, for any number of replicas; file: a folder that must outlive the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<StoreKind>,
    /// azure-blob: address of the container; a SAS in the query is allowed and kept out of all output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true), example = "https://ACCOUNT.blob.core.windows.net/opship")]
    pub(super) container_url: Option<String>,
    /// file: the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/var/lib/opship/state")]
    pub(super) path: Option<String>,
}

impl RawStore {
    pub(super) fn is_unset(&self) -> bool {
        let Self { kind, container_url, path } = self;
        kind.is_none() && all_unset(&[container_url, path])
    }
}

fn all_unset(texts: &[&Option<String>]) -> bool {
    texts.iter().all(|text| text.is_none())
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAzure {
    /// How opship proves who it is.
    pub(super) credential: Credential,
    /// Client id of the application or of a user-assigned managed identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "00000000-0000-0000-0000-000000000000")]
    pub(super) client_id: Option<String>,
    /// Entra tenant: its id or one of its domains.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "00000000-0000-0000-0000-000000000000")]
    pub(super) tenant_id: Option<String>,
    /// client-secret: reference to the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true), example = "env:AZURE_CLIENT_SECRET")]
    pub(super) client_secret: Option<String>,
    /// client-certificate: reference to a PEM with certificate and private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true), example = "file:/run/secrets/opship.pem")]
    pub(super) certificate: Option<String>,
    /// Log Analytics workspace id (a GUID), for delivery.on_in_doubt = "verify" and `opship reconcile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "00000000-0000-0000-0000-000000000000")]
    pub(super) workspace_id: Option<String>,
    /// Address of the query API, where it is not the cloud's own: a proxy of yours, or the simulator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true), example = "https://api.loganalytics.azure.com")]
    pub(super) workspace_url: Option<String>,
    /// Which Azure cloud: decides hosts and token audiences.
    pub(super) cloud: Cloud,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLedger {
    /// How long shipped ids are kept, at least 121d: the API returns events for 120 days.
    pub(super) keep: String,
}

impl Default for RawLedger {
    fn default() -> Self {
        Self { keep: "121d".into() }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawDelivery {
    /// A batch that may or may not have arrived: resend it (at worst a traceable duplicate), or verify by asking the workspace first.
    pub(super) on_in_doubt: OnInDoubt,
    /// verify: how long an accepted row may take to show in the table, 1s to 24h; the feed stands still for that long. Beyond half an hour without an answer from the table the batch is resent.
    pub(super) verify_after: String,
    /// Most rows of one POST: the bound of the duplicates of one doubt.
    #[schemars(range(min = 1, max = BATCH_ROWS_MAX))]
    pub(super) batch_rows_max: usize,
    /// `run` posts one health row per account at most this often, 1s to 24h; a published rule expects one an hour.
    pub(super) heartbeat_every: String,
    /// Allow http:// to 127.0.0.1 and [::1], and these hosts without allow_hosts. For tests and the simulator.
    pub(super) allow_insecure_loopback: bool,
    /// Further hosts, HOST or HOST:PORT, that may be contacted besides 1Password's and Azure's own; always by https.
    #[schemars(example = ["events.proxy.example"])]
    pub(super) allow_hosts: Vec<String>,
}

impl Default for RawDelivery {
    fn default() -> Self {
        Self {
            on_in_doubt: OnInDoubt::Resend,
            verify_after: "15m".into(),
            batch_rows_max: BATCH_ROWS_MAX,
            heartbeat_every: "5m".into(),
            allow_insecure_loopback: false,
            allow_hosts: Vec::new(),
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawFilter {
    /// Audit actions that are not shipped but counted, such as session plumbing.
    #[schemars(example = ["dlgsess", "ssotknv"])]
    pub(super) drop_audit_actions: Vec<String>,
    /// Column paths that are dropped from each row, or pseudonymised with redact_key.
    #[schemars(example = ["client.ip_address"])]
    pub(super) redact: Vec<String>,
    /// Reference to the key of the HMAC that pseudonymises the redact columns instead of dropping them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true), example = "env:REDACT_KEY")]
    pub(super) redact_key: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHttp {
    /// Proxy for all requests, http:// or https://; userinfo is allowed and kept out of all output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true), example = "http://proxy.example:3128")]
    pub(super) proxy: Option<String>,
    /// Hosts, domain suffixes and networks that are reached without the proxy.
    #[schemars(example = ["169.254.169.254", ".internal.example"])]
    pub(super) no_proxy: Vec<String>,
    /// PEM file of further certificate authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/etc/ssl/private-ca.pem")]
    pub(super) ca_file: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    /// error, warn, info, debug or trace; also per module: info,opship::sink=debug.
    #[schemars(example = &"debug", example = "info,opship::sink=debug")]
    pub(super) level: String,
    /// auto: pretty on a terminal, JSON otherwise.
    pub(super) format: LogFormat,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAdmin {
    /// Address and port to listen on; port 0 takes a free one.
    pub(super) listen: String,
    /// Reference to the bearer token of all pages but /livez and /readyz; demanded beyond loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true), example = "env:STATUS_TOKEN")]
    pub(super) token: Option<String>,
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".into(), token: None }
    }
}
