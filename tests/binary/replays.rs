//! Dead letters shipped again: after the repair, before it, and by a process that is killed.

use crate::agent::wait_until;
use crate::letters::{MARK, UUIDS, id};
use crate::shapes::huge_event;
use crate::world::{Kind, World, history};
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, Target, What};
use serde_json::{Value, json};
use std::time::Duration;

both_stores! {
    a_letter_is_replayed_whole_after_the_repair_and_its_copy_is_in_the_ledger
    a_replay_that_is_killed_after_acceptance_can_be_repeated_and_every_copy_is_in_the_ledger
}

const SOON: Duration = Duration::from_secs(60);

impl World {
    /// `dead-letters replay ARGS --output json`: what became of each letter.
    async fn replay(&self, args: &[&str], code: i32) -> Vec<Value> {
        let args = [&["dead-letters", "replay", "--output", "json"], args].concat();
        let ran = self.cli(&args).await.exits(code);
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Rows of one event beyond the first that the checkpoint has foreseen.
    async fn foreseen(&self) -> u64 {
        self.checkpoint(Stream::AuditEvents).await.slot.in_doubt().rows
    }

    async fn assert_copies(&self, copies: u64) {
        let audit = self.audit().await;
        audit.assert_sound();
        assert_eq!(audit.feeds.iter().map(|feed| feed.copies).sum::<u64>(), copies);
    }
}

/// Fault: a rule that refuses requests over 6 kB, then takes them. Shows: the event arrives whole beside its stub, the letter goes, the copy has its frame and its doubt, the other letter stays.
async fn a_letter_is_replayed_whole_after_the_repair_and_its_copy_is_in_the_ledger(kind: Kind) {
    let world = World::with_letters(kind, 2).await;
    assert_eq!(world.foreseen().await, 0);
    world.sim.world().clear_faults();
    let ran = world.cli(&["dead-letters", "replay", UUIDS[0]]).await.exits(0);
    let ran = ran.says(&["ledger is bypassed", "second one", "attempt 2, beside its stub", "letter is deleted"]);
    assert!(!ran.stdout.contains(MARK) && !ran.stderr.contains(MARK), "the event stands in no message");
    let rows = world.rows_of(UUIDS[0]);
    let [stub, whole] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((&stub["aux_info"], &whole["aux_info"]), (&Value::Null, &json!(MARK)));
    assert!(stub["details"]["opship"]["stub"].is_string() && whole["object_details"]["part3"].is_string());
    world.assert_copies(1).await;
    let doubt = world.checkpoint(Stream::AuditEvents).await.slot.in_doubt().clone();
    assert_eq!((doubt.rows, doubt.batches, doubt.last[0].attempt), (1, 1, 2));
    assert!(doubt.last[0].why.contains("replayed"), "{doubt:?}");
    let left = world.letters().await;
    assert_eq!((left.len(), &left[0]["id"]), (1, &json!(id(UUIDS[1]))));

    let outcomes = world.replay(&["--all"], 0).await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!((&outcomes[0]["outcome"], &outcomes[0]["attempt"]), (&json!("replayed"), &json!(2)));
    world.cli(&["dead-letters", "replay", "--all"]).await.exits(0).says(&["nothing to replay"]);
    world.once().await.exits(0).says(&["0 shipped"]);
    world.assert_copies(2).await;
}

/// Fault: the rule still refuses the event. Shows: exit 2, no second stub, no doubt, no open intent; the letter says why it was refused this time.
#[tokio::test]
async fn a_letter_that_is_refused_again_stays_with_the_new_reason_and_leaves_no_copy() {
    let world = World::with_letters(Kind::File, 1).await;
    let before = world.checkpoint(Stream::AuditEvents).await;
    let outcomes = world.replay(&[UUIDS[0]], 2).await;
    assert_eq!((&outcomes[0]["outcome"], &outcomes[0]["attempt"]), (&json!("refused"), &Value::Null));
    let letters = world.letters().await;
    let why = letters[0]["why"].as_str().unwrap();
    assert!(why.contains("replayed") && why.contains("413"), "{why}");
    assert_eq!(world.rows_of(UUIDS[0]).len(), 1, "the stub alone");
    let after = world.checkpoint(Stream::AuditEvents).await;
    assert_eq!(
        (after.slot.intent(), after.slot.in_doubt(), after.totals),
        (None, before.slot.in_doubt(), before.totals)
    );
    world.sim.world().clear_faults();
    world.replay(&[UUIDS[0]], 0).await;
    world.assert_copies(1).await;
}

/// Fault: an event whose row is over a megabyte. Shows: it is said that no request may carry it, nothing is posted, the letter stays as it was.
#[tokio::test]
async fn an_event_that_no_request_may_carry_is_said_so_and_not_posted() {
    let world = World::file(history(10)).await;
    world.item(Stream::AuditEvents, huge_event(UUIDS[0]).to_string());
    world.once().await.exits(2);
    let (posts, letters) = (world.posts(), world.letters().await);
    let outcomes = world.replay(&["--all"], 2).await;
    assert_eq!(outcomes[0]["outcome"], "too-large");
    assert!(outcomes[0]["said"].as_str().unwrap().contains("a request may carry 999998"), "{outcomes:?}");
    assert_eq!(world.posts(), posts);
    assert_eq!(
        (world.letters().await[0]["why"].clone(), world.rows_of(UUIDS[0]).len()),
        (letters[0]["why"].clone(), 1)
    );
}

/// Fault: kill -9 while the POST of a replay hangs after acceptance. Shows: the letter is still there, the next replay ships it once more, and each of the three rows has its attempt.
async fn a_replay_that_is_killed_after_acceptance_can_be_repeated_and_every_copy_is_in_the_ledger(kind: Kind) {
    let world = World::with_letters(kind, 1).await;
    world.sim.world().clear_faults();
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).times(1));
    let replaying = world.start(&["dead-letters", "replay", UUIDS[0]]);
    wait_until("the POST hangs", SOON, || world.unanswered() == 1).await;
    replaying.kill().await;
    assert_eq!((world.rows_of(UUIDS[0]).len(), world.letters().await.len()), (2, 1));

    world.an_hour_passes();
    let outcomes = world.replay(&["--all"], 0).await;
    assert_eq!((&outcomes[0]["outcome"], &outcomes[0]["attempt"]), (&json!("replayed"), &json!(3)));
    assert_eq!((world.rows_of(UUIDS[0]).len(), world.letters().await.len()), (3, 0));
    world.assert_copies(2).await;
    world.once().await.exits(0).says(&["0 shipped"]);
}

