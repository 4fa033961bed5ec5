//! Reads the table back by the Log Analytics query API, v1.
//!
//! Request and response: <https://learn.microsoft.com/azure/azure-monitor/logs/api/request-format>,
//! <https://learn.microsoft.com/azure/azure-monitor/logs/api/response-format>; errors:
//! <https://learn.microsoft.com/azure/azure-monitor/logs/api/errors>; 500,000 rows and 100 MB an answer, 200 requests in 30 s a user:
//! <https://learn.microsoft.com/azure/azure-monitor/service-limits#log-queries-and-language>; time-outs:
//! <https://learn.microsoft.com/azure/azure-monitor/logs/api/timeouts>.

use super::{Column, Ids, Question, Span, Table, TableError, When, is_about_the_plan};
use crate::azure::Tokens;
use crate::flow::retry::Failure;
use crate::flow::words::Hidden;
use crate::flow::{EventId, EventKey, Hour, Time, decode};
use crate::http::{BODY_BYTES_MAX, cause_of, failure_of, failure_of_status, one_line, read_body};
use async_trait::async_trait;
use chrono::{SecondsFormat, TimeDelta};
use reqwest::header::CONTENT_TYPE;
use secrecy::ExposeSecret;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How long the service may work on one question; it says 3 minutes by default and 10 at most.
const SERVICE_WAIT: Duration = Duration::from_secs(180);
/// Deadline of one question, token and answer included.
const QUERY_DEADLINE: Duration = Duration::from_secs(200);
/// A span is not halved below this: nobody has 500,000 events in it.
const HALVED_TO: TimeDelta = TimeDelta::milliseconds(100);
/// A span that timed out is not halved below this: a service that is down would be asked for ever.
const TIMED_OUT_TO: TimeDelta = TimeDelta::minutes(10);

/// How far before an event's time its row may have been ingested: clients' clocks run ahead, some by days. Also how far `TimeGenerated`
/// may lie before `ingestion_time()`: opship's rule makes them one, and the service keeps that of another writer within 2 days.
const CLIENTS_AHEAD: TimeDelta = TimeDelta::days(3);

/// How a failure begins when the service marked its answer as not complete.
const PARTIAL: &str = "a partial result";

/// Where the rows are read.
#[derive(Clone, Debug)]
pub struct Place {
    /// Scheme and host of the query API.
    pub url: Url,
    /// The workspace's id, a GUID.
    pub workspace_id: String,
    /// Of the data collection rule; without `Custom-` it names the table.
    pub stream: String,
}

/// A table of a Log Analytics workspace.
pub struct Workspace {
    url: Url,
    table: String,
    http: reqwest::Client,
    tokens: Arc<Tokens>,
}

/// An answer as sent. `error` beside `tables`, under status 200, means that the tables are not complete.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    tables: Vec<Rows<'a>>,
    error: Option<Partial>,
}

#[derive(Deserialize)]
struct Rows<'a> {
    #[serde(borrow)]
    columns: Vec<Name<'a>>,
    #[serde(borrow)]
    rows: Vec<Vec<Cell<'a>>>,
}

#[derive(Deserialize)]
struct Name<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Partial {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A value of one of our answers: text, a number, or nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Cell<'a> {
    Number(u64),
    Text(#[serde(borrow)] Cow<'a, str>),
    Nothing(()),
}

impl Cell<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Nothing(()) => None,
        }
    }

    fn time(&self) -> Option<Time> {
        self.text().and_then(decode::timestamp)
    }

    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
            Self::Nothing(()) => None,
        }
    }
}

/// Why a question has no answer.
enum Unanswered {
    /// The answer is cut or took too long: a smaller question may do.
    TooMuch(Failure),
    No(Failure, Option<Box<dyn std::error::Error + Send + Sync>>),
}

