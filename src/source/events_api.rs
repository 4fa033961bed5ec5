//! The 1Password Events API, versions 1 and 2 (developer.1password.com/docs/events-api).

use super::budget::Budget;
use super::token::{self, Allow, Claims, TokenError};
use super::{Answer, BudgetLeft, Features, Introspection, Lane, PageRequest, Source, SourceError};
use crate::config::{Account, ApiVersion};
use crate::flow::identity::TokenHash;
use crate::flow::words::Hidden;
use crate::flow::{AccountName, Stream, Time, retry::Failure};
use crate::http::{self, BODY_BYTES_MAX};
use crate::reload::{Renew, Renewed};
use crate::secret::{SecretError, SecretReader};
use async_trait::async_trait;
use parking_lot::Mutex as StdMutex;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::{sync::Mutex, time};
use url::Url;

/// Largest introspection read; real ones have a few hundred bytes, and every feed of the account asks at its start.
const INTROSPECTION_BYTES_MAX: usize = 1024 * 1024;

/// What an [`EventsApi`] is made of.
pub struct Setup {
    pub name: AccountName,
    pub account: Account,
    pub allow: Allow,
    pub secrets: Arc<dyn SecretReader>,
    pub client: http::Either,
    /// For one request.
    pub deadline: Duration,
}

/// One 1Password account at the Events API. All streams of the account share it, and with it the token and its request budget.
pub struct EventsApi {
    setup: Setup,
    budget: Budget,
    /// The token in use: read when first needed, forgotten when refused.
    credential: Mutex<Option<Arc<Credential>>>,
    /// Where the last token led.
    base: StdMutex<Option<Url>>,
    /// The last token that was read: a reload says whether there is another one.
    last: StdMutex<Option<TokenHash>>,
}

/// A token ready to be sent, with the only address that it may be sent to.
struct Credential {
    /// Marked sensitive: prints as `Sensitive`.
    header: HeaderValue,
    base: Url,
    claims: Claims,
    hash: TokenHash,
}

#[derive(Debug, thiserror::Error)]
enum CredentialError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the secret was not read within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("{why}; set accounts.{account}.events_url to the address of your Events API")]
    Address { account: AccountName, why: TokenError },
    #[error("accounts.{account}.token: {why}")]
    Token { account: AccountName, why: TokenError },
}

/// One request, before anyone knows with which token it goes where.
struct Question {
    attempted: String,
    path: String,
    body: Option<Vec<u8>>,
    /// Largest answer read.
    answer_bytes_max: usize,
    lane: Lane,
}

impl Question {
    fn turn(&self) -> http::Turn {
        if self.lane == Lane::Ahead { http::Turn::NowOrNever } else { http::Turn::Awaited }
    }
}

/// A send that failed, before the place is added.
struct Trouble {
    failure: Failure,
    date: Option<Time>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// The server has refused the way, not the request.
    is_to_be_sent_again: bool,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self { failure, date: None, cause: None, is_to_be_sent_again: false }
    }
}

impl EventsApi {
    /// Reads nothing yet: the token is read when it is first needed.
    pub fn new(setup: Setup) -> Self {
        let base = StdMutex::new(setup.account.events_url.as_ref().map(without_extras));
        let budget = Budget::new(time::Instant::now());
        Self { setup, budget, credential: Mutex::default(), base, last: StdMutex::default() }
    }

    /// Asks; after a 401 asks once more if the secret reference holds another token by now: rotation needs no restart.
    async fn ask(&self, question: &Question) -> Result<(Answer, Arc<Credential>), SourceError> {
        let credential = self.credential().await.map_err(|cause| self.no_credential(question, cause))?;
        let refusal = match self.send(&credential, question).await {
            Ok(answer) => return Ok((answer, credential)),
            Err(error) if matches!(error.failure, Failure::Status { status: 401, .. }) => error,
            Err(error) => return Err(error),
        };
        let fresh = match self.rotated(&credential).await {
            Ok(Some(fresh)) => fresh,
            Ok(None) => return Err(refusal),
            // The refusal stays the failure: it is certain, whatever kept us from reading the secret again.
            Err(cause) => return Err(SourceError { cause: Some(cause.into()), ..refusal }),
        };
        tracing::warn!(account = %self.setup.name, "1Password refused the token; going on with the one that replaced it");
        self.send(&fresh, question).await.map(|answer| (answer, fresh))
    }

