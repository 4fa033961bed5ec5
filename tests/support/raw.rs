//! A server of raw bytes: reads the head of a request and leaves the answer to a closure over the connection, with TLS or without.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Ends with the runtime of the test.
pub struct Raw {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    /// Each connection as it comes, not a byte of it read.
    pub async fn wire<F>(converse: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(converse(stream));
            }
        });
        Self { address, connections, heads: Arc::default() }
    }

    /// One request a connection: after its head the closure has the word.
    pub async fn start<F>(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(Box<dyn Wire>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::headed(tls, move |_, wire| answer(wire)).await
    }

    /// The same, the closure being told the head.
    async fn headed<F>(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(String, Box<dyn Wire>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (heads, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let kept = heads.clone();
        let raw = Self::wire(move |stream| {
            let (tls, kept, answer) = (tls.clone(), kept.clone(), answer.clone());
            async move {
                let mut wire: Box<dyn Wire> = Box::new(stream);
                if let Some(tls) = tls {
                    // A client that does not trust the certificate hangs up here.
                    let Ok(inside) = tokio_rustls::TlsAcceptor::from(tls).accept(wire).await else { return };
                    wire = Box::new(inside);
                }
                let Some(head) = head_of(&mut wire).await else { return };
                kept.lock().unwrap().push(head.clone());
                answer(head, wire).await;
            }
        })
        .await;
        Self { heads, ..raw }
    }

    /// The same bytes for everyone, then the end of the connection.
    pub async fn always(tls: Option<Arc<ServerConfig>>, answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::by_head(tls, move |_| answer.clone()).await
    }

    /// What the head deserves, then the end of the connection.
    pub async fn by_head(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::headed(tls, move |head, mut wire| {
            let answer = answer(&head);
            async move {
                // The client may have gone before the end.
                let _ = wire.write_all(&answer).await;
                let _ = wire.shutdown().await;
                // What the client still sends is read, lest the kernel take the answer back with a reset.
                let _ = tokio::io::copy(&mut wire, &mut tokio::io::sink()).await;
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The heads of the requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn head_of(wire: &mut Box<dyn Wire>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(wire.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// A port of loopback on which nobody listens.
pub fn closed() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A private certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        // Two authorities of one name would be told apart by their signatures only.
        Self::named(&uuid::Uuid::new_v4().to_string())
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server with a certificate for `host`, changed as the test needs it.
    pub fn server(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        let (key, params) = leaf(host, change);
        server(params.signed_by(&key, &self.0).unwrap().der().clone(), &key, &[])
    }

    /// One that offers these protocols (ALPN), the first that the client knows.
    pub fn server_of(&self, host: &str, protocols: &[&str]) -> Arc<ServerConfig> {
        let (key, params) = leaf(host, |_| ());
        server(params.signed_by(&key, &self.0).unwrap().der().clone(), &key, protocols)
    }
}

/// A server that vouches for itself.
pub fn self_signed(host: &str) -> Arc<ServerConfig> {
    let (key, params) = leaf(host, |_| ());
    server(params.self_signed(&key).unwrap().der().clone(), &key, &[])
}

fn leaf(host: &str, change: impl FnOnce(&mut CertificateParams)) -> (KeyPair, CertificateParams) {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    change(&mut params);
    (KeyPair::generate().unwrap(), params)
}

fn server(certificate: CertificateDer<'static>, key: &KeyPair, protocols: &[&str]) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}
