//! The composition root: the only file that names concrete sources, sinks and stores.

mod identity;
mod look;
mod redact_key;
mod secrets;

pub use look::{Greeting, Ground};

use self::identity::Identity;
use self::secrets::{AdminKey, Vault};
use crate::admin::Lock;
use crate::agent::account::Account;
use crate::agent::monitor::board::Board;
use crate::agent::monitor::health::Health;
use crate::agent::reading::clock::HostClock;
use crate::agent::run::Agent;
use crate::agent::{Feed, Parts, Settings};
use crate::azure::{self, Tokens, places};
use crate::config::{self, Config};
use crate::flow::redact::Redact;
use crate::flow::retry::Patience;
use crate::flow::window::Widths;
use crate::flow::{AccountName, FeedId, Stream};
use crate::http::descriptors::Demand;
use crate::http::{self, HttpError};
use crate::reload::Reload;
use crate::reload::Renew;
use crate::secret::{LocalSecrets, SecretError, SecretReader, SecretRef};
use crate::sink::azure_dcr::{AzureDcr, Destination};
use crate::sink::ndjson::Ndjson;
use crate::sink::{Sink, SinkError};
use crate::source::Source;
use crate::source::events_api::{EventsApi, Setup};
use crate::source::token::Allow;
use crate::store::azure_blob::AzureBlobStore;
use crate::store::file::FileStore;
use crate::store::owners::Owners;
use crate::store::{Store, StoreError, prove_versions};
use crate::table::ndjson::NdjsonTable;
use crate::table::workspace::{Place, Workspace};
use crate::table::{Table, TableError};
use azure_core::credentials::TokenCredential;
use secrecy::{ExposeSecret, SecretString};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Parts that cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("read admin.token: {0}")]
    Admin(String),
    #[error(transparent)]
    Azure(#[from] azure::AzureError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("{0}")]
    Setting(String),
}

/// Why rows cannot be read back.
const NO_WORKSPACE: &str = "azure.workspace_id is not set: to read rows back, set it to the id (a GUID) of the Log Analytics workspace \
     and give the identity the role Log Analytics Reader on the workspace, or read access to the table";

/// What everything else is built from: the client, the secrets and the Azure identity. Nothing is asked of the network yet.
pub struct Outside {
    config: Config,
    http: reqwest::Client,
    either: http::Either,
    secrets: Arc<dyn SecretReader>,
    credential: Option<Arc<dyn TokenCredential>>,
    board: Arc<Board>,
    reload: Arc<Reload>,
}

impl Outside {
    /// # Errors
    /// A CA file, proxy, client secret or certificate that cannot be used.
    pub async fn new(config: &Config) -> Result<Self, WireError> {
        Self::bare(config)?.complete().await
    }

    /// Without the Azure identity, whose secrets may not be there yet.
    ///
    /// # Errors
    /// A CA file or proxy that cannot be used.
    pub fn bare(config: &Config) -> Result<Self, WireError> {
        let http = http::client_for(&config.http, demand(config))?;
        let (board, reload) = (Arc::new(board(config)), Arc::default());
        let secrets = Arc::new(LocalSecrets::new(None));
        let either = http::Either::new(http.clone(), &config.http, demand(config));
        Ok(Self { config: config.clone(), http, either, secrets, credential: None, board, reload })
    }

    /// With it, and the same board.
    ///
    /// # Errors
    /// A client secret or certificate that cannot be read or used.
    pub async fn complete(&self) -> Result<Self, WireError> {
        let Self { config, http, board, reload, .. } = self;
        let local = LocalSecrets::new(None);
        let identity = if wants_azure(config) {
            Some(Arc::new(Identity::new(&config.azure, Arc::new(local), http).await?))
        } else {
            None
        };
        if let Some(identity) = &identity
            && let Some((setting, reference)) = identity.reference()
        {
            reload.covers(setting.into(), reference.clone(), identity.clone());
        }
        let credential = identity.map(|identity| identity as Arc<dyn TokenCredential>);
        let vault = credential.clone().map(|credential| {
            let tokens = Tokens::new(credential, places(config.azure.cloud).key_vault_scope);
            let (cloud, who) = (config.azure.cloud, config.azure.client_id.clone());
            Arc::new(Vault { http: http.clone(), tokens, cloud, who }) as Arc<dyn SecretReader>
        });
        let secrets = Arc::new(LocalSecrets::new(vault));
        let (config, http, either) = (config.clone(), http.clone(), self.either.of_another());
        let (board, reload) = (board.clone(), reload.clone());
        Ok(Self { config, http, either, secrets, credential, board, reload })
    }

