//! Identity and ingestion: tokens, limits, refusals, and the comparison.

use super::*;
use opship::sim::{Fault, Target, TokenFault, What, When};

#[tokio::test(flavor = "multi_thread")]
async fn managed_identity_answers_with_strings() {
    let bench = Bench::start(Options::default()).await;
    let path = "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fmonitor.azure.com";
    let header = bench.world().identity_header();
    let (status, token) = answer(bench.client.get(bench.url(path)).header("x-identity-header", header)).await;
    assert_eq!(status, 200);
    assert!(token["expires_on"].as_str().unwrap().parse::<i64>().unwrap() > 0);
    assert_eq!((&token["token_type"], &token["resource"]), (&json!("Bearer"), &json!("https://monitor.azure.com")));
    assert_eq!(answer(bench.client.get(bench.url(path)).header("x-identity-header", "wrong")).await.0, 401);
    let imds = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmonitor.azure.com";
    assert_eq!(answer(bench.client.get(bench.url(imds))).await.0, 400, "without the metadata header");
    let (status, token) = answer(bench.client.get(bench.url(imds)).header("metadata", "true")).await;
    assert_eq!((status, token["expires_on"].is_string()), (200, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn entra_takes_the_secret_or_an_assertion() {
    let bench = Bench::start(Options::default()).await;
    let world = bench.world();
    let url = bench.url(&format!("/{}/oauth2/v2.0/token", world.tenant_id()));
    let post = |rest: String| {
        let start = format!("grant_type=client_credentials&client_id={}", world.client_id());
        answer(bench.client.post(&url).body(format!("{start}&scope=https%3A%2F%2Fmonitor.azure.com%2F.default&{rest}")))
    };
    assert_eq!(post(format!("client_secret={}", world.client_secret())).await.0, 200);
    let kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    assert_eq!(post(format!("client_assertion_type={kind}&client_assertion=a.b.c")).await.0, 200);
    let (status, error) = post("client_secret=wrong".into()).await;
    assert_eq!((status, &error["error_codes"]), (401, &json!([7_000_215])));
    assert!(error["error_description"].as_str().unwrap().starts_with("AADSTS7000215: "));
    let other = bench.url("/another-tenant/oauth2/v2.0/token");
    assert_eq!(answer(bench.client.post(other).body("grant_type=client_credentials")).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_need_a_token_for_the_monitor_audience_that_is_not_over() {
    let bench = Bench::start(Options::default()).await;
    let post = |token: String| {
        let request = bench.client.post(bench.rows_url()).header("content-type", "application/json");
        answer(request.bearer_auth(token).body("[]"))
    };
    let (status, error) = post(bench.sim.token()).await;
    assert_eq!((status, &error["error"]["code"]), (401, &json!("InvalidAuthenticationToken")), "an events token");
    let good = bench.azure_token().await;
    assert_eq!(post(good.clone()).await.0, 204);
    bench.world().revoke_azure_tokens();
    assert_eq!(post(good).await.0, 401);
    for fault in [TokenFault::WrongAudience, TokenFault::Lifetime { seconds: 0 }] {
        bench.world().add_fault(Fault::new(Target::Identity, What::Token(fault)).times(1)).unwrap();
        assert_eq!(post(bench.azure_token().await).await.0, 401, "{fault:?}");
    }
    assert_eq!(post(bench.azure_token().await).await.0, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_of_the_rule_has_its_own_refusal() {
    let bench = Bench::start(Options { strict_uncompressed: true, ..Options::default() }).await;
    let code = |answer: Answer| (answer.0, answer.1["error"]["code"].as_str().unwrap_or_default().to_owned());
    let post = async |body: Vec<u8>| code(answer(bench.rows_request(body).await).await);
    let spaces = |n: usize| [b"[", " ".repeat(n - 2).as_bytes(), b"]"].concat();
    let too_long = (413, "ContentLengthLimitExceeded".to_owned());
    assert_eq!(post(spaces(1_048_576)).await, (204, String::new()));
    assert_eq!(post(spaces(1_048_577)).await, too_long);
    let zipped = async |bytes: usize| {
        let request = bench.rows_request(gzip(&spaces(bytes))).await.header("content-encoding", "gzip");
        code(answer(request).await)
    };
    assert_eq!(zipped(1_048_576).await, (204, String::new()));
    assert_eq!(zipped(1_048_577).await, too_long, "strict");
    for bad in ["{}", "[1]", "[{}", "null"] {
        assert_eq!(post(bad.into()).await, (400, "InvalidPayload".to_owned()), "{bad}");
    }
    assert_eq!(answer(bench.rows_request("").await).await, (500, json!("")));
    bench.world().add_fault(Fault::new(Target::Ingestion, What::SizeLimit { bytes: 100 }).times(1)).unwrap();
    assert_eq!(post(spaces(101)).await, too_long);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_50_mib_is_refused_after_decompression() {
    let bench = Bench::start(Options::default()).await;
    // A gzip member may be repeated: 51 times one MiB of spaces.
    let body = gzip(&vec![b' '; 1 << 20]).repeat(51);
    let (status, error) = answer(bench.rows_request(body).await.header("content-encoding", "gzip")).await;
    assert_eq!((status, &error["error"]["code"]), (413, &json!("PayloadSizeLimitExceeded")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_rule_stream_or_role_is_refused() {
    let bench = Bench::start(Options::default()).await;
    let token = bench.azure_token().await;
    let post = |url: String| answer(bench.client.post(url).bearer_auth(&token).body("[]"));
    let (rule, stream) = (bench.world().dcr_immutable_id(), bench.world().stream_name());
    let (status, error) = post(bench.rows_url().replace(&rule, "dcr-0")).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("NotFound")));
    let (status, error) = post(bench.rows_url().replace(stream, "Custom-Other")).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("InvalidStream")));
    bench.world().revoke_role();
    let (status, error) = bench.post_rows(json!([])).await;
    assert_eq!((status, &error["error"]["code"]), (403, &json!("OperationFailed")));
    assert!(error["error"]["message"].as_str().unwrap().contains(&rule));
    bench.world().grant_role();
    assert_eq!(bench.post_rows(json!([])).await.0, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_counts_duplicates_losses_inventions_and_heartbeats() {
    let bench = Bench::start(Options { keep_rows: true, ..Options::default() }).await;
    let world = bench.world();
    let [once, twice, lost] = [(); 3].map(|()| world.append(Stream::ItemUsages, When::Now));
    world.append_again(Stream::ItemUsages, &once);
    let rows = [row(Stream::ItemUsages, &once), row(Stream::ItemUsages, &twice), row(Stream::AuditEvents, &once)];
    assert_eq!(bench.post_rows(json!(rows)).await.0, 204);
    let mut again = row(Stream::ItemUsages, &twice);
    again["no_such_column"] = json!("dropped");
    assert_eq!(bench.post_rows(json!([again, { "log_source": "healthevents" }])).await.0, 204);
    let counts = world.compare();
    assert_eq!((counts.generated, counts.shipped, counts.lost), (3, 2, 1));
    assert_eq!((counts.rows, counts.duplicated, counts.invented), (4, 1, 1));
    assert_eq!((counts.health_rows, counts.posts, counts.dropped_columns), (1, 2, 1));
    assert_eq!(world.missing(Stream::ItemUsages), [lost]);
    assert_eq!(world.delivered(Stream::ItemUsages, &twice), 2);
    let stored = world.rows();
    assert_eq!(stored.len(), 5);
    assert!(stored.iter().all(|row| row["TimeGenerated"].is_string() && row.get("no_such_column").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_rows_are_appended_to_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.ndjson");
    let bench = Bench::start(Options { rows_out: Some(path.clone()), ..Options::default() }).await;
    for uuid in ["A", "B"] {
        assert_eq!(bench.post_rows(json!([row(Stream::AuditEvents, uuid)])).await.0, 204);
    }
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!([&rows[0]["uuid_s"], &rows[1]["uuid_s"]], ["A", "B"]);
}
