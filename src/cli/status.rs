//! `opship status`: how every feed is, asked of the running process, else read from the store.

pub(super) mod own_server;
pub(super) mod table;
pub(super) mod watch;

use super::text::Look;
use super::{CliError, Exit, Output, print};
use crate::admin::status::Status;
use crate::admin::{Asked, status_of_store};
use crate::agent::{Trouble, chain};
use crate::config::{Config, Http, Sink, Store};
use crate::flow::FeedId;
use crate::flow::checkpoint::Fingerprints;
use crate::http;
use crate::schedule::ticks_take;
use crate::secret::{LocalSecrets, SecretReader, SecretRef};
use crate::wire::Outside;
use clap::Args;
use own_server::{AdminToken, Unproven};
use reqwest::StatusCode;
use secrecy::SecretString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use table::table;
use watch::watch;

/// A process on the same host or network answers at once.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Largest document read: a hundred feeds with six hours each.
const STATUS_BYTES_MAX: usize = 16 * 1024 * 1024;

const EXIT_CODES: &str = "Exit codes: 0 every feed is well, 1 one is not, or nobody could tell";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct StatusArgs {
    /// Keep looking: a live table on a terminal, else a line a change
    #[arg(long)]
    watch: bool,
    /// Ask no process: read the checkpoints in the store
    #[arg(long)]
    from_store: bool,
}

/// Where an answer came from, for people.
pub(super) struct Told {
    pub status: Status,
    pub by: String,
}

/// Why the running process did not tell.
pub(super) enum Silence {
    /// Nobody there, or somebody else: the store may tell what was.
    Elsewhere(String),
    /// Where it listens is not known here.
    Unasked(String),
    /// The process is there and refuses us: the store would hide that.
    Refused(String),
}

impl Silence {
    /// Why the store is read instead, and whether a process should have answered.
    ///
    /// # Errors
    /// It is there and refuses us.
    pub(super) fn told(self) -> Result<(String, bool), CliError> {
        match self {
            Self::Elsewhere(why) => Ok((why, true)),
            Self::Unasked(why) => Ok((why, false)),
            Self::Refused(why) => Err(CliError::Failed(why)),
        }
    }
}

pub(super) async fn status(config: &Config, args: &StatusArgs, output: Output) -> Result<Exit, CliError> {
    let teller = Teller::new(config, args.from_store).await?;
    if args.watch {
        return watch(&teller, output).await;
    }
    let told = teller.ask().await?;
    let text = match output {
        Output::Text => table(&told, Look::of(&std::io::stdout())),
        Output::Json => json(&told.status)?,
    };
    print(&text)?;
    Ok(exit(&told.status))
}

pub(super) fn exit(status: &Status) -> Exit {
    if status.ready { Exit::Done } else { Exit::Failed }
}

pub(super) fn json(status: &Status) -> Result<String, CliError> {
    serde_json::to_string(status).map_err(|error| CliError::Failed(format!("write the status as JSON: {error}")))
}

/// Whom to ask, and how.
pub(super) struct Teller<'a> {
    config: &'a Config,
    client: reqwest::Client,
    token: Option<AdminToken>,
    from_store: bool,
}

impl<'a> Teller<'a> {
    async fn new(config: &'a Config, from_store: bool) -> Result<Self, CliError> {
        // Never by a proxy: the process is on this host or in this network.
        let client = http::client(&Http::default()).map_err(crate::wire::WireError::from)?;
        let token = if from_store { None } else { token(config).await?.map(AdminToken::new) };
        Ok(Self { config, client, token, from_store })
    }

    /// The running process, else the store.
    pub(super) async fn ask(&self) -> Result<Told, CliError> {
        if self.from_store {
            return self.ask_store(false).await;
        }
        match self.ask_process().await {
            Ok(told) => Ok(told),
            Err(silence) => {
                let (why, nobody_answers) = silence.told()?;
                eprintln!("opship: {why}; reading the checkpoints in the store instead");
                self.ask_store(nobody_answers).await
            }
        }
    }