/// Fault: the answer to a replay is a 500 after acceptance. Shows: it is posted again, and each of the three rows has its attempt and its doubt.
#[tokio::test]
async fn a_replay_whose_answer_is_lost_is_repeated_and_attributable() {
    let world = World::with_letters(Kind::File, 1).await;
    world.sim.world().clear_faults();
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenStatus(Refusal::status(500))).times(1));
    let outcomes = world.replay(&["--all"], 0).await;
    assert_eq!(outcomes[0]["attempt"], 3);
    assert_eq!((world.rows_of(UUIDS[0]).len(), world.letters().await.len()), (3, 0));
    world.assert_copies(2).await;
}

/// Fault: the role is missing. Shows: exit 1 naming it, the letter stays as it was, no doubt and no open intent; letters after it are not tried.
#[tokio::test]
async fn a_replay_without_the_role_says_so_and_changes_nothing() {
    let world = World::with_letters(Kind::File, 2).await;
    world.sim.world().clear_faults();
    world.sim.world().revoke_role();
    let before = world.letters().await.iter().map(|letter| letter["why"].clone()).collect::<Vec<_>>();
    let outcomes = world.replay(&["--all"], 77).await;
    assert!(outcomes[0]["said"].as_str().unwrap().contains("Monitoring Metrics Publisher"), "{outcomes:?}");
    assert!(outcomes[1]["said"].as_str().unwrap().contains("not tried"), "{outcomes:?}");
    let after = world.checkpoint(Stream::AuditEvents).await;
    assert_eq!((after.slot.intent(), after.slot.in_doubt().rows), (None, 0));
    assert_eq!(world.letters().await.iter().map(|letter| letter["why"].clone()).collect::<Vec<_>>(), before);
    world.sim.world().grant_role();
    world.replay(&["--all"], 0).await;
    world.assert_copies(2).await;
}

/// Fault: one of two letters is torn. Shows: exit 2 naming its key, the other one is replayed.
#[tokio::test]
async fn a_torn_letter_does_not_keep_the_others_from_being_replayed() {
    let world = World::with_letters(Kind::File, 2).await;
    world.sim.world().clear_faults();
    let torn = world.home.path().join(format!("state/dead-letters/default/auditevents/{}.json", id(UUIDS[0])));
    std::fs::write(&torn, "{\"feed\":").unwrap();
    let outcomes = world.replay(&["--all"], 2).await;
    let of = |uuid: &str| outcomes.iter().find(|outcome| outcome["id"] == id(uuid)).unwrap()["outcome"].clone();
    assert_eq!((of(UUIDS[0]), of(UUIDS[1])), (json!("unreadable"), json!("replayed")));
    assert!(torn.exists() && world.rows_of(UUIDS[1]).len() == 2);
}

/// A letter that was kept under `filter.redact` holds the row, without what was redacted: so does what is replayed.
#[tokio::test]
async fn what_was_redacted_does_not_come_back_with_a_replay() {
    let mut world = World::file(history(10)).await;
    world.set("OPSHIP_FILTER__REDACT", "[\"aux_info\"]");
    world.large_event(UUIDS[0], 8_000);
    world.small_rule();
    world.once().await.exits(2);
    let shown = world.cli(&["dead-letters", "show", UUIDS[0]]).await.exits(0).says(&[UUIDS[0]]);
    assert!(!shown.stdout.contains(MARK), "{}", shown.stdout);
    world.sim.world().clear_faults();
    world.replay(&[UUIDS[0]], 0).await;
    let rows = world.rows_of(UUIDS[0]);
    assert_eq!((rows.len(), &rows[1]["aux_info"], &rows[1]["action"]), (2, &Value::Null, &json!("view")));
    assert!(rows[1]["object_details"]["part0"].is_string(), "{}", rows[1]);
    world.assert_copies(1).await;
}

#[tokio::test]
async fn letters_are_replayed_beside_a_running_agent() {
    let world = World::with_letters(Kind::File, 3).await;
    world.sim.world().clear_faults();
    let agent = world.run();
    world.sim.world().set_live(20.0);
    let shipped = || world.sim.world().compare().shipped > 60;
    wait_until("the agent ships", SOON, shipped).await;
    let outcomes = world.replay(&["--all"], 0).await;
    assert_eq!(outcomes.len(), 3);
    world.sim.world().stop_generator();
    wait_until("everything arrives", SOON, || world.sim.world().compare().lost == 0).await;
    agent.stop().await.exits(0);
    assert_eq!(world.letters().await.len(), 0);
    for uuid in UUIDS {
        assert_eq!(world.rows_of(uuid).len(), 2);
    }
    let audit = world.audit().await;
    audit.assert_sound();
}
