//! When a feed is ready, and what is said of one that is not.

use super::*;
use crate::agent::monitor::board::Retrying;
use crate::config::Timer;
use crate::flow::{AccountName, Stream};

const MINUTE: Duration = Duration::from_secs(60);

/// The moments of these tests lie ahead of the real one, so that there is room before them on a machine that has just started.
const LATER: Duration = Duration::from_secs(1_000_000);

/// So long before a moment of these tests.
fn before(now: Moment, ago: Duration) -> Moment {
    let then = Moment::now().later(LATER - ago);
    assert!(then.age(now) <= ago);
    then
}

struct Case {
    id: FeedId,
    view: View,
    board: Board,
    obstacle: Option<Notice>,
    now: Moment,
}

/// A feed that rests after a good tick so long ago, with a tick a minute.
fn good_since(ago: Duration) -> Case {
    let id = FeedId { account: AccountName::parse("default").unwrap(), stream: Stream::AuditEvents };
    let now = Moment::now().later(LATER);
    let (left, phase) = (Phase::Resting, Phase::Resting);
    let view = View { left, phase, last_good: Some(before(now, ago)), ..View::default() };
    Case { id, view, board: Board::new([], Timer::Every(MINUTE)), obstacle: None, now }
}

fn notice(waiting: Waiting) -> Notice {
    Notice { at: Moment::now(), times: 1, what: "it said no".into(), waiting, remedy: "say yes".into() }
}

impl Case {
    fn seen(&self) -> Seen<'_> {
        let Self { id, view, board, obstacle, now } = self;
        Seen { id, view, board, obstacle: obstacle.as_ref(), now: *now }
    }

    fn not_ready(&self) -> String {
        self.seen().not_ready().unwrap_or_default()
    }

    fn in_trouble(mut self, waiting: Waiting) -> Self {
        (self.view.trouble, self.view.left) = (Some(notice(waiting)), Phase::Waiting(waiting));
        self
    }
}

#[test]
fn a_feed_is_ready_for_five_minutes_after_a_good_tick() {
    assert_eq!(good_since(MINUTE * 4).not_ready(), "");
    assert!(good_since(MINUTE * 6).not_ready().starts_with("the last good tick was at 20"));
    assert_eq!(good_since(MINUTE).seen().health(), Health::Good);
}

#[test]
fn where_the_timer_ticks_rarely_two_ticks_count() {
    let mut case = good_since(MINUTE * 60 * 49);
    assert_ne!(case.not_ready(), "");
    case.board = Board::new([], Timer::Cron("0 0 6 * * *".into()));
    case.view.last_good = Some(before(case.now, MINUTE * 60 * 23));
    assert_eq!(case.not_ready(), "", "a day into a daily timer");
}

#[test]
fn a_long_tick_that_gets_through_is_ready_and_one_that_does_not_is_not() {
    let mut case = good_since(MINUTE * 90);
    case.view.phase = Phase::Ticking;
    case.view.progress = Some(before(case.now, MINUTE));
    assert_eq!(case.not_ready(), "");
    case.view.progress = Some(before(case.now, MINUTE * 6));
    assert_ne!(case.not_ready(), "");
    let (since, what) = (before(case.now, MINUTE), "the destination: answered 503".into());
    case.view.retrying = Some(Retrying { since, times: 7, what, waiting: Waiting::Sink, remedy: "wait" });
    case.view.progress = Some(case.now);
    assert!(case.not_ready().contains("answered 503, failed 7 times"), "{}", case.not_ready());
    assert_eq!((case.seen().health(), case.seen().status().remedy), (Health::Waiting, Some("wait".into())));
}

