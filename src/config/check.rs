//! From what was written to [`Config`]: bounds, references, hosts and keys that exclude or demand each other.

use super::edges;
use super::hosts::{HostRules, Service, allowed_host, check_url};
use super::load::{Need, origin_of, variable_of};
use super::problem::{ConfigError, Problems, did_you_mean, found, nearest};
use super::raw::{self, RawAccount, RawConfig, RawDelivery, RawFilter, RawHttp, RawSchedule};
use super::values::{self, DAY, LOOKBACK_MAX, SECOND};
use super::{Account, Admin, Config, Delivery, Filter, Http, Log, ProxyUrl, Schedule, Sink, Store, Sweep, Timer};
use crate::flow::decode::{COLUMNS, Column, Kind};
use crate::flow::{AccountName, Stream};
use crate::secret::SecretRef;
use figment::Figment;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use url::Url;

/// Longest interval and retention that is taken for intended.
const EVERY_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The API returns events for 120 days, so no re-read can find an id forgotten after 121.
const LEDGER_KEEP: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(121 * 24 * 3600)..=Duration::from_secs(3660 * 24 * 3600);

/// Where values came from, and what is wrong so far.
pub(super) struct Context {
    pub(super) figment: Figment,
    /// Names the file, or says that there is none.
    pub(super) file_origin: String,
    pub(super) env: BTreeMap<String, String>,
    pub(super) need: Need,
    pub(super) problems: Problems,
}

impl Context {
    pub(super) fn bad(&mut self, key: &str, what: impl Into<String>) {
        let origin = origin_of(&self.figment, key).unwrap_or_else(|| self.file_origin.clone());
        self.problems.add_first(origin, key, what);
    }

    pub(super) fn missing(&mut self, key: &str, why: &str) {
        self.bad(key, format!("missing: {why}; set it in the file or by {}", variable_of(key)));
    }

    pub(super) fn take<T>(&mut self, key: &str, checked: Result<T, String>) -> Option<T> {
        checked.map_err(|what| self.bad(key, what)).ok()
    }

    pub(super) fn duration(&mut self, key: &str, text: &str, bounds: std::ops::RangeInclusive<Duration>) -> Duration {
        self.take(key, values::duration(text, bounds)).unwrap_or_default()
    }

    /// A URL of a service, by the host rules, without a query; a path is for proxies only.
    pub(super) fn service_url(&mut self, key: &str, text: &str, service: Service, rules: &HostRules) -> Option<Url> {
        let url = self.take(key, values::url(text))?;
        self.take(key, check_url(&url, service, rules))?;
        if url.query().is_some() {
            return self.take(key, Err("a query (`?...`) in the URL is not allowed".into()));
        }
        let official = HostRules { cloud: rules.cloud, ..HostRules::default() };
        if url.path() != "/" && check_url(&url, service, &official).is_ok() {
            return self.take(key, Err("expected scheme and host only, without a path".into()));
        }
        Some(url)
    }

    pub(super) fn secret(&mut self, key: &str, text: &str, rules: &HostRules) -> Option<SecretRef> {
        let reference = self.take(key, SecretRef::parse(text).map_err(|err| err.to_string()))?;
        match &reference {
            SecretRef::KeyVault(url) => self.take(key, check_url(url, Service::KeyVault, rules))?,
            SecretRef::Env(name)
                if self.need == Need::Everything && self.env.get(name).is_none_or(String::is_empty) =>
            {
                self.take(key, Err(format!("the environment variable {name} that it names is not set")))?;
            }
            SecretRef::Env(_) | SecretRef::File(_) => {}
        }
        Some(reference)
    }
}

