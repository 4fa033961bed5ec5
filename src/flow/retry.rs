//! What a failure means and when to try again. The only file that may use the `backoff` crate.

use super::words::{Shape, Words};
use backoff::backoff::Backoff as _;
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
        message: Words,
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

/// How soon a refusal that [may pass](Failure::may_pass) is tried once more.
pub const PASSING_PAUSE: Duration = Duration::from_secs(10);

impl Failure {
    /// Answers that gateways give for a moment, while a service is moved or a connection led astray (404, 409, 421, 499): only the second
    /// in a row means what it says.
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Status { status: 404 | 409 | 421 | 499, .. })
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
                if !message.shown().is_empty() {
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
    Some((http_date(text)? - now?).to_std().unwrap_or_default().min(RETRY_AFTER_MAX))
}

/// Reads the milliseconds of Azure's `x-ms-retry-after-ms`, clamped the same.
pub fn after_ms(text: &str) -> Option<Duration> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().map_or(RETRY_AFTER_MAX, Duration::from_millis).min(RETRY_AFTER_MAX))
}

/// A date in any of the three forms of RFC 9110, 5.6.7, or with a numeric zone, as some proxies write it.
pub fn http_date(text: &str) -> Option<super::Time> {
    let text = text.trim();
    let known = httpdate::parse_http_date(text).ok().map(super::Time::from);
    known.or_else(|| chrono::DateTime::parse_from_rfc2822(text).ok().map(|date| date.to_utc()))
}

