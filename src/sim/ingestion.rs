//! The Logs Ingestion endpoint of a data collection rule.

use super::accepted::StoredRow;
use super::access::Refused;
use super::call::Call;
use super::fault::{Refusal, What};
use super::reply::Reply;
use super::vocabulary::COLUMNS;
use super::world::{World, held};
use crate::flow::{Time, decode};
use axum::http::{HeaderName, Method, header};
use flate2::read::MultiGzDecoder;
use serde_json::json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read as _;

/// Largest Content-Length, compressed or not.
const SENT_BYTES_MAX: usize = 1_048_576;
/// Largest body after decompression.
const PAYLOAD_BYTES_MAX: usize = 50 * 1024 * 1024;
/// Longer values are cut silently.
const VALUE_BYTES_MAX: usize = 64 * 1024;
const API_VERSION: &str = "2023-01-01";

type Row<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Answers a request to the ingestion endpoint; 204 means that all rows are stored.
pub(super) fn answer(world: &World, call: &Call, whats: &[What]) -> Reply {
    match accept(world, call, whats) {
        Ok(()) => Reply::no_content(),
        Err(refusal) => refuse(world, &refusal),
    }
}

/// An error answer in the shape of the service.
pub(super) fn refuse(world: &World, refusal: &Refusal) -> Reply {
    let (code, message) = match refusal.status {
        401 => ("InvalidAuthenticationToken", "The access token is missing or not valid.".to_owned()),
        403 => ("OperationFailed", no_role(world)),
        404 => ("NotFound", "Data collection rule not found.".to_owned()),
        413 => ("ContentLengthLimitExceeded", "Maximum allowed content length exceeded.".to_owned()),
        429 => ("TooManyRequests", "The request limit of the data collection rule was reached.".to_owned()),
        503 => ("ServiceUnavailable", "The service is not available.".to_owned()),
        400..=499 => ("InvalidRequest", "The request is not valid.".to_owned()),
        _ => ("InternalServerError", "The server could not process the request.".to_owned()),
    };
    let is_foreign = refusal.text.is_some() && refusal.code.is_none();
    let code = refusal.code.as_deref().unwrap_or(code);
    let message = refusal.message.as_deref().unwrap_or(&message);
    let reply = Reply::json(refusal.status, &json!({ "error": { "code": code, "message": message } }));
    let named = |reply: Reply| reply.with_header(HeaderName::from_static("x-ms-error-code"), code);
    let reply = if is_foreign { reply } else { named(reply) };
    reply.refused_with(refusal, world.now())
}

fn no_role(world: &World) -> String {
    format!(
        "The authentication token provided does not have access to ingest data for the data collection rule with \
         immutable Id '{}' PipelineAccessResult: AccessGranted: False, IsRbacPresent: False, IsDcrDceBindingValid: , \
         DcrArmId: Message: Required authorization action was not found for tenantId",
        world.dcr_immutable_id()
    )
}

fn refusal(status: u16, code: &str, message: impl Into<String>) -> Refusal {
    Refusal { code: Some(code.into()), message: Some(message.into()), ..Refusal::status(status) }
}

fn accept(world: &World, call: &Call, whats: &[What]) -> Result<(), Refusal> {
    let now = world.now();
    check_address(world, call, now)?;
    if world.options.rate_limits && !held(&world.ingestion_pace).admit(now) {
        let retry_after = Some(super::RetryAfter::Seconds(60));
        return Err(Refusal { retry_after, ..Refusal::status(429) });
    }
    let payload = check_body(world, call, whats)?;
    let not_rows = |_| refusal(400, "InvalidPayload", "The body is not a JSON array of objects.");
    let rows: Vec<Row<'_>> = serde_json::from_slice(&payload).map_err(not_rows)?;
    let mut accepted = held(&world.accepted);
    let mut stored = Vec::with_capacity(rows.len());
    let (mut dropped, mut long) = (0, 0);
    for row in &rows {
        dropped += row.keys().filter(|column| !COLUMNS.contains(&column.as_ref())).count() as u64;
        long += row.values().filter(|value| value_bytes(value) > VALUE_BYTES_MAX).count() as u64;
        stored.push(store(row, now));
    }
    let failed = |error: std::io::Error| refusal(500, "InternalServerError", format!("rows_out: {error}"));
    accepted.store(&stored).map_err(failed)?;
    held(&world.shelf).take(&stored, now);
    accepted.totals.dropped_columns += dropped;
    accepted.totals.long_values += long;
    Ok(())
}

/// A text counts without its quotes and escapes, anything else as its JSON.
fn value_bytes(value: &RawValue) -> usize {
    let text = value.get();
    let is_long_text = text.len() > VALUE_BYTES_MAX && text.starts_with('"');
    if is_long_text { serde_json::from_str::<String>(text).map_or(text.len(), |text| text.len()) } else { text.len() }
}

