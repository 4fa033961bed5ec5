//! The data collection rule in memory: what it took stays, whatever it said about it.

use crate::link::Link;
use crate::source::status;
use crate::world::State;
use async_trait::async_trait;
use opship::flow::retry::Failure;
use opship::sink::{Body, Sink, SinkError};
use std::time::Duration;

/// What the sink does with a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accept,
    /// Takes the rows, but the answer does not arrive.
    LoseReply,
    /// Breaks the connection and takes nothing.
    Break,
    Refuse(u16),
    /// A 429 that says when to come again.
    Busy(Duration),
    /// A 400 with a code of its own.
    RefuseAs(u16, &'static str),
    /// Never answers; the rows are taken or not.
    Hang {
        accepted: bool,
    },
}

type Hook = Box<dyn FnMut(&[String]) -> Outcome + Send>;

pub(crate) struct Table {
    /// Uuids of the rows taken, in order.
    pub(crate) rows: Vec<String>,
    pub(crate) health: Vec<serde_json::Value>,
    /// Rows of each POST, accepted or not.
    pub(crate) posts: Vec<Vec<String>>,
    pub(crate) bodies: Vec<String>,
    /// More rows are a 413.
    pub(crate) rows_max: usize,
    pub(crate) hook: Option<Hook>,
    /// POSTs begun, and how many there were when a process was asked to stop.
    pub(crate) begun: usize,
    pub(crate) begun_at_stop: Option<usize>,
    /// POSTs that were taken without the sender hearing of it.
    pub(crate) doubts: u64,
}

impl Table {
    pub(crate) fn new() -> Self {
        let (rows, health, posts, bodies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { rows, health, posts, bodies, rows_max: usize::MAX, hook: None, begun: 0, begun_at_stop: None, doubts: 0 }
    }

    pub(crate) fn copies(&self, uuid: &str) -> usize {
        self.rows.iter().filter(|row| *row == uuid).count()
    }

    fn take(&mut self, body: &Body) -> Outcome {
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&body.json).expect("a body is a JSON array");
        assert_eq!(rows.len(), body.rows);
        if rows[0]["log_source"] == "healthevents" {
            self.health.extend(rows);
            return Outcome::Accept;
        }
        let uuids: Vec<String> = rows.iter().map(|row| row["uuid_s"].as_str().unwrap_or("none").to_owned()).collect();
        self.posts.push(uuids.clone());
        self.bodies.push(String::from_utf8_lossy(&body.json).into_owned());
        if uuids.len() > self.rows_max {
            return Outcome::Refuse(413);
        }
        let outcome = self.hook.as_mut().map_or(Outcome::Accept, |hook| hook(&uuids));
        match outcome {
            Outcome::Accept => self.rows.extend(uuids),
            Outcome::LoseReply | Outcome::Hang { accepted: true } => {
                self.rows.extend(uuids);
                self.doubts += 1;
            }
            _ => {}
        }
        outcome
    }
}

#[async_trait]
impl Sink for Link {
    async fn deliver(&self, body: &Body) -> Result<(), SinkError> {
        self.state().sink.begun += 1;
        let failure = match self.call(|state: &mut State| state.sink.take(body)).await {
            Outcome::Accept => return Ok(()),
            Outcome::LoseReply | Outcome::Break => Failure::Interrupted,
            Outcome::Refuse(code) => status(code),
            Outcome::Busy(wait) => {
                let (code, message) = (String::new(), String::new());
                Failure::Status { status: 429, code, message, retry_after: Some(wait) }
            }
            Outcome::RefuseAs(status, code) => {
                Failure::Status { status, code: code.into(), message: String::new(), retry_after: None }
            }
            Outcome::Hang { .. } => std::future::pending().await,
        };
        Err(SinkError { attempted: "post".into(), on: "memory".into(), failure, cause: None })
    }

    async fn reauthenticate(&self) {}

    async fn probe(&self) -> Result<String, SinkError> {
        Ok("in memory".into())
    }

    fn place(&self) -> String {
        "dcr-test/Custom-OnePasswordEventLogs_CL".into()
    }
}
