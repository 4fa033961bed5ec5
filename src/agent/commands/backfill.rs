//! backfill: a range of event time, whatever the position is: read in windows of a day, shipped beside the live feed, resumed after a kill.

use crate::agent::delivery::packing::Packing;
use crate::agent::position::until_stopped;
use crate::agent::reading::range::{Range, RangePage};
use crate::agent::trouble::Trouble;
use crate::agent::{Drained, Feed, Tick};
use crate::flow::{EventKey, Time, decode, dedupe, window};
use crate::source::Lane;
use crate::store::backfills::{Done, Progress, Span};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// A rejected cursor costs a window, not the range.
const WINDOW: Duration = Duration::from_secs(86_400);
/// What the live feed gets after each commit, while there is one.
const ROOM: Duration = Duration::from_secs(2);
/// How often it gets that while none was noticed: one that has just started must not wait for its turn until the end.
const ROOM_EVERY: Duration = Duration::from_secs(10);
/// How soon a backfill looks again that met the live feed at work.
const BUSY_LOOK: Duration = Duration::from_secs(1);
/// How long it lets the live feed go first before it gives up.
const BUSY_MAX: Duration = Duration::from_secs(3600);

/// What is asked for, and who looks on.
pub struct Backfill<'a> {
    pub span: Span,
    /// Count only: nothing is posted, nothing is written.
    pub dry_run: bool,
    /// Told after each page; at the start also whether an earlier run is resumed.
    pub watch: &'a mut (dyn FnMut(&Progress) + Send),
}

impl Feed {
    /// Ships what the ledger does not know of a range. The position stays where it is. A range that an earlier run left unfinished goes on
    /// where that stood.
    ///
    /// # Errors
    /// The trouble met. What was shipped until then is recorded, and the next run goes on behind it.
    pub async fn backfill(&mut self, mut backfill: Backfill<'_>, tick: Tick<'_>) -> Result<Progress, Trouble> {
        let mut progress = self.begin(&backfill, tick).await?;
        (backfill.watch)(&progress);
        let mut gave_room = Instant::now();
        while progress.next < progress.span.to {
            self.backfill_window(&mut backfill, &mut progress, &mut gave_room, tick).await?;
        }
        if !backfill.dry_run {
            self.backfills.finish(&progress).await?;
        }
        Ok(progress)
    }

    async fn begin(&mut self, backfill: &Backfill<'_>, tick: Tick<'_>) -> Result<Progress, Trouble> {
        let fingerprints = self.introduce().await?;
        let span = &backfill.span;
        if backfill.dry_run {
            if !self.stand.checkpoints.is_there(&self.given.id).await? {
                return Err(self.has_no_position().await);
            }
            return Ok(Progress::new(&self.given.id, fingerprints, span.clone()));
        }
        self.beside_the_live_feed(None, tick).await?;
        let find = self.backfills.find(&self.given.id, span, &fingerprints);
        let found = until_stopped(&self.given.stop, Duration::ZERO, find).await.unwrap_or(Err(Trouble::Stopped))?;
        if let Some(found) = found {
            tracing::info!(feed = %self.given.id, from = %found.span.from, to = %found.span.to, next = %found.next, shipped = found.done.shipped,
                "an unfinished backfill of this range was found: going on where it stood");
            return Ok(found);
        }
        Ok(Progress::new(&self.given.id, fingerprints, span.clone()))
    }

