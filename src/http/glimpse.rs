//! Who answers at an address: the TLS version and the issuer of the certificate, seen through the same proxy as everything else.
//!
//! The handshake is broken off as soon as both are known, so that a server that must not be trusted can be looked at safely: not a byte
//! of a request is sent to it.

use super::{HttpError, builder, built, no_proxy, one_line};
use crate::config;
use hyper_util::client::proxy::matcher::Matcher;
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::sync::Arc;
use url::Url;

/// What was seen of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glimpse {
    /// `TLS 1.3` or `TLS 1.2`.
    pub version: &'static str,
    /// Common name, else organisation, of whoever signed the certificate.
    pub issuer: String,
}

/// Looks at the server of an `https` address. `None`: no handshake got so far as to show a certificate.
///
/// # Errors
/// Settings from which no client can be built.
pub async fn glimpse(options: &config::Http, url: &Url) -> Result<Option<Glimpse>, HttpError> {
    let by_tls = options.proxy.as_ref().is_some_and(|proxy| proxy.0.scheme() == "https");
    if url.scheme() != "https" || (by_tls && proxy_for(options, url).is_some()) {
        // The first handshake would be the proxy's own.
        return Ok(None);
    }
    let onlooker = Arc::new(Onlooker::default());
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|cause| HttpError { what: "TLS".into(), remedy: None, cause: Some(cause.into()) })?
        .dangerous()
        .with_custom_certificate_verifier(onlooker.clone())
        .with_no_client_auth();
    let client = built(builder(options)?.tls_backend_preconfigured(config))?;
    // Always an error: the onlooker lets no handshake end well.
    let _ = client.head(url.clone()).send().await;
    let seen = onlooker.seen.lock().clone();
    Ok(seen.filter(|glimpse| !glimpse.version.is_empty()))
}

/// The proxy that requests to this address go by, without its login.
pub fn proxy_for(options: &config::Http, url: &Url) -> Option<String> {
    let proxy = options.proxy.as_ref()?;
    let uri = url.as_str().parse().ok()?;
    let matcher = Matcher::builder().all(proxy.0.as_str()).no(no_proxy(&options.no_proxy)).build();
    matcher.intercept(&uri).map(|_| format!("{proxy:?}"))
}

#[derive(Debug, Default)]
struct Onlooker {
    seen: Mutex<Option<Glimpse>>,
}

impl Onlooker {
    fn leave(&self, version: &'static str) -> Result<HandshakeSignatureValid, rustls::Error> {
        if let Some(glimpse) = &mut *self.seen.lock() {
            glimpse.version = version;
        }
        Err(rustls::Error::General("only looked at".into()))
    }
}

impl ServerCertVerifier for Onlooker {
    /// Trusts nobody: the two below end every handshake.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let issuer = issuer(end_entity).unwrap_or_else(|| "an issuer without a name".into());
        *self.seen.lock() = Some(Glimpse { version: "", issuer });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.leave("TLS 1.2")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.leave("TLS 1.3")
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const VERSION: u8 = 0xa0;
/// 2.5.4.3 and 2.5.4.10.
const NAMES: [&[u8]; 2] = [&[0x55, 4, 3], &[0x55, 4, 10]];

/// The issuer's name in a certificate (RFC 5280, 4.1): TBSCertificate { version, serial, algorithm, issuer, .. }.
fn issuer(certificate: &[u8]) -> Option<String> {
    let (tbs, _) = tagged(SEQUENCE, tagged(SEQUENCE, certificate)?.0)?;
    let rest = tagged(VERSION, tbs).map_or(tbs, |(_, rest)| rest);
    let (_, _, rest) = element(rest)?;
    let (_, rest) = tagged(SEQUENCE, rest)?;
    let (name, _) = tagged(SEQUENCE, rest)?;
    NAMES.iter().find_map(|wanted| part_of(name, wanted))
}

fn part_of(mut name: &[u8], wanted: &[u8]) -> Option<String> {
    while let Some((set, rest)) = tagged(SET, name) {
        let (part, _) = tagged(SEQUENCE, set)?;
        let (id, value) = tagged(OBJECT_ID, part)?;
        if id == wanted {
            let (_, text, _) = element(value)?;
            return Some(one_line(&String::from_utf8_lossy(text)));
        }
        name = rest;
    }
    None
}

/// Content and rest behind an element of this kind.
fn tagged(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// One element of DER: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..0x80 => (usize::from(*short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f).min(8))?;
            (digits.iter().fold(0_usize, |length, digit| (length << 8) | usize::from(*digit)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn signed_by(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        names.iter().for_each(|(kind, name)| params.distinguished_name.push(kind.clone(), *name));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_issuer_is_named_by_common_name_else_by_organisation() {
        let both = [(DnType::OrganizationName, "Inspection Ltd"), (DnType::CommonName, "Inspecting Proxy")];
        assert_eq!(issuer(&signed_by(&both)).as_deref(), Some("Inspecting Proxy"));
        assert_eq!(issuer(&signed_by(&both[..1])).as_deref(), Some("Inspection Ltd"));
        assert_eq!(issuer(&signed_by(&[])), None);
    }

    #[test]
    fn a_cut_or_broken_certificate_has_no_issuer() {
        let whole = signed_by(&[(DnType::CommonName, "x")]);
        for length in 0..whole.len() {
            assert_eq!(issuer(&whole[..length]), None, "{length}");
        }
        assert_eq!(issuer(&[0x30, 0x88, 255, 255, 255, 255, 255, 255, 255, 255]), None);
    }

    #[test]
    fn the_proxy_is_named_without_its_login_and_its_exceptions_are_kept() {
        let proxy = config::ProxyUrl("http://u:hush@proxy.example:3128".parse().unwrap());
        let options = config::Http { proxy: Some(proxy), no_proxy: vec!["127.0.0.1".into()], ca_file: None };
        let of = |url: &str| proxy_for(&options, &url.parse().unwrap());
        assert_eq!(of("https://events.1password.com").as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(of("http://127.0.0.1:9"), None);
        assert_eq!(of("http://169.254.169.254/metadata"), None);
    }
}
