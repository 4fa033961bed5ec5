//! What each stage of the hot path costs: `cargo bench`. Prints nanoseconds per event and MB/s of page, best of several rounds.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use opship::flow::Stream;
use opship::flow::decode::{self, Page};
use opship::flow::dedupe;
use opship::flow::map::Mapper;
use opship::flow::pack::Batch;
use opship::flow::redact::Redact;
use opship::sim::{Options, Sim};
use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

const EVENTS: usize = 40_000;
const ROUNDS: u32 = 7;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pages = runtime.block_on(pages());
    let bytes: usize = pages.iter().map(|(_, page)| page.len()).sum();
    let events: usize = pages.iter().map(|(_, page)| decode_page(page).items.len()).sum();
    println!("{events} events in {} pages, {} bytes each", pages.len(), bytes / events);
    let report = |stage: &str, best: Duration| {
        let ns = best.as_nanos() as f64 / events as f64;
        println!("{stage:<28}{ns:>8.0} ns/event {:>8.0} MB/s", bytes as f64 / best.as_secs_f64() / 1e6);
    };
    report("decode", best(|| pages.iter().map(|(_, page)| decode_page(page).items.len()).sum()));
    let decoded: Vec<(Stream, Page<'_>)> = pages.iter().map(|(stream, page)| (*stream, decode_page(page))).collect();
    report(
        "dedupe (nothing known)",
        best(|| decoded.iter().map(|(_, page)| dedupe::sort(&page.items, |_| false).new.len()).sum()),
    );
    let redact = Redact::default();
    report(
        "map",
        best(|| {
            let mut row = Vec::new();
            let mut len = 0;
            for (stream, page) in &decoded {
                let mapper = Mapper { stream: *stream, account_uuid: Some("ACCOUNT"), redact: &redact };
                for item in &page.items {
                    row.clear();
                    mapper.row(item, &mut row);
                    len += row.len();
                }
            }
            len
        }),
    );
    report("map and pack", best(|| packed(&decoded, &redact).iter().map(|body| body.len()).sum()));
    let bodies = packed(&decoded, &redact);
    for level in [1, 2, 6] {
        let stage = format!("gzip level {level}");
        report(&stage, best(|| bodies.iter().map(|body| gzip(body, level)).sum()));
    }
}

fn best(mut work: impl FnMut() -> usize) -> Duration {
    let round = |_| {
        let begun = Instant::now();
        black_box(work());
        begun.elapsed()
    };
    (0..ROUNDS).map(round).min().unwrap()
}

fn decode_page(page: &str) -> Page<'_> {
    decode::page(page).unwrap()
}

fn packed(decoded: &[(Stream, Page<'_>)], redact: &Redact) -> Vec<bytes::Bytes> {
    let mut bodies = Vec::new();
    for (stream, page) in decoded {
        let mapper = Mapper { stream: *stream, account_uuid: Some("ACCOUNT"), redact };
        let mut batch = Batch::default();
        for (place, item) in page.items.iter().enumerate() {
            let mut row = Vec::with_capacity(item.raw.len() + 64);
            mapper.row(item, &mut row);
            if !batch.push(500, item.key, item.timestamp, place, &row) {
                bodies.push(std::mem::take(&mut batch).json());
                batch.push(500, item.key, item.timestamp, place, &row);
            }
        }
        bodies.push(batch.json());
    }
    bodies
}

fn gzip(body: &[u8], level: u32) -> usize {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap().len()
}

/// The pages that the built-in simulator serves, as an agent would get them.
async fn pages() -> Vec<(Stream, String)> {
    let sim = Sim::start(Options { history: EVENTS, ..Options::default() }).await.unwrap();
    let http = opship::http::client(&opship::config::Http::default()).unwrap();
    let mut pages = Vec::new();
    for stream in Stream::ALL {
        let mut body = r#"{"limit":1000,"start_time":"2000-01-01T00:00:00Z"}"#.to_owned();
        loop {
            let request = http.post(format!("{}/api/v2/{stream}", sim.base_url())).bearer_auth(sim.token()).body(body);
            let text = request.send().await.unwrap().text().await.unwrap();
            let page = decode_page(&text);
            let (has_more, cursor) = (page.has_more, page.cursor.as_str().to_owned());
            pages.push((stream, text));
            if !has_more {
                break;
            }
            body = format!("{{\"cursor\":\"{cursor}\"}}");
        }
    }
    sim.stop().await;
    pages
}
