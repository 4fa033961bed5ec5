//! `opship check`: every part of the setup, a line each, with the remedy.

use super::{CliError, Exit, Output, print};
use crate::agent::chain;
use crate::config::{Config, ConfigError};
use crate::flow::retry::{Edge, Verdict, verdict};
use crate::telemetry;
use crate::wire::{Outside, WireError};
use serde_json::json;
use std::time::Instant;

/// What became of one step.
struct Step {
    name: String,
    outcome: Result<String, String>,
    millis: u128,
    refused: bool,
}

pub(super) async fn check(config: Result<Config, ConfigError>, output: Output) -> Result<Exit, CliError> {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let step =
                Step { name: "configuration".into(), outcome: Err(error.to_string()), millis: 0, refused: false };
            show(&step, output)?;
            return Ok(Exit::Usage);
        }
    };
    telemetry::init(&config.log);
    let mut steps = Vec::new();
    let accounts: Vec<_> = config.accounts.keys().map(|name| name.as_str()).collect();
    let found = format!("{} account(s): {}", accounts.len(), accounts.join(", "));
    report(&mut steps, output, Step { name: "configuration".into(), outcome: Ok(found), millis: 0, refused: false })?;
    match Outside::new(&config).await {
        Ok(outside) => look_outside(&config, &outside, output, &mut steps).await?,
        Err(error) => {
            let outcome = Err(chain(&error));
            report(&mut steps, output, Step { name: "clients".into(), outcome, millis: 0, refused: false })?;
        }
    }
    Ok(if steps.iter().any(|step| step.refused) {
        Exit::Credentials
    } else if steps.iter().any(|step| step.outcome.is_err()) {
        Exit::Failed
    } else {
        Exit::Done
    })
}

async fn look_outside(
    config: &Config,
    outside: &Outside,
    output: Output,
    steps: &mut Vec<Step>,
) -> Result<(), CliError> {
    for (name, account) in &config.accounts {
        let begun = Instant::now();
        let (outcome, refused) = introspect(outside, name, &account.streams).await;
        let millis = begun.elapsed().as_millis();
        report(steps, output, Step { name: format!("1Password token of {name}"), outcome, millis, refused })?;
    }
    if let (Some(tokens), crate::config::Sink::Azure { .. }) = (outside.sink_tokens(), &config.sink) {
        let begun = Instant::now();
        let outcome = tokens.token().await.map(|_| "a token was issued".to_owned()).map_err(|error| chain(&error));
        let (millis, refused) = (begun.elapsed().as_millis(), outcome.is_err());
        report(steps, output, Step { name: "Azure identity".into(), outcome, millis, refused })?;
    }
    let begun = Instant::now();
    let (outcome, refused) = match outside.sink() {
        Ok(sink) => match sink.probe().await {
            Ok(proved) => (Ok(proved), false),
            Err(error) => {
                let remedy = remedy_of(verdict(Edge::Sink, &error.failure));
                let refused = matches!(error.failure, crate::flow::retry::Failure::Status { status: 401 | 403, .. });
                (Err(format!("{}{remedy}", chain(&error))), refused)
            }
        },
        Err(error) => (Err(chain(&error)), false),
    };
    report(steps, output, Step { name: "destination".into(), outcome, millis: begun.elapsed().as_millis(), refused })?;
    let begun = Instant::now();
    let outcome = async { outside.store().await?.probe().await.map_err(WireError::from) }.await;
    let refused = matches!(outcome, Err(WireError::Store(crate::store::StoreError::Refused { .. })));
    let outcome = outcome.map_err(|error| chain(&error));
    report(steps, output, Step { name: "store".into(), outcome, millis: begun.elapsed().as_millis(), refused })
}

async fn introspect(
    outside: &Outside,
    name: &crate::flow::AccountName,
    streams: &[crate::flow::Stream],
) -> (Result<String, String>, bool) {
    let source = match outside.source(name) {
        Ok(source) => source,
        Err(error) => return (Err(chain(&error)), false),
    };
    match source.introspect().await {
        Err(error) => {
            let ruled = verdict(Edge::Source, &error.failure);
            let refused = matches!(ruled, Verdict::Unauthorized { .. });
            (Err(format!("{}{}", chain(&error), remedy_of(ruled))), refused)
        }
        Ok(who) => {
            let may = |stream: &&crate::flow::Stream| who.features.iter().any(|feature| feature == stream.as_str());
            let missing: Vec<_> = streams.iter().filter(|stream| !may(stream)).map(|stream| stream.as_str()).collect();
            if missing.is_empty() {
                let expires = who.expires.map_or("the token names no expiry date".into(), |at| format!("expires {at}"));
                return (
                    Ok(format!("{} accepts it for {}; {expires}", source.place(), who.features.join(", "))),
                    false,
                );
            }
            let missing = missing.join(", ");
            let remedy = format!("issue a token with these features, or leave them out of accounts.{name}.streams");
            (Err(format!("the token may not read {missing}: {remedy}")), true)
        }
    }
}

fn remedy_of(ruled: Verdict) -> String {
    match ruled {
        Verdict::Unauthorized { remedy, .. } | Verdict::Halt { remedy } => format!(": {remedy}"),
        Verdict::Retry { .. } | Verdict::Reauthenticate | Verdict::Split | Verdict::DeadLetter | Verdict::Rejected => {
            String::new()
        }
    }
}

fn report(steps: &mut Vec<Step>, output: Output, step: Step) -> Result<(), CliError> {
    show(&step, output)?;
    steps.push(step);
    Ok(())
}

fn show(step: &Step, output: Output) -> Result<Exit, CliError> {
    let (mark, said) = match &step.outcome {
        Ok(said) => ("ok  ", said),
        Err(said) => ("FAIL", said),
    };
    match output {
        Output::Text if step.millis == 0 => print(&format!("{mark} {}: {said}", step.name)),
        Output::Text => print(&format!("{mark} {}: {said} ({} ms)", step.name, step.millis)),
        Output::Json => {
            let millis = u64::try_from(step.millis).unwrap_or(u64::MAX);
            print(&json!({ "step": step.name, "ok": step.outcome.is_ok(), "said": said, "ms": millis }).to_string())
        }
    }
}
