//! Writes rows to a local file, one per line: for a first look, and for machines that ship the file themselves.

use super::{Body, Sink, SinkError};
use crate::flow::retry::Failure;
use crate::private::{self, Heir};
use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Step by which the last line feed is looked for.
const TAIL_BYTES: u64 = 64 * 1024;
/// How the name of the file that is locked ends.
const LOCK: &str = "ndjson.lock";

/// A file of rows, with one writer at a time.
pub struct Ndjson {
    file: Arc<Mutex<Rows>>,
    path: PathBuf,
}

struct Rows {
    path: PathBuf,
    /// Held for its lock, which ends with the process, however it ends. None before the first use of [`Ndjson::when_needed`].
    lock: Option<File>,
    /// Whose the files are that root makes here.
    heir: Option<Heir>,
}

/// A write that failed: whether the file is as it was before.
struct WriteError {
    rolled_back: bool,
    cause: io::Error,
}

impl Ndjson {
    /// Opens `DIR/{table}.ndjson`, table being the stream without `Custom-`, and cuts a line that a crash left torn.
    ///
    /// # Errors
    /// A stream name that is no file name, a directory that cannot be written, or another process that writes there.
    pub fn open(dir: &Path, stream: &str) -> Result<Self, SinkError> {
        let fail = |path: &Path, cause| error("open the sink's file", path, Failure::Local, cause);
        // A bad name creates no folder.
        Self::when_needed(dir, stream)?;
        private::make_folders(dir).map_err(|cause| fail(dir, cause))?;
        let sink = Self::when_needed(dir, stream)?;
        let opened = sink.file.lock().open();
        opened.map_err(|cause| fail(&sink.path, cause))?;
        Ok(sink)
    }

    /// The same, but nothing is created or locked before the first delivery: for a command that mostly reads, beside a writer.
    ///
    /// # Errors
    /// A stream name that is no file name.
    pub fn when_needed(dir: &Path, stream: &str) -> Result<Self, SinkError> {
        let path = file_of(dir, stream);
        let fail = |cause: io::Error| error("open the sink's file", &path, Failure::Local, cause);
        let table = table_of(stream);
        if table.is_empty() || !table.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(fail(io::Error::other("sink.stream may hold only letters, digits, `_` and `-`")));
        }
        // A folder that does not exist yet has no other name.
        let dir = std::fs::canonicalize(dir).or_else(|_| std::path::absolute(dir)).map_err(fail)?;
        let path = dir.join(format!("{table}.ndjson"));
        let heir = Heir::of(&dir, &path.with_extension(LOCK));
        let rows = Rows { lock: None, heir, path: path.clone() };
        Ok(Self { file: Arc::new(Mutex::new(rows)), path })
    }

    /// What [`Sink::place`] of an opened one will be, without opening it: a running agent holds its lock.
    pub fn place_of(dir: &Path, stream: &str) -> String {
        let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        format!("ndjson:{}", file_of(&dir, stream).display())
    }

    /// Proves that the file can be written, without opening it: a running agent holds its lock, and a folder that is made here would
    /// belong to whoever looks. A sentence of what was proved.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn look(dir: &Path, stream: &str) -> Result<String, SinkError> {
        let path = file_of(dir, stream);
        let fail = |cause: io::Error| error("look at the sink's file", &path, Failure::Local, cause);
        let there = dir.ancestors().find(|part| part.is_dir()).unwrap_or_else(|| Path::new("."));
        let probe = there.join(format!("opship-check-{}", uuid::Uuid::new_v4().simple()));
        std::fs::write(&probe, b"opship").and_then(|()| std::fs::remove_file(&probe)).map_err(fail)?;
        let held = File::open(path.with_extension(LOCK)).is_ok_and(|file| file.try_lock_shared().is_err());
        let who = if held { "another process writes to it now" } else { "nobody writes to it now" };
        Ok(format!("{} can be written; {who}", path.display()))
    }

    async fn on_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Rows) -> Result<T, WriteError> + Send + 'static,
    ) -> Result<T, WriteError> {
        let file = self.file.clone();
        let work = move || work(&mut file.lock());
        let lost = |cause| WriteError { rolled_back: false, cause: io::Error::other(cause) };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|cause| Err(lost(cause)))
    }
}

#[async_trait]
impl Sink for Ndjson {
    async fn deliver(&self, body: &Body) -> Result<(), SinkError> {
        let attempted = format!("append {} rows", body.rows);
        let now = Utc::now();
        let json = body.json.clone();
        let appended = self.on_file(move |rows| {
            let lines = lines(&json, now).map_err(|cause| WriteError { rolled_back: true, cause: cause.into() })?;
            rows.append(&lines)
        });
        appended.await.map_err(|WriteError { rolled_back, cause }| {
            let failure = if rolled_back { Failure::Local } else { Failure::Interrupted };
            error(&attempted, &self.path, failure, cause)
        })
    }

