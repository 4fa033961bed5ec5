//! The last log lines, kept in memory for a support archive: as they were logged, one JSON object each.

use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::io;
use tracing_subscriber::fmt::MakeWriter;

/// Lines kept.
const LINES_MAX: usize = 1_000;
/// Bytes that all of them take at most.
const BYTES_MAX: usize = 1 << 20;
/// A longer line is replaced by one that says how long it was: half of it would be no JSON.
const LINE_BYTES_MAX: usize = 16 * 1024;

static RING: Ring = Ring(Mutex::new(Lines { lines: VecDeque::new(), bytes: 0 }));

/// The last log lines of this process, the oldest first.
pub fn recent() -> Vec<String> {
    RING.lines().lines.iter().cloned().collect()
}

pub(super) fn ring() -> &'static Ring {
    &RING
}

/// A bounded memory of lines.
pub(super) struct Ring(Mutex<Lines>);

struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Ring {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A line is pushed whole or not at all.
        self.0.lock()
    }
}

impl Lines {
    fn push(&mut self, line: String) {
        let line = if line.len() > LINE_BYTES_MAX {
            format!(r#"{{"level":"WARN","message":"a log line of {} bytes is left out here"}}"#, line.len())
        } else {
            line
        };
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            self.bytes -= self.lines.pop_front().map_or(self.bytes, |oldest| oldest.len());
        }
    }
}

/// One event's line on its way into the ring.
pub(super) struct Line<'r> {
    ring: &'r Ring,
    text: Vec<u8>,
}

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        for line in text.lines().filter(|line| !line.is_empty()) {
            self.ring.lines().push(line.to_owned());
        }
    }
}

impl<'r> MakeWriter<'r> for &'static Ring {
    type Writer = Line<'r>;

    fn make_writer(&'r self) -> Line<'r> {
        Line { ring: self, text: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(lines: impl IntoIterator<Item = String>) -> Lines {
        let mut all = Lines { lines: VecDeque::new(), bytes: 0 };
        lines.into_iter().for_each(|line| all.push(line));
        assert_eq!(all.bytes, all.lines.iter().map(String::len).sum::<usize>());
        all
    }

    #[test]
    fn the_last_thousand_lines_stay_in_order() {
        let all = filled((0..2_500).map(|n| n.to_string()));
        assert_eq!(all.lines.len(), 1_000);
        assert_eq!(
            (all.lines.front().map(String::as_str), all.lines.back().map(String::as_str)),
            (Some("1500"), Some("2499"))
        );
    }

    #[test]
    fn long_lines_never_take_more_than_a_mebibyte() {
        let all = filled((0..1_000).map(|_| "x".repeat(LINE_BYTES_MAX)));
        assert_eq!((all.lines.len(), all.bytes), (64, BYTES_MAX));
    }

    #[test]
    fn a_line_without_measure_is_replaced_by_one_that_says_so() {
        let all = filled(["before".to_owned(), "x".repeat(LINE_BYTES_MAX + 1)]);
        let last: serde_json::Value = serde_json::from_str(all.lines.back().unwrap()).unwrap();
        assert_eq!(last["message"], "a log line of 16385 bytes is left out here");
    }

    #[test]
    fn what_is_logged_arrives_as_one_json_object_a_line() {
        static OWN: Ring = Ring(Mutex::new(Lines { lines: VecDeque::new(), bytes: 0 }));
        let subscriber = crate::telemetry::subscriber("info", io::sink, true, &OWN);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(feed = "default/auditevents", rows = 7, "shipped");
            tracing::debug!("below the level");
            tracing::error!(error = "two\nlines", remedy = "none", "broken");
        });
        let lines: Vec<serde_json::Value> =
            OWN.lines().lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        let [first, second] = [&lines[0], &lines[1]];
        assert_eq!(
            (&first["message"], &first["rows"], &first["level"]),
            (&"shipped".into(), &7.into(), &"INFO".into())
        );
        assert_eq!((&second["message"], &second["error"]), (&"broken".into(), &"two\nlines".into()));
    }
}
