//! Each credential kind gets a token, and says what is wrong when it does not.

use crate::world::{Answer, Seen, World, reply};
use crate::{LOGIN, SECRET, azure, entra, proxied, said, world_with_login};
use azure_core::credentials::TokenCredential;
use azure_core::http::{AsyncRawResponse, HttpClient, Request};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use opship::azure::{AzureError, credential, credential_over, places};
use opship::config::{self, Cloud, Credential};
use rcgen::{CertificateParams, KeyPair};
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const SCOPE: &str = "https://monitor.azure.com/.default";

async fn token(credential: &dyn TokenCredential) -> Result<String, AzureError> {
    let answer = credential.get_token(&[SCOPE], None).await;
    answer.map(|token| token.token.secret().to_owned()).map_err(|error| error.into_downcast().unwrap())
}

fn client_secret(world: &World, cloud: Cloud) -> Arc<dyn TokenCredential> {
    let azure = config::Azure { cloud, ..azure(Credential::ClientSecret) };
    credential(&azure, Some(SECRET.into()), None, &proxied(world)).unwrap()
}

#[tokio::test]
async fn a_client_secret_gets_a_token_through_a_connect_proxy_and_a_private_authority() {
    let world = world_with_login(|_, count| entra(count)).await;
    assert_eq!(token(&*client_secret(&world, Cloud::Public)).await.unwrap(), "canary-token-0");
    let seen = &world.seen(LOGIN)[0];
    assert!(seen.tls && seen.proxied);
    assert_eq!(seen.path, "/tenant-1/oauth2/v2.0/token");
    assert_eq!((seen.field("client_secret").as_str(), seen.field("scope").as_str()), (SECRET, SCOPE));
}

#[tokio::test]
async fn each_sovereign_cloud_asks_its_own_authority_for_its_own_audience() {
    for (cloud, authority) in [(Cloud::UsGov, "login.microsoftonline.us"), (Cloud::China, "login.chinacloudapi.cn")] {
        let world = World::start().await;
        world.answer(authority, |_, count| entra(count));
        let scope = places(cloud).monitor_scope;
        client_secret(&world, cloud).get_token(&[scope], None).await.unwrap();
        assert_eq!(world.seen(authority)[0].field("scope"), scope);
    }
}

