//! `opship run` and `opship once`.

use super::notify::{Wanted, keep_telling};
use super::signals::stop_on_signals;
use super::{CliError, Exit, Output, exit_of, print};
use crate::admin::{self, Access, Admin, Pages};
use crate::agent::board::{Moment, Notice};
use crate::agent::run::{self, Outcomes};
use crate::agent::{Trouble, Waiting, chain};
use crate::config::{Config, Timer, show};
use crate::flow::retry::Patience;
use crate::schedule::Schedule;
use crate::store::Store;
use crate::wire::{self, Outside, WireError};
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
    let admin = show_status(config, &outside).await?;
    say_hello(config, admin.as_ref());
    wire::demand(config).warn();
    let (wanted, board) = (Wanted::from(|name| std::env::var_os(name), std::process::id()), outside.board());
    let outcome = tokio::select! {
        biased;
        never = keep_telling(wanted, &board, &stop) => match never {},
        outcome = ship(config, &outside, stop.clone()) => outcome,
    };
    if let Some(admin) = admin {
        admin.stop().await;
    }
    outcome
}

async fn ship(config: &Config, outside: &Outside, stop: CancellationToken) -> Result<Exit, CliError> {
    let Some(store) = open_store(outside, &stop).await else { return Ok(Exit::Done) };
    let agent = outside.agent(store, Patience::RUN, stop).await?;
    let schedule = Schedule::start(&config.schedule.timer).await.map_err(|error| CliError::Failed(chain(&error)))?;
    tracing::info!(feeds = agent.feeds.len(), "shipping");
    run::run(agent, schedule).await.map_err(|error| CliError::Failed(error.to_string()))?;
    tracing::info!("drained; every position is saved");
    Ok(Exit::Done)
}

/// The admin server. Shipping matters more: a server that cannot start is an error in the log, not the end. A token that cannot be read
/// is the end: nobody would notice that a page is missing which should be locked.
async fn show_status(config: &Config, outside: &Outside) -> Result<Option<Admin>, CliError> {
    let token = outside.admin_token().await?;
    let access = Access::new(config.admin.listen, token.as_ref());
    let pages = Pages::new(outside.board(), show::normalised_toml(config), access);
    match admin::start(config.admin.listen, pages).await {
        Ok(admin) => Ok(Some(admin)),
        Err(error) => {
            let remedy = error.remedy();
            tracing::error!(error = %chain(&error), remedy, "no status page, no metrics and no probes: shipping goes on without");
            Ok(None)
        }
    }
}

fn say_hello(config: &Config, admin: Option<&Admin>) {
    let accounts: Vec<_> = config.accounts.keys().map(|name| name.as_str()).collect();
    let schedule = match &config.schedule.timer {
        Timer::Cron(cron) => format!("cron {cron}"),
        Timer::Every(every) => format!("every {}", humantime::format_duration(*every)),
    };
    let admin = admin.map_or_else(|| "none".into(), |admin| format!("http://{}/", admin.address));
    let (version, accounts) = (env!("CARGO_PKG_VERSION"), accounts.join(","));
    tracing::info!(version, accounts, schedule, admin, "opship starts");
}

/// A store that is away at the start, or that is none to rely on, is waited for: nothing is polled or posted meanwhile. `None`: asked to end.
async fn open_store(outside: &Outside, stop: &CancellationToken) -> Option<Arc<dyn Store>> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            opened = outside.proven_store() => match opened {
                Ok(store) => {
                    outside.board().meets(None);
                    return Some(store);
                }
                Err(error) => {
                    let notice = store_notice(error);
                    let (again_s, remedy) = (STORE_PAUSE.as_secs(), &notice.remedy);
                    tracing::error!(error = %notice.what, again_s, remedy, "the store cannot be opened: nothing is shipped");
                    outside.board().meets(Some(notice));
                }
            },
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(STORE_PAUSE) => {}
        }
    }
}

fn store_notice(error: WireError) -> Notice {
    let what = chain(&error);
    let remedy = match error {
        WireError::Store(error) => Trouble::from(error).remedy(),
        _ => "run `opship check`".into(),
    };
    Notice { at: Moment::now(), times: 1, what, waiting: Waiting::Store, remedy }
}

pub(super) async fn once(config: &Config, max_duration: Option<Duration>, output: Output) -> Result<Exit, CliError> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let outside = Outside::new(config).await?;
    wire::demand(config).warn();
    let store = outside.proven_store().await?;
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
