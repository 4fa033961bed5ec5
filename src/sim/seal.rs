//! Signs what the simulator hands out and takes back: events tokens, Azure tokens, cursors.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256, Sha512};

/// Key of one seed: what it signed is good after a restart with the same seed.
pub(super) struct Seal(Hmac<Sha512>);

impl Seal {
    #[expect(clippy::expect_used, reason = "an HMAC takes a key of any length")]
    pub(super) fn new(seed: u64) -> Self {
        let key = Sha256::new().chain_update(b"opship sim ").chain_update(seed.to_be_bytes()).finalize();
        Self(Hmac::new_from_slice(&key).expect("a key of 32 bytes"))
    }

    /// A JWT by its looks. The header says ES256 as a real one does; the 64 bytes behind it are an HMAC.
    pub(super) fn token(&self, kind: &str, claims: &impl Serialize) -> String {
        let header = format!(r#"{{"alg":"ES256","kid":"opshipsimulator","typ":"{kind}"}}"#);
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.mac(&[signed.as_bytes()]).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// The claims of a token of this seed.
    pub(super) fn claims<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.mac(&[signed.as_bytes()]).verify_slice(&signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// An opaque text around a value.
    pub(super) fn wrap(&self, value: &impl Serialize) -> String {
        let value = serde_json::to_vec(value).unwrap_or_default();
        let tag = self.mac(&[b"cursor\0", &value]).finalize().into_bytes();
        let tag = tag.get(..TAG_BYTES).unwrap_or_default();
        URL_SAFE_NO_PAD.encode([tag, &value].concat())
    }

    /// The value inside an opaque text of this seed.
    pub(super) fn unwrap<T: DeserializeOwned>(&self, text: &str) -> Option<T> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (tag, value) = bytes.split_at_checked(TAG_BYTES)?;
        self.mac(&[b"cursor\0", value]).verify_truncated_left(tag).ok()?;
        serde_json::from_slice(value).ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha512> {
        parts.iter().fold(self.0.clone(), |mac, part| mac.chain_update(part))
    }
}

/// Length of the signature inside an opaque text.
const TAG_BYTES: usize = 12;

/// Names a secret in the journal without giving it away: 8 bytes of its SHA-256.
pub(super) fn fingerprint(secret: &str) -> String {
    Sha256::digest(secret).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_seed_takes_back_what_was_signed() {
        let (ours, same, other) = (Seal::new(1), Seal::new(1), Seal::new(2));
        let (token, cursor) = (ours.token("JWT", &[1, 2]), ours.wrap(&"here"));
        assert_eq!(same.claims::<Vec<u32>>(&token), Some(vec![1, 2]));
        assert_eq!(other.claims::<Vec<u32>>(&token), None);
        assert_eq!(same.unwrap::<String>(&cursor).as_deref(), Some("here"));
        assert_eq!(other.unwrap::<String>(&cursor), None);
        assert_eq!(ours.unwrap::<String>("AAAA"), None);
    }
}