    async fn credential(&self) -> Result<Arc<Credential>, CredentialError> {
        let mut cached = self.credential.lock().await;
        if let Some(credential) = cached.as_ref() {
            return Ok(credential.clone());
        }
        Ok(cached.insert(self.read_credential().await?).clone())
    }

    /// The token that replaced `refused`, if there is one. If not, nothing stays cached, so that the next call reads it first.
    async fn rotated(&self, refused: &Credential) -> Result<Option<Arc<Credential>>, CredentialError> {
        let mut cached = self.credential.lock().await;
        // Another stream of the account may have been faster.
        if let Some(credential) = cached.take_if(|credential| credential.header != refused.header) {
            return Ok(Some(cached.insert(credential).clone()));
        }
        *cached = None;
        let fresh = self.read_credential().await?;
        Ok((fresh.header != refused.header).then(|| cached.insert(fresh).clone()))
    }

    async fn read_credential(&self) -> Result<Arc<Credential>, CredentialError> {
        let Setup { account, name, allow, secrets, .. } = &self.setup;
        let refused = |why| CredentialError::Token { account: name.clone(), why };
        let secret = time::timeout(self.setup.deadline, secrets.read(&account.token))
            .await
            .map_err(|_| CredentialError::Slow(self.setup.deadline))??;
        let text = token::trimmed(&secret).map_err(refused)?;
        let claims = Claims::read(text);
        let (base, claims) = match &account.events_url {
            // Which hosts may be named here is the configuration's business; that a token never travels in the clear is ours.
            Some(url) => {
                allow.scheme(url).map_err(refused)?;
                (without_extras(url), claims.unwrap_or_default())
            }
            None => {
                let claims = claims.map_err(|why| self.unaddressed(why))?;
                (claims.address(allow).map_err(|why| self.unaddressed(why))?, claims)
            }
        };
        let mut header = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| refused(TokenError::Garbled))?;
        header.set_sensitive(true);
        let hash = TokenHash::of(text);
        *self.base.lock() = Some(base.clone());
        *self.last.lock() = Some(hash.clone());
        Ok(Arc::new(Credential { header, base, claims, hash }))
    }

    fn unaddressed(&self, why: TokenError) -> CredentialError {
        let account = self.setup.name.clone();
        match why {
            TokenError::NotJwt(_) | TokenError::NoAddress(_) => CredentialError::Address { account, why },
            TokenError::Empty
            | TokenError::Garbled
            | TokenError::Wrapped(_)
            | TokenError::ServiceAccount
            | TokenError::HostNotAllowed(_)
            | TokenError::Insecure(_) => CredentialError::Token { account, why },
        }
    }

    async fn send(&self, credential: &Credential, question: &Question) -> Result<Answer, SourceError> {
        let url = format!("{}{}", credential.base.as_str().trim_end_matches('/'), question.path);
        let token = credential.header.to_str().unwrap_or_default().trim_start_matches("Bearer ");
        let hidden = Hidden { secrets: &[token], body: question.body.as_deref().unwrap_or_default() };
        let once = async || {
            self.budget.take(question.lane).await;
            let request = self.request(&url, credential, question);
            let bounds = (question.answer_bytes_max, question.turn());
            let exchange = exchange(request, bounds, &hidden, &self.setup.client);
            time::timeout(self.setup.deadline, exchange)
                .await
                .unwrap_or_else(|elapsed| Err(Trouble { cause: Some(elapsed.into()), ..Failure::Interrupted.into() }))
        };
        let outcome = match once().await {
            Err(Trouble { is_to_be_sent_again: true, .. }) => once().await,
            outcome => outcome,
        };
        outcome.map_err(|Trouble { failure, date, cause, .. }| SourceError {
            attempted: question.attempted.clone(),
            on: url,
            failure,
            date,
            remedy: None,
            cause,
        })
    }

    fn request(&self, url: &str, credential: &Credential, question: &Question) -> reqwest::RequestBuilder {
        let client = self.setup.client.now();
        let request = match &question.body {
            Some(body) => client.post(url).header(CONTENT_TYPE, "application/json").body(body.clone()),
            None => client.get(url),
        };
        request
            .header(AUTHORIZATION, credential.header.clone())
            .header(ACCEPT, "application/json")
            // Inflating a page costs more CPU than its bytes are worth on a link to 1Password. An answer that comes gzipped all
            // the same is decoded by the client, and the cap counts what comes out.
            .header(ACCEPT_ENCODING, "identity")
    }

    fn no_credential(&self, question: &Question, cause: CredentialError) -> SourceError {
        let on = self.setup.account.events_url.as_ref().map(|url| without_extras(url).to_string());
        SourceError {
            attempted: question.attempted.clone(),
            on: on.unwrap_or_else(|| "the Events API".into()),
            failure: Failure::NoCredential,
            date: None,
            remedy: if let CredentialError::Secret(error) = &cause { error.remedy.clone() } else { None },
            cause: Some(cause.into()),
        }
    }
}