    /// Where the feeds of [`Outside::agent`] show what they do; there before they are.
    pub fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// What SIGHUP asks for: whoever holds a secret that may change registers it there.
    pub fn reload(&self) -> Arc<Reload> {
        self.reload.clone()
    }

    /// Hands the admin server its token, now and whenever it is another one.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn unlock(&self, lock: &Arc<Lock>) -> Result<(), WireError> {
        let Some(reference) = &self.config.admin.token else { return Ok(()) };
        let key =
            Arc::new(AdminKey { secrets: self.secrets.clone(), reference: reference.clone(), lock: lock.clone() });
        key.renew().await.map_err(|error| WireError::Admin(error.to_string()))?;
        self.reload.covers("admin.token".into(), reference.clone(), key);
        Ok(())
    }

    /// What the admin server demands of those who ask, when it is configured.
    pub async fn admin_token(&self) -> Result<Option<SecretString>, WireError> {
        match &self.config.admin.token {
            Some(reference) => Ok(Some(self.secrets.read(reference).await?)),
            None => Ok(None),
        }
    }

    /// The Azure identity's tokens for the sink, where the sink needs any.
    pub fn sink_tokens(&self) -> Option<Arc<Tokens>> {
        let scope = places(self.config.azure.cloud).monitor_scope;
        self.credential.clone().map(|credential| Arc::new(Tokens::new(credential, scope)))
    }

    /// Whether the store is opened with the Azure identity.
    pub fn store_is_by_identity(&self) -> bool {
        matches!(&self.config.store, config::Store::AzureBlob { container } if !container.has_sas())
    }

    /// Waits for the endpoint of a managed identity that is not up yet, as right after the start of a container, and no longer than
    /// `within`: what comes after fails by itself.
    pub async fn await_identity(&self, within: Duration) {
        if self.credential.is_some()
            && let Some(endpoint) = azure::local_endpoint(&self.config.azure)
        {
            identity::is_up(&endpoint, within).await;
        }
    }

    pub fn source(&self, name: &AccountName) -> Result<Arc<dyn Source>, WireError> {
        Ok(self.events_api(name)?)
    }

    fn either(&self) -> http::Either {
        self.either.of_another()
    }

    fn events_api(&self, name: &AccountName) -> Result<Arc<EventsApi>, WireError> {
        let account = self.config.accounts.get(name).cloned();
        let account = account.ok_or_else(|| WireError::Setting(format!("there is no account {name}")))?;
        Ok(Arc::new(EventsApi::new(Setup {
            name: name.clone(),
            account,
            allow: Allow::from(&self.config.delivery),
            secrets: self.secrets.clone(),
            client: self.either(),
            deadline: crate::http::REQUEST_DEADLINE,
        })))
    }

    pub fn sink(&self) -> Result<Arc<dyn Sink>, WireError> {
        Ok(match &self.config.sink {
            config::Sink::Azure { endpoint, dcr_immutable_id, stream, gzip_level } => {
                let to = Destination {
                    endpoint: endpoint.clone(),
                    dcr_immutable_id: dcr_immutable_id.clone(),
                    stream: stream.clone(),
                    gzip_level: *gzip_level,
                    allow_insecure_loopback: self.config.delivery.allow_insecure_loopback,
                };
                let tokens =
                    self.sink_tokens().ok_or_else(|| WireError::Setting("azure.credential is not set".into()))?;
                Arc::new(AzureDcr::new(&to, tokens, self.either())?)
            }
            config::Sink::Ndjson { path, stream } => Arc::new(Ndjson::open(path, stream)?),
            config::Sink::Unset => return Err(WireError::Setting("sink.kind is not set".into())),
        })
    }

    /// The sink of a command that mostly reads: it does not keep another process from writing until it has rows to ship.
    pub fn sink_when_needed(&self) -> Result<Arc<dyn Sink>, WireError> {
        match &self.config.sink {
            config::Sink::Ndjson { path, stream } => Ok(Arc::new(Ndjson::when_needed(path, stream)?)),
            config::Sink::Azure { .. } | config::Sink::Unset => self.sink(),
        }
    }

    /// Where the sink's rows are read back. Nothing is asked or opened yet.
    pub fn table(&self) -> Result<Arc<dyn Table>, WireError> {
        let missing = |what: &str| WireError::Setting(what.into());
        match &self.config.sink {
            config::Sink::Azure { stream, .. } => {
                let azure = &self.config.azure;
                let workspace_id = azure.workspace_id.clone().ok_or_else(|| missing(NO_WORKSPACE))?;
                let names = places(azure.cloud);
                let url = azure.workspace_url.clone().map_or_else(|| names.query_url.parse(), Ok);
                let url = url.map_err(|_| missing("azure.workspace_url is not set"))?;
                let credential = self.credential.clone().ok_or_else(|| missing("azure.credential is not set"))?;
                let tokens = Arc::new(Tokens::new(credential, names.query_scope));
                let place = Place { url, workspace_id, stream: stream.clone() };
                Ok(Arc::new(Workspace::new(&place, tokens, self.http.clone())?))
            }
            config::Sink::Ndjson { path, stream } => Ok(Arc::new(NdjsonTable::new(path, stream))),
            config::Sink::Unset => Err(missing("sink.kind is not set")),
        }
    }

    /// Opens the store; a container is created when it is missing.
    pub async fn store(&self) -> Result<Arc<dyn Store>, WireError> {
        Ok(match &self.config.store {
            config::Store::File { path } => Arc::new(FileStore::open(path).await?),
            config::Store::AzureBlob { container } => {
                Arc::new(AzureBlobStore::open(container, self.credential.clone(), self.http.clone()).await?)
            }
            config::Store::Unset => return Err(WireError::Setting("store.kind is not set".into())),
        })
    }

    /// The store of a process that posts: proven to refuse stale writes, else two processes would ship the same rows again and again.
    pub async fn proven_store(&self) -> Result<Arc<dyn Store>, WireError> {
        let store = self.store().await?;
        prove_versions(&*store).await?;
        Ok(store)
    }

    /// The agent over an opened store: a feed per stream of each account, health rows per account.
    pub async fn agent(
        &self,
        store: Arc<dyn Store>,
        patience: Patience,
        stop: CancellationToken,
    ) -> Result<Agent, WireError> {
        self.agent_over(self.sink()?, store, patience, stop).await
    }

    /// The same over a sink of its own.
    pub async fn agent_over(
        &self,
        sink: Arc<dyn Sink>,
        store: Arc<dyn Store>,
        patience: Patience,
        stop: CancellationToken,
    ) -> Result<Agent, WireError> {
        let owner = uuid::Uuid::new_v4();
        let name = owner.simple().to_string();
        store.announce(&name).await?;
        let redact = self.redact().await?;
        redact_key::tell_a_change(&*store, &redact).await?;
        let verify = self.config.delivery.on_in_doubt == config::OnInDoubt::Verify;
        let table = if verify { Some(self.table()?) } else { None };
        let (mut feeds, mut health) = (Vec::new(), BTreeMap::new());
        let board = self.board();
        let owners = Arc::new(self.owners(store.clone()));
        for (account_name, account) in &self.config.accounts {
            let source = self.events_api(account_name)?;
            let setting = format!("accounts.{account_name}.token");
            self.reload.covers(setting, account.token.clone(), source.clone());
            board.shows(account_name, source.clone());
            let host = HostClock::new(chrono::Utc::now);
            let shared = Arc::new(Account::new(
                account_name.clone(),
                patience,
                host,
                owner.as_u64_pair().1 ^ feeds.len() as u64,
            ));
            let streams = account.streams.iter().copied().collect();
            let every = self.config.delivery.heartbeat_every;
            let rows = Health::new(shared.clone(), sink.clone(), store.clone(), streams, every, redact.clone());
            let rows = rows.shown_on(board.account(account_name));
            health.insert(account_name.clone(), Arc::new(rows));
            for stream in &account.streams {
                let id = FeedId { account: account_name.clone(), stream: *stream };
                let feed = Feed::new(Parts {
                    panel: board.panel(&id),
                    table: table.clone(),
                    id,
                    account: shared.clone(),
                    source: source.clone(),
                    sink: sink.clone(),
                    store: store.clone(),
                    owners: owners.clone(),
                    owner: name.clone(),
                    settings: Arc::new(self.settings(*stream, &redact)),
                    stop: stop.clone(),
                    seed: owner.as_u64_pair().0 ^ feeds.len() as u64,
                });
                feeds.push(feed.hurried_by(self.reload.hurry()));
            }
        }
        Ok(Agent { feeds, health, stop, board })
    }

    /// Which entry ships what, by the documents of an opened store.
    pub fn owners(&self, store: Arc<dyn Store>) -> Owners {
        Owners::new(store, feeds(&self.config).collect())
    }

    /// Whether `filter.redact` changes a column, by its place among the columns.
    pub fn redacts(&self, place: usize) -> bool {
        Redact::new(&self.config.filter.redact, None).is_ok_and(|redact| redact.touches(place))
    }

    fn settings(&self, stream: Stream, redact: &Redact) -> Settings {
        let config = &self.config;
        let sweep = config.sweep.get(&stream).copied().unwrap_or(config::Sweep::DEFAULT);
        Settings {
            widths: Widths { overlap: config.schedule.overlap, late_every: sweep.every, late_horizon: sweep.horizon },
            lookback: config.schedule.lookback,
            batch_rows_max: config.delivery.batch_rows_max,
            drop_audit_actions: config.filter.drop_audit_actions.clone(),
            redact: redact.clone(),
            ledger_keep: config.ledger_keep,
            verify_after: (config.delivery.on_in_doubt == config::OnInDoubt::Verify)
                .then_some(config.delivery.verify_after),
        }
    }

    async fn redact(&self) -> Result<Redact, WireError> {
        let filter = &self.config.filter;
        let key = match &filter.redact_key {
            Some(reference) => Some(self.secrets.read(reference).await?.expose_secret().as_bytes().to_vec()),
            None => None,
        };
        Redact::new(&filter.redact, key)
            .map_err(|path| WireError::Setting(format!("filter.redact: there is no column for {path}")))
    }
}

