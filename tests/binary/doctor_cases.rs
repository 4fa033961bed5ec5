//! What can be wrong with a setup, one thing at a time, and what `opship check` must say to it.

use crate::doctor_places::{containers, destinations, folders};
use crate::edges::Edge;
use crate::raw::{Authority, Raw, closed};
use crate::world::{Kind, World, azurite, history};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{TimeDelta, Utc};
use futures_util::future::BoxFuture;
use opship::config::{ContainerUrl, Http};
use opship::flow::Stream;
use opship::sim::{Fault, Options, Refusal, Target, What};
use opship::store::azure_blob::AzureBlobStore;
use serde_json::json;
use std::any::Any;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// A setup with one thing broken, and what keeps it so.
pub struct Setup {
    pub world: World,
    pub _kept: Box<dyn Any + Send>,
    /// A shell script that ends in the program, instead of the program itself.
    pub script: Option<String>,
}

impl From<World> for Setup {
    fn from(world: World) -> Self {
        Self { world, _kept: Box::new(()), script: None }
    }
}

pub struct Case {
    pub broken: &'static str,
    pub setup: BoxFuture<'static, Setup>,
    /// The one step that is not ok, and how: `FAIL` or `WARN`.
    pub step: (&'static str, &'static str),
    /// Steps that need it.
    pub skipped: &'static [&'static str],
    /// Other steps that give a hint.
    pub hints: &'static [&'static str],
    pub exit: i32,
    /// What finding and remedy must name.
    pub names: &'static [&'static str],
}

const STREAMS: [&str; 3] = ["stream default/auditevents", "stream default/itemusages", "stream default/signinattempts"];
const BEHIND_ACCOUNT: &[&str] = &["features default", STREAMS[0], STREAMS[1], STREAMS[2]];
const BEHIND_TOKEN: &[&str] = &["account default", "features default", STREAMS[0], STREAMS[1], STREAMS[2]];
const BEHIND_SECRET: &[&str] =
    &["token default", "account default", "features default", STREAMS[0], STREAMS[1], STREAMS[2]];
const BEHIND_PROXY: &[&str] = &[
    "connection default",
    "account default",
    "features default",
    STREAMS[0],
    STREAMS[1],
    STREAMS[2],
    "connection identity",
    "identity",
    "connection rule",
    "rule",
    "table",
    "clock",
];

/// `step` is `"FAIL title"` or `"WARN title"`.
pub fn case<S: Into<Setup>>(
    broken: &'static str,
    step: &'static str,
    exit: i32,
    names: &'static [&'static str],
    setup: impl Future<Output = S> + Send + 'static,
) -> Case {
    let setup = Box::pin(async move { setup.await.into() });
    Case { broken, setup, step: step.split_once(' ').unwrap(), skipped: &[], hints: &[], exit, names }
}

impl Case {
    pub const fn skips(mut self, skipped: &'static [&'static str]) -> Self {
        self.skipped = skipped;
        self
    }

    const fn hints(mut self, hints: &'static [&'static str]) -> Self {
        self.hints = hints;
        self
    }
}

pub async fn file(change: impl FnOnce(&mut World) + Send) -> World {
    let mut world = World::file(history(30)).await;
    change(&mut world);
    world
}

/// With the rule and 1Password under their real names, behind a proxy.
pub async fn proxied(change: impl FnOnce(&mut World) + Send) -> Setup {
    let (mut world, internet) = World::behind_a_proxy(Kind::File, history(30)).await;
    change(&mut world);
    Setup { _kept: Box::new(internet), ..world.into() }
}

/// With a container that is there, reached by a SAS of its own.
pub async fn blob(permissions: &'static str, expires: String) -> World {
    let name = format!("check-{}", uuid::Uuid::new_v4());
    let http = opship::http::client(&Http::default()).unwrap();
    let whole = ContainerUrl(azurite().await.container_sas_url(&name));
    AzureBlobStore::open(&whole, None, http).await.unwrap();
    in_container(azurite().await.container_service_sas_url(&name, permissions, &expires)).await
}