#[test]
fn what_heals_by_itself_has_five_minutes_and_what_needs_a_person_has_none() {
    for waiting in [Waiting::Source, Waiting::Sink, Waiting::Store] {
        assert_eq!(good_since(MINUTE * 4).in_trouble(waiting).not_ready(), "", "{waiting}");
        let late = good_since(MINUTE * 6).in_trouble(waiting);
        assert!(late.not_ready().ends_with(&format!("waits for {waiting}: it said no")), "{}", late.not_ready());
        assert_eq!(late.seen().health(), Health::Waiting);
    }
    for waiting in [Waiting::Person, Waiting::Unauthorized] {
        let case = good_since(Duration::ZERO).in_trouble(waiting);
        assert_eq!(case.not_ready(), format!("waits for {waiting}: it said no"));
        assert_eq!((case.seen().health(), case.seen().status().remedy), (Health::Broken, Some("say yes".into())));
    }
}

#[test]
fn a_batch_that_waits_for_its_look_up_has_five_minutes_even_before_the_first_good_tick() {
    for (ago, is_ready) in [(MINUTE * 4, true), (MINUTE * 6, false)] {
        for was_good in [false, true] {
            let mut case = good_since(ago).in_trouble(Waiting::Table);
            case.board.started = before(case.now, ago);
            case.view.last_good = case.view.last_good.filter(|_| was_good);
            assert_eq!((case.not_ready().is_empty(), case.seen().health()), (is_ready, Health::Waiting), "{ago:?}");
        }
    }
}

/// Fault: the health rows of the account are refused while its feeds are well, stand by, or are in trouble. Shows: it waits and is not ready at once, except where another process ships; the feed's own trouble is told first.
#[test]
fn fm_60_refused_health_rows_are_told_on_each_feed_that_is_shipped_here() {
    let refused = |mut case: Case| {
        let what = "its health rows are refused: no".into();
        case.view.account.notice = Some(Notice { what, ..notice(Waiting::Sink) });
        case
    };
    let case = refused(good_since(Duration::ZERO));
    assert_eq!(
        (case.not_ready().as_str(), case.seen().health()),
        (case.seen().reason().unwrap().as_str(), Health::Waiting)
    );
    let told = case.seen().status();
    assert_eq!(told.reason.as_deref(), Some("waits for the destination: its health rows are refused: no"));
    assert_eq!((told.remedy.as_deref(), told.since), (Some("say yes"), Some(case.view.account.notice.unwrap().at.at)));
    let mut standby = refused(good_since(MINUTE));
    standby.view.left = Phase::Waiting(Waiting::Standby);
    assert_eq!((standby.not_ready().as_str(), standby.seen().health()), ("", Health::Standby));
    let both = refused(good_since(MINUTE)).in_trouble(Waiting::Source);
    assert_eq!(both.not_ready(), "waits for 1Password: it said no");
    let look_up = refused(good_since(MINUTE)).in_trouble(Waiting::Table);
    assert_ne!(look_up.not_ready(), "", "a batch that waits for its look-up is no excuse");
}

#[test]
fn trouble_stays_visible_while_the_next_tick_tries() {
    let mut case = good_since(MINUTE).in_trouble(Waiting::Unauthorized);
    case.view.phase = Phase::Ticking;
    assert_eq!(case.seen().health(), Health::Broken);
}

#[test]
fn before_the_first_good_tick_a_feed_is_starting_and_one_that_stands_by_is_ready() {
    let mut case = good_since(MINUTE);
    case.view.last_good = None;
    assert_eq!(
        (case.seen().health(), case.not_ready().as_str()),
        (Health::Starting, "starting: no tick has been completed yet")
    );
    case.obstacle = Some(notice(Waiting::Store));
    assert_eq!((case.seen().health(), case.not_ready().as_str()), (Health::Waiting, "waits for the store: it said no"));
    case.obstacle = None;
    (case.view.left, case.view.phase) = (Phase::Waiting(Waiting::Standby), Phase::Ticking);
    assert_eq!((case.seen().health(), case.not_ready().as_str()), (Health::Standby, ""));
    case.view.phase = Phase::Stopped;
    assert_eq!((case.seen().health(), case.not_ready().as_str()), (Health::Stopped, "stopped"));
}
