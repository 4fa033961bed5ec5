//! The status of this process, from the board that its feeds write.

use super::feed::Seen;
use super::status::{FeedStatus, Health, Origin, Status};
use crate::agent::monitor::board::{Board, Moment};
use crate::flow::FeedId;

/// The whole document; `config` as `opship config show` prints it.
pub fn status_of(board: &Board, config: &str, now: Moment) -> Status {
    let not_ready = not_ready(board, now);
    let feeds = each(board, now, |seen| seen.status());
    Status {
        from: Origin::Agent,
        version: env!("CARGO_PKG_VERSION").into(),
        now: now.at,
        started: Some(board.started.past(now)),
        ready: not_ready.is_empty(),
        summary: summary(&feeds),
        feeds,
        config: Some(config.into()),
    }
}

/// Why which feeds are not ready; ready when there is none.
pub fn not_ready(board: &Board, now: Moment) -> Vec<(FeedId, String)> {
    let reasons = each(board, now, |seen| seen.not_ready().map(|why| (seen.id.clone(), why)));
    reasons.into_iter().flatten().collect()
}

fn each<T>(board: &Board, now: Moment, tell: impl Fn(&Seen<'_>) -> T) -> Vec<T> {
    let obstacle = board.obstacle();
    let views = board.views();
    views.map(|(id, view)| tell(&Seen { id, view: &view, board, obstacle: obstacle.as_ref(), now })).collect()
}

/// The summary without the words of other services: everyone on the host may read it.
pub fn public_summary(board: &Board, now: Moment) -> String {
    let public = |seen: &Seen<'_>| {
        let reason = seen.waits_for().map(|what| format!("waits for {what}"));
        FeedStatus { reason, ..seen.status() }
    };
    summary(&each(board, now, public))
}

/// One sentence: the worst that is the matter, or that all is well.
pub fn summary(feeds: &[FeedStatus]) -> String {
    let Some(worst) = feeds.iter().max_by_key(|feed| gravity(feed.health)) else {
        return "There is no feed: configure an account.".into();
    };
    let same = feeds.iter().filter(|feed| feed.health == worst.health).count();
    let who = match same {
        1 => format!("{}/{}", worst.account, worst.stream),
        same if same == feeds.len() => format!("All {same} feeds"),
        same => format!("{same} of {} feeds", feeds.len()),
    };
    let (is, why) = (if same == 1 { "is" } else { "are" }, worst.reason.as_deref().unwrap_or("no reason was given"));
    match worst.health {
        Health::Good if feeds.len() == 1 => "All is well: the feed ships.".into(),
        Health::Good => format!("All is well: {} feeds ship.", feeds.len()),
        Health::Standby => format!("All is well: {who} {is} shipped by another process, this one stands by."),
        Health::CatchingUp => format!("All is well: {who} {is} catching up."),
        Health::Starting => format!("{who} {is} starting: no tick has been completed yet."),
        Health::Stopped => format!("{who} {is} stopped."),
        Health::Waiting if same == 1 => format!("{who} is held up and tries again by itself: {why}."),
        Health::Waiting => format!("{who} are held up and try again by themselves: {why}."),
        Health::Broken => format!("{who} {} a person: {why}.", if same == 1 { "needs" } else { "need" }),
        Health::Silent => {
            format!("{who} {} silent, is opship running? {why}.", if same == 1 { "is" } else { "are" })
        }
    }
}

const fn gravity(health: Health) -> u8 {
    match health {
        Health::Good => 0,
        Health::Standby => 1,
        Health::CatchingUp => 2,
        Health::Starting => 3,
        Health::Stopped => 4,
        Health::Waiting => 5,
        Health::Silent => 6,
        Health::Broken => 7,
    }
}
