//! The data collection rule in memory: what it took stays, whatever it said about it.

use crate::faults::{Kind, Struck};
use crate::link::Link;
use crate::source::status;
use crate::world::State;
use async_trait::async_trait;
use opship::flow::retry::Failure;
use opship::flow::words::Words;
use opship::flow::{EventId, EventKey, Hour, Time, window};
use opship::sink::{Body, Sink, SinkError};
use opship::table::{self, Column, Ids, Question, TableError};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
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
    #[serde(borrow, default)]
    details: Option<&'a RawValue>,
}

impl Row<'_> {
    fn uuid(&self) -> String {
        self.uuid_s.as_deref().unwrap_or("none").to_owned()
    }

    fn is_stub(&self) -> bool {
        self.details
            .is_some_and(|details| details.get().contains(r#""opship":{"#) && details.get().contains(r#""stub":"#))
    }
}

impl Outcome {
    /// Of a body that holds a row which somebody on the way does not like.
    fn count_poison(&self, struck: &mut Struck) {
        let kind = match self {
            Self::RefuseAs(400, "") => Kind::PoisonEmpty,
            Self::RefuseAs(400, _) => Kind::PoisonOtherCode,
            Self::RefuseAs(403, _) => Kind::PoisonForbidden,
            Self::RefuseAs(404, _) => Kind::PoisonNotFound,
            Self::Refuse(406) => Kind::PoisonNotAcceptable,
            Self::Refuse(422) => Kind::PoisonUnprocessable,
            Self::Refuse(500) => Kind::PoisonServerError,
            Self::Break => Kind::PoisonBreak,
            _ => return,
        };
        struck.by(kind);
    }

    /// What the sender hears of it. A role or a rule that is missing is told in Azure's own shape.
    async fn told(self) -> Result<(), SinkError> {
        let refused = |status, code: &str, retry_after| {
            let (code, message) = (code.into(), Words::default());
            Failure::Status { status, code, message, retry_after }
        };
        let failure = match self {
            Self::Accept => return Ok(()),
            Self::LoseReply | Self::Break => Failure::Interrupted,
            Self::Refuse(403) => refused(403, "OperationFailed", None),
            Self::Refuse(404) => refused(404, "NotFound", None),
            Self::Refuse(code) => status(code),
            Self::Busy(wait) => refused(429, "", Some(wait)),
            Self::RefuseAs(status, code) => refused(status, code, None),
            Self::Hang { .. } => std::future::pending().await,
        };
        Err(SinkError { attempted: "post".into(), on: "memory".into(), failure, cause: None })
    }

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

/// The eight ways in which a body is refused for one row in it.
pub(crate) const POISONED: [Outcome; 8] = [
    Outcome::RefuseAs(400, "SomethingElse"),
    Outcome::RefuseAs(400, ""),
    Outcome::RefuseAs(403, ""),
    Outcome::RefuseAs(404, ""),
    Outcome::Refuse(406),
    Outcome::Refuse(422),
    Outcome::Refuse(500),
    Outcome::Break,
];

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
    /// Whether its answers hold no row, as behind a right that was limited or lost.
    pub(crate) is_hidden: bool,
    /// When each health row was taken.
    beats: Vec<Time>,
    pub(crate) health: Vec<serde_json::Value>,
    /// What happens to health rows; they are taken when none is set.
    pub(crate) health_hook: Option<Box<dyn FnMut() -> Outcome + Send>>,
    /// Rows of each POST, accepted or not.
    pub(crate) posts: Vec<Vec<String>>,
    pub(crate) bodies: Vec<String>,
    /// More rows are a 413.
    pub(crate) rows_max: usize,
    pub(crate) hook: Option<Hook>,
    /// What becomes of an empty array.
    pub(crate) probe_hook: Option<Box<dyn FnMut() -> Outcome + Send>>,
    pub(crate) probes: usize,
    /// Events whose row is refused, with every body that it is in, until a stub stands for it.
    pub(crate) poison: HashMap<String, Outcome>,
    /// A text that no body may hold, in a stub neither.
    pub(crate) offence: Option<(&'static str, Outcome)>,
    /// Events of which a stub was taken.
    pub(crate) stubs: HashSet<String>,
    /// POSTs begun, and how many there were when a process was asked to stop.
    pub(crate) begun: usize,
    pub(crate) begun_at_stop: Option<usize>,
    /// POSTs that were taken without the sender hearing of it.
    pub(crate) doubts: u64,
    /// Seals that the ledger gets right after the next POST.
    pub(crate) then_seal: u64,
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
            is_hidden: false,
            beats: Vec::new(),
            health,
            health_hook: None,
            posts,
            bodies,
            rows_max: usize::MAX,
            hook: None,
            probe_hook: None,
            probes: 0,
            poison: HashMap::new(),
            offence: None,
            stubs: HashSet::new(),
            begun: 0,
            begun_at_stop: None,
            doubts: 0,
            then_seal: 0,
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

    fn take(&mut self, body: &Body, now: Time, struck: &mut Struck) -> Outcome {
        let rows: Vec<Row> = serde_json::from_slice(&body.json).expect("a body is a JSON array of rows");
        assert_eq!(rows.len(), body.rows);
        if rows[0].log_source == "healthevents" {
            let outcome = self.health_hook.as_mut().map_or(Outcome::Accept, |hook| hook());
            if matches!(outcome, Outcome::Accept | Outcome::LoseReply) {
                let health: Vec<serde_json::Value> =
                    serde_json::from_slice(&body.json).expect("a body is a JSON array");
                self.beats.resize(self.beats.len() + health.len(), now);
                self.health.extend(health);
            }
            return outcome;
        }
        let named = rows.iter().filter_map(|row| Some((row.uuid_s.as_ref()?.to_string(), row.account_uuid.as_ref()?)));
        self.accounts.extend(named.map(|(uuid, account)| (uuid, account.to_string())));
        let uuids: Vec<String> = rows.iter().map(Row::uuid).collect();
        self.posts.push(uuids.clone());
        let text = String::from_utf8_lossy(&body.json).into_owned();
        self.bodies.push(text.clone());
        if uuids.len() > self.rows_max {
            Outcome::Refuse(413).count(struck);
            return Outcome::Refuse(413);
        }
        if let Some(outcome) = self.poisoned(&rows, &text) {
            outcome.count_poison(struck);
            return outcome;
        }
        let outcome = self.hook.as_mut().map_or(Outcome::Accept, |hook| hook(&uuids));
        tracing::debug!(?outcome, ?uuids, "a POST arrives");
        outcome.count(struck);
        let is_taken_unseen = matches!(outcome, Outcome::LoseReply | Outcome::Hang { accepted: true });
        if is_taken_unseen || outcome == Outcome::Accept {
            self.stubs.extend(rows.iter().filter(|row| row.is_stub()).map(Row::uuid));
            self.accept(&uuids, now);
        }
        self.doubts += u64::from(is_taken_unseen);
        outcome
    }

    fn poisoned(&self, rows: &[Row<'_>], text: &str) -> Option<Outcome> {
        let offends = |(offence, outcome): &(&'static str, Outcome)| text.contains(offence).then(|| outcome.clone());
        let whole = rows.iter().filter(|row| !row.is_stub());
        let marked = whole.into_iter().find_map(|row| self.poison.get(row.uuid_s.as_deref()?).cloned());
        marked.or_else(|| self.offence.as_ref().and_then(offends))
    }
}

impl Table {
    /// A heartbeat of the account that the table shows from now on.
    pub(crate) fn beat(&mut self, now: Time) {
        self.beats.push(now);
    }

    /// When the newest row was taken that is shown at `now`. The feed's events are all of one account, and so are its heartbeats.
    fn newest(&self, now: Time) -> Option<Time> {
        let shown = self.ingested.iter().map(|(_, at)| *at).filter(|at| *at <= now);
        shown.chain(self.beats.iter().copied().filter(|at| *at <= now)).max().filter(|_| !self.is_hidden)
    }
}

fn silent() -> TableError {
    let (attempted, on) = ("read the rows".into(), "memory".into());
    TableError { attempted, on, failure: Failure::Interrupted, remedy: None, cause: None }
}

#[async_trait]
impl table::Table for Link {
    async fn newest(&self, _: Option<&str>, _: Duration) -> Result<Option<Duration>, TableError> {
        let asked = |state: &mut State| {
            let now = state.now();
            let newest = state.sink.newest(now).map(|at| (now - at).to_std().unwrap_or_default());
            (!state.sink.is_silent).then_some(newest)
        };
        self.call(asked).await.ok_or_else(silent)
    }

    fn when_blind(&self) -> &'static str {
        "look"
    }

    async fn ids(&self, question: &Question<'_>) -> Result<Ids, TableError> {
        let asked = |state: &mut State| {
            let now = state.now();
            let is_of = |uuid: &str| match (question.account_uuid, state.sink.accounts.get(uuid)) {
                (Some(wanted), Some(named)) => wanted == named,
                _ => true,
            };
            let is_shown = |at: &Time| *at <= now && !state.sink.is_hidden;
            let shown = state.sink.ingested.iter().filter(|(uuid, at)| is_shown(at) && is_of(uuid));
            let hour_of = |uuid: &str| {
                let event = state.source.events.iter().find(|event| event.uuid == uuid && !event.is_odd);
                Hour::of(event.map(|event| event.timestamp))
            };
            let key = |uuid: &str| EventKey { hour: hour_of(uuid), id: EventId::of_uuid(uuid) };
            (!state.sink.is_silent).then(|| shown.map(|(uuid, _)| key(uuid)).collect::<Vec<_>>())
        };
        let shown = self.call(asked).await.ok_or_else(silent)?;
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
            let posts = state.sink.posts.len();
            let outcome = state.sink.take(body, now, &mut state.struck);
            let is_of_rows = state.sink.posts.len() > posts;
            let is_sealed_out = self.born_under.is_some() && self.born_under == state.store.sealed;
            assert!(!(is_of_rows && is_sealed_out), "A: rows are posted that the ledger cannot tell of");
            (0..std::mem::take(&mut state.sink.then_seal)).for_each(|_| state.store.seal());
            outcome
        };
        self.call(took).await.told().await
    }

    async fn reauthenticate(&self) {}

    async fn probe(&self) -> Result<String, SinkError> {
        let asked = |state: &mut State| {
            state.sink.probes += 1;
            state.sink.probe_hook.as_mut().map_or(Outcome::Accept, |hook| hook())
        };
        self.call(asked).await.told().await.map(|()| "in memory".into())
    }

    fn place(&self) -> String {
        self.state().sink.place.clone()
    }
}
