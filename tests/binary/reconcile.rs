//! `opship reconcile`: finds exactly what the workspace lost, ships exactly that, and says when it cannot know.

use crate::agent::{Ran, wait_until};
use crate::world::{Kind, World, history};
use chrono::{DateTime, TimeDelta, Utc};
use opship::flow::Stream;
use opship::sim::{Fault, Options, Refusal, Target, What};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const MISSING: &str = "azure.workspace_id is not set";
const FILE: &str = "OnePasswordEventLogs_CL.ndjson";

/// Missing events by stream and hour.
type Missing = BTreeMap<(String, String), u64>;

impl World {
    /// Over the last three days; rows are judged at once.
    async fn reconcile(&self, more: &[&str]) -> Ran {
        let args = ["reconcile", "--from", "3d", "--latency", "0s", "--output", "json"];
        self.cli(&[&args, more].concat()).await
    }

    /// The events whose rows the workspace lost.
    fn dropped(&self) -> Vec<(Stream, String)> {
        let of = |stream| self.sim.world().dropped(stream).into_iter().map(move |uuid| (stream, uuid));
        Stream::ALL.into_iter().flat_map(of).collect()
    }

    fn dropped_by_hour(&self) -> Missing {
        let mut hours = Missing::new();
        let dropped = self.dropped();
        for row in self.rows() {
            let is_it =
                |(stream, uuid): &&(Stream, String)| row["log_source"] == stream.as_str() && row["uuid_s"] == **uuid;
            if let Some((stream, _)) = dropped.iter().find(is_it) {
                *hours.entry((stream.to_string(), hour(row["timestamp"].as_str().unwrap()))).or_default() += 1;
            }
        }
        hours
    }

    /// A folder in place of the rule.
    fn ship_to_files(&mut self) -> std::path::PathBuf {
        let folder = self.home.path().join("rows");
        for key in ["ENDPOINT", "DCR_IMMUTABLE_ID"] {
            self.unset(&format!("OPSHIP_SINK__{key}"));
        }
        self.set("OPSHIP_SINK__KIND", "ndjson").set("OPSHIP_SINK__PATH", folder.display());
        folder.join(FILE)
    }
}

