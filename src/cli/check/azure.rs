//! The steps of `check` about the destination: the identity that posts, and the rule or the file that takes rows.

use super::network::{Place, long};
use super::step::{Finding, Pending, Plan};
use crate::agent::chain;
use crate::azure::{AzureError, Passport, Tokens};
use crate::cli::Exit;
use crate::config::{self, Config};
use crate::flow::retry::Failure;
use crate::sink::SinkError;
use crate::wire::{Outside, WireError};
use std::sync::Arc;

const AGAIN: &str = "check again in a minute; opship itself waits and tries again";

/// Where rows go.
pub(crate) struct Destination {
    pub(crate) config: Arc<Config>,
    pub(crate) outside: Arc<Outside>,
}

impl Destination {
    /// The identity for Azure, where one is needed.
    pub(crate) fn identity<'a>(
        &self,
        trouble: Option<WireError>,
        needs: impl IntoIterator<Item = &'a Pending>,
    ) -> Option<Pending> {
        let (who, tokens) = self.outside.identity()?;
        let (config, outside) = (self.config.clone(), self.outside.clone());
        Some(Plan::new("identity", "").needs(needs).run(async move {
            match (trouble, tokens) {
                (Some(trouble), _) => {
                    let remedy = "correct [azure]: the credential and the keys that it needs";
                    Finding::fail(Exit::Usage, chain(&trouble), remedy)
                }
                (None, Some(tokens)) => match asked(&tokens, &outside).await {
                    Ok(passport) => Finding::ok(format!("{who}: {}", described(&passport, &config))),
                    Err(error) => no_token(&error),
                },
                (None, None) => Finding::fail(Exit::Usage, "no identity is set up", "set azure.credential"),
            }
        }))
    }

    /// The address of the rule's endpoint.
    pub(crate) fn place(&self) -> Option<Place> {
        match &self.config.sink {
            config::Sink::Azure { endpoint, .. } => Some(Place::of("rule", endpoint.clone(), "sink.endpoint")),
            config::Sink::Ndjson { .. } | config::Sink::Unset => None,
        }
    }

    /// Whether the rule, or the file, would take rows.
    pub(crate) fn accepts(&self, connection: Option<&Pending>, identity: Option<&Pending>) -> Pending {
        let (config, outside) = (self.config.clone(), self.outside.clone());
        match &self.config.sink {
            config::Sink::Azure { .. } => Plan::new("rule", "")
                .needs(connection.into_iter().chain(identity))
                .run(async move { posted(&config, &outside).await }),
            config::Sink::Ndjson { .. } | config::Sink::Unset => Plan::new("rows", "").run(async move {
                match outside.rows_file() {
                    Some(Ok(said)) => Finding::ok(said),
                    Some(Err(error)) => Finding::fail(
                        Exit::Failed,
                        chain(&error),
                        "let this user write there, free space, or correct sink.path",
                    ),
                    None => Finding::fail(Exit::Usage, "sink.kind is not set", "set sink.kind"),
                }
            }),
        }
    }
}

async fn asked(tokens: &Tokens, outside: &Outside) -> Result<Passport, AzureError> {
    Ok(outside.passport(&tokens.token().await?))
}

fn described(passport: &Passport, config: &Config) -> String {
    let Passport { tenant, object, application, expires } = passport;
    // A configured one stands in the name already.
    let application = &application.clone().filter(|_| config.azure.client_id.is_none());
    let named = [("client id", application), ("object id", object), ("tenant", tenant)];
    let named = named.iter().filter_map(|(what, id)| Some(format!("{what} {}", id.as_ref()?)));
    let expires = expires.map(|end| format!("token good for {}", long(end - chrono::Utc::now())));
    let said: Vec<String> = named.chain(expires).collect();
    if said.is_empty() { "a token was issued".into() } else { said.join(", ") }
}

fn no_token(error: &AzureError) -> Finding {
    let exit = match error {
        refused if refused.is_refusal() => Exit::Credentials,
        setting if setting.is_a_setting() => Exit::Usage,
        _ => Exit::Failed,
    };
    match error {
        AzureError::NoToken { who, failure, remedy, cause, .. } => {
            let cause = cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
            Finding::fail(exit, brief(&format!("{who} gets no token: {failure}{cause}")), *remedy)
        }
        other => Finding::fail(exit, chain(other), "correct [azure], or try again"),
    }
}

/// Without the numbers that Entra ID appends for its own support.
fn brief(text: &str) -> String {
    text.split(" Trace ID:").next().unwrap_or(text).to_owned()
}

