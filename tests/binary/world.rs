//! One test's world: a simulator, a store of its own, and the environment of the processes between them.

use crate::agent::{Agent, Ran};
use crate::canary::{Canary, SECRETS_FOLDER};
use crate::gate::Gate;
use crate::support::azurite::Azurite;
use opship::config::{ContainerUrl, Http};
use opship::flow::checkpoint::Checkpoint;
use opship::flow::{AccountName, FeedId, Stream};
use opship::sim::{Fault, Options, Sim};
use opship::store::Store;
use opship::store::azure_blob::AzureBlobStore;
use opship::store::checkpoints::{Checkpoints, Found};
use opship::store::file::FileStore;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use url::Url;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Blob,
}

pub struct World {
    pub sim: Sim,
    pub home: TempDir,
    container: Option<Url>,
    /// Of a blob store, when the world was made [`World::behind_a_gate`].
    pub gate: Arc<Gate>,
    /// The container without the gate, which ends with the test.
    direct: Option<Url>,
    more_secrets: Vec<String>,
    env: BTreeMap<String, String>,
}

/// A history of so many events over two days, accepted rows kept.
pub fn history(events: usize) -> Options {
    Options { history: events, history_span: Duration::from_secs(2 * 86_400), keep_rows: true, ..Options::default() }
}

/// One for all tests of this process; it ends with the process.
pub async fn azurite() -> &'static Azurite {
    static AZURITE: OnceCell<Azurite> = OnceCell::const_new();
    AZURITE.get_or_init(Azurite::start).await
}

impl World {
    pub async fn new(kind: Kind, options: Options) -> Self {
        let container = match kind {
            Kind::File => None,
            Kind::Blob => Some(azurite().await.container_sas_url(&format!("test-{}", uuid::Uuid::new_v4()))),
        };
        Self::with_container(options, container).await
    }

    pub async fn file(options: Options) -> Self {
        Self::new(Kind::File, options).await
    }

    /// A world whose blob store is reached through a [`Gate`].
    pub async fn behind_a_gate(kind: Kind, options: Options) -> Self {
        let mut world = Self::new(kind, options).await;
        if let Some(container) = &mut world.container {
            let mut service = container.clone();
            service.set_query(None);
            let address = world.gate.before(service).await;
            container.set_port(Some(address.port())).unwrap();
            let url = container.to_string();
            world.set("OPSHIP_STORE__CONTAINER_URL", url);
        }
        world
    }

    /// By the store's clock: whatever intent is open now may be taken over. On blobs only behind a gate.
    pub fn an_hour_passes(&self) {
        self.gate.an_hour_passes();
        self.files_age(Duration::from_secs(3600));
    }

    /// Checkpoints in files were written so long ago.
    pub fn files_age(&self, by: Duration) {
        for stream in Stream::ALL {
            let path = self.home.path().join(format!("state/checkpoints/default/{stream}.json"));
            if let Ok(file) = std::fs::File::options().write(true).open(path) {
                file.set_modified(SystemTime::now() - by).unwrap();
            }
        }
    }

    async fn with_container(options: Options, container: Option<Url>) -> Self {
        let sim = Sim::start(options).await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let env = sim.environment().into_iter().collect();
        let (direct, more_secrets) = (container.clone(), Vec::new());
        let mut world = Self { sim, home, container, gate: Arc::default(), direct, more_secrets, env };
        world.set("OPSHIP_LOG__LEVEL", "trace").set("OPSHIP_ADMIN__LISTEN", "127.0.0.1:0");
        match world.container.clone() {
            Some(url) => world.set("OPSHIP_STORE__KIND", "azure-blob").set("OPSHIP_STORE__CONTAINER_URL", url),
            None => {
                let path = world.home.path().join("state").display().to_string();
                world.set("OPSHIP_STORE__KIND", "file").set("OPSHIP_STORE__PATH", path)
            }
        };
        world
    }

    pub fn set(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.env.insert(name.into(), value.to_string());
        self
    }

    /// A file that the process reads a secret from.
    pub fn secret_file(&self, name: &str, text: &str) -> PathBuf {
        let folder = self.home.path().join(SECRETS_FOLDER);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    }

