//! The completeness audit of one feed: what the source returns against what the table holds.

use crate::agent::delivery::packing;
use crate::agent::given::Given;
use crate::agent::reading::Reader;
use crate::agent::reading::range::Range;
use crate::agent::trouble::{Trouble, chain};
use crate::agent::{Feed, Tick};
use crate::flow::attempts::Attempts;
use crate::flow::decode::{self, Item};
use crate::flow::planted::{self, Bug};
use crate::flow::reconcile::{Compared, compare};
use crate::flow::retry::{Edge, Verdict, verdict};
use crate::flow::{EventKey, Time, datetime};
use crate::source::Lane;
use crate::store::checkpoints::Found as Stored;
use crate::table::{Question, Span, Table, TableError, When};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::time::Instant;

/// Events of one comparison: with the answer of the table about 40 MB. A span that holds more is compared in parts.
pub const EVENTS_MAX: usize = 100_000;
/// The late sweep's share: never more than a quarter of the budget, and the live feed goes first.
pub(crate) const LANE: Lane = Lane::Late;
/// How far back a row of the account is looked for that shows that the table can be read.
pub(crate) const WITNESS_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// The ages of a segment and of a row come from two clocks, one of which counts whole seconds.
const CLOCKS_APART: Duration = Duration::from_secs(10);

/// What the events of a feed are compared with.
#[derive(Clone, Copy)]
pub struct Audit<'a> {
    pub table: &'a dyn Table,
    /// How long an accepted row may take to show in the table.
    pub latency: Duration,
    /// Several accounts ship to the table: rows of the others are left out.
    pub others_ship_there: bool,
}

/// Why a feed could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error(transparent)]
    Table(#[from] TableError),
    /// The table answers, but shows nothing that was accepted after what it lacks: that may be absent or hidden.
    #[error("{on} answers, but {}: its rows are absent or hidden, so nothing counts as missing; {remedy}", shows(*.newest, *.needed))]
    Blind {
        on: String,
        /// How long ago the newest row of the account was taken that it shows.
        newest: Option<Duration>,
        /// How long ago it may have been taken at most.
        needed: Duration,
        remedy: &'static str,
    },
    /// The first batch of a repair was accepted and does not show.
    #[error(
        "none of the {rows} rows that this repair shipped first was seen in {on} within {}: rows of this stream are hidden by a right, or \
         dropped by a rule; no more are shipped; {remedy}",
        whole_seconds(*.waited)
    )]
    Unseen { on: String, rows: usize, waited: Duration, remedy: &'static str },
}

fn shows(newest: Option<Duration>, needed: Duration) -> String {
    let needed = whole_seconds(needed);
    match newest {
        None => "it shows no row of this account, not even a heartbeat".into(),
        Some(newest) => format!(
            "the newest row of this account that it shows was taken {} ago, before what is in question ({needed} ago)",
            whole_seconds(newest)
        ),
    }
}

fn whole_seconds(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}

impl Feed {
    /// The source's clock, asked for now.
    ///
    /// # Errors
    /// The source does not answer, or refuses the token.
    pub async fn source_time(&mut self) -> Result<Time, Trouble> {
        self.introduce().await?;
        Ok(self.given.date())
    }

    /// Settles a batch that an earlier process left open: before a comparison that is to be repaired, so that the ledger is what it
    /// will be then.
    ///
    /// # Errors
    /// As of a tick that begins.
    pub async fn settle_open_batch(&mut self, tick: Tick<'_>) -> Result<(), Trouble> {
        self.open(tick).await
    }

    /// Without a position of this source and this destination the ledger tells nothing of the table.
    async fn belongs_here(&mut self) -> Result<(), Trouble> {
        let now = self.introduce().await?;
        match self.stand.checkpoints.load(&self.given.id).await? {
            Stored::Nothing { previous: None } => Err(self.has_no_position().await),
            Stored::Good(loaded) if !loaded.checkpoint.fingerprints.fits(&now) => {
                let stored = Box::new(loaded.checkpoint.fingerprints.clone());
                Err(Trouble::Misfit { stored, now: Box::new(now) })
            }
            Stored::Good(_) | Stored::Nothing { .. } | Stored::Replaced { .. } => Ok(()),
        }
    }

