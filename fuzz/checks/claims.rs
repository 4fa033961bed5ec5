//! Claims: a token says where it may go and nothing of it ends in an error.

use crate::json;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use opship::source::token::{Allow, Claims, TokenError};

/// Every text that an unreadable token may lead to: none depends on the token.
const TEXTS: [&str; 5] = [
    "the token is empty",
    "this is a service account token (ops_...): the Events API needs a token of an Events Reporting integration",
    "the token cannot be read as a JWT (it has not three parts separated by dots)",
    "the token cannot be read as a JWT (its second part is not base64url)",
    "the token cannot be read as a JWT (its second part is not a JSON object)",
];
const HOSTS: [&str; 4] =
    ["events.1password.com", "events.ent.1password.com", "events.1password.ca", "events.1password.eu"];

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    read(&text);
    // The bytes as the claims of a token that is formed rightly: no mutation writes base64.
    let token = format!("e30.{}.c2lnbmF0dXJl", BASE64_URL_SAFE_NO_PAD.encode(data));
    let claims = read(&token);
    match (json::members(&text), claims) {
        (Some(members), claims) if data == text.as_bytes() => says_what_it_says(&members, claims.as_ref()),
        (_, claims) => assert!(
            claims.is_none() || data != text.as_bytes() || serde_json::from_str::<serde_json::Value>(&text).is_ok()
        ),
    }
}

fn read(token: &str) -> Option<Claims> {
    match Claims::read(token) {
        Err(error) => {
            assert!(TEXTS.contains(&error.to_string().as_str()), "{error}");
            assert!(!matches!(error, TokenError::Garbled | TokenError::NoAddress(_)));
            None
        }
        Ok(claims) => {
            leads_only_where_it_may(&claims, token);
            Some(claims)
        }
    }
}

fn says_what_it_says(members: &[(String, &str)], claims: Option<&Claims>) {
    // Values that no reader takes (too deep, too large a number) make the whole unreadable.
    let Some(claims) = claims else { return };
    let last = |name: &str| members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value);
    if let Some(said) = last("aud").and_then(json::text) {
        assert_eq!(claims.audience.clone().unwrap_or_default(), said);
    }
    if let Some(said) = last("1password.com/fts").and_then(|value| serde_json::from_str::<Vec<String>>(value).ok()) {
        assert_eq!(claims.features, said);
    }
    if let Some(said) = last("exp").and_then(|value| value.parse::<i64>().ok()).filter(|said| said.abs() < 1 << 40) {
        assert_eq!(claims.expires.map(|at| at.timestamp()), Some(said));
    }
}

fn leads_only_where_it_may(claims: &Claims, token: &str) {
    match claims.address(&Allow::default()) {
        Ok(url) => {
            assert!(url.scheme() == "https" && url.port().is_none() && url.path() == "/" && url.query().is_none());
            assert!(url.username().is_empty() && url.password().is_none());
            assert!(url.host_str().is_some_and(|host| HOSTS.contains(&host)), "{url}");
        }
        Err(error) => {
            let secret = token.rsplit('.').next().unwrap_or_default();
            let audience = claims.audience.as_deref().unwrap_or_default();
            let said = error.to_string();
            assert!(secret.len() < 8 || audience.contains(secret) || !said.contains(secret), "{said}");
            assert!(said.lines().count() == 1 && said.len() < 8192);
        }
    }
    let allow = Allow { hosts: ["gate.example:8443".into()].into(), insecure_loopback: true };
    if let Ok(url) = claims.address(&allow) {
        let host = url.host_str().unwrap_or_default();
        let is_loopback = host.starts_with("127.") || host == "[::1]";
        assert!(is_loopback || url.scheme() == "https" && (HOSTS.contains(&host) || host == "gate.example"), "{url}");
    }
}
