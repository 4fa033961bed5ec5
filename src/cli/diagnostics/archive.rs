//! The archive of `opship diagnostics`: parts, manifest, and a file that is there whole or not at all.

use super::scrub::Scrub;
use crate::cli::CliError;
use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of a part; the rest is cut off, logs at their beginning.
const PART_BYTES_MAX: usize = 4 << 20;
/// The owner alone reads it.
const MODE: u32 = 0o600;

/// One file of the archive.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    holds: &'static str,
    /// Where the running agent has it.
    pub(crate) path: &'static str,
}

impl Part {
    pub(crate) const VERSION: Self =
        Self::here("version.json", "version, build, platform, names of the variables set (no values)");
    pub(crate) const CONFIG: Self =
        Self::here("config.toml", "every setting in effect; secrets, SAS and proxy login hidden");
    pub(crate) const AS_WRITTEN: Self = Self::here(
        "config-as-written.toml",
        "the refused file line by line; hidden is all but its known keys, numbers, switches, durations and words of a closed list",
    );
    pub(crate) const CHECK: Self = Self::here("check.jsonl", "`opship check --output json`, run now");
    pub(crate) const CHECKPOINTS: Self = Self::here(
        "checkpoints.jsonl",
        "`opship checkpoint show --output json`: positions, counts, doubts; ids are hashes",
    );
    pub(crate) const STORE: Self = Self::here(
        "store.json",
        "number, size and age of the stored documents, and the hours of each ledger; no content",
    );
    pub(crate) const LETTERS: Self = Self::here(
        "dead-letters.jsonl",
        "which letters there are, why and since when; neither the events nor their uuids",
    );
    pub(crate) const LOGS: Self =
        Self::of_agent("logs.jsonl", "the last 1,000 log lines of the running agent", "/logs.jsonl");
    pub(crate) const METRICS: Self = Self::of_agent("metrics.txt", "metrics of the running agent", "/metrics");
    pub(crate) const STATUS: Self = Self::of_agent("status.json", "status of the running agent", "/status.json");

    const fn here(name: &'static str, holds: &'static str) -> Self {
        Self { name, holds, path: "" }
    }

    const fn of_agent(name: &'static str, holds: &'static str, path: &'static str) -> Self {
        Self { name, holds, path }
    }
}

/// The parts so far, already scrubbed.
pub(crate) struct Archive {
    name: String,
    made: DateTime<Utc>,
    scrub: Scrub,
    files: Vec<(&'static str, String)>,
    manifest: String,
    missing: Vec<&'static str>,
}

impl Archive {
    pub(crate) fn new(name: String, made: DateTime<Utc>, scrub: Scrub) -> Self {
        let manifest = format!(
            "{name}, made by opship {}\n\n\
             Left out everywhere: events and everything that was in them (names, mail and IP addresses), tokens, secrets, SAS queries,\n\
             proxy logins. What looked like one of these all the same was replaced by ***; how often stands behind each file.\n\n",
            env!("CARGO_PKG_VERSION")
        );
        Self { name, made, scrub, files: Vec::new(), manifest, missing: Vec::new() }
    }

    /// Adds a part, or why it is not there.
    pub(crate) fn add(&mut self, part: Part, content: Result<String, String>) {
        let Part { name, holds, .. } = part;
        let line = match content {
            Ok(text) => {
                let (text, cut) = bounded(&text);
                let (text, hidden) = self.scrub.text(text);
                let cut = if cut > 0 { format!("; the first {cut} bytes were cut off") } else { String::new() };
                let line = format!("{} bytes, {hidden} hidden{cut}\n  {holds}", text.len());
                self.files.push((name, text));
                line
            }
            Err(why) => {
                self.missing.push(name);
                format!("MISSING: {}\n  would hold: {holds}", self.scrub.text(&why).0)
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.manifest, "{name}: {line}\n");
    }

    pub(crate) fn missing(&self) -> Vec<&'static str> {
        self.missing.clone()
    }

    fn packed(&self) -> io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let manifest = ("MANIFEST.txt", self.manifest.as_str());
        let files = self.files.iter().map(|(name, text)| (*name, text.as_str()));
        for (name, text) in std::iter::once(manifest).chain(files) {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(MODE);
            header.set_mtime(u64::try_from(self.made.timestamp()).unwrap_or_default());
            tar.append_data(&mut header, format!("{}/{name}", self.name), text.as_bytes())?;
        }
        tar.into_inner()?.finish()
    }
}

/// The end of a text that is too long, from the beginning of a line on, and how much is missing.
fn bounded(text: &str) -> (&str, usize) {
    let from = text.len().saturating_sub(PART_BYTES_MAX);
    if from == 0 {
        return (text, 0);
    }
    let line =
        text.bytes().enumerate().skip(from).find(|(_, byte)| *byte == b'\n').map_or(text.len(), |(at, _)| at + 1);
    (text.get(line..).unwrap_or_default(), line)
}

/// Where the archive goes.
pub(crate) enum Destination {
    Stdout,
    File(PathBuf),
}

impl Destination {
    /// Refuses what would fail at the end, before anything is collected.
    pub(crate) fn prepare(out: Option<PathBuf>, name: &str) -> Result<Self, CliError> {
        let path = out.unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
        if path.as_os_str() == "-" {
            if io::stdout().is_terminal() {
                return Err(CliError::Usage(
                    "an archive is nothing for a terminal: redirect stdout into a file".into(),
                ));
            }
            return Ok(Self::Stdout);
        }
        if path.symlink_metadata().is_ok() {
            return Err(taken(&path));
        }
        let folder = folder_of(&path);
        if !folder.is_dir() {
            return Err(CliError::Usage(format!(
                "there is no folder {}: make it, or choose another --out",
                folder.display()
            )));
        }
        Ok(Self::File(path))
    }

    /// Writes it whole or not at all. The path, where there is one.
    pub(crate) fn write(self, archive: Archive) -> Result<Option<PathBuf>, CliError> {
        let bytes = archive.packed().map_err(|error| CliError::Failed(format!("pack the archive: {error}")))?;
        match self {
            Self::Stdout => {
                let written = io::stdout().lock().write_all(&bytes);
                written.map_err(|error| CliError::Failed(format!("write to stdout: {error}")))?;
                Ok(None)
            }
            Self::File(path) => {
                let part = path.with_file_name(format!(".{}.{}.part", archive.name, std::process::id()));
                let written = write_new(&part, &bytes).and_then(|()| publish(&part, &path));
                // By now the archive has its own name, or there is none.
                let _ = std::fs::remove_file(&part);
                match written {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken(&path)),
                    Err(error) => Err(CliError::Failed(format!(
                        "write {}: {error}; is there free space, and may this user write there? --out names another place",
                        path.display()
                    ))),
                    Ok(()) => Ok(Some(path)),
                }
            }
        }
    }
}

fn taken(path: &Path) -> CliError {
    CliError::Usage(format!("{} is there already and is not overwritten: choose another --out", path.display()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives the whole file its name, unless that is taken; not every network share has hard links.
fn publish(part: &Path, path: &Path) -> io::Result<()> {
    match std::fs::hard_link(part, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && path.symlink_metadata().is_err() => {
            std::fs::rename(part, path)
        }
        linked => linked,
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_too_long_keeps_its_end_from_a_line_on() {
        let text = format!("{}\nlast\n", "x".repeat(PART_BYTES_MAX));
        let (kept, cut) = bounded(&text);
        assert_eq!((kept, cut), ("last\n", PART_BYTES_MAX + 1));
        assert_eq!(bounded("short"), ("short", 0));
    }
}
