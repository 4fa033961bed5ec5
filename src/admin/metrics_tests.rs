//! What docs/METRICS.md says of the metrics is what the program has.

use super::{Kind, METRICS, Named};
use std::collections::BTreeSet;

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md")).unwrap()
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

#[test]
fn the_table_of_metrics_is_what_the_program_exposes() {
    let row = |metric: &Named| {
        let (kind, labels, alert) = (kind(metric.kind), or_dash(metric.labels), or_dash(metric.alert));
        format!("| `{}` | {kind} | {labels} | {} | {} | {alert} |", metric.name, metric.unit, metric.help)
    };
    let expected: Vec<String> = METRICS.iter().map(row).collect();
    let text = document();
    let stands: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(expected == stands, "the table of docs/METRICS.md must be:\n{}", expected.join("\n"));
}

#[test]
fn names_units_and_labels_keep_the_conventions_of_prometheus() {
    let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len(), "a name is used twice");
    for metric in METRICS {
        let own = metric.name.starts_with("opship_") || metric.name.starts_with("process_");
        assert!(own && (metric.kind == Kind::Counter) == metric.name.ends_with("_total"), "{metric:?}");
        assert_eq!(metric.unit.starts_with("seconds"), metric.name.contains("_seconds"), "{metric:?}");
        assert!(!metric.help.ends_with('.') && !metric.help.contains('\n'), "{metric:?}");
        let bounded = ["account", "stream", "state", "result", "edge", "window", "version"];
        let labels = metric.labels.split(", ").filter(|label| !label.is_empty());
        labels.for_each(|label| assert!(bounded.contains(&label), "{metric:?}: may grow without bound"));
    }
}

#[test]
fn each_alert_of_the_document_is_about_a_metric_that_exists() {
    let text = document();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("opship_")).collect();
    let plain = |word: &str| word.trim_end_matches("_bucket").to_owned();
    let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    let unknown: Vec<_> = named.into_iter().filter(|word| !known.contains(plain(word).as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