impl Workspace {
    /// `tokens` are for the cloud's `query_scope`.
    ///
    /// # Errors
    /// A URL that no path can be appended to.
    pub fn new(place: &Place, tokens: Arc<Tokens>, http: reqwest::Client) -> Result<Self, TableError> {
        let mut url = place.url.clone();
        let on = url.host_str().unwrap_or_default().to_owned();
        let refused = TableError {
            attempted: "set up the workspace".into(),
            on,
            failure: Failure::NotConnected,
            remedy: Some("azure.workspace_url must be a URL with a host"),
            cause: None,
        };
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(["v1", "workspaces", &place.workspace_id, "query"]),
            Err(()) => return Err(refused),
        };
        let table = place.stream.strip_prefix("Custom-").unwrap_or(&place.stream).to_owned();
        Ok(Self { url, table, http, tokens })
    }

    fn error(&self, attempted: &str, why: Unanswered) -> TableError {
        let (failure, cause) = match why {
            Unanswered::TooMuch(failure) => (failure, None),
            Unanswered::No(failure, cause) => (failure, cause),
        };
        let remedy = remedy(&failure);
        TableError { attempted: attempted.into(), on: self.url.to_string(), failure, remedy, cause }
    }

    /// One question, asked once more with a new token when the service does not take the old one.
    async fn ask(&self, query: &str) -> Result<bytes::Bytes, Unanswered> {
        match self.ask_once(query).await {
            Err(Unanswered::No(failure, _)) if is_about_the_token(&failure) => {
                self.tokens.forget();
                self.ask_once(query).await
            }
            other => other,
        }
    }

    async fn ask_once(&self, query: &str) -> Result<bytes::Bytes, Unanswered> {
        let token = self.tokens.token().await;
        let token = token.map_err(|error| Unanswered::No(Failure::NoCredential, Some(error.into())))?;
        let request = self
            .http
            .post(self.url.clone())
            .timeout(QUERY_DEADLINE)
            .bearer_auth(token.expose_secret())
            .header("prefer", format!("wait={}", SERVICE_WAIT.as_secs()))
            .header("x-ms-client-request-id", uuid::Uuid::new_v4().to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(serde_json::json!({ "query": query }).to_string());
        let broken = |error: reqwest::Error| Unanswered::No(failure_of(&error), Some(cause_of(error)));
        let response = request.send().await.map_err(broken)?;
        let hidden = Hidden { secrets: &[token.expose_secret()], body: b"" };
        match response.status().as_u16() {
            200 => read_body(response, BODY_BYTES_MAX).await.map_err(|failure| match failure {
                Failure::TooLarge => Unanswered::TooMuch(failure),
                other => Unanswered::No(other, None),
            }),
            504 => Err(Unanswered::TooMuch(failure_of_status(response, &hidden).await)),
            _ => Err(Unanswered::No(failure_of_status(response, &hidden).await, None)),
        }
    }

    /// Asks for one span, and for its halves when the answer is not all. Depth first, so that one answer is in memory at a time.
    async fn gather(&self, question: &Question<'_>, ids: &mut Ids) -> Result<(), Unanswered> {
        let mut open = vec![question.when];
        while let Some(when) = open.pop() {
            let body = self.ask(&ids_query(&self.table, question, when)).await;
            match body.and_then(|body| read_ids(&body, question.only, ids)) {
                Ok(()) => {}
                Err(Unanswered::TooMuch(failure)) => {
                    let halves = halves(when, &failure).ok_or(Unanswered::TooMuch(failure))?;
                    open.extend(halves.into_iter().rev());
                }
                Err(no) => return Err(no),
            }
        }
        Ok(())
    }
}

/// The two parts of a question that was too much; `None` when it cannot be made smaller.
fn halves(when: When, failure: &Failure) -> Option<[When; 2]> {
    let smallest = if matches!(failure, Failure::Status { .. }) { TIMED_OUT_TO } else { HALVED_TO };
    let split = |span: Span| (span.until - span.from >= smallest * 2).then(|| span.halves());
    match when {
        When::Happened(span) => split(span).map(|halves| halves.map(When::Happened)),
        When::Ingested(span) => split(span).map(|halves| halves.map(When::Ingested)),
        When::Both { happened, ingested } => {
            split(happened).map(|halves| halves.map(|happened| When::Both { happened, ingested }))
        }
    }
}