/// One request and its answer to the last byte.
async fn exchange(
    request: reqwest::RequestBuilder,
    (answer_bytes_max, turn): (usize, http::Turn),
    hidden: &Hidden<'_>,
    client: &http::Either,
) -> Result<Answer, Trouble> {
    let unsent = |error: reqwest::Error| {
        let (failure, is_to_be_sent_again) = (http::failure_of(&error), client.falls_back(&error));
        Trouble { failure, date: None, cause: Some(http::cause_of(error)), is_to_be_sent_again }
    };
    let response = request.send().await.map_err(unsent)?;
    if response.status() != reqwest::StatusCode::OK {
        let date = http::date_of(&response);
        return Err(Trouble { date, ..http::failure_of_status(response, hidden).await.into() });
    }
    let Some(date) = http::date_of(&response) else {
        return Err(Failure::Malformed("it has no readable Date header, the only clock that is believed".into()).into());
    };
    let body = http::read_body_in_turn(response, answer_bytes_max, turn).await?;
    Ok(Answer { body, date })
}

/// Without what could carry a secret into an error text.
fn without_extras(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Fails for addresses that cannot have user information, which have none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

#[async_trait]
impl Source for EventsApi {
    async fn introspect(&self) -> Result<Introspection, SourceError> {
        let path = match self.setup.account.api {
            ApiVersion::V1 => "/api/auth/introspect",
            ApiVersion::V2 => "/api/v2/auth/introspect",
        };
        let attempted = "introspect the token".to_owned();
        let question = Question {
            attempted,
            path: path.into(),
            body: None,
            answer_bytes_max: INTROSPECTION_BYTES_MAX,
            lane: Lane::Live,
        };
        let (answer, credential) = self.ask(&question).await?;
        introspection(&answer, &credential).ok_or_else(|| SourceError {
            attempted: question.attempted,
            on: format!("{}{path}", credential.base.as_str().trim_end_matches('/')),
            failure: Failure::Malformed("it is not an introspection of a token".into()),
            date: Some(answer.date),
            remedy: None,
            cause: None,
        })
    }

    async fn claims(&self) -> Result<Introspection, SourceError> {
        let attempted = "read what the token says of itself".to_owned();
        let question = Question { attempted, path: String::new(), body: None, answer_bytes_max: 0, lane: Lane::Live };
        let credential = self.credential().await.map_err(|cause| self.no_credential(&question, cause))?;
        Ok(credential.claimed())
    }

    async fn page(&self, stream: Stream, request: &PageRequest, lane: Lane) -> Result<Answer, SourceError> {
        let version = match self.setup.account.api {
            ApiVersion::V1 => "v1",
            ApiVersion::V2 => "v2",
        };
        let question = Question {
            attempted: format!("read a page of {stream}"),
            path: format!("/api/{version}/{stream}"),
            body: Some(body_of(request)),
            answer_bytes_max: BODY_BYTES_MAX,
            lane,
        };
        self.ask(&question).await.map(|(answer, _)| answer)
    }

    fn late_lane_is_spent(&self) -> bool {
        self.budget.late_lane_is_spent(time::Instant::now())
    }

    fn budget_left(&self) -> Option<BudgetLeft> {
        Some(self.budget.left(time::Instant::now()))
    }

    /// Unless `events_url` is set, known only after the first call that read a token, and empty before.
    fn place(&self) -> String {
        let base = self.base.lock();
        base.as_ref().map(|url| url.origin().ascii_serialization()).unwrap_or_default()
    }
}

#[async_trait]
impl Renew for EventsApi {
    async fn renew(&self) -> Result<Renewed, Box<dyn std::error::Error + Send + Sync>> {
        let before = self.last.lock().clone();
        // Read before the lock is taken: requests with the token in use go on meanwhile.
        let fresh = self.read_credential().await?;
        let renewed = if before.is_some_and(|hash| hash == fresh.hash) { Renewed::Same } else { Renewed::Changed };
        if renewed == Renewed::Changed {
            *self.credential.lock().await = Some(fresh);
        }
        Ok(renewed)
    }
}

/// The body of a page request. A continuation carries nothing but the cursor: the API refuses the two forms mixed.
fn body_of(request: &PageRequest) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Body<'a> {
        Reset { limit: u32, start_time: String },
        Window { limit: u32, start_time: String, end_time: String },
        Continue { cursor: &'a str },
    }
    let body = match request {
        PageRequest::Reset { start, limit } => Body::Reset { limit: *limit, start_time: rfc3339(*start) },
        PageRequest::Window { from, to, limit } => {
            Body::Window { limit: *limit, start_time: rfc3339(*from), end_time: rfc3339(*to) }
        }
        PageRequest::Continue(cursor) => Body::Continue { cursor: cursor.as_str() },
    };
    // Writing texts and numbers into memory cannot fail.
    serde_json::to_vec(&body).unwrap_or_default()
}

