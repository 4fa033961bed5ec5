//! A real Azurite (the blob emulator) on a free port of loopback, for as long as its handle or the test process lives.

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::time::OffsetDateTime;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use url::Url;

/// Account and key of every Azurite, published by its makers.
pub const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// Node on a loaded machine takes seconds to load Azurite.
const START_DEADLINE: Duration = Duration::from_secs(60);
const FAR_FUTURE: &str = "2099-01-01T00:00:00Z";

pub struct Azurite {
    child: Child,
    base: Url,
    /// Certificate, key and CA of the TLS variant.
    tls: Option<tempfile::TempDir>,
}

impl Azurite {
    /// Plain http, for URLs with a SAS.
    pub async fn start() -> Self {
        Self::launch(&[], None).await
    }

    /// https with a certificate of its own ([`Self::ca_file`]), and bearer tokens ([`Self::credential`]).
    pub async fn start_tls_oauth() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let signed =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("certificate");
        let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        std::fs::write(&cert, signed.cert.pem()).expect("write certificate");
        std::fs::write(&key, signed.signing_key.serialize_pem()).expect("write key");
        let (cert, key) = (cert.display().to_string(), key.display().to_string());
        Self::launch(&["--oauth", "basic", "--cert", &cert, "--key", &key], Some(directory)).await
    }

    async fn launch(more: &[&str], tls: Option<tempfile::TempDir>) -> Self {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/azurite");
        assert!(home.join("node_modules/azurite").is_dir(), "Azurite is not installed: run scripts/azurite");
        let mut child = Command::new("node")
            .arg(home.join("run.js"))
            .args([
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                "0",
                "--inMemoryPersistence",
                "--silent",
                "--disableTelemetry",
            ])
            .args(more)
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start node (version 20 or later must be in PATH)");
        let lines = lines_of(child.stdout.take().expect("piped"));
        // Its own word that it listens, on the port that the kernel gave it.
        let listening = tokio::task::spawn_blocking(move || wait_for_address(&lines)).await.expect("wait for Azurite");
        match listening {
            Ok(base) => Self { child, base, tls },
            Err(why) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("Azurite did not start: {why}");
            }
        }
    }

    pub fn container_url(&self, name: &str) -> Url {
        self.base.join(&format!("{ACCOUNT}/{name}")).expect("container URL")
    }

    /// With an account SAS that may do everything, creating the container included.
    pub fn container_sas_url(&self, name: &str) -> Url {
        self.with_query(name, &account_sas("racwdlup", FAR_FUTURE))
    }

    /// With a SAS of the container itself, which can never create it.
    pub fn container_service_sas_url(&self, name: &str, permissions: &str, expires: &str) -> Url {
        self.with_query(name, &service_sas(name, permissions, expires))
    }

    fn with_query(&self, name: &str, pairs: &[(&str, String)]) -> Url {
        let mut url = self.container_url(name);
        url.query_pairs_mut().extend_pairs(pairs);
        url
    }

    /// The certificate to trust (`http.ca_file`).
    pub fn ca_file(&self) -> PathBuf {
        self.tls.as_ref().expect("only the TLS variant has a certificate").path().join("cert.pem")
    }

    pub fn credential() -> Arc<dyn TokenCredential> {
        Arc::new(UnsignedToken)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Goes on reading to the end, so that the child never blocks on a full pipe.
fn lines_of(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}

fn wait_for_address(lines: &Receiver<String>) -> Result<Url, String> {
    let started = Instant::now();
    let mut said = String::new();
    loop {
        let left = START_DEADLINE.saturating_sub(started.elapsed());
        let line = lines.recv_timeout(left).map_err(|error| format!("{error}; it said: {said}"))?;
        if let Some((_, address)) = line.split_once("successfully listens on ") {
            return address.trim().parse().map_err(|error| format!("{error}: {line}"));
        }
        said.push_str(&line);
    }
}

fn sign(text: &str) -> String {
    let key = BASE64_STANDARD.decode(KEY).expect("base64");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).expect("any length");
    mac.update(text.as_bytes());
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

const SAS_VERSION: &str = "2022-11-02";

/// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-account-sas>
fn account_sas(permissions: &str, expires: &str) -> Vec<(&'static str, String)> {
    let to_sign = format!("{ACCOUNT}\n{permissions}\nb\nco\n\n{expires}\n\nhttps,http\n{SAS_VERSION}\n\n");
    let fields =
        [("sv", SAS_VERSION), ("ss", "b"), ("srt", "co"), ("sp", permissions), ("se", expires), ("spr", "https,http")];
    signed(&fields, &to_sign)
}

/// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas>
fn service_sas(container: &str, permissions: &str, expires: &str) -> Vec<(&'static str, String)> {
    let resource = format!("/blob/{ACCOUNT}/{container}");
    let to_sign = format!("{permissions}\n\n{expires}\n{resource}\n\n\nhttps,http\n{SAS_VERSION}\nc\n\n\n\n\n\n\n");
    let fields = [("sv", SAS_VERSION), ("sr", "c"), ("sp", permissions), ("se", expires), ("spr", "https,http")];
    signed(&fields, &to_sign)
}

fn signed(fields: &[(&'static str, &str)], to_sign: &str) -> Vec<(&'static str, String)> {
    let mut pairs: Vec<_> = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    pairs.push(("sig", sign(to_sign)));
    pairs
}

/// Azurite checks the claims of a token, not its signature.
#[derive(Debug)]
struct UnsignedToken;

#[async_trait::async_trait]
impl TokenCredential for UnsignedToken {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        let now = chrono::Utc::now().timestamp();
        let claims = serde_json::json!({
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000001/",
            "iat": now - 60, "nbf": now - 60, "exp": now + 3600,
        });
        let part = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let header = serde_json::json!({"alg": "none", "typ": "JWT"});
        let token = format!("{}.{}.{}", part(&header), part(&claims), BASE64_URL_SAFE_NO_PAD.encode("unsigned"));
        Ok(AccessToken::new(token, OffsetDateTime::from_unix_timestamp(now + 3600).expect("a near time")))
    }
}
