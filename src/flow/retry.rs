//! What a failure means and when to try again. The only file that may use the `backoff` crate.

use std::fmt;
use std::time::Duration;

/// What an edge observed, without words for people: the cause and the place stand in the edge's own error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was sent: refused, name not found, TLS handshake, proxy.
    NotConnected,
    /// The request went out at least in part and no answer came: timeout, reset, broken body.
    Interrupted,
    /// An answer other than success.
    Status {
        status: u16,
        /// The service's own error code, such as `ContentLengthLimitExceeded`; empty when it gave none.
        code: String,
        /// The service's own words, capped and with control characters escaped.
        message: String,
        retry_after: Option<Duration>,
    },
    /// The answer was read but cannot be used; what was wrong with it.
    Malformed(String),
    /// The answer is larger than the cap.
    TooLarge,
    /// No credential could be obtained for the request; nothing was sent.
    NoCredential,
    /// A local file operation failed before anything became durable.
    Local,
}

impl Failure {
    /// Whether the request may have taken effect although no success was seen: timeout, broken connection, 408, any 5xx.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Interrupted | Self::Malformed(_) | Self::TooLarge => true,
            Self::Status { status, .. } => *status == 408 || *status >= 500,
            Self::NotConnected | Self::NoCredential | Self::Local => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => f.write_str("could not connect"),
            Self::Interrupted => f.write_str("no answer"),
            Self::Status { status, code, message, .. } => {
                write!(f, "answered {status}")?;
                if !code.is_empty() {
                    write!(f, " {code}")?;
                }
                if !message.is_empty() {
                    write!(f, ": {message}")?;
                }
                Ok(())
            }
            Self::Malformed(what) => write!(f, "answer cannot be used: {what}"),
            Self::TooLarge => f.write_str("answer is larger than the cap"),
            Self::NoCredential => f.write_str("no credential"),
            Self::Local => f.write_str("file operation failed"),
        }
    }
}

/// Longest `Retry-After` believed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Reads `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3), clamped to [`RETRY_AFTER_MAX`]; garbage and negative
/// values are as if the header were absent. A date needs the answer's own `Date`.
pub fn retry_after(text: &str, now: Option<super::Time>) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs).min(RETRY_AFTER_MAX));
    }
    let until = chrono::DateTime::parse_from_rfc2822(text).ok()?.to_utc();
    Some((until - now?).to_std().unwrap_or_default().min(RETRY_AFTER_MAX))
}
