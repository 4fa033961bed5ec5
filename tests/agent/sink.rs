//! The data collection rule in memory: what it took stays, whatever it said about it.

use crate::faults::{Kind, Struck};
use crate::link::Link;
use crate::source::status;
use crate::world::State;
use async_trait::async_trait;
use opship::flow::retry::Failure;
use opship::flow::{EventId, EventKey, Hour, Time, window};
use opship::sink::{Body, Sink, SinkError};
use opship::table::{self, Column, Ids, Question, TableError};
use std::borrow::Cow;
use std::collections::HashMap;
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

/// What is looked at of a row.
#[derive(serde::Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    log_source: Cow<'a, str>,
    #[serde(borrow, default)]
    uuid_s: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    account_uuid: Option<Cow<'a, str>>,
}

impl Outcome {
    fn count(&self, struck: &mut Struck) {
        let kind = match self {
            Self::LoseReply => Kind::PostReplyLost,
            Self::Break => Kind::PostBroken,
            Self::Hang { accepted: true } => Kind::PostHungAccepted,
            Self::Hang { accepted: false } => Kind::PostHungRefused,
            Self::Refuse(429) | Self::Busy(_) => Kind::PostThrottled,
            Self::Refuse(413) => Kind::PostTooLarge,
            Self::Refuse(503) => Kind::PostUnavailable,
            Self::Refuse(404) => Kind::PostNotFound,
            Self::Refuse(403) => Kind::PostForbidden,
            Self::Accept | Self::Refuse(_) | Self::RefuseAs(..) => return,
        };
        struck.by(kind);
    }
}

type Hook = Box<dyn FnMut(&[String]) -> Outcome + Send>;

pub(crate) struct Table {
    /// Uuids of the rows taken, in order.
    pub(crate) rows: Vec<String>,
    /// How often each uuid was taken.
    pub(crate) copies: HashMap<String, usize>,
    /// What the table shows of it, and from when on.
    pub(crate) ingested: Vec<(String, Time)>,
    /// The account that each row names.
    accounts: HashMap<String, String>,
    pub(crate) shows_after: Duration,
    /// Whether the table answers no question.
    pub(crate) is_silent: bool,
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
    /// Rule and stream, for the checkpoint's fingerprint.
    pub(crate) place: String,
}

impl Table {
    pub(crate) fn new() -> Self {
        let (rows, health, posts, bodies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let copies = HashMap::new();
        Self {
            rows,
            copies,
            ingested: Vec::new(),
            accounts: HashMap::new(),
            shows_after: Duration::ZERO,
            is_silent: false,
            health,
            posts,
            bodies,
            rows_max: usize::MAX,
            hook: None,
            begun: 0,
            begun_at_stop: None,
            doubts: 0,
            place: "dcr-test/Custom-OnePasswordEventLogs_CL".into(),
        }
    }

    pub(crate) fn copies(&self, uuid: &str) -> usize {
        self.copies.get(uuid).copied().unwrap_or_default()
    }

    fn accept(&mut self, uuids: &[String], now: Time) {
        let shows_at = window::later(now, self.shows_after);
        self.ingested.extend(uuids.iter().map(|uuid| (uuid.clone(), shows_at)));
        self.rows.extend_from_slice(uuids);
        for uuid in uuids {
            *self.copies.entry(uuid.clone()).or_default() += 1;
        }
    }

    fn take(&mut self, body: &Body, now: Time) -> Outcome {
        let rows: Vec<Row> = serde_json::from_slice(&body.json).expect("a body is a JSON array of rows");
        assert_eq!(rows.len(), body.rows);
        if rows[0].log_source == "healthevents" {
            let health: Vec<serde_json::Value> = serde_json::from_slice(&body.json).expect("a body is a JSON array");
            self.health.extend(health);
            return Outcome::Accept;
        }
        let named = rows.iter().filter_map(|row| Some((row.uuid_s.as_ref()?.to_string(), row.account_uuid.as_ref()?)));
        self.accounts.extend(named.map(|(uuid, account)| (uuid, account.to_string())));
        let uuids: Vec<String> =
            rows.into_iter().map(|row| row.uuid_s.map_or_else(|| "none".into(), Cow::into_owned)).collect();
        self.posts.push(uuids.clone());
        self.bodies.push(String::from_utf8_lossy(&body.json).into_owned());
        if uuids.len() > self.rows_max {
            return Outcome::Refuse(413);
        }
        let outcome = self.hook.as_mut().map_or(Outcome::Accept, |hook| hook(&uuids));
        tracing::debug!(?outcome, ?uuids, "a POST arrives");
        match outcome {
            Outcome::Accept => self.accept(&uuids, now),
            Outcome::LoseReply | Outcome::Hang { accepted: true } => {
                self.accept(&uuids, now);
                self.doubts += 1;
            }
            _ => {}
        }
        outcome
    }
}

#[async_trait]
impl table::Table for Link {
    async fn ids(&self, question: &Question<'_>) -> Result<Ids, TableError> {
        let asked = |state: &mut State| {
            let now = state.now();
            let is_of = |uuid: &str| match (question.account_uuid, state.sink.accounts.get(uuid)) {
                (Some(wanted), Some(named)) => wanted == named,
                _ => true,
            };
            let shown = state.sink.ingested.iter().filter(|(uuid, at)| *at <= now && is_of(uuid));
            let hour_of = |uuid: &str| {
                let event = state.source.events.iter().find(|event| event.uuid == uuid && !event.is_odd);
                Hour::of(event.map(|event| event.timestamp))
            };
            let key = |uuid: &str| EventKey { hour: hour_of(uuid), id: EventId::of_uuid(uuid) };
            (!state.sink.is_silent).then(|| shown.map(|(uuid, _)| key(uuid)).collect::<Vec<_>>())
        };
        let shown = self.call(asked).await.ok_or_else(|| TableError {
            attempted: "read the rows".into(),
            on: "memory".into(),
            failure: Failure::Interrupted,
            remedy: None,
            cause: None,
        })?;
        let mut ids = Ids::default();
        for key in shown {
            if question.only.is_none_or(|only| only.contains(&key.id)) {
                ids.add(key, 1, None);
            }
        }
        Ok(ids)
    }

    async fn columns(&self) -> Result<Vec<Column>, TableError> {
        Ok(Vec::new())
    }

    fn place(&self) -> String {
        "memory".into()
    }
}

#[async_trait]
impl Sink for Link {
    async fn deliver(&self, body: &Body) -> Result<(), SinkError> {
        self.state().sink.begun += 1;
        let took = |state: &mut State| {
            let now = state.now();
            let outcome = state.sink.take(body, now);
            outcome.count(&mut state.struck);
            outcome
        };
        let failure = match self.call(took).await {
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
        self.state().sink.place.clone()
    }
}