/// Checks everything, then answers with all problems or none.
pub(super) fn check(mut raw: RawConfig, mut cx: Context) -> Result<Config, ConfigError> {
    let delivery = delivery(&raw.delivery, &mut cx);
    let rules = HostRules {
        cloud: raw.azure.cloud,
        allow_insecure_loopback: delivery.allow_insecure_loopback,
        allow_hosts: delivery.allow_hosts.clone(),
    };
    let accounts = accounts(&raw.accounts, &rules, &mut cx);
    let schedule = schedule(&raw.schedule, &mut cx);
    let sweep = Stream::ALL.map(|stream| (stream, sweep(stream, &mut raw, &mut cx))).into();
    let sink = edges::sink(&raw.sink, &rules, &mut cx);
    let store = edges::store(&raw.store, &rules, &mut cx);
    let azure = edges::azure(&raw, &rules, &mut cx);
    let ledger_keep = cx.duration("ledger.keep", &raw.ledger.keep, LEDGER_KEEP);
    let filter = filter(&raw.filter, &rules, &mut cx);
    let http = http(&raw.http, &mut cx);
    let level = cx.take("log.level", values::log_level(&raw.log.level)).unwrap_or_default();
    let log = Log { level, format: raw.log.format };
    let admin = admin(&raw.admin, &rules, &mut cx);
    let (sink, store, admin) = match (sink, store, admin) {
        (Some(sink), Some(store), Some(admin)) if cx.problems.is_empty() => (sink, store, admin),
        (sink, store, Some(admin)) if cx.need == Need::WhatIsReadable => {
            (sink.unwrap_or(Sink::Unset), store.unwrap_or(Store::Unset), admin)
        }
        _ => return Err(cx.problems.into()),
    };
    let mut config =
        Config { accounts, schedule, sweep, sink, store, azure, ledger_keep, delivery, filter, http, log, admin };
    // A proxy that could not be read must not be gone around.
    if cx.problems.concern_the_network() {
        leave_out_the_network(&mut config);
    }
    Ok(config)
}

/// Without a store or a secret that lies behind the network.
fn leave_out_the_network(config: &mut Config) {
    let is_near = |reference: &SecretRef| !matches!(reference, SecretRef::KeyVault(_));
    config.accounts.retain(|_, account| is_near(&account.token));
    for reference in [&mut config.admin.token, &mut config.azure.client_secret, &mut config.filter.redact_key] {
        *reference = reference.take().filter(is_near);
    }
    if matches!(config.store, Store::AzureBlob { .. }) {
        config.store = Store::Unset;
    }
}

fn accounts(raw: &BTreeMap<String, RawAccount>, rules: &HostRules, cx: &mut Context) -> BTreeMap<AccountName, Account> {
    if raw.is_empty() && cx.need == Need::Everything {
        cx.missing(
            "accounts.default.token",
            "at least one 1Password account is needed, [accounts.NAME] with its token",
        );
    }
    let mut accounts = BTreeMap::new();
    for (name, raw) in raw {
        let section = format!("accounts.{name}");
        match AccountName::parse(name) {
            Some(name) => accounts.extend(account(&section, raw, rules, cx).map(|account| (name, account))),
            None => cx.bad(&section, "expected a name of 1 to 63 characters of a-z, 0-9 and -"),
        }
    }
    accounts
}

fn account(section: &str, raw: &RawAccount, rules: &HostRules, cx: &mut Context) -> Option<Account> {
    let token_key = format!("{section}.token");
    let token = match &raw.token {
        Some(text) => cx.secret(&token_key, text, rules),
        None => {
            cx.missing(&token_key, "a reference to the Events API token such as \"env:OP_EVENTS_TOKEN\"");
            None
        }
    };
    let events_url_key = format!("{section}.events_url");
    let events_url =
        raw.events_url.as_ref().and_then(|text| cx.service_url(&events_url_key, text, Service::Events, rules));
    let streams_key = format!("{section}.streams");
    if raw.streams.is_empty() {
        cx.bad(&streams_key, "expected at least one stream; leave the key out for all");
    }
    let distinct: BTreeSet<Stream> = raw.streams.iter().copied().collect();
    if distinct.len() < raw.streams.len() {
        cx.bad(&streams_key, "a stream is named twice");
    }
    Some(Account { token: token?, events_url, api: raw.api, streams: raw.streams.clone() })
}

fn schedule(raw: &RawSchedule, cx: &mut Context) -> Schedule {
    let timer = match (&raw.cron, &raw.every) {
        (Some(_), Some(_)) => {
            cx.bad("schedule.every", "excludes `schedule.cron`: set one of the two");
            None
        }
        (None, Some(every)) => Some(Timer::Every(cx.duration("schedule.every", every, SECOND..=EVERY_MAX))),
        (Some(cron), None) => cx.take("schedule.cron", values::cron(cron)).map(Timer::Cron),
        (None, None) => None,
    };
    let lookback = cx.take("schedule.lookback", values::lookback(&raw.lookback));
    Schedule {
        timer: timer.unwrap_or_else(|| Timer::Cron(raw::CRON.into())),
        overlap: cx.duration("schedule.overlap", &raw.overlap, Duration::ZERO..=DAY),
        lookback: lookback.unwrap_or(super::Lookback::Now),
    }
}

