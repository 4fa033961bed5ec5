//! load and settle: the checkpoint in memory, and when it goes back to the store.

pub(super) mod floor;
pub(super) mod ownership;
pub(super) mod restart;

use super::given::Given;
use super::trouble::{Trouble, chain};
use super::{Feed, Tick};
use crate::flow::checkpoint::{Checkpoint, Fingerprints, LedgerSize, SweepProgress};
use crate::flow::planted::{self, Bug};
use crate::flow::{Cursor, Time};
use crate::store::checkpoints::{Checkpoints, Found, Loaded};
use crate::store::ledger::Ledger;
use crate::store::owners::Owners;
use crate::store::{Key, Version};
use ownership::Me;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long record and commit may take once the process was asked to end.
pub(super) const STOP_COMMIT: Duration = Duration::from_secs(5);
/// How long a commit is tried before it is left to recovery. With the store's own deadline of 30 s a call it stays within an intent's life.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);
/// How often a standby process looks at the intent it waits for.
const STANDBY_LOOK: Duration = Duration::from_secs(5);
/// How often the fallback copy is looked after.
const PREVIOUS_LOOK: Duration = Duration::from_secs(600);

/// The checkpoint as last read or written, and what has changed in memory since.
pub(super) struct Position {
    pub cp: Checkpoint,
    pub version: Version,
    /// Time since it was written when it was read, by the store's clock.
    pub age: Duration,
    /// The store tells no time: the age is only as long as this process has seen it.
    pub age_is_guessed: bool,
    /// Rows were shipped since the last write.
    pub unsaved_rows: bool,
    /// A POST of the open intent is in doubt, and the stored intent does not say so yet.
    pub unsaved_doubt: bool,
    pub rowless_pages: u32,
    /// When the open intent was last written by this process.
    pub intent_written: Instant,
    stored: Mark,
    previous_looked: Option<Instant>,
}

/// What makes a commit worth its write.
#[derive(PartialEq, Eq)]
struct Mark {
    cursor: Option<Cursor>,
    born: Option<Time>,
    marks: [Time; 3],
    ledger: Option<LedgerSize>,
    sweeps: [Option<SweepProgress>; 2],
    stuck_ticks: u32,
}

impl Mark {
    fn of(cp: &Checkpoint) -> Self {
        Self {
            cursor: cp.cursor.clone(),
            born: cp.cursor_born,
            marks: [cp.sweep_mark, cp.late_mark, cp.late_at],
            ledger: cp.ledger.clone(),
            sweeps: [cp.overlap_sweep.clone(), cp.late_sweep.clone()],
            stuck_ticks: cp.stuck_ticks,
        }
    }
}

/// Where a feed stands: its position, the store that keeps it, and whose position it is.
pub(super) struct Stand {
    pub(super) given: Arc<Given>,
    pub(super) checkpoints: Checkpoints,
    pub(super) owners: Arc<Owners>,
    /// The checkpoint as last read or written; none before the first load and after a lost race.
    pub(super) position: Option<Position>,
    /// The version of the checkpoint as last seen: another one was written by another process.
    pub(super) last_seen: Option<Version>,
    /// When another process was last noticed.
    pub(super) company: Option<Instant>,
    /// Who the account is; none before the first introduction.
    pub(super) me: Option<Me>,
    /// The documents, of the account and of its token, that named this entry as the owner when they were last looked at.
    pub(super) owned: Option<(Key, Option<Key>)>,
}

impl Stand {
    pub(super) fn new(given: Arc<Given>, checkpoints: Checkpoints, owners: Arc<Owners>) -> Self {
        Self { given, checkpoints, owners, position: None, last_seen: None, company: None, me: None, owned: None }
    }
}

impl Position {
    fn new(loaded: Loaded) -> Self {
        Self {
            stored: Mark::of(&loaded.checkpoint),
            cp: loaded.checkpoint,
            version: loaded.version,
            age: loaded.age,
            age_is_guessed: loaded.is_guessed,
            unsaved_rows: false,
            unsaved_doubt: false,
            rowless_pages: 0,
            intent_written: Instant::now(),
            previous_looked: None,
        }
    }

    pub(super) fn needs_commit(&self) -> bool {
        self.unsaved_rows || Mark::of(&self.cp) != self.stored
    }
}

impl Feed {
    /// Reads who we are and where we stand; stands by while another process holds the open intent.
    pub(super) async fn load(&mut self, tick: Tick<'_>) -> Result<(), Trouble> {
        let started = Instant::now();
        loop {
            let fingerprints = self.introduce().await?;
            let mut loaded = self.stand.load_once(&mut self.delivery.ledger, &fingerprints).await?;
            let Some(left) = self.stand.checkpoints.held_by_other(&loaded).await? else {
                if self.given.has_a_floor_to_come(&mut loaded.checkpoint, &fingerprints, started).await? {
                    continue;
                }
                self.stand.adopt(&mut self.delivery.ledger, loaded, fingerprints);
                self.stand.mend_marks();
                return Ok(());
            };
            self.stand.position = None;
            self.stand.notice_company(Duration::ZERO);
            if started.elapsed() >= tick.standby_max {
                return Err(Trouble::Standby { left });
            }
            tracing::info!(feed = %self.given.id, left_s = left.as_secs(), "another process has an open intent: standing by");
            self.given.rest(left.min(STANDBY_LOOK).max(Duration::from_millis(100))).await?;
        }
    }

