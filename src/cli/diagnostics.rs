//! `opship diagnostics`: one redacted archive for a support ticket.

pub(super) mod archive;
pub(super) mod scrub;

use super::checkpoint::shown;
use super::dead_letters::for_support;
use super::status::own_server::{AdminToken, Unproven};
use super::{CliError, Exit, Output, loaded, print};
use crate::agent::chain;
use crate::config::{self, Config, ConfigError, ConfigFile, ContainerUrl, Need, ProxyUrl, show};
use crate::flow::FeedId;
use crate::http;
use crate::secret::SecretRef;
use crate::store::Store;
use crate::wire::Outside;
use archive::{Archive, Destination, Part};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use scrub::Scrub;
use secrecy::ExposeSecret;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// No part takes longer; what is not there by then is named in the manifest.
const PART_DEADLINE: Duration = Duration::from_secs(90);
/// The running agent answers from memory.
const ADMIN_DEADLINE: Duration = Duration::from_secs(10);
const ADMIN_BODY_MAX: usize = 8 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct DiagnosticsArgs {
    /// The archive, never overwritten; - writes it to stdout [default: ./opship-diagnostics-TIME.tar.gz]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) async fn diagnostics(
    file: Option<PathBuf>,
    args: DiagnosticsArgs,
    output: Output,
) -> Result<Exit, CliError> {
    let now = chrono::Utc::now();
    let name = format!("opship-diagnostics-{}", now.format("%Y%m%dT%H%M%SZ"));
    let destination = Destination::prepare(args.out, &name)?;
    let (config, broken) = match loaded(file.clone(), Need::WhatIsThere) {
        Ok(config) => (Ok(config), None),
        Err(broken) => (loaded(file.clone(), Need::WhatIsReadable), Some(broken)),
    };
    let mut archive = Archive::new(name, now, Scrub::new(secrets(&config).await));
    archive.add(Part::VERSION, Ok(version(now, file.as_deref())));
    let outside = match &config {
        Ok(config) => {
            archive.add(Part::CONFIG, Ok(problems(broken.as_ref()) + &show::normalised_toml(config)));
            Outside::new(config).await.map_err(|error| chain(&error))
        }
        Err(error) => {
            archive.add(Part::CONFIG, Err(error.to_string()));
            Err("the configuration cannot be read".to_owned())
        }
    };
    if let Some(lines) = broken.and_then(|_| config::as_written(&ConfigFile::from_flag(file.clone()))) {
        archive.add(Part::AS_WRITTEN, Ok(lines));
    }
    archive.add(Part::CHECK, in_time(check(file.as_deref())).await);
    for (part, content) in of_store(config.as_ref().ok(), &outside).await {
        archive.add(part, content);
    }
    let admin = Admin::new(config.as_ref().ok(), outside.as_ref().ok()).await;
    for part in [Part::LOGS, Part::METRICS, Part::STATUS] {
        let content = match &admin {
            Ok(admin) => admin.get(part.path).await,
            Err(why) => Err(why.clone()),
        };
        archive.add(part, content);
    }
    let (missing, written) = (archive.missing(), destination.write(archive)?);
    let Some(path) = written else { return Ok(Exit::Done) };
    let path = path.display().to_string();
    match output {
        Output::Json => print(&json!({ "archive": path, "missing": missing }).to_string()),
        Output::Text => {
            print(&path)?;
            let gaps = if missing.is_empty() { String::new() } else { format!("; without {}", missing.join(", ")) };
            eprintln!(
                "opship: written{gaps}; MANIFEST.txt in it says what it holds and what was left out: look before you send it"
            );
            Ok(Exit::Done)
        }
    }
}

/// What keeps the configuration from being used, as comments before what could be read of it.
fn problems(broken: Option<&ConfigError>) -> String {
    let Some(broken) = broken else { return String::new() };
    let lines: String = broken.to_string().lines().map(|line| format!("#   {line}\n")).collect();
    format!("# This configuration is refused:\n{lines}# What could be read of it, with the defaults:\n\n")
}

async fn in_time<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("not done within {} s", PART_DEADLINE.as_secs()));
    tokio::time::timeout(PART_DEADLINE, work).await.unwrap_or_else(late)
}

