//! What an Events API token says about itself, and where it may be sent. Claims are read, never verified: only the service can.

use crate::config::Delivery;
use crate::flow::Time;
use crate::http::one_line;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// The services of developer.1password.com/docs/events-api (servers). A token cannot send itself anywhere else by its own claim.
const HOSTS: [&str; 4] =
    ["events.1password.com", "events.ent.1password.com", "events.1password.ca", "events.1password.eu"];
/// The audience of tokens issued before the address was put into them.
const AUDIENCE_WITHOUT_ADDRESS: &str = "com.1password.streamingservice";

/// A token that cannot be used. Never holds a part of the token but its audience.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is empty")]
    Empty,
    #[error("the token holds control or non-ASCII characters: it was probably cut or pasted wrongly")]
    Garbled,
    #[error(
        "this is a service account token (ops_...): the Events API needs a token of an Events Reporting integration"
    )]
    ServiceAccount,
    #[error("the token is not pasted alone: {0}; put the bare token there, which begins with eyJ")]
    Wrapped(&'static str),
    #[error("the token cannot be read as a JWT ({0})")]
    NotJwt(&'static str),
    #[error("the token names no address of the Events API (audience {0:?})")]
    NoAddress(String),
    #[error("the token asks to be sent to {0:?}, which is neither 1Password's nor in delivery.allow_hosts")]
    HostNotAllowed(String),
    #[error("{0:?} is not https (http is for loopback only, with delivery.allow_insecure_loopback)")]
    Insecure(String),
}

/// Trims what editors and `echo` leave around a token.
///
/// # Errors
/// Nothing left, or characters that no header may carry.
pub fn trimmed(token: &SecretString) -> Result<&str, TokenError> {
    let token = token.expose_secret().trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if token.is_empty() {
        return Err(TokenError::Empty);
    }
    if let Some(how) = wrapped(token) {
        return Err(TokenError::Wrapped(how));
    }
    if !token.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(TokenError::Garbled);
    }
    Ok(token)
}

/// What people copy along with a token.
fn wrapped(token: &str) -> Option<&'static str> {
    let starts = |with: &str| token.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    // No token holds one of these.
    let first = token.chars().next();
    if starts("bearer ") || starts("authorization:") {
        return Some("it is a header, with Bearer before it");
    }
    if matches!(first, Some('{' | '[')) {
        return Some("it is a JSON document");
    }
    if matches!(first, Some('"' | '\'' | '`' | '\u{201c}' | '\u{2018}')) {
        return Some("it stands between quotation marks");
    }
    if token.split_once('=').is_some_and(|(_, value)| value.trim_start_matches(['"', '\'', ' ']).starts_with("eyJ")) {
        return Some("it is a line of an environment file, with a name and = before it");
    }
    if token.chars().any(char::is_whitespace) && token.starts_with("eyJ") {
        return Some("it is broken into lines, or more stands behind it");
    }
    None
}

/// Where a token may be sent, from the configuration.
#[derive(Clone, Debug, Default)]
pub struct Allow {
    /// `host` or `host:port`, beyond 1Password's own.
    pub hosts: BTreeSet<String>,
    pub insecure_loopback: bool,
}

impl From<&Delivery> for Allow {
    fn from(delivery: &Delivery) -> Self {
        Self { hosts: delivery.allow_hosts.clone(), insecure_loopback: delivery.allow_insecure_loopback }
    }
}

impl Allow {
    /// Whether a token may be sent with this scheme: in the clear only to ourselves.
    ///
    /// # Errors
    /// [`TokenError::Insecure`].
    pub fn scheme(&self, url: &Url) -> Result<(), TokenError> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.is_open_loopback(url) => Ok(()),
            _ => Err(TokenError::Insecure(one_line(url.as_str()))),
        }
    }

    fn host(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let named = |name: &str| self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        let with_port = || format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        (HOSTS.contains(&host) && url.port().is_none())
            || named(host)
            || named(&with_port())
            || self.is_open_loopback(url)
    }

    fn is_open_loopback(&self, url: &Url) -> bool {
        let loopback = match url.host() {
            // The two that the configuration may name as well: the rest of 127.0.0.0/8 is as open to every user of the host.
            Some(Host::Ipv4(ip)) => ip == Ipv4Addr::LOCALHOST,
            Some(Host::Ipv6(ip)) => ip == Ipv6Addr::LOCALHOST,
            Some(Host::Domain(_)) | None => false,
        };
        self.insecure_loopback && loopback
    }
}

/// What a token says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The first audience: the host of the service in all but old tokens.
    pub audience: Option<String>,
    /// Streams the token may read, as the API names them.
    pub features: Vec<String>,
    pub account_uuid: Option<String>,
    pub expires: Option<Time>,
}

