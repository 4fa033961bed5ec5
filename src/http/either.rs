//! A client for a server that may take HTTP/1.1 alone and says so only when it is asked (RFC 9113, 7: HTTP_1_1_REQUIRED).

use super::{Demand, client_by};
use crate::config;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The client that every edge shares, until the server of this edge refuses HTTP/2.
#[derive(Clone)]
pub struct Either {
    shared: Arc<Shared>,
    /// The server of this edge has refused HTTP/2.
    is_refused: Arc<AtomicBool>,
}

/// The two clients; the second is made when the first server needs it.
struct Shared {
    any: reqwest::Client,
    only_http1: OnceLock<reqwest::Client>,
    options: (config::Http, Demand),
}

impl Either {
    /// `any` was built from these.
    pub fn new(any: reqwest::Client, options: &config::Http, demand: Demand) -> Self {
        let shared = Shared { any, only_http1: OnceLock::new(), options: (options.clone(), demand) };
        Self { shared: Arc::new(shared), is_refused: Arc::default() }
    }

    /// For another server, which may speak HTTP/2.
    #[must_use]
    pub fn of_another(&self) -> Self {
        Self { shared: self.shared.clone(), is_refused: Arc::default() }
    }

    /// The one to ask with.
    pub fn now(&self) -> &reqwest::Client {
        let only_http1 = self.shared.only_http1.get().filter(|_| self.is_refused.load(Ordering::Relaxed));
        only_http1.unwrap_or(&self.shared.any)
    }

    /// Whether the request was refused for its HTTP/2 and is to be sent again: by HTTP/1.1, as all that follow. The server has not
    /// processed it.
    pub fn falls_back(&self, error: &reqwest::Error) -> bool {
        if !is_refused_for_http2(error) {
            return false;
        }
        let Shared { only_http1, options: (options, demand), .. } = &*self.shared;
        if only_http1.get().is_none() {
            let Ok(client) = client_by(options, *demand, |builder| builder.http1_only()) else { return false };
            let _ = only_http1.set(client);
        }
        if self.is_refused.swap(true, Ordering::Relaxed) {
            // Another request of this edge was refused at the same moment.
            return true;
        }
        let remedy = "nothing: it is asked by HTTP/1.1 from now on";
        tracing::warn!(
            path = error.url().map(reqwest::Url::path).unwrap_or_default(),
            remedy,
            "the server refuses HTTP/2"
        );
        true
    }
}

/// Of a configuration without a word on HTTP.
impl From<reqwest::Client> for Either {
    fn from(any: reqwest::Client) -> Self {
        Self::new(any, &config::Http::default(), Demand::SMALL)
    }
}

fn is_refused_for_http2(error: &reqwest::Error) -> bool {
    let first: &(dyn Error + 'static) = error;
    let mut causes = std::iter::successors(Some(first), |error| (*error).source());
    causes.any(|error| {
        let reason = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason);
        reason == Some(h2::Reason::HTTP_1_1_REQUIRED)
    })
}
