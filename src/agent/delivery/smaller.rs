//! smaller: what becomes of a body that is at fault. Parts of it, then a stub for the row that is left, then a person's turn.

use super::dead_letters::{ROW_REFUSED, in_full};
use super::packing::Packing;
use super::parcel::Parcel;
use super::recovery::Found;
use super::{Delivered, Delivery};
use crate::agent::Tick;
use crate::agent::position::Stand;
use crate::agent::trouble::{Trouble, chain};
use crate::flow::decode::{self, Item};
use crate::flow::intent::BatchKind;
use crate::flow::map::Stub;
use crate::flow::pack::Batch;
use crate::flow::planted::{self, Bug};
use crate::flow::retry::{Edge, Verdict, verdict};
use crate::flow::suspicion::ALONE_DOUBTFUL;
use crate::sink::SinkError;
use std::collections::VecDeque;

pub(crate) const STUB_REFUSED: &str = "the destination takes an empty array but not even a stub row: check that the rule's stream has the columns of \
    this version, and that no proxy or firewall on the way refuses its requests";

/// Refusals of each stub by a verifying agent before a smaller one is tried.
const STUB_DOUBTFUL: u32 = 2;

/// What follows a body that is at fault: in a tick, in a recovery and in a repair.
enum Smaller {
    Parts(Vec<Batch>),
    /// Of the single row that is left, or that was refused as a larger stub.
    Stub(Stub),
    /// The smallest stub was refused: a person's turn.
    Nothing,
}

/// Halve, stub, give up. Where no row has been accepted since the first refusal, one row alone goes first: a destination that takes no row
/// at all must not see every half of the batch before that shows.
fn smaller(parcel: &Parcel, error: &SinkError, takes_rows: bool) -> Smaller {
    let is_size = verdict(Edge::Sink, &error.failure) == Verdict::Split;
    match (parcel.batch.halve(), parcel.stub) {
        (Some((first, rest)), _) if takes_rows || is_size => Smaller::Parts(vec![first, rest]),
        (Some(_), _) => Smaller::Parts(parcel.batch.first_apart()),
        (None, None) => Smaller::Stub(Stub::Ids),
        (None, Some(refused)) => refused.smaller().map_or(Smaller::Nothing, Smaller::Stub),
    }
}

impl Delivery {
    /// A refused batch goes in parts; a refused row becomes a stub; a refused stub a smaller one; the smallest needs a person.
    pub(crate) async fn retry_smaller(
        &mut self,
        stand: &mut Stand,
        parcel: Parcel,
        error: &SinkError,
        packing: &mut Packing<'_, '_>,
        parcels: &mut VecDeque<Parcel>,
    ) -> Result<(), Trouble> {
        tracing::warn!(feed = %self.given.id, rows = parcel.batch.rows.len(), error = %chain(error), "a batch was refused: trying smaller ones");
        let Some((place, key)) = parcel.batch.rows.first().map(|row| (row.place, row.key)) else {
            return self.give_up(stand, undeliverable(chain(error))).await;
        };
        let stub = match smaller(&parcel, error, packing.takes_rows) {
            Smaller::Parts(parts) => {
                packing.counted.splits += 1;
                stand.position()?.cp.slot.split(parts.len());
                return_to(parcels, parcel, parts);
                return Ok(());
            }
            Smaller::Stub(size) => packing.stub_batch(place, size, error).map(|batch| (size, batch)),
            Smaller::Nothing => None,
        };
        if let Some((size, batch)) = stub {
            parcels.push_front(Parcel { batch, stub: Some(size), ..parcel });
            return Ok(());
        }
        self.withdraw_letter(&key).await;
        self.give_up(stand, undeliverable(chain(error))).await
    }

    /// Originals are safe before their stub is posted.
    pub(crate) async fn keep_dead_letters(&mut self, packing: &mut Packing<'_, '_>) -> Result<(), Trouble> {
        for (key, why, original) in packing.take_stubbed() {
            self.keep_letter(&key, &why, &original).await?;
            packing.counted.dead_letters += 1;
        }
        Ok(())
    }

