//! The few queries that opship sends, read strictly: what is not one of them is an error, never a guess.

use crate::flow::Time;
use std::time::Duration;

/// Moments from the first on and before the second.
pub(super) type Between = (Time, Time);

/// A query that can be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Query {
    /// The table's columns.
    Schema,
    /// The distinct uuids of one source, with their number of rows.
    Ids {
        source: String,
        generated: Time,
        happened: Option<Between>,
        /// Rows without a time of their own, too.
        or_never: bool,
        ingested: Option<Between>,
        account: Option<String>,
    },
    /// When the newest row of an account was ingested, of those whose `TimeGenerated` is so young; none: of the rows that name no account.
    Newest { within: Duration, account: Option<String> },
}

/// Why a query is refused: the code and the words of the engine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) message: String,
}

const SCHEMA: [&str; 2] = ["getschema", "project ColumnName, ColumnType"];
const IDS: [&str; 2] = [
    "extend hour = bin(timestamp, 1h), ingested = ingestion_time()",
    "summarize copies = count(), ingested = min(ingested) by uuid_s, hour",
];
const NEWEST: [&str; 3] =
    ["extend ingested = ingestion_time()", "summarize newest = max(ingested)", "extend asked = now()"];

/// Reads a query over `table`, whose columns are `columns`.
pub(super) fn read(text: &str, table: &str, columns: &[&str]) -> Result<Query, Fault> {
    let mut parts = text.split("\n| ");
    let named = parts.next().unwrap_or_default().trim();
    if named != table {
        return Err(unresolved("table or column", named));
    }
    let steps: Vec<&str> = parts.collect();
    if steps == SCHEMA {
        return Ok(Query::Schema);
    }
    match (steps.split_last_chunk::<2>(), steps.split_last_chunk::<3>()) {
        (Some((wheres, tail)), _) if *tail == IDS => ids(text, wheres, columns),
        (_, Some((wheres, tail))) if *tail == NEWEST => newest(text, wheres),
        _ => Err(unknown(text)),
    }
}

/// The bound on `TimeGenerated` must be there: without one the service reads the whole table.
fn ids(text: &str, wheres: &[&str], columns: &[&str]) -> Result<Query, Fault> {
    let (mut source, mut generated, mut happened, mut ingested, mut account) = (None, None, None, None, None);
    let mut or_never = false;
    for step in wheres {
        let mut condition = step.strip_prefix("where ").ok_or_else(|| unknown(step))?;
        if let Some(inner) = condition.strip_prefix('(').and_then(|rest| rest.strip_suffix(") or isnull(timestamp)")) {
            (condition, or_never) = (inner, true);
        }
        let column = condition.split([' ', '(']).next().unwrap_or_default();
        if column != "ingestion_time" && !columns.contains(&column) {
            return Err(unresolved("scalar", column));
        }
        match column {
            "TimeGenerated" => generated = Some(since(condition).ok_or_else(|| unknown(condition))?),
            "log_source" => source = Some(equals(condition, "log_source")?),
            "timestamp" => happened = Some(between(condition, "timestamp")?),
            "ingestion_time" => ingested = Some(between(condition, "ingestion_time()")?),
            "account_uuid" => {
                let condition =
                    condition.strip_suffix(" or isempty(account_uuid)").ok_or_else(|| unknown(condition))?;
                account = Some(equals(condition, "account_uuid")?);
            }
            _ => return Err(unknown(condition)),
        }
    }
    let (source, generated) = source.zip(generated).ok_or_else(|| unknown(text))?;
    Ok(Query::Ids { source, generated, happened, or_never, ingested, account })
}

fn newest(text: &str, wheres: &[&str]) -> Result<Query, Fault> {
    let [young, whose] = wheres else { return Err(unknown(text)) };
    let seconds = young.strip_prefix("where TimeGenerated >= ago(").and_then(|rest| rest.strip_suffix("s)"));
    let seconds = seconds.and_then(|seconds| seconds.parse().ok()).ok_or_else(|| unknown(young))?;
    let account = match whose.strip_prefix("where ").unwrap_or_default() {
        "isempty(account_uuid)" => None,
        condition => Some(equals(condition, "account_uuid")?),
    };
    Ok(Query::Newest { within: Duration::from_secs(seconds), account })
}

fn equals(condition: &str, column: &str) -> Result<String, Fault> {
    let literal = condition.strip_prefix(column).and_then(|rest| rest.strip_prefix(" == "));
    literal.and_then(|literal| serde_json::from_str(literal).ok()).ok_or_else(|| unknown(condition))
}

fn between(condition: &str, column: &str) -> Result<Between, Fault> {
    let read = || {
        let (from, until) = condition.split_once(" and ")?;
        let time = |part: &str, operator: &str| datetime(part.strip_prefix(column)?.strip_prefix(operator)?);
        Some((time(from, " >= ")?, time(until, " < ")?))
    };
    read().ok_or_else(|| unknown(condition))
}