#[tokio::test]
async fn a_failing_authority_is_asked_three_times_and_of_its_page_only_type_and_length_are_told() {
    let world = world_with_login(|_, _| reply(500, "<html><title>Gateway down</title></html>")).await;
    let text = said(&token(&*client_secret(&world, Cloud::Public)).await.unwrap_err());
    assert_eq!(world.seen(LOGIN).len(), 3);
    for part in ["client-secret (client id client-1)", SCOPE, "answered 500", "40 bytes"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[tokio::test]
async fn a_long_retry_after_ends_the_tries_and_a_hanging_authority_ends_at_the_deadline() {
    let world = World::start().await;
    let headers = |_: &Seen| vec![("retry-after", "3600".to_owned()), ("x-ms-retry-after-ms", "3600000".to_owned())];
    world.answer(LOGIN, move |seen, _| Answer::Reply { status: 429, headers: headers(seen), body: String::new() });
    let text = said(&token(&*client_secret(&world, Cloud::Public)).await.unwrap_err());
    assert!(text.contains("answered 429"), "{text}");
    assert_eq!(world.seen(LOGIN).len(), 1);
    world.answer(LOGIN, |_, _| Answer::Hang);
    let credential = client_secret(&world, Cloud::Public);
    let asking = tokio::spawn(async move { token(&*credential).await.unwrap_err() });
    world.hung.notified().await;
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(13)).await;
    assert!(said(&asking.await.unwrap()).contains("no token within 12 s"));
}

#[tokio::test]
async fn a_wrong_secret_is_reported_with_entras_number_and_the_remedy_after_one_request() {
    // Entra's descriptions have line breaks, which the SDK's own decoder cannot read.
    let body = json!({
        "error": "invalid_client",
        "error_description": "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1",
        "error_codes": [7_000_215],
    });
    let world = World::start().await;
    world.answer(LOGIN, move |_, _| reply(401, body.to_string()));
    let text = said(&token(&*client_secret(&world, Cloud::Public)).await.unwrap_err());
    assert_eq!(world.seen(LOGIN).len(), 1);
    for part in ["answered 401 invalid_client", "AADSTS7000215", "not its id"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[tokio::test]
async fn an_answer_without_a_token_is_named_and_not_quoted() {
    let world = world_with_login(|_, _| reply(200, r#""canary-token""#)).await;
    let text = said(&token(&*client_secret(&world, Cloud::Public)).await.unwrap_err());
    assert!(text.contains("not a JSON object"), "{text}");
}

#[tokio::test]
async fn an_unknown_authority_certificate_is_refused_and_the_cause_named() {
    let world = world_with_login(|_, count| entra(count)).await;
    let options = config::Http { proxy: Some(config::ProxyUrl(world.url())), ..Default::default() };
    let http = opship::http::client(&options).unwrap();
    let credential = credential(&azure(Credential::ClientSecret), Some(SECRET.into()), None, &http).unwrap();
    let text = said(&token(&*credential).await.unwrap_err());
    assert!(text.contains("could not connect") && text.contains("certificate"), "{text}");
    assert!(world.seen(LOGIN).is_empty());
}

#[tokio::test]
async fn a_missing_setting_is_named_before_anything_is_sent() {
    let http = opship::http::client(&config::Http::default()).unwrap();
    let error = credential(&azure(Credential::ClientSecret), None, None, &http).unwrap_err();
    assert!(said(&error).contains("azure.client_secret is missing"));
    let without = config::Azure { tenant_id: None, ..azure(Credential::ClientCertificate) };
    assert!(said(&credential(&without, None, None, &http).unwrap_err()).contains("azure.tenant_id is missing"));
}

// Client certificate

fn rsa_key() -> KeyPair {
    let text = include_str!("rsa_test_key.pem");
    KeyPair::from_pem(&text[text.find("-----BEGIN").unwrap()..]).unwrap()
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// The certificate stands between foreign ones, as in a chain, and the key may be PKCS#8 or PKCS#1.
#[tokio::test]
async fn a_client_certificate_signs_an_assertion_that_entra_can_verify() {
    let world = world_with_login(|_, count| entra(count)).await;
    let key = rsa_key();
    let own = CertificateParams::new(vec!["opship".into()]).unwrap().self_signed(&key).unwrap();
    let foreign = rcgen::generate_simple_self_signed(vec!["ca".into()]).unwrap().cert;
    let pkcs8 = key.serialize_der();
    // PKCS#8 of an RSA key is 26 bytes of header before the PKCS#1 key.
    for key_pem in [pem("PRIVATE KEY", &pkcs8), pem("RSA PRIVATE KEY", &pkcs8[26..])] {
        let text = format!("{}{key_pem}{}", foreign.pem(), own.pem());
        let azure = azure(Credential::ClientCertificate);
        let credential = credential(&azure, None, Some(text.into()), &proxied(&world)).unwrap();
        token(&*credential).await.unwrap();
    }
    for seen in world.seen(LOGIN) {
        let assertion = seen.field("client_assertion");
        let (header, claims) = verify(&assertion, &key);
        assert_eq!(header["alg"], "RS256");
        assert_eq!(header["x5t#S256"], URL_SAFE_NO_PAD.encode(Sha256::digest(own.der())));
        assert_eq!(claims["aud"], format!("https://{LOGIN}/tenant-1/oauth2/v2.0/token"));
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("client-1"), &json!("client-1")));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["nbf"].as_i64().unwrap(), 600);
    }
}

fn verify(assertion: &str, key: &KeyPair) -> (Value, Value) {
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let rsa = rustls::pki_types::alg_id::RSA_PKCS1_SHA256;
    let verified = algorithms.iter().filter(|algorithm| algorithm.signature_alg_id() == rsa);
    let verified =
        verified.map(|algorithm| algorithm.verify_signature(key.public_key_raw(), signed.as_bytes(), &signature));
    assert!(verified.into_iter().any(|result| result.is_ok()), "the signature does not verify");
    let (header, claims) = signed.split_once('.').unwrap();
    let decode = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (decode(header), decode(claims))
}

#[tokio::test]
async fn an_unusable_certificate_is_explained_without_quoting_the_key() {
    let http = opship::http::client(&config::Http::default()).unwrap();
    let rsa = pem("PRIVATE KEY", &rsa_key().serialize_der());
    let ec = rcgen::generate_simple_self_signed(vec!["x".into()]).unwrap();
    for (text, why) in [
        ("canary".to_owned(), "no private key"),
        (rsa.clone(), "no certificate in the PEM text belongs"),
        (format!("{rsa}{}", ec.cert.pem()), "no certificate in the PEM text belongs"),
        (format!("{}{}", ec.signing_key.serialize_pem(), ec.cert.pem()), "not an RSA key"),
        (pem("ENCRYPTED PRIVATE KEY", b"canary"), "is encrypted"),
    ] {
        let azure = azure(Credential::ClientCertificate);
        let error = credential(&azure, None, Some(SecretString::from(text)), &http).unwrap_err();
        let text = said(&error);
        assert!(text.contains(why) && !text.contains(&rsa[40..80]), "{text}");
    }
}

// Managed identity, workload identity, Azure CLI

/// Sends what is meant for the constant address of IMDS to the world.
#[derive(Debug)]
struct Imds {
    http: reqwest::Client,
    world: url::Url,
}

#[async_trait::async_trait]
impl HttpClient for Imds {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        assert_eq!(request.url().host_str(), Some("169.254.169.254"));
        let mut request = request.clone();
        let port = self.world.port();
        request.url_mut().set_host(self.world.host_str()).unwrap();
        request.url_mut().set_port(port).unwrap();
        self.http.execute_request(&request).await
    }
}

fn imds(world: &World) -> Arc<dyn TokenCredential> {
    let http = opship::http::client(&config::Http::default()).unwrap();
    let transport = Arc::new(Imds { http, world: world.url() });
    credential_over(&azure(Credential::ManagedIdentity), None, None, transport).unwrap()
}

fn managed(expires_on: &str) -> Answer {
    reply(
        200,
        format!(r#"{{"access_token":"canary-managed","expires_on":{expires_on},"resource":"r","token_type":"B"}}"#),
    )
}

#[tokio::test]
async fn imds_gives_a_token_whether_its_expiry_is_text_or_a_number() {
    let world = World::start().await;
    world.answer("127.0.0.1", |_, count| managed(["\"4000000000\"", "4000000000"][count]));
    let credential = imds(&world);
    assert_eq!(token(&*credential).await.unwrap(), "canary-managed");
    assert_eq!(token(&*credential).await.unwrap(), "canary-managed");
    let seen = &world.seen("127.0.0.1")[0];
    assert_eq!(seen.header("metadata"), "true");
    assert_eq!(seen.field("resource"), "https://monitor.azure.com");
    assert_eq!(seen.field("client_id"), "client-1");
}

#[tokio::test]
async fn an_identity_that_is_not_assigned_is_named_after_one_request_and_trouble_after_three() {
    let world = World::start().await;
    world.answer("127.0.0.1", |_, _| {
        reply(400, r#"{"error":"invalid_request","error_description":"Identity not found"}"#)
    });
    let text = said(&token(&*imds(&world)).await.unwrap_err());
    assert!(text.contains("client-1") && text.contains("Identity not found") && text.contains("assign the identity"));
    assert_eq!(world.seen("127.0.0.1").len(), 1);
    world.answer("127.0.0.1", |_, _| reply(503, ""));
    assert!(said(&token(&*imds(&world)).await.unwrap_err()).contains("answered 503"));
    assert_eq!(world.seen("127.0.0.1").len(), 4);
}

/// Runs [`asks_for_a_token`] in a process of its own: the SDK reads these settings from the environment only.
async fn ask_in_child(world: &World, kind: &str, env: &[(&str, String)]) -> String {
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), world.ca_pem()).unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["credentials::asks_for_a_token", "--exact", "--nocapture"]);
    child.env("OPSHIP_TEST_KIND", kind).env("OPSHIP_TEST_CA", ca.path()).env("OPSHIP_TEST_PROXY", world.url().as_str());
    let output = child.envs(env.iter().cloned()).output().await.unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let line = stdout.lines().find_map(|line| line.split_once("ANSWER ")).map(|(_, answer)| answer.to_owned());
    line.unwrap_or_else(|| panic!("no answer in {stdout}"))
}

/// Not a test of its own: the child of the tests below. Does nothing when nobody asks.
#[tokio::test]
async fn asks_for_a_token() {
    let Ok(kind) = std::env::var("OPSHIP_TEST_KIND") else { return };
    let kind = match kind.as_str() {
        "managed-identity" => Credential::ManagedIdentity,
        "workload-identity" => Credential::WorkloadIdentity,
        _ => Credential::AzureCli,
    };
    let proxy = Some(config::ProxyUrl(std::env::var("OPSHIP_TEST_PROXY").unwrap().parse().unwrap()));
    let ca_file = Some(std::env::var("OPSHIP_TEST_CA").unwrap().into());
    let http = opship::http::client(&config::Http { proxy, ca_file, ..Default::default() }).unwrap();
    let answer = match credential(&azure(kind), None, None, &http) {
        Ok(credential) => token(&*credential).await,
        Err(error) => Err(error),
    };
    println!("\nANSWER {}", answer.unwrap_or_else(|error| said(&error).replace('\n', " | ")));
}

#[tokio::test]
async fn the_identity_endpoint_of_container_apps_is_asked_directly_even_with_a_proxy() {
    let world = World::start().await;
    world.answer("127.0.0.1", |_, _| managed("\"4000000000\""));
    let endpoint = format!("{}msi/token", world.url());
    let env = [("IDENTITY_ENDPOINT", endpoint), ("IDENTITY_HEADER", "canary-header".into())];
    assert_eq!(ask_in_child(&world, "managed-identity", &env).await, "canary-managed");
    let seen = &world.seen("127.0.0.1")[0];
    assert!(!seen.proxied, "the identity header went through the proxy");
    assert!(seen.path.starts_with("/msi/token?api-version=2019-08-01"));
    assert_eq!(seen.header("x-identity-header"), "canary-header");
    assert_eq!(seen.field("client_id"), "client-1");
}

#[tokio::test]
async fn a_workload_identity_sends_the_token_of_its_file() {
    let world = world_with_login(|_, count| entra(count)).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "canary-federated").unwrap();
    let env = [("AZURE_FEDERATED_TOKEN_FILE", file.path().display().to_string())];
    assert_eq!(ask_in_child(&world, "workload-identity", &env).await, "canary-token-0");
    assert_eq!(world.seen(LOGIN)[0].field("client_assertion"), "canary-federated");
    let env = [("AZURE_FEDERATED_TOKEN_FILE", "/nonexistent/token".to_owned())];
    let text = ask_in_child(&world, "workload-identity", &env).await;
    assert!(text.contains("workload-identity") && text.contains("/nonexistent/token"), "{text}");
}