pub async fn in_container(url: url::Url) -> World {
    let mut world = World::new(Kind::Blob, history(30)).await;
    let signature = url.query_pairs().find(|(name, _)| name == "sig").unwrap().1.into_owned();
    world.secret(&signature).set("OPSHIP_STORE__CONTAINER_URL", url);
    world
}

pub fn in_days(days: i64) -> String {
    (Utc::now() + TimeDelta::days(days)).format("%Y-%m-%dT12:00:00Z").to_string()
}

pub const RIGHTS: &str = "racwdl";

/// A token by its looks, which no service ever sees.
fn token(audience: &str, expires: i64) -> String {
    let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "aud": [audience], "exp": expires, "1password.com/auuid": "ACCOUNT",
        "1password.com/fts": Stream::ALL.map(Stream::as_str) });
    format!("{}.{}.c2lnbmF0dXJl", part(json!({ "alg": "ES256" })), part(claims))
}

fn set_token(world: &mut World, token: &str) {
    world.secret(token).set("OP_EVENTS_TOKEN", token);
}

pub fn answers(world: &World, target: Target, status: u16) {
    world.fault(Fault::new(target, What::Status(Refusal::status(status))));
}

pub fn state(world: &World) -> std::path::PathBuf {
    world.home.path().join("state")
}

pub fn cases() -> Vec<Case> {
    [configuration(), tokens(), ways(), destinations(), containers(), folders()].into_iter().flatten().collect()
}

fn configuration() -> Vec<Case> {
    vec![
        case(
            "a key of the configuration is misspelt",
            "FAIL configuration",
            64,
            &["OPSHIP_SINK__ENDPOINT"],
            file(|world| {
                world.set("OPSHIP_SINK__ENDPOIN", "https://x");
            }),
        ),
        case(
            "the system has no certificate authorities",
            "FAIL configuration",
            64,
            &["no certificate authorities", "ca-certificates", "http.ca_file", "SSL_CERT_FILE"],
            file(|world| {
                world.set("SSL_CERT_FILE", "/dev/null");
            }),
        ),
        case(
            "the variable that holds the token is not set",
            "FAIL secret default",
            64,
            &["env:OP_EVENTS_TOKEN", "accounts.default.token"],
            file(|world| {
                world.unset("OP_EVENTS_TOKEN");
            }),
        )
        .skips(BEHIND_SECRET),
        case(
            "other users may read the file of the token",
            "WARN secret default",
            0,
            &["0644", "0640"],
            file(|world| {
                let path = world.secret_file("token", &world.sim.token());
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
                world.set("OPSHIP_ACCOUNTS__DEFAULT__TOKEN", format!("file:{}", path.display()));
            }),
        ),
    ]
}

