//! The listener: takes requests, lets faults strike, asks the service, sends or withholds the answer.

use super::call::{Call, Head, Service};
use super::fault::What;
use super::journal::{Entry, JOURNAL_BODY_BYTES_MAX};
use super::reply::{Manner, Reply, gzip_bomb};
use super::seal::fingerprint;
use super::wire::{Cut, Wire};
use super::world::{World, held};
use super::{control, events_api, identity, ingestion, vault, workspace};
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, Request, Response, header};
use bytes::Bytes;
use chrono::TimeDelta;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Largest request body read: more than any endpoint accepts, so that the refusal can be told.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Pause after a failed accept: out of descriptors, for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection needs to serve requests.
pub(super) struct Server {
    pub(super) world: Arc<World>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) ended: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// The connection is to break: there will be no answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut on purpose")]
struct Broken;

/// What becomes of a request.
enum Outcome {
    Reply(Reply),
    Hang,
    Reset,
}

/// Serves connections until the simulator ends.
pub(super) async fn run(listener: TcpListener, server: Arc<Server>) {
    loop {
        let accepted = tokio::select! {
            () = server.ended.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => _ = server.tasks.spawn(connection(stream, Arc::clone(&server))),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, server: Arc<Server>) {
    // Without it each answer would wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let cut = Cut::new(AtomicBool::new(false));
    let wire = Wire::new(stream, Arc::clone(&cut));
    let served = async {
        match &server.tls {
            // A client that does not trust the CA hangs up here.
            Some(tls) => {
                if let Ok(stream) = tls.accept(wire).await {
                    serve(stream, &server.world, &cut).await;
                }
            }
            None => serve(wire, &server.world, &cut).await,
        }
    };
    tokio::select! {
        () = server.ended.cancelled() => {}
        () = served => {}
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, world: &Arc<World>, cut: &Cut) {
    let service = service_fn(|request| async {
        let answer = exchange(world, request).await;
        if answer.is_err() {
            cut.store(true, Ordering::Relaxed);
        }
        answer
    });
    // Ends with an error when the client goes away or a fault broke the connection: both are as it should be.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn exchange(world: &Arc<World>, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let (parts, body) = request.into_parts();
    let head = Head::new(parts.method, &parts.uri, parts.headers);
    if held(&world.faults).strike_head(&head) {
        world.record(entry(world, &Call { head, body: Bytes::new() }, None));
        return Err(Broken);
    }
    // A client that breaks off in its body has sent no request.
    let body = to_bytes(Body::new(body), REQUEST_BYTES_MAX).await.map_err(|_| Broken)?;
    let call = Call { head, body };
    if call.head.service == Service::Control {
        return Ok(control::answer(world, &call).into_response(call.head.accepts_gzip(), world.now()).await);
    }
    let whats = held(&world.faults).strike_call(&call.head, &call.body);
    let outcome = decide(world, &call, &whats);
    world.record(entry(world, &call, if let Outcome::Reply(reply) = &outcome { Some(reply) } else { None }));
    match outcome {
        Outcome::Hang => std::future::pending().await,
        Outcome::Reset => Err(Broken),
        Outcome::Reply(reply) => {
            tokio::time::sleep(reply.delay).await;
            Ok(reply.into_response(call.head.accepts_gzip(), world.now()).await)
        }
    }
}

/// Faults that keep the request from being processed, then the service, then faults that withhold or bend the answer.
fn decide(world: &World, call: &Call, whats: &[What]) -> Outcome {
    if let Some(outcome) = whats.iter().find_map(|what| instead(world, call, what)) {
        return delayed(outcome, whats);
    }
    let reply = ask(world, call, whats);
    match whats.iter().find_map(|what| afterwards(world, call, what)) {
        Some(outcome) => delayed(outcome, whats),
        None => Outcome::Reply(whats.iter().fold(reply, bend)),
    }
}

/// What happens in place of processing the request.
fn instead(world: &World, call: &Call, what: &What) -> Option<Outcome> {
    if let What::Status(refusal) = what {
        return Some(Outcome::Reply(refuse(world, call, refusal)));
    }
    if let What::Redirect { to } = what {
        return Some(Outcome::Reply(Reply::text(307, "").with_header(header::LOCATION, to)));
    }
    if matches!(what, What::Hang) {
        return Some(Outcome::Hang);
    }
    matches!(what, What::ResetBeforeHeaders).then_some(Outcome::Reset)
}

/// What happens in place of the answer to a processed request.
fn afterwards(world: &World, call: &Call, what: &What) -> Option<Outcome> {
    if let What::AcceptThenStatus(refusal) = what {
        return Some(Outcome::Reply(refuse(world, call, refusal)));
    }
    if matches!(what, What::AcceptThenHang) {
        return Some(Outcome::Hang);
    }
    matches!(what, What::AcceptThenReset).then_some(Outcome::Reset)
}

fn ask(world: &World, call: &Call, whats: &[What]) -> Reply {
    match call.head.service {
        Service::Events(stream) => events_api::answer(world, call, stream, whats),
        Service::Identity => identity::answer(world, call, whats),
        Service::Ingestion => ingestion::answer(world, call, whats),
        Service::Query => workspace::answer(world, call, whats),
        Service::Vault => vault::answer(world, call),
        Service::Control | Service::Unknown => Reply::not_found(),
    }
}

fn refuse(world: &World, call: &Call, refusal: &super::Refusal) -> Reply {
    match call.head.service {
        Service::Identity => identity::refuse(world, call, refusal),
        Service::Ingestion => ingestion::refuse(world, refusal),
        Service::Query => workspace::refuse(world, refusal),
        Service::Vault => vault::refuse(world, refusal),
        Service::Events(_) | Service::Control | Service::Unknown => events_api::refuse(world, call, refusal),
    }
}

/// A refusal may be late, too.
fn delayed(mut outcome: Outcome, whats: &[What]) -> Outcome {
    let delay = whats.iter().find_map(|what| if let What::Delay { ms } = what { Some(*ms) } else { None });
    if let (Outcome::Reply(reply), Some(ms)) = (&mut outcome, delay) {
        reply.delay = Duration::from_millis(ms);
    }
    outcome
}

fn bend(mut reply: Reply, what: &What) -> Reply {
    match what {
        What::Delay { ms } => reply.delay = Duration::from_millis(*ms),
        What::WrongDate { days } => reply.date_off = TimeDelta::try_days(*days).unwrap_or_default(),
        What::Drip { bytes, every_ms } => {
            reply.manner = Manner::Drip { bytes: *bytes, every: Duration::from_millis(*every_ms) };
        }
        What::StallInBody => reply.manner = Manner::Stall,
        What::ResetInBody => reply.manner = Manner::Reset,
        What::ShortBody => reply.manner = Manner::Short,
        What::EndlessBody => reply.manner = Manner::Endless,
        What::TruncatedBody => reply.body = reply.half(),
        What::InvalidUtf8 => reply.body = with_bad_byte(&reply.body),
        What::Body { text } => reply.body = text.clone().into(),
        What::GzipBomb { mib } => {
            reply.body = gzip_bomb(*mib);
            return reply.with_header(header::CONTENT_ENCODING, "gzip");
        }
        What::HeaderBomb { bytes } => {
            return reply.with_header(HeaderName::from_static("x-padding"), &"x".repeat(*bytes));
        }
        What::Status(_)
        | What::Redirect { .. }
        | What::Hang
        | What::ResetBeforeBody
        | What::ResetBeforeHeaders
        | What::AcceptThenHang
        | What::AcceptThenReset
        | What::AcceptThenStatus(_)
        | What::Page(_)
        | What::Token(_)
        | What::SizeLimit { .. }
        | What::RowsLimit { .. }
        | What::HideRows { .. } => {}
    }
    reply
}

/// Replaces the middle letter of the first long enough word by a byte that UTF-8 never has.
fn with_bad_byte(body: &Bytes) -> Bytes {
    let mut bytes = body.to_vec();
    let inside_word = |three: &[u8]| three.iter().all(u8::is_ascii_uppercase);
    if let Some(place) = bytes.windows(3).position(inside_word)
        && let Some(byte) = bytes.get_mut(place + 1)
    {
        *byte = 0xff;
    }
    bytes.into()
}

fn entry(world: &World, call: &Call, reply: Option<&Reply>) -> Entry {
    let compressed = call.head.header(header::CONTENT_ENCODING.as_str()).is_some();
    let shown = call.body.get(..call.body.len().min(JOURNAL_BODY_BYTES_MAX)).unwrap_or_default();
    Entry {
        number: 0,
        at: world.now(),
        elapsed: world.elapsed(),
        service: call.head.service,
        method: call.head.method.to_string(),
        path: call.head.path.clone(),
        body: if compressed { String::new() } else { String::from_utf8_lossy(shown).into_owned() },
        body_bytes: call.body.len(),
        token_hash: call.head.bearer().map(fingerprint).unwrap_or_default(),
        status: reply.map(|reply| reply.status),
        response_bytes: reply.map_or(0, |reply| reply.body.len()),
    }
}
