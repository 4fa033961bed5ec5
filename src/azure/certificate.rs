//! Client assertions signed by a certificate's key: the SDK's certificate credential would need the OpenSSL library.
//!
//! Format: <https://learn.microsoft.com/entra/identity-platform/certificate-credentials>.

use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// How long an assertion may be used, as in Microsoft's own libraries.
const ASSERTION_SECONDS: i64 = 600;

/// A certificate with its RSA key.
pub(super) struct Certificate {
    key: Arc<dyn SigningKey>,
    /// SHA-256 of the certificate, as `x5t#S256` wants it.
    thumbprint: String,
}

impl Certificate {
    /// Reads a PEM text with a private key (PKCS#8 or PKCS#1) and its certificate, in any order, among others of its chain.
    pub(super) fn read(pem: &SecretString) -> Result<Self, String> {
        let text = pem.expose_secret();
        if text.contains("ENCRYPTED") {
            return Err("the private key is encrypted: store it without a password".into());
        }
        // The texts of these errors may quote a line of the key: they are not taken over.
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "no private key in the PEM text (a PFX must be converted first)")?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| "the private key is not usable")?;
        signer(&*key)?;
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| "a certificate in the PEM text is broken")?;
        let own = |certificate: &&CertificateDer<'static>| {
            CertifiedKey::new(vec![(*certificate).clone()], key.clone()).keys_match().is_ok()
        };
        let own = certificates.iter().find(own).ok_or("no certificate in the PEM text belongs to the private key")?;
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(own));
        Ok(Self { key, thumbprint })
    }

    /// What signs for one application at one token endpoint.
    pub(super) fn assertion(self: Arc<Self>, authority: &str, tenant_id: &str, client_id: &str) -> Assertion {
        let audience = format!("{authority}/{tenant_id}/oauth2/v2.0/token");
        Assertion { certificate: self, audience, client_id: client_id.to_owned() }
    }
}

fn signer(key: &dyn SigningKey) -> Result<Box<dyn Signer>, String> {
    key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).ok_or_else(|| "the private key is not an RSA key".into())
}

pub(super) struct Assertion {
    certificate: Arc<Certificate>,
    audience: String,
    client_id: String,
}

impl Assertion {
    fn sign(&self, now: i64) -> Result<String, String> {
        let header = serde_json::json!({"alg": "RS256", "typ": "JWT", "x5t#S256": self.certificate.thumbprint});
        let claims = serde_json::json!({
            "aud": self.audience,
            "iss": self.client_id,
            "sub": self.client_id,
            "jti": uuid::Uuid::new_v4().to_string(),
            "nbf": now,
            "exp": now + ASSERTION_SECONDS,
        });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = signer(&*self.certificate.key)?.sign(signed.as_bytes()).map_err(|error| error.to_string())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _options: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        self.sign(chrono::Utc::now().timestamp()).map_err(|why| {
            azure_core::Error::with_message(
                azure_core::error::ErrorKind::Credential,
                format!("sign the assertion: {why}"),
            )
        })
    }
}
