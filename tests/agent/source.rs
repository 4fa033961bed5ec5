//! The Events API in memory: both cursor orders, late events, rejected cursors, its own clock.

use crate::faults::Kind;
use crate::link::Link;
use crate::world::State;
use async_trait::async_trait;
use chrono::TimeDelta;
use opship::flow::identity::TokenHash;
use opship::flow::retry::Failure;
use opship::flow::words::Words;
use opship::flow::{Stream, Time};
use opship::source::{Answer, Features, Introspection, Lane, PageRequest, Source, SourceError};
use std::collections::{HashMap, HashSet};
use tokio::time::Instant;

/// What the API does not document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Insertion,
    EventTime,
}

pub(crate) const BOTH: [Order; 2] = [Order::Insertion, Order::EventTime];

#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) uuid: String,
    pub(crate) timestamp: Time,
    pub(crate) visible_at: Time,
    /// Members beyond uuid and timestamp, as JSON.
    pub(crate) more: String,
    /// Its timestamp member is no time.
    pub(crate) is_odd: bool,
}

impl Event {
    fn json(&self) -> String {
        let at = match self.is_odd {
            true => "the day before".to_owned(),
            false => self.timestamp.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        };
        format!(r#"{{"uuid":"{}","timestamp":"{at}"{}}}"#, self.uuid, self.more)
    }
}

/// So many answers, until then, are wrong by this much.
pub(crate) struct WrongDates {
    pub(crate) left: u64,
    pub(crate) until: Instant,
    pub(crate) by: TimeDelta,
}

/// What a hook makes of a request.
pub(crate) enum Reply {
    Fail(Failure),
    Body(String),
    /// The page, but its cursor is the one that was sent.
    SameCursor,
    /// The page, and its first item again.
    ItemAgain,
    /// The page in another envelope.
    Envelope(Envelope),
}

/// What looks like a page and is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Envelope {
    NoItems,
    ItemsUnder(&'static str),
    ItemsTwice,
    NoHasMore,
    CursorTwice,
    MoreAsText,
}

impl Envelope {
    pub(crate) const ALL: [Self; 7] = [
        Self::NoItems,
        Self::ItemsUnder("Items"),
        Self::ItemsUnder("events"),
        Self::ItemsTwice,
        Self::NoHasMore,
        Self::CursorTwice,
        Self::MoreAsText,
    ];

