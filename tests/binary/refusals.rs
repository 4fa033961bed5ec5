//! A data collection rule that refuses, is busy, or answers what is not so.

use crate::agent::wait_until;
use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::{Fault, Options, Refusal, RetryAfter, Service, Target, TokenFault, What};
use std::time::Duration;

fn answers(status: u16) -> What {
    What::Status(Refusal::status(status))
}

impl World {
    async fn cursors(&self) -> Vec<Option<String>> {
        let mut cursors = Vec::new();
        for stream in Stream::ALL {
            cursors.push(self.checkpoint(stream).await.cursor.map(|cursor| cursor.as_str().to_owned()));
        }
        cursors
    }
}

/// Fault: 413 for every body over 30 kB. Shows: batches are halved until they fit, everything arrives once, no doubt is counted.
#[tokio::test]
async fn fm_10_a_batch_that_is_too_large_is_halved_until_it_fits() {
    let world = World::file(history(600)).await;
    world.fault(Fault::new(Target::Ingestion, What::SizeLimit { bytes: 30_000 }));
    world.once().await.exits(0);
    world.assert_exactly_once();
    let cp = world.checkpoint(Stream::AuditEvents).await;
    assert!(cp.totals.splits > 3 && cp.slot.in_doubt().batches == 0, "{cp:?}");
    world.once().await.exits(0).says(&["0 shipped"]);
}

/// Fault: 429 with Retry-After: 3, three times. Shows: the run waits at least that long and everything arrives once.
#[tokio::test]
async fn fm_11_a_busy_rule_is_left_alone_for_as_long_as_it_says() {
    let world = World::file(history(90)).await;
    let busy = Refusal { retry_after: Some(RetryAfter::Seconds(3)), ..Refusal::status(429) };
    world.fault(Fault::new(Target::Ingestion, What::Status(busy)).times(3));
    let ran = world.once().await.exits(0);
    assert!(ran.took.as_secs() >= 3, "{:?}", ran.took);
    world.assert_exactly_once();
}

#[tokio::test]
async fn an_error_after_acceptance_puts_one_batch_in_doubt_and_its_copies_in_the_ledger() {
    let world = World::file(history(900)).await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenStatus(Refusal::status(500))).times(1));
    world.once().await.exits(0);
    let copies = world.assert_nothing_lost_and_copies_traceable().await;
    assert!(copies > 0 && copies <= 500, "{copies}");
}

#[tokio::test]
async fn a_connection_that_breaks_after_acceptance_is_in_doubt_too() {
    let world = World::file(history(900)).await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenReset).times(2));
    world.once().await.exits(0);
    let copies = world.assert_nothing_lost_and_copies_traceable().await;
    assert!(copies > 0 && copies <= 1000, "{copies}");
}

/// Fault: 403 because the role is missing. Shows: exit 77 naming the role, no cursor moves, no row is stored; with the role everything arrives once.
#[tokio::test]
async fn fm_12_a_missing_role_is_named_and_the_position_stands_still() {
    let world = World::file(history(300)).await;
    world.sim.world().revoke_role();
    world.once().await.exits(77).says(&["Monitoring Metrics Publisher"]);
    assert_eq!(world.cursors().await, [None, None, None]);
    assert_eq!(world.sim.world().rows().len(), 0);
    world.sim.world().grant_role();
    world.once().await.exits(0);
    world.assert_exactly_once();
    assert_eq!(world.health(), [""]);
}

