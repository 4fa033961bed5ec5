//! agent: one feed's tick. poll, decode, dedupe, map, pack, intend, deliver, record, commit.

pub mod account;
pub mod commands;
mod delivery;
mod given;
mod hurry;
pub mod monitor;
mod position;
pub mod reading;
mod remedy;
pub mod run;
mod trouble;

pub use commands::backfill::Backfill;
pub use commands::replay::Replayed;
pub use given::Settings;
pub use monitor::told::last_told;
pub use trouble::{Trouble, Waiting, chain};

use crate::flow::FeedId;
use crate::flow::attempts::Jitter;
use crate::flow::checkpoint::Which;
use crate::flow::decode::{self, Page};
use crate::flow::planted::{self, Bug};
use crate::flow::retry::Patience;
use crate::reload::Hurry;
use crate::sink::Sink;
use crate::source::{Answer, Source};
use crate::store::Store;
use crate::store::backfills::Backfills;
use crate::store::checkpoints::Checkpoints;
use crate::store::owners::Owners;
use crate::table::Table;
use account::Account;
use delivery::packing::Packing;
use delivery::parcel::Parcel;
use delivery::{Delivered, Delivery};
use given::Given;
use monitor::board::Panel;
use position::Stand;
use reading::Way;
use reading::apart::apart;
use reading::{By, Reader};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One stream of one account on its way from source to sink: the unit of position, of locking and of failure.
pub struct Feed {
    given: Arc<Given>,
    /// Where it stands.
    stand: Stand,
    /// How it reads.
    reader: Reader,
    /// How it delivers, to one destination.
    delivery: Delivery,
    backfills: Backfills,
}

/// What a tick may use.
#[derive(Clone, Copy)]
pub struct Tick<'a> {
    pub patience: Patience,
    /// How long to stand by while another process holds the open intent.
    pub standby_max: Duration,
    /// Whether a late sweep has to give way: the next tick is due, or its share of the budget is spent.
    pub late_gives_way: &'a (dyn Fn() -> bool + Send + Sync),
}

/// What a completed tick did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    pub pages: u64,
    pub read: u64,
    pub shipped: u64,
    pub late: u64,
    pub known: u64,
    pub dead_letters: u64,
    /// A cap or the next tick cut it: there is more to do at once.
    pub more_pending: bool,
}

/// What a feed is made of; put together by the composition root.
pub struct Parts {
    pub id: FeedId,
    pub account: Arc<Account>,
    pub source: Arc<dyn Source>,
    pub sink: Arc<dyn Sink>,
    pub store: Arc<dyn Store>,
    /// Shared by all feeds of the process.
    pub owners: Arc<Owners>,
    /// Random per process start: names this process in intents.
    pub owner: String,
    pub settings: Arc<Settings>,
    pub stop: CancellationToken,
    /// Seeds the jitter of waits.
    pub seed: u64,
    pub panel: Arc<Panel>,
    /// For [`Settings::verify_after`].
    pub table: Option<Arc<dyn Table>>,
}

impl Feed {
    pub fn new(parts: Parts) -> Self {
        let Parts { id, account, source, sink, store, owners, owner, settings, stop, seed, panel, table } = parts;
        let given = Arc::new(Given::new(id, account, settings, panel, stop));
        let mut jitter = Jitter::new(seed);
        Self {
            stand: Stand::new(given.clone(), Checkpoints::new(store.clone(), owner), owners),
            reader: Reader::new(given.clone(), source, jitter.fork()),
            delivery: Delivery::new(given.clone(), sink, table, &store, jitter),
            backfills: Backfills::new(store),
            given,
        }
    }

    /// Waits that may be cut short end when that is asked for.
    #[must_use]
    pub fn hurried_by(mut self, hurry: Hurry) -> Self {
        self.delivery.hurry = hurry;
        self
    }

    pub fn id(&self) -> &FeedId {
        &self.given.id
    }