/// The values of the secrets that the configuration refers to: where one stands in a text by mistake, it is hidden.
async fn secrets(config: &Result<Config, ConfigError>) -> Vec<String> {
    let Ok(config) = config else { return Vec::new() };
    let Ok(outside) = Outside::new(config).await else { return Vec::new() };
    let tokens = config.accounts.values().map(|account| &account.token);
    let others = [&config.admin.token, &config.azure.client_secret, &config.filter.redact_key];
    let mut secrets: Vec<String> = in_urls(config).chain(std::env::var("IDENTITY_HEADER")).collect();
    for reference in tokens.chain(others.into_iter().flatten()) {
        if let Ok(Ok(secret)) = tokio::time::timeout(ADMIN_DEADLINE, outside.secret(reference)).await {
            secrets.push(secret.expose_secret().to_owned());
        }
    }
    secrets
}

/// The SAS of the container and the login of the proxy.
fn in_urls(config: &Config) -> impl Iterator<Item = String> {
    let sas = match &config.store {
        config::Store::AzureBlob { container: ContainerUrl(url) } => url.query().map(str::to_owned),
        config::Store::File { .. } | config::Store::Unset => None,
    };
    let signature = |sas: &String| {
        let pairs = url::form_urlencoded::parse(sas.as_bytes());
        pairs.filter(|(name, _)| name == "sig").map(|(_, signature)| signature.into_owned()).next()
    };
    let signature = sas.as_ref().and_then(signature);
    let proxy = config.http.proxy.as_ref().map(|ProxyUrl(url)| url);
    let password = proxy.and_then(|url| url.password().map(str::to_owned));
    let basic = proxy.and_then(|url| Some(BASE64_STANDARD.encode(format!("{}:{}", url.username(), url.password()?))));
    [sas, signature, password, basic].into_iter().flatten()
}

fn version(now: chrono::DateTime<chrono::Utc>, file: Option<&Path>) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        found.trim_matches(['=', ':', ' ', '"']).to_owned()
    };
    let (release, memory) = (read("/etc/os-release"), read("/proc/meminfo"));
    let mut variables: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("OPSHIP_") || name.starts_with("IDENTITY_") || name.starts_with("AZURE_"))
        .collect();
    variables.sort();
    let version = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "distribution": line(&release, "PRETTY_NAME"),
        "memory": line(&memory, "MemTotal"),
        "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "clock": now.to_rfc3339(),
        "config_file": file.map(|file| file.display().to_string()),
        "variables_set": variables,
    });
    format!("{version:#}\n")
}

/// The program itself in a process of its own: a check that hangs or dies takes nothing with it.
async fn check(file: Option<&Path>) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| format!("find the program: {error}"))?;
    let mut command = tokio::process::Command::new(program);
    command.args(["check", "--output", "json"]).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    let done = command.output().await.map_err(|error| format!("run `opship check`: {error}"))?;
    let ended = done.status.code().map_or_else(|| done.status.to_string(), |code| code.to_string());
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    Ok(format!("{}\n{}\n", said.trim_end(), json!({ "exit_code": ended })))
}

async fn of_store(config: Option<&Config>, outside: &Result<Outside, String>) -> [(Part, Result<String, String>); 3] {
    let store = match outside {
        Ok(outside) => in_time(async { outside.store().await.map_err(|error| chain(&error)) }).await,
        Err(why) => Err(why.clone()),
    };
    let (store, config) = match (store, config) {
        (Ok(store), Some(config)) => (store, config),
        (store, _) => {
            let why = store.err().unwrap_or_default();
            return [Part::CHECKPOINTS, Part::STORE, Part::LETTERS].map(|part| (part, Err(why.clone())));
        }
    };
    [
        (Part::CHECKPOINTS, in_time(checkpoints(config, &*store)).await),
        (Part::STORE, in_time(statistics(&*store)).await),
        (Part::LETTERS, in_time(async { for_support(store.clone()).await.map_err(|error| chain(&error)) }).await),
    ]
}