    pub(super) async fn introduce(&mut self) -> Result<Fingerprints, Trouble> {
        let mut asked = 0;
        let who = loop {
            asked += 1;
            match self.given.account.introduce(&*self.reader.source, &self.given.stop, &self.given.panel).await {
                Err(doubt @ Trouble::Clock(_)) => self.given.wait_for_a_second_opinion(doubt, asked).await?,
                introduced => break introduced?,
            }
        };
        self.given.panel.introduced(who.expires);
        self.reader.note_the_time(who.date);
        let stream = self.given.id.stream;
        if !who.features.may_read(stream) {
            // A new token may have it.
            self.given.account.forget();
            return Err(Trouble::Halted {
                what: format!("the 1Password token of account {} may not read {stream}", self.given.id.account),
                remedy: format!(
                    "issue a token with the feature {stream}, or leave {stream} out of accounts.{}.streams",
                    self.given.id.account
                ),
            });
        }
        let fingerprints =
            Fingerprints::new(&self.reader.source.place(), who.account_uuid.as_deref(), &self.delivery.sink.place());
        let fingerprints = fingerprints.told_by(&who.token);
        self.stand.me = Some(Me { fingerprints: fingerprints.clone(), token: who.token });
        Ok(fingerprints)
    }

    /// Writes what the tick changed, if it changed anything: an idle tick writes nothing.
    pub(super) async fn settle(&mut self, outcome: &Result<(), Trouble>) -> Result<(), Trouble> {
        self.given.panel.ledger(self.delivery.ledger.size());
        let Some(position) = &self.stand.position else { return Ok(()) };
        if position.cp.slot.intent().is_some() || matches!(outcome, Err(Trouble::Lost)) {
            // In doubt or taken over: the store has the truth, the next tick recovers from it.
            self.stand.position = None;
            return Ok(());
        }
        if position.needs_commit() {
            self.stand.save(&mut self.delivery.ledger).await?;
        }
        // After a tick with trouble too: a feed in lasting trouble needs its fallback copy most.
        self.stand.look_after_previous().await;
        Ok(())
    }
}

impl Stand {
    async fn load_once(&mut self, ledger: &mut Ledger, fingerprints: &Fingerprints) -> Result<Loaded, Trouble> {
        match self.checkpoints.load(&self.given.id).await? {
            Found::Good(mut loaded) if loaded.checkpoint.fingerprints.fits(fingerprints) => {
                self.own_still(&loaded).await?;
                self.notice_a_step_back(&mut loaded.checkpoint);
                Ok(*loaded)
            }
            Found::Good(mut loaded) if was_never_read(&loaded.checkpoint) => {
                tracing::info!(feed = %self.given.id, "nothing was ever read under the former settings: the checkpoint takes the new ones");
                loaded.checkpoint.fingerprints = fingerprints.clone();
                self.own_still(&loaded).await?;
                Ok(*loaded)
            }
            Found::Good(loaded) => Err(Trouble::Misfit {
                stored: Box::new(loaded.checkpoint.fingerprints.clone()),
                now: Box::new(fingerprints.clone()),
            }),
            Found::Nothing { previous: Some(previous) } if previous.fingerprints.fits(fingerprints) => {
                tracing::error!(feed = %self.given.id, remedy = "find out who deleted it; nothing needs repair", "the checkpoint is gone: starting again from the fallback copy; the ledger keeps this free of duplicates");
                self.create(ledger, *previous, None).await
            }
            Found::Nothing { .. } => {
                let cp = self.given.first(fingerprints)?;
                tracing::info!(feed = %self.given.id, floor = %cp.floor, "no checkpoint yet: starting at the lookback");
                self.create(ledger, cp, None).await
            }
            Found::Replaced { why, aside, previous, version } => {
                let previous = previous.filter(|cp| cp.fingerprints.fits(fingerprints));
                let from = if previous.is_some() { "the fallback copy" } else { "the lookback" };
                tracing::error!(feed = %self.given.id, why, kept_as = %aside, remedy = "find out who wrote it; nothing needs repair",
                    "the checkpoint is unreadable: starting again from {from}; the ledger keeps this free of duplicates");
                let cp = previous.map_or_else(|| self.given.first_again(fingerprints), |cp| Ok(*cp))?;
                self.create(ledger, cp, Some(version)).await
            }
        }
    }

    /// A restored backup or a lost write: the ledger may have gone back too, and then what was shipped since is shipped again.
    fn notice_a_step_back(&self, loaded: &mut Checkpoint) {
        let Some(known) = self.position.as_ref().map(|position| &position.cp) else { return };
        if loaded.slot.seq() >= known.slot.seq() {
            return;
        }
        let rows = known.totals.shipped.saturating_sub(loaded.totals.shipped);
        let remedy = "if a backup was restored, stop opship first the next time";
        tracing::error!(feed = %self.given.id, rows, remedy, "the store went back to an older checkpoint: rows that the ledger does not know any more are shipped again");
        loaded.slot.lose_track(rows, "the store went back to an older checkpoint", self.given.date());
    }

