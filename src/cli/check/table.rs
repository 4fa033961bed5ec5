//! `opship check`: the columns of the table against those that rows fill.

use super::step::{Finding, Pending, Plan};
use crate::agent::chain;
use crate::cli::Exit;
use crate::config::{self, Config};
use crate::flow::decode::{COLUMNS, Kind};
use crate::flow::retry::Failure;
use crate::table::{Column, TableError};
use crate::wire::Outside;
use std::sync::Arc;

/// Columns that a row cannot be found or told apart without.
const NEEDED: [&str; 3] = ["uuid_s", "timestamp", "log_source"];
/// Names told one by one.
const NAMES_MAX: usize = 6;

/// The step, where the workspace may be read. Behind a wrong rule the table would be the wrong one too.
pub(crate) fn columns(config: &Config, outside: &Arc<Outside>, rule: &Pending) -> Option<Pending> {
    config.azure.workspace_id.as_ref()?;
    let config::Sink::Azure { stream, .. } = &config.sink else { return None };
    let table = stream.strip_prefix("Custom-").unwrap_or(stream).to_owned();
    let outside = outside.clone();
    Some(Plan::new("table", "").needs([rule]).run(async move {
        let reader = match outside.table() {
            Ok(reader) => reader,
            Err(error) => return Finding::fail(Exit::Usage, chain(&error), "correct azure.workspace_id"),
        };
        match reader.columns().await {
            Ok(columns) => compared(&table, &columns),
            Err(error) => unread(&table, &error),
        }
    }))
}

fn unread(table: &str, error: &TableError) -> Finding {
    if error.is_about_the_plan() {
        return Finding::warn(
            format!(
                "{table} is of another plan than Analytics: rows are kept, and no rule, alert or reconciliation sees them"
            ),
            error.remedy.unwrap_or_default(),
        );
    }
    let exit = match &error.failure {
        Failure::Status { status: 401 | 403, .. } => Exit::Credentials,
        _ => Exit::Failed,
    };
    // Without the remedy, which the error has too.
    let cause = error.cause.as_deref().map(|cause| format!(" ({})", chain(cause))).unwrap_or_default();
    let said = format!("{table} cannot be read from {}: {}{cause}", error.on, error.failure);
    Finding::fail(exit, said, error.remedy.unwrap_or("try again"))
}

/// Every column that rows fill, with its type in the words of Log Analytics.
fn expected() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kind = |kind: Kind| match kind {
        Kind::Text => "string",
        Kind::DateTime => "datetime",
        Kind::Int => "int",
        Kind::Dynamic => "dynamic",
    };
    let fixed = [("TimeGenerated", "datetime"), ("log_source", "string")];
    fixed.into_iter().chain(COLUMNS.iter().map(move |column| (column.name, kind(column.kind))))
}

fn compared(table: &str, columns: &[Column]) -> Finding {
    let kind_of = |name: &str| columns.iter().find(|column| column.name == name).map(|column| column.kind.as_str());
    let (mut missing, mut other) = (Vec::new(), Vec::new());
    let mut count = 0;
    for (name, kind) in expected() {
        count += 1;
        match kind_of(name) {
            None => missing.push(name),
            Some(is) if is != kind => other.push(format!("{name} is {is}, not {kind}")),
            Some(_) => {}
        }
    }
    if !other.is_empty() {
        return Finding::fail(
            Exit::Failed,
            format!("{table} has columns of another type: {}", listed(&other)),
            "values of another type arrive empty: make the table again with the columns of the README, or ship to another table",
        );
    }
    if let Some(name) = missing.iter().find(|name| NEEDED.contains(name)) {
        return Finding::fail(
            Exit::Failed,
            format!("{table} has no column {name}: rows cannot be told apart"),
            "add the missing columns to the table and to the rule's stream (README, Columns)",
        );
    }
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
        return Finding::warn(
            format!(
                "{table} lacks {} of {count} columns, whose values are not kept: {}",
                missing.len(),
                listed(&names)
            ),
            "add them to the table and to the rule's stream (README, Columns)",
        );
    }
    Finding::ok(format!("{table} has all {count} columns"))
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::step::Status;

    fn table() -> Vec<Column> {
        expected().map(|(name, kind)| Column { name: name.into(), kind: kind.into() }).collect()
    }

    #[test]
    fn missing_columns_are_named_and_those_that_rows_are_told_apart_by_are_demanded() {
        assert_eq!(compared("T_CL", &table()).said, "T_CL has all 32 columns");
        let without =
            |name: &str| compared("T_CL", &table().into_iter().filter(|c| c.name != name).collect::<Vec<_>>());
        let old = without("aux_info");
        assert!(
            old.status == Status::Warn && old.said.contains("lacks 1 of 32 columns") && old.said.contains("aux_info")
        );
        let blind = without("uuid_s");
        assert!(blind.status == Status::Fail && blind.said.contains("no column uuid_s"));
    }

    #[test]
    fn a_column_of_another_type_is_named_with_both_types() {
        let mut columns = table();
        columns.iter_mut().filter(|column| column.name == "client").for_each(|column| column.kind = "string".into());
        let found = compared("T_CL", &columns);
        assert!(found.status == Status::Fail && found.said.contains("client is string, not dynamic"), "{}", found.said);
    }
}
