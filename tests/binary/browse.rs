//! Asks the admin server of a running process, byte by byte: whatever a client may send, and how.

use crate::agent::{Agent, wait_until};
use opship::admin::status::Status;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// No answer of the server takes longer, on a loaded machine either.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// How often a page is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).into_iter().next()
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        let pairs = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        pairs.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

/// The admin server of a process.
#[derive(Clone, Copy, Debug)]
pub struct Browser(pub SocketAddr);

impl Agent {
    /// Waits for the first log line that names the admin server.
    pub async fn browser(&self) -> Browser {
        let address = || {
            let log = self.stderr();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut starts = lines.filter(|line| line["message"] == "opship starts");
            starts.find_map(|line| line["admin"].as_str()?.strip_prefix("http://")?.trim_end_matches('/').parse().ok())
        };
        wait_until("the admin server is named in the log", ANSWER_DEADLINE, || address().is_some()).await;
        Browser(address().unwrap())
    }
}

impl Browser {
    /// One connection, these bytes, everything that comes back until the end.
    pub async fn send(self, request: &str) -> Answer {
        let exchange = async {
            let mut stream = TcpStream::connect(self.0).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            // A server that refuses without reading everything may reset: what came before counts.
            let _ = stream.read_to_end(&mut bytes).await;
            String::from_utf8(bytes).unwrap()
        };
        let text = timeout(ANSWER_DEADLINE, exchange).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request:?}: no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub async fn ask(self, method: &str, path: &str, headers: &[&str]) -> Answer {
        let more: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{more}\r\n", self.0);
        self.send(&request).await
    }

    pub async fn get(self, path: &str) -> Answer {
        self.ask("GET", path, &[]).await
    }

    pub async fn status(self) -> Status {
        serde_json::from_str(&self.get("/status.json").await.body).unwrap()
    }

    /// Looks until an answer is as it should be.
    pub async fn wait_for(
        self,
        path: &str,
        headers: &[&str],
        deadline: Duration,
        holds: impl Fn(&Answer) -> bool,
    ) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.ask("GET", path, headers).await;
            if holds(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < deadline, "{path}: still {answer:?} after {deadline:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    pub async fn is_ready(self) -> Answer {
        self.wait_for("/readyz", &[], Duration::from_secs(120), |answer| answer.status == 200).await
    }

    /// A live view.
    pub async fn events(self) -> Live {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        let request = format!("GET /events HTTP/1.1\r\nhost: {}\r\n\r\n", self.0);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut live = Live { stream, seen: String::new() };
        live.until("\r\n\r\n").await;
        live
    }
}

/// An open `/events`.
pub struct Live {
    stream: TcpStream,
    seen: String,
}

impl Live {
    /// Everything up to and with `end`.
    pub async fn until(&mut self, end: &str) -> String {
        let mut bytes = [0; 65_536];
        loop {
            if let Some((before, behind)) = self.seen.split_once(end) {
                let (before, behind) = (format!("{before}{end}"), behind.to_owned());
                self.seen = behind;
                return before;
            }
            let read = timeout(ANSWER_DEADLINE, self.stream.read(&mut bytes)).await.unwrap().unwrap();
            assert!(read > 0, "the live view ended: {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// The next document. Chunks of the transfer may begin anywhere but inside of ours: each message is one.
    pub async fn next(&mut self) -> Status {
        loop {
            let message = self.until("\n\n").await;
            if let Some((_, document)) = message.split_once("data: ") {
                return serde_json::from_str(document.trim_end()).unwrap();
            }
        }
    }

    /// Whether the server has closed it, within the deadline.
    pub async fn ends(mut self) -> bool {
        let mut rest = Vec::new();
        timeout(ANSWER_DEADLINE, self.stream.read_to_end(&mut rest)).await.is_ok()
    }
}
