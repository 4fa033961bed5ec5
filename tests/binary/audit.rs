//! What arrived, held against what was generated and against the ledger.

use crate::world::{World, feed};
use opship::flow::decode::timestamp;
use opship::flow::{EventId, EventKey, Hour, Stream};
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

    /// Everything arrived, once.
    #[track_caller]
    pub fn assert_exactly_once(&self) {
        let compared = self.sim.world().compare();
        let bad = compared.lost + compared.duplicated + compared.invented + compared.dropped_columns;
        assert!(bad == 0 && compared.generated > 0, "{compared:?}");
    }

    /// Everything arrived, and a row that arrived again stands in the ledger with an attempt for each copy. Returns how many copies.
    pub async fn assert_nothing_lost_and_copies_traceable(&self) -> u64 {
        let compared = self.sim.world().compare();
        assert!(compared.lost == 0 && compared.invented == 0 && compared.generated > 0, "{compared:?}");
        let mut copies: BTreeMap<(String, String, String), u32> = BTreeMap::new();
        let text = |row: &Value, column: &str| row[column].as_str().unwrap().to_owned();
        for row in self.rows() {
            let key = (text(&row, "log_source"), text(&row, "uuid_s"), text(&row, "timestamp"));
            *copies.entry(key).or_default() += 1;
        }
        let store = self.store().await;
        for stream in Stream::ALL.into_iter().filter(|stream| copies.keys().any(|(of, ..)| of == stream.as_str())) {
            let cp = self.checkpoint(stream).await;
            assert!(cp.intent.is_none(), "{:?}", cp.intent);
            let mut ledger = Ledger::new(store.clone(), &feed(stream), &cp.fingerprints.sink);
            let of_stream = copies.iter().filter(|((of, ..), _)| of == stream.as_str());
            let mut doubted = 0;
            for ((_, uuid, time), copies) in of_stream {
                let key = EventKey { hour: Hour::of(timestamp(time)), id: EventId::of_uuid(uuid) };
                ledger.load([key].into_iter()).await.unwrap();
                let attempt = ledger.attempt(&key).unwrap_or_else(|| panic!("{uuid} is not in the ledger"));
                assert!(attempt >= *copies, "{uuid} arrived {copies} times in {attempt} attempts");
                doubted += u64::from(*copies - 1);
            }
            let in_doubt = &cp.in_doubt;
            assert!(doubted <= in_doubt.rows, "{stream}: {doubted} copies, in doubt {in_doubt:?}");
            assert!(doubted <= in_doubt.batches * 500, "{stream}: {doubted} copies, in doubt {in_doubt:?}");
        }
        compared.duplicated
    }
}
