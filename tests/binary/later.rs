//! A blob service with a clock that can be moved on: what was written just now looks an hour old, so that the intents of dead
//! processes need not be waited for. Only for worlds in which one process lives at a time.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Response, header};
use chrono::{DateTime, TimeDelta};
use opship::config::Http;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use url::Url;

const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Serves on a port of its own, with the clock of `service` moved on by an hour while `is_later`.
pub async fn an_hour_later(service: Url, is_later: Arc<AtomicBool>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = opship::http::client(&Http::default()).unwrap();
    let app = axum::Router::new()
        .fallback(move |request| forward(client.clone(), service.clone(), is_later.clone(), request));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn forward(client: reqwest::Client, service: Url, is_later: Arc<AtomicBool>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut url = service;
    url.set_path(parts.uri.path());
    url.set_query(parts.uri.query());
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let body = to_bytes(body, BODY_BYTES_MAX).await.unwrap();
    let answer = client.request(parts.method, url).headers(headers).body(body).send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != header::TRANSFER_ENCODING {
            let value =
                if name == header::DATE && is_later.load(Ordering::Relaxed) { later(value) } else { value.clone() };
            response = response.header(name, value);
        }
    }
    response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
}

fn later(date: &HeaderValue) -> HeaderValue {
    let date = DateTime::parse_from_rfc2822(date.to_str().unwrap()).unwrap().to_utc() + TimeDelta::hours(1);
    date.format("%a, %d %b %Y %H:%M:%S GMT").to_string().parse().unwrap()
}
