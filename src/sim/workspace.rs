//! The Log Analytics query API over the rows that the workspace holds.

use super::access::Refused;
use super::call::Call;
use super::fault::{Refusal, What};
use super::history::delta;
use super::kql::{self, Query};
use super::reply::Reply;
use super::shelf::Shelved;
use super::vocabulary::COLUMNS;
use super::world::{World, held};
use crate::flow::decode::{self, Kind};
use crate::flow::{Stream, Time};
use axum::http::{Method, header};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rows of an answer; the rest is cut off and the answer says so.
const ROWS_MAX: usize = 500_000;
/// The audiences of the query API in the three clouds.
const AUDIENCES: &[&str] = &[
    "https://api.loganalytics.io",
    "https://api.loganalytics.azure.com",
    "https://api.loganalytics.us",
    "https://api.loganalytics.azure.cn",
];

type Group<'a> = (&'a str, Option<Time>);

/// Answers `POST /v1/workspaces/{id}/query`.
pub(super) fn answer(world: &World, call: &Call, whats: &[What]) -> Reply {
    match query(world, call) {
        Ok(Query::Schema) => tables(&["ColumnName", "ColumnType"], schema(), None),
        Ok(Query::Newest { within, account }) => {
            let row = newest(world, within, account.as_deref(), &hidden(whats));
            tables(&["newest", "asked"], vec![row], None)
        }
        Ok(asked) => {
            let limit =
                whats.iter().find_map(|what| if let What::RowsLimit { rows } = what { Some(*rows) } else { None });
            let limit = limit.unwrap_or(ROWS_MAX);
            let mut rows = ids(world, &asked, &hidden(whats));
            let partial = (rows.len() > limit).then_some(limit);
            rows.truncate(limit);
            tables(&["uuid_s", "hour", "copies", "ingested"], rows, partial)
        }
        Err(refusal) => refuse(world, &refusal),
    }
}

/// An error answer in the shape of the service.
pub(super) fn refuse(world: &World, refusal: &Refusal) -> Reply {
    let (code, message) = match refusal.status {
        401 => ("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."),
        403 => (
            "InsufficientAccessError",
            "The provided credentials have insufficient access to perform the requested operation",
        ),
        404 => ("PathNotFoundError", "The requested path does not exist"),
        429 => ("ThrottledError", "The request is throttled"),
        504 => ("GatewayTimeout", "The gateway timed out"),
        400..=499 => ("BadArgumentError", "The request had some invalid properties"),
        _ => ("ServiceError", "The service is not available"),
    };
    let code = refusal.code.as_deref().unwrap_or(code);
    let mut error = json!({ "code": code, "message": message });
    // The outer words are the service's; what is special to this refusal stands inside.
    if let (Some(message), Some(error)) = (&refusal.message, error.as_object_mut()) {
        let (inner_code, text) = message.split_once(": ").unwrap_or(("", message));
        let inner = json!({ "code": inner_code, "message": text });
        let inner = if refusal.status == 400 && !inner_code.starts_with("Unsupported") {
            json!({ "code": "SemanticError", "message": "A semantic error occurred.", "innererror": inner })
        } else {
            inner
        };
        error.insert("innererror".into(), inner);
    }
    Reply::json(refusal.status, &json!({ "error": error })).refused_with(refusal, world.now())
}

fn refusal(status: u16, code: &str, inner: Option<String>) -> Refusal {
    Refusal { code: Some(code.into()), message: inner, ..Refusal::status(status) }
}

/// Method, token, workspace, role and pace, then the query itself.
fn query(world: &World, call: &Call) -> Result<Query, Refusal> {
    let now = world.now();
    if call.head.method != Method::POST {
        return Err(Refusal::status(404));
    }
    held(&world.access).check_azure_for(AUDIENCES, call.head.bearer(), now).map_err(|why| match why {
        Refused::Missing => Refusal::status(401),
        Refused::Invalid | Refused::Expired => refusal(403, "InvalidAuthenticationToken", None),
        Refused::WrongAudience => refusal(403, "InvalidAuthenticationTokenAudience", None),
    })?;
    if call.head.path != format!("/v1/workspaces/{}/query", world.workspace_id()) {
        return Err(Refusal::status(404));
    }
    if !held(&world.access).reader_is_granted {
        let inner =
            "UnauthorizedClient: The service principal does not have sufficient permissions to access this resource";
        return Err(refusal(403, "InsufficientAccessError", Some(inner.into())));
    }
    if world.options.rate_limits && !held(&world.query_pace).admit(now) {
        return Err(Refusal { retry_after: Some(super::RetryAfter::Seconds(30)), ..Refusal::status(429) });
    }
    let kind = call.head.header(header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let body: Option<Value> = serde_json::from_slice(&call.body).ok().filter(|_| kind.starts_with("application/json"));
    let text = body.as_ref().and_then(|body| body.get("query")?.as_str()).ok_or_else(|| Refusal::status(400))?;
    let table = world.stream_name().trim_start_matches("Custom-");
    let columns: Vec<&str> = schema_columns().map(|(name, _)| name).collect();
    kql::read(text, table, &columns)
        .map_err(|fault| refusal(400, "BadArgumentError", Some(format!("{}: {}", fault.code, fault.message))))
}

/// Name and type of each column of the table.
fn schema_columns() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kind = |name: &str| match decode::COLUMNS.iter().find(|column| column.name == name).map(|column| column.kind) {
        Some(Kind::DateTime) => "datetime",
        Some(Kind::Int) => "int",
        Some(Kind::Dynamic) => "dynamic",
        Some(Kind::Text) | None => "string",
    };
    let own = [("TenantId", "string"), ("SourceSystem", "string"), ("TimeGenerated", "datetime")];
    own.into_iter().chain(COLUMNS.iter().map(move |name| (*name, kind(name))))
}

