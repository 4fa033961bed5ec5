//! How far a demo is, on stderr: bars on a terminal, plain lines elsewhere.

use crate::sim::Comparison;
use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(2);
const HISTORY: &str = "history  {bar:32.cyan} {human_pos}/{human_len} shipped";
const LIVE: &str = "live     {msg}";

pub(crate) struct Progress {
    /// Events of history.
    history: u64,
    begun: Instant,
    shown: Shown,
}

enum Shown {
    Bars { history: ProgressBar, live: ProgressBar },
    Lines { next: Instant },
}

impl Progress {
    pub(crate) fn new(history: u64) -> Self {
        let begun = Instant::now();
        let shown =
            if std::io::stderr().is_terminal() { bars(history) } else { Shown::Lines { next: begun + LINE_EVERY } };
        Self { history, begun, shown }
    }

    /// Shows how the two sides compare by now.
    pub(crate) fn show(&mut self, now: &Comparison) {
        let history = now.shipped.min(self.history);
        let live = Live { generated: now.generated - self.history.min(now.generated), shipped: now.shipped - history };
        match &mut self.shown {
            Shown::Bars { history: bar, live: line } => {
                bar.set_position(history);
                line.set_message(live.to_string());
            }
            Shown::Lines { next } if Instant::now() >= *next => {
                *next += LINE_EVERY;
                let (seconds, of) = (self.begun.elapsed().as_secs(), HumanCount(self.history));
                eprintln!("{seconds:>3} s: history {} of {of} shipped; live {live}", HumanCount(history));
            }
            Shown::Lines { .. } => {}
        }
    }

    /// Leaves what was shown last.
    pub(crate) fn finish(&self) {
        if let Shown::Bars { history, live } = &self.shown {
            history.abandon();
            live.abandon();
            // The cursor stays behind the last bar.
            eprintln!();
        }
    }
}

fn bars(events: u64) -> Shown {
    // A template that does not parse leaves the plain one.
    let style = |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let both = MultiProgress::new();
    let history = both.add(ProgressBar::new(events).with_style(style(HISTORY)));
    let live = both.add(ProgressBar::no_length().with_style(style(LIVE)));
    Shown::Bars { history, live }
}

/// The events that came since the history.
struct Live {
    generated: u64,
    shipped: u64,
}

impl std::fmt::Display for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let behind = self.generated.saturating_sub(self.shipped);
        let [shipped, generated, behind] = [self.shipped, self.generated, behind].map(HumanCount);
        write!(f, "{shipped} of {generated} shipped, {behind} behind")
    }
}
