//! What the feeds of one account show together: whether the destination takes the account's health rows.

use super::moment::Moment;
use super::view::Notice;
use crate::agent::trouble::Trouble;
use parking_lot::Mutex;
use tokio::sync::watch;

/// One account as it was last seen.
#[derive(Clone, Debug, Default)]
pub struct AccountView {
    /// Heartbeats and trouble rows that were not accepted, since the process started.
    pub rows_refused: u64,
    /// Why the account waits although its feeds may be well; `at` is when that began. None while its health rows are accepted.
    pub notice: Option<Notice>,
}

/// One account, shared by the panels of its feeds.
pub struct AccountPanel {
    view: Mutex<AccountView>,
    news: watch::Sender<u64>,
}

impl Default for AccountPanel {
    fn default() -> Self {
        Self::new(watch::Sender::new(0))
    }
}

impl AccountPanel {
    pub(crate) fn new(news: watch::Sender<u64>) -> Self {
        Self { view: Mutex::default(), news }
    }

    pub fn view(&self) -> AccountView {
        self.view.lock().clone()
    }

    /// A health row was not accepted.
    pub(crate) fn row_refused(&self) {
        self.note(|view| view.rows_refused += 1);
    }

    /// The account waits: its health rows are refused for good reason, or again and again.
    pub(crate) fn waits(&self, trouble: &Trouble) {
        self.note(|view| {
            let (at, times) = view.notice.as_ref().map_or((Moment::now(), 0), |notice| (notice.at, notice.times));
            let what = format!("its health rows are refused: {}", trouble.what());
            let (waiting, remedy) = (trouble.waiting(), trouble.remedy());
            view.notice = Some(Notice { at, times: times + 1, what, waiting, remedy });
        });
    }

    /// The destination took a row of the account.
    pub(crate) fn accepted(&self) {
        // Most batches come while nothing was refused: those are no news.
        if self.view.lock().notice.take().is_some() {
            self.tell();
        }
    }

    fn note(&self, change: impl FnOnce(&mut AccountView)) {
        change(&mut self.view.lock());
        self.tell();
    }

    fn tell(&self) {
        self.news.send_modify(|n| *n = n.wrapping_add(1));
    }
}