fn schema() -> Vec<Value> {
    schema_columns().map(|(name, kind)| json!([name, kind])).collect()
}

/// The sources whose rows this answer keeps back.
fn hidden(whats: &[What]) -> impl Fn(&Shelved) -> bool {
    let of = |what: &What| if let What::HideRows { source } = what { Some(source.clone()) } else { None };
    let sources: Vec<Option<String>> = whats.iter().filter_map(of).collect();
    move |row| sources.iter().any(|source| source.as_deref().is_none_or(|source| *source == *row.source))
}

fn ids(world: &World, query: &Query, is_hidden: &dyn Fn(&Shelved) -> bool) -> Vec<Value> {
    let Query::Ids { source, generated, happened, or_never, ingested, account } = query else { return Vec::new() };
    let shelf = held(&world.shelf);
    let within = |time: Option<Time>, between: &Option<kql::Between>| {
        between.is_none_or(|(from, until)| time.is_some_and(|time| from <= time && time < until))
    };
    let mut groups: BTreeMap<Group<'_>, (u64, Time)> = BTreeMap::new();
    for row in shelf.visible(world.now()).filter(|row| !is_hidden(row)) {
        let Shelved { source: of, uuid, account: whose, happened: at, generated: at_rule, ingested: came } = row;
        let is_whose = account.as_ref().is_none_or(|account| whose.is_empty() || **whose == **account);
        let is_whose = is_whose && generated <= at_rule;
        let is_when = within(*at, happened) || (*or_never && at.is_none());
        if **of == **source && is_whose && is_when && within(Some(*came), ingested) {
            let group = groups.entry((uuid, at.and_then(hour_of))).or_insert((0, *came));
            *group = (group.0 + 1, group.1.min(*came));
        }
    }
    groups.iter().map(|((uuid, hour), (copies, came))| json!([uuid, hour.map(text), copies, text(*came)])).collect()
}

/// A summary of no rows is a row without a time.
fn newest(world: &World, within: Duration, account: Option<&str>, is_hidden: &dyn Fn(&Shelved) -> bool) -> Value {
    let (shelf, now) = (held(&world.shelf), world.now());
    let since = now - delta(within);
    let is_of = |row: &&Shelved| *row.account == *account.unwrap_or_default() && since <= row.generated;
    let seen = shelf.visible(now).filter(|row| !is_hidden(row)).filter(is_of);
    json!([seen.map(|row| row.ingested).max().map(text), text(now)])
}

fn text(time: Time) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

fn hour_of(time: Time) -> Option<Time> {
    Time::from_timestamp(time.timestamp().div_euclid(3600) * 3600, 0)
}

/// A table as the service sends it; one that was cut says so beside its rows, under status 200.
fn tables(columns: &[&str], rows: Vec<Value>, partial: Option<usize>) -> Reply {
    let columns: Vec<Value> = columns.iter().map(|name| json!({ "name": name, "type": column_type(name) })).collect();
    let mut body = json!({ "tables": [{ "name": "PrimaryResult", "columns": columns, "rows": rows }] });
    if let (Some(limit), Some(body)) = (partial, body.as_object_mut()) {
        let message = format!(
            "Query result set has exceeded the internal record count limit {limit} (E_QUERY_RESULT_SET_TOO_LARGE)"
        );
        body.insert(
            "error".into(),
            json!({ "code": "PartialError",
            "message": "There were some errors when processing your query.",
            "details": [{ "code": "EngineError", "message": "Something went wrong processing your query on the server.",
                "innererror": { "code": "-2133196797", "message": message, "severity": 2 } }] }),
        );
    }
    Reply::json(200, &body)
}

fn column_type(name: &str) -> &'static str {
    match name {
        "copies" => "long",
        "hour" | "ingested" | "newest" | "asked" => "datetime",
        _ => "string",
    }
}

impl World {
    /// The id by which the workspace is queried.
    pub fn workspace_id(&self) -> String {
        self.guid_of("workspace")
    }

    /// Takes the role Log Analytics Reader away from the identity.
    pub fn revoke_reader(&self) {
        held(&self.access).reader_is_granted = false;
    }

    pub fn grant_reader(&self) {
        held(&self.access).reader_is_granted = true;
    }

    /// From now on this share of the event rows is lost after the 204.
    pub fn set_drop_share(&self, share: f64) {
        held(&self.shelf).drop_share = share.clamp(0.0, 1.0);
    }

    /// From now on rows become visible so long after they were accepted.
    pub fn set_ingestion_latency(&self, latency: Duration) {
        held(&self.shelf).latency = latency;
    }

    /// The uuids of rows that were accepted and then lost, in the order they came.
    pub fn dropped(&self, stream: Stream) -> Vec<String> {
        held(&self.shelf).dropped(stream)
    }

    /// Ingests a row a second time. False when the workspace has none of this uuid.
    pub fn copy_row(&self, stream: Stream, uuid: &str) -> bool {
        held(&self.shelf).copy(stream, uuid)
    }

    /// Loses every row of an event. False when the workspace has none of this uuid.
    pub fn lose_row(&self, stream: Stream, uuid: &str) -> bool {
        held(&self.shelf).lose(stream, uuid)
    }
}