impl Claims {
    /// Reads the claims of a trimmed token.
    ///
    /// # Errors
    /// The text is not three base64url parts with a JSON object in the middle.
    pub fn read(token: &str) -> Result<Self, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if token.starts_with("ops_") {
            return Err(TokenError::ServiceAccount);
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [_, payload, _] = parts.as_slice() else {
            return Err(TokenError::NotJwt("it has not three parts separated by dots"));
        };
        let json = BASE64_URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .map_err(|_| TokenError::NotJwt("its second part is not base64url"))?;
        let Ok(Value::Object(claims)) = serde_json::from_slice(&json) else {
            return Err(TokenError::NotJwt("its second part is not a JSON object"));
        };
        Ok(Self {
            audience: claims.get("aud").and_then(first_text),
            features: claims.get("1password.com/fts").map(texts).unwrap_or_default(),
            account_uuid: claims.get("1password.com/auuid").and_then(first_text),
            expires: claims.get("exp").and_then(moment),
        })
    }

    /// The address that the token asks for: `https://` and its audience.
    ///
    /// # Errors
    /// No address inside, or one that is not allowed.
    pub fn address(&self, allow: &Allow) -> Result<Url, TokenError> {
        let audience = self.audience.as_deref().unwrap_or_default();
        let none = || TokenError::NoAddress(one_line(audience));
        if audience.is_empty() || audience == AUDIENCE_WITHOUT_ADDRESS {
            return Err(none());
        }
        let text = if audience.contains("://") { audience.to_owned() } else { format!("https://{audience}") };
        let url = Url::parse(&text).map_err(|_| none())?;
        // Only scheme, host and port: a path or user name would move the requests to another place than the checks looked at.
        if url.as_str().strip_suffix('/').is_none_or(|text| text != url.origin().ascii_serialization()) {
            return Err(none());
        }
        allow.scheme(&url)?;
        if !allow.host(&url) {
            return Err(TokenError::HostNotAllowed(one_line(audience)));
        }
        Ok(url)
    }
}

/// A claim that may be a text or a list of texts (RFC 7519, 4.1.3): the first.
fn first_text(claim: &Value) -> Option<String> {
    texts(claim).into_iter().next().filter(|text| !text.is_empty())
}

