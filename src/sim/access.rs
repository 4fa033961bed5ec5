//! Who may read and write: events tokens, Azure tokens, the role on the rule.

use super::seal::Seal;
use crate::flow::{Stream, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The audiences of the Logs Ingestion API in the three clouds.
const MONITOR_AUDIENCES: &[&str] =
    &["https://monitor.azure.com", "https://monitor.azure.us", "https://monitor.azure.cn"];

/// The service principal that roles are assigned to.
const PRINCIPAL: &str = "00000000-0000-0000-0000-0000000000a9";

/// What an events token says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EventsClaims {
    #[serde(rename = "1password.com/auuid")]
    pub(super) account: String,
    #[serde(rename = "1password.com/fts")]
    pub(super) features: Vec<Stream>,
    aud: Vec<String>,
    pub(super) sub: String,
    pub(super) iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    iss: String,
    /// Counts the rotations.
    generation: u64,
}

/// What an Azure token says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct AzureClaims {
    aud: String,
    iss: String,
    sub: String,
    /// Tenant, service principal and client id.
    tid: String,
    oid: String,
    appid: String,
    iat: i64,
    exp: i64,
    /// Sets apart tokens of the same second.
    uti: u64,
}

/// Tokens issued, revoked and accepted.
pub(super) struct Access {
    seal: Seal,
    account: String,
    /// Host and port that events tokens are for.
    host: String,
    generation: u64,
    revoked_below: u64,
    removed: BTreeSet<Stream>,
    azure_issued: u64,
    azure_revoked: u64,
    pub(super) role_is_granted: bool,
    /// Log Analytics Reader on the workspace.
    pub(super) reader_is_granted: bool,
}

/// Why an Azure token was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Missing,
    Invalid,
    Expired,
    WrongAudience,
}

impl Access {
    pub(super) fn new(seed: u64, account: String, host: String) -> Self {
        Self {
            seal: Seal::new(seed),
            account,
            host,
            generation: 0,
            revoked_below: 0,
            removed: BTreeSet::new(),
            azure_issued: 0,
            azure_revoked: 0,
            role_is_granted: true,
            reader_is_granted: true,
        }
    }

    /// The events token of the current generation for these features.
    pub(super) fn events_token(&self, features: &[Stream], issued: Time, expires: Option<Time>) -> String {
        let claims = EventsClaims {
            account: self.account.clone(),
            features: features.to_vec(),
            aud: vec![self.host.clone()],
            sub: "OPSHIPSIMULATORINTEGRATION".into(),
            iat: issued.timestamp(),
            exp: expires.map(|at| at.timestamp()),
            iss: "com.1password.b5".into(),
            generation: self.generation,
        };
        self.seal.token("JWT", &claims)
    }

    /// From now on only tokens issued later are good.
    pub(super) const fn rotate(&mut self) {
        self.generation += 1;
        self.revoked_below = self.generation;
    }

    /// No token is good, tokens yet to be issued in this generation included.
    pub(super) const fn revoke(&mut self) {
        self.revoked_below = self.generation + 1;
    }

    /// Every token that was not rotated away is good again.
    pub(super) const fn restore(&mut self) {
        self.revoked_below = self.generation;
    }

    pub(super) fn remove_feature(&mut self, stream: Stream) {
        self.removed.insert(stream);
    }

    pub(super) fn restore_feature(&mut self, stream: Stream) {
        self.removed.remove(&stream);
    }

    /// The claims of a good events token, less the features that were removed.
    pub(super) fn events_claims(&self, token: Option<&str>, now: Time) -> Option<EventsClaims> {
        let mut claims: EventsClaims = self.seal.claims(token?)?;
        let expired = claims.exp.is_some_and(|exp| exp <= now.timestamp());
        if expired || claims.generation < self.revoked_below || !claims.aud.contains(&self.host) {
            return None;
        }
        claims.features.retain(|stream| !self.removed.contains(stream));
        Some(claims)
    }

    /// For the application `client` of `tenant`.
    pub(super) fn azure_token(
        &mut self,
        (tenant, client): (String, String),
        audience: &str,
        now: Time,
        expires: Time,
    ) -> String {
        self.azure_issued += 1;
        let claims = AzureClaims {
            aud: audience.to_owned(),
            iss: format!("https://sts.windows.net/{tenant}/"),
            sub: PRINCIPAL.into(),
            tid: tenant,
            oid: PRINCIPAL.into(),
            appid: client,
            iat: now.timestamp(),
            exp: expires.timestamp(),
            uti: self.azure_issued,
        };
        self.seal.token("JWT", &claims)
    }

    /// Azure tokens issued so far are no longer taken.
    pub(super) const fn revoke_azure(&mut self) {
        self.azure_revoked = self.azure_issued;
    }

    pub(super) fn check_azure(&self, token: Option<&str>, now: Time) -> Result<(), Refused> {
        self.check_azure_for(MONITOR_AUDIENCES, token, now)
    }

    pub(super) fn check_azure_for(&self, audiences: &[&str], token: Option<&str>, now: Time) -> Result<(), Refused> {
        let claims: AzureClaims = self.seal.claims(token.ok_or(Refused::Missing)?).ok_or(Refused::Invalid)?;
        if !audiences.contains(&claims.aud.trim_end_matches('/')) {
            return Err(Refused::WrongAudience);
        }
        if claims.uti <= self.azure_revoked {
            return Err(Refused::Invalid);
        }
        if claims.exp <= now.timestamp() { Err(Refused::Expired) } else { Ok(()) }
    }
}
