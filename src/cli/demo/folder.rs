//! The folder of a demo: made fresh at each start, and nothing in it that is not a demo's is ever touched.

use crate::cli::CliError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

const ROWS: &str = "OnePasswordEventLogs_CL.ndjson";
const LOG: &str = "agent.log";
const STATE: &str = "state";
/// The agent's configuration file, empty but for the words that mark a folder as a demo's.
const CONFIG: &str = "demo.toml";
const MARK: &str = "# Written by `opship demo`: this folder is emptied by the next one.\n";

/// A demo's folder, held by this process and by the agent that it starts.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    /// Absolute: what the agent is told.
    absolute: String,
    /// Locked. The agent inherits it as its stderr, so that an agent that outlives a killed demo keeps the folder from being emptied.
    log: File,
}

impl Place {
    /// Creates the folder, or empties one that an earlier demo left.
    pub(crate) fn prepare(root: &Path) -> Result<Self, CliError> {
        let shown = root.display();
        fs::create_dir_all(root).map_err(|error| unusable(root, &error))?;
        refuse_foreign(root)?;
        let failed = |error: io::Error| CliError::Failed(format!("prepare {shown}: {error}"));
        let log = OpenOptions::new().create(true).append(true).open(root.join(LOG)).map_err(failed)?;
        match log.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CliError::Usage(format!(
                    "{shown} is in use by another demo or by an agent that a killed demo left running: end it, or use another --out"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        fs::write(root.join(CONFIG), MARK).map_err(failed)?;
        log.set_len(0).map_err(failed)?;
        gone(fs::remove_file(root.join(ROWS))).map_err(failed)?;
        gone(fs::remove_dir_all(root.join(STATE))).map_err(failed)?;
        let absolute = std::path::absolute(root).map_err(failed)?.into_os_string().into_string();
        let absolute = absolute.map_err(|_| CliError::Usage(format!("--out {shown} is not UTF-8")))?;
        Ok(Self { root: root.to_owned(), absolute, log })
    }

    pub(crate) fn rows(&self) -> PathBuf {
        self.root.join(ROWS)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join(LOG)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root.join(CONFIG)
    }

    pub(crate) fn state(&self) -> String {
        format!("{}/{STATE}", self.absolute)
    }

    /// The open, locked log.
    pub(crate) fn log_file(&self) -> io::Result<File> {
        self.log.try_clone()
    }
}

fn unusable(root: &Path, error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            CliError::Usage(format!("--out {} or a part of it is a file, not a folder", root.display()))
        }
        _ => CliError::Failed(format!("create {}: {error}", root.display())),
    }
}

/// An empty folder is free; any other must be marked as a demo's and hold nothing else.
fn refuse_foreign(root: &Path) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::Failed(format!("look into {}: {error}", root.display()));
    let names = fs::read_dir(root).map_err(failed)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names: Vec<_> = names.collect::<Result<_, _>>().map_err(failed)?;
    let foreign = if is_marked(root) {
        names.iter().find(|name| ![ROWS, LOG, STATE, CONFIG].iter().any(|ours| *name == ours))
    } else {
        names.first()
    };
    let Some(foreign) = foreign else { return Ok(()) };
    Err(CliError::Usage(format!(
        "{} holds {}, which is not a demo's, and a demo empties its folder: nothing was touched; use another --out",
        root.display(),
        foreign.display()
    )))
}

fn is_marked(root: &Path) -> bool {
    let Ok(file) = File::open(root.join(CONFIG)) else { return false };
    let mut text = String::new();
    file.take(MARK.len() as u64 + 1).read_to_string(&mut text).is_ok() && text == MARK
}

/// What is not there need not be removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(root: &Path) -> String {
        match Place::prepare(root) {
            Err(CliError::Usage(said)) => said,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_demo_s_folder_is_emptied_by_the_next() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::prepare(root.path()).unwrap();
        fs::write(place.rows(), "row").unwrap();
        fs::write(place.log(), "line").unwrap();
        fs::create_dir_all(format!("{}/checkpoints", place.state())).unwrap();
        drop(place);
        let place = Place::prepare(root.path()).unwrap();
        assert!(!place.rows().exists() && !Path::new(&place.state()).exists());
        assert_eq!(fs::read(place.log()).unwrap(), b"");
    }

    #[test]
    fn a_folder_with_a_state_of_its_own_is_not_taken_for_a_demo_s() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(STATE)).unwrap();
        assert!(refusal(root.path()).contains("holds state"));
        assert!(root.path().join(STATE).is_dir() && !root.path().join(CONFIG).exists());
    }

    #[test]
    fn a_foreign_file_in_a_demo_s_folder_is_named_and_nothing_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::prepare(root.path()).unwrap();
        fs::write(place.rows(), "row").unwrap();
        fs::write(root.path().join("thesis.doc"), "years of work").unwrap();
        drop(place);
        assert!(refusal(root.path()).contains("thesis.doc"));
        assert!(root.path().join(ROWS).exists());
    }

    #[test]
    fn a_folder_in_use_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::prepare(root.path()).unwrap();
        let inherited = place.log_file().unwrap();
        drop(place);
        assert!(refusal(root.path()).contains("in use"));
        drop(inherited);
        Place::prepare(root.path()).unwrap();
    }
}