/// Where a failure was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Source,
    Sink,
    Store,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again, not sooner than `at_least`: a busy, broken or unreachable service, or a role assignment that is still spreading.
    Retry { at_least: Option<Duration> },
    /// Forget the cached credential and try again, once; a second 401 in a row is paced like a 403. Sink only.
    Reauthenticate,
    /// Halve the batch. Sink only.
    Split,
    /// Set the row aside and go on. Set by [`Verdict::of_rows`] alone, for what cannot be halved any further.
    DeadLetter,
    /// The request itself was refused: a cursor is answered by a reset, a reset or window by a halt ([`REQUEST_REFUSED`]).
    Rejected,
    /// Our credential was refused: health red, try again after `at_least` without end, exit 77 in `once`.
    Unauthorized { at_least: Duration, remedy: &'static str },
    /// Nothing helps but a person: health red, the position stays, try again every [`HALT_PACE`] because the person may not tell us.
    Halt { remedy: &'static str },
}

impl Verdict {
    /// The verdict for a batch of `rows`: a single row cannot be halved.
    pub fn of_rows(self, rows: usize) -> Self {
        if self == Self::Split && rows <= 1 { Self::DeadLetter } else { self }
    }
}

/// How often a halted feed, and one whose 1Password token is refused, tries again.
pub const HALT_PACE: Duration = Duration::from_secs(300);
/// How often Azure is asked again after a 403: role assignments take up to 30 minutes to spread.
pub const ROLE_PACE: Duration = Duration::from_secs(60);

const TOKEN_REFUSED: &str = "1Password refused the token: it was revoked, has expired, or lacks the feature of this stream; \
    issue a new one for the Events API and put it where accounts.NAME.token points (file: and keyvault: are read again by themselves; after a change of env: restart opship)";
const TOKEN_UNUSABLE: &str =
    "the 1Password token cannot be read or used: check accounts.NAME.token, and accounts.NAME.events_url if it is set";
const SOURCE_MISSING: &str = "the Events API is not at this address: check accounts.NAME.events_url and accounts.NAME.api, \
    or remove events_url so that the address comes from the token";
const SINK_MISSING: &str = "the data collection rule does not take this: check sink.endpoint, sink.dcr_immutable_id and \
    sink.stream against the rule, and redeploy the rule if it was deleted";
const STORE_REFUSED: &str = "the store refused the credential: give the identity the role Storage Blob Data Contributor on the \
    container, or renew the SAS in store.container_url";
const STORE_MISSING: &str = "the store does not take this: check that the container in store.container_url exists and is a plain \
    block blob container";
/// For the caller that turns [`Verdict::Rejected`] into a halt.
pub const REQUEST_REFUSED: &str = "1Password refuses the times or the limit that opship asks for: check schedule.lookback, and \
    update opship if it stays";
const PROXY_REFUSED: &str = "the proxy demands a login: put user and password into http.proxy";

/// What a failure at an edge means: the one place where this is decided.
pub fn verdict(edge: Edge, failure: &Failure) -> Verdict {
    match failure {
        Failure::NotConnected | Failure::Interrupted | Failure::Malformed(_) | Failure::TooLarge | Failure::Local => {
            Verdict::Retry { at_least: None }
        }
        Failure::NoCredential => match edge {
            Edge::Source => Verdict::Unauthorized { at_least: ROLE_PACE, remedy: TOKEN_UNUSABLE },
            // Identity endpoints fail for a moment at a time, right after the start of a container above all.
            Edge::Sink | Edge::Store => Verdict::Retry { at_least: None },
        },
        Failure::Status { status, code, message, retry_after } => match *status {
            // Below 300: no refusal, yet not the promised success either, as from a gateway that is being changed.
            ..300 | 408 | 425 | 429 | 500.. => Verdict::Retry { at_least: *retry_after },
            407 => Verdict::Halt { remedy: PROXY_REFUSED },
            300..500 => match edge {
                Edge::Source => source_refusal(*status, message, *retry_after),
                Edge::Sink => sink_refusal(*status, code, message.raw(), *retry_after),
                Edge::Store => store_refusal(*status, *retry_after),
            },
        },
    }
}

fn source_refusal(status: u16, message: &Words, retry_after: Option<Duration>) -> Verdict {
    match status {
        400 | 413 | 422 => Verdict::Rejected,
        401 => Verdict::Unauthorized { at_least: HALT_PACE, remedy: TOKEN_REFUSED },
        403 if message.shape() == Some(Shape::OnePassword) && retry_after.is_none() => {
            Verdict::Unauthorized { at_least: HALT_PACE, remedy: TOKEN_REFUSED }
        }
        // A challenge page, or a gateway that is busy: nothing that 1Password says of the token.
        403 => Verdict::Retry { at_least: retry_after },
        // Redirects are not followed (the token would go along), so they end here too.
        _ => Verdict::Halt { remedy: SOURCE_MISSING },
    }
}

fn sink_refusal(status: u16, code: &str, message: &str, retry_after: Option<Duration>) -> Verdict {
    match status {
        401 => Verdict::Reauthenticate,
        403 => Verdict::Retry { at_least: retry_after.max(Some(ROLE_PACE)) },
        413 => Verdict::Split,
        400 if is_about_the_payload(code, message) => Verdict::Split,
        // Also for a 400 that does not say why: splitting would walk a whole backlog into the dead letters.
        _ => Verdict::Halt { remedy: SINK_MISSING },
    }
}

fn store_refusal(status: u16, retry_after: Option<Duration>) -> Verdict {
    match status {
        401 | 403 => Verdict::Unauthorized { at_least: ROLE_PACE, remedy: STORE_REFUSED },
        // A lost race or a container that is being made.
        409 | 412 => Verdict::Retry { at_least: retry_after },
        _ => Verdict::Halt { remedy: STORE_MISSING },
    }
}

/// Whether a 400 of the Logs Ingestion API is about rows, which a smaller batch may get past, and not about stream or rule, which
/// would refuse every row. The codes are not documented as a list; `InvalidStream`, `InvalidPayload` and
/// `RecordsTimeRangeIsMoreThan30Minutes` were seen.
fn is_about_the_payload(code: &str, message: &str) -> bool {
    let says = |text: &str, words: &[&str]| words.iter().any(|word| text.to_ascii_lowercase().contains(word));
    let payload = ["payload", "recordstimerange", "json"];
    !says(code, &["stream"]) && (says(code, &payload) || says(message, &payload))
}

/// How long to wait between attempts: 500 ms, doubled up to 60 s, each multiplied by a random number of the caller (full jitter).
#[derive(Debug)]
pub struct Pace(backoff::exponential::ExponentialBackoff<Stopped>);

impl Pace {
    pub const FIRST: Duration = Duration::from_millis(500);
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// The next wait, for `unit` in `[0, 1)`. Never below `at_least`: what a service asks for is not jittered down.
    pub fn next(&mut self, unit: f64, at_least: Option<Duration>) -> Duration {
        let interval = self.0.next_backoff().unwrap_or(Self::LONGEST).min(Self::LONGEST);
        let unit = if unit.is_finite() { unit.clamp(0.0, 1.0) } else { 1.0 };
        interval.mul_f64(unit).max(at_least.unwrap_or_default())
    }
}

impl Default for Pace {
    fn default() -> Self {
        // Any moment will do: no limit of time is set, yet the crate asks a clock. Ours does not tick.
        let origin = backoff::ExponentialBackoff::default().start_time;
        Self(backoff::exponential::ExponentialBackoff {
            current_interval: Self::FIRST,
            initial_interval: Self::FIRST,
            // The crate's own jitter draws from a global source; ours comes in through `next`.
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: Self::LONGEST,
            start_time: origin,
            max_elapsed_time: None,
            clock: Stopped(origin),
        })
    }
}

#[derive(Clone, Debug)]
struct Stopped(std::time::Instant);

impl backoff::Clock for Stopped {
    fn now(&self) -> std::time::Instant {
        self.0
    }
}

/// How much trouble one request may make before the tick gives up on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    pub attempts_max: u32,
    /// From the first attempt to the end of the last wait.
    pub total: Duration,
    pub single_wait_max: Duration,
}