    async fn backfill_window(
        &mut self,
        backfill: &mut Backfill<'_>,
        progress: &mut Progress,
        gave_room: &mut Instant,
        tick: Tick<'_>,
    ) -> Result<(), Trouble> {
        // Windows share their boundary: whether the source's end is part of it is not documented, and the ledger knows what came twice.
        let (from, to) = (progress.next, window::later(progress.next, WINDOW).min(progress.span.to));
        let mut range = Range::new(from, to, progress.cursor.clone());
        if !backfill.dry_run {
            // A page is a batch: the live feed gets its room after each, however slow store and destination are.
            range.limit = range.limit.min(u32::try_from(self.given.settings.batch_rows_max).unwrap_or(range.limit));
        }
        let mut counted = HashSet::new();
        while !range.is_done {
            let page = match self.read_range(&mut range, Lane::Backfill, tick).await {
                Err(trouble @ Trouble::Stuck(_)) if !backfill.dry_run => {
                    // The next run must not go on from a cursor that leads nowhere.
                    progress.cursor = None;
                    self.backfills.keep(progress).await?;
                    return Err(trouble);
                }
                read => read?,
            };
            let latest = page.events.iter().filter_map(|(_, time)| *time).max();
            let done = if backfill.dry_run {
                // An event at the boundary belongs to the next window.
                let is_counted = |time: Option<Time>| to == progress.span.to || time.is_none_or(|time| time < to);
                self.would_ship(&page, &mut counted, is_counted).await?
            } else {
                Done::of(&self.beside_the_live_feed(Some(&page), tick).await?)
            };
            progress.done.add(done);
            progress.reached = latest.unwrap_or(from).clamp(progress.reached, to);
            (progress.next, progress.cursor) = if range.is_done { (to, None) } else { (from, range.cursor.clone()) };
            if range.is_done {
                progress.reached = to;
            }
            if !backfill.dry_run {
                let keep = self.backfills.keep(progress);
                until_stopped(&self.given.stop, crate::agent::position::STOP_COMMIT, keep)
                    .await
                    .unwrap_or(Err(Trouble::Stopped))?;
            }
            (backfill.watch)(progress);
            if done.shipped > 0 && !backfill.dry_run {
                self.leave_room(gave_room).await?;
            }
        }
        Ok(())
    }

    /// Opens the position and ships the page, if there is one. Whoever else is at work on the feed goes first.
    async fn beside_the_live_feed(&mut self, page: Option<&RangePage>, tick: Tick<'_>) -> Result<Drained, Trouble> {
        let begun = Instant::now();
        let tick = Tick { standby_max: Duration::ZERO, ..tick };
        loop {
            let outcome = match (self.open(tick).await, page) {
                (Ok(()), Some(page)) => self.ship_page(&page.body, tick).await,
                (Ok(()), None) => Ok(Drained::default()),
                (Err(trouble), _) => Err(trouble),
            };
            let wait = match &outcome {
                Err(Trouble::Lost | Trouble::Standby { .. }) => BUSY_LOOK,
                Err(Trouble::CoolingDown { left } | Trouble::Verifying { left }) => *left,
                _ => return outcome,
            };
            if begun.elapsed() + wait > BUSY_MAX {
                return outcome;
            }
            self.given.rest(wait).await?;
        }
    }

    /// A pause in which the live feed finds neither an open intent nor a race.
    async fn leave_room(&mut self, gave_room: &mut Instant) -> Result<(), Trouble> {
        if self.stand.has_company() || gave_room.elapsed() >= ROOM_EVERY {
            self.given.rest(ROOM).await?;
            *gave_room = Instant::now();
        }
        Ok(())
    }

    /// Counts what [`Feed::ship_page`] would do, each event once.
    async fn would_ship(
        &mut self,
        page: &RangePage,
        counted: &mut HashSet<EventKey>,
        is_counted: impl Fn(Option<Time>) -> bool,
    ) -> Result<Done, Trouble> {
        let keys: Vec<EventKey> = page.events.iter().map(|(key, _)| *key).collect();
        let known = self.delivery.known(&keys).await?;
        let (text, _) = decode::text(&page.body);
        let mut page = decode::page(&text).map_err(Trouble::Malformed)?;
        page.items.retain(|item| is_counted(item.timestamp) && counted.insert(item.key));
        let sorted = dedupe::sort(&page.items, |key| known.contains(key));
        let new = sorted.new.len() as u64;
        let settings = self.given.settings.clone();
        let settled = Packing::new(&page, sorted, self.given.id.stream, &settings, None).settled;
        let shipped = new - settled.filtered;
        let (known, left_out) = (settled.known, settled.repeated + settled.filtered);
        Ok(Done { pages: 1, read: settled.read + shipped, shipped, known, left_out, dead_letters: 0 })
    }
}

impl Done {
    fn of(drained: &Drained) -> Self {
        let Drained { pages, read, shipped, known, dead_letters, .. } = *drained;
        Self { pages, read, shipped, known, left_out: read - shipped - known, dead_letters }
    }
}
