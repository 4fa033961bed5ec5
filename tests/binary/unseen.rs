//! A table that answers and shows nothing: what `opship reconcile` takes it for, and what it ships then.

use crate::agent::Ran;
use crate::world::{World, history};
use opship::sim::{Fault, Options, Target, What};
use serde_json::Value;
use std::path::PathBuf;

const HEALTH: &str = "healthevents";
const NOT_A_HEARTBEAT: &str = "shows no row of this account, not even a heartbeat";

impl World {
    /// Over the last twelve hours; rows are judged at once.
    async fn repair(&self, more: &[&str]) -> Ran {
        let args = ["reconcile", "--from", "3d", "--latency", "0s", "--output", "json", "--repair"];
        self.cli(&[&args, more].concat()).await
    }

    /// The query API keeps rows of this source back, or all.
    fn hide(&self, source: Option<&str>) {
        self.fault(Fault::new(Target::Query, What::HideRows { source: source.map(str::to_owned) }));
    }
}

fn shipped(ran: &Ran) -> u64 {
    let of = |line: &str| serde_json::from_str::<Value>(line).unwrap()["repaired"]["shipped"].as_u64().unwrap_or(0);
    ran.stdout.lines().map(of).sum()
}

/// Fault: the query API answers 200 with columns and no rows, as for a protected table or a lost right. Shows: nothing counts as missing, `--repair` ships nothing, each feed says why with the role to give, exit 1.
#[tokio::test]
async fn fm_59_a_table_that_shows_no_row_is_unreadable_and_not_empty() {
    let world = World::file(history(40)).await;
    world.once().await.exits(0);
    let posts = world.posts();
    world.hide(None);
    let blind = world.repair(&[]).await.exits(1).says(&[
        NOT_A_HEARTBEAT,
        "Log Analytics Reader",
        "without a condition on rows",
    ]);
    assert_eq!((shipped(&blind), world.posts()), (0, posts));
    assert_eq!(blind.stderr.matches(NOT_A_HEARTBEAT).count(), 3, "each feed: {}", blind.stderr);
    for line in blind.stdout.lines() {
        let report: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&report["complete"], &report["total"]["missing"]), (&Value::Bool(false), &0.into()), "{report}");
    }
    world.sim.world().clear_faults();
    let seen = world.repair(&[]).await.exits(0);
    assert_eq!((shipped(&seen), world.posts()), (0, posts));
    world.assert_exactly_once();
}

/// Fault: the right shows heartbeats and no event, then the events of no stream but one. Shows: of the hidden stream one batch is shipped as a test, then the repair stops, says so and exits 1; what it shipped is recorded.
#[tokio::test]
async fn fm_59_of_a_hidden_stream_one_batch_is_shipped_and_no_more() {
    let mut world = World::file(history(300)).await;
    world.set("OPSHIP_DELIVERY__BATCH_ROWS_MAX", 20);
    world.once().await.exits(0);
    for stream in opship::flow::Stream::ALL {
        world.hide(Some(stream.as_str()));
    }
    let mut copies = 0;
    for _ in 1..=2 {
        let stopped = world
            .repair(&["--stream", "auditevents"])
            .await
            .exits(1)
            .says(&["hidden by a right, or dropped by a rule", "rows; they are recorded"]);
        copies += shipped(&stopped);
        assert!((1..=20).contains(&shipped(&stopped)), "{}", stopped.stdout);
        assert_eq!(world.sim.world().compare().duplicated, copies);
    }
    world.sim.world().clear_faults();
    let clean = world.repair(&[]).await.exits(0);
    assert_eq!(shipped(&clean), 0);
    assert_eq!(world.assert_nothing_lost_and_copies_traceable().await, copies);
}

/// Fault: a rule that drops every event, in a workspace that shows its heartbeat alone. Shows: the repair stops after a batch of each stream while the rule is so, and ships everything when it is mended.
#[tokio::test]
async fn fm_59_a_table_with_a_heartbeat_alone_can_be_repaired() {
    let options = Options { drop_share: 1.0, ..history(300) };
    let mut world = World::file(options).await;
    world.set("OPSHIP_DELIVERY__BATCH_ROWS_MAX", 20);
    world.once().await.exits(0);
    let stopped = world.repair(&[]).await.exits(1).says(&["hidden by a right, or dropped by a rule"]);
    assert!((3..=60).contains(&shipped(&stopped)), "at most one batch of each stream: {}", stopped.stdout);
    world.sim.world().set_drop_share(0.0);
    assert_eq!(shipped(&world.repair(&[]).await.exits(0)), 300);
    let clean = world.repair(&[]).await.exits(0);
    assert_eq!(shipped(&clean), 0);
}

/// Fault: the only row that can be read is older than the newest batch. Shows: it does not speak for that batch; nothing is judged missing.
#[tokio::test]
async fn fm_59_a_row_from_before_the_batch_is_no_witness() {
    let mut world = World::file(history(40)).await;
    let file = world.ndjson_rows();
    world.once().await.exits(0);
    let text = std::fs::read_to_string(&file).unwrap();
    let heartbeat = text.lines().find(|line| line.contains(HEALTH)).unwrap();
    let mut row: Value = serde_json::from_str(heartbeat).unwrap();
    let said = |row: &Value| format!("{row}\n");
    let old = chrono::Utc::now() - chrono::TimeDelta::hours(2);
    row["TimeGenerated"] = old.to_rfc3339().into();
    std::fs::write(&file, said(&row)).unwrap();
    let blind =
        world.repair(&[]).await.exits(1).says(&["the newest row of this account that it shows was taken 2h", "before"]);
    assert_eq!(shipped(&blind), 0);
    row["TimeGenerated"] = (chrono::Utc::now() + chrono::TimeDelta::seconds(1)).to_rfc3339().into();
    std::fs::write(&file, said(&row)).unwrap();
    assert_eq!(shipped(&world.repair(&[]).await.exits(0)), 40);
}

/// Fault: a row of another account, and one that names none, are all that can be read. Shows: they speak for nobody else.
#[tokio::test]
async fn fm_59_another_account_s_row_is_no_witness() {
    let mut world = World::file(history(40)).await;
    let file = world.ndjson_rows();
    world.once().await.exits(0);
    let text = std::fs::read_to_string(&file).unwrap();
    let heartbeat = text.lines().find(|line| line.contains(HEALTH)).unwrap();
    let mut row: Value = serde_json::from_str(heartbeat).unwrap();
    for other in [Value::from("ANOTHERACCOUNT"), Value::Null] {
        row["account_uuid"] = other;
        std::fs::write(&file, format!("{row}\n")).unwrap();
        let blind = world.repair(&[]).await.exits(1).says(&[NOT_A_HEARTBEAT, "sink.path"]);
        assert_eq!(shipped(&blind), 0);
    }
}

impl World {
    /// A folder in place of the rule; returns the file of the rows.
    fn ndjson_rows(&mut self) -> PathBuf {
        let folder = self.home.path().join("rows");
        for key in ["ENDPOINT", "DCR_IMMUTABLE_ID"] {
            self.unset(&format!("OPSHIP_SINK__{key}"));
        }
        self.set("OPSHIP_SINK__KIND", "ndjson").set("OPSHIP_SINK__PATH", folder.display());
        folder.join("OnePasswordEventLogs_CL.ndjson")
    }
}
