//! One feed as the status document tells it: how it is, why, and what to do.

use super::status::{DoubtStatus, ErrorStatus, FeedStatus, Health, IntentStatus, MinuteStatus};
use crate::agent::Waiting;
use crate::agent::monitor::board::{Board, Moment, Notice, Phase, Standing, View};
use crate::flow::FeedId;
use crate::flow::intent::BatchKind;
use std::time::Duration;

/// A feed is well for so long after its last good tick, or for two ticks where that is longer.
const GOOD_FOR: Duration = Duration::from_secs(300);
const GOOD_FOR_TICKS: u32 = 2;
/// Requests that fail within a tick are worth a word after so long.
const RETRYING_FOR: Duration = Duration::from_secs(30);

/// What a feed is told from.
pub(super) struct Seen<'a> {
    pub id: &'a FeedId,
    pub view: &'a View,
    pub board: &'a Board,
    /// What keeps all feeds from starting.
    pub obstacle: Option<&'a Notice>,
    pub now: Moment,
}

impl Seen<'_> {
    pub(super) fn health(&self) -> Health {
        let View { phase, left, last_good, .. } = self.view;
        let waits_for = self.notice().map(|notice| notice.waiting);
        match (phase, waits_for) {
            (Phase::Stopped, _) => Health::Stopped,
            (_, Some(Waiting::Person | Waiting::Unauthorized | Waiting::Secret)) => Health::Broken,
            (_, Some(_)) => Health::Waiting,
            (_, None) if *left == Phase::Waiting(Waiting::Standby) => Health::Standby,
            (_, None) if self.retries_for_long() => Health::Waiting,
            (_, None) if last_good.is_none() => Health::Starting,
            (_, None) if *left == Phase::CatchingUp => Health::CatchingUp,
            (_, None) => Health::Good,
        }
    }

    /// What the feed waits for, the nearest first; the account's is none of one that another process ships.
    fn notice(&self) -> Option<&Notice> {
        self.view.trouble.as_ref().or(self.obstacle).or_else(|| self.of_account())
    }

    fn of_account(&self) -> Option<&Notice> {
        let stands_by = self.view.left == Phase::Waiting(Waiting::Standby);
        self.view.account.notice.as_ref().filter(|_| !stands_by)
    }

    fn retries_for_long(&self) -> bool {
        self.view.retrying.as_ref().is_some_and(|retrying| retrying.since.age(self.now) >= RETRYING_FOR)
    }

    /// Why the feed may not be called ready. A tick that takes long is no reason while pages and batches go through; what a person
    /// must repair is one at once, and health rows that are refused have had their second try. A batch in doubt that waits for its
    /// look-up, as `delivery.on_in_doubt` asks, has its time from the start on: that most often ends by itself.
    pub(super) fn not_ready(&self) -> Option<String> {
        let Self { view, board, .. } = *self;
        match self.health() {
            Health::Standby => return None,
            Health::Stopped => return Some("stopped".into()),
            Health::Good
            | Health::Starting
            | Health::CatchingUp
            | Health::Waiting
            | Health::Broken
            | Health::Silent => {}
        }
        if self.of_account().is_some() {
            return self.reason();
        }
        let looks_up = view.trouble.as_ref().is_some_and(|notice| notice.waiting == Waiting::Table);
        let reason = self.reason();
        let Some(last_good) = view.last_good.or(looks_up.then_some(board.started)) else {
            return Some(reason.unwrap_or_else(|| "starting: no tick has been completed yet".into()));
        };
        if self.health() == Health::Broken {
            return reason;
        }
        let good_for = GOOD_FOR.max(board.ticks_take(GOOD_FOR_TICKS));
        let shows_life = if view.trouble.is_none() && view.retrying.is_none() { view.progress } else { None };
        let good = last_good.age(self.now);
        if shows_life.map_or(good, |progress| progress.age(self.now).min(good)) <= good_for {
            return None;
        }
        let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let since =
            if view.last_good.is_some() { "the last good tick was at" } else { "no good tick since the start at" };
        Some(format!("{since} {}{why}", self.short(last_good)))
    }

    /// What the feed waits for and why.
    pub(super) fn reason(&self) -> Option<String> {
        let view = self.view;
        if let Some(notice) = self.notice() {
            return Some(format!("waits for {}: {}", notice.waiting, notice.what));
        }
        if self.health() == Health::Standby {
            return Some("another process ships this feed".into());
        }
        let retrying = view.retrying.as_ref()?;
        let times = if retrying.times == 1 { "once".into() } else { format!("{} times", retrying.times) };
        Some(format!("{}, failed {times} since {}", retrying.what, self.short(retrying.since)))
    }

    fn remedy(&self) -> Option<String> {
        let retrying = self.view.retrying.as_ref();
        let remedy = self.notice().map(|notice| notice.remedy.clone());
        remedy.or_else(|| retrying.map(|retrying| retrying.remedy.into()))
    }

    /// The same in a word of ours.
    pub(super) fn waits_for(&self) -> Option<Waiting> {
        let notice = self.notice().map(|notice| notice.waiting);
        let retrying = self.view.retrying.as_ref();
        notice.or_else(|| retrying.map(|retrying| retrying.waiting))
    }

    /// When the feed's health became what it is; the ticks in between don't count.
    fn since(&self) -> Moment {
        let waits_out_a_trouble = self.view.trouble.is_some() || self.obstacle.is_some();
        if let Some(notice) = self.of_account().filter(|_| !waits_out_a_trouble) {
            return notice.at;
        }
        let retrying = self.view.retrying.as_ref().filter(|_| !waits_out_a_trouble && self.retries_for_long());
        retrying.map(|retrying| retrying.since).or(self.view.left_since).unwrap_or(self.board.started)
    }

    fn short(&self, moment: Moment) -> String {
        moment.shown(self.now).format("%Y-%m-%d %H:%M:%SZ").to_string()
    }

    pub(super) fn status(&self) -> FeedStatus {
        let Seen { id, view, board, now, .. } = *self;
        let standing = view.standing.as_ref();
        let totals = standing.map(|standing| standing.totals.clone()).unwrap_or_default();
        let in_doubt = standing.map(|standing| standing.in_doubt.clone()).unwrap_or_default();
        FeedStatus {
            account: id.account.to_string(),
            stream: id.stream.to_string(),
            health: self.health(),
            since: Some(self.since().past(now)),
            reason: self.reason(),
            remedy: self.remedy(),
            last_good: view.last_good.map(|good| good.past(now)),
            next_tick: board.next_tick(view, now),
            lag_seconds: view.covered.map(|covered| covered.age(now).as_secs()),
            newest_shipped: view.newest_shipped,
            pages: totals.pages,
            rows: totals.shipped,
            late: totals.late,
            in_doubt_batches: in_doubt.batches,
            in_doubt_rows: in_doubt.rows,
            in_doubt_gone: in_doubt.gone,
            last_doubts: in_doubt.last.iter().rev().map(doubt).collect(),
            dead_letters: view.letters,
            open_intent: standing.and_then(intent),
            token_expires: view.token_expires,
            checkpoint_written: standing.map(|standing| standing.written_at),
            errors: view.notices.iter().rev().map(|notice| error(notice, now)).collect(),
            minutes: view.minutes.iter().map(minute).collect(),
        }
    }
}

