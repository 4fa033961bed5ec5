//! The 1Password Events API, versions 1 and 2: introspection and pages.

use super::access::EventsClaims;
use super::archive::{Event, Found, Position, Window};
use super::call::{Call, Version};
use super::fault::{PageFault, Refusal, What};
use super::history::delta;
use super::page::{Items, Page, Place};
use super::reply::Reply;
use super::world::{World, held};
use super::{ErrorStyle, OtherKeys};
use crate::flow::{Stream, Time};
use axum::http::Method;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Items of a page when the request names no limit.
const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1000;
/// The window of a reset without a start.
const START_DEFAULT: TimeDelta = TimeDelta::hours(1);
/// Nothing older is returned.
const RETENTION: TimeDelta = TimeDelta::days(120);

/// Everything a continuation needs: the server keeps no session.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bookmark {
    stream: Stream,
    limit: u64,
    start: Time,
    end: Option<Time>,
    after: Position,
    /// When it was handed out; kept only where cursors expire, so that otherwise a page reads the same for ever.
    issued: Option<Time>,
    /// Tells apart cursors of one position.
    salt: u32,
}

/// A request for a page that cannot be served.
struct BadRequest;

/// Answers a request to the Events API.
pub(super) fn answer(world: &World, call: &Call, stream: Option<Stream>, whats: &[What]) -> Reply {
    let wanted = if stream.is_some() { Method::POST } else { Method::GET };
    if call.head.method != wanted {
        return Reply::wrong_method();
    }
    let now = world.now();
    let claims = held(&world.access).events_claims(call.head.bearer(), now);
    let Some(claims) = claims.filter(|claims| stream.is_none_or(|stream| claims.features.contains(&stream))) else {
        return refuse(world, call, &Refusal::status(401));
    };
    if world.options.rate_limits && !held(&world.events_pace).admit(now) {
        let retry_after = world.options.rate_limit_retry_after.clone();
        return refuse(world, call, &Refusal { retry_after, ..Refusal::status(429) });
    }
    let Some(stream) = stream else { return introspect(call.head.version, &claims) };
    match page(world, call, stream, whats) {
        Ok(page) => page.into_reply(),
        Err(BadRequest) => refuse(world, call, &Refusal::status(400)),
    }
}

/// An error answer in the shape of the path's version.
pub(super) fn refuse(world: &World, call: &Call, refusal: &Refusal) -> Reply {
    let status = refusal.status;
    let version = match world.options.quirks.error_style {
        ErrorStyle::OfPath => call.head.version,
        ErrorStyle::V1 => Version::V1,
    };
    let standard = match (status, version) {
        (400, _) => "Bad Request",
        (401, Version::V1) => "Unauthorized",
        (401, Version::V2) => "Unauthorized access",
        (403, _) => "Forbidden",
        (429, _) => "Too many requests",
        (500.., _) => "Internal server error",
        _ => "Error",
    };
    let message = refusal.message.as_deref().unwrap_or(standard);
    let body = match version {
        Version::V1 => json!({ "Error": { "Message": message } }),
        Version::V2 => json!({ "status": status, "message": message }),
    };
    Reply::json(status, &body).refused_with(refusal, world.now())
}

fn introspect(version: Version, claims: &EventsClaims) -> Reply {
    let issued =
        DateTime::from_timestamp(claims.iat, 0).unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let features: Vec<&str> = claims.features.iter().map(|stream| stream.as_str()).collect();
    let body = match version {
        Version::V1 => json!({ "UUID": claims.sub, "IssuedAt": issued, "Features": features }),
        Version::V2 => {
            json!({ "uuid": claims.sub, "issued_at": issued, "features": features, "account_uuid": claims.account })
        }
    };
    Reply::json(200, &body)
}