async fn posted(config: &Config, outside: &Outside) -> Finding {
    let config::Sink::Azure { endpoint, dcr_immutable_id, stream, .. } = &config.sink else {
        return Finding::skipped("sink.kind azure");
    };
    let probed = match outside.sink() {
        Ok(sink) => sink.probe().await,
        Err(error) => return Finding::fail(Exit::Usage, chain(&error), "correct [sink]"),
    };
    let Err(error) = probed else {
        let said = format!("{dcr_immutable_id} takes rows for {stream}: endpoint, role, rule and stream are right");
        return Finding::ok(said);
    };
    let host = endpoint.host_str().unwrap_or_default();
    match &error.failure {
        Failure::Status { status: 401, .. } => Finding::fail(
            Exit::Credentials,
            format!("{host} does not accept the identity's token (401)"),
            "check that azure.cloud is the cloud of sink.endpoint, and azure.tenant_id the rule's tenant",
        ),
        Failure::Status { status: 403, .. } => no_role(outside, dcr_immutable_id).await,
        Failure::Status { status: status @ (400 | 404), .. } => not_there(*status, &error, &config.sink),
        Failure::Status { status: 408 | 429 | 500.., .. } => Finding::fail(Exit::Failed, answered(&error), AGAIN),
        _ => Finding::fail(Exit::Failed, chain(&error), AGAIN),
    }
}

async fn no_role(outside: &Outside, rule: &str) -> Finding {
    let object = match outside.identity() {
        Some((_, Some(tokens))) => asked(&tokens, outside).await.ok().and_then(|passport| passport.object),
        Some((_, None)) | None => None,
    };
    let who = object.map(|id| format!(" (object id {id})")).unwrap_or_default();
    Finding::fail(
        Exit::Credentials,
        format!("the identity{who} may not post to {rule} (403)"),
        "give it the role \"Monitoring Metrics Publisher\" with the data collection rule as scope; a new role takes up to 30 \
         minutes to work, so after that wait and check again",
    )
}

/// The codes are not documented: the words tell a stream from a rule where they name one of them, else the status does.
fn not_there(status: u16, error: &SinkError, sink: &config::Sink) -> Finding {
    let config::Sink::Azure { endpoint, dcr_immutable_id, stream, .. } = sink else {
        return Finding::skipped("sink.kind azure");
    };
    let (answer, host) = (answered(error), endpoint.host_str().unwrap_or_default());
    let words = answer.to_ascii_lowercase();
    let is_of_the_stream = words.contains("stream") && (status == 400 || !words.contains("rule"));
    match (status, is_of_the_stream) {
        (_, true) => Finding::fail(
            Exit::Usage,
            format!("the rule {dcr_immutable_id} has no stream {stream} ({answer})"),
            "correct sink.stream: it must stand under the rule's streamDeclarations, and in one of its dataFlows",
        ),
        (404, false) => Finding::fail(
            Exit::Usage,
            format!("{host} knows no data collection rule {dcr_immutable_id} (404)"),
            "correct sink.dcr_immutable_id (the rule's properties.immutableId) or sink.endpoint (of the same rule, or of an \
             endpoint that is linked to it); if the rule was deleted, deploy it again",
        ),
        (_, false) => Finding::fail(
            Exit::Usage,
            format!("the rule {dcr_immutable_id} takes nothing for the stream {stream} ({answer})"),
            "check sink.stream and sink.dcr_immutable_id against the rule",
        ),
    }
}

/// Status and words of the service, without what was attempted.
fn answered(error: &SinkError) -> String {
    error.failure.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::words::{Shape, Words};

    #[test]
    fn a_rule_and_a_stream_are_told_apart_as_far_as_the_answers_go() {
        let sink = config::Sink::Azure {
            endpoint: "https://a.ingest.monitor.azure.com".parse().unwrap(),
            dcr_immutable_id: "dcr-1".into(),
            stream: "Custom-X_CL".into(),
            gzip_level: 1,
        };
        let of = |status, code: &str, message: &str| {
            let (code, message) = (code.into(), Words::said(Shape::Azure, message));
            let failure = Failure::Status { status, code, message, retry_after: None };
            let error = SinkError { attempted: "probe".into(), on: "there".into(), failure, cause: None };
            not_there(status, &error, &sink).said
        };
        for (status, code, message) in
            [(400, "InvalidStream", ""), (400, "BadRequest", "Unknown stream"), (404, "NotFound", "Stream not found")]
        {
            assert!(of(status, code, message).contains("dcr-1 has no stream Custom-X_CL"), "{status} {code} {message}");
        }
        for message in ["", "Data collection rule with immutable Id 'dcr-1' not found.", "<html>404</html>"] {
            assert!(of(404, "NotFound", message).contains("knows no data collection rule dcr-1"), "{message}");
        }
        assert!(of(400, "", "Bad Request").contains("takes nothing for the stream Custom-X_CL"));
    }
}
