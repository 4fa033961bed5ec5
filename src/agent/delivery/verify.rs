//! `delivery.on_in_doubt = "verify"`: asks the table which rows of a batch in doubt have arrived, and posts only the others again.

use super::Delivery;
use crate::agent::Tick;
use crate::agent::commands::reconcile::WITNESS_WITHIN;
use crate::agent::position::Stand;
use crate::agent::trouble::{Trouble, chain};
use crate::flow::intent::{INTENT_TTL, Intent};
use crate::flow::planted::{self, Bug};
use crate::flow::{EventId, EventKey, Hour, Time, window};
use crate::table::{Question, Span, Table, TableError, When};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// How long the table may stay silent before the batch is sent again unseen: a traceable duplicate is better than a feed that stands still.
const SILENT_MAX: Duration = Duration::from_secs(30 * 60);
/// How far before the batch's intent the look-up reaches: an intent that waits out a long throttle is written again and again.
const DAY: Duration = Duration::from_secs(86_400);
const SECOND: Duration = Duration::from_secs(1);
const LOOK_BACK: Duration = Duration::from_secs(7 * 86_400);

/// A failed question with what to do about it.
fn told(error: &TableError) -> String {
    chain(error) + &error.remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default()
}

impl Delivery {
    /// Takes out of `missing` what the table has, and records it as accepted. What is left has to be posted again.
    ///
    /// The wait is counted from the last write of the intent by the store's clock: no POST starts later than that plus the intent's
    /// life, and nothing writes it while a batch is looked up, so that take-overs don't prolong it.
    ///
    /// # Errors
    /// [`Trouble::Verifying`] while the table may not show the rows yet, [`Trouble::Unverifiable`] while it does not answer, or shows no row
    /// of the account at all.
    pub(crate) async fn look_up(
        &mut self,
        stand: &mut Stand,
        intent: &Intent,
        missing: &mut HashSet<EventKey>,
        tick: Tick<'_>,
    ) -> Result<(), Trouble> {
        let (Some(after), Some(table)) = (self.given.settings.verify_after, self.table.clone()) else { return Ok(()) };
        let due = INTENT_TTL.saturating_add(after);
        let now = self.given.account.clocks_now().date;
        let (age, written_at) = stand.position().map(|position| {
            let by_source = (now - position.cp.written_at).to_std().unwrap_or_default();
            // A store that tells no time leaves the source's: a run that ends by itself would never see the batch grow old.
            let age = if position.age_is_guessed { position.age.max(by_source) } else { position.age };
            (age, position.cp.written_at)
        })?;
        let left = due.saturating_sub(age);
        if left > tick.patience.single_wait_max {
            return Err(Trouble::Verifying { left });
        }
        self.given.rest(left).await?;
        let ids: HashSet<EventId> = missing.iter().map(|key| key.id).collect();
        let when = self.when(intent, missing, window::earlier(written_at, LOOK_BACK));
        // The ids tell the rows; the account that a row names may be a pseudonym.
        let question = Question { stream: self.given.id.stream, account_uuid: None, when, only: Some(&ids) };
        let asked = table.ids(&question);
        let found = match crate::agent::position::until_stopped(&self.given.stop, Duration::ZERO, async {
            Ok::<_, Trouble>(asked.await)
        })
        .await
        {
            None => return Err(Trouble::Stopped),
            Some(asked) => asked?,
        };
        let found = match found {
            Ok(found) => found.ids(),
            Err(error) => return self.silent(intent, told(&error), age.saturating_sub(due), tick),
        };
        let present: Vec<EventKey> = missing.iter().copied().filter(|key| found.contains(&key.id)).collect();
        if present.is_empty()
            && let Some(why) = self.blind(&*table).await?
        {
            return self.silent(intent, why, age.saturating_sub(due), tick);
        }
        self.silent_since = None;
        self.record_keys(stand, &present, intent.attempt()).await?;
        missing.retain(|key| !found.contains(&key.id));
        let (arrived, absent) = (present.len(), missing.len());
        tracing::info!(feed = %self.given.id, batch = %intent.batch_id(), arrived, absent, "a batch in doubt was looked up in the table: what is absent is posted again");
        Ok(())
    }

    /// Why an answer without a row of the batch says nothing: no other row of the account is seen either, so that the table may be hidden.
    async fn blind(&self, table: &dyn Table) -> Result<Option<String>, Trouble> {
        if planted::is(Bug::TrustEmptyTable) {
            return Ok(None);
        }
        let account_uuid = self.given.account_in_rows();
        let newest = async { Ok::<_, Trouble>(table.newest(account_uuid.as_deref(), WITNESS_WITHIN).await) };
        let newest = crate::agent::position::until_stopped(&self.given.stop, Duration::ZERO, newest).await;
        match newest.ok_or(Trouble::Stopped)?? {
            Ok(newest) if newest.is_some_and(|age| age <= WITNESS_WITHIN) => Ok(None),
            Ok(_) => {
                let (on, remedy) = (table.place(), table.when_blind());
                Ok(Some(format!(
                    "{on} answers, but shows no row of this account of the last day, not even a heartbeat; {remedy}"
                )))
            }
            Err(error) => Ok(Some(told(&error))),
        }
    }

    /// Where the batch's rows stand: ingested since its intent, and, unless an event's time cannot be read, within its times.
    fn when(&self, intent: &Intent, missing: &HashSet<EventKey>, since: Time) -> When {
        let ingested = Span { from: since, until: window::later(self.given.date(), DAY) };
        let has_odd = missing.iter().any(|key| key.hour == Hour::Odd);
        match intent.times() {
            (Some(from), Some(to)) if !has_odd => {
                // The table may keep fewer digits of a second than the source.
                let happened = Span { from: window::earlier(from, SECOND), until: window::later(to, SECOND) };
                When::Both { happened, ingested }
            }
            _ => When::Ingested(ingested),
        }
    }

    /// The table could not be asked: again later, until that has lasted too long. A run that ends by itself cannot wait: it counts from
    /// the moment when the batch could first be looked up.
    fn silent(&mut self, intent: &Intent, why: String, overdue: Duration, tick: Tick<'_>) -> Result<(), Trouble> {
        let silent_for = self.silent_since.get_or_insert_with(Instant::now).elapsed();
        let silent_for = if tick.standby_max.is_zero() { silent_for } else { silent_for.max(overdue) };
        if silent_for < SILENT_MAX {
            return Err(Trouble::Unverifiable { why, left: SILENT_MAX.saturating_sub(silent_for) });
        }
        let remedy = "let the workspace be asked: azure.workspace_id, the role Log Analytics Reader, the network";
        tracing::error!(feed = %self.given.id, batch = %intent.batch_id(), error = why, minutes = silent_for.as_secs() / 60, remedy,
            "the table cannot be asked about a batch in doubt: posting it again unseen; copies are traceable");
        Ok(())
    }
}
