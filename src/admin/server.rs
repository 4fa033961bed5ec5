//! The listener. Everything is bounded and small: whatever is asked, and however slowly, shipping goes on.

use super::patient::Patient;
use super::routes::{Pages, answer};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// For the head of a request, from the moment the connection is idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// A client that takes nothing of its answer for so long is gone.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Head of a request: the smallest buffer that hyper allows.
const HEAD_BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;
/// Pause after a failed accept: out of descriptors, for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// How long answers may take to end once the process is asked to.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// An address that cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("listen at {listen}")]
pub struct AdminError {
    pub listen: SocketAddr,
    #[source]
    cause: std::io::Error,
}

impl AdminError {
    /// What the operator should do.
    pub fn remedy(&self) -> &'static str {
        match self.cause.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another process listens there: set admin.listen to another port (port 0 takes a free one), or stop that process"
            }
            std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege: set admin.listen to a higher one"
            }
            _ => "set admin.listen to an address of this host, such as 127.0.0.1:9464",
        }
    }
}

/// The running server.
pub struct Admin {
    /// Where it listens: the real port where 0 was configured.
    pub address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Admin {
    /// Ends it. Live views are cut off, other answers have two seconds.
    pub async fn stop(self) {
        self.stop.cancel();
        // What is still open then is cut off by the end of the process.
        let _ = tokio::time::timeout(CLOSE_MAX, self.tasks.wait()).await;
    }
}

/// Listens and serves until it is stopped.
///
/// # Errors
/// An address that is taken, not ours, or not allowed.
pub async fn start(listen: SocketAddr, pages: Pages) -> Result<Admin, AdminError> {
    let failed = |cause| AdminError { listen, cause };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (stop, tasks) = (pages.stop.clone(), TaskTracker::new());
    tasks.spawn(accept(listener, Arc::new(pages), tasks.clone()));
    tasks.close();
    Ok(Admin { address, stop, tasks })
}

async fn accept(listener: TcpListener, pages: Arc<Pages>, tasks: TaskTracker) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = pages.stop.cancelled() => return,
            next = next => next,
        };
        match (permit, accepted) {
            (Ok(permit), Ok((stream, _))) => _ = tasks.spawn(serve(stream, pages.clone(), permit)),
            _ => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(stream: TcpStream, pages: Arc<Pages>, _permit: OwnedSemaphorePermit) {
    // Without it each message would wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(answer(&pages, &request)) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let connection = server.serve_connection(TokioIo::new(Patient::new(stream, WRITE_PATIENCE)), service);
    tokio::pin!(connection);
    // Ends with an error when the client goes away, which is its right.
    tokio::select! {
        _ = &mut connection => return,
        () = pages.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
