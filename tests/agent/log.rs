//! What the program says while a test runs: its log lines, as JSON.

use serde_json::Value;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};

/// While there is one listener alone, tracing asks only the thread that comes to a line first whether anybody wants it, and remembers a
/// no of a test that does not listen. With two it asks the listeners.
static NOBODY: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));

/// Listens on this thread until it is dropped.
pub(crate) struct Log {
    written: Written,
    _listening: DefaultGuard,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(crate) fn listen() -> Self {
        LazyLock::force(&NOBODY);
        let written = Written::default();
        let writer = written.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
        Self { written, _listening: tracing::subscriber::set_default(subscriber) }
    }

    /// The lines whose message holds `words`.
    pub(crate) fn said(&self, words: &str) -> Vec<Value> {
        let written = self.written.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = String::from_utf8_lossy(&written);
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        lines.filter(|line| line["message"].as_str().is_some_and(|message| message.contains(words))).collect()
    }
}