impl Patience {
    /// `opship once`: the timer that starts it keeps the pace.
    pub const ONCE: Self =
        Self { attempts_max: 6, total: Duration::from_secs(60), single_wait_max: Duration::from_secs(30) };
    /// `opship run`: room for the longest `Retry-After` believed after an answer that took its time; no more, because it is the end of
    /// the tick that tells the world that rows do not ship.
    pub const RUN: Self =
        Self { attempts_max: 6, total: RETRY_AFTER_MAX.saturating_add(ROLE_PACE), single_wait_max: RETRY_AFTER_MAX };

    /// As many tries as fit into this time.
    pub const fn within(total: Duration) -> Self {
        Self { attempts_max: u32::MAX, total, single_wait_max: total }
    }

    /// Whether to wait `next_wait` and try again after `attempts_made` attempts in `elapsed`.
    pub fn allows(&self, attempts_made: u32, elapsed: Duration, next_wait: Duration) -> bool {
        attempts_made < self.attempts_max
            && next_wait <= self.single_wait_max
            && elapsed.saturating_add(next_wait) <= self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Edge; 3] = [Edge::Source, Edge::Sink, Edge::Store];
    const MINUTE: Duration = Duration::from_secs(60);

    fn status(status: u16, code: &str, message: &str, retry_after: Option<Duration>) -> Failure {
        let message = Words::said(Shape::OnePassword, message);
        Failure::Status { status, code: code.into(), message, retry_after }
    }

    fn bare(code: u16) -> Failure {
        status(code, "", "", None)
    }

    #[test]
    fn busy_and_broken_services_are_tried_again_when_they_say() {
        for edge in ALL {
            for code in [408, 425, 429, 500, 502, 503, 504, 599] {
                for at_least in [None, Some(MINUTE)] {
                    let failure = status(code, "", "", at_least);
                    assert_eq!(verdict(edge, &failure), Verdict::Retry { at_least }, "{edge:?} {code}");
                }
            }
            assert_eq!(verdict(edge, &Failure::Interrupted), Verdict::Retry { at_least: None });
        }
    }

    #[test]
    fn no_status_is_without_a_verdict_and_every_halt_has_a_remedy() {
        for edge in ALL {
            for code in 0..1024 {
                match verdict(edge, &bare(code)) {
                    Verdict::Halt { remedy } | Verdict::Unauthorized { remedy, .. } => {
                        assert!(remedy.len() > 20 && !remedy.contains("  "), "{edge:?} {code}: {remedy:?}");
                    }
                    Verdict::Reauthenticate | Verdict::Split => assert_eq!(edge, Edge::Sink),
                    Verdict::Rejected => assert_eq!(edge, Edge::Source),
                    Verdict::DeadLetter => panic!("{edge:?} {code}: only a single row may become a dead letter"),
                    Verdict::Retry { .. } => {}
                }
            }
        }
    }