    async fn reauthenticate(&self) {}

    fn may_refuse_rows(&self) -> bool {
        false
    }

    async fn probe(&self) -> Result<String, SinkError> {
        let sync = |rows: &mut Rows| {
            let synced = rows.open().and_then(|file| file.sync_all());
            synced.map_err(|cause| WriteError { rolled_back: true, cause })
        };
        let fail = |failed: WriteError| error("probe the sink's file", &self.path, Failure::Local, failed.cause);
        self.on_file(sync).await.map_err(fail)?;
        Ok(format!("{} is open for appending, by this process only", self.path.display()))
    }

    fn place(&self) -> String {
        format!("ndjson:{}", self.path.display())
    }
}

fn table_of(stream: &str) -> &str {
    stream.strip_prefix("Custom-").unwrap_or(stream)
}

fn file_of(dir: &Path, stream: &str) -> PathBuf {
    dir.join(format!("{}.ndjson", table_of(stream)))
}

fn error(attempted: &str, path: &Path, failure: Failure, cause: io::Error) -> SinkError {
    SinkError { attempted: attempted.into(), on: path.display().to_string(), failure, cause: Some(cause.into()) }
}

/// A file of ours, for appending; created when it is missing.
fn open(path: &Path, heir: Option<Heir>) -> io::Result<File> {
    let file = private::file().create(true).read(true).append(true).open(path).map_err(|error| {
        let path = path.display();
        let what = format!(
            "a link stands at {path}, and nothing is written through one: remove it, or point sink.path elsewhere"
        );
        if private::is_link(&error) { io::Error::other(what) } else { error }
    })?;
    Heir::inherits(heir, &file)?;
    Ok(file)
}

fn lock(path: &Path, heir: Option<Heir>) -> io::Result<File> {
    let file = open(path, heir)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("another process holds {}", path.display())))
        }
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// Splits an array of objects into lines that begin with `TimeGenerated`; in Azure the rule adds it.
fn lines(json: &[u8], now: DateTime<Utc>) -> serde_json::Result<Vec<u8>> {
    let rows: Vec<&RawValue> = serde_json::from_slice(json)?;
    let head = format!("{{\"TimeGenerated\":\"{}\"", now.to_rfc3339_opts(SecondsFormat::Millis, true));
    let mut lines = Vec::with_capacity(json.len() + rows.len() * (head.len() + 1));
    for row in rows {
        let Some(fields) = row.get().strip_prefix('{') else {
            return Err(serde::de::Error::custom("a row is not an object"));
        };
        lines.extend_from_slice(head.as_bytes());
        if !fields.trim_start().starts_with('}') {
            lines.push(b',');
        }
        // A raw control character is white space between tokens, since JSON strings must escape it.
        lines.extend(fields.bytes().map(|b| if b == b'\n' || b == b'\r' { b' ' } else { b }));
        lines.push(b'\n');
    }
    Ok(lines)
}

impl Rows {
    /// Opened anew for each batch: a log rotation may have moved the file, and rows in an unlinked one would be lost.
    fn open(&mut self) -> io::Result<File> {
        if self.lock.is_none() {
            self.lock = Some(lock(&self.path.with_extension(LOCK), self.heir)?);
        }
        let mut file = open(&self.path, self.heir)?;
        let length = file.metadata()?.len();
        let whole = whole_lines(&mut file, length)?;
        if whole < length {
            tracing::warn!(path = %self.path.display(), torn_bytes = length - whole, "cut a torn last line");
            file.set_len(whole)?;
            file.sync_all()?;
        }
        if length == 0 {
            sync_directory(&self.path)?;
        }
        Ok(file)
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        let untouched = |cause| WriteError { rolled_back: true, cause };
        let mut file = self.open().map_err(untouched)?;
        let before = file.metadata().map_err(untouched)?.len();
        file.write_all(lines).and_then(|()| file.sync_all()).map_err(|cause| {
            let rolled_back = file.set_len(before).and_then(|()| file.sync_all()).is_ok();
            WriteError { rolled_back, cause }
        })
    }
}

/// The length up to the last line feed.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut chunk = Vec::new();
    while end > 0 {
        // One byte first: the file nearly always ends with a line feed.
        let step = if end == length { 1 } else { TAIL_BYTES.min(end) };
        file.seek(SeekFrom::Start(end - step))?;
        chunk.clear();
        file.take(step).read_to_end(&mut chunk)?;
        if let Some(at) = memchr::memrchr(b'\n', &chunk) {
            return Ok(end - step + u64::try_from(at).map_err(io::Error::other)? + 1);
        }
        end -= step;
    }
    Ok(0)
}

/// Makes a new file's name durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
