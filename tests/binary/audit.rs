//! What arrived, held against what was generated and against the ledger.

use crate::world::{World, feed};
use opship::flow::checkpoint::Checkpoint;
use opship::flow::decode::timestamp;
use opship::flow::{EventId, EventKey, Hour, Stream};
use opship::sim::{Comparison, Service};
use opship::store::ledger::Ledger;
use serde_json::Value;
use std::collections::BTreeMap;

impl World {
    /// The rows that are events.
    pub fn rows(&self) -> Vec<Value> {
        let rows = self.sim.world().rows();
        rows.into_iter().filter(|row| row["log_source"] != "healthevents").collect()
    }

    pub fn row(&self, uuid: &str) -> Value {
        let mut rows = self.rows().into_iter().filter(|row| row["uuid_s"] == uuid);
        let row = rows.next().unwrap_or_else(|| panic!("{uuid} did not arrive"));
        assert_eq!(rows.count(), 0, "{uuid} arrived more than once");
        row
    }

    /// The categories of the health rows in order; a heartbeat has an empty one.
    pub fn health(&self) -> Vec<String> {
        let rows = self.sim.world().rows();
        let health = rows.iter().filter(|row| row["log_source"] == "healthevents");
        health.map(|row| row["category"].as_str().unwrap_or_default().to_owned()).collect()
    }

    pub fn heartbeats(&self) -> usize {
        self.health().iter().filter(|category| category.is_empty()).count()
    }

    pub fn posts(&self) -> usize {
        self.sim.world().journal().iter().filter(|entry| entry.service == Service::Ingestion).count()
    }

    /// POSTs that got no answer.
    pub fn unanswered(&self) -> usize {
        let journal = self.sim.world().journal();
        journal.iter().filter(|entry| entry.service == Service::Ingestion && entry.status.is_none()).count()
    }

    /// POSTs whose outcome the agent cannot know: no answer, or one that says nothing about the rows.
    pub fn doubtful_posts(&self) -> usize {
        let journal = self.sim.world().journal();
        let posts = journal.iter().filter(|entry| entry.service == Service::Ingestion);
        posts.filter(|post| post.status.is_none_or(|status| status == 408 || status >= 500)).count()
    }

    /// Everything arrived, once.
    #[track_caller]
    pub fn assert_exactly_once(&self) {
        let compared = self.sim.world().compare();
        let bad = compared.lost + compared.duplicated + compared.invented + compared.dropped_columns;
        assert!(bad == 0 && compared.generated > 0, "{compared:?}");
    }

    /// Everything arrived, and a row that arrived again stands in the ledger with an attempt for each copy. Returns how many copies.
    pub async fn assert_nothing_lost_and_copies_traceable(&self) -> u64 {
        let audit = self.audit().await;
        audit.assert_sound();
        audit.compared.duplicated
    }

    /// What arrived, held against what was generated and, row by row, against the ledger.
    pub async fn audit(&self) -> Audit {
        let mut rows: BTreeMap<String, BTreeMap<(String, String), u32>> = BTreeMap::new();
        let text = |row: &Value, column: &str| row[column].as_str().unwrap().to_owned();
        for row in self.rows() {
            let of_stream = rows.entry(text(&row, "log_source")).or_default();
            *of_stream.entry((text(&row, "uuid_s"), text(&row, "timestamp"))).or_default() += 1;
        }
        let mut feeds = Vec::new();
        for stream in Stream::ALL {
            if let Some(rows) = rows.get(stream.as_str()) {
                feeds.push(self.audit_feed(stream, rows).await);
            }
        }
        Audit { compared: self.sim.world().compare(), feeds }
    }

    async fn audit_feed(&self, stream: Stream, rows: &BTreeMap<(String, String), u32>) -> FeedAudit {
        let checkpoint = self.checkpoint(stream).await;
        let mut ledger = Ledger::new(self.store().await, &feed(stream), &checkpoint.fingerprints.sink);
        let (mut copies, mut untraceable) = (0, Vec::new());
        for ((uuid, time), arrived) in rows {
            let key = EventKey { hour: Hour::of(timestamp(time)), id: EventId::of_uuid(uuid) };
            ledger.load([key].into_iter()).await.unwrap();
            let attempt = ledger.attempt(&key).unwrap_or_default();
            copies += u64::from(*arrived - 1);
            if attempt < *arrived {
                untraceable.push(format!("{uuid} of {time} arrived {arrived} times in {attempt} attempts"));
            }
        }
        FeedAudit { copies, untraceable, checkpoint }
    }
}

pub struct Audit {
    pub compared: Comparison,
    /// Of the feeds that shipped something.
    pub feeds: Vec<FeedAudit>,
}

pub struct FeedAudit {
    /// Rows beyond the first of an event.
    pub copies: u64,
    /// Events that the ledger does not have, or not in as many attempts as they arrived.
    pub untraceable: Vec<String>,
    pub checkpoint: Checkpoint,
}

impl Audit {
    pub fn untraceable(&self) -> usize {
        self.feeds.iter().map(|feed| feed.untraceable.len()).sum()
    }

    /// Batches in doubt.
    pub fn doubts(&self) -> u64 {
        self.feeds.iter().map(|feed| feed.checkpoint.slot.in_doubt().batches).sum()
    }

    #[track_caller]
    pub fn assert_sound(&self) {
        let compared = &self.compared;
        assert!(compared.lost == 0 && compared.invented == 0 && compared.generated > 0, "{compared:?}");
        for FeedAudit { copies, untraceable, checkpoint } in &self.feeds {
            let (stream, in_doubt) = (checkpoint.stream, &checkpoint.slot.in_doubt());
            assert!(checkpoint.slot.intent().is_none(), "{stream}: {:?}", checkpoint.slot.intent());
            assert!(untraceable.is_empty(), "{stream}: {untraceable:?}");
            assert!(*copies <= in_doubt.rows, "{stream}: {copies} copies, in doubt {in_doubt:?}");
            assert!(*copies <= in_doubt.batches * 500, "{stream}: {copies} copies, in doubt {in_doubt:?}");
        }
    }
}
