//! Reads the ndjson sink's own files back, line by line.

use super::{Column, Ids, Question, Table, TableError, When};
use crate::flow::retry::Failure;
use crate::flow::{EventId, EventKey, Hour, Stream, Time, decode};
use async_trait::async_trait;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest line read. A row has at most 1,000,000 bytes; a longer line is no row of ours.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The files of one table in a folder.
#[derive(Clone, Debug)]
pub struct NdjsonTable {
    path: PathBuf,
}

/// A question that outlives its caller's borrow, for the thread that reads.
struct Owned {
    stream: Stream,
    account_uuid: Option<String>,
    when: When,
    only: Option<HashSet<EventId>>,
}

/// The few columns of a row that tell which event it is.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow, rename = "TimeGenerated")]
    ingested: Option<Cow<'a, str>>,
    #[serde(borrow)]
    log_source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uuid_s: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    account_uuid: Option<Cow<'a, str>>,
}

impl NdjsonTable {
    /// `DIR/{table}.ndjson`, table being the stream without `Custom-`, and what logrotate made of it in the same folder:
    /// `{table}.ndjson.1`, `{table}.ndjson-20261122`. Compressed files are not read. Nothing is opened or locked yet.
    pub fn new(dir: &Path, stream: &str) -> Self {
        let table = stream.strip_prefix("Custom-").unwrap_or(stream);
        Self { path: dir.join(format!("{table}.ndjson")) }
    }

    fn error(&self, attempted: &str, cause: io::Error) -> TableError {
        let remedy = match cause.kind() {
            io::ErrorKind::NotFound => {
                "check sink.path and sink.stream: the sink has written nothing there, or its files were moved"
            }
            io::ErrorKind::InvalidData => {
                "opship writes no such line: look at it, and mend it or move the file elsewhere; its rows then count as missing"
            }
            io::ErrorKind::PermissionDenied => "let the user who gives the command read the files of sink.path",
            _ => "check the disk and the mount of sink.path, then repeat the command",
        };
        TableError {
            attempted: attempted.into(),
            on: self.path.display().to_string(),
            failure: Failure::Local,
            remedy: Some(remedy),
            cause: Some(cause.into()),
        }
    }

    /// The live file, and the rotated ones beside it.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no such file");
        let name = self.path.file_name().and_then(|name| name.to_str()).ok_or_else(missing)?;
        let dir = self.path.parent().ok_or_else(missing)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let rest = path.file_name().and_then(|found| found.to_str()?.strip_prefix(name));
            let digits = rest.map(|rest| rest.strip_prefix(['.', '-']).unwrap_or(rest));
            if digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit())) {
                files.push(path);
            }
        }
        if files.is_empty() { Err(missing()) } else { Ok(files) }
    }

    /// Hands each whole line of each file on.
    fn read(&self, mut count: impl FnMut(&[u8]) -> serde_json::Result<()>) -> io::Result<()> {
        for path in self.files()? {
            let named = |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", path.display()));
            let mut file = BufReader::with_capacity(256 * 1024, File::open(&path).map_err(named)?);
            scan(&mut file, &mut count).map_err(named)?;
        }
        Ok(())
    }

    /// Reads on a thread that may wait for the disk.
    async fn reading<T: Send + 'static>(
        &self,
        attempted: &str,
        read: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, TableError> {
        let table = self.clone();
        let read = tokio::task::spawn_blocking(move || read(&table)).await;
        read.unwrap_or_else(|lost| Err(io::Error::other(lost))).map_err(|cause| self.error(attempted, cause))
    }
}

/// Counts in every whole line. A last line without a line feed is being written, or torn: it was never acknowledged.
fn scan(file: &mut BufReader<File>, count: &mut impl FnMut(&[u8]) -> serde_json::Result<()>) -> io::Result<()> {
    let mut line = Vec::new();
    let mut number = 0_u64;
    loop {
        line.clear();
        number += 1;
        file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return match line.len() as u64 + 1 {
                LINE_BYTES_MAX => Err(unusable(number, "is longer than any row")),
                _ => Ok(()),
            };
        }
        count(&line).map_err(|_| unusable(number, "is no row"))?;
    }
}