fn sweep(stream: Stream, raw: &mut RawConfig, cx: &mut Context) -> Sweep {
    let (every, horizon) = raw::sweep_defaults(stream);
    let raw = raw.sweep.of(stream);
    let shortest = Duration::from_nanos(1);
    Sweep {
        every: cx.duration(&format!("sweep.{stream}.every"), raw.every.as_deref().unwrap_or(every), SECOND..=EVERY_MAX),
        horizon: cx.duration(
            &format!("sweep.{stream}.horizon"),
            raw.horizon.as_deref().unwrap_or(horizon),
            shortest..=LOOKBACK_MAX,
        ),
    }
}

fn delivery(raw: &RawDelivery, cx: &mut Context) -> Delivery {
    let mut allow_hosts = BTreeSet::new();
    for entry in &raw.allow_hosts {
        let host =
            allowed_host(entry.trim()).ok_or("expected a list of HOST or HOST:PORT, without scheme, path or `*`");
        allow_hosts.extend(cx.take("delivery.allow_hosts", host.map_err(Into::into)));
    }
    Delivery {
        on_in_doubt: raw.on_in_doubt,
        verify_after: cx.duration("delivery.verify_after", &raw.verify_after, SECOND..=DAY),
        batch_rows_max: raw.batch_rows_max,
        heartbeat_every: cx.duration("delivery.heartbeat_every", &raw.heartbeat_every, SECOND..=DAY),
        allow_insecure_loopback: raw.allow_insecure_loopback,
        allow_hosts,
    }
}

/// Columns that may be redacted: all but those that rows are found by. Checked because a misspelt one would silently redact nothing.
fn redactable() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(|column| !matches!(column.name, "uuid_s" | "timestamp"))
}

fn redact_path(path: &str) -> Result<(), String> {
    let (column, rest) = path.split_once('.').map_or((path, None), |(column, rest)| (column, Some(rest)));
    if let Some(rest) = rest
        && !rest.split('.').all(|part| values::word(part, "_", "").is_ok())
    {
        return Err("expected a list of column paths such as \"client.ip_address\"".into());
    }
    match (redactable().find(|known| known.name == column), rest) {
        (Some(Column { kind: Kind::Dynamic, .. }), _) | (Some(_), None) => Ok(()),
        (Some(_), Some(_)) => Err(format!("the column `{column}` has no fields: leave out what follows it")),
        (None, _) => {
            let hint = did_you_mean(nearest(column, redactable().map(|known| known.name)));
            Err(format!("the first part of a path must be a column that may be redacted{}{hint}", found(column)))
        }
    }
}

fn filter(raw: &RawFilter, rules: &HostRules, cx: &mut Context) -> Filter {
    for path in &raw.redact {
        cx.take("filter.redact", redact_path(path));
    }
    for action in &raw.drop_audit_actions {
        let action = values::word(action, "_-.", "a list of audit actions such as \"dlgsess\"");
        cx.take("filter.drop_audit_actions", action);
    }
    Filter {
        drop_audit_actions: raw.drop_audit_actions.iter().cloned().collect(),
        redact: raw.redact.clone(),
        redact_key: raw.redact_key.as_ref().and_then(|text| cx.secret("filter.redact_key", text, rules)),
    }
}

fn http(raw: &RawHttp, cx: &mut Context) -> Http {
    let proxy = raw.proxy.as_ref().and_then(|text| {
        let url = cx.take("http.proxy", values::url(text))?;
        match matches!(url.scheme(), "http" | "https") && url.has_host() {
            true => Some(ProxyUrl(url)),
            false => cx.take("http.proxy", Err("expected http://HOST:PORT or https://HOST:PORT".into())),
        }
    });
    Http { proxy, no_proxy: raw.no_proxy.clone(), ca_file: raw.ca_file.as_ref().map(Into::into) }
}

fn admin(raw: &raw::RawAdmin, rules: &HostRules, cx: &mut Context) -> Option<Admin> {
    let token = raw.token.as_ref().and_then(|text| cx.secret("admin.token", text, rules));
    let listen = raw.listen.trim().replace("localhost:", "127.0.0.1:").parse::<SocketAddr>();
    let expected = || "expected ADDRESS:PORT such as 127.0.0.1:9464".to_owned();
    let listen = match cx.take("admin.listen", listen.map_err(|_| expected())) {
        None if cx.need == Need::WhatIsReadable => raw::RawAdmin::default().listen.parse().ok(),
        listen => listen,
    }?;
    if !listen.ip().is_loopback() && raw.token.is_none() {
        cx.missing("admin.token", "demanded because `admin.listen` is not a loopback address");
    }
    Some(Admin { listen, token })
}
