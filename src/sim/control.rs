//! The control API under `/sim/`, for a test that drives a real agent process.

use super::call::Call;
use super::fault::Fault;
use super::reply::Reply;
use super::world::{When, World};
use crate::flow::{Stream, Time};
use axum::http::Method;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// Events that one request may append.
const APPEND_EVENTS_MAX: u32 = 100_000;
/// Longest text that an event may be given.
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// `POST /sim/events`: one of the forms, `count` times.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Append {
    stream: Stream,
    #[serde(default = "once")]
    count: u32,
    /// The event happened at this time; default: now.
    at: Option<Time>,
    /// The event happened so long ago.
    late_seconds: Option<u64>,
    /// Length of a text in a field that a user controls.
    #[serde(default)]
    text_bytes: usize,
    /// The event of this uuid a second time.
    again: Option<String>,
    /// An item byte for byte.
    raw: Option<String>,
}

const fn once() -> u32 {
    1
}

/// Answers a request to the control API.
pub(super) fn answer(world: &World, call: &Call) -> Reply {
    match (&call.head.method, call.head.path.as_str()) {
        (&Method::POST, "/sim/events") => append(world, &call.body),
        (&Method::POST, "/sim/faults") => add_faults(world, &call.body),
        (&Method::POST, "/sim/live") => live(world, call),
        (&Method::POST, "/sim/token/rotate") => Reply::json(200, &json!({ "token": world.rotate_token() })),
        (&Method::GET, "/sim/compare") => Reply::json(200, &json!(world.compare())),
        (&Method::POST, "/sim/workspace") => workspace(world, call),
        (&Method::GET, "/sim/dropped") => Reply::json(200, &by_stream(|stream| world.dropped(stream))),
        (&Method::GET, "/sim/missing") => Reply::json(200, &by_stream(|stream| world.missing(stream))),
        (&Method::GET, "/sim/journal") => Reply::json(200, &json!(world.journal())),
        (&Method::GET, "/sim/rows") => Reply::json(200, &by_stream(|stream| copies(world, stream))),
        (method, path) => match switch(method, path) {
            Some(turn) => {
                turn(world);
                Reply::no_content()
            }
            None => Reply::not_found(),
        },
    }
}

/// The requests without body and answer.
fn switch(method: &Method, path: &str) -> Option<fn(&World)> {
    match (method, path) {
        (&Method::DELETE, "/sim/faults") => Some(World::clear_faults),
        (&Method::POST, "/sim/generator/stop") => Some(World::stop_generator),
        (&Method::POST, "/sim/token/revoke") => Some(World::revoke_token),
        (&Method::POST, "/sim/token/restore") => Some(World::restore_token),
        (&Method::POST, "/sim/azure-tokens/revoke") => Some(World::revoke_azure_tokens),
        (&Method::POST, "/sim/role/revoke") => Some(World::revoke_role),
        (&Method::POST, "/sim/role/grant") => Some(World::grant_role),
        (&Method::POST, "/sim/reader/revoke") => Some(World::revoke_reader),
        (&Method::POST, "/sim/reader/grant") => Some(World::grant_reader),
        _ => None,
    }
}

fn refused(why: &str) -> Reply {
    Reply::json(400, &json!({ "error": why }))
}

fn by_stream<T: serde::Serialize>(of: impl Fn(Stream) -> T) -> serde_json::Value {
    Stream::ALL.into_iter().map(|stream| (stream.to_string(), json!(of(stream)))).collect()
}

/// Accepted uuids, and how often each was accepted.
fn copies(world: &World, stream: Stream) -> std::collections::BTreeMap<String, u32> {
    let uuids = world.uuids(stream).into_iter();
    uuids
        .map(|uuid| (world.delivered(stream, &uuid), uuid))
        .filter(|(n, _)| *n > 0)
        .map(|(n, uuid)| (uuid, n))
        .collect()
}

fn append(world: &World, body: &[u8]) -> Reply {
    let append: Append = match serde_json::from_slice(body) {
        Ok(append) => append,
        Err(error) => return refused(&error.to_string()),
    };
    if append.count > APPEND_EVENTS_MAX || append.text_bytes > TEXT_BYTES_MAX {
        return refused("count or text_bytes is too large");
    }
    let when = match (append.at, append.late_seconds) {
        (Some(at), _) => When::At(at),
        (None, Some(seconds)) => When::Late(Duration::from_secs(seconds)),
        (None, None) => When::Now,
    };
    if let Some(uuid) = append.again {
        let all = (0..append.count).all(|_| world.append_again(append.stream, &uuid));
        return if all { Reply::no_content() } else { refused("no event has this uuid") };
    }
    if let Some(raw) = append.raw {
        let at = append.at.unwrap_or_else(|| world.now());
        (0..append.count).for_each(|_| world.append_raw(append.stream, at, raw.clone()));
        return Reply::no_content();
    }
    let uuids: Vec<_> = (0..append.count).map(|_| world.append_large(append.stream, when, append.text_bytes)).collect();
    Reply::json(200, &json!({ "uuids": uuids }))
}

/// Takes a list, or nothing of it.
fn add_faults(world: &World, body: &[u8]) -> Reply {
    let added =
        Fault::parse_list(body).and_then(|faults| faults.into_iter().try_for_each(|fault| world.add_fault(fault)));
    match added {
        Ok(()) => Reply::no_content(),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            refused(&format!("{error}{cause}"))
        }
    }
}

/// `?drop_share=0.05&latency_seconds=60`: either or both.
fn workspace(world: &World, call: &Call) -> Reply {
    let number = |name: &str| call.head.query(name).map(|text| text.parse::<f64>().ok().filter(|n| *n >= 0.0));
    let (share, latency) = (number("drop_share"), number("latency_seconds"));
    let latency = latency.map(|seconds| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()));
    if share == Some(None) || latency == Some(None) {
        return refused("drop_share or latency_seconds is not a number");
    }
    if let Some(share) = share.flatten() {
        world.set_drop_share(share);
    }
    if let Some(latency) = latency.flatten() {
        world.set_ingestion_latency(latency);
    }
    Reply::no_content()
}

fn live(world: &World, call: &Call) -> Reply {
    let per_second = call.head.query("per_second").and_then(|text| text.parse::<f64>().ok());
    match per_second.filter(|rate| rate.is_finite() && *rate >= 0.0) {
        Some(per_second) => {
            world.set_live(per_second);
            Reply::no_content()
        }
        None => refused("per_second is not a number"),
    }
}
