//! The simulator behaves as the services it stands for.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail loudly")]

mod azure;
mod events;
mod faults;
mod workspace;

use flate2::{Compression, write::GzEncoder};
use opship::config;
use opship::flow::Stream;
use opship::sim::{Options, Sim, World};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::io::Write as _;

/// A running simulator and a client.
struct Bench {
    sim: Sim,
    client: Client,
}

/// Status and body of an answer.
type Answer = (u16, Value);

impl Bench {
    async fn start(options: Options) -> Self {
        Self {
            sim: Sim::start(options).await.unwrap(),
            client: opship::http::client(&config::Http::default()).unwrap(),
        }
    }

    fn world(&self) -> &World {
        self.sim.world()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.sim.base_url())
    }

    fn page_request(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(self.url(path)).bearer_auth(self.sim.token()).body(body.to_string())
    }

    async fn page(&self, path: &str, body: Value) -> Answer {
        answer(self.page_request(path, &body)).await
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        answer(self.client.get(self.url(path)).bearer_auth(token)).await
    }

    /// Follows the cursor to the end; the uuids in the order they came, and the last cursor.
    async fn drain(&self, stream: Stream, mut body: Value) -> (Vec<String>, String) {
        let mut uuids = Vec::new();
        loop {
            let (status, page) = self.page(&format!("/api/v2/{stream}"), body).await;
            assert_eq!(status, 200, "{page}");
            uuids.extend(uuids_of(&page));
            let cursor = page["cursor"].as_str().unwrap().to_owned();
            if page["has_more"] == false {
                return (uuids, cursor);
            }
            body = json!({ "cursor": cursor });
        }
    }

    async fn azure_token(&self) -> String {
        let request =
            self.client.get(self.url("/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fmonitor.azure.com"));
        let (status, token) = answer(request.header("x-identity-header", self.world().identity_header())).await;
        assert_eq!(status, 200, "{token}");
        token["access_token"].as_str().unwrap().to_owned()
    }

    fn rows_url(&self) -> String {
        let (rule, stream) = (self.world().dcr_immutable_id(), self.world().stream_name());
        self.url(&format!("/dataCollectionRules/{rule}/streams/{stream}?api-version=2023-01-01"))
    }

    async fn rows_request(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.client.post(self.rows_url()).bearer_auth(self.azure_token().await);
        request.header("content-type", "application/json").body(body)
    }

    async fn post_rows(&self, rows: Value) -> Answer {
        answer(self.rows_request(rows.to_string()).await).await
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
}

fn uuids_of(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|item| item["uuid"].as_str().unwrap().to_owned()).collect()
}

fn row(stream: Stream, uuid: &str) -> Value {
    json!({ "uuid_s": uuid, "log_source": stream.as_str(), "timestamp": "2026-11-22T10:00:00Z" })
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(1));
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}