fn texts(claim: &Value) -> Vec<String> {
    match claim {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// Seconds since 1970 as a number, with a fraction (RFC 7519 allows it), or as a text (seen in the wild).
fn moment(claim: &Value) -> Option<Time> {
    let seconds = match claim {
        Value::Number(number) => number.as_i64().map_or_else(|| number.as_f64(), |whole| Some(whole as f64)),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let seconds = seconds.filter(|s: &f64| s.is_finite() && s.abs() < 1e15)?;
    chrono::DateTime::from_timestamp(seconds.floor() as i64, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(&json!({"alg": "ES256", "typ": "JWT"})), part(claims))
    }

    fn claims(value: &Value) -> Claims {
        Claims::read(&token(value)).unwrap()
    }

    fn address(audience: &str, allow: &Allow) -> Result<String, TokenError> {
        claims(&json!({ "aud": [audience] })).address(allow).map(|url| url.to_string())
    }

    /// Fault: what people paste for a token: a header, quotation marks, a line of an environment file, JSON, two lines. Shows: it is named as what it is, without a piece of it.
    #[test]
    fn fm_71_a_token_that_is_not_pasted_alone_is_named_as_what_it_is() {
        let token = token(&json!({"aud": ["events.1password.com"]}));
        for (pasted, named) in [
            (format!("Bearer {token}"), "a header"),
            (format!("Authorization: Bearer {token}"), "a header"),
            (format!("\"{token}\""), "quotation marks"),
            (format!("'{token}'"), "quotation marks"),
            (format!("\u{201c}{token}\u{201d}"), "quotation marks"),
            (format!("OP_EVENTS_TOKEN={token}"), "environment file"),
            (format!("export OP_EVENTS_TOKEN=\"{token}\""), "environment file"),
            (format!("{{\"token\":\"{token}\"}}"), "JSON"),
            (format!("{}\n{}", &token[..40], &token[40..]), "broken into lines"),
        ] {
            let error = trimmed(&SecretString::from(pasted.clone())).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("bare token") && !error.contains(&token[..12]), "{error}");
        }
        assert_eq!(trimmed(&SecretString::from(format!("\u{feff} {token} \n"))).unwrap(), token);
    }

    #[test]
    fn a_real_looking_token_is_read() {
        // Synthetic: the signature is zeroes.
        let text = concat!(
            "eyJhbGciOiJFUzI1NiIsImtpZCI6InN5bnRoZXRpY2tpZDAwMDAwMDAwMDAwMDAwIiwidHlwIjoiSldUIn0.",
            "eyIxcGFzc3dvcmQuY29tL2F1dWlkIjoiU1lOVEhFVElDQUNDT1VOVDAwMDAwMDAwMDAiLCIxcGFzc3dvcmQuY29tL2Z0cyI6WyJzaWduaW5hdHRlb",
            "XB0cyIsIml0ZW11c2FnZXMiLCJhdWRpdGV2ZW50cyJdLCJhdWQiOlsiY29tLjFwYXNzd29yZC5zdHJlYW1pbmdzZXJ2aWNlIl0sInN1YiI6IlNZTl",
            "RIRVRJQ1NVQkpFQ1QwMDAwMDAwMDAwIiwiaWF0IjoxNzkwMDAwMDAwLCJleHAiOjE3OTc3NzYwMDAsImlzcyI6ImNvbS4xcGFzc3dvcmQuYjUiLCJ",
            "qdGkiOiJzeW50aGV0aWNqdGkxMTExMTExMTExMTExMSJ9.",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        );
        let read = Claims::read(text).unwrap();
        assert_eq!(read.features, ["signinattempts", "itemusages", "auditevents"]);
        assert_eq!(read.account_uuid.as_deref(), Some("SYNTHETICACCOUNT0000000000"));
        assert_eq!(read.expires.map(|t| t.timestamp()), Some(1_797_776_000));
        assert!(matches!(read.address(&Allow::default()), Err(TokenError::NoAddress(_))));
    }

    #[test]
    fn expiry_is_read_from_a_whole_number_a_fraction_and_a_text() {
        for (exp, expected) in [
            (json!(1_790_000_000), Some(1_790_000_000)),
            (json!(1_790_000_000.5), Some(1_790_000_000)),
            (json!("1790000000"), Some(1_790_000_000)),
            (json!("never"), None),
            (json!(1e300), None),
            (json!(null), None),
        ] {
            assert_eq!(claims(&json!({ "exp": exp })).expires.map(|t| t.timestamp()), expected, "{exp}");
        }
    }

    #[test]
    fn what_is_no_events_token_is_refused_with_a_reason_and_without_its_text() {
        for bad in ["", "ops_eyJzaWduSW5BZGRyZXNz", "a.$$$.c", "eA.bm9wZQ.eg", "one.two", "a.W10.c", "secretpart"] {
            let error = Claims::read(bad).unwrap_err();
            assert!(bad.is_empty() || !format!("{error} {error:?}").contains(bad), "{error}");
        }
        assert_eq!(Claims::read("ops_x"), Err(TokenError::ServiceAccount));
    }

    #[test]
    fn an_audience_leads_only_to_1password_and_to_allowed_hosts() {
        let strict = Allow::default();
        assert_eq!(address("events.1password.eu", &strict).as_deref(), Ok("https://events.1password.eu/"));
        assert_eq!(
            claims(&json!({"aud": "events.1password.ca"})).address(&strict).unwrap().host_str(),
            HOSTS.get(2).copied()
        );
        for evil in [
            "evil.example",
            "events.1password.com.evil.example",
            "events.1password.com@evil.example",
            "events.1password.com:8443",
            "events.1password.com/proxy",
            "events.1password.com//",
            "//events.1password.eu//",
            "events.1password.com?x",
            "http://events.1password.com",
            "127.0.0.1:80",
            "http://127.0.0.1:80",
            "ftp://events.1password.com",
            "com.1password.streamingservice",
            "",
        ] {
            assert!(address(evil, &strict).is_err(), "{evil}");
        }
    }

    #[test]
    fn allowed_hosts_and_loopback_open_exactly_what_they_name() {
        let allow = Allow { hosts: ["Gate.example".into(), "b.example:8443".into()].into(), insecure_loopback: true };
        for good in [
            "gate.example",
            "gate.example:444",
            "b.example:8443",
            "127.0.0.1:1",
            "http://127.0.0.1:1",
            "http://[::1]:1",
        ] {
            assert!(address(good, &allow).is_ok(), "{good}");
        }
        for bad in ["b.example", "http://gate.example", "http://10.0.0.1", "http://localhost:1"] {
            assert!(address(bad, &allow).is_err(), "{bad}");
        }
    }

    /// Fault: a token whose audience is an address of the host other than 127.0.0.1 and [::1]. Shows: it is sent nowhere, loopback being allowed or not.
    #[test]
    fn fm_75_of_loopback_an_audience_names_two_addresses_alone() {
        for insecure_loopback in [false, true] {
            let allow = Allow { insecure_loopback, ..Allow::default() };
            for elsewhere in [
                "http://127.0.0.2:9464",
                "127.255.255.254",
                "http://127.1.1.1",
                "http://[::ffff:127.0.0.1]:1",
                "http://[::ffff:127.0.0.2]:1",
                "http://0.0.0.0:1",
                "http://[::]:1",
            ] {
                assert!(address(elsewhere, &allow).is_err(), "{elsewhere}");
            }
            for ours in ["http://127.0.0.1:1", "http://[::1]:1", "127.0.0.1:1"] {
                assert_eq!(address(ours, &allow).is_ok(), insecure_loopback, "{ours}");
            }
        }
    }

    #[test]
    fn tokens_are_trimmed_and_garbled_ones_refused() {
        let of = |text: &str| trimmed(&SecretString::from(text)).map(str::to_owned);
        assert_eq!(of("\u{feff} tok.en \r\n"), Ok("tok.en".into()));
        assert_eq!(of(" \n"), Err(TokenError::Empty));
        for bad in ["to\nken", "to\0ken", "tök", "to\u{202e}ken", "to\tken"] {
            assert_eq!(of(bad), Err(TokenError::Garbled));
        }
    }
}
