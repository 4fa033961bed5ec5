//! A loopback internet: one listener that is every host, spoken to directly, over TLS, or as a proxy.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// One request as a host got it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub host: String,
    /// The path with its query.
    pub path: String,
    pub method: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub tls: bool,
    pub proxied: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// A field of a form or of the query.
    pub fn field(&self, name: &str) -> String {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        let body = String::from_utf8_lossy(&self.body).into_owned();
        let pairs = format!("{query}&{body}");
        let found = url::form_urlencoded::parse(pairs.as_bytes()).find(|(key, _)| key == name);
        found.map_or(String::new(), |(_, value)| value.into_owned())
    }
}

pub enum Answer {
    Reply {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// Closes the connection without a word.
    Break,
    /// Never answers; [`World::hung`] is told.
    Hang,
}

pub fn reply(status: u16, body: impl Into<String>) -> Answer {
    Answer::Reply { status, headers: vec![("content-type", "application/json".into())], body: body.into() }
}

/// What a host answers to its n-th request, counted from 0.
type Script = Box<dyn Fn(&Seen, usize) -> Answer + Send + Sync>;

pub struct World {
    pub addr: SocketAddr,
    pub hung: Notify,
    ca: Arc<Authority>,
    scripts: Mutex<HashMap<String, Script>>,
    seen: Mutex<Vec<Seen>>,
}

impl World {
    pub async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = Arc::new(Self {
            addr: listener.local_addr().unwrap(),
            hung: Notify::new(),
            ca: Arc::new(Authority::new()),
            scripts: Mutex::default(),
            seen: Mutex::default(),
        });
        let accepting = world.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let world = accepting.clone();
                tokio::spawn(async move { world.converse(stream).await });
            }
        });
        world
    }

    pub fn answer(&self, host: &str, script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) {
        self.scripts.lock().unwrap().insert(host.to_owned(), Box::new(script));
    }

    pub fn seen(&self, host: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.host == host).cloned().collect()
    }

    pub fn url(&self) -> url::Url {
        format!("http://{}", self.addr).parse().unwrap()
    }

    pub fn ca_pem(&self) -> String {
        self.ca.0.pem()
    }

    async fn converse(&self, stream: TcpStream) -> io::Result<()> {
        let mut first = [0];
        stream.peek(&mut first).await?;
        let tls_at_once = first == [0x16];
        let mut wire: Box<dyn Wire> = Box::new(stream);
        if tls_at_once {
            wire = self.wrap(wire).await?;
        }
        let (mut tls, mut proxied) = (tls_at_once, false);
        while let Some(mut seen) = read_request(&mut wire).await? {
            if seen.method == "CONNECT" {
                wire.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
                wire = self.wrap(wire).await?;
                (tls, proxied) = (true, true);
                continue;
            }
            seen.tls = tls;
            seen.proxied |= proxied;
            match self.script(seen) {
                Answer::Break => return Ok(()),
                Answer::Hang => {
                    self.hung.notify_one();
                    std::future::pending::<()>().await;
                }
                Answer::Reply { status, headers, body } => write_reply(&mut wire, status, &headers, &body).await?,
            }
        }
        Ok(())
    }

    fn script(&self, seen: Seen) -> Answer {
        let count = self.seen(&seen.host).len();
        let scripts = self.scripts.lock().unwrap();
        let answer = scripts.get(&seen.host).map_or_else(|| reply(599, "nobody"), |script| script(&seen, count));
        self.seen.lock().unwrap().push(seen);
        answer
    }

    async fn wrap(&self, wire: Box<dyn Wire>) -> io::Result<Box<dyn Wire>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_cert_resolver(self.ca.clone());
        Ok(Box::new(tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(wire).await?))
    }
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// `None` when the connection ended between two requests.
async fn read_request(wire: &mut Box<dyn Wire>) -> io::Result<Option<Seen>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match wire.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.lines();
    let mut words = lines.next().unwrap().split(' ');
    let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap());
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: HashMap<String, String> = lines.filter_map(header).collect();
    let absolute = target.strip_prefix("http://");
    let path = absolute.map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..])).to_owned();
    let host = headers.get("host").map_or("", |host| host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host));
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    wire.read_exact(&mut body).await?;
    let proxied = absolute.is_some();
    Ok(Some(Seen { host: host.to_owned(), path, method, headers, body, tls: false, proxied }))
}

async fn write_reply(
    wire: &mut Box<dyn Wire>,
    status: u16,
    headers: &[(&'static str, String)],
    body: &str,
) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 204 {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    wire.write_all(format!("{text}\r\n{body}").as_bytes()).await?;
    wire.flush().await
}

/// A private certificate authority that signs for whatever host is asked for.
#[derive(Debug)]
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
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