fn unusable(number: u64, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("line {number} {why}"))
}

fn count(line: &[u8], question: &Owned, ids: &mut Ids) -> serde_json::Result<()> {
    let row: Row<'_> = serde_json::from_slice(line)?;
    if row.log_source.as_deref() != Some(question.stream.as_str()) {
        return Ok(());
    }
    if let (Some(wanted), Some(found)) = (&question.account_uuid, row.account_uuid.as_deref().filter(|a| !a.is_empty()))
        && wanted != found
    {
        return Ok(());
    }
    let happened = row.timestamp.as_deref().and_then(decode::timestamp);
    let ingested = row.ingested.as_deref().and_then(decode::timestamp);
    if !asked_for(question.when, happened, ingested) {
        return Ok(());
    }
    match row.uuid_s.as_deref().filter(|uuid| !uuid.is_empty()) {
        None => ids.nameless += 1,
        Some(uuid) => {
            let id = EventId::of_uuid(uuid);
            if question.only.as_ref().is_none_or(|only| only.contains(&id)) {
                ids.add(EventKey { hour: Hour::of(happened), id }, 1, ingested);
            }
        }
    }
    Ok(())
}

/// Takes the time of a row of this account into account.
fn newer(line: &[u8], account_uuid: Option<&str>, newest: &mut Option<Time>) -> serde_json::Result<()> {
    let row: Row<'_> = serde_json::from_slice(line)?;
    if row.account_uuid.as_deref().filter(|account| !account.is_empty()) == account_uuid {
        let ingested = row.ingested.as_deref().and_then(decode::timestamp);
        *newest = (*newest).max(ingested);
    }
    Ok(())
}

fn asked_for(when: When, happened: Option<Time>, ingested: Option<Time>) -> bool {
    let inside = |span: super::Span, time: Option<Time>| time.is_some_and(|time| span.contains(time));
    match when {
        When::Happened(span) => inside(span, happened),
        When::Ingested(span) => inside(span, ingested),
        When::Both { happened: one, ingested: other } => {
            happened.is_none_or(|time| one.contains(time)) && inside(other, ingested)
        }
    }
}

#[async_trait]
impl Table for NdjsonTable {
    async fn ids(&self, question: &Question<'_>) -> Result<Ids, TableError> {
        let attempted = format!("read the rows of {}", question.stream);
        let owned = Owned {
            stream: question.stream,
            account_uuid: question.account_uuid.map(str::to_owned),
            when: question.when,
            only: question.only.cloned(),
        };
        let read = move |table: &Self| {
            let mut ids = Ids::default();
            table.read(|line| count(line, &owned, &mut ids)).map(|()| ids)
        };
        self.reading(&attempted, read).await
    }

    async fn newest(&self, account_uuid: Option<&str>, _: Duration) -> Result<Option<Duration>, TableError> {
        let account = account_uuid.map(str::to_owned);
        let read = move |table: &Self| {
            let mut newest = None;
            table.read(|line| newer(line, account.as_deref(), &mut newest)).map(|()| newest)
        };
        let newest = self.reading("look for a row of the account", read).await?;
        // The sink stamps its lines by the same clock.
        Ok(newest.map(|newest| (chrono::Utc::now() - newest).to_std().unwrap_or_default()))
    }

    fn when_blind(&self) -> &'static str {
        "put the files of sink.path back where they were, uncompressed; where no heartbeat has come since, let `opship once` or `opship run` end \
         a good tick, and repeat this"
    }

    async fn columns(&self) -> Result<Vec<Column>, TableError> {
        Ok(Vec::new())
    }

    fn place(&self) -> String {
        format!("ndjson:{}", self.path.display())
    }
}