    /// Compares the events of a span. Nothing is written. `None`: there are more than [`EVENTS_MAX`]; ask for a part of the span.
    ///
    /// The source is read first, so that what it returned has had the time of the second read to arrive.
    ///
    /// # Errors
    /// Source, store or table could not be read to the end: nothing is said about a part.
    pub async fn compare(
        &mut self,
        span: Span,
        audit: Audit<'_>,
        tick: Tick<'_>,
    ) -> Result<Option<Compared>, ReconcileError> {
        self.belongs_here().await?;
        self.delivery.ledger.forget();
        let mut source: HashMap<EventKey, Option<u32>> = HashMap::new();
        let mut range = Range::new(span.from, span.until, None);
        while !range.is_done {
            let read = self.read_range(&mut range, LANE, tick).await?;
            let (text, _) = decode::text(&read.body);
            let page = decode::page(&text).map_err(Trouble::Malformed)?;
            let (settings, stream) = (&self.given.settings, self.given.id.stream);
            let is_inside = |item: &Item<'_>| item.timestamp.is_some_and(|time| span.contains(time));
            // A row whose time the table cannot hold is not found by its time: like one without a uuid it cannot be judged.
            let is_held = |item: &Item<'_>| {
                item.field("timestamp").is_some_and(|raw| datetime::holds(raw, item.timestamp)) && item.has_uuid
            };
            let is_meant =
                |item: &&Item<'_>| is_inside(item) && is_held(item) && !packing::is_dropped(settings, stream, item);
            source.extend(page.items.iter().filter(is_meant).map(|item| (item.key, None)));
            if source.len() > EVENTS_MAX {
                return Ok(None);
            }
        }
        let looked = Instant::now();
        let ages = self.look_up_attempts(&mut source).await?;
        let account_uuid = self.given.account.uuid().filter(|_| audit.others_ship_there);
        let (stream, when) = (self.given.id.stream, When::Happened(span));
        let question = Question { stream, account_uuid: account_uuid.as_deref(), when, only: None };
        let held = self.reader.asking(tick, async || audit.table.ids(&question).await).await?.held;
        let is_settled = |hour| ages.get(&hour).is_none_or(|age| *age >= audit.latency);
        let compared = compare(&source, &held, |held| held.copies, is_settled);
        if !compared.missing.is_empty() {
            let accepted = compared.last_accepted(&ages).map(|age| age + looked.elapsed());
            self.sees_the_table(accepted, span, audit, tick).await?;
        }
        Ok(Some(compared))
    }

    /// Absent rows mean something only where a row can be seen that was accepted after them: a heartbeat, or any event of the account. Where
    /// nothing of these hours was ever accepted, a row of the span's time, or of the last day, will do.
    async fn sees_the_table(
        &mut self,
        accepted: Option<Duration>,
        span: Span,
        audit: Audit<'_>,
        tick: Tick<'_>,
    ) -> Result<(), ReconcileError> {
        if planted::is(Bug::TrustEmptyTable) {
            return Ok(());
        }
        let since_span = (self.given.date() - span.from).to_std().unwrap_or_default();
        let needed = accepted.unwrap_or(since_span.max(WITNESS_WITHIN));
        let account_uuid = self.given.account_in_rows();
        // Looked for further back than needed, so that the message can say how old it is.
        let within = needed.saturating_add(CLOCKS_APART).max(WITNESS_WITHIN);
        let newest =
            self.reader.asking(tick, async || audit.table.newest(account_uuid.as_deref(), within).await).await?;
        if newest.is_some_and(|newest| newest <= needed.saturating_add(CLOCKS_APART)) {
            return Ok(());
        }
        let (on, remedy) = (audit.table.place(), audit.table.when_blind());
        Err(ReconcileError::Blind { on, newest, needed, remedy })
    }

    /// The attempt of each event by the ledger; how long ago each hour of it was appended to, by the store's clock.
    async fn look_up_attempts(
        &mut self,
        source: &mut HashMap<EventKey, Option<u32>>,
    ) -> Result<HashMap<crate::flow::Hour, Duration>, Trouble> {
        self.delivery.ledger.load(source.keys().copied()).await?;
        for (key, attempt) in source.iter_mut() {
            *attempt = self.delivery.ledger.attempt(key);
        }
        Ok(self.delivery.ledger.ages().await?)
    }
}

impl Given {
    /// The account as rows name it: a pseudonym, or nothing, where `filter.redact` says so.
    pub(crate) fn account_in_rows(&self) -> Option<String> {
        let uuid = self.account.uuid()?;
        self.settings.redact.text("account_uuid", &uuid).map(Into::into)
    }
}

impl Reader {
    /// Asks the table until it answers, as far as our patience goes.
    pub(crate) async fn asking<T>(
        &mut self,
        tick: Tick<'_>,
        ask: impl AsyncFn() -> Result<T, TableError>,
    ) -> Result<T, ReconcileError> {
        let (begun, mut attempts) = (Instant::now(), Attempts::new(tick.patience, &mut self.jitter));
        loop {
            let attempt = attempts.begin();
            let asked = tokio::select! {
                biased;
                () = self.given.stop.cancelled() => return Err(Trouble::Stopped.into()),
                asked = ask() => asked,
            };
            let error = match asked {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // A query is judged as a read of the source is: busy and broken services are asked again, refusals are not.
            let Verdict::Retry { at_least } = verdict(Edge::Source, &error.failure) else { return Err(error.into()) };
            let ControlFlow::Continue(wait) = attempts.pause(begun.elapsed(), at_least) else {
                return Err(error.into());
            };
            tracing::warn!(feed = %self.given.id, attempt, wait_ms = wait.as_millis() as u64, error = %chain(&error), "the table did not answer: asking again");
            self.given.rest(wait).await?;
        }
    }
}
