//! The sink of a local file.

use bytes::Bytes;
use opship::flow::retry::Failure;
use opship::sink::ndjson::Ndjson;
use opship::sink::{Body, Sink};
use serde_json::Value;
use std::path::Path;

const STREAM: &str = "Custom-OnePasswordEventLogs_CL";
const FILE: &str = "OnePasswordEventLogs_CL.ndjson";

fn body(json: &str) -> Body {
    Body { json: Bytes::copy_from_slice(json.as_bytes()), rows: 1 }
}

fn rows(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join(FILE)).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_row_is_one_line_that_begins_with_time_generated_and_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Ndjson::open(dir.path(), STREAM).unwrap();
    sink.deliver(&body("[{\"n\":1e400,\"s\":\"é\\n}\"},\n {},{ \"nested\" : {\"a\":\n [1]}}]")).await.unwrap();
    let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    for (line, rest) in lines.iter().zip([r#","n":1e400,"s":"é\n}"}"#, "}", r#", "nested" : {"a":  [1]}}"#]) {
        let (time, after) = line.strip_prefix(r#"{"TimeGenerated":""#).unwrap().split_once('"').unwrap();
        chrono::DateTime::parse_from_rfc3339(time).unwrap();
        assert_eq!(after, rest);
    }
}

#[tokio::test]
async fn rows_survive_a_restart_and_a_torn_last_line_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Ndjson::open(dir.path(), STREAM).unwrap();
    sink.deliver(&body(r#"[{"a":1},{"a":2}]"#)).await.unwrap();
    drop(sink);
    let path = dir.path().join(FILE);
    let torn = format!("{}{{\"a\":\"{}", std::fs::read_to_string(&path).unwrap(), "x".repeat(200_000));
    std::fs::write(&path, torn).unwrap();
    let sink = Ndjson::open(dir.path(), STREAM).unwrap();
    sink.deliver(&body(r#"[{"a":3}]"#)).await.unwrap();
    let found: Vec<Value> = rows(dir.path()).into_iter().map(|row| row["a"].clone()).collect();
    assert_eq!(found, [1, 2, 3]);
}

#[tokio::test]
async fn a_file_that_is_one_torn_line_is_emptied() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), "{\"torn\":").unwrap();
    let _sink = Ndjson::open(dir.path(), STREAM).unwrap();
    assert!(rows(dir.path()).is_empty());
}

#[tokio::test]
async fn a_second_writer_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = Ndjson::open(dir.path(), STREAM).unwrap();
    let text = crate::said(&Ndjson::open(dir.path(), STREAM).err().unwrap());
    assert!(text.contains("another process holds"), "{text}");
    drop(first);
    Ndjson::open(dir.path(), STREAM).unwrap();
}

#[tokio::test]
async fn a_body_that_is_not_rows_leaves_nothing_behind_and_is_a_definite_no() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Ndjson::open(dir.path(), STREAM).unwrap();
    for json in ["", "[1]", r#"[{"a":1},2]"#, r#"[{"a":1}"#] {
        assert_eq!(sink.deliver(&body(json)).await.unwrap_err().failure, Failure::Local, "{json}");
    }
    assert!(rows(dir.path()).is_empty());
}

#[tokio::test]
async fn a_rotated_file_is_followed_by_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Ndjson::open(dir.path(), STREAM).unwrap();
    sink.deliver(&body(r#"[{"a":1}]"#)).await.unwrap();
    std::fs::rename(dir.path().join(FILE), dir.path().join("old")).unwrap();
    sink.deliver(&body(r#"[{"a":2}]"#)).await.unwrap();
    assert_eq!(rows(dir.path())[0]["a"], 2);
}

#[tokio::test]
async fn a_stream_that_is_no_file_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for stream in ["", "Custom-", "../x", "a/b", "a.b"] {
        assert!(Ndjson::open(dir.path(), stream).is_err(), "{stream}");
    }
}

#[tokio::test]
async fn the_probe_leaves_no_row_and_the_place_is_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Ndjson::open(&dir.path().join("new/deep"), STREAM).unwrap();
    assert!(sink.probe().await.unwrap().contains(FILE));
    assert!(rows(&dir.path().join("new/deep")).is_empty());
    assert!(sink.place().starts_with("ndjson:/") && sink.place().ends_with(FILE));
}

/// Not a test of its own: the child of the test below, in which no file can grow beyond 64 KiB.
#[tokio::test]
async fn writes_until_the_disk_is_full() {
    let Ok(dir) = std::env::var("OPSHIP_TEST_NDJSON") else { return };
    let sink = Ndjson::open(Path::new(&dir), STREAM).unwrap();
    sink.deliver(&body(r#"[{"a":1}]"#)).await.unwrap();
    // Whole rows fit before the limit is met: they must go again too.
    let large = format!("[{}]", vec![r#"{"a":9}"#; 10_000].join(","));
    let error = sink.deliver(&body(&large)).await.unwrap_err();
    assert_eq!(error.failure, Failure::Local);
    sink.deliver(&body(r#"[{"a":2}]"#)).await.unwrap();
}

#[tokio::test]
async fn a_write_that_fails_half_way_is_rolled_back_and_is_a_definite_no() {
    let dir = tempfile::tempdir().unwrap();
    // An ignored SIGXFSZ makes the write fail instead of killing the process.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" ndjson::writes_until_the_disk_is_full --exact";
    let mut shell = tokio::process::Command::new("bash");
    shell.args(["-c", script]).arg(std::env::current_exe().unwrap()).env("OPSHIP_TEST_NDJSON", dir.path());
    let output = shell.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let found: Vec<Value> = rows(dir.path()).into_iter().map(|row| row["a"].clone()).collect();
    assert_eq!(found, [1, 2]);
}
