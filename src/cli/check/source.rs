//! The steps of `check` about a 1Password account: secret, token, connection, introspection, features, streams.

use super::network::{Clocks, Place, connected, long};
use super::step::{Finding, Pending, Plan};
use crate::agent::account::INTRODUCED_WITHIN;
use crate::agent::chain;
use crate::cli::Exit;
use crate::config::Account;
use crate::flow::retry::{Edge, Failure, Verdict, verdict};
use crate::flow::{AccountName, Stream, decode};
use crate::secret::SecretRef;
use crate::source::{Features, Introspection, Lane, PageRequest, Source, SourceError};
use crate::wire::{Outside, WireError};
use chrono::TimeDelta;
use secrecy::SecretString;
use std::sync::{Arc, OnceLock};
use url::Url;

/// A token that ends sooner is told.
const EXPIRY_NOTED: TimeDelta = TimeDelta::days(30);
/// How far back the smallest page is asked for.
const PAGE_BACK: TimeDelta = TimeDelta::hours(1);

/// An account under examination, and what became known of it.
pub(crate) struct Subject {
    pub(crate) name: AccountName,
    pub(crate) account: Account,
    pub(crate) source: Result<Arc<dyn Source>, String>,
    outside: Arc<Outside>,
    clocks: Arc<Clocks>,
    token: OnceLock<SecretString>,
    /// Where the token wants to be sent.
    address: OnceLock<Url>,
    pub(crate) who: OnceLock<Introspection>,
}

/// The steps of one account.
pub(crate) struct Steps {
    secret: Pending,
    token: Pending,
    pub(crate) connection: Pending,
    pub(crate) account: Pending,
    features: Pending,
    streams: Vec<Pending>,
}

impl Steps {
    pub(crate) fn in_order(self) -> impl Iterator<Item = Pending> {
        [self.secret, self.token, self.connection, self.account, self.features].into_iter().chain(self.streams)
    }
}

impl Subject {
    pub(crate) fn new(name: &AccountName, account: &Account, outside: &Arc<Outside>, clocks: &Arc<Clocks>) -> Self {
        Self {
            name: name.clone(),
            account: account.clone(),
            source: outside.source(name).map_err(|error| chain(&error)),
            outside: outside.clone(),
            clocks: clocks.clone(),
            token: OnceLock::new(),
            address: OnceLock::new(),
            who: OnceLock::new(),
        }
    }

    /// `clocks` are the steps after which the time of a server may be known.
    pub(crate) fn steps(
        self: &Arc<Self>,
        identity: Option<&Pending>,
        proxy: Option<&Pending>,
        clocks: &[Pending],
    ) -> Steps {
        let of = || self.name.as_str();
        let vault = identity.filter(|_| matches!(self.account.token, SecretRef::KeyVault(_)));
        let me = self.clone();
        let secret = Plan::new("secret", of()).needs(vault).run(async move { me.secret().await });
        let me = self.clone();
        let token = Plan::new("token", of()).needs([&secret]).after(clocks).run(async move { me.read_token() });
        let me = self.clone();
        let by_token = self.account.events_url.is_none().then_some(&token);
        let by_proxy = proxy.filter(|_| match &self.account.events_url {
            Some(url) => self.outside.proxy_for(url).is_some(),
            None => true,
        });
        let connection = Plan::new("connection", of())
            .needs(by_token.into_iter().chain(by_proxy))
            .run(async move { me.connect().await });
        let me = self.clone();
        let account = Plan::new("account", of()).needs([&token, &connection]).run(async move { me.introspect().await });
        let me = self.clone();
        let features = Plan::new("features", of()).needs([&account]).run(async move { me.features() });
        let stream = |stream: &Stream| {
            let (me, stream) = (self.clone(), *stream);
            let plan = Plan::new("stream", format!("{}/{stream}", self.name)).needs([&account]).after([&features]);
            plan.run(async move { me.read(stream).await })
        };
        let streams = self.account.streams.iter().map(stream).collect();
        Steps { secret, token, connection, account, features, streams }
    }

    async fn secret(&self) -> Finding {
        let key = format!("accounts.{}.token", self.name);
        let (secret, finding) = secret(&self.outside, &self.account.token, &key).await;
        if let Some(secret) = secret {
            // Set once: this step runs once.
            let _ = self.token.set(secret);
        }
        finding
    }

