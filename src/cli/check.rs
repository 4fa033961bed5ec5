//! `opship check`: every part of the setup, a line each, with the remedy. Nothing durable is changed, and a running agent is not disturbed.
//!
//! Steps that do not depend on each other run at once and are printed in order, each as soon as those before it are over.

pub(super) mod azure;
pub(super) mod network;
pub(super) mod print;
pub(super) mod source;
pub(super) mod step;
pub(super) mod store;
pub(super) mod table;
pub(super) mod twins;

use super::{CliError, Exit, Output, loaded};
use crate::agent::chain;
use crate::config::{self, Config, ConfigError, Log, Need, Timer};
use crate::http::descriptors::Shortage;
use crate::secret::SecretRef;
use crate::telemetry;
use crate::wire::{self, Outside, WireError};
use azure::Destination;
use futures_util::FutureExt;
use futures_util::future::join_all;
use network::{Clocks, Place, clock, connection, proxy};
use print::{Printer, Tally};
use source::{Subject, secret};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use step::{Finding, Pending, Plan};
use store::Keeping;
use table::columns;

pub(super) async fn check(file: Option<PathBuf>, output: Output) -> Result<Exit, CliError> {
    let (begun, printer) = (Instant::now(), Printer::new(output));
    let steps = steps(file).await;
    let printed = async {
        for step in &steps {
            printer.step(&*step.clone().await)?;
        }
        Ok::<_, CliError>(())
    };
    let (done, printed) = tokio::join!(join_all(steps.clone()), printed);
    printed?;
    let tally = Tally::of(done.iter().map(AsRef::as_ref));
    printer.summary(tally, begun.elapsed())?;
    Ok(tally.exit)
}

/// Every step of this configuration, in the order in which they are to be read.
async fn steps(file: Option<PathBuf>) -> Vec<Pending> {
    let from = origin(file.as_deref());
    let config = match load(file) {
        Ok(config) => config,
        Err(error) => return vec![ended(refused(&error))],
    };
    telemetry::init(&quiet(&config.log));
    match Outside::look(&config).await {
        Ok((outside, trouble)) => plan(config, Arc::new(outside), trouble, &from),
        Err(error) => {
            let remedy = match &error {
                WireError::Http(error) => error.remedy.unwrap_or(
                    "correct [http]: http.ca_file must be a readable PEM file of certificates, http.proxy a URL",
                ),
                _ => "correct the setting",
            };
            vec![ended(Finding::fail(Exit::Usage, chain(&error), remedy))]
        }
    }
}

