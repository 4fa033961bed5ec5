//! `opship run` and `opship once`.

use super::signals::stop_on_signals;
use super::{CliError, Exit, Output, exit_of, print};
use crate::agent::run::{self, Outcomes};
use crate::agent::{Trouble, chain};
use crate::config::Config;
use crate::flow::retry::Patience;
use crate::schedule::Schedule;
use crate::store::Store;
use crate::wire::Outside;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often `run` tries to open a store that is away, or whose role has not spread yet.
const STORE_PAUSE: Duration = Duration::from_secs(15);

pub(super) async fn run(config: &Config) -> Result<Exit, CliError> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let outside = Outside::new(config).await?;
    let Some(store) = open_store(&outside, &stop).await else { return Ok(Exit::Done) };
    let agent = outside.agent(store, Patience::RUN, stop).await?;
    let schedule = Schedule::start(&config.schedule.timer).await.map_err(|error| CliError::Failed(chain(&error)))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), feeds = agent.feeds.len(), "shipping");
    run::run(agent, schedule).await.map_err(|error| CliError::Failed(error.to_string()))?;
    tracing::info!("drained; every position is saved");
    Ok(Exit::Done)
}

/// A store that is away at the start is waited for: nothing is polled or posted meanwhile. `None`: asked to end.
async fn open_store(outside: &Outside, stop: &CancellationToken) -> Option<Arc<dyn Store>> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            opened = outside.store() => match opened {
                Ok(store) => return Some(store),
                Err(error) => tracing::error!(error = %chain(&error), again_s = STORE_PAUSE.as_secs(), "the store cannot be opened: nothing is shipped"),
            },
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(STORE_PAUSE) => {}
        }
    }
}

pub(super) async fn once(config: &Config, max_duration: Option<Duration>, output: Output) -> Result<Exit, CliError> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let outside = Outside::new(config).await?;
    let store = outside.store().await?;
    let agent = outside.agent(store, Patience::ONCE, stop.clone()).await?;
    if let Some(after) = max_duration {
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            stop.cancel();
        });
    }
    let outcomes = run::once(agent).await.map_err(|error| CliError::Failed(error.to_string()))?;
    print(&report(&outcomes, output))?;
    Ok(exit(&outcomes))
}

pub(super) fn exit(outcomes: &Outcomes) -> Exit {
    let failed = outcomes.values().filter_map(|outcome| outcome.as_ref().err()).map(exit_of);
    // What a person must do comes first: a refused token and a foreign checkpoint don't heal by trying again.
    let worst = failed.max_by_key(|exit| match exit {
        Exit::Done => 0,
        Exit::DeadLetters => 1,
        Exit::Failed => 2,
        Exit::Usage => 3,
        Exit::Credentials => 4,
    });
    let dead_letters: u64 = outcomes.values().flatten().map(|drained| drained.dead_letters).sum();
    match worst {
        Some(exit) if exit != Exit::Done => exit,
        _ if dead_letters > 0 => Exit::DeadLetters,
        _ => Exit::Done,
    }
}

fn report(outcomes: &Outcomes, output: Output) -> String {
    let lines = outcomes.iter().map(|(feed, outcome)| match (output, outcome) {
        (Output::Text, Ok(d)) => {
            let more = if d.more_pending { ", more pending" } else { "" };
            let (shipped, late, known, dead) = (d.shipped, d.late, d.known, d.dead_letters);
            format!("{feed}: {shipped} shipped ({late} late), {known} known, {dead} dead letters{more}")
        }
        (Output::Text, Err(Trouble::Stopped)) => format!("{feed}: stopped, more pending"),
        (Output::Text, Err(trouble)) => format!("{feed}: {}", chain(trouble)),
        (Output::Json, Ok(d)) => json!({
            "feed": feed.to_string(), "ok": true, "pages": d.pages, "read": d.read, "shipped": d.shipped, "late": d.late,
            "known": d.known, "dead_letters": d.dead_letters, "more_pending": d.more_pending,
        })
        .to_string(),
        (Output::Json, Err(trouble)) => {
            let stopped = matches!(trouble, Trouble::Stopped);
            json!({ "feed": feed.to_string(), "ok": stopped, "more_pending": stopped, "error": chain(trouble) }).to_string()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
