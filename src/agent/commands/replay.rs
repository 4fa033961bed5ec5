//! A dead letter once more: the original through map, intent, POST, record and commit, although the ledger knows its stub.

use crate::agent::delivery::dead_letters::{ROW_REFUSED, in_full};
use crate::agent::delivery::parcel::Parcel;
use crate::agent::delivery::{Delivered, Delivery};
use crate::agent::given::Given;
use crate::agent::position::Stand;
use crate::agent::trouble::Trouble;
use crate::agent::{Feed, Tick};
use crate::flow::checkpoint::Totals;
use crate::flow::intent::BatchKind;
use crate::flow::pack::{Batch, ROW_BYTES_MAX};
use crate::flow::{EventId, EventKey, Hour, Time, decode};
use crate::store::dead_letters::DeadLetter;
use serde::Deserialize;

const REPLAYED: &str = "a dead letter was replayed beside its stub";

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The row was accepted and recorded. Above attempt 1 it stands beside the stub, under the same uuid.
    Accepted { attempt: u32 },
    /// The destination refuses it again; the letter says why now.
    Refused { why: String },
    /// No request may carry the row.
    TooLarge { row_bytes: usize },
    /// The letter's event is not the one that the letter names: no copy of it could be traced.
    Foreign,
}

impl Feed {
    /// Ships the original of a letter although the ledger knows its id. A copy that this makes is traceable: its frame in the ledger has
    /// a higher attempt, and the checkpoint counts it as in doubt before the POST.
    ///
    /// # Errors
    /// The trouble met; the letter and the position are as they were.
    pub async fn replay(&mut self, letter: &DeadLetter, tick: Tick<'_>) -> Result<Replayed, Trouble> {
        self.load(tick).await?;
        self.recover(tick).await?;
        let outcome = self.ship_letter(letter, tick).await;
        let settled = self.settle(&outcome.as_ref().map(|_| ()).map_err(|_| Trouble::Stopped)).await;
        outcome.and_then(|replayed| settled.map(|()| replayed))
    }

    async fn ship_letter(&mut self, letter: &DeadLetter, tick: Tick<'_>) -> Result<Replayed, Trouble> {
        let Some(Original { key, time, row }) = self.given.original(letter) else { return Ok(Replayed::Foreign) };
        if row.len() > ROW_BYTES_MAX {
            return Ok(Replayed::TooLarge { row_bytes: row.len() });
        }
        self.delivery.load_ledger(&mut self.stand, [key].into_iter()).await?;
        // The stub is in the table: a second row may be beside it.
        let known = self.delivery.known_by_ledger([key].into_iter(), REPLAYED);
        let batch = Batch::of_one(key, time, 0, &row);
        // A backfill's intent: recovery looks for its event by time, and moves no position behind it.
        let parcel = Parcel::new(batch, BatchKind::Backfill, None).knowing(known);
        self.delivery.intend(&mut self.stand, &parcel).await?;
        match self.delivery.deliver(&mut self.stand, &parcel, tick).await? {
            Delivered::Accepted => {
                self.delivery.record(&mut self.stand, &parcel).await?;
                let attempt = self.stand.position()?.cp.slot.attempt();
                self.delivery.conclude_replay(&mut self.stand).await?;
                Ok(Replayed::Accepted { attempt })
            }
            Delivered::Refused(error) => {
                // After a POST without an answer the intent stays: recovery brings the ledger up to it.
                self.delivery.release_intent(&mut self.stand).await?;
                let why = in_full(&format!("{ROW_REFUSED}, replayed too"), Some(&error), &letter.event);
                self.delivery.dead_letters.keep(&self.given.id, &key, &why, &letter.event, self.given.date()).await?;
                Ok(Replayed::Refused { why })
            }
        }
    }
}

impl Given {
    /// The row that stands for the letter's event; `None` when that is another event than the letter names.
    fn original(&self, letter: &DeadLetter) -> Option<Original> {
        let hour = Hour::parse(&letter.hour)?;
        let named = |key: EventKey| key.hour == hour && key.id.to_string() == letter.id;
        let item = decode::item(&letter.event);
        if named(item.key) {
            let (settings, account_uuid) = (self.settings.clone(), self.account.uuid());
            let mut row = Vec::new();
            settings.mapper(self.id.stream, account_uuid.as_deref()).row(&item, &mut row);
            return Some(Original { key: item.key, time: item.timestamp, row });
        }
        // Kept while columns were redacted: the letter holds the row itself.
        let kept: Kept = serde_json::from_str(&letter.event).ok()?;
        let time = kept.timestamp.and_then(|text| decode::timestamp(&text));
        let key = EventKey { hour: Hour::of(time), id: EventId::of_uuid(&kept.uuid_s) };
        let is_ours = kept.log_source == self.id.stream.as_str() && named(key);
        is_ours.then(|| Original { key, time, row: letter.event.clone().into_bytes() })
    }
}

impl Delivery {
    async fn conclude_replay(&mut self, stand: &mut Stand) -> Result<(), Trouble> {
        let position = stand.position()?;
        position.cp.totals.add(&Totals { read: 1, shipped: 1, batches: 1, ..Totals::default() });
        position.cp.slot.conclude(0);
        position.unsaved_rows = true;
        stand.save(&mut self.ledger).await
    }
}

/// An event on its way out of a letter.
struct Original {
    key: EventKey,
    time: Option<Time>,
    row: Vec<u8>,
}

/// What identifies a row.
#[derive(Deserialize)]
struct Kept {
    log_source: String,
    uuid_s: String,
    timestamp: Option<String>,
}