#[tokio::test]
async fn the_azure_cli_is_asked_for_the_scope_and_its_words_are_kept() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = |script: &str| {
        let az = dir.path().join("az");
        std::fs::write(&az, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&az, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        [("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))]
    };
    let good = r#"printf '{"accessToken":"%s","expires_on":4000000000,"tokenType":"Bearer"}' "$*""#;
    let arguments = format!("account get-access-token -o json --scope {SCOPE} --tenant tenant-1");
    assert_eq!(ask_in_child(&world, "azure-cli", &path(good)).await, arguments);
    let text = ask_in_child(&world, "azure-cli", &path("echo 'Please run az login' >&2; exit 1")).await;
    assert!(text.contains("Please run az login") && text.contains("azure-cli"), "{text}");
    let text = ask_in_child(&world, "azure-cli", &path("echo '\"canary-token\"'")).await;
    assert!(text.contains("not what a token answer looks like"), "{text}");
}

/// Fault: `az` hangs, and so does a child of it. Shows: after 30 s the error says so, and neither is left.
#[tokio::test]
async fn fm_68_an_azure_cli_that_hangs_is_killed_with_its_children() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (az, pids) = (dir.path().join("az"), dir.path().join("pids"));
    let script = format!("#!/bin/sh\necho $$ >> {0}\nsleep 1000 &\necho $! >> {0}\nwait\n", pids.display());
    std::fs::write(&az, script).unwrap();
    std::fs::set_permissions(&az, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = [("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))];
    let begun = std::time::Instant::now();
    let text = ask_in_child(&world, "azure-cli", &path).await;
    assert!(text.contains("did not end within 30 s"), "{text}");
    assert!((29..45).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let pids = std::fs::read_to_string(&pids).unwrap();
    assert!(pids.lines().count() >= 2, "{pids}");
    let lives = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    assert_eq!(pids.lines().filter(|pid| lives(pid)).count(), 0, "{pids}");
}
