//! Health rows that the destination does not take, and a store that does not remember what they told.

use crate::health::{TWO, halted, health};
use crate::log::Log;
use crate::sink::Outcome;
use crate::source::Order;
use crate::store::{Fault, Op};
use crate::world::{MINUTE, World};
use opship::admin::from_board::status_of;
use opship::admin::status::{Health as State, Status};
use opship::agent::Trouble;
use opship::agent::last_told;
use opship::agent::monitor::board::{Board, Moment};
use opship::agent::monitor::health::Health;
use opship::config::Timer;
use opship::flow::{AccountName, FeedId, Stream};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// An account of two feeds on a board, and the destination of its health rows.
struct Account {
    world: World,
    health: Health,
    board: Board,
}

fn name() -> AccountName {
    AccountName::parse("default").expect("legal")
}

fn account() -> Account {
    let world = World::new(Order::Insertion);
    let ids = TWO.map(|stream| FeedId { account: name(), stream });
    let board = Board::new(ids, Timer::Every(SECOND));
    let health = health(&world, &TWO).shown_on(board.account(&name()));
    Account { world, health, board }
}

impl Account {
    /// These happen to the next health rows, the last of them for ever.
    fn answers(&self, outcomes: impl IntoIterator<Item = Outcome>) -> Arc<AtomicUsize> {
        let mut outcomes: VecDeque<Outcome> = outcomes.into_iter().collect();
        let posted = Arc::new(AtomicUsize::new(0));
        let count = posted.clone();
        self.world.state().sink.health_hook = Some(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let next = outcomes.front().cloned().unwrap_or(Outcome::Accept);
            if outcomes.len() > 1 {
                outcomes.pop_front();
            }
            next
        }));
        posted
    }

    /// Good ticks of both feeds, one a second.
    async fn well_for(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for stream in TWO {
                let date = self.world.state().date();
                self.health.report(stream, Ok(date)).await;
            }
            tokio::time::sleep(SECOND).await;
        }
    }

    /// Ticks that end so, one a second.
    async fn ill_for(&self, time: Duration, trouble: &Trouble) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for stream in TWO {
                self.health.report(stream, Err(trouble)).await;
            }
            tokio::time::sleep(SECOND).await;
        }
    }

    /// What is shown, were the feeds themselves well.
    fn status(&self) -> Status {
        status_of(&self.board, "", Moment::now())
    }

    /// Feeds that wait because health rows are refused.
    fn waiting(&self) -> usize {
        let why = |feed: &opship::admin::status::FeedStatus| {
            feed.reason.as_ref()?.contains("its health rows are refused").then_some(())
        };
        self.status().feeds.iter().filter_map(why).count()
    }

    fn rows(&self, category: &str) -> usize {
        let is_of = |row: &&serde_json::Value| row["category"].as_str().unwrap_or_default() == category;
        self.world.state().sink.health.iter().filter(is_of).count()
    }

    fn kept(&self) -> String {
        let state = self.world.state();
        let blob = state.store.blobs.get("health/default").map(|blob| blob.bytes.clone());
        blob.map_or_else(|| "nothing".into(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Fault: the rule answers 401 or 403 to the heartbeats of an account without new events. Shows: with the first one both feeds wait and are not ready, with the remedy of a refused batch; one ERROR; one try a minute; an accepted one clears it.
#[tokio::test(start_paused = true)]
async fn fm_60_heartbeats_refused_by_401_or_403_make_the_account_wait_at_once() {
    for status in [401, 403] {
        let (account, log) = (account(), Log::listen());
        let posted = account.answers([Outcome::Refuse(status)]);
        account.well_for(SECOND).await;
        let told = account.status();
        for feed in &told.feeds {
            assert_eq!(feed.health, State::Waiting, "{feed:?}");
            assert!(
                feed.reason
                    .as_ref()
                    .is_some_and(|why| why.contains("health rows") && why.contains(&status.to_string()))
            );
            assert!(
                feed.remedy.as_ref().is_some_and(|remedy| remedy.contains("Monitoring Metrics Publisher")),
                "{feed:?}"
            );
        }
        // A 401 asks for a new credential and tries once more.
        let tries = posted.swap(0, Ordering::Relaxed);
        assert_eq!(tries, if status == 401 { 2 } else { 1 });
        account.well_for(10 * MINUTE).await;
        assert!(posted.load(Ordering::Relaxed) <= 11 * tries, "not more often than once a minute");
        let said = log.said("does not take the health rows");
        assert_eq!(said.len(), 1, "said once: {said:?}");
        assert!(
            said[0]["level"] == "ERROR" && said[0]["remedy"].as_str().is_some_and(|remedy| remedy.contains("role"))
        );
        assert_eq!(account.kept(), "delivery_failed", "for those who ask the store");
        account.world.state().sink.health_hook = None;
        account.well_for(MINUTE).await;
        assert_eq!(account.waiting(), 0, "{:?}", account.status());
        assert_eq!((account.rows(""), account.kept().as_str()), (1, "good"));
        assert_eq!(log.said("takes the health rows again").len(), 1);
    }
}

/// Fault: a heartbeat that gets no answer, a 404, a 413, a 429 or a 503, once and then again. Shows: once is no trouble, twice in a row is, until one is accepted.
#[tokio::test(start_paused = true)]
async fn fm_60_heartbeats_refused_twice_in_a_row_by_anything_make_the_account_wait() {
    let no_answer = Outcome::Hang { accepted: false };
    let refusals = [404, 413, 429, 503].map(Outcome::Refuse).into_iter().chain([Outcome::Break, no_answer]);
    for outcome in refusals {
        let account = account();
        account.answers([outcome.clone(), Outcome::Accept]);
        account.well_for(3 * MINUTE).await;
        assert_eq!((account.rows(""), account.waiting()), (1, 0), "{outcome:?}");
        account.answers([outcome.clone()]);
        account.well_for(8 * MINUTE).await;
        let told = account.status();
        let waits = [State::Waiting, State::Broken];
        assert!(
            told.feeds.iter().all(|feed| waits.contains(&feed.health) && feed.remedy.is_some()),
            "{outcome:?}: {told:?}"
        );
        account.answers([Outcome::Accept]);
        account.well_for(2 * MINUTE).await;
        assert_eq!(account.waiting(), 0, "{outcome:?}");
    }
}

/// Fault: heartbeats answered by 429 with a time to wait of five minutes. Shows: the next one is tried no sooner.
#[tokio::test(start_paused = true)]
async fn fm_60_a_rule_that_says_when_to_come_again_is_left_alone_until_then() {
    let account = account();
    let posted = account.answers([Outcome::Busy(5 * MINUTE)]);
    account.well_for(16 * MINUTE).await;
    assert_eq!((posted.load(Ordering::Relaxed), account.waiting()), (4, 2));
}

/// Fault: trouble rows that the rule refuses. Shows: the account waits for that too; the row comes, once, when the rule takes it.
#[tokio::test(start_paused = true)]
async fn fm_60_trouble_rows_that_are_refused_count_as_well() {
    let account = account();
    let posted = account.answers([Outcome::Refuse(403)]);
    account.ill_for(10 * MINUTE, &halted()).await;
    assert!((10..=11).contains(&posted.load(Ordering::Relaxed)), "one try a minute");
    assert_eq!(account.waiting(), 2);
    account.world.state().sink.health_hook = None;
    account.ill_for(10 * MINUTE, &halted()).await;
    assert_eq!(account.rows("configuration_failed"), 1);
    assert_eq!(account.waiting(), 0, "the feeds themselves never told");
}

/// Fault: heartbeats refused by 403, then a batch of the account is accepted. Shows: the account waits no more, and the next refusal makes it wait again without another ERROR.
#[tokio::test(start_paused = true)]
async fn fm_60_an_accepted_batch_of_the_account_clears_the_notice() {
    let (mut account, log) = (account(), Log::listen());
    account.answers([Outcome::Refuse(403)]);
    account.well_for(SECOND).await;
    assert_eq!(account.waiting(), 2);
    account.world.add(2);
    let shown_on = account.board.panel(&FeedId { account: name(), stream: Stream::ItemUsages });
    account.world.start_shown_on("default", shown_on).good().await;
    assert_eq!(account.waiting(), 0, "{:?}", account.status());
    account.well_for(MINUTE).await;
    assert_eq!(account.waiting(), 2);
    assert_eq!(log.said("does not take the health rows").len(), 1);
}

/// Fault: the store neither says nor keeps what was told, while two feeds are in trouble with every tick. Shows: one trouble row; after a heartbeat the next trouble is news; once the store works again it knows.
#[tokio::test(start_paused = true)]
async fn fm_61_a_trouble_row_is_posted_once_though_the_store_cannot_remember_it() {
    for fails in [vec![Op::Put], vec![Op::Get], vec![Op::Get, Op::Put]] {
        let account = account();
        let fault = fails.clone();
        account
            .world
            .on_store(move |op, key| (key.starts_with("health/") && fault.contains(&op)).then_some(Fault::Fail));
        account.ill_for(25 * SECOND, &halted()).await;
        assert_eq!(account.rows("configuration_failed"), 1, "{fails:?}");
        account.well_for(6 * MINUTE).await;
        account.ill_for(10 * MINUTE, &halted()).await;
        assert_eq!(account.rows("configuration_failed"), 2, "{fails:?}: a recovery makes it news");
        account.world.state().store.hook = None;
        account.ill_for(2 * MINUTE, &halted()).await;
        assert_eq!((account.rows("configuration_failed"), &*account.kept()), (2, "configuration_failed"), "{fails:?}");
        // The next process knows.
        health(&account.world, &TWO).report(TWO[0], Err(&halted())).await;
        assert_eq!(account.rows("configuration_failed"), 2, "{fails:?}");
    }
}

/// Fault: a store that fails on each request of the health rows. Shows: it is asked once a minute, not with each tick of each feed.
#[tokio::test(start_paused = true)]
async fn fm_61_a_store_that_fails_is_not_asked_with_each_tick() {
    let account = account();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    account.world.on_store(move |_, key| {
        count.fetch_add(usize::from(key.starts_with("health/")), Ordering::Relaxed);
        Some(Fault::Fail)
    });
    account.ill_for(10 * MINUTE, &halted()).await;
    assert!(asked.load(Ordering::Relaxed) <= 12, "{asked:?} requests in ten minutes");
}

/// Fault: the answer to a trouble row is lost each time, though the row arrives. Shows: three rows at most, a minute apart.
#[tokio::test(start_paused = true)]
async fn fm_61_a_trouble_row_that_may_have_arrived_is_not_repeated_for_ever() {
    let account = account();
    account.answers([Outcome::LoseReply]);
    account.ill_for(60 * MINUTE, &halted()).await;
    assert_eq!(account.rows("configuration_failed"), 3);
}

/// Fault: another process told a trouble and is gone. Shows: the next heartbeat of this one says in the store that all is well; foreign words there are not repeated.
#[tokio::test(start_paused = true)]
async fn fm_61_what_another_process_told_ends_with_the_next_heartbeat() {
    let account = account();
    account.well_for(SECOND).await;
    account.world.state().store.set("health/default", b"source_failed \x1b[31mX 7".to_vec());
    let store = crate::link::Link::new(account.world.state.clone());
    assert_eq!(last_told(&store, &name()).await.expect("readable"), ["source_failed"]);
    account.well_for(6 * MINUTE).await;
    assert_eq!(account.kept(), "good");
    assert!(last_told(&store, &name()).await.expect("readable").is_empty());
}
