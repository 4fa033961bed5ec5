//! The query API, asked by the client that ships.

use super::*;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use chrono::TimeDelta;
use opship::azure::Tokens;
use opship::flow::retry::Failure;
use opship::flow::{EventId, Time};
use opship::sim::{Fault, Refusal, RetryAfter, Service, Target, What};
use opship::table::workspace::{Place, Workspace};
use opship::table::{Column, Ids, Question, Span, Table, TableError, When};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const STREAM: Stream = Stream::ItemUsages;
const FIRST: &str = "SYNTHETICAAAAAAAAAAAAAAAAA";
const SECOND: &str = "SYNTHETICBAAAAAAAAAAAAAAAA";
const THIRD: &str = "SYNTHETICCAAAAAAAAAAAAAAAA";

/// Hands out a token that was fetched before.
#[derive(Debug)]
struct Fixed(String);

#[async_trait::async_trait]
impl TokenCredential for Fixed {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new(self.0.clone(), OffsetDateTime::now_utc() + azure_core::time::Duration::hours(1)))
    }
}

impl Bench {
    async fn token_for(&self, audience: &str) -> String {
        let url = self.url(&format!("/msi/token?api-version=2019-08-01&resource={audience}"));
        let request = self.client.get(url).header("x-identity-header", self.world().identity_header());
        answer(request).await.1["access_token"].as_str().unwrap().to_owned()
    }

    async fn table(&self) -> Workspace {
        self.table_at(&self.world().workspace_id(), self.world().stream_name(), "https://api.loganalytics.io").await
    }

    async fn table_at(&self, workspace_id: &str, stream: &str, audience: &str) -> Workspace {
        let tokens = Tokens::new(Arc::new(Fixed(self.token_for(audience).await)), "any");
        let url = self.sim.base_url().parse().unwrap();
        let place = Place { url, workspace_id: workspace_id.into(), stream: stream.into() };
        Workspace::new(&place, Arc::new(tokens), self.client.clone()).unwrap()
    }

    fn queries(&self) -> usize {
        self.world().journal().iter().filter(|entry| entry.service == Service::Query).count()
    }
}

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

/// The hour of the events that [`row`] makes.
fn hour_of_ten() -> When {
    When::Happened(Span { from: at("2026-11-22T10:00:00Z"), until: at("2026-11-22T11:00:00Z") })
}

fn asked(when: When) -> Question<'static> {
    Question { stream: STREAM, account_uuid: None, when, only: None }
}

async fn copies(table: &Workspace, question: &Question<'_>) -> BTreeMap<EventId, u64> {
    let Ids { held, nameless } = table.ids(question).await.unwrap();
    assert_eq!(nameless, 0);
    held.into_iter().map(|(key, held)| (key.id, held.copies)).collect()
}