fn tokens() -> Vec<Case> {
    vec![
        case(
            "the token is revoked",
            "FAIL account default",
            77,
            &["401", "env:OP_EVENTS_TOKEN", "issue a new token"],
            file(|world| {
                world.sim.world().revoke_token();
            }),
        )
        .skips(BEHIND_ACCOUNT),
        case(
            "the token has expired",
            "FAIL token default",
            77,
            &["2026-01-31", "issue a new token"],
            file(|world| {
                set_token(world, &token("events.1password.com", 1_769_860_800));
            }),
        )
        .skips(BEHIND_TOKEN),
        case("the token ends in ten days", "WARN token default", 0, &["issue a new token"], async {
            let token_lifetime = Some(Duration::from_secs(10 * 86_400 + 3600));
            World::file(Options { token_lifetime, ..history(30) }).await
        }),
        case(
            "the token is no token",
            "FAIL account default",
            77,
            &["401", "env:OP_EVENTS_TOKEN"],
            file(|world| {
                set_token(world, "pasted-by-mistake");
            }),
        )
        .skips(BEHIND_ACCOUNT)
        .hints(&["token default"]),
        case(
            "the token is of another region",
            "FAIL token default",
            64,
            &["events.1password.eu", "accounts.default.events_url"],
            proxied(|world| {
                set_token(world, &token("events.1password.eu", 4_000_000_000));
            }),
        )
        .skips(BEHIND_TOKEN),
        case(
            "the token lacks a feature",
            "FAIL features default",
            77,
            &["itemusages", "accounts.default.streams"],
            file(|world| {
                world.sim.world().remove_feature(Stream::ItemUsages);
            }),
        )
        .skips(&[STREAMS[1]]),
        case(
            "1Password refuses one stream, although the token has its feature",
            "FAIL stream default/itemusages",
            77,
            &["accepts the token", "403", "plan of the account", "accounts.default.streams"],
            file(|world| {
                answers(world, Target::Stream(Stream::ItemUsages), 403);
            }),
        ),
        case(
            "1Password is in trouble",
            "FAIL account default",
            1,
            &["503", "in a minute"],
            file(|world| {
                answers(world, Target::Path("/api/".into()), 503);
            }),
        )
        .skips(BEHIND_ACCOUNT),
        case(
            "something answers for the introspection alone",
            "WARN account default",
            0,
            &["503", "serves", "/auth/introspect"],
            file(|world| {
                answers(world, Target::Introspect, 503);
            }),
        ),
    ]
}

fn ways() -> Vec<Case> {
    vec![
        case(
            "the proxy is down",
            "FAIL proxy",
            1,
            &["http.proxy"],
            proxied(|world| {
                world.set("OPSHIP_HTTP__PROXY", format!("http://{}", closed()));
            }),
        )
        .skips(BEHIND_PROXY),
        case(
            "a company's proxy inspects TLS, and its authority is not known",
            "FAIL connection default",
            1,
            &["Inspecting Proxy CA", "http.ca_file"],
            inspected(),
        )
        .skips(BEHIND_TOKEN),
        case(
            "nobody listens at the rule's endpoint",
            "FAIL connection rule",
            1,
            &["sink.endpoint", "firewall"],
            file(|world| {
                world.set("OPSHIP_SINK__ENDPOINT", format!("http://{}", closed()));
            }),
        )
        .skips(&["rule", "table"]),
        case(
            "a firewall swallows everything to 1Password",
            "FAIL connection default",
            1,
            &["12 s", "firewall"],
            async {
                let hole = Raw::wire(|stream| async move {
                    std::future::pending::<()>().await;
                    drop(stream);
                })
                .await;
                let mut world = World::file(history(30)).await;
                world.point(Edge::Source, &hole.url());
                Setup { _kept: Box::new(hole), ..world.into() }
            },
        )
        .skips(BEHIND_TOKEN),
        case(
            "this host's clock is ten minutes slow",
            "FAIL clock",
            1,
            &["10 min", "NTP"],
            file(|world| {
                world.sim.world().shift_clock(TimeDelta::seconds(630));
            }),
        ),
        case(
            "this host's clock is two minutes fast",
            "WARN clock",
            0,
            &["ahead", "NTP"],
            file(|world| {
                world.sim.world().shift_clock(TimeDelta::seconds(-130));
            }),
        ),
    ]
}

/// 1Password under the certificate of an authority that nobody knows.
async fn inspected() -> Setup {
    let authority = Authority::named("Inspecting Proxy CA");
    let server =
        Raw::always(Some(authority.server("localhost", |_| ())), "HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n").await;
    let mut world = World::file(history(30)).await;
    world.set("OPSHIP_DELIVERY__ALLOW_HOSTS", r#"["localhost"]"#);
    world.point(Edge::Source, &format!("https://localhost:{}", server.address.port()));
    Setup { _kept: Box::new(server), ..world.into() }
}
