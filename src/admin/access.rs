//! Who may see what: the token, and the name under which the server was called.

use super::proof::Prover;
use axum::http::{HeaderMap, Uri, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::{Mutex, MutexGuard};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use subtle::ConstantTimeEq;

/// What is asked of those who ask.
pub struct Access {
    listen: SocketAddr,
    /// None where no token is demanded.
    lock: Option<Arc<Lock>>,
    /// The real port, where 0 is configured: known once the server listens.
    port: Arc<OnceLock<u16>>,
}

/// What opens the pages: nothing at all until the token has been read.
#[derive(Default)]
pub struct Lock(Mutex<Option<Key>>);

struct Key {
    /// SHA-256 of the token: comparing hashes takes the same time whatever was sent.
    hash: [u8; 32],
    /// For those who want a proof before they send the token.
    prover: Prover,
}

impl Lock {
    /// From now on this token opens, and no other. Whether it is another one than before.
    pub fn take_key(&self, token: &SecretString) -> bool {
        let key = Key { hash: hash(token.expose_secret().trim().as_bytes()), prover: Prover::new(token) };
        let mut held = self.held();
        let is_new = held.as_ref().is_none_or(|old| old.hash != key.hash);
        *held = Some(key);
        is_new
    }

    fn held(&self) -> MutexGuard<'_, Option<Key>> {
        self.0.lock()
    }
}

impl Access {
    pub fn new(listen: SocketAddr, lock: Option<Arc<Lock>>) -> Self {
        Self { listen, lock, port: Arc::default() }
    }

    /// Where the real port is written once it is known.
    pub fn port(&self) -> Arc<OnceLock<u16>> {
        self.port.clone()
    }

    /// The proof that this is opship's own server, for who asks for one.
    pub fn proof(&self, headers: &HeaderMap) -> Option<String> {
        let port = self.port.get().copied().unwrap_or(self.listen.port());
        self.lock.as_ref()?.held().as_ref()?.prover.answer(headers, port)
    }

    /// Whether the pages that tell more than ok may be shown: by `Bearer`, or by `Basic` with the token as password, which is how a
    /// browser can send it. Never in the address: that ends in logs.
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(lock) = &self.lock else { return true };
        let held = lock.held();
        let opens = |sent: Vec<u8>| held.as_ref().is_some_and(|key| bool::from(hash(&sent).ct_eq(&key.hash)));
        sent(headers).is_some_and(opens)
    }

    /// Whether the server was called by a name of its own. On loopback another one is a page elsewhere whose name was pointed here
    /// (DNS rebinding): its scripts would read what they are sent. Beyond loopback the token stands in the way.
    pub fn knows(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let Ok(host) = host.to_str() else { return false };
        if !self.listen.ip().is_loopback() {
            return true;
        }
        is_own_name(host) && uri.authority().is_none_or(|authority| is_own_name(authority.as_str()))
    }
}

fn is_own_name(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')).unwrap_or(bare);
    bare.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// The password or token of the `Authorization` header.
fn sent(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = BASE64_STANDARD.decode(rest).ok()?;
    // The user's name is anybody's.
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        pairs.collect::<Vec<(axum::http::HeaderName, axum::http::HeaderValue)>>().into_iter().fold(
            HeaderMap::new(),
            |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            },
        )
    }

    fn access(listen: &str, token: Option<&str>) -> Access {
        let lock = token.map(|token| {
            let lock = Lock::default();
            lock.take_key(&token.to_owned().into());
            Arc::new(lock)
        });
        Access::new(listen.parse().unwrap(), lock)
    }

    #[test]
    fn the_token_is_taken_as_bearer_and_as_password_and_nothing_else_is() {
        let access = access("127.0.0.1:1", Some("s3cret:with colon\n"));
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        let accepted = ["Bearer s3cret:with colon", "bearer  s3cret:with colon ", &basic("any:s3cret:with colon")];
        for value in accepted.into_iter().chain([&*basic(":s3cret:with colon")]) {
            assert!(access.allows(&headers(&[("authorization", value)])), "{value}");
        }
        let (user, empty) = (basic("s3cret:with colon"), basic("any:"));
        for value in ["", "Bearer", "Bearer ", "Bearer s3cret", "s3cret:with colon", "Basic x", &user, &empty] {
            assert!(!access.allows(&headers(&[("authorization", value)])), "{value}");
        }
        assert!(!access.allows(&headers(&[])));
        let twice = [("authorization", "Bearer s3cret:with colon"), ("authorization", "Bearer x")];
        assert!(!access.allows(&headers(&twice)));
    }

    #[test]
    fn on_loopback_only_addresses_and_localhost_are_names_of_ours() {
        let access = access("127.0.0.1:9464", None);
        let known = |host: &str| access.knows(&Uri::from_static("/"), &headers(&[("host", host)]));
        for host in ["127.0.0.1:9464", "127.0.0.1", "localhost", "LOCALHOST:9464", "[::1]:9464", "[::1]", "10.0.0.1:80"]
        {
            assert!(known(host), "{host}");
        }
        for host in ["evil.example", "evil.example:9464", "localhost.evil.example", "127.0.0.1.evil.example", "", ":80"]
        {
            assert!(!known(host), "{host}");
        }
        assert!(!access.knows(&Uri::from_static("/"), &headers(&[])));
        assert!(!access.knows(&Uri::from_static("/"), &headers(&[("host", "localhost"), ("host", "localhost")])));
        let elsewhere = Uri::from_static("http://evil.example/");
        assert!(!access.knows(&elsewhere, &headers(&[("host", "localhost")])));
    }

    #[test]
    fn beyond_loopback_any_name_will_do_because_the_token_is_demanded() {
        let access = access("0.0.0.0:9464", Some("token"));
        assert!(access.knows(&Uri::from_static("/"), &headers(&[("host", "opship.internal:9464")])));
    }
}