    pub(super) async fn ask_process(&self) -> Result<Told, Silence> {
        let listen = self.config.admin.listen;
        if listen.port() == 0 {
            let why = "admin.listen has port 0, so the address of the process stands only in its log";
            return Err(Silence::Unasked(why.into()));
        }
        let address = reachable(listen);
        let place = format!("http://{address}/");
        let mut request = self.client.get(format!("{place}status.json")).timeout(ANSWER_DEADLINE);
        if let Some(token) = &self.token {
            let proven = token.put_on(request, &self.client, address, ANSWER_DEADLINE).await;
            request = proven.map_err(|unproven| self.unsent(unproven, &place))?;
        }
        let response = request.send().await.map_err(|error| silent(&error, &place))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                let why = match &self.config.admin.token {
                    Some(token) => format!("the process at {place} refuses the token that {token} holds"),
                    None => format!("the process at {place} demands a token"),
                };
                return Err(Silence::Refused(format!(
                    "{why}: set admin.token to the reference that the process was started with, or use --from-store"
                )));
            }
            other => {
                let why = format!("something that is not opship answers {other} at {place}: check admin.listen");
                return Err(Silence::Elsewhere(why));
            }
        }
        let not_ours =
            |_| Silence::Elsewhere(format!("what answers at {place} is not this opship: check admin.listen"));
        let body = http::read_body(response, STATUS_BYTES_MAX).await.map_err(|_| not_ours(()))?;
        let status = serde_json::from_slice(&body).map_err(|_| not_ours(()))?;
        Ok(Told { status, by: format!("told by the process at {place}") })
    }

    fn unsent(&self, unproven: Unproven, place: &str) -> Silence {
        let token = self.config.admin.token.as_ref().map(ToString::to_string).unwrap_or_default();
        match unproven {
            Unproven::Silent(error) => silent(&error, place),
            Unproven::Stranger => Silence::Elsewhere(format!(
                "what answers at {place} does not prove that it is this opship, so the token was not sent: another program holds the port, or \
                 the process was started without admin.token; check admin.listen, or restart it"
            )),
            Unproven::Other => Silence::Refused(format!(
                "the process at {place} does not know the token that {token} holds, or listens at another port, so the token was not sent: \
                 set admin.token to the reference that the process was started with, or use --from-store"
            )),
        }
    }

    pub(super) fn is_for_the_store(&self) -> bool {
        self.from_store
    }

    pub(super) async fn ask_store(&self, nobody_answers: bool) -> Result<Told, CliError> {
        let config = self.config;
        match &config.store {
            Store::Unset => {
                let what = "there is no [store] in the configuration, so nothing can be read from it: add it, or use the \
                    configuration of the running process (--config)";
                return Err(CliError::Usage(what.into()));
            }
            // Opening would make the folder, and an empty one looks like a first start.
            Store::File { path } if !path.is_dir() => {
                let path = path.display();
                let what = format!(
                    "there is no folder {path}: check store.path, or start opship (`opship run`), which makes it"
                );
                return Err(CliError::Failed(what));
            }
            Store::File { .. } | Store::AzureBlob { .. } => {}
        }
        let outside = Outside::new(config).await?;
        let store = outside.store().await?;
        let feeds = config.accounts.iter().flat_map(|(account, settings)| {
            settings.streams.iter().map(|stream| FeedId { account: account.clone(), stream: *stream })
        });
        let feeds: Vec<FeedId> = feeds.collect();
        // Opening files as a sink would touch them; a rule is not asked.
        let sink = match &config.sink {
            Sink::Azure { .. } => outside.sink().ok().map(|sink| Fingerprints::new("", None, &sink.place()).sink),
            Sink::Ndjson { .. } | Sink::Unset => None,
        };
        let now = chrono::Utc::now();
        let three_ticks = ticks_take(&config.schedule.timer, 3, now);
        let asked = Asked { feeds: &feeds, three_ticks, sink: sink.as_deref(), nobody_answers, now };
        let status = status_of_store(&*store, &asked).await.map_err(|error| {
            let what = chain(&error);
            CliError::Failed(format!(
                "read the checkpoints in {}: {what}\n{}",
                store.place(),
                Trouble::from(error).remedy()
            ))
        })?;
        Ok(Told { status, by: format!("told by the checkpoints in {}", store.place()) })
    }
}

fn silent(error: &reqwest::Error, place: &str) -> Silence {
    let why = if error.is_timeout() { "does not answer in 5 s" } else { "does not answer" };
    Silence::Elsewhere(format!("the process at {place} {why} (is `opship run` up, with this admin.listen?)"))
}

/// Only a vault's token needs the network and an identity.
async fn token(config: &Config) -> Result<Option<SecretString>, CliError> {
    use crate::wire::WireError;
    match &config.admin.token {
        None => Ok(None),
        Some(reference @ (SecretRef::Env(_) | SecretRef::File(_))) => {
            Ok(Some(LocalSecrets::new(None).read(reference).await.map_err(WireError::from)?))
        }
        Some(SecretRef::KeyVault(_)) => Ok(Outside::new(config).await?.admin_token().await?),
    }
}

/// Who listens everywhere is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
