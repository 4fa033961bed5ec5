//! The Azure identity endpoints: managed identity as Container Apps and App Service have it, IMDS, and Microsoft Entra ID.

use super::call::{Call, form_value};
use super::fault::{Refusal, TokenFault, What};
use super::history::delta;
use super::reply::Reply;
use super::world::{World, held};
use crate::flow::Time;
use axum::http::Method;
use chrono::TimeDelta;
use serde_json::{Value, json};

/// `grant_type` is always this.
const GRANT: &str = "client_credentials";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const TRACE: &str = "00000000-0000-0000-0000-00000000007a";

/// A token on its way out.
struct Issued {
    token: String,
    expires: Time,
    now: Time,
    expires_on: Value,
}

/// Answers a request to an identity endpoint.
pub(super) fn answer(world: &World, call: &Call, whats: &[What]) -> Reply {
    match call.head.path.as_str() {
        "/msi/token" => app_service(world, call, whats),
        "/metadata/identity/oauth2/token" => imds(world, call, whats),
        _ => entra(world, call, whats),
    }
}

/// An error answer in the shape of the endpoint.
pub(super) fn refuse(world: &World, call: &Call, refusal: &Refusal) -> Reply {
    let status = refusal.status;
    let message = refusal.message.as_deref().unwrap_or("The simulator was told to fail.");
    let body = match call.head.path.as_str() {
        "/msi/token" => json!({ "statusCode": status, "message": message, "correlationId": TRACE }),
        "/metadata/identity/oauth2/token" => {
            json!({ "error": refusal.code.as_deref().unwrap_or("invalid_request"), "error_description": message })
        }
        _ => return entra_error(world, refusal, 90033),
    };
    Reply::json(status, &body).refused_with(refusal, world.now())
}

fn issue(world: &World, audience: &str, whats: &[What]) -> Issued {
    let now = world.now();
    let mut expires = now + delta(world.options.azure_token_lifetime);
    let (mut audience, mut numeric) = (audience.to_owned(), false);
    for what in whats {
        let What::Token(fault) = what else { continue };
        match fault {
            TokenFault::Lifetime { seconds } => expires = now + TimeDelta::try_seconds(*seconds).unwrap_or_default(),
            TokenFault::WrongAudience => audience = "https://management.azure.com".into(),
            TokenFault::NumericExpiresOn => numeric = true,
        }
    }
    let bearer = (world.tenant_id(), world.client_id());
    let token = held(&world.access).azure_token(bearer, &audience, now, expires);
    let stamp = expires.timestamp();
    let expires_on = if numeric { json!(stamp) } else { json!(stamp.to_string()) };
    Issued { token, expires, now, expires_on }
}

fn app_service(world: &World, call: &Call, whats: &[What]) -> Reply {
    if call.head.method != Method::GET {
        return Reply::wrong_method();
    }
    if call.head.header("x-identity-header") != Some(&world.identity_header()) {
        let message = Some("The X-IDENTITY-HEADER of the request is missing or wrong.".into());
        return refuse(world, call, &Refusal { message, ..Refusal::status(401) });
    }
    let (Some("2019-08-01"), Some(resource)) = (call.head.query("api-version").as_deref(), call.head.query("resource"))
    else {
        let message = Some("The request needs api-version=2019-08-01 and resource.".into());
        return refuse(world, call, &Refusal { message, ..Refusal::status(400) });
    };
    let issued = issue(world, &resource, whats);
    let client = call.head.query("client_id").unwrap_or_else(|| world.client_id());
    Reply::json(
        200,
        &json!({ "access_token": issued.token, "expires_on": issued.expires_on, "resource": resource,
            "token_type": "Bearer", "client_id": client }),
    )
}

fn imds(world: &World, call: &Call, whats: &[What]) -> Reply {
    if call.head.method != Method::GET {
        return Reply::wrong_method();
    }
    let marked = call.head.header("metadata").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let resource = call.head.query("resource").filter(|_| marked && call.head.query("api-version").is_some());
    let Some(resource) = resource else {
        let message = Some("Required metadata header, api-version or resource not specified".into());
        return refuse(world, call, &Refusal { message, ..Refusal::status(400) });
    };
    let issued = issue(world, &resource, whats);
    let client = call.head.query("client_id").unwrap_or_else(|| world.client_id());
    Reply::json(
        200,
        &json!({ "access_token": issued.token, "client_id": client, "expires_on": issued.expires_on,
            "expires_in": (issued.expires - issued.now).num_seconds().to_string(),
            "ext_expires_in": (issued.expires - issued.now).num_seconds().to_string(),
            "not_before": issued.now.timestamp().to_string(), "resource": resource, "token_type": "Bearer" }),
    )
}

/// `POST /{tenant}/oauth2/v2.0/token` with a client secret or a client assertion.
fn entra(world: &World, call: &Call, whats: &[What]) -> Reply {
    if call.head.method != Method::POST {
        return Reply::wrong_method();
    }
    let form = |name: &str| form_value(&call.body, name);
    if call.head.path != format!("/{}/oauth2/v2.0/token", world.tenant_id()) {
        return entra_refused(world, 400, "invalid_request", 90002, "Tenant not found.");
    }
    if form("grant_type").as_deref() != Some(GRANT) {
        return entra_refused(world, 400, "unsupported_grant_type", 70003, "The grant type is not client_credentials.");
    }
    if form("client_id") != Some(world.client_id()) {
        return entra_refused(
            world,
            400,
            "unauthorized_client",
            700_016,
            "The application was not found in the directory.",
        );
    }
    let by_secret = form("client_secret").is_some_and(|secret| secret == world.client_secret());
    // Any assertion with three parts will do: whose key signed it is not the simulator's business.
    let by_assertion = form("client_assertion_type").as_deref() == Some(ASSERTION_TYPE)
        && form("client_assertion").is_some_and(|assertion| assertion.split('.').count() == 3);
    if !by_secret && !by_assertion {
        return entra_refused(world, 401, "invalid_client", 7_000_215, "Invalid client secret provided.");
    }
    let Some(audience) = form("scope").and_then(|scope| scope.strip_suffix("/.default").map(str::to_owned)) else {
        return entra_refused(world, 400, "invalid_scope", 1_002_012, "The scope is not a resource with /.default.");
    };
    let issued = issue(world, &audience, whats);
    let seconds = (issued.expires - issued.now).num_seconds();
    Reply::json(
        200,
        &json!({ "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": issued.token }),
    )
}

fn entra_refused(world: &World, status: u16, code: &str, number: u32, message: &str) -> Reply {
    let refusal = Refusal { code: Some(code.into()), message: Some(message.into()), ..Refusal::status(status) };
    entra_error(world, &refusal, number)
}

fn entra_error(world: &World, refusal: &Refusal, number: u32) -> Reply {
    let now = world.now();
    let stamp = now.format("%Y-%m-%d %H:%M:%SZ").to_string();
    let message = refusal.message.as_deref().unwrap_or("A transient error has occurred.");
    let description = format!("AADSTS{number}: {message} Trace ID: {TRACE} Correlation ID: {TRACE} Timestamp: {stamp}");
    let body = json!({ "error": refusal.code.as_deref().unwrap_or("temporarily_unavailable"),
        "error_description": description, "error_codes": [number], "timestamp": stamp, "trace_id": TRACE,
        "correlation_id": TRACE });
    Reply::json(refusal.status, &body).refused_with(refusal, now)
}
