//! A CONNECT proxy behind which every host is the simulator, with a certificate of a private authority.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

pub struct Internet {
    pub address: SocketAddr,
    ca: Arc<Authority>,
    hosts: Mutex<Vec<String>>,
    wants_login: AtomicBool,
}

/// User and password of the proxy.
pub const LOGIN: (&str, &str) = ("opship", "canary-proxy-password");

impl Internet {
    pub async fn start(behind: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let internet = Arc::new(Self {
            address,
            ca: Arc::new(Authority::new()),
            hosts: Mutex::default(),
            wants_login: AtomicBool::new(false),
        });
        let serving = internet.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let internet = serving.clone();
                tokio::spawn(async move { internet.connect(stream, behind).await });
            }
        });
        internet
    }

    /// From now on only with [`LOGIN`].
    pub fn demand_login(&self) {
        self.wants_login.store(true, Ordering::SeqCst);
    }

    fn lets_in(&self, head: &str) -> bool {
        let basic =
            format!("proxy-authorization: Basic {}", BASE64_STANDARD.encode(format!("{}:{}", LOGIN.0, LOGIN.1)));
        let is_login = |line: &str| line.replacen("Proxy-Authorization", "proxy-authorization", 1) == basic;
        !self.wants_login.load(Ordering::SeqCst) || head.lines().any(is_login)
    }

    /// The hosts that were asked for, each once, in order of their names.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts = self.hosts.lock().unwrap().clone();
        hosts.sort();
        hosts.dedup();
        hosts
    }

    pub fn ca_pem(&self) -> String {
        self.ca.0.pem()
    }

    async fn connect(&self, mut stream: TcpStream, behind: SocketAddr) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let Some(host) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
            return stream.write_all(b"HTTP/1.1 405 Only CONNECT\r\ncontent-length: 0\r\n\r\n").await;
        };
        if !self.lets_in(&head) {
            let refusal =
                b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n";
            return stream.write_all(refusal).await;
        }
        self.hosts.lock().unwrap().push(host.to_owned());
        stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_cert_resolver(self.ca.clone());
        let mut inside = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        let mut server = TcpStream::connect(behind).await?;
        copy_bidirectional(&mut inside, &mut server).await.map(drop)
    }
}

/// Signs for whatever host is asked for.
#[derive(Debug)]
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Private Root CA");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }
}

impl ResolvesServerCert for Authority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![hello.server_name()?.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        Some(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)))
    }
}
