//! Configuration: TOML file, then environment, then checked once into [`Config`].

mod check;
mod conform;
mod edges;
pub mod hosts;
mod load;
mod problem;
mod raw;
mod schema;
mod service_links;
pub mod show;
mod sketch;
mod values;

pub use load::{ConfigFile, Need, load};
pub use problem::ConfigError;
pub use sketch::as_written;

use crate::flow::{AccountName, Stream, Time};
use crate::secret::SecretRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Everything opship was told, checked. Holds references to secrets, never secrets.
#[derive(Clone, Debug)]
pub struct Config {
    pub accounts: BTreeMap<AccountName, Account>,
    pub schedule: Schedule,
    pub sweep: BTreeMap<Stream, Sweep>,
    pub sink: Sink,
    pub store: Store,
    pub azure: Azure,
    /// How long ledger segments are kept; at least 121 days.
    pub ledger_keep: Duration,
    pub delivery: Delivery,
    pub filter: Filter,
    pub http: Http,
    pub log: Log,
    pub admin: Admin,
}

#[derive(Clone, Debug)]
pub struct Account {
    pub token: SecretRef,
    /// Default: from the token's `aud`.
    pub events_url: Option<Url>,
    pub api: ApiVersion,
    pub streams: Vec<Stream>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApiVersion {
    V1,
    #[default]
    V2,
}

#[derive(Clone, Debug)]
pub struct Schedule {
    pub timer: Timer,
    /// How far behind the sweep mark each tick re-reads.
    pub overlap: Duration,
    pub lookback: Lookback,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Six fields, UTC.
    Cron(String),
    Every(Duration),
}

/// Where a feed without a checkpoint starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookback {
    Back(Duration),
    From(Time),
    Now,
}

/// The late sweep of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    pub every: Duration,
    pub horizon: Duration,
}

impl Sweep {
    /// Every stream but item usages, which have their own: they become visible only when a client syncs.
    pub const DEFAULT: Self = Self { every: Duration::from_secs(6 * 3600), horizon: Duration::from_secs(24 * 3600) };
}

#[derive(Clone, Debug)]
pub enum Sink {
    Azure {
        endpoint: Url,
        dcr_immutable_id: String,
        stream: String,
        gzip_level: u32,
    },
    Ndjson {
        path: PathBuf,
        stream: String,
    },
    /// No `[sink]` section: set by [`load`] with [`Need::WhatIsThere`] only, for commands that ship nothing.
    Unset,
}

#[derive(Clone, Debug)]
pub enum Store {
    File {
        path: PathBuf,
    },
    AzureBlob {
        container: ContainerUrl,
    },
    /// No `[store]` section: set by [`load`] with [`Need::WhatIsThere`] only, for commands that keep no position.
    Unset,
}

/// A container URL whose query may be a SAS: `Debug` prints it without the query.
#[derive(Clone)]
pub struct ContainerUrl(pub Url);

impl ContainerUrl {
    pub fn without_sas(&self) -> String {
        let mut url = self.0.clone();
        url.set_query(None);
        url.to_string()
    }

    pub fn has_sas(&self) -> bool {
        self.0.query().is_some_and(|query| !query.is_empty())
    }
}

impl std::fmt::Debug for ContainerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.without_sas())
    }
}

#[derive(Clone, Debug)]
pub struct Azure {
    pub credential: Credential,
    pub client_id: Option<String>,
    pub tenant_id: Option<String>,
    pub client_secret: Option<SecretRef>,
    /// PEM file with certificate and private key.
    pub certificate: Option<SecretRef>,
    pub workspace_id: Option<String>,
    /// Default: the query API of the cloud.
    pub workspace_url: Option<Url>,
    pub cloud: Cloud,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    #[default]
    ManagedIdentity,
    WorkloadIdentity,
    ClientSecret,
    ClientCertificate,
    AzureCli,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    #[default]
    Public,
    UsGov,
    China,
}

#[derive(Clone, Debug)]
pub struct Delivery {
    pub on_in_doubt: OnInDoubt,
    /// How long a row may take to show in the table.
    pub verify_after: Duration,
    pub batch_rows_max: usize,
    pub heartbeat_every: Duration,
    pub allow_insecure_loopback: bool,
    pub allow_hosts: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnInDoubt {
    #[default]
    Resend,
    Verify,
}

#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub drop_audit_actions: BTreeSet<String>,
    /// Column paths such as `client.ip_address`, dropped from each row, or pseudonymised when `redact_key` is set.
    pub redact: Vec<String>,
    /// Key of the HMAC that pseudonymises instead of dropping.
    pub redact_key: Option<SecretRef>,
}

#[derive(Clone, Debug, Default)]
pub struct Http {
    pub proxy: Option<ProxyUrl>,
    pub no_proxy: Vec<String>,
    pub ca_file: Option<PathBuf>,
}

/// A proxy URL whose userinfo may hold a password: `Debug` prints it without.
#[derive(Clone)]
pub struct ProxyUrl(pub Url);

impl std::fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}://{}:{}",
            self.0.scheme(),
            self.0.host_str().unwrap_or(""),
            self.0.port_or_known_default().unwrap_or(0)
        )
    }
}

#[derive(Clone, Debug)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Auto,
    Json,
    Pretty,
}

#[derive(Clone, Debug)]
pub struct Admin {
    pub listen: std::net::SocketAddr,
    pub token: Option<SecretRef>,
}