    #[test]
    fn the_sink_tells_rows_from_rules() {
        let of = |failure: &Failure| verdict(Edge::Sink, failure);
        assert_eq!(of(&bare(401)), Verdict::Reauthenticate);
        assert_eq!(of(&bare(403)), Verdict::Retry { at_least: Some(MINUTE) });
        let at_least = Some(MINUTE * 2);
        assert_eq!(of(&status(403, "x", "", at_least)), Verdict::Retry { at_least });
        assert_eq!(of(&bare(413)), Verdict::Split);
        for (code, message) in [
            ("InvalidPayloadFormat", "the stream is not what it was"),
            ("RecordsTimeRangeIsMoreThan30Minutes", ""),
            ("BadRequest", "Invalid JSON at position 7"),
        ] {
            assert_eq!(of(&status(400, code, message, None)), Verdict::Split, "{code} {message}");
        }
        for (code, message) in [("InvalidStream", "the payload's stream is unknown"), ("", "<html>Bad Request</html>")]
        {
            assert_eq!(of(&status(400, code, message, None)), Verdict::Halt { remedy: SINK_MISSING }, "{code}");
        }
        assert_eq!(of(&bare(404)), Verdict::Halt { remedy: SINK_MISSING });
        assert_eq!([2, 1].map(|rows| Verdict::Split.of_rows(rows)), [Verdict::Split, Verdict::DeadLetter]);
        assert_eq!(Verdict::Reauthenticate.of_rows(1), Verdict::Reauthenticate);
    }

    #[test]
    fn the_source_tells_requests_from_tokens_and_addresses() {
        let of = |code| verdict(Edge::Source, &bare(code));
        assert_eq!([of(401), of(403)], [Verdict::Unauthorized { at_least: HALT_PACE, remedy: TOKEN_REFUSED }; 2]);
        assert_eq!(of(400), Verdict::Rejected);
        assert_eq!([of(404), of(405), of(307)], [Verdict::Halt { remedy: SOURCE_MISSING }; 3]);
        assert!(matches!(verdict(Edge::Source, &Failure::NoCredential), Verdict::Unauthorized { .. }));
    }

    /// Fault: a service busy for forty attempts. Shows: waits double to a minute with full jitter and are never shorter than the service asks.
    #[test]
    fn fm_11_the_pace_doubles_to_a_minute_with_full_jitter_and_never_undercuts_the_service() {
        for step in 0..100 {
            let unit = f64::from(step) / 100.0;
            let mut pace = Pace::default();
            for attempt in 0..40 {
                let ceiling = Pace::FIRST.saturating_mul(1 << attempt.min(20)).min(Pace::LONGEST);
                let wait = pace.next(unit, None);
                assert!(wait.abs_diff(ceiling.mul_f64(unit)) < Duration::from_micros(1), "{unit} {attempt} {wait:?}");
            }
            assert_eq!(pace.next(unit, Some(RETRY_AFTER_MAX)), RETRY_AFTER_MAX);
        }
        for odd in [f64::NAN, f64::INFINITY, -1.0, 2.0] {
            assert!(Pace::default().next(odd, None) <= Pace::FIRST);
        }
    }

    #[test]
    fn patience_ends_by_attempts_by_time_and_by_a_single_long_wait() {
        let second = Duration::from_secs(1);
        for patience in [Patience::ONCE, Patience::RUN] {
            for attempts in 0..10 {
                assert_eq!(patience.allows(attempts, second, second), attempts < 6);
            }
            assert!(patience.allows(1, patience.total - second, second));
            assert!(!patience.allows(1, patience.total, second));
            assert!(!patience.allows(1, Duration::ZERO, patience.single_wait_max + second));
            assert!(!patience.allows(1, Duration::MAX, second));
        }
    }

    /// Fault: Retry-After in seconds, as a date, huge, negative, past and garbage. Shows: what is believed is within 0 to 300 s, the rest counts as absent.
    #[test]
    fn fm_11_retry_after_in_all_its_forms() {
        let now = "2026-11-22T10:00:00Z".parse().ok();
        let seconds = |n| Some(Duration::from_secs(n));
        for (text, expected) in [
            ("0", seconds(0)),
            (" 17 ", seconds(17)),
            ("99999999999999999999999", seconds(300)),
            ("Sun, 22 Nov 2026 10:00:42 GMT", seconds(42)),
            ("Sun, 22 Nov 2026 09:00:00 GMT", seconds(0)),
            ("-5", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(text, now), expected, "{text:?}");
        }
        assert_eq!(retry_after("Sun, 22 Nov 2026 10:00:42 GMT", None), None);
    }
}
