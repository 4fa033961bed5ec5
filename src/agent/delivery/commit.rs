//! record, commit: what was accepted goes into the ledger, then the position moves behind it.

use super::Delivery;
use super::packing::Packing;
use super::parcel::Parcel;
use crate::agent::Drained;
use crate::agent::monitor::view;
use crate::agent::position::{Stand, until_stopped};
use crate::agent::reading::By;
use crate::agent::reading::Way;
use crate::agent::trouble::{Trouble, chain};
use crate::flow::attempts::Attempts;
use crate::flow::checkpoint::{Advance, Totals};
use crate::flow::intent::{Intent, Settled};
use crate::flow::planted::{self, Bug};
use crate::flow::retry::Patience;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::time::Instant;

/// How long the ledger is tried before the tick gives up; recovery then finds the batch in doubt no more than once.
const RECORD_PATIENCE: Duration = Duration::from_secs(60);
/// Pages without new rows between two commits.
const ROWLESS_PAGES_MAX: u32 = 20;

impl Delivery {
    /// Appends the accepted ids to the ledger.
    pub(crate) async fn record(&mut self, stand: &mut Stand, parcel: &Parcel) -> Result<(), Trouble> {
        let attempt = stand.position()?.cp.slot.attempt();
        self.record_keys(stand, &parcel.batch.keys(), attempt).await?;
        self.accepted = None;
        stand.position()?.cp.slot.record();
        Ok(())
    }

    pub(crate) async fn record_keys(
        &mut self,
        stand: &mut Stand,
        keys: &[crate::flow::EventKey],
        attempt: u32,
    ) -> Result<(), Trouble> {
        let Some(batch_id) = stand.position()?.cp.slot.intent().map(Intent::batch_id_bytes) else { return Ok(()) };
        if planted::is(Bug::SkipLedger) {
            return Ok(());
        }
        let begun = Instant::now();
        let mut attempts = Attempts::new(Patience::within(RECORD_PATIENCE), &mut self.jitter);
        loop {
            attempts.begin();
            let append = self.ledger.append(batch_id, attempt, keys);
            let error = match until_stopped(&self.given.stop, crate::agent::position::STOP_COMMIT, append).await {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => error,
                None => return Err(Trouble::Stopped),
            };
            let ControlFlow::Continue(wait) = attempts.pause(begun.elapsed(), None) else { return Err(error) };
            tracing::warn!(feed = %self.given.id, error = %chain(&error), "accepted rows are not in the ledger yet: trying again");
            self.given.rest(wait).await?;
        }
    }

    /// Moves the position in memory; the next write of the checkpoint, often the next intent, carries it.
    pub(crate) fn commit(
        &mut self,
        stand: &mut Stand,
        parcel: &Parcel,
        way: &Way,
        packing: &mut Packing<'_, '_>,
    ) -> Result<(), Trouble> {
        let counted = std::mem::take(&mut packing.counted);
        (packing.shipped_any, packing.takes_rows) = (true, true);
        let rows = &parcel.batch.rows;
        let is_late = |time: Option<crate::flow::Time>| match (way.origin.by, way.origin.late_before) {
            (By::Sweep(_), _) => true,
            (By::Cursor { .. }, Some(before)) => time.is_some_and(|time| time < before),
            (By::Cursor { .. }, None) | (By::Range, _) => false,
        };
        let late = rows.iter().filter(|row| is_late(row.timestamp)).count() as u64;
        let shipped = rows.len() as u64;
        let timestamps: Vec<_> = rows.iter().map(|row| row.timestamp).collect();
        // Old events say nothing about lateness.
        let is_of_old = matches!(way.origin.by, By::Cursor { born: Some(_) } | By::Range);
        let bytes = parcel.batch.bytes();
        self.given.panel.accepted(&view::Accepted {
            timestamps: &timestamps,
            bytes,
            late,
            dead_letters: counted.dead_letters,
            date: (!is_of_old).then_some(self.given.date()),
        });
        let batch = Totals { read: shipped, shipped, late, batches: 1, ..Totals::default() };
        packing.drained.shipped += shipped;
        packing.drained.late += late;
        packing.drained.dead_letters += counted.dead_letters;
        let position = stand.position()?;
        position.cp.totals.add(&counted);
        position.unsaved_rows = true;
        if let Some(Settled { shipped, advance }) = position.cp.slot.settle(&batch) {
            position.cp.totals.add(&shipped);
            advance.into_iter().for_each(|advance| position.cp.apply(advance));
        }
        Ok(())
    }

    /// Settles what needed no row. A page without new rows moves the position too.
    pub(crate) async fn commit_page(
        &mut self,
        stand: &mut Stand,
        mut packing: Packing<'_, '_>,
        advance: Option<Advance>,
    ) -> Result<Drained, Trouble> {
        if matches!(advance, Some(Advance::Sweep { .. })) {
            // A sweep reads them again and again: counted as dropped once, by the cursor.
            packing.settled.known += std::mem::take(&mut packing.settled.filtered);
        }
        let position = stand.position()?;
        position.cp.totals.add(&packing.settled);
        let mut drained = packing.drained;
        drained.pages = 1;
        drained.known = packing.settled.known;
        drained.read = packing.settled.read + drained.shipped;
        if !packing.shipped_any {
            advance.into_iter().for_each(|advance| position.cp.apply(advance));
            position.rowless_pages += 1;
            if position.rowless_pages >= ROWLESS_PAGES_MAX && position.needs_commit() {
                stand.save(&mut self.ledger).await?;
            }
        }
        Ok(drained)
    }
}
