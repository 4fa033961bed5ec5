//! What a comparison of one feed found, as a table or as JSON.

use crate::agent::commands::repair::Repaired;
use crate::cli::Output;
use crate::cli::range::written as shown;
use crate::flow::reconcile::{Compared, Tally};
use crate::flow::{FeedId, Hour, Time};
use crate::table::Span;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The result of one feed: a line an hour, whatever the range holds.
pub(crate) struct Report {
    feed: FeedId,
    range: Span,
    place: String,
    hours: BTreeMap<Hour, Tally>,
    pub(crate) never_shipped: u64,
    pub(crate) repairs: Repairs,
    /// What ended it early, and up to where it was compared.
    ended: Option<(Time, String)>,
}

/// What was shipped again.
#[derive(Default)]
pub(crate) struct Repairs {
    tried: bool,
    pub(crate) done: Repaired,
}

impl Repairs {
    pub(crate) const fn set(&mut self, done: Repaired) {
        (self.tried, self.done) = (true, done);
    }
}

const COLUMNS: [&str; 7] = ["at source", "in table", "missing", "pending", "duplicated", "in doubt", "unexpected"];

impl Report {
    pub(crate) fn new(feed: FeedId, range: Span, place: String) -> Self {
        let (hours, repairs) = (BTreeMap::new(), Repairs::default());
        Self { feed, range, place, hours, never_shipped: 0, repairs, ended: None }
    }

    pub(crate) fn end_early(&mut self, reached: Time, why: String) {
        self.ended = Some((reached, why));
    }

    pub(crate) fn add(&mut self, compared: &Compared) {
        for (hour, tally) in &compared.hours {
            self.hours.entry(*hour).or_default().add(tally);
        }
        self.never_shipped += compared.never_shipped();
    }

    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.hours.values().for_each(|tally| total.add(tally));
        total
    }

    pub(crate) fn shown(&self, output: Output, all: bool) -> String {
        match output {
            Output::Text => self.text(all),
            Output::Json => self.json(all),
        }
    }

    fn text(&self, all: bool) -> String {
        let mut text =
            format!("{}: {} to {}, {}\n", self.feed, shown(self.range.from), shown(self.range.until), self.place);
        let mut line = |name: &str, cells: [String; 7]| {
            let cells: String = cells.iter().map(|cell| format!("{cell:>12}")).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<18}{cells}");
        };
        line("hour (UTC)", COLUMNS.map(str::to_owned));
        let (mut folded, mut of_folded) = (0, Tally::default());
        for (hour, tally) in &self.hours {
            if tally.is_even() && !all {
                folded += 1;
                of_folded.add(tally);
                continue;
            }
            let name = hour.start().map_or("unreadable".into(), |start| start.format("%Y-%m-%d %H:00").to_string());
            line(&name, cells(tally));
        }
        if folded > 0 {
            line(&format!("{folded} even hours"), cells(&of_folded));
        }
        line("total", cells(&self.total()));
        if let Some((reached, why)) = &self.ended {
            let _ = writeln!(text, "  not compared from {} on: {why}", shown(*reached));
        }
        text
    }

    /// One object a line.
    fn json(&self, all: bool) -> String {
        let hours = self.hours.iter().filter(|(_, tally)| all || !tally.is_even());
        let hours: Vec<_> = hours
            .map(|(hour, tally)| {
                let mut of_hour = json!(tally);
                if let Some(of_hour) = of_hour.as_object_mut() {
                    of_hour.insert("hour".into(), json!(hour.start().map(shown)));
                }
                of_hour
            })
            .collect();
        let repaired = self.repairs.tried.then_some(self.repairs.done);
        json!({
            "feed": self.feed.to_string(), "from": shown(self.range.from), "to": shown(self.range.until), "table": self.place,
            "hours": hours, "total": self.total(), "never_shipped": self.never_shipped, "repaired": repaired,
            "complete": self.ended.is_none(), "reached": self.ended.as_ref().map(|(reached, _)| shown(*reached)),
            "error": self.ended.as_ref().map(|(_, why)| why),
        })
        .to_string()
    }
}

fn cells(tally: &Tally) -> [String; 7] {
    let Tally { at_source, in_table, missing, pending, duplicated, in_doubt, unexpected } = *tally;
    [at_source, in_table, missing, pending, duplicated, in_doubt, unexpected].map(|count| match count {
        0 => "-".into(),
        count => indicatif::HumanCount(count).to_string(),
    })
}
