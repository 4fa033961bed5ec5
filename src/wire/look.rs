//! What `check` asks of the outside world beyond what the agent needs: each question by itself, nothing kept, nothing changed.

use super::{Outside, WireError};
use crate::azure::{self, Passport, Tokens, Who, places};
use crate::config::{self, Config};
use crate::flow::Time;
use crate::flow::retry::Failure;
use crate::flow::words::Hidden;
use crate::http::{self, Glimpse};
use crate::secret::{self, SecretRef};
use crate::sink::SinkError;
use crate::sink::ndjson::Ndjson;
use crate::source::token::{self, Allow, Claims};
use crate::store::azure_blob::{AzureBlobStore, Sas};
use crate::store::file::FileStore;
use crate::store::{Store, StoreError, survey};
use secrecy::SecretString;
use std::sync::Arc;
use url::Url;

pub use crate::store::survey::Ground;

/// What an address answered to somebody without a credential.
pub struct Greeting {
    /// The proxy that the way goes by.
    pub proxy: Option<String>,
    pub glimpse: Option<Glimpse>,
    /// The answer's own clock, when there was an answer; any status will do.
    pub answer: Result<Option<Time>, (Failure, String)>,
}

impl Outside {
    /// As [`Self::new`], but an Azure identity that cannot be set up is told beside the rest, which can be looked at all the same.
    ///
    /// # Errors
    /// A CA file or proxy that cannot be used, or a setting that is not available.
    pub async fn look(config: &Config) -> Result<(Self, Option<WireError>), WireError> {
        match Self::new(config).await {
            Ok(outside) => Ok((outside, None)),
            Err(trouble @ (WireError::Azure(_) | WireError::Secret(_))) => Ok((Self::bare(config)?, Some(trouble))),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// A reference that leads nowhere.
    pub async fn secret(&self, reference: &SecretRef) -> Result<SecretString, WireError> {
        Ok(self.secrets.read(reference).await?)
    }

    /// The permissions of a secret file that others may read.
    pub fn open_to_others(&self, reference: &SecretRef) -> Option<u32> {
        secret::open_to_others(reference)
    }

    /// What a token says about itself, and the address it asks for. Errors are texts without any part of the token.
    ///
    /// # Errors
    /// A text that is no token.
    pub fn claims(&self, token: &SecretString) -> Result<(Claims, Result<Url, String>), String> {
        let text = token::trimmed(token).map_err(|error| error.to_string())?;
        let claims = Claims::read(text).map_err(|error| error.to_string())?;
        let address = claims.address(&Allow::from(&self.config.delivery)).map_err(|error| error.to_string());
        Ok((claims, address))
    }

    /// The proxy that requests to this address go by.
    pub fn proxy_for(&self, url: &Url) -> Option<String> {
        http::proxy_for(&self.config.http, url)
    }

    /// Says hello without any credential.
    pub async fn greet(&self, url: &Url) -> Greeting {
        let mut root = url.clone();
        root.set_path("/");
        root.set_query(None);
        let answered = async {
            let answer = self.http.get(root.clone()).send().await;
            let told = |error: reqwest::Error| (http::failure_of(&error), crate::agent::chain(&*http::cause_of(error)));
            let answer = answer.map_err(told)?;
            match answer.status().as_u16() {
                407 => {
                    Err((http::failure_of_status(answer, &Hidden::default()).await, "the proxy wants a login".into()))
                }
                _ => Ok(http::date_of(&answer)),
            }
        };
        let (answer, glimpse) = tokio::join!(answered, http::glimpse(&self.config.http, &root));
        Greeting { proxy: http::proxy_for(&self.config.http, &root), glimpse: glimpse.ok().flatten(), answer }
    }

    /// Who asks Azure for tokens, and the tokens of the service that they are needed for most; `None` where none are needed.
    pub fn identity(&self) -> Option<(Who, Option<Tokens>)> {
        let Config { azure, sink, store, .. } = &self.config;
        if !super::wants_azure(&self.config) {
            return None;
        }
        let places = places(azure.cloud);
        let scope = match (sink, store) {
            (config::Sink::Azure { .. }, _) => places.monitor_scope,
            (_, config::Store::AzureBlob { container }) if !container.has_sas() => places.storage_scope,
            _ => places.key_vault_scope,
        };
        Some((azure::who(azure), self.credential.clone().map(|credential| Tokens::new(credential, scope))))
    }

    /// Where the Azure identity gets its tokens, when that is a place on the network.
    pub fn authority(&self) -> Option<Url> {
        let by_network =
            !matches!(self.config.azure.credential, config::Credential::ManagedIdentity | config::Credential::AzureCli);
        by_network.then(|| Url::parse(places(self.config.azure.cloud).authority).ok()).flatten()
    }

    pub fn passport(&self, token: &SecretString) -> Passport {
        Passport::read(token)
    }

    /// The SAS of a blob store.
    pub fn sas(&self) -> Option<Sas> {
        match &self.config.store {
            config::Store::AzureBlob { container } => Sas::of(container),
            config::Store::File { .. } | config::Store::Unset => None,
        }
    }

    /// The store as it stands; `None` when no agent has used it yet. Nothing is created.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn store_as_it_is(&self) -> Result<Option<Arc<dyn Store>>, WireError> {
        Ok(match &self.config.store {
            config::Store::File { path } if !survey::is_used(path) => None,
            config::Store::File { path } => Some(Arc::new(FileStore::open(path).await?)),
            config::Store::AzureBlob { container } => {
                let found = AzureBlobStore::look(container, self.credential.clone(), self.http.clone()).await?;
                found.map(|store| Arc::new(store) as Arc<dyn Store>)
            }
            config::Store::Unset => return Err(WireError::Setting("store.kind is not set".into())),
        })
    }

    /// Proves a folder that is not in use yet as a store; `None` for a container.
    pub async fn rehearse(&self) -> Option<Result<String, StoreError>> {
        match &self.config.store {
            config::Store::File { path } => Some(survey::rehearse(path).await),
            config::Store::AzureBlob { .. } | config::Store::Unset => None,
        }
    }

    /// The folder of a file store.
    pub fn ground(&self) -> Option<Ground> {
        match &self.config.store {
            config::Store::File { path } => Some(survey::ground(path)),
            config::Store::AzureBlob { .. } | config::Store::Unset => None,
        }
    }

    /// Proves the file of rows, where the sink is one.
    pub fn rows_file(&self) -> Option<Result<String, SinkError>> {
        match &self.config.sink {
            config::Sink::Ndjson { path, stream } => Some(Ndjson::look(path, stream)),
            config::Sink::Azure { .. } | config::Sink::Unset => None,
        }
    }

    /// What identifies the destination in checkpoints, without opening it.
    ///
    /// # Errors
    /// A sink that cannot be set up.
    pub fn sink_place(&self) -> Result<String, WireError> {
        match &self.config.sink {
            config::Sink::Ndjson { path, stream } => Ok(Ndjson::place_of(path, stream)),
            config::Sink::Azure { .. } | config::Sink::Unset => Ok(self.sink()?.place()),
        }
    }
}
