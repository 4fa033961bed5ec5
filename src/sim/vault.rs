//! A Key Vault: secrets by name, the right to read them, its firewall.

use super::access::Refused;
use super::call::Call;
use super::fault::Refusal;
use super::reply::Reply;
use super::world::{World, held};
use axum::http::Method;
use serde_json::json;
use std::collections::BTreeMap;

/// The audiences of vaults in the three clouds.
const AUDIENCES: &[&str] = &["https://vault.azure.net", "https://vault.usgovcloudapi.net", "https://vault.azure.cn"];

/// Why the vault gives nothing, whatever is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VaultDoor {
    #[default]
    Open,
    /// The identity has no role on the secret.
    NoRole,
    /// The vault's firewall does not let this address in.
    Firewall,
}

/// What is in the vault.
#[derive(Debug, Default)]
pub(super) struct Vault {
    pub(super) door: VaultDoor,
    pub(super) secrets: BTreeMap<String, String>,
}

impl World {
    /// Puts a secret into the vault, or replaces it; an empty one is possible.
    pub fn keep_secret(&self, name: &str, value: &str) {
        held(&self.vault).secrets.insert(name.into(), value.into());
    }

    /// From now on whoever asks meets this.
    pub fn set_vault_door(&self, door: VaultDoor) {
        held(&self.vault).door = door;
    }
}

/// Answers `GET /secrets/NAME[/VERSION]`.
pub(super) fn answer(world: &World, call: &Call) -> Reply {
    if call.head.method != Method::GET {
        return Reply::wrong_method();
    }
    if let Err(why) = held(&world.access).check_azure_for(AUDIENCES, call.head.bearer(), world.now()) {
        return refuse(world, &refusal(401, "Unauthorized", words_of(why)));
    }
    let vault = held(&world.vault);
    match vault.door {
        VaultDoor::Open => {}
        VaultDoor::NoRole => return refuse(world, &Refusal::status(403)),
        VaultDoor::Firewall => {
            let message = "Client address is not authorized and caller is not a trusted service.\r\nClient address: 192.0.2.1\r\nVault: simulated";
            return refuse(world, &refusal(403, "Forbidden", message));
        }
    }
    let name = call.head.path.trim_start_matches("/secrets/").split('/').next().unwrap_or_default();
    match vault.secrets.get(name) {
        Some(value) => {
            Reply::json(200, &json!({ "value": value, "id": call.head.path, "attributes": { "enabled": true } }))
        }
        None => refuse(world, &Refusal::status(404)),
    }
}

fn words_of(why: Refused) -> &'static str {
    match why {
        Refused::Missing => "AKV10000: Request is missing a Bearer or PoP token.",
        Refused::Invalid => "AKV10046: Unable to resolve the key used for signature validation.",
        Refused::Expired => "AKV10042: The token is expired.",
        Refused::WrongAudience => "AKV10022: Invalid audience.",
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Refusal {
    Refusal { code: Some(code.into()), message: Some(message.into()), ..Refusal::status(status) }
}

/// An error answer in the shape of the service.
pub(super) fn refuse(world: &World, refusal: &Refusal) -> Reply {
    let (code, message, inner) = match refusal.status {
        401 => ("Unauthorized", "The token is not accepted.", None),
        403 => (
            "Forbidden",
            "Caller is not authorized to perform action on resource.\r\nAction: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\nAssignment: (not found)",
            Some("ForbiddenByRbac"),
        ),
        404 => ("SecretNotFound", "A secret with (name/id) was not found in this key vault.", None),
        429 => ("Throttled", "Request was not processed because too many requests were received.", None),
        _ => ("InternalServerError", "The vault could not process the request.", None),
    };
    let (code, message) = (refusal.code.as_deref().unwrap_or(code), refusal.message.as_deref().unwrap_or(message));
    let mut error = json!({ "code": code, "message": message });
    if let (Some(inner), Some(fields)) = (inner.filter(|_| refusal.message.is_none()), error.as_object_mut()) {
        fields.insert("innererror".into(), json!({ "code": inner }));
    }
    Reply::json(refusal.status, &json!({ "error": error })).refused_with(refusal, world.now())
}
