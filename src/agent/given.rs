//! given: what a feed's parts are given, and what they have in common: who is meant, the settings, the time, the panel, the end.

use super::account::Account;
use super::monitor::board::Panel;
use super::trouble::Trouble;
use crate::config::Lookback;
use crate::flow::map::Mapper;
use crate::flow::redact::Redact;
use crate::flow::window::Widths;
use crate::flow::{FeedId, Stream, Time};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a feed was configured to do.
#[derive(Clone, Debug)]
pub struct Settings {
    pub widths: Widths,
    pub lookback: Lookback,
    pub batch_rows_max: usize,
    pub drop_audit_actions: BTreeSet<String>,
    pub redact: Redact,
    /// How long ledger segments are kept.
    pub ledger_keep: Duration,
    /// How long a row may take to show in the table: a batch in doubt is looked up there after that. None: it is sent again at once.
    pub verify_after: Option<Duration>,
}

impl Settings {
    pub(super) fn mapper<'a>(&'a self, stream: Stream, account_uuid: Option<&'a str>) -> Mapper<'a> {
        Mapper { stream, account_uuid, redact: &self.redact }
    }
}

/// Shared by the parts of one feed.
pub(super) struct Given {
    pub(super) id: FeedId,
    pub(super) account: Arc<Account>,
    pub(super) settings: Arc<Settings>,
    /// Where the feed shows what it does.
    pub(super) panel: Arc<Panel>,
    /// Fires when the process is asked to end: no new poll, no new intent, sleeps end.
    pub(super) stop: CancellationToken,
    date: Mutex<Time>,
}

impl Given {
    pub(super) fn new(
        id: FeedId,
        account: Arc<Account>,
        settings: Arc<Settings>,
        panel: Arc<Panel>,
        stop: CancellationToken,
    ) -> Self {
        Self { id, account, settings, panel, stop, date: Mutex::new(Time::MIN_UTC) }
    }

    /// The source's clock in its latest answer.
    pub(super) fn date(&self) -> Time {
        *self.date.lock()
    }

    pub(super) fn set_date(&self, date: Time) {
        *self.date.lock() = date;
    }

    /// Sleeps, unless the process is asked to end.
    pub(super) async fn rest(&self, wait: Duration) -> Result<(), Trouble> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Trouble::Stopped),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// Fails once the process is asked to end.
    pub(super) fn go_on(&self) -> Result<(), Trouble> {
        if self.stop.is_cancelled() { Err(Trouble::Stopped) } else { Ok(()) }
    }
}
