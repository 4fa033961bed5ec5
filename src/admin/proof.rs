//! How the admin server proves that it is opship's own before anybody sends it the token: whoever may open a port on the host could
//! hold the one that `admin.listen` names, and would be told the token by the first `opship status`.
//!
//! The client sends a challenge, the server answers with an HMAC over it under a key made from the token, which both read from
//! the same reference. The port is part of it, so that a process at another port cannot hand the challenge on to the real one.

use axum::http::{HeaderMap, HeaderName};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// The header of a request that asks for the proof: random letters of the client's own.
pub const CHALLENGE: HeaderName = HeaderName::from_static("x-opship-challenge");
/// The header of the answer.
pub const PROOF: HeaderName = HeaderName::from_static("x-opship-proof");
/// Longest challenge answered.
const CHALLENGE_BYTES_MAX: usize = 128;
/// Anybody may ask for a proof, and try tokens against it at home: each try costs so many hashes.
const ROUNDS: u32 = 100_000;

/// The key of the proofs.
pub struct Prover([u8; 32]);

impl Prover {
    pub fn new(token: &SecretString) -> Self {
        let token = token.expose_secret().trim().as_bytes();
        let mut key: [u8; 32] = Sha256::new_with_prefix(b"opship admin proof\n").chain_update(token).finalize().into();
        for _ in 0..ROUNDS {
            key = Sha256::digest(key).into();
        }
        Self(key)
    }

    /// What the server at this port answers to the challenge; none when it is no challenge.
    pub fn answer(&self, headers: &HeaderMap, port: u16) -> Option<String> {
        let challenge = headers.get(CHALLENGE)?.to_str().ok().filter(|text| is_challenge(text))?;
        let code = self.code(challenge, port)?.finalize().into_bytes();
        Some(code.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether this is what the server at this port answers.
    pub fn is_proof(&self, proof: &str, challenge: &str, port: u16) -> bool {
        let digits = (0..proof.len()).step_by(2).map(|at| u8::from_str_radix(proof.get(at..at + 2)?, 16).ok());
        let bytes: Option<Vec<u8>> = digits.collect();
        let (Some(bytes), Some(code)) = (bytes, self.code(challenge, port)) else { return false };
        code.verify_slice(&bytes).is_ok()
    }

    fn code(&self, challenge: &str, port: u16) -> Option<Hmac<Sha256>> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        code.update(format!("{port}\n{challenge}").as_bytes());
        Some(code)
    }
}

fn is_challenge(text: &str) -> bool {
    (32..=CHALLENGE_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE_TEXT: &str = "0123456789abcdef0123456789abcdef";

    fn headers(challenge: &str) -> HeaderMap {
        [(CHALLENGE, challenge.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn a_proof_holds_for_its_token_its_challenge_and_its_port_alone() {
        let prover = Prover::new(&"canary-token\n".to_owned().into());
        let proof = prover.answer(&headers(CHALLENGE_TEXT), 9464).unwrap();
        assert!(Prover::new(&" canary-token".to_owned().into()).is_proof(&proof, CHALLENGE_TEXT, 9464));
        assert!(!prover.is_proof(&proof, CHALLENGE_TEXT, 9465));
        assert!(!prover.is_proof(&proof, &CHALLENGE_TEXT.replace('0', "1"), 9464));
        assert!(!Prover::new(&"another".to_owned().into()).is_proof(&proof, CHALLENGE_TEXT, 9464));
        for wrong in ["", "0", "zz", &proof[2..], "é"] {
            assert!(!prover.is_proof(wrong, CHALLENGE_TEXT, 9464), "{wrong}");
        }
        for none in ["", "short", &"a".repeat(129), "0123456789abcdef0123456789abcde\t"] {
            assert_eq!(prover.answer(&headers(none), 9464), None, "{none}");
        }
    }
}
