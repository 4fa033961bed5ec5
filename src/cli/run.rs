//! `opship run` and `opship once`.

pub(super) mod notify;
pub(super) mod signals;

use super::{CliError, Exit, Output, exit_of, print};
use crate::admin::{self, Access, Admin, Lock, Pages};
use crate::agent::monitor::board::{Board, Moment, Notice};
use crate::agent::run::{self, Outcomes};
use crate::agent::{Trouble, Waiting, chain};
use crate::config::{Config, Timer, show};
use crate::flow::retry::Patience;
use crate::reload::Reload;
use crate::schedule::Schedule;
use crate::wire::{self, Outside, WireError};
use notify::{Wanted, keep_telling};
use serde_json::json;
use signals::{Hangup, stop_on_signals};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often `run` tries to open a store that is away, or whose role has not spread yet, and to read a secret that is not there yet.
const START_PAUSE: Duration = Duration::from_secs(15);
/// How often secrets that may change are read again.
const SECRETS_AGAIN: Duration = Duration::from_secs(300);
const SECRET_MISSING: &str = "put the secret where its reference points, readable by the user that opship runs as, or correct the \
    reference; it is read again by itself";

pub(super) async fn run(config: &Config) -> Result<Exit, CliError> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let hangup = Hangup::listen()?;
    let outside = Outside::bare(config)?;
    let lock = config.admin.token.as_ref().map(|_| Arc::new(Lock::default()));
    let admin = show_status(config, &outside, lock.clone()).await;
    say_hello(config, admin.as_ref());
    wire::demand(config).warn();
    let (wanted, board) = (Wanted::from(|name| std::env::var_os(name), std::process::id()), outside.board());
    let outcome = tokio::select! {
        biased;
        never = keep_telling(wanted, &board, &stop) => match never {},
        never = hangup.reloads(outside.reload()) => match never {},
        never = reads_again(outside.reload()) => match never {},
        outcome = ship(config, &outside, lock, stop.clone()) => outcome,
    };
    if let Some(admin) = admin {
        admin.stop().await;
    }
    outcome
}

/// Secrets that may change without a word to us.
async fn reads_again(reload: Arc<Reload>) -> Infallible {
    loop {
        tokio::time::sleep(SECRETS_AGAIN).await;
        reload.look_again().await;
    }
}

async fn ship(
    config: &Config,
    bare: &Outside,
    lock: Option<Arc<Lock>>,
    stop: CancellationToken,
) -> Result<Exit, CliError> {
    let Some(outside) = open(bare, &stop, async || bare.complete().await).await? else { return Ok(Exit::Done) };
    if let Some(lock) = lock
        && open(bare, &stop, async || outside.unlock(&lock).await).await?.is_none()
    {
        return Ok(Exit::Done);
    }
    let Some(store) = open(bare, &stop, async || outside.proven_store().await).await? else { return Ok(Exit::Done) };
    let agent = async || outside.agent(store.clone(), Patience::RUN, stop.clone()).await;
    let Some(agent) = open(bare, &stop, agent).await? else { return Ok(Exit::Done) };
    let schedule = Schedule::start(&config.schedule.timer).await.map_err(|error| CliError::Failed(chain(&error)))?;
    tracing::info!(feeds = agent.feeds.len(), "shipping");
    run::run(agent, schedule).await.map_err(|error| CliError::Failed(error.to_string()))?;
    tracing::info!("drained; every position is saved");
    Ok(Exit::Done)
}