/// Fault: 404, as from a deleted rule. Shows: exit 1 with the remedy, no cursor moves, few requests; afterwards everything arrives once.
#[tokio::test]
async fn fm_44_a_deleted_rule_halts_with_the_remedy_and_the_position_stands_still() {
    let world = World::file(history(300)).await;
    world.fault(Fault::new(Target::Ingestion, answers(404)));
    world.once().await.exits(1).says(&["answered 404", "sink.dcr_immutable_id", "redeploy the rule"]);
    assert_eq!(world.cursors().await, [None, None, None]);
    // Each feed tries what its cursor and its sweep found, and the trouble row is tried too.
    assert!(world.posts() <= 3 * 2 + 1, "no hammering: {}", world.posts());
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: 401 from the rule in the middle of a run. Shows: one refresh of the token, the same run ships everything once.
#[tokio::test]
async fn fm_13_a_refused_azure_token_is_replaced_by_a_new_one() {
    let world = World::file(history(300)).await;
    world.fault(Fault::new(Target::Ingestion, answers(401)).times(1));
    world.once().await.exits(0);
    world.assert_exactly_once();
    let asked = world.sim.world().journal().iter().filter(|entry| entry.service == Service::Identity).count();
    assert_eq!(asked, 2, "the first token, and one after the 401");
}

/// Fault: the rule has no such stream any more (400 InvalidStream). Shows: exit 1 with the remedy, no cursor moves, few requests; afterwards everything arrives once.
#[tokio::test]
async fn fm_44_a_renamed_stream_halts_with_the_remedy_and_the_position_stands_still() {
    let world = World::file(history(300)).await;
    let renamed = Refusal { code: Some("InvalidStream".into()), ..Refusal::status(400) };
    world.fault(Fault::new(Target::Ingestion, What::Status(renamed)));
    world.once().await.exits(1).says(&["answered 400 InvalidStream", "sink.stream"]);
    assert_eq!(world.cursors().await, [None, None, None]);
    assert!(world.posts() <= 3 * 2 + 1, "no hammering: {}", world.posts());
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: 429 with each form of Retry-After. Shows: seconds and dates are waited for, what is huge ends `once` with exit 1, the rest counts as absent; nothing is lost.
#[tokio::test]
async fn fm_11_retry_after_is_honoured_or_disregarded_in_every_form() {
    let text = |text: &str| RetryAfter::Text(text.into());
    let (at_once, in_a_while, given_up) = (0..20, 2..25, 0..20);
    let forms = [
        (RetryAfter::Seconds(2), 0, in_a_while.clone()),
        (RetryAfter::DateIn(3), 0, in_a_while),
        (RetryAfter::DateIn(-86_400), 0, at_once.clone()),
        (text("-5"), 0, at_once.clone()),
        (text("soon"), 0, at_once.clone()),
        (text("0.5"), 0, at_once.clone()),
        (text(""), 0, at_once),
        (text("99999999999999999999999"), 1, given_up.clone()),
        (RetryAfter::DateIn(365 * 86_400), 1, given_up),
    ];
    let each = forms.map(|(form, code, seconds)| async move {
        let world = World::file(history(30)).await;
        let busy = Refusal { retry_after: Some(form.clone()), ..Refusal::status(429) };
        world.fault(Fault::new(Target::Ingestion, What::Status(busy.clone())).times(3));
        world.fault(Fault::new(Target::Introspect, What::Status(busy)).times(1));
        let ran = world.once().await.exits(code);
        assert!(seconds.contains(&ran.took.as_secs()), "{form:?}: {:?}", ran.took);
        assert_eq!(world.sim.world().compare().lost > 0, code != 0, "{form:?}");
        world.sim.world().clear_faults();
        world.once().await.exits(0);
        world.assert_exactly_once();
    });
    futures_util::future::join_all(each).await;
}

/// Fault: Azure tokens that live two seconds, or are over when they come. Shows: `run` ships on with new tokens, everything arrives once.
#[tokio::test]
async fn fm_13_tokens_that_end_in_the_middle_of_a_run_are_replaced() {
    let life = Duration::from_secs(2);
    let world = World::file(Options { azure_token_lifetime: life, ..history(60) }).await;
    let over = What::Token(TokenFault::Lifetime { seconds: -1 });
    world.fault(Fault::new(Target::Identity, over).times(1));
    world.sim.world().set_live(20.0);
    let agent = world.run();
    let tokens = || world.sim.world().journal().iter().filter(|e| e.service == Service::Identity).count();
    wait_until("five tokens were asked for", life * 30, || tokens() >= 5).await;
    world.sim.world().stop_generator();
    wait_until("everything arrives", life * 30, || world.sim.world().compare().lost == 0).await;
    agent.stop().await.exits(0);
    world.assert_exactly_once();
}