impl Ran {
    fn reports(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The sum of a figure over all feeds.
    fn total(&self, name: &str) -> u64 {
        self.reports().iter().map(|report| report["total"][name].as_u64().unwrap()).sum()
    }

    fn missing(&self) -> Missing {
        let mut missing = Missing::new();
        for report in self.reports() {
            let stream = report["feed"].as_str().unwrap().split_once('/').unwrap().1.to_owned();
            for of_hour in report["hours"].as_array().unwrap() {
                let count = of_hour["missing"].as_u64().unwrap();
                let hour = hour(of_hour["hour"].as_str().unwrap());
                missing.extend((count > 0).then_some(((stream.clone(), hour), count)));
            }
        }
        missing
    }

    fn repaired(&self) -> u64 {
        self.reports().iter().map(|report| report["repaired"]["shipped"].as_u64().unwrap_or(0)).sum()
    }
}

fn hour(time: &str) -> String {
    let time: DateTime<Utc> = time.parse().unwrap();
    time.format("%Y-%m-%dT%H").to_string()
}

/// Lost after the 204, as a rule's faulty transformation loses rows.
fn losing(events: usize) -> Options {
    Options { drop_share: 0.05, ..history(events) }
}

both_stores! {
    what_the_workspace_lost_is_found_and_shipped_again_and_nothing_else
}

async fn what_the_workspace_lost_is_found_and_shipped_again_and_nothing_else(kind: Kind) {
    let world = World::new(kind, losing(1500)).await;
    world.once().await.exits(0);
    world.sim.world().set_drop_share(0.0);
    let dropped = world.dropped();
    assert!(dropped.len() > 20, "{} of 1500", dropped.len());
    let found = world.reconcile(&[]).await.exits(1).says(&["run the same command with --repair"]);
    assert_eq!(found.missing(), world.dropped_by_hour());
    assert_eq!((found.total("at_source"), found.total("duplicated"), found.repaired()), (1500, 0, 0));
    let posts = world.posts();
    let repaired = world
        .reconcile(&["--repair"])
        .await
        .exits(0)
        .says(&["events shipped by this repair; run this again without --repair"]);
    assert_eq!(repaired.repaired(), dropped.len() as u64);
    assert!(world.posts() > posts);
    for stream in Stream::ALL {
        for uuid in world.sim.world().uuids(stream) {
            let expected = 1 + u32::from(dropped.contains(&(stream, uuid.clone())));
            assert_eq!(world.sim.world().delivered(stream, &uuid), expected, "{stream} {uuid}");
        }
    }
    let clean = world.reconcile(&[]).await.exits(0);
    assert_eq!((clean.total("missing"), clean.total("in_table"), clean.total("duplicated")), (0, 1500, 0));
    assert_eq!(clean.total("in_doubt"), dropped.len() as u64, "each stands in the ledger with a second attempt");
    assert_eq!(world.assert_nothing_lost_and_copies_traceable().await, dropped.len() as u64);
}

#[tokio::test]
async fn a_partial_answer_never_counts_as_complete() {
    let world = World::file(history(400)).await;
    world.once().await.exits(0);
    world.fault(Fault::new(Target::Query, What::RowsLimit { rows: 20 }));
    let whole = world.reconcile(&[]).await.exits(0);
    assert_eq!((whole.total("at_source"), whole.total("in_table"), whole.total("missing")), (400, 400, 0));
    world.sim.world().clear_faults();
    world.fault(Fault::new(Target::Query, What::RowsLimit { rows: 0 }));
    let posts = world.posts();
    let nothing = world
        .reconcile(&["--repair", "--stream", "itemusages"])
        .await
        .exits(1)
        .says(&["PartialError", "a shorter range"]);
    let reports = nothing.reports();
    assert!(reports.len() == 1 && reports[0]["complete"] == false && reports[0]["repaired"].is_null(), "{reports:?}");
    assert_eq!((nothing.total("at_source"), nothing.total("missing"), world.posts()), (0, 0, posts));
    world.assert_exactly_once();
}

#[tokio::test]
async fn rows_that_were_shipped_just_now_are_not_judged_and_not_shipped_again() {
    let world = World::file(losing(300)).await;
    world.once().await.exits(0);
    let dropped = world.dropped().len() as u64;
    assert!(dropped > 0);
    let args = ["reconcile", "--from", "3d", "--repair", "--output", "json"];
    let ran = world.cli(&args).await.exits(1).says(&["not judged; run this again in 15m", "are not judged, because"]);
    assert_eq!((ran.total("missing"), ran.repaired()), (0, 0));
    assert!(ran.total("pending") > 0 && ran.total("pending") <= dropped, "the youngest quarter of an hour is cut");
    world.assert_exactly_once();
}

#[tokio::test]
async fn a_row_that_is_there_twice_is_told_and_is_no_loss() {
    let world = World::file(history(100)).await;
    world.once().await.exits(0);
    let uuid = world.sim.world().uuids(Stream::ItemUsages).swap_remove(3);
    assert!(world.sim.world().copy_row(Stream::ItemUsages, &uuid));
    let ran = world.reconcile(&["--stream", "itemusages"]).await.exits(0);
    assert_eq!((ran.reports().len(), ran.total("duplicated"), ran.total("missing")), (1, 1, 0));
    let text = ["reconcile", "--from", "3d", "--latency", "0s", "--stream", "itemusages"];
    world.cli(&text).await.exits(0).says(&["hour (UTC)", "duplicated", "even hours", "total"]);
}

#[tokio::test]
async fn an_event_that_was_never_shipped_is_missing_and_is_shipped_for_the_first_time() {
    let world = World::file(history(50)).await;
    world.once().await.exits(0);
    let late = world.sim.world().append(Stream::AuditEvents, opship::sim::When::Late(Duration::from_secs(7200)));
    let found = world
        .reconcile(&[])
        .await
        .exits(1)
        .says(&["1 event missing: 0 accepted by the destination and not in the table, 1 never shipped"]);
    assert_eq!(found.total("missing"), 1);
    world.reconcile(&["--repair"]).await.exits(0);
    world.once().await.exits(0);
    assert_eq!(world.sim.world().delivered(Stream::AuditEvents, &late), 1, "the live feed knows it from the ledger");
    world.assert_exactly_once();
}

#[tokio::test]
async fn who_may_not_read_the_workspace_is_told_the_role_and_the_key() {
    let mut world = World::file(history(10)).await;
    world.once().await.exits(0);
    world.sim.world().revoke_reader();
    world
        .reconcile(&[])
        .await
        .exits(77)
        .says(&["InsufficientAccessError", "the role Log Analytics Reader on the workspace"]);
    world.unset("OPSHIP_AZURE__WORKSPACE_ID");
    world.reconcile(&[]).await.exits(64).says(&[MISSING, "Log Analytics Reader"]);
    world.set("OPSHIP_AZURE__WORKSPACE_ID", "00000000-0000-0000-0000-000000000000");
    world.reconcile(&[]).await.exits(1).says(&["PathNotFoundError", "check azure.workspace_id"]);
    assert_eq!(world.posts(), 4, "three feeds and a heartbeat, and nothing since");
}

#[tokio::test]
async fn a_wrong_range_is_refused_before_anything_is_compared() {
    let world = World::file(history(10)).await;
    for (args, why) in [
        (vec!["--from", "1h", "--to", "2h"], "is not before --to"),
        (vec!["--from", "121d"], "older than 119 days"),
        (vec!["--from", "2999-01-01"], "--from 2999-01-01T00:00:00Z lies in the future"),
        (vec!["--from", "1d", "--latency", "xx"], "expected a duration such as 15m"),
        (vec!["--from", "31d", "--repair"], "the table keeps rows for 30days (--retention)"),
        (vec!["--from", "yesterday"], "expected a time such as"),
        (vec!["--from", "5m"], "the whole range is younger than 15m"),
        (vec!["--from", "1d", "--account", "other"], "no configured feed matches"),
        (vec![], "--from <TIME>"),
    ] {
        world.cli(&[&["reconcile"], args.as_slice()].concat()).await.exits(64).says(&[why]);
    }
}

#[tokio::test]
async fn what_the_table_no_longer_keeps_is_not_repaired() {
    let world = World::file(history(10)).await;
    world.once().await.exits(0);
    let old = ["reconcile", "--from", "40d", "--latency", "0s"];
    world.cli(&old).await.exits(0).says(&["may count as missing although they were shipped"]);
    world.cli(&[&old[..], &["--repair"]].concat()).await.exits(64).says(&["would be shipped again; say --retention"]);
    world.cli(&[&old[..], &["--repair", "--retention", "90d"]].concat()).await.exits(0);
    world.assert_exactly_once();
}

#[tokio::test]
async fn a_feed_that_cannot_be_read_hides_none_of_the_others() {
    let world = World::file(history(100)).await;
    world.once().await.exits(0);
    world.fault(Fault::new(Target::Stream(Stream::AuditEvents), What::Status(Refusal::status(403))));
    let ran = world.reconcile(&[]).await.exits(77).says(&["default/auditevents: "]);
    let complete: Vec<_> = ran.reports().iter().map(|report| report["complete"].as_bool().unwrap()).collect();
    assert_eq!(complete.iter().filter(|complete| **complete).count(), 2, "{complete:?}");
    let broken = ran.reports().into_iter().find(|report| report["complete"] == false).unwrap();
    assert_eq!(broken["feed"], "default/auditevents");
    assert!(broken["error"].as_str().unwrap().contains("403") && broken["reached"] == broken["from"], "{broken}");
    assert_eq!(ran.total("in_table"), ran.total("at_source"));
    assert!(ran.total("at_source") > 0);
}

#[tokio::test]
async fn a_store_without_a_position_and_a_foreign_one_are_refused() {
    let mut world = World::file(history(10)).await;
    world.once().await.exits(0);
    let posts = world.posts();
    let rule = "dcr-ffffffffffffffffffffffffffffffff";
    world.set("OPSHIP_SINK__DCR_IMMUTABLE_ID", rule);
    for more in [&[][..], &["--repair"]] {
        world.reconcile(more).await.exits(64).says(&["the checkpoint belongs elsewhere"]);
    }
    let elsewhere = world.home.path().join("mistyped");
    world.set("OPSHIP_STORE__PATH", elsewhere.display());
    for more in [&[][..], &["--repair"]] {
        world
            .reconcile(more)
            .await
            .exits(1)
            .says(&["has no position yet", "start `opship run` or `opship once` first"]);
    }
    assert!(!elsewhere.join("checkpoints").exists());
    assert_eq!(world.posts(), posts);
}

#[tokio::test]
async fn lines_removed_from_the_sink_s_file_are_found_and_written_again() {
    let mut world = World::file(history(300)).await;
    let path = world.ship_to_files();
    world.once().await.exits(0);
    let text = std::fs::read_to_string(&path).unwrap();
    let events: Vec<&str> = text.lines().filter(|line| !line.contains("healthevents")).collect();
    let (removed, kept): (Vec<_>, Vec<_>) = events.iter().enumerate().partition(|(n, _)| n % 20 == 7);
    let kept: String = kept.into_iter().map(|(_, line)| format!("{line}\n")).collect();
    std::fs::write(&path, kept).unwrap();
    let found = world.reconcile(&[]).await.exits(1);
    assert_eq!((found.total("missing"), found.total("at_source")), (removed.len() as u64, 300));
    assert_eq!(world.reconcile(&["--repair"]).await.exits(0).repaired(), removed.len() as u64);
    let clean = world.reconcile(&[]).await.exits(0);
    assert_eq!((clean.total("in_table"), clean.total("duplicated")), (300, 0));
}

#[tokio::test]
async fn a_repair_beside_a_running_agent_ships_each_lost_row_once_and_stops_nothing() {
    let world = World::file(losing(600)).await;
    world.once().await.exits(0);
    let dropped = world.dropped();
    world.sim.world().set_drop_share(0.0);
    let agent = world.run();
    world.sim.world().set_live(20.0);
    let to = (world.sim.world().now() - TimeDelta::seconds(60)).to_rfc3339();
    let repaired = world.reconcile(&["--to", &to, "--repair"]).await.exits(0);
    assert_eq!(repaired.repaired(), dropped.len() as u64);
    world.sim.world().stop_generator();
    let done = || world.sim.world().compare().lost == 0;
    wait_until("the agent has shipped what came meanwhile", Duration::from_secs(30), done).await;
    agent.stop().await.exits(0);
    assert_eq!(world.sim.world().compare().duplicated, dropped.len() as u64);
    assert_eq!(world.assert_nothing_lost_and_copies_traceable().await, dropped.len() as u64);
}

#[tokio::test]
async fn a_repair_killed_in_a_post_loses_nothing_and_the_next_one_ends_it() {
    let world = World::file(losing(600)).await;
    world.once().await.exits(0);
    let dropped = world.dropped().len() as u64;
    world.sim.world().set_drop_share(0.0);
    let unanswered = world.unanswered();
    // The rows of the first POST arrive, those of the second don't.
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).times(1));
    let args = ["reconcile", "--from", "3d", "--latency", "0s", "--repair"];
    for what in [None, Some(What::Hang)] {
        what.into_iter().for_each(|what| world.fault(Fault::new(Target::Ingestion, what).times(1)));
        let killed = world.start(&args);
        let seen = world.unanswered();
        wait_until("a POST hangs", Duration::from_secs(30), || world.unanswered() > seen).await;
        killed.kill().await;
        world.sim.world().clear_faults();
    }
    assert_eq!(world.unanswered(), unanswered + 2);
    world.reconcile(&["--repair"]).await.exits(0);
    let clean = world.reconcile(&[]).await.exits(0);
    assert_eq!((clean.total("missing"), clean.total("in_table")), (0, 600));
    let copies = world.assert_nothing_lost_and_copies_traceable().await;
    assert_eq!(copies, dropped + clean.total("duplicated"));
}

#[tokio::test]
async fn comparing_files_leaves_the_agent_that_writes_them_alone() {
    let mut world = World::file(history(100)).await;
    let path = world.ship_to_files();
    let agent = world.run();
    let written = || std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() > 100);
    wait_until("the history and a heartbeat are written", Duration::from_secs(30), written).await;
    let compared = world.reconcile(&[]).await.exits(0);
    assert_eq!((compared.total("at_source"), compared.total("in_table")), (100, 100));
    agent.stop().await.exits(0);
}