async fn checkpoints(config: &Config, store: &dyn Store) -> Result<String, String> {
    let mut text = String::new();
    for (account, settings) in &config.accounts {
        for stream in &settings.streams {
            let feed = FeedId { account: account.clone(), stream: *stream };
            match shown(store, &feed, Output::Json).await {
                Ok(line) => text.push_str(&line),
                Err(error) => {
                    text.push_str(&format!("{}\n", json!({ "feed": feed.to_string(), "error": chain(&error) })))
                }
            }
        }
    }
    Ok(text)
}

/// What the agent proves the store with: nothing of it is kept there.
const PROBES: &str = "probe/";

/// Documents and bytes by folder, and of each ledger its hours: no content.
async fn statistics(store: &dyn Store) -> Result<String, String> {
    #[derive(Default, serde::Serialize)]
    struct Sum {
        documents: u64,
        bytes: u64,
        youngest_s: Option<u64>,
        oldest_s: Option<u64>,
        /// Of a ledger: its hours are in the order of their names.
        #[serde(skip_serializing_if = "Option::is_none")]
        first: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        last: Option<String>,
    }
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for entry in store.list("").await.map_err(|error| chain(&error))? {
        if entry.key.as_str().starts_with(PROBES) {
            continue;
        }
        let (folder, name) = entry.key.as_str().rsplit_once('/').unwrap_or(("", entry.key.as_str()));
        let sum = sums.entry(folder.to_owned()).or_default();
        let age = entry.age.as_secs();
        sum.documents += 1;
        sum.bytes += entry.len;
        sum.youngest_s = Some(sum.youngest_s.map_or(age, |youngest| youngest.min(age)));
        sum.oldest_s = Some(sum.oldest_s.map_or(age, |oldest| oldest.max(age)));
        if folder.starts_with("ledger/") {
            sum.first.get_or_insert_with(|| name.to_owned());
            sum.last = Some(name.to_owned());
        }
    }
    Ok(format!("{:#}\n", json!({ "place": store.place(), "folders": sums })))
}

/// The admin server of a running agent.
struct Admin {
    address: SocketAddr,
    client: reqwest::Client,
    token: Option<AdminToken>,
}

impl Admin {
    async fn new(config: Option<&Config>, outside: Option<&Outside>) -> Result<Self, String> {
        let admin = &config.ok_or("the configuration cannot be read")?.admin;
        let address = reachable(admin.listen);
        if address.port() == 0 {
            return Err("admin.listen has port 0: which port was taken stands in the agent's log".into());
        }
        // Straight to it, never by way of a proxy, which would see the token.
        let client = http::client(&config::Http::default()).map_err(|error| chain(&error))?;
        let token = match (&admin.token, outside) {
            (Some(reference), Some(outside)) => Some(token(outside, reference).await?),
            (Some(_), None) => return Err("admin.token cannot be read".into()),
            (None, _) => None,
        };
        Ok(Self { address, client, token: token.map(AdminToken::new) })
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        let url = format!("http://{}{path}", self.address);
        let silent = |error: &reqwest::Error| {
            let why = if error.is_connect() { "nothing answers there" } else { "no answer" };
            format!("{why} ({url}): is `opship run` running here, and is admin.listen the same?")
        };
        let mut request = self.client.get(&url).timeout(ADMIN_DEADLINE);
        if let Some(token) = &self.token {
            let proven = token.put_on(request, &self.client, self.address, ADMIN_DEADLINE).await;
            request = proven.map_err(|unproven| match unproven {
                Unproven::Silent(error) => silent(&error),
                Unproven::Stranger | Unproven::Other => format!(
                    "what answers at {url} does not prove that it knows admin.token, so the token was not sent: \
                     are admin.listen and admin.token those of the running process?"
                ),
            })?;
        }
        let answer = request.send().await.map_err(|error| silent(&error))?;
        if !answer.status().is_success() {
            return Err(format!("{url} answered {}", answer.status().as_u16()));
        }
        let body = http::read_body(answer, ADMIN_BODY_MAX).await.map_err(|failure| format!("{url}: {failure}"))?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

async fn token(outside: &Outside, reference: &SecretRef) -> Result<secrecy::SecretString, String> {
    outside.secret(reference).await.map_err(|error| chain(&error))
}

/// An agent that listens everywhere answers here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, listen.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, listen.port()).into(),
        _ => listen,
    }
}
