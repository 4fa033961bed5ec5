//! Where an outgoing connection waits for a file descriptor that others can do without.

use super::descriptors::{Shares, open};
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Mutex;
use tower_layer::Layer;
use tower_service::Service;

/// How long a connection waits; less than the deadline of a connect, so that the cause is told by its name.
const PATIENCE: Duration = Duration::from_secs(15);
/// Nobody says when a descriptor is closed: it is looked for so often.
const LOOK: Duration = Duration::from_millis(50);

type BoxError = Box<dyn Error + Send + Sync>;

/// No descriptor was given back in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "open a connection: {} s passed with too few file descriptors free, of {limit} at most: raise the limit of open files (LimitNOFILE= of a \
     unit, ulimit -n, --ulimit nofile= of a container)",
    PATIENCE.as_secs()
)]
struct Full {
    limit: usize,
}

/// One for all connections of a client.
#[derive(Clone)]
pub(super) struct Gate(Arc<Inner>);

struct Inner {
    shares: Shares,
    /// Let in, and perhaps without a socket yet.
    connecting: AtomicUsize,
    /// Whose turn it is, in order of arrival.
    turn: Mutex<()>,
}

/// A connection that is being made.
struct Connecting(Arc<Inner>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.connecting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(super) fn new(shares: Shares) -> Self {
        Self(Arc::new(Inner { shares, connecting: AtomicUsize::new(0), turn: Mutex::default() }))
    }

    async fn enter(&self) -> Result<Connecting, Full> {
        let Shares { limit, outgoing, .. } = self.0.shares;
        let enter = async {
            let _turn = self.0.turn.lock().await;
            while open().saturating_add(self.0.connecting.load(Ordering::Relaxed)) >= outgoing {
                tokio::time::sleep(LOOK).await;
            }
            self.0.connecting.fetch_add(1, Ordering::Relaxed);
            Connecting(self.0.clone())
        };
        tokio::time::timeout(PATIENCE, enter).await.map_err(|_| Full { limit })
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

/// What makes connections, behind the gate.
#[derive(Clone)]
pub(super) struct Gated<S> {
    inner: S,
    gate: Gate,
}

impl<S, R> Service<R> for Gated<S>
where
    S: Service<R, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // The one that said that it is ready is the one to be called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let gate = self.gate.clone();
        Box::pin(async move {
            let _connecting = gate.enter().await?;
            inner.call(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_gets_no_descriptor_says_so_before_its_connect_is_given_up() {
        let begun = tokio::time::Instant::now();
        let error = Gate::new(Shares::of(0)).enter().await.err().map(|full| full.to_string());
        assert!(error.as_ref().is_some_and(|text| text.contains("LimitNOFILE")), "{error:?}");
        assert!(begun.elapsed() < crate::http::CONNECT_DEADLINE);
    }

    #[tokio::test]
    async fn who_is_let_in_counts_until_the_connection_is_made() {
        let gate = Gate::new(Shares::of(1 << 20));
        let counted = || gate.0.connecting.load(Ordering::Relaxed);
        let first = gate.enter().await.expect("there is room");
        assert_eq!(counted(), 1);
        drop(first);
        assert_eq!(counted(), 0);
    }
}
