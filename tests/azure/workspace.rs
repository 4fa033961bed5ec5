//! The table of a workspace: the questions it sends and what it makes of each answer.

use crate::tokens::Desk;
use crate::world::{Answer, Seen, World, reply};
use crate::{client, said};
use opship::flow::retry::Failure;
use opship::flow::{EventId, EventKey, Hour, Stream, Time};
use opship::table::workspace::{Place, Workspace};
use opship::table::{Column, Held, Question, Span, Table, TableError, When};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

const WORKSPACE: &str = "00000000-0000-0000-0000-00000000000a";
const FIRST: &str = "SYNTHETICAAAAAAAAAAAAAAAAA";
const SECOND: &str = "SYNTHETICBAAAAAAAAAAAAAAAA";
const COLUMNS: [&str; 4] = ["uuid_s", "hour", "copies", "ingested"];

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

fn hour_of_ten() -> Span {
    Span { from: at("2026-11-22T10:00:00Z"), until: at("2026-11-22T11:00:00Z") }
}

fn asked(when: When) -> Question<'static> {
    Question { stream: Stream::ItemUsages, account_uuid: None, when, only: None }
}

/// A table answer in the shape of the service.
fn rows(columns: &[&str], rows: Value) -> String {
    let columns: Vec<Value> = columns.iter().map(|name| json!({ "name": name, "type": "string" })).collect();
    json!({ "tables": [{ "name": "PrimaryResult", "columns": columns, "rows": rows }] }).to_string()
}

fn partial(answer: &str) -> String {
    let mut answer: Value = serde_json::from_str(answer).unwrap();
    answer["error"] = json!({ "code": "PartialError", "message": "There were some errors when processing your query.",
        "details": [{ "code": "EngineError", "message": "The results of this query exceed the set limit of 500000 records" }] });
    answer.to_string()
}

fn refused(code: &str, message: &str, inner: Value) -> String {
    json!({ "error": { "code": code, "message": message, "innererror": inner } }).to_string()
}

struct Bench {
    world: Arc<World>,
    desk: Arc<Desk>,
    table: Workspace,
}

impl Bench {
    async fn new(script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        let world = World::start().await;
        world.answer("127.0.0.1", script);
        let desk = Desk::open(3600);
        let place =
            Place { url: world.url(), workspace_id: WORKSPACE.into(), stream: "Custom-OnePasswordEventLogs_CL".into() };
        let table = Workspace::new(&place, desk.tokens(), client(&world, false)).unwrap();
        Self { world, desk, table }
    }

    fn queries(&self) -> Vec<String> {
        let query =
            |seen: &Seen| serde_json::from_slice::<Value>(&seen.body).unwrap()["query"].as_str().unwrap().into();
        self.world.seen("127.0.0.1").iter().map(query).collect()
    }

    async fn refusal(&self) -> TableError {
        self.table.ids(&asked(When::Happened(hour_of_ten()))).await.unwrap_err()
    }
}

