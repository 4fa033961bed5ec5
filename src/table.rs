//! Where shipped rows are read back: the contract that every table keeps. One file per table.

use crate::flow::retry::Failure;
use crate::flow::{EventId, EventKey, Stream, Time};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

pub mod ndjson;
pub mod workspace;

/// Moments from `from` on and before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Time,
    pub until: Time,
}

impl Span {
    pub fn contains(&self, time: Time) -> bool {
        self.from <= time && time < self.until
    }

    /// Two spans that together are this one.
    #[must_use]
    pub fn halves(&self) -> [Self; 2] {
        let middle = self.from + (self.until - self.from) / 2;
        [Self { until: middle, ..*self }, Self { from: middle, ..*self }]
    }
}

/// By which time rows are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// By the event's own time: what a re-read of the source is compared with.
    Happened(Span),
    /// By the time at which the table took the row, whatever the event says.
    Ingested(Span),
    /// Both: the rows of a batch whose first POST is known. Rows without a time of their own count as if they had happened then: a column
    /// that cannot hold an event's time is empty.
    Both { happened: Span, ingested: Span },
}

/// Which rows are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub stream: Stream,
    /// Rows of this 1Password account only, and rows that name none; `None`: of all accounts that ship to the table.
    pub account_uuid: Option<&'a str>,
    pub when: When,
    /// Only these are kept of the answer, so that it is never larger than they are. It does not make the question cheaper.
    pub only: Option<&'a HashSet<EventId>>,
}

/// What the table holds of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// How many rows have this uuid: 1, unless it was duplicated.
    pub copies: u64,
    /// When the first of them was ingested, by the table's own clock, where the table knows.
    pub ingested: Option<Time>,
}

/// The events found, a row each or more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub held: HashMap<EventKey, Held>,
    /// Rows without a uuid: they cannot be told apart.
    pub nameless: u64,
}

impl Ids {
    /// Counts rows of one event in.
    pub fn add(&mut self, key: EventKey, copies: u64, ingested: Option<Time>) {
        let held = self.held.entry(key).or_insert(Held { copies: 0, ingested });
        held.copies += copies;
        held.ingested = match (held.ingested, ingested) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// Whether the event is there, whatever hour it was filed under.
    pub fn ids(&self) -> HashSet<EventId> {
        self.held.keys().map(|key| key.id).collect()
    }
}

/// A column of the table as it is, in the words of Log Analytics: `string`, `datetime`, `int`, `dynamic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: String,
}

/// A question that brought no complete answer.
#[derive(Debug, thiserror::Error)]
#[error("{attempted} from {on}: {failure}{}", .remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default())]
pub struct TableError {
    /// What was attempted, such as "read the rows of auditevents".
    pub attempted: String,
    /// On what: the URL or path, never a secret.
    pub on: String,
    pub failure: Failure,
    /// What to do about it, where this is known.
    pub remedy: Option<&'static str>,
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TableError {
    /// Whether the service reads no such table by this API: its plan is another than Analytics, which rules, alerts and this need.
    /// Seen so: <https://github.com/grafana/grafana/issues/89818>, <https://github.com/Azure/azure-sdk-for-go/issues/24606>.
    pub fn is_about_the_plan(&self) -> bool {
        is_about_the_plan(&self.failure)
    }
}

fn is_about_the_plan(failure: &Failure) -> bool {
    matches!(failure, Failure::Status { status: 400, message, .. } if message.raw().contains("UnsupportedApiQueryValidationError"))
}

/// Rows that were shipped, read back.
///
/// An answer is complete or an error: what a service marks as partial is asked for again in smaller parts inside the call and never
/// handed over as if it were all. Retries of other failures are the caller's; reading changes nothing. Rows become visible some time
/// after they were accepted (a service says minutes), so "not there" means little about what was shipped just now.
///
/// Memory: an entry of about 70 bytes for each event found; ask by the hour or the day.
#[async_trait]
pub trait Table: Send + Sync {
    /// The events that the table holds.
    ///
    /// No event found is no proof that there is none: a protected table, a row condition or a lost right gives an answer without an error
    /// and without rows. [`Table::newest`] tells whether anything can be seen.
    async fn ids(&self, question: &Question<'_>) -> Result<Ids, TableError>;

    /// How long ago the newest row of an account was taken, of those that this table shows: a heartbeat or an event of any stream. By the
    /// table's own clock, so that no other clock can make a row younger. `account_uuid` as the rows name it; `None`: rows that name none.
    /// What was taken more than `within` ago need not be looked for. `Ok(None)`: nothing of this account can be seen, whether it is there
    /// or not.
    async fn newest(&self, account_uuid: Option<&str>, within: Duration) -> Result<Option<Duration>, TableError>;

    /// What a person can do when no row is seen of an account that has shipped.
    fn when_blind(&self) -> &'static str;

    /// The table's columns; for a table that has no fixed ones, an empty list.
    async fn columns(&self) -> Result<Vec<Column>, TableError>;

    /// What is read, for people: no secrets.
    fn place(&self) -> String;
}

impl fmt::Debug for dyn Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_a_span_are_the_span_and_share_no_moment() {
        let at = |text: &str| text.parse::<Time>().unwrap();
        let span = Span { from: at("2026-11-22T10:00:00Z"), until: at("2026-11-22T10:00:01Z") };
        let [first, second] = span.halves();
        assert_eq!((first.from, first.until, second.until), (span.from, second.from, span.until));
        assert!(first.until == at("2026-11-22T10:00:00.5Z") && !first.contains(first.until));
        assert!(second.contains(first.until) && !second.contains(span.until));
    }
}
