//! How far a backfill is, on stderr: a bar on a terminal, a line a minute elsewhere.

use crate::flow::{FeedId, Time};
use crate::store::backfills::Progress;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(60);
const TEMPLATE: &str = "{prefix:24} {bar:32.cyan} {percent:>3} %  {msg}";

pub(crate) struct Bar {
    feed: String,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { next: Instant },
}

impl Bar {
    pub(crate) fn new(feed: &FeedId) -> Self {
        let shown = if std::io::stderr().is_terminal() {
            // A template that does not parse leaves the plain one.
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            Shown::Bar(ProgressBar::new(1000).with_style(style).with_prefix(feed.to_string()))
        } else {
            Shown::Lines { next: Instant::now() + LINE_EVERY }
        };
        Self { feed: feed.to_string(), shown }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        let [shipped, known] = [progress.done.shipped, progress.done.known].map(HumanCount);
        let at = progress.reached.format("%Y-%m-%d %H:%M");
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(per_mille(progress.span.from, progress.reached, progress.span.to));
                bar.set_message(format!("at {at}, {shipped} shipped, {known} known"));
            }
            Shown::Lines { next } if Instant::now() >= *next => {
                *next += LINE_EVERY;
                let feed = &self.feed;
                let percent = per_mille(progress.span.from, progress.reached, progress.span.to) / 10;
                eprintln!("opship: {feed}: {percent} % of the range, at {at}; {shipped} shipped, {known} known");
            }
            Shown::Lines { .. } => {}
        }
    }

    /// Leaves what was shown last.
    pub(crate) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.abandon();
            // The cursor stays behind the bar.
            eprintln!();
        }
    }
}

/// How much of the range lies behind.
fn per_mille(from: Time, reached: Time, to: Time) -> u64 {
    let (done, all) = ((reached - from).num_seconds(), (to - from).num_seconds().max(1));
    u64::try_from(done.saturating_mul(1000) / all).unwrap_or_default().min(1000)
}

#[cfg(test)]
mod tests {
    use super::per_mille;

    #[test]
    fn progress_is_the_share_of_the_range_in_time() {
        let at = |text: &str| text.parse().unwrap();
        let (from, to) = (at("2026-11-01T00:00:00Z"), at("2026-11-03T00:00:00Z"));
        assert_eq!(per_mille(from, from, to), 0);
        assert_eq!(per_mille(from, at("2026-11-01T12:00:00Z"), to), 250);
        assert_eq!(per_mille(from, to, to), 1000);
        assert_eq!(per_mille(from, from, from), 0);
    }
}
