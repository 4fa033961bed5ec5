//! What an access token of Microsoft Entra ID says about its bearer. Read for the operator's eyes, never verified: that is the service's.

use crate::flow::Time;
use crate::http::one_line;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// Who a token is for. What the token does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passport {
    pub tenant: Option<String>,
    /// The service principal: the one that roles are assigned to.
    pub object: Option<String>,
    /// The client id.
    pub application: Option<String>,
    pub expires: Option<Time>,
}

impl Passport {
    /// Empty for a token that is no JWT: such tokens are legal, they only cannot be read.
    /// <https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference>
    pub fn read(token: &SecretString) -> Self {
        let payload = token.expose_secret().split('.').nth(1).unwrap_or_default();
        let claims = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).unwrap_or_default();
        let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
        let text = |names: &[&str]| names.iter().find_map(|name| claims.get(name)?.as_str()).map(one_line);
        Self {
            tenant: text(&["tid"]),
            object: text(&["oid", "sub"]),
            application: text(&["appid", "azp"]),
            expires: claims.get("exp").and_then(Value::as_i64).and_then(|at| chrono::DateTime::from_timestamp(at, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_versions_of_tokens_are_read_and_an_opaque_one_says_nothing() {
        let read = |claims: Value| {
            let payload = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
            Passport::read(&SecretString::from(format!("e30.{payload}.c2ln")))
        };
        let first = read(json!({"tid": "t", "oid": "o", "appid": "a", "exp": 1_790_000_000, "sub": "s"}));
        assert_eq!((first.tenant.as_deref(), first.object.as_deref()), (Some("t"), Some("o")));
        assert_eq!(
            (first.application.as_deref(), first.expires.map(|at| at.timestamp())),
            (Some("a"), Some(1_790_000_000))
        );
        assert_eq!(read(json!({"azp": "b", "sub": "s"})).application.as_deref(), Some("b"));
        assert_eq!(Passport::read(&SecretString::from("opaque")), Passport::default());
    }
}