#[tokio::test]
async fn a_question_by_event_time_is_sent_as_the_api_wants_it_and_its_answer_is_counted() {
    let answer = json!([
        [FIRST, "2026-11-22T10:00:00Z", 1, "2026-11-22T10:05:00.1234567Z"],
        [SECOND, "2026-11-22T10:00:00Z", 3, "2026-11-22T10:06:00Z"],
        ["", "2026-11-22T10:00:00Z", 2, null],
        [null, null, 5, null],
    ]);
    let bench = Bench::new(move |_, _| reply(200, rows(&COLUMNS, answer.clone()))).await;
    let ids = bench.table.ids(&asked(When::Happened(hour_of_ten()))).await.unwrap();
    let key = |uuid: &str| EventKey { hour: Hour::parse("2026112210").unwrap(), id: EventId::of_uuid(uuid) };
    let held = |copies, ingested: &str| Held { copies, ingested: Some(at(ingested)) };
    let expected = HashMap::from([
        (key(FIRST), held(1, "2026-11-22T10:05:00.1234567Z")),
        (key(SECOND), held(3, "2026-11-22T10:06:00Z")),
    ]);
    assert_eq!((ids.held, ids.nameless), (expected, 7));
    let seen = &bench.world.seen("127.0.0.1")[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", &*format!("/v1/workspaces/{WORKSPACE}/query")));
    assert_eq!(seen.header("authorization"), "Bearer canary-token-0");
    assert_eq!((seen.header("content-type"), seen.header("prefer")), ("application/json", "wait=180"));
    assert_eq!(
        bench.queries(),
        ["OnePasswordEventLogs_CL\n\
          | where log_source == \"itemusages\"\n\
          | where TimeGenerated >= datetime(2026-11-19T10:00:00.000000Z)\n\
          | where timestamp >= datetime(2026-11-22T10:00:00.000000Z) and timestamp < datetime(2026-11-22T11:00:00.000000Z)\n\
          | extend hour = bin(timestamp, 1h), ingested = ingestion_time()\n\
          | summarize copies = count(), ingested = min(ingested) by uuid_s, hour"]
    );
}

#[tokio::test]
async fn a_question_may_narrow_account_ingestion_and_ids() {
    let answer = json!([[FIRST, null, 1, null], [SECOND, null, 1, null]]);
    let bench = Bench::new(move |_, _| reply(200, rows(&COLUMNS, answer.clone()))).await;
    let only = HashSet::from([EventId::of_uuid(SECOND)]);
    let ingested = Span { from: at("2026-11-22T10:00:00.123456789Z"), until: at("2026-11-22T12:00:00Z") };
    let when = When::Both { happened: hour_of_ten(), ingested };
    let question = Question { account_uuid: Some("ACCOUNT\"1"), only: Some(&only), ..asked(when) };
    let ids = bench.table.ids(&question).await.unwrap();
    assert_eq!(ids.ids(), only);
    assert!(ids.held.keys().all(|key| key.hour == Hour::Odd));
    let query = &bench.queries()[0];
    let timeless = "timestamp < datetime(2026-11-22T11:00:00.000000Z)) or isnull(timestamp)\n";
    assert!(query.contains("\n| where (timestamp >= datetime(2026-11-22T10:00:00.000000Z) and"), "{query}");
    assert!(query.contains(timeless), "{query}");
    assert!(
        query.contains("\n| where ingestion_time() >= datetime(2026-11-22T10:00:00.123456Z) and ingestion_time() <")
    );
    assert!(query.contains(r#"| where account_uuid == "ACCOUNT\"1" or isempty(account_uuid)"#), "{query}");
}

#[tokio::test]
async fn a_partial_answer_is_never_taken_but_asked_for_again_in_halves() {
    let bench = Bench::new(|_, count| match count {
        0 | 2 => reply(200, partial(&rows(&COLUMNS, json!([["WRONG", null, 9, null]])))),
        1 => reply(200, rows(&COLUMNS, json!([[FIRST, null, 1, null]]))),
        _ => reply(200, rows(&COLUMNS, json!([[SECOND, null, 1, null]]))),
    })
    .await;
    let ids = bench.table.ids(&asked(When::Happened(hour_of_ten()))).await.unwrap();
    let copies: HashMap<_, _> = ids.held.iter().map(|(key, held)| (key.id, held.copies)).collect();
    assert_eq!(copies, HashMap::from([(EventId::of_uuid(FIRST), 1), (EventId::of_uuid(SECOND), 2)]));
    let spans = ["10:00:00", "11:00:00"].map(str::to_owned);
    let of = |query: &String| {
        let time = |n: usize| query.split("datetime(2026-11-22T").nth(n).unwrap()[..8].to_owned();
        [time(1), time(2)]
    };
    let expected = [
        spans,
        ["10:00:00", "10:30:00"].map(str::to_owned),
        ["10:30:00", "11:00:00"].map(str::to_owned),
        ["10:30:00", "10:45:00"].map(str::to_owned),
        ["10:45:00", "11:00:00"].map(str::to_owned),
    ];
    assert_eq!(bench.queries().iter().map(of).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn an_answer_that_stays_partial_is_an_error_after_a_bounded_number_of_questions() {
    let bench = Bench::new(|_, _| reply(200, partial(&rows(&COLUMNS, json!([]))))).await;
    let error = bench.refusal().await;
    assert!(matches!(&error.failure, Failure::Malformed(what) if what.contains("PartialError")), "{error}");
    // 1 h halved until it is under 200 ms.
    assert_eq!(bench.queries().len(), 16);
}

#[tokio::test]
async fn a_question_that_timed_out_is_halved_too_but_not_for_ever() {
    let answer =
        refused("GatewayTimeout", "The gateway did not receive a response", json!({ "code": "GatewayTimeout" }));
    let bench = Bench::new(move |_, _| reply(504, answer.clone())).await;
    let refused = bench.refusal().await;
    assert!(matches!(refused.failure, Failure::Status { status: 504, .. }));
    assert!(refused.remedy.unwrap().contains("a shorter range"));
    assert_eq!(bench.queries().len(), 3);
}

#[tokio::test]
async fn each_refusal_names_its_remedy() {
    let no_role = json!({ "code": "UnauthorizedClient", "message": "The service principal does not have access" });
    let no_table = json!({ "code": "SemanticError", "message": "A semantic error occurred.", "innererror": {
        "code": "SEM0100", "message": "'where' operator: Failed to resolve table or column expression named 'T_CL'" } });
    let other_plan = json!({ "code": "UnsupportedApiQueryValidationError", "message":
        "Query of Basic Logs table is not supported with the API 'https://api.loganalytics.io/v1/workspaces/{workspaceId}/query'." });
    let cases = [
        (
            403,
            refused("InsufficientAccessError", "insufficient access", no_role),
            "Log Analytics Reader on the workspace",
        ),
        (404, refused("PathNotFoundError", "The requested path does not exist", json!(null)), "azure.workspace_id"),
        (400, refused("BadArgumentError", "The request had some invalid properties", no_table), "sink.stream"),
        (400, refused("BadArgumentError", "The request had some invalid properties", other_plan), "plan Analytics"),
        (401, refused("AuthenticationFailed", "no", json!(null)), "azure.cloud"),
        (403, refused("InvalidAuthenticationTokenAudience", "wrong audience", json!(null)), "azure.cloud"),
    ];
    for (status, body, remedy) in cases {
        let bench = Bench::new(move |_, _| reply(status, body.clone())).await;
        let error = bench.refusal().await;
        assert!(error.remedy.unwrap().contains(remedy), "{status}: {:?}", error.remedy);
        assert!(said(&error).contains("read the rows of itemusages"));
        let is_token = remedy == "azure.cloud";
        assert_eq!((bench.queries().len(), bench.desk.asked()), if is_token { (2, 2) } else { (1, 1) }, "{status}");
    }
}

#[tokio::test]
async fn a_missing_table_is_named_in_the_service_s_own_inner_words() {
    let no_table = json!({ "code": "SemanticError", "message": "A semantic error occurred.", "innererror": {
        "code": "SEM0100", "message": "'where' operator: Failed to resolve table or column expression named 'T_CL'" } });
    let body = refused("BadArgumentError", "The request had some invalid properties", no_table);
    let bench = Bench::new(move |_, _| reply(400, body.clone())).await;
    let text = bench.refusal().await.to_string();
    assert!(text.contains("SEM0100") && text.contains("'T_CL'"), "{text}");
}

#[tokio::test]
async fn an_answer_of_another_shape_is_an_error_and_not_an_empty_table() {
    let short = rows(&COLUMNS, json!([[FIRST]]));
    let column_less = rows(&["uuid_s", "hour", "copies"], json!([]));
    let count_less = rows(&COLUMNS, json!([[FIRST, null, "many", null]]));
    for body in ["", "{}", r#"{"tables":[]}"#, "<html></html>", &short, &column_less, &count_less] {
        let text = body.to_owned();
        let bench = Bench::new(move |_, _| reply(200, text.clone())).await;
        assert!(matches!(bench.refusal().await.failure, Failure::Malformed(_)), "{body}");
    }
}

#[tokio::test]
async fn the_columns_of_the_table_are_asked_by_its_schema() {
    let answer = json!([["TimeGenerated", "datetime"], ["uuid_s", "string"]]);
    let bench = Bench::new(move |_, _| reply(200, rows(&["ColumnName", "ColumnType"], answer.clone()))).await;
    let column = |name: &str, kind: &str| Column { name: name.into(), kind: kind.into() };
    let expected = [column("TimeGenerated", "datetime"), column("uuid_s", "string")];
    assert_eq!(bench.table.columns().await.unwrap(), expected);
    assert_eq!(bench.queries(), ["OnePasswordEventLogs_CL\n| getschema\n| project ColumnName, ColumnType"]);
}

#[tokio::test]
async fn the_newest_row_of_an_account_is_asked_for_by_the_service_s_own_clock() {
    let answer = json!([["2026-11-22T10:00:00.5Z", "2026-11-22T10:01:00Z"]]);
    let bench = Bench::new(move |_, _| reply(200, rows(&["newest", "asked"], answer.clone()))).await;
    let within = Duration::from_secs(3600);
    let newest = bench.table.newest(Some("ACCOUNT\"1"), within).await.unwrap();
    assert_eq!(newest, Some(Duration::from_millis(59_500)));
    bench.table.newest(None, within).await.unwrap();
    let query = |whose: &str| {
        format!(
            "OnePasswordEventLogs_CL\n| where TimeGenerated >= ago(262800s)\n| where {whose}\n| extend ingested = ingestion_time()\
             \n| summarize newest = max(ingested)\n| extend asked = now()"
        )
    };
    assert_eq!(bench.queries(), [query(r#"account_uuid == "ACCOUNT\"1""#), query("isempty(account_uuid)")]);
}

/// Fault: the newest row is asked for, and the answer has no row, a row without a time, a time ahead, is partial or of another shape. Shows: what says nothing is nothing seen, what is not whole is an error.
#[tokio::test]
async fn fm_59_an_answer_without_a_time_shows_no_row() {
    let of = |row: Value| rows(&["newest", "asked"], row);
    let asked = "2026-11-22T10:01:00Z";
    for (body, newest) in [
        (of(json!([])), None),
        (of(json!([[null, asked]])), None),
        (of(json!([["", asked]])), None),
        (of(json!([["2026-11-22T10:02:00Z", asked]])), Some(Duration::ZERO)),
    ] {
        let answer = body.clone();
        let bench = Bench::new(move |_, _| reply(200, answer.clone())).await;
        assert_eq!(bench.table.newest(Some("A"), Duration::ZERO).await.unwrap(), newest, "{body}");
    }
    let seen = of(json!([[asked, asked]]));
    for body in
        [partial(&seen), of(json!([[asked]])), of(json!([[asked, null]])), rows(&COLUMNS, json!([])), String::new()]
    {
        let answer = body.clone();
        let bench = Bench::new(move |_, _| reply(200, answer.clone())).await;
        let error = bench.table.newest(Some("A"), Duration::ZERO).await.unwrap_err();
        assert!(said(&error).contains("look for a row of the account"), "{body}");
    }
}

#[tokio::test]
async fn every_question_for_rows_bounds_the_time_at_which_they_were_generated() {
    let bench = Bench::new(|_, _| reply(200, rows(&COLUMNS, json!([])))).await;
    let ingested = Span { from: at("2026-11-20T12:00:00Z"), until: at("2026-11-23T00:00:00Z") };
    for (when, from) in [
        (When::Happened(hour_of_ten()), "2026-11-19T10:00:00.000000Z"),
        (When::Ingested(ingested), "2026-11-17T12:00:00.000000Z"),
        (When::Both { happened: hour_of_ten(), ingested }, "2026-11-17T12:00:00.000000Z"),
    ] {
        bench.table.ids(&asked(when)).await.unwrap();
        let query = bench.queries().pop().unwrap();
        assert!(query.contains(&format!("\n| where TimeGenerated >= datetime({from})\n")), "{query}");
    }
}