    /// One tick: settle what an earlier one left open, follow the cursor to its end, then re-read what a cursor may miss.
    ///
    /// # Errors
    /// The first trouble met. The position is safe: it covers nothing that the sink has not accepted.
    pub async fn drain(&mut self, tick: Tick<'_>) -> Result<Drained, Trouble> {
        let mut drained = Drained::default();
        self.load(tick).await?;
        drained.dead_letters += self.recover(tick).await?;
        let mut outcome = self.follow_cursor(tick, &mut drained).await;
        // The sweeps run whatever the cursor did: they alone make sure that nothing is lost, the cursor gives speed.
        for which in [Which::Overlap, Which::Late] {
            if self.stand.may_sweep(which, &outcome) && !drained.more_pending {
                let swept = self.sweep(which, tick, &mut drained).await;
                outcome = outcome.and(swept);
            }
        }
        let settled = self.settle(&outcome).await;
        outcome.and(settled).map(|()| drained)
    }

    /// Ships what is new on a page and moves the position behind it: each verb of the flow once, in order.
    async fn ship(&mut self, page: &Page<'_>, way: Way, tick: Tick<'_>) -> Result<Drained, Trouble> {
        let Self { given, stand, delivery, .. } = self;
        delivery.load_ledger(stand, page.items.iter().map(|item| item.key)).await?;
        delivery.ledger.tell_loss(stand.position()?.cp.totals.shipped);
        let sorted = delivery.sort(page);
        given.tell_conflicts(page, &sorted);
        given.tell_moved(sorted.moved.iter().filter_map(|place| page.items.get(*place)).map(|item| item.key));
        let (settings, account_uuid) = (given.settings.clone(), given.account.uuid());
        let mut packing = Packing::new(page, sorted, given.id.stream, &settings, account_uuid.as_deref());
        while let Some(batch) = packing.next_batch() {
            let is_last = packing.is_done() || planted::is(Bug::EachBatchMoves);
            let advance = way.advance.clone().filter(|_| is_last);
            let mut parcels = VecDeque::from([Parcel::new(batch, way.origin.kind(), advance)]);
            while let Some(parcel) = parcels.pop_front() {
                delivery.keep_dead_letters(&mut packing).await?;
                delivery.intend(stand, &parcel).await?;
                if planted::is(Bug::RecordBeforeDeliver) {
                    delivery.record(stand, &parcel).await?;
                }
                match delivery.deliver(stand, &parcel, tick).await? {
                    Delivered::Accepted => {
                        delivery.record(stand, &parcel).await?;
                        delivery.commit(stand, &parcel, &way, &mut packing)?;
                    }
                    Delivered::Refused(error) => {
                        delivery.retry_smaller(stand, parcel, &error, &mut packing, &mut parcels).await?;
                    }
                }
            }
        }
        delivery.commit_page(stand, packing, way.advance).await
    }

    /// Decodes an answer and ships it while the next page is already on its way.
    async fn take(&mut self, answer: &Answer, by: By, tick: Tick<'_>) -> Result<Taken, Trouble> {
        let length = answer.body.len();
        let (text, repaired) = apart(length, || decode::text(&answer.body));
        let sent = self.stand.cursor_of(by)?;
        let page = apart(length, || self.reader.page_of(&text, sent.as_ref()))?;
        if repaired {
            tracing::warn!(feed = %self.given.id, "a page held bytes that are no UTF-8, or lone surrogates: replaced by U+FFFD");
        }
        let origin = self.stand.see(&page, by, answer.date)?;
        let advance = origin.advance_behind(&page, answer.date);
        let way = Way { origin, advance };
        let next = self.reader.prefetch(&page, origin, length);
        let (shipped, next) = tokio::join!(self.ship(&page, way, tick), next);
        let items = page.items.len();
        self.reader.ask_for_more();
        Ok(Taken { shipped: shipped?, items, cursor: page.cursor, has_more: page.has_more, next })
    }
}

/// A page that was shipped, and what it says about the next one.
struct Taken {
    shipped: Drained,
    items: usize,
    cursor: crate::flow::Cursor,
    has_more: bool,
    /// The next page, when it was fetched meanwhile.
    next: Option<Answer>,
}