/// The text that asks for the events of a span. `TimeGenerated` is bounded from below in each: without that the service reads all that
/// the table ever kept, and throttles who asks so. <https://learn.microsoft.com/azure/azure-monitor/logs/query-optimization>
fn ids_query(table: &str, question: &Question<'_>, when: When) -> String {
    // A datetime counts in steps of 100 ns: two digits less than ours.
    let at = |time: Time| format!("datetime({})", time.to_rfc3339_opts(SecondsFormat::Micros, true));
    let within = |column: &str, span: Span| format!("{column} >= {} and {column} < {}", at(span.from), at(span.until));
    let mut query = format!("{table}\n| where log_source == {}", literal(question.stream.as_str()));
    let mut also = |condition: String| query.push_str(&format!("\n| where {condition}"));
    let (When::Happened(earliest) | When::Ingested(earliest) | When::Both { ingested: earliest, .. }) = when;
    let generated = earliest.from.checked_sub_signed(CLIENTS_AHEAD).unwrap_or(earliest.from);
    also(format!("TimeGenerated >= {}", at(generated)));
    match when {
        When::Happened(span) => also(within("timestamp", span)),
        When::Ingested(span) => also(within("ingestion_time()", span)),
        When::Both { happened, ingested } => {
            also(format!("({}) or isnull(timestamp)", within("timestamp", happened)));
            also(within("ingestion_time()", ingested));
        }
    }
    if let Some(account) = question.account_uuid {
        also(format!("account_uuid == {} or isempty(account_uuid)", literal(account)));
    }
    query.push_str("\n| extend hour = bin(timestamp, 1h), ingested = ingestion_time()");
    query.push_str("\n| summarize copies = count(), ingested = min(ingested) by uuid_s, hour");
    query
}

/// The text that asks for the newest row of an account. Both ages are the service's own: no clock of ours stands in it.
fn newest_query(table: &str, account_uuid: Option<&str>, within: Duration) -> String {
    let seconds = within.as_secs().saturating_add(CLIENTS_AHEAD.num_seconds().unsigned_abs());
    let whose = match account_uuid {
        Some(account) => format!("account_uuid == {}", literal(account)),
        None => "isempty(account_uuid)".into(),
    };
    format!(
        "{table}\n| where TimeGenerated >= ago({seconds}s)\n| where {whose}\n| extend ingested = ingestion_time()\
         \n| summarize newest = max(ingested)\n| extend asked = now()"
    )
}

/// A string literal of the query language.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Counts a whole answer in, or nothing of it.
fn read_ids(body: &[u8], only: Option<&HashSet<EventId>>, ids: &mut Ids) -> Result<(), Unanswered> {
    let answer = whole(body)?;
    let table = primary(&answer)?;
    let [uuid, hour, copies, ingested] = places(table, ["uuid_s", "hour", "copies", "ingested"])?;
    for row in &table.rows {
        let cell = |place: usize| row.get(place).ok_or_else(|| malformed("a row is shorter than its columns"));
        let copies = cell(copies)?.number().ok_or_else(|| malformed("a count is no number"))?;
        let Some(text) = cell(uuid)?.text().filter(|uuid| !uuid.is_empty()) else {
            ids.nameless += copies;
            continue;
        };
        let id = EventId::of_uuid(text);
        if only.is_none_or(|only| only.contains(&id)) {
            ids.add(EventKey { hour: Hour::of(cell(hour)?.time()), id }, copies, cell(ingested)?.time());
        }
    }
    Ok(())
}

/// The age of the newest row; a summary of no rows is one row without a time, or none at all.
fn read_newest(body: &[u8]) -> Result<Option<Duration>, Unanswered> {
    let answer = whole(body)?;
    let table = primary(&answer)?;
    let [newest, asked] = places(table, ["newest", "asked"])?;
    let Some(row) = table.rows.first() else { return Ok(None) };
    let cell = |place: usize| row.get(place).ok_or_else(|| malformed("a row is shorter than its columns"));
    let Some(newest) = cell(newest)?.time() else { return Ok(None) };
    let asked = cell(asked)?.time().ok_or_else(|| malformed("it does not say when it was asked"))?;
    Ok(Some((asked - newest).to_std().unwrap_or_default()))
}

/// The answer, unless the service marks it as not complete, in whatever words.
fn whole(body: &[u8]) -> Result<Answer<'_>, Unanswered> {
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|_| malformed("it is no table of ours"))?;
    match &answer.error {
        None => Ok(answer),
        Some(Partial { code, message }) => {
            let text = format!("{PARTIAL}, {}: {}", one_line(code), one_line(message));
            Err(Unanswered::TooMuch(Failure::Malformed(text)))
        }
    }
}

fn primary<'p, 'a>(answer: &'p Answer<'a>) -> Result<&'p Rows<'a>, Unanswered> {
    answer.tables.first().ok_or_else(|| malformed("it holds no table"))
}

fn places<const N: usize>(table: &Rows<'_>, names: [&str; N]) -> Result<[usize; N], Unanswered> {
    let mut places = [0; N];
    for (place, name) in places.iter_mut().zip(names) {
        let found = table.columns.iter().position(|column| column.name == name);
        *place = found.ok_or_else(|| malformed(&format!("it has no column {name}")))?;
    }
    Ok(places)
}