pub(super) fn doubt(doubt: &crate::flow::totals::Doubt) -> DoubtStatus {
    DoubtStatus {
        batch_id: doubt.batch_id.clone(),
        rows: doubt.rows,
        attempt: doubt.attempt,
        why: doubt.why.clone(),
        at: doubt.at,
    }
}

pub(super) fn intent(standing: &Standing) -> Option<IntentStatus> {
    standing.intent.as_ref().map(|intent| IntentStatus {
        batch_id: intent.batch_id.clone(),
        kind: kind(intent.kind).into(),
        rows: intent.rows as u64,
        attempt: intent.attempt,
    })
}

const fn kind(kind: BatchKind) -> &'static str {
    match kind {
        BatchKind::Cursor => "cursor",
        BatchKind::OverlapSweep => "overlap-sweep",
        BatchKind::LateSweep => "late-sweep",
        BatchKind::Split => "split",
        BatchKind::Backfill => "backfill",
    }
}

fn error(notice: &Notice, now: Moment) -> ErrorStatus {
    ErrorStatus {
        at: notice.at.past(now),
        times: notice.times,
        what: notice.what.clone(),
        waiting_for: notice.waiting.to_string(),
        remedy: Some(notice.remedy.clone()),
    }
}

fn minute(minute: &crate::agent::monitor::board::Minute) -> MinuteStatus {
    MinuteStatus { at: minute.minute * 60, rows: minute.rows, lag_seconds: minute.lag }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
