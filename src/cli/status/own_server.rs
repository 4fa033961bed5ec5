//! The admin token is sent to a server of opship's own alone: it proves first that it knows the token itself.

use crate::admin::proof::{CHALLENGE, PROOF, Prover};
use secrecy::{ExposeSecret, SecretString};
use std::net::SocketAddr;
use std::time::Duration;

/// A token, and what its own server is known by.
pub(crate) struct AdminToken {
    token: SecretString,
    prover: Prover,
}

/// Why the token was not sent.
pub(crate) enum Unproven {
    Silent(reqwest::Error),
    /// It proves nothing: something else, or an opship without a token.
    Stranger,
    /// It proves something else: another token, or a process at another port that answers through this one.
    Other,
}

impl AdminToken {
    pub(crate) fn new(token: SecretString) -> Self {
        let prover = Prover::new(&token);
        Self { token, prover }
    }

    /// The request with the token, once the server at this address has proven that it knows it.
    pub(crate) async fn put_on(
        &self,
        request: reqwest::RequestBuilder,
        client: &reqwest::Client,
        address: SocketAddr,
        deadline: Duration,
    ) -> Result<reqwest::RequestBuilder, Unproven> {
        let challenge = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        // A probe: it is answered without a token.
        let ask = client.get(format!("http://{address}/livez")).header(CHALLENGE, &challenge).timeout(deadline);
        let answer = ask.send().await.map_err(Unproven::Silent)?;
        let proof = answer.headers().get(PROOF).and_then(|proof| proof.to_str().ok()).ok_or(Unproven::Stranger)?;
        if !self.prover.is_proof(proof, &challenge, address.port()) {
            return Err(Unproven::Other);
        }
        Ok(request.bearer_auth(self.token.expose_secret().trim()))
    }
}
