//! The listener. Everything is bounded and small: whatever is asked, and however slowly, shipping goes on.

use super::accepts::{Accepts, Next};
use super::patient::Patient;
use super::places::{Answering, Kind, Place, Places};
use super::routes::{Pages, answer};
use crate::http::descriptors;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// For the head of a request, from the moment the connection is idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Answers on one connection; a client that wants more connects again, behind those who wait.
const ANSWERS_MAX: usize = 100;
/// A connection gets no further answer after so long. A live view that is open then goes on.
const AGE_MAX: Duration = Duration::from_secs(300);
/// On a place that is kept for probes: they ask at once.
const KEPT_AGE_MAX: Duration = Duration::from_secs(5);
/// A client that takes nothing of its answer for so long is gone.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Head of a request: the smallest buffer that hyper allows.
const HEAD_BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;
/// Of an answer on its way to a client.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;
/// Connections that the kernel has taken and we have not: a moment's worth.
const BACKLOG: u32 = 1024;
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
    let listener = listener(listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (stop, tasks) = (pages.stop.clone(), TaskTracker::new());
    tasks.spawn(accept(listener, address, Arc::new(pages), tasks.clone()));
    tasks.close();
    Ok(Admin { address, stop, tasks })
}

fn listener(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does: a restart need not wait for connections of the process before.
    socket.set_reuseaddr(true)?;
    // Of every connection that is taken: what a client asks for and does not take is kept by the kernel, megabytes of it by default.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(listen)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, address: SocketAddr, pages: Arc<Pages>, tasks: TaskTracker) {
    let places = Places::new(descriptors::admin_places(), descriptors::PROBE_PLACES);
    let mut accepts = Accepts::new(address);
    loop {
        let accepted = tokio::select! {
            biased;
            () = pages.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, error) = accepted.map_or_else(|error| (None, Some(error)), |(stream, _)| (Some(stream), None));
        if let Next::Pause(pause) = accepts.judge(error) {
            places.make_room();
            tokio::time::sleep(pause).await;
        }
        let Some(stream) = stream else { continue };
        // Without it each message would wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        tasks.spawn(serve(stream, pages.clone(), places.take()));
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, pages: Arc<Pages>, place: Place) {
    let answers = AtomicUsize::new(0);
    let service = service_fn(|request| {
        let mut response = answer(&pages, &request, place.kind());
        let is_last = place.kind() == Kind::Kept || answers.fetch_add(1, Ordering::Relaxed) + 1 >= ANSWERS_MAX;
        if is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let answering = place.answering();
        std::future::ready(Ok::<_, Infallible>(response.map(|body| Counted { body, _answering: answering })))
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let stream = Patient::new(stream, WRITE_PATIENCE, place.blocks());
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let age_max = if place.kind() == Kind::Kept { KEPT_AGE_MAX } else { AGE_MAX };
    // Ends with an error when the client goes away, which is its right.
    tokio::select! {
        biased;
        () = place.gone() => return,
        _ = &mut connection => return,
        () = pages.stop.cancelled() => {}
        () = tokio::time::sleep(age_max) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        () = place.gone() => {}
        _ = connection => {}
    }
}

/// A body that is known to be on its way until it is dropped.
struct Counted {
    body: axum::body::Body,
    _answering: Answering,
}

impl Body for Counted {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Access;
    use crate::agent::monitor::board::Board;
    use crate::config::Timer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

    const ASKS: &[u8] = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";

    fn client(place: Place) -> DuplexStream {
        let listen = "127.0.0.1:1".parse().unwrap();
        let board = Arc::new(Board::new([], Timer::Every(Duration::from_secs(60))));
        let pages = Pages::new(board, String::new(), Access::new(listen, None));
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(ours, Arc::new(pages), place));
        theirs
    }

    /// Asks each five seconds; when the end came.
    async fn asks_until_the_end(mut client: DuplexStream) -> Duration {
        let (begun, mut answer) = (Instant::now(), [0; 4096]);
        while client.write_all(ASKS).await.is_ok() && client.read(&mut answer).await.is_ok_and(|length| length > 0) {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_asks_on_and_on_grows_no_older_than_five_minutes() {
        let lasted = asks_until_the_end(client(Places::new(1, 1).take())).await;
        assert!(lasted >= AGE_MAX && lasted < AGE_MAX + Duration::from_secs(6), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_place_is_for_one_probe() {
        let kept = Places::new(0, 1).take();
        assert!(asks_until_the_end(client(kept)).await < Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_closed_after_ten_seconds() {
        let (begun, mut client) = (Instant::now(), client(Places::new(1, 1).take()));
        let _ = client.read(&mut [0; 4096]).await;
        assert_eq!(begun.elapsed().as_secs(), HEAD_DEADLINE.as_secs());
    }
}