    fn read_token(&self) -> Finding {
        let (name, reference) = (&self.name, &self.account.token);
        let Some(token) = self.token.get() else { return Finding::skipped("its secret") };
        let (claims, address) = match (self.outside.claims(token), &self.account.events_url) {
            (Ok(read), _) => read,
            (Err(why), Some(_)) => {
                return Finding::warn(
                    format!("{why}: what it may read and when it ends is not known"),
                    format!(
                        "{reference} should hold a token of an Events Reporting integration: paste it again, whole"
                    ),
                );
            }
            (Err(why), None) => {
                return Finding::fail(
                    Exit::Credentials,
                    why,
                    format!("put a token of an Events Reporting integration into {reference}: paste it again, whole"),
                );
            }
        };
        let now = self.clocks.now();
        let day = |time: &crate::flow::Time| time.format("%Y-%m-%d").to_string();
        let expires = match claims.expires {
            Some(end) if end <= now => {
                let said = format!("expired {} ago, on {}", long(now - end), day(&end));
                return Finding::fail(Exit::Credentials, said, self.new_token());
            }
            Some(end) => format!("expires in {}, on {}", long(end - now), day(&end)),
            None => "no expiry date".into(),
        };
        let audience = claims.audience.clone().unwrap_or_default();
        match (&self.account.events_url, address) {
            (Some(url), Ok(wanted)) if is_of_1password(&wanted) && is_of_1password(url) && !same_host(&wanted, url) => {
                return Finding::fail(
                    Exit::Usage,
                    format!(
                        "is for {audience}, but accounts.{name}.events_url is {}",
                        url.host_str().unwrap_or_default()
                    ),
                    format!(
                        "remove accounts.{name}.events_url (the address then comes from the token), or use a token of that region"
                    ),
                );
            }
            (None, Err(why)) => {
                let remedy = format!("set accounts.{name}.events_url to the address of your Events API");
                return Finding::fail(Exit::Usage, why, remedy);
            }
            (_, Ok(wanted)) => _ = self.address.set(wanted),
            (Some(_), Err(_)) => {}
        }
        let said = format!("for {audience}; {}; {expires}", list(&claims.features));
        match claims.expires {
            Some(end) if end - now < EXPIRY_NOTED => Finding::warn(said, self.new_token()),
            Some(_) | None => Finding::ok(said),
        }
    }

    fn new_token(&self) -> String {
        let then = match &self.account.token {
            SecretRef::Env(_) => "then restart opship",
            SecretRef::File(_) | SecretRef::KeyVault(_) => "no restart is needed",
        };
        let reference = &self.account.token;
        format!("issue a new token in 1Password (Integrations, Events Reporting) and put it into {reference}; {then}")
    }

    async fn connect(&self) -> Finding {
        let Some(url) = self.account.events_url.as_ref().or(self.address.get()) else {
            return Finding::skipped("an address");
        };
        let key = format!("accounts.{}.events_url", self.name);
        connected(&Place::of(self.name.as_str(), url.clone(), &key), &self.outside, &self.clocks).await
    }

    async fn introspect(&self) -> Finding {
        let source = match &self.source {
            Ok(source) => source,
            Err(why) => return Finding::fail(Exit::Usage, why.clone(), "correct the setting"),
        };
        let introduced = tokio::time::timeout(INTRODUCED_WITHIN, source.introspect()).await;
        match introduced.unwrap_or_else(|_| Err(unanswered(source))) {
            Ok(who) => {
                let uuid = who.account_uuid.clone().unwrap_or_else(|| "of no known id".into());
                let said = format!("1Password accepts the token, of account {uuid}");
                let _ = self.who.set(who);
                Finding::ok(said)
            }
            Err(error) => self.without_introspection(source, &error).await,
        }
    }

    /// A feed needs no introduction: where pages are answered, what the token says of itself serves.
    async fn without_introspection(&self, source: &Arc<dyn Source>, error: &SourceError) -> Finding {
        let is_refused = matches!(verdict(Edge::Source, &error.failure), Verdict::Unauthorized { .. });
        let (Some(stream), false) = (self.account.streams.first(), is_refused) else {
            return self.refused(error);
        };
        let Ok(claims) = source.claims().await else { return self.refused(error) };
        let now = error.date.unwrap_or_else(chrono::Utc::now);
        let request = PageRequest::Reset { start: now - PAGE_BACK, limit: 1 };
        let answers = match source.page(*stream, &request, Lane::Live).await {
            Ok(_) => true,
            Err(SourceError { failure: Failure::Status { status: 401 | 403, .. }, .. }) => true,
            Err(_) => false,
        };
        if !answers {
            return self.refused(error);
        }
        let _ = self.who.set(Introspection { date: Some(now), ..claims });
        Finding::warn(
            format!("1Password does not introduce the token, and what it says of itself serves: {}", error.failure),
            "nothing, while the feeds ship; if it stays, look for a proxy that does not let /auth/introspect through",
        )
    }

    fn refused(&self, error: &SourceError) -> Finding {
        match (verdict(Edge::Source, &error.failure), &error.failure) {
            (_, Failure::Status { status: status @ (401 | 403), .. }) => Finding::fail(
                Exit::Credentials,
                format!(
                    "1Password refuses the token of {} ({status}): it was revoked, deleted or never was one",
                    self.account.token
                ),
                self.new_token(),
            ),
            (Verdict::Unauthorized { remedy, .. }, _) => {
                Finding::fail(Exit::Credentials, chain(error), self.named(remedy))
            }
            (Verdict::Halt { remedy }, _) => Finding::fail(Exit::Usage, chain(error), self.named(remedy)),
            (Verdict::Rejected, _) => {
                Finding::fail(Exit::Failed, chain(error), "update opship: 1Password does not take its requests")
            }
            (Verdict::Retry { .. } | Verdict::Reauthenticate | Verdict::Split | Verdict::DeadLetter, _) => {
                let remedy = "check again in a minute; if it stays, see status.1password.com";
                Finding::fail(Exit::Failed, chain(error), remedy)
            }
        }
    }