    async fn create(
        &mut self,
        ledger: &mut Ledger,
        mut cp: Checkpoint,
        over: Option<Version>,
    ) -> Result<Loaded, Trouble> {
        self.own(&cp.fingerprints).await?;
        let version = self.checkpoints.save(&mut cp, over.as_ref(), self.given.date()).await?;
        ledger.forget();
        Ok(Loaded { checkpoint: cp, version, age: Duration::ZERO, is_guessed: false })
    }

    /// Takes a loaded checkpoint over; what is in memory stays where the store has nothing newer.
    fn adopt(&mut self, ledger: &mut Ledger, loaded: Loaded, fingerprints: Fingerprints) {
        if self.last_seen.as_ref() != Some(&loaded.version) {
            self.last_seen = Some(loaded.version.clone());
            self.notice_company(loaded.age);
        }
        match &mut self.position {
            Some(position) if position.version == loaded.version => position.age = loaded.age,
            position => {
                // Somebody else has shipped: what is cached of the ledger may be stale. Even below a write that is known: it may have
                // been restored over what others wrote since.
                if !planted::is(Bug::KeepStaleLedger) {
                    ledger.forget();
                }
                *position = Some(Position::new(loaded));
            }
        }
        if let Some(position) = &mut self.position {
            position.rowless_pages = 0;
            position.cp.fingerprints = fingerprints_known(&position.cp.fingerprints, fingerprints);
            self.given.panel.stands(&position.cp);
        }
    }

    async fn look_after_previous(&mut self) {
        let Some(position) = &mut self.position else { return };
        if position.previous_looked.is_some_and(|at| at.elapsed() < PREVIOUS_LOOK) {
            return;
        }
        position.previous_looked = Some(Instant::now());
        if let Err(error) = self.checkpoints.keep_previous(&position.cp).await {
            tracing::warn!(feed = %self.given.id, error = %chain(&error), "the fallback copy of the checkpoint was not renewed");
        }
    }

    /// Compare-and-swap of the checkpoint as it is in memory. On failure the memory is dropped: the store has the truth.
    pub(super) async fn save(&mut self, ledger: &mut Ledger) -> Result<(), Trouble> {
        self.note_ledger(ledger);
        self.save_as_it_is(ledger).await
    }

    /// The same without a word on the ledger.
    pub(super) async fn save_as_it_is(&mut self, ledger: &mut Ledger) -> Result<(), Trouble> {
        let Some(mut position) = self.position.take() else { return Err(Trouble::Lost) };
        let begun = Instant::now();
        // Only a position behind shipped rows is worth waiting for: any other is found again by the next tick.
        let patience = if position.unsaved_rows { COMMIT_PATIENCE } else { Duration::ZERO };
        let write =
            self.checkpoints.save_within(patience, &mut position.cp, Some(&position.version), self.given.date());
        let written = until_stopped(&self.given.stop, STOP_COMMIT, write).await;
        match written.unwrap_or(Err(Trouble::Stopped)) {
            Ok(version) => {
                self.last_seen = Some(version.clone());
                position.version = version;
                position.stored = Mark::of(&position.cp);
                position.unsaved_rows = false;
                position.unsaved_doubt = false;
                position.rowless_pages = 0;
                position.intent_written = begun;
                self.given.panel.stands(&position.cp);
                self.position = Some(position);
                Ok(())
            }
            Err(error) => {
                ledger.forget();
                if matches!(error, Trouble::Lost) {
                    self.notice_company(Duration::ZERO);
                }
                Err(error)
            }
        }
    }

    pub(super) fn position(&mut self) -> Result<&mut Position, Trouble> {
        self.position.as_mut().ok_or(Trouble::Lost)
    }
}

/// Runs `work` to its end; once `stop` fires it has `grace` left. `None`: it was cut off and its outcome is unknown.
pub(super) async fn until_stopped<T, E: Into<Trouble>>(
    stop: &tokio_util::sync::CancellationToken,
    grace: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Option<Result<T, Trouble>> {
    tokio::select! {
        biased;
        done = work => Some(done.map_err(Into::into)),
        () = async { stop.cancelled().await; tokio::time::sleep(grace).await } => None,
    }
}

/// A first start with a wrong address leaves a position behind that nothing was read from.
fn was_never_read(cp: &Checkpoint) -> bool {
    cp.totals.pages == 0 && cp.totals.shipped == 0 && cp.cursor.is_none() && cp.slot.intent().is_none()
}

fn fingerprints_known(stored: &Fingerprints, now: Fingerprints) -> Fingerprints {
    let account = now.account.or_else(|| stored.account.clone());
    let token = now.token.filter(|_| account.is_none());
    Fingerprints { account, token, unknown: stored.unknown.clone(), ..now }
}
