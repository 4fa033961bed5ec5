//! A loopback outside world for demo, tests and benchmarks: 1Password, the Azure identity endpoints, a data collection
//! rule, and the query API of the workspace behind it.
//!
//! One listener serves all of it. The events follow from a seed; trouble follows a script of [`Fault`]s.

mod accepted;
mod access;
mod archive;
mod author;
mod call;
mod control;
mod dice;
mod events_api;
mod fault;
mod history;
mod identity;
mod ingestion;
mod journal;
mod kql;
mod options;
mod pace;
mod page;
mod reply;
mod seal;
mod serve;
mod server;
mod shelf;
mod strikes;
mod vault;
mod vocabulary;
mod wire;
mod workspace;
mod world;

pub use accepted::Comparison;
pub use call::{BodyKind, Service};
pub use fault::{Fault, FaultError, PageFault, Refusal, RetryAfter, Target, TokenFault, What};
pub use journal::Entry;
pub use options::{ErrorStyle, Options, Order, OtherKeys, Quirks};
pub use serve::serve;
pub use vault::VaultDoor;
pub use wire::TlsError;
pub use world::{When, World};

use dice::Dice;
use server::Server;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often live events are appended.
const LIVE_TICK: Duration = Duration::from_millis(20);

/// A simulator that could not be started or served.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("set up TLS for the simulator")]
    Tls(#[from] TlsError),
    #[error("open the file of accepted rows {}", path.display())]
    RowsOut { path: PathBuf, source: io::Error },
    #[error("read the file of faults {}", path.display())]
    FaultsFile { path: PathBuf, source: io::Error },
    #[error("use the list of faults")]
    Faults(#[from] FaultError),
    #[error("write the CA certificate to {}", path.display())]
    CaFile { path: PathBuf, source: io::Error },
    #[error("print the simulator's address")]
    Print(#[source] io::Error),
    #[error("wait for a signal")]
    Signal(#[source] io::Error),
    #[error("write the history of events")]
    History(#[source] tokio::task::JoinError),
}

/// A running simulator. Listener, connections and generator end with [`Sim::stop`] or when it is dropped.
pub struct Sim {
    world: Arc<World>,
    base_url: String,
    ca_pem: Option<String>,
    ended: CancellationToken,
    tasks: TaskTracker,
}

impl Sim {
    /// Writes the history and starts to listen.
    ///
    /// # Errors
    /// An address, a rows file or a list of faults that cannot be used.
    pub async fn start(options: Options) -> Result<Self, SimError> {
        Fault::check_all(&options.faults)?;
        let address = options.listen;
        let listen = |source| SimError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let host = reachable(listener.local_addr().map_err(listen)?);
        let tls = if options.tls { Some(wire::tls(&host.ip().to_string())?) } else { None };
        let base_url = format!("{}://{host}", if tls.is_some() { "https" } else { "http" });
        let create = move || World::create(options, host.to_string());
        let world = Arc::new(tokio::task::spawn_blocking(create).await.map_err(SimError::History)??);
        let (ca_pem, acceptor) = tls.map(|tls| (tls.ca_pem, tls.acceptor)).unzip();
        let (ended, tasks) = (CancellationToken::new(), TaskTracker::new());
        let server = Server { world: Arc::clone(&world), tls: acceptor, ended: ended.clone(), tasks: tasks.clone() };
        tasks.spawn(server::run(listener, Arc::new(server)));
        tasks.spawn(generate(Arc::clone(&world), ended.clone()));
        Ok(Self { world, base_url, ca_pem, ended, tasks })
    }

    /// Scheme, host and port of everything; the Events API lives below `/api/`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The events token in force, with every feature.
    pub fn token(&self) -> String {
        self.world.token()
    }

    /// The CA that a client must trust, with [`Options::tls`].
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    pub const fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// What an agent needs to talk to this simulator. Its store is its own business; with TLS it also needs
    /// `OPSHIP_HTTP__CA_FILE`, a file with [`Sim::ca_pem`].
    pub fn environment(&self) -> Vec<(String, String)> {
        let base = &self.base_url;
        let mut environment = vec![
            ("OP_EVENTS_TOKEN", self.token()),
            ("IDENTITY_ENDPOINT", format!("{base}/msi/token")),
            ("IDENTITY_HEADER", self.world.identity_header()),
            ("OPSHIP_ACCOUNTS__DEFAULT__TOKEN", "env:OP_EVENTS_TOKEN".into()),
            ("OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL", base.clone()),
            ("OPSHIP_SINK__KIND", "azure".into()),
            ("OPSHIP_SINK__ENDPOINT", base.clone()),
            ("OPSHIP_SINK__DCR_IMMUTABLE_ID", self.world.dcr_immutable_id()),
            ("OPSHIP_SINK__STREAM", self.world.stream_name().into()),
            ("OPSHIP_AZURE__CREDENTIAL", "managed-identity".into()),
            ("OPSHIP_AZURE__WORKSPACE_ID", self.world.workspace_id()),
            ("OPSHIP_AZURE__WORKSPACE_URL", base.clone()),
            ("OPSHIP_DELIVERY__ALLOW_INSECURE_LOOPBACK", "true".into()),
        ];
        if self.ca_pem.is_some() {
            environment.push(("OPSHIP_DELIVERY__ALLOW_HOSTS", r#"["127.0.0.1", "localhost", "::1"]"#.into()));
        }
        environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Breaks every connection and waits until nothing of the simulator runs any more.
    pub async fn stop(self) {
        self.ended.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// An address that a client can use: listening everywhere is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let loopback = match address {
        SocketAddr::V4(_) => std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(loopback, address.port())
}

/// Appends live events at the rate that is set, until the simulator ends.
async fn generate(world: Arc<World>, ended: CancellationToken) {
    let mut dice = Dice::of(world.options.seed, "live", 0);
    let mut tick = tokio::time::interval(LIVE_TICK);
    let (mut last, mut due) = (Instant::now(), 0.0);
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = tick.tick() => {}
        }
        due += world.live_per_second() * last.elapsed().as_secs_f64();
        last = Instant::now();
        while due >= 1.0 {
            world.append_live(&mut dice);
            due -= 1.0;
        }
    }
}