/// The admin server. Shipping matters more: a server that cannot start is an error in the log, not the end. Where a token is demanded
/// and not read yet, it says no more than ok or not ok.
async fn show_status(config: &Config, outside: &Outside, lock: Option<Arc<Lock>>) -> Option<Admin> {
    let access = Access::new(config.admin.listen, lock);
    let port = access.port();
    let pages = Pages::new(outside.board(), show::normalised_toml(config), access);
    match admin::start(config.admin.listen, pages).await {
        Ok(admin) => {
            port.get_or_init(|| admin.address.port());
            Some(admin)
        }
        Err(error) => {
            let remedy = error.remedy();
            tracing::error!(error = %chain(&error), remedy, "no status page, no metrics and no probes: shipping goes on without");
            None
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

/// What is away at the start is waited for: a store, or one that is none to rely on, and a secret that is not there yet. Nothing is polled or
/// posted meanwhile. `None`: asked to end.
///
/// # Errors
/// What stands in the configuration itself: no waiting mends that.
async fn open<T>(
    bare: &Outside,
    stop: &CancellationToken,
    attempt: impl AsyncFn() -> Result<T, WireError>,
) -> Result<Option<T>, CliError> {
    let (mut hurry, mut said) = (bare.reload().hurry(), None);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            opened = attempt() => match opened {
                Ok(opened) => {
                    bare.board().meets(None);
                    return Ok(Some(opened));
                }
                Err(error @ (WireError::Http(_) | WireError::Setting(_))) => return Err(error.into()),
                Err(error) => {
                    let notice = obstacle(error);
                    if said.as_ref() != Some(&notice.what) {
                        let (again_s, remedy) = (START_PAUSE.as_secs(), &notice.remedy);
                        tracing::error!(error = %notice.what, again_s, remedy, "{} is not there: nothing is shipped", notice.waiting);
                        said = Some(notice.what.clone());
                    }
                    bare.board().meets(Some(notice));
                }
            },
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(START_PAUSE) => {}
            () = hurry.asked() => {}
        }
    }
}

fn obstacle(error: WireError) -> Notice {
    let what = chain(&error);
    let (waiting, remedy) = match error {
        WireError::Store(error) => (Waiting::Store, Trouble::from(error).remedy()),
        WireError::Secret(error) => (Waiting::Secret, error.remedy.unwrap_or_else(|| SECRET_MISSING.into())),
        WireError::Admin(_) | WireError::Azure(_) => (Waiting::Secret, SECRET_MISSING.into()),
        _ => (Waiting::Store, "run `opship check`".into()),
    };
    Notice { at: Moment::now(), times: 1, what, waiting, remedy }
}

pub(super) async fn once(config: &Config, max_duration: Option<Duration>, output: Output) -> Result<Exit, CliError> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    Hangup::listen()?.ends_with_its_terminal();
    let outside = Outside::new(config).await?;
    wire::demand(config).warn();
    let is_over = Arc::new(AtomicBool::new(false));
    if let Some(after) = max_duration {
        let (stop, is_over) = (stop.clone(), is_over.clone());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            is_over.store(true, Ordering::Relaxed);
            stop.cancel();
        });
    }
    // Nothing is asked of anybody before a store of this host is known to be good.
    let opened = if outside.store_is_by_identity() { None } else { Some(outside.proven_store().await?) };
    tokio::select! {
        () = stop.cancelled() => {}
        () = outside.await_identity(Patience::ONCE.total) => {}
    }
    let store = match opened {
        Some(store) => store,
        None => outside.proven_store().await?,
    };
    let agent = outside.agent(store, Patience::ONCE, stop.clone()).await?;
    let board = agent.board.clone();
    let mut outcomes = run::once(agent).await.map_err(|error| CliError::Failed(error.to_string()))?;
    if is_over.load(Ordering::Relaxed) {
        tell_idle(&board, &mut outcomes);
    }
    print(&report(&outcomes, output))?;
    Ok(exit(&outcomes))
}

/// A feed that was cut before anything was answered is not one that only has more to do.
fn tell_idle(board: &Board, outcomes: &mut Outcomes) {
    let idle: Vec<_> = board.views().filter(|(_, view)| view.progress.is_none()).map(|(id, _)| id.clone()).collect();
    for (_, outcome) in outcomes.iter_mut().filter(|(id, _)| idle.contains(id)) {
        if matches!(outcome, Err(Trouble::Stopped)) {
            let remedy = "give it a longer --max-duration, or none; if that does not help, run `opship check`";
            *outcome = Err(Trouble::Cut { what: "the first answer".into(), waiting: Waiting::Source, remedy });
        }
    }
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
        (Output::Text, Err(Trouble::Stopped)) => {
            format!("{feed}: cut, more pending: the next run ships what is left")
        }
        (Output::Text, Err(trouble)) => format!("{feed}: {}", chain(trouble)),
        (Output::Json, Ok(d)) => json!({
            "feed": feed.to_string(), "ok": true, "pages": d.pages, "read": d.read, "shipped": d.shipped, "late": d.late,
            "known": d.known, "dead_letters": d.dead_letters, "more_pending": d.more_pending, "cut": false,
        })
        .to_string(),
        (Output::Json, Err(trouble)) => {
            let cut = matches!(trouble, Trouble::Stopped | Trouble::Cut { .. });
            json!({ "feed": feed.to_string(), "ok": false, "cut": cut, "more_pending": cut, "error": chain(trouble) }).to_string()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
