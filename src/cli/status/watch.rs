//! `opship status --watch`: a live table on a terminal, else a line a change.

use super::table::table;
use super::{Teller, Told, exit, json};
use crate::cli::text::Look;
use crate::cli::{CliError, Exit, Output, print};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How often the process is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The store is asked less often: each look reads every checkpoint.
const LOOK_AT_STORE_EVERY: Duration = Duration::from_secs(10);
const HOME_AND_CLEAR: &str = "\x1b[H\x1b[J";

/// Looks until a signal or `q`; ends as the last look would.
pub(crate) async fn watch(teller: &Teller<'_>, output: Output) -> Result<Exit, CliError> {
    let failed = |error| CliError::Failed(format!("listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let is_live = std::io::stdout().is_terminal() && output == Output::Text;
    let screen = is_live.then(Screen::open);
    let mut quit = if is_live { keys() } else { mpsc::channel(1).1 };
    let mut last: Option<Told> = None;
    loop {
        let (pause, told) = tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            looked = look(teller) => looked?,
        };
        let changed = last.as_ref().is_none_or(|last| last.status.summary != told.status.summary || last.by != told.by);
        match output {
            Output::Text if is_live => {
                let screen = table(&told, Look::of(&std::io::stdout()));
                print(&format!("{HOME_AND_CLEAR}{screen}\nq or Ctrl-C ends this\n"))?;
            }
            Output::Text if changed => {
                print(&format!(
                    "{} {} ({})",
                    told.status.now.format("%Y-%m-%dT%H:%M:%SZ"),
                    told.status.summary,
                    told.by
                ))?;
            }
            Output::Json if changed => _ = print(&json(&told.status)?)?,
            Output::Text | Output::Json => {}
        }
        last = Some(told);
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            Some(()) = quit.recv() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    drop(screen);
    Ok(last.map_or(Exit::Failed, |told| exit(&told.status)))
}

/// A process that goes away while it is watched is no end: the store tells until it is back.
async fn look(teller: &Teller<'_>) -> Result<(Duration, Told), CliError> {
    if teller.is_for_the_store() {
        return Ok((LOOK_AT_STORE_EVERY, teller.ask_store(false).await?));
    }
    match teller.ask_process().await {
        Ok(told) => Ok((LOOK_EVERY, told)),
        Err(silence) => {
            let (why, nobody_answers) = silence.told()?;
            let told = teller.ask_store(nobody_answers).await?;
            Ok((LOOK_EVERY * 5, Told { by: format!("{}, because {why}", told.by), ..told }))
        }
    }
}

/// Reports each `q`. The thread ends with the process: nothing can wake it from its read.
fn keys() -> mpsc::Receiver<()> {
    let (tell, quit) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock().bytes();
        while let Some(Ok(key)) = input.next() {
            if matches!(key, b'q' | b'Q') && tell.blocking_send(()).is_err() {
                return;
            }
        }
        // Without a keyboard Ctrl-C is left: the sender stays, or the end of input would look like a `q`.
        std::thread::park();
        drop(tell);
    });
    quit
}

/// The terminal while a live table is on it: keys come one by one and unseen, the cursor is hidden. As before when dropped.
struct Screen(Option<Termios>);

impl Screen {
    fn open() -> Self {
        let before = tcgetattr(std::io::stdin()).ok();
        if let Some(mut modes) = before.clone() {
            // Signals stay: Ctrl-C ends us.
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            // Where it cannot be set, q needs Enter.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &modes);
        }
        let _ = print("\x1b[?1049h\x1b[?25l");
        Self(before)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = print("\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