    fn around(self, cursor: &str, has_more: bool, items: &str) -> String {
        match self {
            Self::NoItems => format!(r#"{{"cursor":"{cursor}","has_more":true}}"#),
            Self::ItemsUnder(name) => format!(r#"{{"cursor":"{cursor}","has_more":{has_more},"{name}":[{items}]}}"#),
            Self::ItemsTwice => {
                format!(r#"{{"cursor":"{cursor}","has_more":{has_more},"items":[{items}],"items":[]}}"#)
            }
            Self::NoHasMore => format!(r#"{{"cursor":"{cursor}","items":[{items}]}}"#),
            Self::CursorTwice => {
                format!(r#"{{"cursor":"","cursor":"{cursor}","has_more":{has_more},"items":[{items}]}}"#)
            }
            Self::MoreAsText => format!(r#"{{"cursor":"{cursor}","has_more":"{has_more}","items":[{items}]}}"#),
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::NoItems | Self::ItemsUnder(_) => Kind::PageWithoutItems,
            Self::ItemsTwice | Self::NoHasMore | Self::CursorTwice | Self::MoreAsText => Kind::PageKeyWrong,
        }
    }
}

type Hook = Box<dyn FnMut(&PageRequest) -> Option<Reply> + Send>;

/// What a cursor stands for.
#[derive(Clone)]
struct Reading {
    from: Time,
    to: Option<Time>,
    limit: usize,
    after: Option<(Time, usize)>,
    epoch: u64,
}

/// What a process was told on its way to a cursor.
pub(crate) struct Told {
    pub(crate) parent: Option<String>,
    pub(crate) uuids: Vec<String>,
}

pub(crate) struct Archive {
    pub(crate) order: Order,
    pub(crate) events: Vec<Event>,
    /// Largest page that the source gives, whatever the limit is.
    pub(crate) page_max: usize,
    /// Pages asked for with a larger limit are over the body cap.
    pub(crate) limit_max: usize,
    /// The source's clock runs ahead by this much.
    pub(crate) skew: TimeDelta,
    /// Answers whose time is another one than the source's clock says.
    pub(crate) wrong_dates: Option<WrongDates>,
    pub(crate) token: &'static str,
    /// So many are right before them.
    pub(crate) right_before: u64,
    pub(crate) requests: Vec<(PageRequest, Lane)>,
    pub(crate) told: HashMap<String, Told>,
    /// Cursors whose whole way was seen to be in the table.
    pub(crate) covered: HashSet<String>,
    pub(crate) hook: Option<Hook>,
    pub(crate) features: Vec<String>,
    /// What the introspection says.
    pub(crate) account_uuid: Option<String>,
    cursors: HashMap<String, Reading>,
    epoch: u64,
    /// The events in the source's order, as (place, index).
    sorted: Vec<(Time, usize)>,
}

impl Archive {
    pub(crate) fn new(order: Order) -> Self {
        Self {
            order,
            events: Vec::new(),
            page_max: 10,
            limit_max: usize::MAX,
            skew: TimeDelta::zero(),
            wrong_dates: None,
            token: "the token of this account",
            right_before: 0,
            requests: Vec::new(),
            told: HashMap::new(),
            covered: HashSet::new(),
            hook: None,
            features: vec!["auditevents".into(), "itemusages".into()],
            account_uuid: Some("ACCOUNT".into()),
            cursors: HashMap::new(),
            epoch: 0,
            sorted: Vec::new(),
        }
    }

    fn place(&self, i: usize, event: &Event) -> (Time, usize) {
        match self.order {
            Order::Insertion => (event.visible_at, i),
            Order::EventTime => (event.timestamp, i),
        }
    }

    /// The source no longer has the event.
    pub(crate) fn forget(&mut self, i: usize) -> Event {
        self.sorted.clear();
        self.events.remove(i)
    }

    fn sort(&mut self) {
        let new = self.sorted.len()..;
        let more: Vec<_> =
            self.events.iter().enumerate().skip(new.start).map(|(i, event)| self.place(i, event)).collect();
        if !more.is_empty() {
            self.sorted.extend(more);
            self.sorted.sort_unstable();
        }
    }

    /// Every cursor handed out so far is answered by a 400 from now on.
    pub(crate) fn reject_cursors(&mut self) {
        self.epoch += 1;
    }

    fn page(&mut self, now: Time, request: &PageRequest, oddity: Option<&Reply>) -> Result<String, Failure> {
        let (reading, parent) = match request {
            PageRequest::Reset { start, limit } => (self.start(now, *start, None, *limit)?, None),
            PageRequest::Window { from, to, limit } => (self.start(now, *from, Some(*to), *limit)?, None),
            PageRequest::Continue(cursor) => {
                let known = self.cursors.get(cursor.as_str()).filter(|reading| reading.epoch == self.epoch);
                (known.ok_or_else(|| status(400))?.clone(), Some(cursor.as_str().to_owned()))
            }
        };
        self.sort();
        let first = reading.after.map_or(0, |after| self.sorted.partition_point(|place| *place <= after));
        let limit = reading.limit.min(self.page_max);
        let mut found: Vec<(Time, usize)> = self.sorted[first..]
            .iter()
            .filter(|(_, i)| {
                let event = &self.events[*i];
                let ends = reading.to.is_none_or(|to| event.timestamp <= to);
                event.visible_at <= now && event.timestamp >= reading.from && ends
            })
            .take(limit + 1)
            .copied()
            .collect();
        let size = found.len().min(limit);
        if size > 0 && reading.limit > self.limit_max {
            return Err(Failure::TooLarge);
        }
        let has_more = found.len() > size;
        found.truncate(size);
        let after = found.last().copied().or(reading.after);
        let items: Vec<&Event> = found.iter().map(|(_, i)| &self.events[*i]).collect();
        let again = items.first().filter(|_| matches!(oddity, Some(Reply::ItemAgain)));
        let json = items.iter().chain(again).map(|event| event.json()).collect::<Vec<_>>().join(",");
        let uuids: Vec<String> = items.iter().map(|event| event.uuid.clone()).collect();
        let cursor = match parent {
            Some(parent) if uuids.is_empty() || matches!(oddity, Some(Reply::SameCursor)) => parent,
            parent => {
                let cursor = format!("cursor-{}", self.cursors.len());
                self.cursors.insert(cursor.clone(), Reading { after, ..reading });
                self.told.insert(cursor.clone(), Told { parent, uuids });
                cursor
            }
        };
        Ok(match oddity {
            Some(Reply::Envelope(envelope)) => envelope.around(&cursor, has_more, &json),
            _ => format!(r#"{{"cursor":"{cursor}","has_more":{has_more},"items":[{json}]}}"#),
        })
    }

    fn start(&self, now: Time, from: Time, to: Option<Time>, limit: u32) -> Result<Reading, Failure> {
        let reach = now - TimeDelta::days(120);
        if from < reach || to.is_some_and(|to| to <= from) {
            return Err(status(400));
        }
        Ok(Reading { from, to, limit: limit as usize, after: None, epoch: self.epoch })
    }
}

/// What of this is a fault.
fn kind_of(body: &Result<String, Failure>, hooked: Option<Kind>, request: &PageRequest) -> Option<Kind> {
    match body {
        Ok(_) => hooked,
        Err(Failure::NotConnected) => Some(Kind::SourceUnreachable),
        Err(Failure::Status { status: 429, .. }) => Some(Kind::SourceThrottled),
        Err(Failure::Status { status: 503, .. }) => Some(Kind::SourceUnavailable),
        Err(Failure::Status { status: 400, .. }) if matches!(request, PageRequest::Continue(_)) => {
            Some(Kind::CursorRejected)
        }
        Err(_) => None,
    }
}

pub(crate) fn status(status: u16) -> Failure {
    Failure::Status { status, code: String::new(), message: Words::default(), retry_after: None }
}

fn error(failure: Failure) -> SourceError {
    SourceError { attempted: "read a page".into(), on: "memory".into(), failure, date: None, remedy: None, cause: None }
}

#[async_trait]
impl Source for Link {
    async fn introspect(&self) -> Result<Introspection, SourceError> {
        let said = |state: &mut State| {
            let (date, source) = (state.answer_date(), &state.source);
            (date, source.features.clone(), source.account_uuid.clone(), source.token)
        };
        let (date, features, account_uuid, token) = self.call(said).await;
        let token = TokenHash::of(token);
        let features = Features::Said(features);
        Ok(Introspection { account_uuid, token, features, expires: None, date: Some(date) })
    }

    async fn claims(&self) -> Result<Introspection, SourceError> {
        let token = TokenHash::of(self.state().source.token);
        Ok(Introspection { account_uuid: None, token, features: Features::Claimed(vec![]), expires: None, date: None })
    }

    async fn page(&self, _: Stream, request: &PageRequest, lane: Lane) -> Result<Answer, SourceError> {
        let answered = self
            .call(|state: &mut State| {
                state.source.requests.push((request.clone(), lane));
                let date = state.answer_date();
                let mut hook = state.source.hook.take();
                let hooked = hook.as_mut().and_then(|hook| hook(request));
                state.source.hook = hook;
                let hooked_kind = match &hooked {
                    Some(Reply::Body(_)) => Some(Kind::SourceMalformed),
                    Some(Reply::SameCursor) => Some(Kind::CursorRepeated),
                    Some(Reply::ItemAgain) => Some(Kind::ItemRepeated),
                    Some(Reply::Envelope(envelope)) => Some(envelope.kind()),
                    Some(Reply::Fail(_)) | None => None,
                };
                let body = match hooked {
                    Some(Reply::Fail(failure)) => Err(failure),
                    Some(Reply::Body(body)) => Ok(body),
                    oddity => {
                        let now = state.now();
                        state.source.page(now, request, oddity.as_ref())
                    }
                };
                kind_of(&body, hooked_kind, request).into_iter().for_each(|kind| state.struck.by(kind));
                body.map(|body| Answer { body: body.into(), date })
            })
            .await;
        answered.map_err(error)
    }

    fn late_lane_is_spent(&self) -> bool {
        false
    }

    fn place(&self) -> String {
        "https://events.test".into()
    }
}