/// Variables of secrets that are not set are told by the steps of those secrets, so that the rest can be looked at all the same.
fn load(file: Option<PathBuf>) -> Result<Config, ConfigError> {
    let error = match loaded(file.clone(), Need::Everything) {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    let has_a_step = |key: &str| {
        let of_an_account = key.strip_prefix("accounts.").and_then(|rest| rest.strip_suffix(".token"));
        of_an_account.is_some() || ["azure.client_secret", "azure.certificate"].contains(&key)
    };
    match loaded(file, Need::WhatIsThere) {
        Ok(config) if is_whole(&config) && error.problems.iter().all(|problem| has_a_step(&problem.key)) => Ok(config),
        _ => Err(error),
    }
}

/// Whether there is something to ship and a place for it in Azure, whose steps name the rest.
fn is_whole(config: &Config) -> bool {
    let has_store = !matches!(config.store, config::Store::Unset);
    !config.accounts.is_empty() && has_store && matches!(config.sink, config::Sink::Azure { .. })
}

fn plan(config: Config, outside: Arc<Outside>, trouble: Option<WireError>, from: &str) -> Vec<Pending> {
    let mut all = vec![ended(Finding::ok(summary(&config, from)))];
    let (config, clocks) = (Arc::new(config), Arc::new(Clocks::default()));
    let proxy = proxy(&config.http);
    let connect = |place: Place| connection(place, &outside, &clocks, proxy.as_ref());

    let destination = Destination { config: config.clone(), outside: outside.clone() };
    let authority = outside.authority().map(|url| connect(Place::of("identity", url, "azure.cloud")));
    let key = identity_secret(&config, &outside);
    let identity = destination.identity(trouble, key.iter().chain(&authority));
    let rule_connection = destination.place().map(&connect);
    let rule = destination.accepts(rule_connection.as_ref(), identity.as_ref());

    let table = columns(&config, &outside, &rule);

    let keeping = Keeping { config: config.clone(), outside: outside.clone() };
    let store_connection = keeping.place().map(&connect);
    let sas = keeping.sas(&clocks, store_connection.as_ref());
    let credential = if keeping.is_by_identity() { identity.as_ref() } else { sas.as_ref() };
    let store = keeping.works(store_connection.iter().chain(credential));

    let elsewhere: Vec<Pending> = rule_connection.iter().chain(&store_connection).cloned().collect();
    let (mut accounts, mut introduced, mut connections) = (Vec::new(), Vec::new(), elsewhere.clone());
    let subject = |(name, account)| Arc::new(Subject::new(name, account, &outside, &clocks));
    let subjects = Arc::new(config.accounts.iter().map(subject).collect::<Vec<_>>());
    for subject in subjects.iter() {
        let steps = subject.steps(identity.as_ref(), proxy.as_ref(), &elsewhere);
        connections.push(steps.connection.clone());
        introduced.push(steps.account.clone());
        accounts.extend(steps.in_order());
    }
    // Two entries may be one account: that is known when each has said who it is.
    let state = |subject| keeping.state(subject, &subjects, &store, &introduced);
    let states: Vec<Pending> = subjects.iter().map(state).collect();
    let clock = clock(&clocks, &connections);

    all.extend(open_files(&config));
    all.extend(proxy.iter().cloned());
    all.extend(accounts);
    all.extend(more_secrets(&config, &outside, identity.as_ref()));
    all.extend(key);
    all.extend(authority);
    all.extend(identity);
    all.extend(rule_connection);
    all.push(rule);
    all.extend(table);
    all.extend(store_connection);
    all.extend(sas);
    all.push(store);
    all.extend(states);
    all.push(clock);
    all
}

/// A line only where feeds would wait for one another.
fn open_files(config: &Config) -> Option<Pending> {
    let (feeds, Shortage { limit, remedy, .. }) = (wire::demand(config).feeds, wire::demand(config).shortage()?);
    let said = format!("{feeds} feeds, and {limit} files may be open here: {}", Shortage::WHAT);
    Some(Plan::new("open files", "").run(std::future::ready(Finding::warn(said, remedy))))
}

/// The secret of the Azure identity, where it has one and is needed.
fn identity_secret(config: &Config, outside: &Arc<Outside>) -> Option<Pending> {
    outside.identity()?;
    let named =
        [("azure.client_secret", &config.azure.client_secret), ("azure.certificate", &config.azure.certificate)];
    let (key, reference) = named.into_iter().find_map(|(key, reference)| Some((key, reference.clone()?)))?;
    let outside = outside.clone();
    Some(Plan::new("secret", key).run(async move { secret(&outside, &reference, key).await.1 }))
}

/// The secrets that belong to no account and not to the identity.
fn more_secrets(config: &Config, outside: &Arc<Outside>, identity: Option<&Pending>) -> Vec<Pending> {
    let named = [("filter.redact_key", &config.filter.redact_key), ("admin.token", &config.admin.token)];
    let step = |(key, reference): (&'static str, &Option<SecretRef>)| {
        let (reference, outside) = (reference.clone()?, outside.clone());
        let vault = identity.filter(|_| matches!(reference, SecretRef::KeyVault(_)));
        let plan = Plan::new("secret", key).needs(vault);
        Some(plan.run(async move { secret(&outside, &reference, key).await.1 }))
    };
    named.into_iter().filter_map(step).collect()
}

/// The configuration itself: over before anything else begins.
fn ended(finding: Finding) -> Pending {
    let step = Plan::new("configuration", "").run(async { finding });
    // Polled once, so that its time is not that of its turn to be printed.
    let _ = step.clone().now_or_never();
    step
}

fn refused(error: &ConfigError) -> Finding {
    match error.problems.as_slice() {
        [only] => Finding::fail(Exit::Usage, only.to_string(), "correct it; config.example.toml shows every key"),
        several => Finding::fail(Exit::Usage, format!("{} problems", several.len()), error.to_string()),
    }
}

/// Where the configuration came from.
fn origin(file: Option<&Path>) -> String {
    let usual = ["./opship.toml", "/etc/opship/config.toml"].map(Path::new);
    let file = file.or_else(|| usual.into_iter().find(|path| path.exists()));
    let variables = std::env::vars_os()
        .filter(|(name, value)| name.to_str().is_some_and(|name| name.starts_with("OPSHIP_")) && !value.is_empty());
    let variables = match variables.count() {
        0 => None,
        1 => Some("1 environment variable".to_owned()),
        several => Some(format!("{several} environment variables")),
    };
    let parts: Vec<String> = file.map(|path| path.display().to_string()).into_iter().chain(variables).collect();
    parts.join(" and ")
}

fn summary(config: &Config, from: &str) -> String {
    let feeds: usize = config.accounts.values().map(|account| account.streams.len()).sum();
    let names: Vec<&str> = config.accounts.keys().map(|name| name.as_str()).collect();
    let timer = match &config.schedule.timer {
        Timer::Cron(cron) => format!("by cron \"{cron}\""),
        Timer::Every(every) => format!("every {}", humantime::format_duration(*every)),
    };
    let (accounts, streams) = (plural(names.len(), "account"), plural(feeds, "feed"));
    format!("{from}: {accounts} ({}), {streams}, {timer}", names.join(", "))
}

pub(super) fn plural(count: usize, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}

/// The steps say what the log would say: unless more was asked for, it keeps quiet.
fn quiet(log: &Log) -> Log {
    let level = if matches!(log.level.as_str(), "info" | "warn") { "error".into() } else { log.level.clone() };
    Log { level, format: log.format }
}
