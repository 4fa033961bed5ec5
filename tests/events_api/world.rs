//! A scripted Events API on loopback that keeps a journal, and a source pointed at it.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use opship::config::{self, Account, ApiVersion};
use opship::flow::{AccountName, Stream};
use opship::secret::{SecretError, SecretReader, SecretRef};
use opship::source::events_api::{EventsApi, Setup};
use opship::source::token::Allow;
use secrecy::SecretString;
use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) const DATE: &str = "Sun, 22 Nov 2026 10:00:00 GMT";

/// What the server does with a request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// These bytes, then close.
    Raw(Vec<u8>),
    /// These bytes, then the others again and again for as long as the client takes them.
    Endless(Vec<u8>, Vec<u8>),
    /// One byte of an endless header after the other.
    Drip,
    /// The other reply, once so many requests are in the journal.
    After(usize, Box<Self>),
    /// These bytes, then nothing, and no end.
    Stall(Vec<u8>),
}

/// An answer with `Date` and the right `Content-Length`.
pub(crate) fn reply(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status} X\r\ndate: {DATE}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    Reply::Raw([head.as_bytes(), body].concat())
}

pub(crate) fn ok(body: &str) -> Reply {
    reply(200, "content-type: application/json\r\n", body)
}

/// A request as it came over the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Method and path.
    pub(crate) line: String,
    /// Lower-case names.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn token(&self) -> &str {
        self.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default()
    }
}

/// The server: answers with one reply of the script after the other, and with 599 after the last.
pub(crate) struct World {
    pub(crate) url: String,
    journal: watch::Sender<Vec<Seen>>,
    /// Bytes written by [`Reply::Endless`].
    pub(crate) written: Arc<AtomicUsize>,
}

impl World {
    pub(crate) async fn new(script: impl Into<Vec<Reply>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let world = Self { url, journal: watch::Sender::default(), written: Arc::default() };
        let (journal, written) = (world.journal.clone(), world.written.clone());
        let mut script = script.into().into_iter();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let seen = read_request(&mut socket).await;
                journal.send_modify(|seen_before| seen_before.push(seen));
                let reply = script.next().unwrap_or_else(|| reply(599, "", "the script is over"));
                let (mut journal, written) = (journal.subscribe(), written.clone());
                tokio::spawn(async move {
                    let mut reply = reply;
                    while let Reply::After(requests, next) = reply {
                        journal.wait_for(|journal| journal.len() >= requests).await.unwrap();
                        reply = *next;
                    }
                    answer(socket, reply, written).await;
                });
            }
        });
        world
    }

    pub(crate) fn journal(&self) -> Vec<Seen> {
        self.journal.borrow().clone()
    }

    /// Until so many requests have come.
    pub(crate) async fn saw(&self, requests: usize) {
        self.journal.subscribe().wait_for(|journal| journal.len() >= requests).await.unwrap();
    }

    pub(crate) fn tokens(&self) -> Vec<String> {
        self.journal().iter().map(|seen| seen.token().to_owned()).collect()
    }
}

async fn read_request(socket: &mut TcpStream) -> Seen {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(&mut bytes).await.unwrap() == 0 {
            return Seen::default();
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let (line, head) = head.split_once("\r\n").unwrap();
    let mut seen = Seen { line: line.replace(" HTTP/1.1", ""), head: head.into(), body: String::new() };
    let length: usize = seen.header("content-length").map_or(0, |text| text.parse().unwrap());
    while bytes.len() < end + length {
        socket.read_buf(&mut bytes).await.unwrap();
    }
    seen.body = String::from_utf8(bytes[end..].to_vec()).unwrap();
    seen
}

async fn answer(mut socket: TcpStream, reply: Reply, written: Arc<AtomicUsize>) {
    match reply {
        Reply::Raw(bytes) => {
            // The client may have gone before the end: then the test looks at what the client made of it.
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
        }
        Reply::Endless(head, again) => {
            let mut sent = socket.write_all(&head).await;
            while sent.is_ok() {
                sent = socket.write_all(&again).await;
                written.fetch_add(again.len(), Ordering::Relaxed);
            }
        }
        Reply::Drip => {
            let mut sent = socket.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
            while sent.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                sent = socket.write_all(b"x").await;
            }
        }
        Reply::After(..) => panic!("waited for before"),
        Reply::Stall(head) => {
            let _ = socket.write_all(&head).await;
            // Ends when the client closes.
            let _ = socket.read(&mut [0]).await;
        }
    }
}

/// Reads `file:` references and nothing else; each read sees what is in the file now.
pub(crate) struct Files {
    /// Keeps the directory for as long as the source lives.
    _directory: Arc<tempfile::TempDir>,
}

#[async_trait::async_trait]
impl SecretReader for Files {
    async fn read(&self, reference: &SecretRef) -> Result<SecretString, SecretError> {
        let SecretRef::File(path) = reference else { panic!("only files here") };
        std::fs::read_to_string(path).map(SecretString::from).map_err(|cause| SecretError {
            reference: format!("file:{}", path.display()),
            why: "cannot be opened".into(),
            remedy: None,
            cause: Some(cause.into()),
        })
    }
}

/// A token file in a directory that goes with it.
pub(crate) struct TokenFile(Arc<tempfile::TempDir>);

impl TokenFile {
    pub(crate) fn new(token: &str) -> Self {
        let file = Self(Arc::new(tempfile::tempdir().unwrap()));
        file.write(token);
        file
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.0.path().join("token")
    }

    pub(crate) fn write(&self, token: &str) {
        std::fs::write(self.path(), token).unwrap();
    }
}

/// A source of account `acme` with loopback allowed.
pub(crate) fn source(token: &TokenFile, events_url: Option<&str>, api: ApiVersion) -> EventsApi {
    source_within(token, events_url, api, opship::http::REQUEST_DEADLINE)
}

pub(crate) fn source_within(
    token: &TokenFile,
    events_url: Option<&str>,
    api: ApiVersion,
    deadline: Duration,
) -> EventsApi {
    let account = Account {
        token: SecretRef::File(token.path()),
        events_url: events_url.map(|url| url.parse().unwrap()),
        api,
        streams: Stream::ALL.to_vec(),
    };
    EventsApi::new(Setup {
        name: AccountName::parse("acme").unwrap(),
        account,
        allow: Allow { hosts: Default::default(), insecure_loopback: true },
        secrets: Arc::new(Files { _directory: token.0.clone() }),
        client: opship::http::client(&config::Http::default()).unwrap().into(),
        deadline,
    })
}

/// A token with these claims. The middle and last part of each are unlike anything that opship prints.
pub(crate) fn jwt(claims: &serde_json::Value) -> String {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"ES256"}"#), part(&claims.to_string()), part("synthetic signature"))
}

/// Everything an error can print: `Display` and `Debug` of it and of all its causes.
pub(crate) fn all_texts(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(next) = cause {
        text += &format!(" {next} {next:?}");
        cause = next.source();
    }
    text
}
