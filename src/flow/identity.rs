//! Which 1Password account an entry of the configuration is: what tells two entries of one account from entries of two.

use super::Stream;
use super::checkpoint::Fingerprints;
use super::map::sha256_hex;
use std::fmt;

/// A token's text as a hash: tells whether two tokens are the same one, and nothing else.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TokenHash(String);

impl TokenHash {
    pub fn of(token: &str) -> Self {
        Self(sha256_hex(format!("opship-token\n{token}").as_bytes()))
    }

    /// Short, for documents: another hash than the one that it is told by.
    pub fn fingerprint(&self) -> String {
        sha256_hex(format!("opship-token-fingerprint\n{}", self.0).as_bytes()).chars().take(16).collect()
    }
}

/// Not even the hash of a secret stands in a log.
impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(***)")
    }
}

/// Who an account is, as far as anything outside tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The fingerprint of the uuid that the introspection or the token's claims name.
    Named(String),
    /// Nothing names the account: it is told by the token alone.
    Unnamed(TokenHash),
}

impl Identity {
    /// The first of the fingerprints that names the account; else the token stands for it.
    pub fn new<'a>(fingerprints: impl IntoIterator<Item = &'a Fingerprints>, token: &TokenHash) -> Self {
        let named = fingerprints.into_iter().find_map(|fingerprints| fingerprints.account.clone());
        named.map_or_else(|| Self::Unnamed(token.clone()), Self::Named)
    }

    /// 32 digits for what may be shipped once: a stream of an account to a destination. What comes from outside is hashed, so that it
    /// is fit for a key whatever it holds.
    pub fn digest(&self, stream: Stream, sink_fingerprint: &str) -> String {
        let who = match self {
            Self::Named(account) => format!("account {account}"),
            Self::Unnamed(TokenHash(token)) => format!("token {token}"),
        };
        let text = format!("opship-owner\n{who}\n{stream}\n{sink_fingerprint}");
        sha256_hex(text.as_bytes()).chars().take(32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prints(account: Option<&str>, sink: &str) -> Fingerprints {
        Fingerprints::new("https://events.test", account, sink)
    }

    #[test]
    fn one_account_is_one_identity_whatever_its_token_and_a_token_stands_for_an_account_that_nothing_names() {
        let (one, other) = (TokenHash::of("one"), TokenHash::of("other"));
        let (named, nameless) = (prints(Some("UUID"), "s"), prints(None, "s"));
        assert_eq!(Identity::new([&named], &one), Identity::new([&named], &other));
        assert_eq!(Identity::new([&nameless, &named], &one), Identity::new([&named], &one));
        assert_eq!(Identity::new([&nameless], &one), Identity::new([], &one));
        assert_ne!(Identity::new([&nameless], &one), Identity::new([&nameless], &other));
        assert_ne!(Identity::new([&named], &one), Identity::new([&prints(Some("uuid"), "s")], &one));
    }

    #[test]
    fn a_digest_is_of_account_stream_and_destination_and_fit_for_a_key() {
        let token = TokenHash::of("secret");
        let of = |uuid: &str, stream, sink| Identity::new([&prints(Some(uuid), "")], &token).digest(stream, sink);
        let strange = "../../\u{0}\n\"owner\"";
        let all = [
            of("A", Stream::AuditEvents, "s"),
            of("B", Stream::AuditEvents, "s"),
            of("A", Stream::ItemUsages, "s"),
            of("A", Stream::AuditEvents, "t"),
            of(strange, Stream::AuditEvents, "s"),
            Identity::Unnamed(token.clone()).digest(Stream::AuditEvents, "s"),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().all(|digest| digest.len() == 32 && digest.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    #[test]
    fn a_token_hash_says_nothing() {
        assert_eq!(format!("{:?}", Identity::Unnamed(TokenHash::of("secret"))), "Unnamed(TokenHash(***))");
    }
}
