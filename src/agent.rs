//! agent: one feed's tick. poll, decode, dedupe, map, pack, intend, deliver, record, commit.

pub mod account;
mod account_panel;
pub mod again;
mod apart;
mod backfill;
mod blame;
pub mod board;
pub mod clock;
mod delivery;
mod floor;
pub mod health;
mod hurry;
mod letters;
mod moment;
mod moved;
mod operator;
mod ownership;
mod packing;
mod parcel;
mod position;
mod reading;
pub mod reconcile;
mod recovery;
mod refusals;
mod refused;
mod remedy;
pub mod repair;
mod replay;
pub mod run;
mod segments;
mod smaller;
mod told;
mod trouble;
mod verify;
mod view;
mod walk;

pub use backfill::Backfill;
pub use position::Settings;
pub use replay::Replayed;
pub use told::last_told;
pub use trouble::{Trouble, Waiting, chain};

use crate::flow::attempts::Jitter;
use crate::flow::checkpoint::{Fingerprints, Which};
use crate::flow::decode::{self, Page};
use crate::flow::planted::{self, Bug};
use crate::flow::retry::Patience;
use crate::flow::{EventKey, FeedId, Time};
use crate::reload::Hurry;
use crate::sink::Sink;
use crate::source::{Answer, Source};
use crate::store::backfills::Backfills;
use crate::store::checkpoints::Checkpoints;
use crate::store::dead_letters::DeadLetters;
use crate::store::ledger::Ledger;
use crate::store::owners::Owners;
use crate::store::{Key, Store, Version};
use crate::table::Table;
use account::Account;
use again::Way;
use apart::apart;
use board::Panel;
use delivery::Delivered;
use ownership::Me;
use packing::Packing;
use parcel::Parcel;
use position::Position;
use reading::By;
use recovery::Accepted;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One stream of one account on its way from source to sink: the unit of position, of locking and of failure.
pub struct Feed {
    pub id: FeedId,
    account: Arc<Account>,
    source: Arc<dyn Source>,
    sink: Arc<dyn Sink>,
    checkpoints: Checkpoints,
    ledger: Ledger,
    dead_letters: DeadLetters,
    backfills: Backfills,
    owners: Arc<Owners>,
    settings: Arc<Settings>,
    /// Fires when the process is asked to end: no new poll, no new intent, sleeps end.
    stop: CancellationToken,
    /// The checkpoint as last read or written; none before the first load and after a lost race.
    position: Option<Position>,
    /// The source's clock in its latest answer.
    date: Time,
    /// The same in the latest introduction that was taken into account.
    introduced: Time,
    /// Rows whose 204 this process has seen but not yet recorded: recovery need not post them again.
    accepted: Option<Accepted>,
    /// Events of a batch that is settled again whose stub is posted: counted as dead letters with the batch.
    stubbed_again: HashSet<EventKey>,
    /// Items asked for per page; halved when an answer is over the body cap, doubled again after good ones.
    page_limit: u32,
    /// Pages taken since it was halved or doubled.
    good_pages: u32,
    jitter: Jitter,
    /// Where shipped rows can be looked up; none unless batches in doubt are verified.
    table: Option<Arc<dyn Table>>,
    /// Since when the table has not answered.
    silent_since: Option<Instant>,
    /// Where the feed shows what it does.
    panel: Arc<Panel>,
    /// The version of the checkpoint as last seen: another one was written by another process.
    last_seen: Option<Version>,
    /// It was told that a cursor ends without `items`.
    told_bare: bool,
    /// When another process was last noticed.
    company: Option<Instant>,
    /// Who the account is; none before the first introduction.
    me: Option<Me>,
    /// The documents, of the account and of its token, that named this entry as the owner when they were last looked at.
    owned: Option<(Key, Option<Key>)>,
    /// Whether the operator wants a waiting feed to try now.
    hurry: Hurry,
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
        let sink_fingerprint = Fingerprints::new("", None, &sink.place()).sink;
        Self {
            ledger: Ledger::new(store.clone(), &id, &sink_fingerprint),
            checkpoints: Checkpoints::new(store.clone(), owner),
            backfills: Backfills::new(store.clone()),
            dead_letters: DeadLetters::new(store),
            position: None,
            date: Time::MIN_UTC,
            introduced: Time::MIN_UTC,
            accepted: None,
            stubbed_again: HashSet::new(),
            page_limit: reading::PAGE_LIMIT,
            good_pages: 0,
            jitter: Jitter::new(seed),
            last_seen: None,
            told_bare: false,
            company: None,
            me: None,
            owned: None,
            hurry: Hurry::default(),
            owners,
            id,
            account,
            source,
            sink,
            settings,
            stop,
            panel,
            table,
            silent_since: None,
        }
    }

    /// Waits that may be cut short end when that is asked for.
    #[must_use]
    pub fn hurried_by(self, hurry: Hurry) -> Self {
        Self { hurry, ..self }
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
            if self.may_sweep(which, &outcome) && !drained.more_pending {
                let swept = self.sweep(which, tick, &mut drained).await;
                outcome = outcome.and(swept);
            }
        }
        let settled = self.settle(&outcome).await;
        outcome.and(settled).map(|()| drained)
    }

    /// Ships what is new on a page and moves the position behind it: each verb of the flow once, in order.
    async fn ship(&mut self, page: &Page<'_>, way: Way, tick: Tick<'_>) -> Result<Drained, Trouble> {
        self.load_ledger(page.items.iter().map(|item| item.key)).await?;
        let shipped = self.position()?.cp.totals.shipped;
        self.ledger.tell_loss(shipped);
        let sorted = self.sort(page);
        self.tell_conflicts(page, &sorted);
        self.tell_moved(sorted.moved.iter().filter_map(|place| page.items.get(*place)).map(|item| item.key));
        let (settings, account_uuid) = (self.settings.clone(), self.account.uuid());
        let mut packing = Packing::new(page, sorted, self.id.stream, &settings, account_uuid.as_deref());
        while let Some(batch) = packing.next_batch() {
            let is_last = packing.is_done() || planted::is(Bug::EachBatchMoves);
            let advance = way.advance.clone().filter(|_| is_last);
            let mut parcels = VecDeque::from([Parcel::new(batch, way.origin.kind(), advance)]);
            while let Some(parcel) = parcels.pop_front() {
                self.keep_dead_letters(&mut packing).await?;
                self.intend(&parcel).await?;
                if planted::is(Bug::RecordBeforeDeliver) {
                    self.record(&parcel).await?;
                }
                match self.deliver(&parcel, tick).await? {
                    Delivered::Accepted => {
                        self.record(&parcel).await?;
                        self.commit(&parcel, &way, &mut packing)?;
                    }
                    Delivered::Refused(error) => {
                        self.retry_smaller(parcel, &error, &mut packing, &mut parcels).await?;
                    }
                }
            }
        }
        self.commit_page(packing, way.advance).await
    }

    /// Decodes an answer and ships it while the next page is already on its way.
    async fn take(&mut self, answer: &Answer, by: By, tick: Tick<'_>) -> Result<Taken, Trouble> {
        let length = answer.body.len();
        let (text, repaired) = apart(length, || decode::text(&answer.body));
        let page = apart(length, || self.page_of(&text, by))?;
        if repaired {
            tracing::warn!(feed = %self.id, "a page held bytes that are no UTF-8, or lone surrogates: replaced by U+FFFD");
        }
        let origin = self.see(&page, by, answer.date)?;
        let advance = origin.advance_behind(&page, answer.date);
        let way = Way { origin, advance };
        let next = self.prefetch(&page, origin, length);
        let (shipped, next) = tokio::join!(self.ship(&page, way, tick), next);
        let items = page.items.len();
        self.ask_for_more();
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