fn of(uuids: &[(&str, u64)]) -> BTreeMap<EventId, u64> {
    uuids.iter().map(|(uuid, copies)| (EventId::of_uuid(uuid), *copies)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_rows_are_found_by_event_time_and_by_ingestion_with_their_copies() {
    let bench = Bench::start(Options::default()).await;
    let before = bench.world().now();
    let mut later = row(STREAM, THIRD);
    later["timestamp"] = json!("2026-11-22T11:00:00Z");
    bench.post_rows(json!([row(STREAM, FIRST), row(STREAM, SECOND), row(STREAM, SECOND), later])).await;
    bench.post_rows(json!([row(Stream::AuditEvents, FIRST)])).await;
    assert!(bench.world().copy_row(STREAM, FIRST));
    let table = bench.table().await;
    assert_eq!(copies(&table, &asked(hour_of_ten())).await, of(&[(FIRST, 2), (SECOND, 2)]));
    let span = |from| Span { from, until: bench.world().now() + TimeDelta::seconds(1) };
    let since = asked(When::Ingested(span(before - TimeDelta::seconds(1))));
    assert_eq!(copies(&table, &since).await, of(&[(FIRST, 2), (SECOND, 2), (THIRD, 1)]));
    let afterwards = asked(When::Ingested(span(bench.world().now())));
    assert_eq!(copies(&table, &afterwards).await, of(&[]));
    assert!(bench.world().lose_row(STREAM, SECOND));
    assert_eq!(copies(&table, &asked(hour_of_ten())).await, of(&[(FIRST, 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_show_only_after_the_latency_and_a_share_of_them_never() {
    let latency = Duration::from_secs(120);
    let options = Options { ingestion_latency: latency, drop_share: 0.05, ..Options::default() };
    let bench = Bench::start(options).await;
    let uuids: Vec<String> = (0..1000).map(|n| format!("row-{n}")).collect();
    let rows: Vec<Value> = uuids.iter().map(|uuid| row(STREAM, uuid)).collect();
    assert_eq!(bench.post_rows(json!(rows)).await.0, 204);
    let table = bench.table().await;
    assert_eq!(copies(&table, &asked(hour_of_ten())).await, BTreeMap::new(), "none is visible yet");
    bench.world().shift_clock(TimeDelta::seconds(121));
    let dropped = bench.world().dropped(STREAM);
    assert!((20..=90).contains(&dropped.len()), "{} of 1000", dropped.len());
    let expected: BTreeSet<EventId> =
        uuids.iter().filter(|uuid| !dropped.contains(uuid)).map(|uuid| EventId::of_uuid(uuid)).collect();
    let found: BTreeSet<EventId> = copies(&table, &asked(hour_of_ten())).await.into_keys().collect();
    assert_eq!(found, expected);
    assert_eq!(bench.world().compare().lost, 0, "they were all accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cut_by_the_limit_says_so_and_the_client_gets_everything_in_parts() {
    let bench = Bench::start(Options::default()).await;
    let rows: Vec<Value> = (0..100)
        .map(|n| {
            let mut row = row(STREAM, &format!("row-{n}"));
            row["timestamp"] = json!(format!("2026-11-22T10:{:02}:00Z", n % 60));
            row
        })
        .collect();
    bench.post_rows(json!(rows)).await;
    bench.world().add_fault(Fault::new(Target::Query, What::RowsLimit { rows: 30 })).unwrap();
    let found = copies(&bench.table().await, &asked(hour_of_ten())).await;
    assert_eq!((found.len(), found.values().sum::<u64>()), (100, 100));
    assert!(bench.queries() > 4, "{} questions for four times the limit", bench.queries());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_are_those_of_the_deployment() {
    let bench = Bench::start(Options::default()).await;
    let columns = bench.table().await.columns().await.unwrap();
    let column = |name: &str, kind: &str| Column { name: name.into(), kind: kind.into() };
    for (name, kind) in [("uuid_s", "string"), ("timestamp", "datetime"), ("client", "dynamic"), ("aux_id", "int")] {
        assert!(columns.contains(&column(name, kind)), "{name}");
    }
    assert_eq!(columns.len(), 34, "33, and the tenant's id that every table has");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_is_the_services_own() {
    let bench = Bench::start(Options::default()).await;
    let (id, stream) = (bench.world().workspace_id(), bench.world().stream_name());
    let audience = "https://api.loganalytics.io";
    let refusal = async |table: Workspace| table.ids(&asked(hour_of_ten())).await.unwrap_err();
    let said = |error: &TableError, status: u16, words: &str| {
        let is = matches!(&error.failure, Failure::Status { status: found, .. } if *found == status);
        assert!(is && error.to_string().contains(words), "{error}");
    };
    let foreign = bench.table_at(&id, stream, "https://monitor.azure.com").await;
    said(&refusal(foreign).await, 403, "InvalidAuthenticationTokenAudience");
    let elsewhere = bench.table_at("00000000-0000-0000-0000-000000000000", stream, audience).await;
    said(&refusal(elsewhere).await, 404, "PathNotFoundError");
    let misnamed = bench.table_at(&id, "Custom-Other_CL", audience).await;
    said(&refusal(misnamed).await, 400, "SEM0100: Failed to resolve table or column expression named 'Other_CL'");
    bench.world().revoke_reader();
    let refused = refusal(bench.table().await).await;
    said(&refused, 403, "InsufficientAccessError");
    assert!(refused.remedy.unwrap().contains("Log Analytics Reader"));
    bench.world().grant_reader();
    let busy = What::Status(Refusal { retry_after: Some(RetryAfter::Seconds(7)), ..Refusal::status(429) });
    bench.world().add_fault(Fault::new(Target::Query, busy).times(1)).unwrap();
    let throttled = refusal(bench.table().await).await.failure;
    let wait = Some(Duration::from_secs(7));
    assert!(
        matches!(throttled, Failure::Status { status: 429, retry_after, .. } if retry_after == wait),
        "{throttled:?}"
    );
    assert_eq!(copies(&bench.table().await, &asked(hour_of_ten())).await, BTreeMap::new(), "and then it answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_api_loses_rows_and_tells_which() {
    let bench = Bench::start(Options::default()).await;
    let post = |path: &str| answer(bench.client.post(bench.url(path)));
    assert_eq!(post("/sim/workspace?drop_share=1").await.0, 204);
    assert_eq!(post("/sim/workspace?drop_share=some").await.0, 400);
    bench.post_rows(json!([row(STREAM, FIRST)])).await;
    let (status, dropped) = answer(bench.client.get(bench.url("/sim/dropped"))).await;
    assert_eq!((status, &dropped["itemusages"]), (200, &json!([FIRST])));
    assert_eq!(post("/sim/reader/revoke").await.0, 204);
    assert!(bench.table().await.columns().await.is_err());
    assert_eq!(post("/sim/reader/grant").await.0, 204);
    assert!(bench.table().await.columns().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_kept_back_by_source_without_an_error_and_the_newest_of_an_account_is_told() {
    let bench = Bench::start(Options::default()).await;
    let health = json!({ "log_source": "healthevents", "account_uuid": "OTHER" });
    bench.post_rows(json!([row(STREAM, FIRST), health])).await;
    let table = bench.table().await;
    let account = row(STREAM, FIRST)["account_uuid"].as_str().map(str::to_owned);
    let newest = async |account: Option<&str>| table.newest(account, Duration::from_secs(60)).await.unwrap();
    assert!(newest(account.as_deref()).await.is_some() && newest(Some("OTHER")).await.is_some());
    assert_eq!(newest(Some("NOBODY")).await, None);
    let hide = |source: Option<&str>| What::HideRows { source: source.map(str::to_owned) };
    bench.world().add_fault(Fault::new(Target::Query, hide(Some("itemusages")))).unwrap();
    assert_eq!(copies(&table, &asked(hour_of_ten())).await, of(&[]));
    assert!(newest(Some("OTHER")).await.is_some());
    bench.world().add_fault(Fault::new(Target::Query, hide(None))).unwrap();
    assert_eq!(newest(Some("OTHER")).await, None);
    bench.world().clear_faults();
    assert_eq!(copies(&table, &asked(hour_of_ten())).await, of(&[(FIRST, 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_time_is_found_among_its_batch_and_under_no_hour() {
    let bench = Bench::start(Options::default()).await;
    let mut timeless = row(STREAM, FIRST);
    timeless.as_object_mut().unwrap().remove("timestamp");
    bench.post_rows(json!([timeless, row(STREAM, SECOND)])).await;
    let (table, now) = (bench.table().await, bench.world().now());
    let When::Happened(happened) = hour_of_ten() else { panic!() };
    let both = |from, until| asked(When::Both { happened, ingested: Span { from, until } });
    let hour = TimeDelta::hours(1);
    assert_eq!(copies(&table, &both(now - hour, now + hour)).await, of(&[(FIRST, 1), (SECOND, 1)]));
    assert_eq!(copies(&table, &both(now + hour, now + hour * 2)).await, of(&[]));
    assert_eq!(copies(&table, &asked(hour_of_ten())).await, of(&[(SECOND, 1)]));
}