/// With as many fraction digits as the moment has, in threes: a window must not lose its last nanosecond.
fn rfc3339(time: Time) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

impl Credential {
    fn claimed(&self) -> Introspection {
        let Claims { account_uuid, features, expires, .. } = self.claims.clone();
        Introspection {
            account_uuid,
            token: self.hash.clone(),
            features: Features::Claimed(features),
            expires,
            date: None,
        }
    }
}

/// Reads both shapes whatever was asked: version 1 writes `Features`, version 2 `features` (and `account_uuid` since 1.4.1). What is
/// missing or of another type is taken from the claims; a body that is no object is none.
fn introspection(answer: &Answer, credential: &Credential) -> Option<Introspection> {
    let body = answer.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&answer.body);
    let Ok(Value::Object(said)) = serde_json::from_slice(body) else { return None };
    let of = |names: [&str; 2]| names.into_iter().find_map(|name| said.get(name));
    let claimed = credential.claimed();
    let features = of(["features", "Features"]).and_then(Value::as_array).and_then(|list| {
        let texts: Vec<_> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        (list.is_empty() || !texts.is_empty()).then_some(Features::Said(texts))
    });
    let account_uuid = of(["account_uuid", "AccountUUID"]).and_then(Value::as_str).filter(|uuid| !uuid.is_empty());
    if features.is_none() && account_uuid.is_none() && of(["uuid", "UUID"]).is_none() {
        return None;
    }
    Some(Introspection {
        account_uuid: account_uuid.map(str::to_owned).or_else(|| claimed.account_uuid.clone()),
        features: features.unwrap_or_else(|| claimed.features.clone()),
        date: Some(answer.date),
        ..claimed
    })
}