    /// Posts what was found of a batch in doubt under its intent, part by part; what is refused as in any delivery.
    pub(crate) async fn post_again(
        &mut self,
        stand: &mut Stand,
        kind: BatchKind,
        mut found: Found,
        tick: Tick<'_>,
    ) -> Result<(), Trouble> {
        let whole = |batch| Parcel::new(batch, kind, None);
        let mut parcels: VecDeque<Parcel> = found.parts.drain(..).map(whole).collect();
        let mut takes_rows = false;
        while let Some(parcel) = parcels.pop_front() {
            let parcel = self.set_aside_before(stand, parcel, &found).await?;
            let error = match self.deliver(stand, &parcel, tick).await? {
                Delivered::Accepted => {
                    self.record(stand, &parcel).await?;
                    takes_rows = true;
                    continue;
                }
                Delivered::Refused(error) => error,
            };
            let size = match smaller(&parcel, &error, takes_rows) {
                Smaller::Parts(parts) => {
                    let part = |batch| Parcel { is_suspect: true, ..whole(batch) };
                    parts.into_iter().rev().for_each(|batch| parcels.push_front(part(batch)));
                    continue;
                }
                Smaller::Stub(size) => Some(size),
                Smaller::Nothing => None,
            };
            let stub = self.stub_for(&parcel, &found, size, Some(&error)).await?;
            parcels.push_front(stub.ok_or_else(|| undeliverable(chain(&error)))?);
        }
        Ok(())
    }

    /// A row whose refusals were counted by earlier runs, and are enough, goes as a stub at once: the table has been asked since, and the
    /// row is not there.
    async fn set_aside_before(&mut self, stand: &mut Stand, parcel: Parcel, found: &Found) -> Result<Parcel, Trouble> {
        let [row] = parcel.batch.rows.as_slice() else { return Ok(parcel) };
        let slot = &mut stand.position()?.cp.slot;
        let refusals = slot.intent().map_or(0, |intent| intent.refusals_of(row.key.id));
        let Some(of_stubs) = refusals.checked_sub(ALONE_DOUBTFUL).filter(|_| parcel.stub.is_none()) else {
            return Ok(parcel);
        };
        let size = match of_stubs / STUB_DOUBTFUL {
            0 => Some(Stub::Ids),
            1 => Some(Stub::Short),
            2 => Some(Stub::Bare),
            // Not even that: the next run begins again with the row, in case somebody has repaired the destination.
            _ => None,
        };
        if size.is_none() {
            slot.acquit();
        }
        let stub = self.stub_for(&parcel, found, size, None).await?;
        if stub.is_none() {
            stand.save(&mut self.ledger).await?;
        }
        stub.ok_or_else(|| undeliverable("every stub of a row was refused".into()))
    }

    /// The stub of this size for the row of a parcel, its original kept. `None`: there is no smaller one, and the letter is taken back.
    async fn stub_for(
        &mut self,
        parcel: &Parcel,
        found: &Found,
        size: Option<Stub>,
        error: Option<&SinkError>,
    ) -> Result<Option<Parcel>, Trouble> {
        let Some(key) = parcel.batch.rows.first().map(|row| row.key) else { return Ok(None) };
        let Some((size, original)) = size.zip(found.originals.get(&key)) else {
            self.withdraw_letter(&key).await;
            return Ok(None);
        };
        let item = decode::item(original);
        let row = self.stub_again(&item, size, ROW_REFUSED, error).await?;
        let batch = Batch::of_one(item.key, item.timestamp, 0, &row);
        Ok(Some(Parcel { batch, stub: Some(size), ..parcel.clone() }))
    }

    /// The stub of an event of a batch in doubt; its original is safe before.
    pub(crate) async fn stub_again(
        &mut self,
        item: &Item<'_>,
        size: Stub,
        why: &str,
        error: Option<&SinkError>,
    ) -> Result<Vec<u8>, Trouble> {
        let (settings, account_uuid) = (self.given.settings.clone(), self.given.account.uuid());
        let mapper = settings.mapper(self.given.id.stream, account_uuid.as_deref());
        let mut stub = Vec::new();
        mapper.stub(item, size, why, &mut stub);
        let original = mapper.original(item);
        // A smaller stub follows at once on one whose letter says why; not in another run.
        if size == Stub::Ids || error.is_none() {
            self.keep_letter(&item.key, &in_full(why, error, item.raw), &original).await?;
        }
        self.stubbed_again.insert(item.key);
        Ok(stub)
    }
}

fn undeliverable(what: String) -> Trouble {
    Trouble::Undeliverable { what, remedy: STUB_REFUSED.into() }
}

/// Puts the parts of a refused parcel in front of what follows it. Only the last one means what the whole meant.
fn return_to(parcels: &mut VecDeque<Parcel>, parcel: Parcel, mut parts: Vec<Batch>) {
    // A backfill's part too may lie before the floor.
    let kind = if parcel.kind == BatchKind::Backfill { parcel.kind } else { BatchKind::Split };
    let part = Parcel { kind, is_suspect: true, ..parcel };
    let last = parts.pop().filter(|_| !planted::is(Bug::LoseSecondHalf));
    last.into_iter().for_each(|batch| parcels.push_front(Parcel { batch, ..part.clone() }));
    for batch in parts.into_iter().rev() {
        let advance = part.advance.clone().filter(|_| planted::is(Bug::SplitMovesEarly));
        parcels.push_front(Parcel { batch, advance, ..part.clone() });
    }
}
