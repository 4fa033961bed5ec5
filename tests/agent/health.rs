//! Health rows: a heartbeat after good cycles of every feed, one row per change into trouble, none from a standby.

use crate::link::Link;
use crate::source::Order;
use crate::world::{MINUTE, World};
use opship::agent::Trouble;
use opship::agent::account::Account;
use opship::agent::monitor::health::Health;
use opship::flow::redact::Redact;
use opship::flow::retry::Patience;
use opship::flow::{AccountName, Stream};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn health(world: &World, streams: &[Stream]) -> Health {
    let account = Account::new(AccountName::parse("default").expect("legal"), Patience::RUN, world.host_clock(), 1);
    let link = Arc::new(Link::new(world.state.clone()));
    Health::new(Arc::new(account), link.clone(), link, streams.iter().copied().collect(), 5 * MINUTE, Redact::default())
}

pub(crate) fn halted() -> Trouble {
    Trouble::Halted { what: "x".into(), remedy: "y".into() }
}

pub(crate) const TWO: [Stream; 2] = [Stream::AuditEvents, Stream::ItemUsages];

#[tokio::test(start_paused = true)]
async fn a_heartbeat_needs_a_good_tick_of_every_feed() {
    let world = World::new(Order::Insertion);
    let health = health(&world, &TWO);
    let date = world.state().date();
    health.report(TWO[0], Ok(date)).await;
    health.report(TWO[0], Ok(date)).await;
    assert_eq!(world.state().sink.health.len(), 0);
    health.report(TWO[1], Ok(date)).await;
    assert_eq!(world.state().sink.health.len(), 1);
    assert_eq!(world.state().sink.health[0]["log_source"], "healthevents");
    health.report(TWO[0], Ok(date)).await;
    health.report(TWO[1], Ok(date)).await;
    assert_eq!(world.state().sink.health.len(), 1, "at most one in five minutes");
    tokio::time::sleep(5 * MINUTE).await;
    health.report(TWO[1], Ok(date)).await;
    assert_eq!(world.state().sink.health.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_feed_in_trouble_keeps_the_heartbeat_of_its_account_back() {
    let world = World::new(Order::Insertion);
    let health = health(&world, &TWO);
    let date = world.state().date();
    for _ in 0..10 {
        health.report(TWO[0], Ok(date)).await;
        health.report(TWO[1], Err(&halted())).await;
        tokio::time::sleep(MINUTE).await;
    }
    let rows = world.state().sink.health.clone();
    assert_eq!(rows.len(), 1, "the change of state, once");
    assert_eq!(rows[0]["category"], "configuration_failed");
}

#[tokio::test(start_paused = true)]
async fn two_feeds_in_different_trouble_do_not_take_turns_in_keeping_the_silence_rule_quiet() {
    let world = World::new(Order::Insertion);
    let health = health(&world, &TWO);
    for _ in 0..20 {
        health.report(TWO[0], Err(&halted())).await;
        health.report(TWO[1], Err(&Trouble::Stuck("z"))).await;
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(world.state().sink.health.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_restart_does_not_repeat_a_trouble_row_and_a_recovery_makes_it_news_again() {
    let world = World::new(Order::Insertion);
    health(&world, &TWO).report(TWO[0], Err(&halted())).await;
    let again = health(&world, &TWO);
    again.report(TWO[0], Err(&halted())).await;
    assert_eq!(world.state().sink.health.len(), 1);
    for stream in TWO {
        let date = world.state().date();
        again.report(stream, Ok(date)).await;
    }
    again.report(TWO[0], Err(&halted())).await;
    assert_eq!(world.state().sink.health.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_standby_posts_no_health_row() {
    let world = World::new(Order::Insertion);
    let health = health(&world, &TWO);
    let date = world.state().date();
    for _ in 0..3 {
        health.report(TWO[0], Ok(date)).await;
        health.report(TWO[1], Err(&Trouble::Standby { left: Duration::from_secs(9) })).await;
    }
    assert!(world.state().sink.health.is_empty());
}