fn malformed(what: &str) -> Unanswered {
    Unanswered::No(Failure::Malformed(what.into()), None)
}

/// The service answers 403 to a token it cannot use, too.
fn is_about_the_token(failure: &Failure) -> bool {
    let Failure::Status { status, code, .. } = failure else { return false };
    *status == 401 || (*status == 403 && code.starts_with("InvalidAuthenticationToken"))
}

fn remedy(failure: &Failure) -> Option<&'static str> {
    let (status, code) = match failure {
        Failure::Status { status, code, .. } => (*status, code),
        Failure::NotConnected => {
            return Some(
                "check azure.workspace_url, azure.cloud, DNS, the firewall and http.proxy, then repeat the command",
            );
        }
        Failure::Interrupted => {
            return Some("the connection broke: check the network and http.proxy, then repeat the command");
        }
        Failure::Malformed(why) if why.starts_with(PARTIAL) => {
            return Some(
                "the service could not answer in full: repeat the command in some minutes, or for a shorter range",
            );
        }
        Failure::Malformed(_) | Failure::TooLarge => {
            return Some("check that azure.workspace_url is the query API and no proxy answers for it");
        }
        // The credential's own error says what to do.
        Failure::NoCredential | Failure::Local => return None,
    };
    match status {
        _ if is_about_the_token(failure) => Some("check that azure.cloud is the cloud of the workspace"),
        _ if is_about_the_plan(failure) => Some(
            "set the plan Analytics on the table's page in the workspace (Tables > the table > Manage table; Azure takes one change a week)",
        ),
        400 if code.starts_with("BadArgument") => Some(
            "check sink.stream, and that the workspace has this table with the columns of the deployment; a table that the identity \
             may not read looks the same as one that is missing",
        ),
        403 => Some(
            "give the identity the role Log Analytics Reader on the workspace, or read access to the table; it takes up to 30 minutes",
        ),
        404 => Some("check azure.workspace_id: the workspace's id (a GUID) on its overview page, and azure.cloud"),
        429 => Some("the workspace is asked too often: wait some minutes, then repeat the command"),
        504 => Some("the workspace takes too long: repeat the command for a shorter range"),
        500.. => Some("the service is troubled: repeat the command in some minutes"),
        _ => None,
    }
}

#[async_trait]
impl Table for Workspace {
    async fn ids(&self, question: &Question<'_>) -> Result<Ids, TableError> {
        let mut ids = Ids::default();
        let gathered = self.gather(question, &mut ids).await;
        gathered.map_err(|why| self.error(&format!("read the rows of {}", question.stream), why))?;
        Ok(ids)
    }

    async fn newest(&self, account_uuid: Option<&str>, within: Duration) -> Result<Option<Duration>, TableError> {
        let body = self.ask(&newest_query(&self.table, account_uuid, within)).await;
        let newest = body.and_then(|body| read_newest(&body));
        newest.map_err(|why| self.error("look for a row of the account", why))
    }

    fn when_blind(&self) -> &'static str {
        "give the identity the role Log Analytics Reader on the workspace, or on the table, without a condition on rows, and see that the table is \
         not protected; where no heartbeat has come since, let `opship once` or `opship run` end a good tick, wait some minutes, and repeat this"
    }

    async fn columns(&self) -> Result<Vec<Column>, TableError> {
        let fail = |why| self.error(&format!("read the columns of {}", self.table), why);
        let query = format!("{}\n| getschema\n| project ColumnName, ColumnType", self.table);
        let body = self.ask(&query).await.map_err(fail)?;
        read_columns(&body).map_err(fail)
    }

    fn place(&self) -> String {
        format!("{} at {}", self.table, self.url)
    }
}

fn read_columns(body: &[u8]) -> Result<Vec<Column>, Unanswered> {
    let answer = whole(body)?;
    let table = primary(&answer)?;
    let [name, kind] = places(table, ["ColumnName", "ColumnType"])?;
    let text = |row: &[Cell<'_>], place: usize| row.get(place).and_then(Cell::text).map(str::to_owned);
    let column = |row: &Vec<Cell<'_>>| Some(Column { name: text(row, name)?, kind: text(row, kind)? });
    table.rows.iter().map(|row| column(row).ok_or_else(|| malformed("a column without a name or type"))).collect()
}