    /// 1Password has just accepted the token, and gave it this feature.
    fn refused_alone(&self, stream: Stream, failure: &Failure) -> Finding {
        Finding::fail(
            Exit::Credentials,
            format!("1Password accepts the token and refuses {stream} all the same: {failure}"),
            format!(
                "look whether the plan of the account has this report; else issue a token with this feature and put it into {}, or \
                 leave {stream} out of accounts.{}.streams",
                self.account.token, self.name
            ),
        )
    }

    fn named(&self, remedy: &str) -> String {
        remedy.replace("accounts.NAME", &format!("accounts.{}", self.name))
    }

    fn features(&self) -> Finding {
        let Some(who) = self.who.get() else { return Finding::skipped("its introspection") };
        if let Features::Claimed(claimed) = &who.features {
            return Finding::ok(format!("1Password does not say; the token itself names {}", list(claimed)));
        }
        let may = |stream: &&Stream| who.features.may_read(**stream);
        let missing: Vec<_> =
            self.account.streams.iter().filter(|stream| !may(stream)).map(|s| s.to_string()).collect();
        if missing.is_empty() {
            return Finding::ok(format!("the token may read all that is configured: {}", list(&self.account.streams)));
        }
        Finding::fail(
            Exit::Credentials,
            format!("the token may not read {}", list(&missing)),
            format!(
                "issue a token with this feature and put it into {}, or leave it out of accounts.{}.streams",
                self.account.token, self.name
            ),
        )
    }

    async fn read(&self, stream: Stream) -> Finding {
        let (Ok(source), Some(who)) = (&self.source, self.who.get()) else { return Finding::skipped("its account") };
        if !who.features.may_read(stream) {
            return Finding::skipped(&format!("features {}", self.name));
        }
        let request = PageRequest::Reset { start: who.date.unwrap_or_else(chrono::Utc::now) - PAGE_BACK, limit: 1 };
        let answer = match source.page(stream, &request, Lane::Live).await {
            Ok(answer) => answer,
            Err(error @ SourceError { failure: Failure::Status { status: 401 | 403, .. }, .. }) => {
                return self.refused_alone(stream, &error.failure);
            }
            Err(error) => return self.refused(&error),
        };
        match decode::page(&decode::text(&answer.body).0) {
            Ok(_) => Finding::ok("readable"),
            Err(error) => Finding::fail(
                Exit::Failed,
                error.to_string(),
                format!("check accounts.{}.events_url: something else than 1Password answers there", self.name),
            ),
        }
    }
}

fn unanswered(source: &Arc<dyn Source>) -> SourceError {
    let attempted = format!("introspect the token (no answer in {} s)", INTRODUCED_WITHIN.as_secs());
    SourceError { attempted, on: source.place(), failure: Failure::Interrupted, date: None, remedy: None, cause: None }
}

/// Reads the secret that this key of the configuration names.
pub(crate) async fn secret(outside: &Outside, reference: &SecretRef, key: &str) -> (Option<SecretString>, Finding) {
    let secret = match outside.secret(reference).await {
        Ok(secret) => secret,
        Err(WireError::Secret(error)) => {
            let cause = error.cause.as_deref().map(|cause| format!(" ({})", chain(cause))).unwrap_or_default();
            let (what, remedy) = error.why.split_once(": ").unwrap_or((&error.why, "correct it"));
            let remedy = error.remedy.as_deref().unwrap_or(remedy);
            let said = format!("{reference}: {what}{cause}");
            return (None, Finding::fail(Exit::Usage, said, format!("{remedy}; {key} names it")));
        }
        Err(error) => return (None, Finding::fail(Exit::Usage, chain(&error), format!("correct {key}"))),
    };
    let finding = match outside.open_to_others(reference) {
        Some(mode) => Finding::warn(
            format!("read from {reference}, which other users may read or replace (mode {mode:04o})"),
            "chmod it to 0640 or less (a secret mounted by Kubernetes: set defaultMode)",
        ),
        None => Finding::ok(format!("read from {reference}")),
    };
    (Some(secret), finding)
}

fn list(names: &[impl ToString]) -> String {
    match names {
        [] => "no stream".into(),
        names => names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn is_of_1password(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    ["1password.com", "1password.ca", "1password.eu"].iter().any(|end| host.ends_with(&format!(".{end}")))
}

fn same_host(a: &Url, b: &Url) -> bool {
    a.host_str() == b.host_str()
}
