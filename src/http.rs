//! The one HTTP client: redirects off, deadlines, body caps, proxy and private CA, and what its errors mean.

mod body;
pub mod descriptors;
mod either;
mod gate;
mod glimpse;
mod refusal;

pub use crate::flow::words::one_line;
pub use body::{SMALL_BYTES, Turn, read_body, read_body_in_turn};
pub use either::Either;
pub use glimpse::{Glimpse, glimpse, proxy_for};
pub use refusal::{date_of, failure_of_body, failure_of_status};

use crate::config;
use crate::flow::retry::Failure;
use descriptors::{Demand, Shares};
use gate::Gate;
use std::error::Error;
use std::time::Duration;

/// Deadline of one request from connect to the last byte of the answer.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
/// Deadline of name resolution, TCP connect and TLS handshake.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// Largest answer read, after decompression: a legal page of events can be 20 MB.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest error answer read.
pub const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;

/// A client that could not be built.
#[derive(Debug, thiserror::Error)]
#[error("set up the HTTP client: {what}")]
pub struct HttpError {
    pub what: String,
    /// What to do about it, where that is more than to correct what was named.
    pub remedy: Option<&'static str>,
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Builds the client of a command that asks little.
///
/// # Errors
/// A CA file that cannot be read or holds no certificate, or a proxy that cannot be used.
pub fn client(options: &config::Http) -> Result<reqwest::Client, HttpError> {
    client_for(options, Demand::SMALL)
}

/// Builds the client that every edge shares, the Azure SDK included.
///
/// # Errors
/// A CA file that cannot be read or holds no certificate, or a proxy that cannot be used.
pub fn client_for(options: &config::Http, demand: Demand) -> Result<reqwest::Client, HttpError> {
    client_by(options, demand, |builder| builder)
}

fn client_by(
    options: &config::Http,
    demand: Demand,
    change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, HttpError> {
    let (idle_max, idle_for) = demand.idle();
    let builder = builder(options)?.pool_max_idle_per_host(idle_max).pool_idle_timeout(idle_for);
    built(change(builder.connector_layer(Gate::new(Shares::now()))))
}

const NO_ROOTS: &str = "install the package ca-certificates, or name a PEM file of certificate authorities in http.ca_file; where the \
    variable SSL_CERT_FILE or SSL_CERT_DIR is set, only what it names is read, and nothing of the system";

fn built(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, HttpError> {
    builder.build().map_err(|cause| {
        // In an image or a chroot without them. The library has no other mark of it than its words, which a test watches.
        let mut causes = std::iter::successors(cause.source(), |error| (*error).source());
        if causes.any(|error| error.to_string().contains("No CA certificates were loaded")) {
            let what = "this system has no certificate authorities, so that no server can be trusted".into();
            return HttpError { what, remedy: Some(NO_ROOTS), cause: None };
        }
        HttpError { what: "TLS and name resolution".into(), remedy: None, cause: Some(cause.into()) }
    })
}

fn builder(options: &config::Http) -> Result<reqwest::ClientBuilder, HttpError> {
    // Fails only when a provider is already installed, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    #[expect(clippy::disallowed_methods, reason = "the one place that builds a client")]
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("opship/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(REQUEST_DEADLINE)
        .tls_version_min(reqwest::tls::Version::TLS_1_2);
    if let Some(path) = &options.ca_file {
        builder = builder.tls_certs_merge(read_ca_file(path)?);
    }
    if let Some(url) = &options.proxy {
        let proxy = reqwest::Proxy::all(url.0.clone()).map_err(|cause| HttpError {
            what: format!("http.proxy {url:?}"),
            remedy: None,
            cause: Some(cause.into()),
        })?;
        builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&no_proxy(&options.no_proxy))));
    }
    Ok(builder)
}

/// The configured exceptions and the managed identity endpoints: link-local IMDS, and the platform's own, which is reached
/// with a secret header in clear text. Both answer this machine only, never a proxy.
fn no_proxy(configured: &[String]) -> String {
    let platform = std::env::var("IDENTITY_ENDPOINT").ok().and_then(|text| url::Url::parse(&text).ok());
    let platform = platform.and_then(|url| url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned()));
    let direct = ["169.254.0.0/16".to_owned()].into_iter().chain(platform);
    configured.iter().cloned().chain(direct).collect::<Vec<_>>().join(",")
}

fn read_ca_file(path: &std::path::Path) -> Result<Vec<reqwest::Certificate>, HttpError> {
    let what = || format!("http.ca_file {}", path.display());
    let pem =
        std::fs::read(path).map_err(|cause| HttpError { what: what(), remedy: None, cause: Some(cause.into()) })?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|cause| HttpError {
        what: what(),
        remedy: None,
        cause: Some(cause.into()),
    })?;
    if certificates.is_empty() {
        return Err(HttpError { what: format!("{} holds no PEM certificate", what()), remedy: None, cause: None });
    }
    Ok(certificates)
}

/// The dates of a certificate and this host's clock, one of which is wrong.
#[derive(Debug, thiserror::Error)]
#[error(
    "the dates of the server's certificate do not fit this host's clock, which says {now}: set the clock if it is wrong"
)]
struct WrongDates {
    now: String,
    #[source]
    cause: reqwest::Error,
}

/// The cause of a failed send, for people: a certificate that is not valid yet or no more may be right, and the clock wrong.
pub fn cause_of(error: reqwest::Error) -> Box<dyn std::error::Error + Send + Sync> {
    let error = error.without_url();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if is_about_dates(error) {
            break;
        }
        cause = error.source();
    }
    if cause.is_none() {
        return error.into();
    }
    let now = chrono::Utc::now().format("%Y-%m-%d %H:%M:%SZ").to_string();
    WrongDates { now, cause: error }.into()
}

fn is_about_dates(mut error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    // An I/O error gives its cause to nobody but who asks by name, and the connector puts one into another.
    while let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        error = inner;
    }
    let dates = |error: &rustls::CertificateError| {
        matches!(error, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
    };
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(error)) if dates(error))
}

/// What a failed send means: nothing sent, or nobody knows.
pub fn failure_of(error: &reqwest::Error) -> Failure {
    if error.is_connect() || error.is_builder() { Failure::NotConnected } else { Failure::Interrupted }
}
