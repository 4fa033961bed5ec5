//! The sink of a data collection rule: what it sends and what it makes of each answer.

use crate::tokens::Desk;
use crate::world::{Answer, World, reply};
use crate::{LOGIN, SECRET, azure, client, entra, proxied, said};
use bytes::Bytes;
use opship::azure::{Tokens, credential, places};
use opship::config::{Cloud, Credential};
use opship::flow::retry::Failure;
use opship::sink::azure_dcr::{AzureDcr, Destination};
use opship::sink::{Body, Sink, SinkError};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

const INGEST: &str = "opship-x1y2.westeurope-1.ingest.monitor.azure.com";
const PATH: &str = "/dataCollectionRules/dcr-0123/streams/Custom-OnePasswordEventLogs_CL?api-version=2023-01-01";

fn destination(endpoint: &str) -> Destination {
    Destination {
        endpoint: endpoint.parse().unwrap(),
        dcr_immutable_id: "dcr-0123".into(),
        stream: "Custom-OnePasswordEventLogs_CL".into(),
        gzip_level: 1,
        allow_insecure_loopback: true,
    }
}

fn body(json: &str) -> Body {
    Body { json: Bytes::copy_from_slice(json.as_bytes()), rows: 1 }
}

/// A sink on plain loopback with a token desk of its own.
struct Bench {
    world: Arc<World>,
    desk: Arc<Desk>,
    sink: AzureDcr,
}

impl Bench {
    async fn new(script: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let world = World::start().await;
        world.answer("127.0.0.1", move |_, count| script(count));
        let desk = Desk::open(3600);
        let sink = AzureDcr::new(&destination(world.url().as_str()), desk.tokens(), client(&world, false)).unwrap();
        Self { world, desk, sink }
    }