fn since(condition: &str) -> Option<Time> {
    datetime(condition.strip_prefix("TimeGenerated >= ")?)
}

fn datetime(literal: &str) -> Option<Time> {
    let text = literal.strip_prefix("datetime(")?.strip_suffix(')')?;
    // The engine reads at most seven digits of a second.
    let digits = text.split_once('.').map_or(0, |(_, fraction)| fraction.trim_end_matches('Z').len());
    if digits > 7 { None } else { text.parse::<Time>().ok() }
}

fn unresolved(what: &str, name: &str) -> Fault {
    let message = format!("Failed to resolve {what} expression named '{name}'");
    Fault { code: "SEM0100", message }
}

fn unknown(what: &str) -> Fault {
    let what: String = what.chars().take(200).collect();
    Fault { code: "SEM0001", message: format!("The simulated engine does not know this query: {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNBOUND: &str = "T_CL\n| where log_source == \"itemusages\"";
    const HEAD: &str =
        "T_CL\n| where log_source == \"itemusages\"\n| where TimeGenerated >= datetime(2026-11-19T10:00:00.000000Z)";
    const TAIL: &str = "\n| extend hour = bin(timestamp, 1h), ingested = ingestion_time()\
                        \n| summarize copies = count(), ingested = min(ingested) by uuid_s, hour";
    const COLUMNS: [&str; 4] = ["TimeGenerated", "log_source", "timestamp", "account_uuid"];

    fn code(text: &str) -> &'static str {
        read(text, "T_CL", &COLUMNS).unwrap_err().code
    }

    #[test]
    fn the_newest_row_of_an_account_is_asked_for_within_a_time() {
        let text = |whose: &str| {
            let steps = NEWEST.join("\n| ");
            format!("T_CL\n| where TimeGenerated >= ago(3600s)\n| where {whose}\n| {steps}")
        };
        let within = Duration::from_secs(3600);
        let of = |account: Option<&str>| Ok(Query::Newest { within, account: account.map(str::to_owned) });
        assert_eq!(read(&text("account_uuid == \"A\""), "T_CL", &COLUMNS), of(Some("A")));
        assert_eq!(read(&text("isempty(account_uuid)"), "T_CL", &COLUMNS), of(None));
        for whose in ["account_uuid != \"A\"", "true", "isempty(uuid_s)"] {
            assert_eq!(code(&text(whose)), "SEM0001", "{whose}");
        }
        assert_eq!(code(&format!("T_CL\n| where isempty(account_uuid)\n| {}", NEWEST.join("\n| "))), "SEM0001");
    }

    #[test]
    fn a_known_query_is_read_whole() {
        let text = format!(
            "{HEAD}\n| where timestamp >= datetime(2026-11-22T10:00:00Z) and timestamp < datetime(2026-11-22T11:00:00.1234567Z)\
             \n| where account_uuid == \"A\" or isempty(account_uuid){TAIL}"
        );
        let Ok(Query::Ids { source, generated, happened, or_never, ingested, account }) = read(&text, "T_CL", &COLUMNS)
        else {
            panic!()
        };
        assert!(!or_never);
        assert_eq!(generated, "2026-11-19T10:00:00Z".parse::<Time>().unwrap());
        assert_eq!((source.as_str(), ingested, account.as_deref()), ("itemusages", None, Some("A")));
        assert_eq!(happened.unwrap().1, "2026-11-22T11:00:00.1234567Z".parse::<Time>().unwrap());
        assert_eq!(read("T_CL\n| getschema\n| project ColumnName, ColumnType", "T_CL", &COLUMNS), Ok(Query::Schema));
    }

    #[test]
    fn anything_else_is_refused_and_never_half_read() {
        assert_eq!(code(&format!("Other_CL{TAIL}")), "SEM0100");
        assert_eq!(code(&format!("{HEAD}\n| where nothing == \"x\"{TAIL}")), "SEM0100");
        for part in [
            "\n| where timestamp > datetime(2026-11-22T10:00:00Z)",
            "\n| where timestamp >= datetime(2026-11-22T10:00:00.12345678Z) and timestamp < datetime(2026-11-22T11:00:00Z)",
            "\n| where log_source != \"x\"",
            "\n| where (timestamp > datetime(2026-11-22T10:00:00Z)) or isnull(timestamp)",
            "\n| take 10",
        ] {
            assert_eq!(code(&format!("{HEAD}{part}{TAIL}")), "SEM0001", "{part}");
        }
        for text in ["T_CL", "T_CL\n| count", HEAD, &format!("T_CL{TAIL}"), &format!("{UNBOUND}{TAIL}")] {
            assert_eq!(code(text), "SEM0001", "{text}");
        }
    }
}