    /// A secret of this test's own.
    pub fn secret(&mut self, secret: &str) -> &mut Self {
        self.more_secrets.push(secret.to_owned());
        self
    }

    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.env.remove(name);
        self
    }

    /// The late sweep of every stream is due again a second after the last.
    pub fn sweep_late_each_second(&mut self) -> &mut Self {
        for stream in Stream::ALL {
            let name = stream.as_str().to_uppercase();
            self.set(&format!("OPSHIP_SWEEP__{name}__EVERY"), "1s");
            self.set(&format!("OPSHIP_SWEEP__{name}__HORIZON"), "72h");
        }
        self
    }

    pub fn fault(&self, fault: Fault) {
        self.sim.world().add_fault(fault).unwrap();
    }

    pub fn start(&self, args: &[&str]) -> Agent {
        Agent::start(self.home.path(), args, self.env.clone(), self.canary())
    }

    /// By way of a command that ends as the program itself, or whose end is the program's.
    pub fn start_by(&self, launcher: &[&str], args: &[&str]) -> Agent {
        Agent::start_by(launcher, self.home.path(), args, self.env.clone(), self.canary())
    }

    /// `opship run`, a tick a second.
    pub fn run(&self) -> Agent {
        let mut env = self.env.clone();
        env.insert("OPSHIP_SCHEDULE__EVERY".into(), "1s".into());
        Agent::start(self.home.path(), &["run"], env, self.canary())
    }

    pub async fn cli(&self, args: &[&str]) -> Ran {
        self.start(args).end().await
    }

    pub async fn once(&self) -> Ran {
        self.cli(&["once"]).await
    }

    /// `opship ARGS` by way of a script that ends in `exec "$@"`.
    pub async fn by_script(&self, script: &str, args: &[&str]) -> Ran {
        let launcher = ["bash", "-c", script, "bash", env!("CARGO_BIN_EXE_opship")];
        self.start_by(&launcher, args).end().await
    }

    pub fn canary(&self) -> Canary {
        Canary::new(&self.secrets())
    }

    /// What no process may ever print or keep.
    pub fn secrets(&self) -> Vec<String> {
        let world = self.sim.world();
        let mut secrets = vec![self.sim.token(), world.identity_header(), world.client_secret()];
        secrets.extend(self.more_secrets.iter().cloned());
        if let Some(url) = &self.container {
            let (_, signature) = url.query_pairs().find(|(name, _)| name == "sig").unwrap();
            secrets.push(url::form_urlencoded::byte_serialize(signature.as_bytes()).collect());
            secrets.push(signature.into_owned());
        }
        secrets
    }

    /// A handle of its own, as another process would have.
    pub async fn store(&self) -> Arc<dyn Store> {
        match &self.container {
            Some(url) => blobs(url).await,
            None => Arc::new(FileStore::open(&self.home.path().join("state")).await.unwrap()),
        }
    }

    pub async fn checkpoint(&self, stream: Stream) -> Checkpoint {
        let checkpoints = Checkpoints::new(self.store().await, "test".into());
        match checkpoints.load(&feed(stream)).await.unwrap() {
            Found::Good(loaded) => loaded.checkpoint,
            other => panic!("{other:?}"),
        }
    }
}

async fn blobs(container: &Url) -> Arc<dyn Store> {
    let http = opship::http::client(&Http::default()).unwrap();
    Arc::new(AzureBlobStore::open(&ContainerUrl(container.clone()), None, http).await.unwrap())
}

/// Every test ends with a search: nothing that its processes left behind may hold a secret.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let canary = self.canary();
        assert_eq!(canary.found_below(self.home.path()), None, "a secret was left in a file");
        let Some(container) = self.direct.clone() else { return };
        // Dropping cannot wait for blobs, a thread can.
        let search = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(found_in_blobs(&canary, &container))
        });
        assert_eq!(search.join().unwrap(), None, "a secret was left in a blob");
    }
}

async fn found_in_blobs(canary: &Canary, container: &Url) -> Option<String> {
    let store = blobs(container).await;
    for entry in store.list("").await.unwrap() {
        let bytes = store.read_from(&entry.key, 0).await.unwrap().unwrap_or_default();
        if canary.found(&bytes).or_else(|| canary.found(entry.key.as_str().as_bytes())).is_some() {
            return Some(entry.key.as_str().to_owned());
        }
    }
    None
}

pub fn feed(stream: Stream) -> FeedId {
    FeedId { account: AccountName::parse("default").unwrap(), stream }
}