    async fn refusal(&self) -> SinkError {
        self.sink.deliver(&body(r#"[{"a":1}]"#)).await.unwrap_err()
    }
}

fn unpack(gzip: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(gzip).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn two_batches_in_a_row_arrive_gzipped_with_the_headers_of_the_api() {
    let bench = Bench::new(|_| reply(204, "")).await;
    let jsons = [format!(r#"[{{"a":"{}"}}]"#, "x".repeat(200_000)), r#"[{"b":"é"}]"#.to_owned()];
    for json in &jsons {
        bench.sink.deliver(&body(json)).await.unwrap();
    }
    let seen = bench.world.seen("127.0.0.1");
    for (seen, json) in seen.iter().zip(&jsons) {
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", PATH));
        assert_eq!(seen.header("authorization"), "Bearer canary-token-0");
        assert_eq!(seen.header("content-type"), "application/json");
        assert_eq!(seen.header("content-encoding"), "gzip");
        uuid::Uuid::parse_str(seen.header("x-ms-client-request-id")).unwrap();
        assert_eq!(&unpack(&seen.body), json);
    }
    assert_ne!(seen[0].header("x-ms-client-request-id"), seen[1].header("x-ms-client-request-id"));
}

#[tokio::test]
async fn gzip_level_0_sends_the_json_itself() {
    let world = World::start().await;
    world.answer("127.0.0.1", |_, _| reply(204, ""));
    let destination = Destination { gzip_level: 0, ..destination(world.url().as_str()) };
    let sink = AzureDcr::new(&destination, Desk::open(3600).tokens(), client(&world, false)).unwrap();
    sink.deliver(&body("[{}]")).await.unwrap();
    let seen = &world.seen("127.0.0.1")[0];
    assert_eq!((seen.body.as_slice(), seen.header("content-encoding")), (b"[{}]".as_slice(), ""));
}

#[tokio::test]
async fn an_empty_body_is_never_sent() {
    let bench = Bench::new(|_| reply(204, "")).await;
    let error = bench.sink.deliver(&body("")).await.unwrap_err();
    assert!(!error.failure.may_have_arrived());
    assert!(bench.world.seen("127.0.0.1").is_empty());
}

#[tokio::test]
async fn a_forbidden_delivery_carries_code_message_and_role_and_is_a_definite_no() {
    let body = r#"{"error":{"code":"OperationFailed","message":"no access to ingest"}}"#;
    let bench = Bench::new(move |_| reply(403, body)).await;
    let error = bench.refusal().await;
    assert!(!error.failure.may_have_arrived());
    let text = said(&error);
    for part in
        ["deliver 1 rows", "dcr-0123", "answered 403 OperationFailed: no access", "Monitoring Metrics Publisher"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(bench.world.seen("127.0.0.1").len(), 1, "one attempt only");
}

#[tokio::test]
async fn a_413_a_429_and_a_500_are_told_apart() {
    let bench = Bench::new(|count| match count {
        0 => reply(413, r#"{"error":{"code":"ContentLengthLimitExceeded","message":"m"}}"#),
        1 => Answer::Reply { status: 429, headers: vec![("retry-after", "17".into())], body: String::new() },
        2 => Answer::Reply { status: 500, headers: vec![("x-ms-error-code", "Oops".into())], body: "<html>".into() },
        _ => reply(202, ""),
    })
    .await;
    let large = bench.refusal().await.failure;
    assert!(matches!(&large, Failure::Status { status: 413, code, .. } if code == "ContentLengthLimitExceeded"));
    let slow = bench.refusal().await.failure;
    assert!(
        matches!(slow, Failure::Status { status: 429, retry_after: Some(after), .. } if after == Duration::from_secs(17))
    );
    let broken = bench.refusal().await.failure;
    assert!(
        matches!(&broken, Failure::Status { status: 500, code, .. } if code == "Oops") && broken.may_have_arrived()
    );
    let odd = bench.refusal().await.failure;
    assert!(odd.may_have_arrived(), "202 is neither a yes nor a no: {odd}");
}

#[tokio::test]
async fn a_lost_answer_leaves_the_batch_in_doubt_and_is_not_sent_again() {
    let bench = Bench::new(|_| Answer::Break).await;
    let error = bench.refusal().await;
    assert_eq!(error.failure, Failure::Interrupted);
    assert!(error.failure.may_have_arrived());
    assert_eq!(bench.world.seen("127.0.0.1").len(), 1);
}

/// Fault: the rule takes a batch and never answers. Shows: given up at the deadline, and the batch is in doubt.
#[tokio::test]
async fn fm_08_a_hanging_service_is_given_up_after_the_deadline_and_leaves_the_batch_in_doubt() {
    let bench = Bench::new(|_| Answer::Hang).await;
    let world = bench.world.clone();
    let delivery = tokio::spawn(async move { bench.refusal().await.failure });
    world.hung.notified().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(delivery.await.unwrap(), Failure::Interrupted);
}

#[tokio::test]
async fn a_refused_connection_and_a_missing_token_are_a_definite_no() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let world = World::start().await;
    let sink = AzureDcr::new(&destination(&closed), Desk::open(3600).tokens(), client(&world, false)).unwrap();
    assert_eq!(sink.deliver(&body("[{}]")).await.unwrap_err().failure, Failure::NotConnected);
    let desk: Arc<Desk> = Arc::default();
    let sink = AzureDcr::new(&destination(world.url().as_str()), desk.tokens(), client(&world, false)).unwrap();
    let error = sink.deliver(&body("[{}]")).await.unwrap_err();
    assert_eq!(error.failure, Failure::NoCredential);
    assert!(said(&error).contains("the desk is closed"));
    assert!(world.seen("127.0.0.1").is_empty());
}

/// Fault: the rule answers 307 to another server. Shows: the status is the failure, the other server sees no request.
#[tokio::test]
async fn fm_37_a_redirect_is_not_followed() {
    let elsewhere = World::start().await;
    elsewhere.answer("127.0.0.1", |_, _| reply(204, ""));
    let location = elsewhere.url().to_string();
    let bench = Bench::new(move |_| Answer::Reply {
        status: 307,
        headers: vec![("location", location.clone())],
        body: String::new(),
    })
    .await;
    let failure = bench.refusal().await.failure;
    assert!(matches!(failure, Failure::Status { status: 307, .. }));
    assert!(elsewhere.seen("127.0.0.1").is_empty());
}

#[tokio::test]
async fn a_401_then_reauthenticate_really_asks_entra_for_another_token() {
    let world = World::start().await;
    world.answer(LOGIN, |_, count| entra(count));
    world.answer(INGEST, |seen, _| match seen.header("authorization") {
        "Bearer canary-token-1" => reply(204, ""),
        _ => reply(401, ""),
    });
    let sink = over_entra(&world);
    assert!(matches!(sink.deliver(&body("[{}]")).await.unwrap_err().failure, Failure::Status { status: 401, .. }));
    sink.reauthenticate().await;
    sink.deliver(&body("[{}]")).await.unwrap();
    assert_eq!(world.seen(LOGIN).len(), 2);
    assert!(world.seen(INGEST).iter().all(|seen| seen.tls && seen.proxied));
}

/// A sink with everything real: the client through the CONNECT proxy, the private authority, the credential.
fn over_entra(world: &World) -> AzureDcr {
    let http = proxied(world);
    let credential = credential(&azure(Credential::ClientSecret), Some(SECRET.into()), None, &http).unwrap();
    let tokens = Arc::new(Tokens::new(credential, places(Cloud::Public).monitor_scope));
    AzureDcr::new(&destination(&format!("https://{INGEST}")), tokens, http).unwrap()
}

#[tokio::test]
async fn a_plain_proxy_and_a_private_authority_without_one_work() {
    let world = World::start().await;
    world.answer("127.0.0.1", |_, _| reply(204, ""));
    world.answer("localhost", |_, _| reply(204, ""));
    let plain = destination(world.url().as_str());
    let sink = AzureDcr::new(&plain, Desk::open(3600).tokens(), proxied(&world)).unwrap();
    sink.deliver(&body("[{}]")).await.unwrap();
    let seen = &world.seen("127.0.0.1")[0];
    assert!(seen.proxied && !seen.tls && seen.path == PATH);
    let direct = destination(&format!("https://localhost:{}/", world.addr.port()));
    let sink = AzureDcr::new(&direct, Desk::open(3600).tokens(), client(&world, false)).unwrap();
    sink.deliver(&body("[{}]")).await.unwrap();
    let seen = &world.seen("localhost")[0];
    assert!(seen.tls && !seen.proxied && seen.path == PATH);
}

#[tokio::test]
async fn a_probe_posts_an_empty_array_and_says_what_it_proved() {
    let bench = Bench::new(|count| match count {
        0 => reply(204, ""),
        1 => reply(404, r#"{"error":{"code":"NotFound","message":"m"}}"#),
        _ => reply(400, r#"{"error":{"code":"InvalidStream","message":"m"}}"#),
    })
    .await;
    let sentence = bench.sink.probe().await.unwrap();
    assert!(sentence.contains("dcr-0123") && sentence.contains("accepted"), "{sentence}");
    assert_eq!(unpack(&bench.world.seen("127.0.0.1")[0].body), "[]");
    assert!(said(&bench.sink.probe().await.unwrap_err()).contains("sink.dcr_immutable_id"));
    assert!(said(&bench.sink.probe().await.unwrap_err()).contains("sink.stream"));
}

#[tokio::test]
async fn plain_http_is_refused_unless_it_is_an_allowed_loopback() {
    let world = World::start().await;
    for (endpoint, allowed, good) in [
        ("http://127.0.0.1:1", true, true),
        ("http://[::1]:1", true, true),
        ("http://127.0.0.1:1", false, false),
        ("http://localhost:1", true, false),
        ("http://10.0.0.1", true, false),
        ("https://user:canary@x.ingest.monitor.azure.com", false, true),
    ] {
        let destination = Destination { allow_insecure_loopback: allowed, ..destination(endpoint) };
        let sink = AzureDcr::new(&destination, Desk::open(3600).tokens(), client(&world, false));
        assert_eq!(sink.is_ok(), good, "{endpoint}");
        match sink {
            Ok(sink) => assert!(!format!("{sink:?}").contains("canary")),
            Err(error) => assert!(said(&error).contains("must be https")),
        }
    }
}

#[tokio::test]
async fn the_place_is_rule_and_stream_and_nothing_shows_the_token() {
    let bench = Bench::new(|_| reply(401, "")).await;
    assert_eq!(bench.sink.place(), "azure:dcr-0123/Custom-OnePasswordEventLogs_CL");
    said(&bench.refusal().await);
    assert!(!format!("{:?}", bench.sink).contains("canary"));
    assert_eq!(bench.desk.asked(), 1);
}
