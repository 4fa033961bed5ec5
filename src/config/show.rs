//! Prints the configuration: what is in force, and what can be written.

use super::raw::{RawAccount, RawConfig, RawSink, RawStore, SinkKind, StoreKind};
use super::raw::{RawAdmin, RawAzure, RawDelivery, RawFilter, RawHttp, RawLedger, RawLog, RawSchedule};
use super::values::written;
use super::{Account, Azure, Config, ContainerUrl, Http, Lookback, ProxyUrl, Schedule, Sink, Store, Timer};
use crate::secret::SecretRef;
use std::path::Path;

/// What stands for a part that is not shown.
const HIDDEN: &str = "***";

/// Every setting in force as TOML, defaults included; secrets as references, a SAS and a proxy's user as `***`.
/// It loads again, but for those two.
pub fn normalised_toml(config: &Config) -> String {
    // a struct of strings, numbers and lists has a form in TOML; an error here is a bug that the text reports
    toml::to_string(&shown(config)).unwrap_or_else(|err| format!("# cannot be shown: {err}\n"))
}

/// The same as JSON.
pub fn normalised_json(config: &Config) -> String {
    serde_json::to_string_pretty(&shown(config)).unwrap_or_else(|err| format!("{{\"error\":\"{err}\"}}"))
}

/// JSON Schema of the file, draft 2020-12, for editors.
pub fn schema() -> String {
    format!("{:#}", super::schema::json_schema())
}

/// The configuration as it would be written.
fn shown(config: &Config) -> RawConfig {
    let mut raw = RawConfig {
        accounts: config.accounts.iter().map(|(name, account)| (name.to_string(), shown_account(account))).collect(),
        schedule: shown_schedule(&config.schedule),
        sink: shown_sink(&config.sink),
        store: shown_store(&config.store),
        azure: shown_azure(&config.azure),
        ledger: RawLedger { keep: written(config.ledger_keep) },
        delivery: RawDelivery {
            on_in_doubt: config.delivery.on_in_doubt,
            verify_after: written(config.delivery.verify_after),
            batch_rows_max: config.delivery.batch_rows_max,
            heartbeat_every: written(config.delivery.heartbeat_every),
            allow_insecure_loopback: config.delivery.allow_insecure_loopback,
            allow_hosts: config.delivery.allow_hosts.iter().cloned().collect(),
        },
        filter: RawFilter {
            drop_audit_actions: config.filter.drop_audit_actions.iter().cloned().collect(),
            redact: config.filter.redact.clone(),
            redact_key: shown_secret(&config.filter.redact_key),
        },
        http: shown_http(&config.http),
        log: RawLog { level: config.log.level.clone(), format: config.log.format },
        admin: RawAdmin { listen: config.admin.listen.to_string(), token: shown_secret(&config.admin.token) },
        ..RawConfig::default()
    };
    for (stream, sweep) in &config.sweep {
        let raw = raw.sweep.of(*stream);
        raw.every = Some(written(sweep.every));
        raw.horizon = Some(written(sweep.horizon));
    }
    raw
}

fn shown_secret(reference: &Option<SecretRef>) -> Option<String> {
    reference.as_ref().map(ToString::to_string)
}

fn shown_account(account: &Account) -> RawAccount {
    RawAccount {
        token: Some(account.token.to_string()),
        events_url: account.events_url.as_ref().map(ToString::to_string),
        api: account.api,
        streams: account.streams.clone(),
    }
}

fn shown_schedule(schedule: &Schedule) -> RawSchedule {
    let (cron, every) = match &schedule.timer {
        Timer::Cron(cron) => (Some(cron.clone()), None),
        Timer::Every(every) => (None, Some(written(*every))),
    };
    let lookback = match schedule.lookback {
        Lookback::Back(back) => written(back),
        Lookback::From(time) => time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        Lookback::Now => "now".into(),
    };
    RawSchedule { cron, every, overlap: written(schedule.overlap), lookback }
}

fn shown_sink(sink: &Sink) -> RawSink {
    match sink {
        Sink::Azure { endpoint, dcr_immutable_id, stream, gzip_level } => RawSink {
            kind: Some(SinkKind::Azure),
            endpoint: Some(endpoint.to_string()),
            dcr_immutable_id: Some(dcr_immutable_id.clone()),
            stream: Some(stream.clone()),
            gzip_level: Some(*gzip_level),
            path: None,
        },
        Sink::Ndjson { path, stream } => RawSink {
            kind: Some(SinkKind::Ndjson),
            path: Some(shown_path(path)),
            stream: Some(stream.clone()),
            ..RawSink::default()
        },
        Sink::Unset => RawSink::default(),
    }
}

fn shown_store(store: &Store) -> RawStore {
    match store {
        Store::File { path } => {
            RawStore { kind: Some(StoreKind::File), path: Some(shown_path(path)), container_url: None }
        }
        Store::AzureBlob { container } => {
            RawStore { kind: Some(StoreKind::AzureBlob), container_url: Some(shown_container(container)), path: None }
        }
        Store::Unset => RawStore::default(),
    }
}

fn shown_container(container: &ContainerUrl) -> String {
    let sas = if container.has_sas() { format!("?{HIDDEN}") } else { String::new() };
    format!("{}{sas}", container.without_sas())
}

fn shown_path(path: &Path) -> String {
    path.display().to_string()
}

fn shown_azure(azure: &Azure) -> RawAzure {
    RawAzure {
        credential: azure.credential,
        client_id: azure.client_id.clone(),
        tenant_id: azure.tenant_id.clone(),
        client_secret: shown_secret(&azure.client_secret),
        certificate: shown_secret(&azure.certificate),
        workspace_id: azure.workspace_id.clone(),
        workspace_url: azure.workspace_url.as_ref().map(ToString::to_string),
        cloud: azure.cloud,
    }
}

fn shown_http(http: &Http) -> RawHttp {
    RawHttp {
        proxy: http.proxy.as_ref().map(shown_proxy),
        no_proxy: http.no_proxy.clone(),
        ca_file: http.ca_file.as_deref().map(shown_path),
    }
}

/// Scheme, host and port; a path or query of a proxy means nothing and is left out.
fn shown_proxy(ProxyUrl(url): &ProxyUrl) -> String {
    let has_user = !url.username().is_empty() || url.password().is_some();
    let user = if has_user { format!("{HIDDEN}@") } else { String::new() };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{user}{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}
