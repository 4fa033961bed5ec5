//! The steps of `check` about the way: the proxy, the connections with their certificates, the clock.

use super::step::{Finding, Pending, Plan};
use crate::cli::Exit;
use crate::config;
use crate::flow::Time;
use crate::flow::retry::Failure;
use crate::wire::{Greeting, Outside};
use chrono::TimeDelta;
use futures_util::future::join_all;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use url::Url;

/// From here on it is told, although nothing breaks yet.
const SKEW_NOTED: TimeDelta = TimeDelta::seconds(30);
/// From here on Entra ID refuses signed assertions.
const SKEW_MAX: TimeDelta = TimeDelta::minutes(5);

/// Longest wait for a place: sooner than the step's own deadline, so that the place can be named.
const HELLO_DEADLINE: Duration = Duration::from_secs(12);

/// An address that everything at it depends on.
pub(crate) struct Place {
    /// Whose it is, in one word.
    pub(crate) of: String,
    pub(crate) url: Url,
    /// The setting that names it.
    pub(crate) key: String,
}

impl Place {
    pub(crate) fn of(of: &str, url: Url, key: &str) -> Self {
        Self { of: of.into(), url, key: key.into() }
    }
}

/// Host, and port where it is not the usual one.
fn host_of(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// The clocks of the servers against this host's.
#[derive(Default)]
pub(crate) struct Clocks(Mutex<Vec<(String, TimeDelta)>>);

impl Clocks {
    fn note(&self, host: String, theirs: Time) {
        let ahead = chrono::Utc::now() - theirs;
        self.0.lock().push((host, ahead));
    }

    fn seen(&self) -> Vec<(String, TimeDelta)> {
        let mut seen = self.0.lock().clone();
        seen.sort();
        seen.dedup_by(|a, b| a.0 == b.0);
        seen
    }

    /// The time by a server's clock, else by this host's.
    pub(crate) fn now(&self) -> Time {
        chrono::Utc::now() - self.seen().first().map(|(_, ahead)| *ahead).unwrap_or_default()
    }
}

/// Whether anybody listens at the configured proxy.
pub(crate) fn proxy(http: &config::Http) -> Option<Pending> {
    let proxy = http.proxy.clone()?;
    Some(Plan::new("proxy", "").run(async move {
        let (host, port) = (proxy.0.host_str().unwrap_or_default(), proxy.0.port_or_known_default().unwrap_or(0));
        match TcpStream::connect((host.trim_matches(['[', ']']), port)).await {
            Ok(_) => Finding::ok(format!("{proxy:?} listens")),
            Err(error) => Finding::fail(
                Exit::Failed,
                format!("{proxy:?} does not answer: {error}"),
                "start the proxy or correct http.proxy; hosts that are reached without it belong into http.no_proxy",
            ),
        }
    }))
}

/// Whether a place answers, and who vouches for it.
pub(crate) fn connection(
    place: Place,
    outside: &Arc<Outside>,
    clocks: &Arc<Clocks>,
    proxy: Option<&Pending>,
) -> Pending {
    let (outside, clocks) = (outside.clone(), clocks.clone());
    Plan::new("connection", place.of.clone())
        .needs(proxy.filter(|_| outside.proxy_for(&place.url).is_some()))
        .run(async move { connected(&place, &outside, &clocks).await })
}

pub(crate) async fn connected(place: &Place, outside: &Outside, clocks: &Clocks) -> Finding {
    let host = host_of(&place.url);
    let Ok(greeting) = tokio::time::timeout(HELLO_DEADLINE, outside.greet(&place.url)).await else {
        let way = outside.proxy_for(&place.url).map(|proxy| format!(" by the proxy {proxy}")).unwrap_or_default();
        let remedy = format!(
            "something on the way swallows the packets: let this host through the firewall to {host}, set http.proxy if the \
             way out is a proxy, or correct {}",
            place.key
        );
        return Finding::fail(
            Exit::Failed,
            format!("{host}{way} does not answer within {} s", HELLO_DEADLINE.as_secs()),
            remedy,
        );
    };
    let by = greeting.proxy.as_ref().map(|proxy| format!(", by the proxy {proxy}")).unwrap_or_default();
    match &greeting.answer {
        Ok(date) => {
            if let Some(date) = date {
                clocks.note(host.clone(), *date);
            }
            Finding::ok(format!("{host}: {}{by}", secured(&place.url, &greeting)))
        }
        Err((failure, why)) => unreachable(place, &host, failure, why, &greeting),
    }
}

fn secured(url: &Url, greeting: &Greeting) -> String {
    match &greeting.glimpse {
        Some(seen) => format!("{}, certificate issued by \"{}\"", seen.version, seen.issuer),
        None if url.scheme() == "http" => "answers without TLS, as loopback may".into(),
        None => "answers by TLS".into(),
    }
}

fn unreachable(place: &Place, host: &str, failure: &Failure, why: &str, greeting: &Greeting) -> Finding {
    let fail = |said: String, remedy: String| Finding::fail(Exit::Failed, said, remedy);
    let (key, lower) = (&place.key, why.to_ascii_lowercase());
    if let Some(why) = certificate_trouble(why) {
        let issuer =
            greeting.glimpse.as_ref().map(|seen| format!(", issued by \"{}\"", seen.issuer)).unwrap_or_default();
        return fail(
            format!("the certificate of {host}{issuer}, is not trusted: {why}"),
            "if the issuer is your company's TLS inspection or private authority, put its CA certificate into http.ca_file; \
             if you do not know the issuer, trust nothing: somebody stands in between"
                .into(),
        );
    }
    if let Some(proxy) = &greeting.proxy {
        let login = matches!(failure, Failure::Status { status: 407, .. }) || lower.contains("authorization required");
        return match login {
            true => fail(
                format!("the proxy {proxy} wants a login for {host}"),
                "put user and password into http.proxy, or let this host through without one".into(),
            ),
            false => fail(
                format!("{host} is not reached by the proxy {proxy}: {}", last_word(why)),
                format!("let the proxy connect to {host}, or correct {key}"),
            ),
        };
    }
    if lower.contains("dns") || lower.contains("lookup") {
        return fail(
            format!("the name {host} is not found"),
            format!("correct {key}, or the DNS of this host (a private endpoint needs its private zone)"),
        );
    }
    fail(
        format!("{host} is not reached: {}", last_word(why)),
        format!(
            "let this host through the firewall to {host}, set http.proxy if the way out is a proxy, or correct {key}"
        ),
    )
}

/// What rustls said of the certificate, if that was the trouble.
fn certificate_trouble(why: &str) -> Option<&str> {
    why.split_once("invalid peer certificate: ").map(|(_, reason)| reason)
}

/// The innermost cause.
fn last_word(why: &str) -> &str {
    why.rsplit(": ").next().unwrap_or(why)
}

/// This host's clock against those of the servers.
pub(crate) fn clock(clocks: &Arc<Clocks>, connections: &[Pending]) -> Pending {
    let (clocks, asked) = (clocks.clone(), connections.to_vec());
    Plan::new("clock", "").after(connections).run(async move {
        let seen = clocks.seen();
        let Some((host, ahead)) = seen.iter().max_by_key(|(_, ahead)| ahead.abs()) else {
            let silent = join_all(asked).await;
            let needed = silent.iter().find_map(|connection| connection.blocks());
            return Finding::skipped(&needed.unwrap_or_else(|| "a server that tells its time".into()));
        };
        let direction = if *ahead > TimeDelta::zero() { "ahead of" } else { "behind" };
        let said = format!("this host is {} {direction} {host}", long(ahead.abs()));
        let remedy = "find out which of the two is wrong, and set this host's by NTP (timedatectl set-ntp true) if it is that one: \
             from 5 minutes on Entra ID refuses certificates and a new SAS does not work yet, from 15 minutes on Azure Storage refuses \
             everything and a feed waits until two answers of 1Password, a minute apart, agree; times of events are not affected";
        match ahead.abs() {
            good if good < SKEW_NOTED => Finding::ok(format!("within {} of every server that answered", long(SKEW_NOTED))),
            bearable if bearable < SKEW_MAX => Finding::warn(said, remedy),
            _ => Finding::fail(Exit::Failed, said, remedy),
        }
    })
}

/// In the largest unit that says enough.
pub(crate) fn long(time: TimeDelta) -> String {
    match time.num_seconds() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}