fn page(world: &World, call: &Call, stream: Stream, whats: &[What]) -> Result<Page, BadRequest> {
    let (bookmark, sent) = bookmark(world, call, stream)?;
    let faults = || whats.iter().filter_map(|what| if let What::Page(fault) = what { Some(*fault) } else { None });
    let oversize =
        faults().find_map(|fault| if let PageFault::Oversized { items } = fault { Some(items) } else { None });
    let overlap = faults().find_map(|fault| if let PageFault::Overlap { items } = fault { Some(items) } else { None });
    let limit = oversize.unwrap_or(usize::try_from(bookmark.limit).unwrap_or(usize::MAX));
    let window = window_of(world, &bookmark);
    let (found, before) = {
        let archive = world.archive(stream);
        let before = overlap.map(|count| archive.before(&window, &bookmark.after, count));
        (archive.read(&window, &bookmark.after, limit), before.unwrap_or_default())
    };
    let render = |events: &[Event]| -> Vec<Bytes> {
        events
            .iter()
            .map(|event| if call.head.version == Version::V1 { event.raw_v1() } else { event.raw.clone() })
            .collect()
    };
    let items = render(&found.events);
    let place = Place {
        same_cursor: sent.clone().unwrap_or_else(|| seal(world, &bookmark)),
        other_cursor: seal(world, &Bookmark { salt: bookmark.salt.wrapping_add(1), ..bookmark.clone() }),
        before: render(&before),
    };
    let mut page = Page {
        has_more: Some(found.has_more),
        items: if items.is_empty() && world.options.quirks.null_when_empty { Items::Null } else { Items::Some(items) },
        cursor: Some(next_cursor(world, bookmark, sent, &found)),
    };
    faults().for_each(|fault| page.bend(fault, &place));
    Ok(page)
}

/// With nothing new the same text comes back.
fn next_cursor(world: &World, bookmark: Bookmark, sent: Option<String>, found: &Found) -> String {
    match sent {
        Some(sent) if found.events.is_empty() => sent,
        Some(_) | None => seal(world, &Bookmark { after: found.position.clone(), ..bookmark }),
    }
}

fn seal(world: &World, bookmark: &Bookmark) -> String {
    let issued = world.options.cursor_lifetime.map(|_| world.now());
    world.seal.wrap(&Bookmark { issued, ..bookmark.clone() })
}

fn window_of(world: &World, bookmark: &Bookmark) -> Window {
    let start = bookmark.start.max(world.now() - RETENTION);
    Window { start, end: bookmark.end, end_is_excluded: world.options.quirks.end_is_excluded }
}

/// The position a request asks for, and the cursor it sent.
fn bookmark(world: &World, call: &Call, stream: Stream) -> Result<(Bookmark, Option<String>), BadRequest> {
    let body: Map<String, Value> = serde_json::from_slice(&call.body).map_err(|_| BadRequest)?;
    let Some(cursor) = body.get("cursor") else { return Ok((reset(world, &body, stream)?, None)) };
    let cursor = cursor.as_str().ok_or(BadRequest)?;
    if body.len() > 1 && world.options.quirks.other_keys == OtherKeys::Refused {
        return Err(BadRequest);
    }
    if cursor.is_empty() {
        return Ok((reset(world, &Map::new(), stream)?, None));
    }
    let bookmark: Bookmark = world.seal.unwrap(cursor).ok_or(BadRequest)?;
    let lifetime = world.options.cursor_lifetime.map(delta);
    let expired = bookmark.issued.zip(lifetime).is_some_and(|(issued, lifetime)| world.now() - issued >= lifetime);
    if bookmark.stream != stream || expired {
        return Err(BadRequest);
    }
    Ok((bookmark, Some(cursor.to_owned())))
}

fn reset(world: &World, body: &Map<String, Value>, stream: Stream) -> Result<Bookmark, BadRequest> {
    let limit = match body.get("limit") {
        None | Some(Value::Null) => LIMIT_DEFAULT,
        Some(limit) => limit.as_u64().filter(|limit| (1..=LIMIT_MAX).contains(limit)).ok_or(BadRequest)?,
    };
    let end = time(body, "end_time")?;
    let start = match time(body, "start_time")? {
        Some(start) => start,
        None => end.unwrap_or_else(|| world.now()).checked_sub_signed(START_DEFAULT).ok_or(BadRequest)?,
    };
    Ok(Bookmark { stream, limit, start, end, after: Position::Start, issued: None, salt: 0 })
}

fn time(body: &Map<String, Value>, key: &str) -> Result<Option<Time>, BadRequest> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            DateTime::parse_from_rfc3339(text).map(|time| Some(time.to_utc())).map_err(|_| BadRequest)
        }
        Some(_) => Err(BadRequest),
    }
}