/// Method, token, rule, role, stream and version: in the order in which a gateway can know them.
fn check_address(world: &World, call: &Call, now: Time) -> Result<(), Refusal> {
    if call.head.method != Method::POST {
        return Err(refusal(405, "MethodNotAllowed", "Only POST is allowed."));
    }
    held(&world.access).check_azure(call.head.bearer(), now).map_err(|why| {
        let message = match why {
            Refused::Missing => "The request has no bearer token.",
            Refused::Invalid => "The access token is not valid.",
            Refused::Expired => "The access token has expired.",
            Refused::WrongAudience => "The access token is for another audience.",
        };
        refusal(401, "InvalidAuthenticationToken", message)
    })?;
    let parts: Vec<&str> = call.head.path.trim_start_matches('/').split('/').collect();
    let [_, rule, "streams", stream] = parts.as_slice() else {
        return Err(refusal(404, "NotFound", "The path is not /dataCollectionRules/{id}/streams/{stream}."));
    };
    if *rule != world.dcr_immutable_id() {
        let message = format!("Data collection rule with immutable Id '{rule}' not found.");
        return Err(refusal(404, "NotFound", message));
    }
    if !held(&world.access).role_is_granted {
        return Err(Refusal::status(403));
    }
    if *stream != world.stream_name() {
        let message = format!("Stream '{stream}' is not declared in the data collection rule.");
        return Err(refusal(400, "InvalidStream", message));
    }
    if call.head.query("api-version").as_deref() != Some(API_VERSION) {
        return Err(refusal(400, "InvalidApiVersion", "The api-version is not supported."));
    }
    Ok(())
}

/// Sizes and encoding; returns the body as JSON text.
fn check_body<'a>(world: &World, call: &'a Call, whats: &[What]) -> Result<Cow<'a, [u8]>, Refusal> {
    let limit = whats.iter().find_map(|what| if let What::SizeLimit { bytes } = what { Some(*bytes) } else { None });
    let sent_max = limit.unwrap_or(SENT_BYTES_MAX);
    let sent = call.body.len();
    let too_long = |bytes: usize| {
        let message = format!(
            "Maximum allowed content length: {sent_max} bytes ({} MB). Provided content length: {bytes} bytes.",
            sent_max.div_ceil(SENT_BYTES_MAX)
        );
        refusal(413, "ContentLengthLimitExceeded", message)
    };
    if sent > sent_max {
        return Err(too_long(sent));
    }
    if sent == 0 {
        return Err(Refusal { text: Some(String::new()), ..Refusal::status(500) });
    }
    let kind = call.head.header(header::CONTENT_TYPE.as_str()).unwrap_or_default();
    if !kind.starts_with("application/json") {
        return Err(refusal(415, "UnsupportedMediaType", "The Content-Type is not application/json."));
    }
    let payload = decode(call)?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(refusal(413, "PayloadSizeLimitExceeded", "The decompressed payload is larger than 50 MiB."));
    }
    let strict = world.options.strict_uncompressed || limit.is_some();
    if strict && payload.len() > sent_max { Err(too_long(payload.len())) } else { Ok(payload) }
}

fn decode(call: &Call) -> Result<Cow<'_, [u8]>, Refusal> {
    match call.head.header(header::CONTENT_ENCODING.as_str()) {
        None | Some("identity") => Ok(Cow::Borrowed(&call.body)),
        Some("gzip") => {
            let mut payload = Vec::new();
            // One byte more than is allowed tells "too large" from "just fits", whatever a bomb would inflate to.
            let mut decoder = MultiGzDecoder::new(call.body.as_ref()).take(PAYLOAD_BYTES_MAX as u64 + 1);
            let broken = |_| refusal(400, "InvalidPayload", "The body is not gzip.");
            decoder.read_to_end(&mut payload).map_err(broken)?;
            Ok(Cow::Owned(payload))
        }
        Some(_) => Err(refusal(415, "UnsupportedMediaType", "The Content-Encoding is not gzip.")),
    }
}

/// What the rule makes of a row: `TimeGenerated` is the time of ingestion, undeclared columns are gone.
fn store(row: &Row<'_>, now: Time) -> StoredRow {
    let text = |column: &str| row.get(column).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    let mut json = format!("{{\"TimeGenerated\":\"{}\"", now.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true));
    for (column, value) in row.iter().filter(|(column, _)| COLUMNS.contains(&column.as_ref())) {
        json.push_str(",\"");
        json.push_str(column);
        json.push_str("\":");
        // A line break between tokens is legal JSON, but a row is one line.
        json.extend(value.get().chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
    }
    json.push('}');
    let happened = text("timestamp").and_then(|text| decode::timestamp(&text));
    let (log_source, uuid, account) = (text("log_source"), text("uuid_s"), text("account_uuid"));
    StoredRow { json: json.into(), log_source, uuid, account, happened }
}