/// The servers that the feeds, the destination and the store will want to speak to.
pub fn demand(config: &Config) -> Demand {
    /// The destination, the store, the identity and its vault.
    const OTHERS: usize = 4;
    /// Services of 1Password that a token may lead to.
    const SERVICES: usize = 4;
    let named: BTreeSet<_> = config.accounts.values().filter_map(|account| account.events_url.as_ref()).collect();
    let unnamed = config.accounts.values().filter(|account| account.events_url.is_none()).count();
    // A token names one of 1Password's own, or one that is allowed.
    let unnamed = unnamed.min(SERVICES + config.delivery.allow_hosts.len());
    Demand { feeds: feeds(config).count(), hosts: named.len() + unnamed + OTHERS }
}

/// Every feed that is configured.
fn feeds(config: &Config) -> impl Iterator<Item = FeedId> {
    config.accounts.iter().flat_map(|(account, settings)| {
        settings.streams.iter().map(|stream| FeedId { account: account.clone(), stream: *stream })
    })
}

fn board(config: &Config) -> Board {
    Board::new(feeds(config), config.schedule.timer.clone())
}

fn wants_azure(config: &Config) -> bool {
    let sink = matches!(config.sink, config::Sink::Azure { .. });
    let store = matches!(&config.store, config::Store::AzureBlob { container } if !container.has_sas());
    let of_vault = |reference: &SecretRef| matches!(reference, SecretRef::KeyVault(_));
    let tokens = config.accounts.values().map(|account| &account.token);
    sink || store || tokens.chain(&config.filter.redact_key).chain(&config.admin.token).any(of_vault)
}
