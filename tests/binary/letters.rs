//! Dead letters: looked at, shipped again, deleted.

use crate::browse::Answer;
use crate::world::{Kind, World, feed, history};
use chrono::TimeDelta;
use opship::admin::status::Status;
use opship::flow::{EventId, Stream};
use opship::sim::{Fault, Target, What};
use opship::store::{Expect, Key};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Uuids of the events of these tests: canonical, so that their ids are their own bytes.
pub const UUIDS: [&str; 3] = ["LETTERAAAAAAAAAAAAAAAAAAAA", "LETTERBBBBBBBBBBBBBBBBBBBA", "LETTERCCCCCCCCCCCCCCCCCCCA"];
/// A rule that takes no more than this in a request: the stub of an event fits, the event does not.
const SMALL: usize = 6_000;
/// What only the whole event holds.
pub const MARK: &str = "mark-of-the-whole-event";

pub fn id(uuid: &str) -> String {
    EventId::of_uuid(uuid).to_string()
}

impl World {
    /// Audit events of a few kilobytes, in a world whose rule is [`SMALL`]: they become stubs and dead letters.
    pub async fn with_letters(kind: Kind, letters: usize) -> Self {
        let world = Self::behind_a_gate(kind, history(30)).await;
        for uuid in &UUIDS[..letters] {
            world.large_event(uuid, 8_000);
        }
        world.small_rule();
        world.once().await.exits(2);
        assert_eq!(world.letters().await.len(), letters);
        world
    }

    pub fn large_event(&self, uuid: &str, bytes: usize) {
        let sim = self.sim.world();
        let at = sim.now() - TimeDelta::minutes(1);
        // No field is over the column's limit: only the request is too large.
        let details: Value = (0..bytes / 2_000).map(|n| (format!("part{n}"), json!(noise(uuid, n)))).collect();
        let event = json!({
            "uuid": uuid, "timestamp": at.to_rfc3339(), "action": "view", "object_details": details, "aux_info": MARK,
        });
        sim.append_raw(Stream::AuditEvents, at, event.to_string());
    }

    pub fn small_rule(&self) {
        self.fault(Fault::new(Target::Ingestion, What::SizeLimit { bytes: SMALL }));
    }

    /// `dead-letters list --output json`.
    pub async fn letters(&self) -> Vec<Value> {
        let listed = self.cli(&["dead-letters", "list", "--output", "json"]).await.exits(0).stdout;
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The rows of an event in the order of their arrival.
    pub fn rows_of(&self, uuid: &str) -> Vec<Value> {
        self.rows().into_iter().filter(|row| row["uuid_s"] == uuid).collect()
    }
}

/// Text that gzip cannot make small.
fn noise(seed: &str, part: usize) -> String {
    (0..32)
        .map(|n| EventId::of_uuid(&format!("{seed}{part}.{n}")).to_string() + &id(&format!("{n}.{part}{seed}")))
        .collect()
}

#[tokio::test]
async fn a_world_without_letters_says_so_in_words_and_in_json() {
    let world = World::file(history(10)).await;
    world.once().await.exits(0);
    world.cli(&["dead-letters", "list"]).await.exits(0).says(&["no dead letters"]);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.cli(&["dead-letters", "show", "abcd"]).await.exits(64).says(&["no dead letter abcd", "dead-letters list"]);
    world.cli(&["dead-letters", "list", "--account", "acme"]).await.exits(64).says(&["no account acme", "default"]);
}

#[tokio::test]
async fn the_list_says_which_why_when_and_until_when_and_nothing_of_the_event() {
    let world = World::with_letters(Kind::File, 2).await;
    let letters = world.letters().await;
    let mut ids: Vec<&str> = letters.iter().filter_map(|letter| letter["id"].as_str()).collect();
    ids.sort();
    let mut expected = [id(UUIDS[0]), id(UUIDS[1])];
    expected.sort();
    assert_eq!(ids, expected);
    for letter in &letters {
        assert_eq!((&letter["feed"], &letter["ok"]), (&json!("default/auditevents"), &json!(true)));
        let why = letter["why"].as_str().unwrap();
        assert!(why.starts_with("the destination refuses the row: ") && why.contains("413"), "{why}");
        assert!(why.contains("ContentLengthLimitExceeded") && !why.contains(MARK), "{why}");
        assert!(letter["event_bytes"].as_u64() > Some(8_000) && UUIDS.contains(&letter["uuid"].as_str().unwrap()));
        let (age, left) = (letter["age_s"].as_u64().unwrap(), letter["expires_in_s"].as_u64().unwrap());
        assert!(age < 300 && left > 29 * 86_400 && left <= 30 * 86_400, "{letter}");
    }
    let shown = world.cli(&["dead-letters", "list"]).await.exits(0);
    let shown =
        shown.says(&["FEED", "default/auditevents", &id(UUIDS[0])[..12], "29 d", "refuses the row", "2 dead letters"]);
    assert!(!shown.stdout.contains(MARK) && !shown.stderr.contains(MARK), "{shown:?}");
    world.cli(&["dead-letters", "list", "--stream", "itemusages"]).await.exits(0).says(&["no dead letters"]);
}

#[tokio::test]
async fn the_status_counts_the_letters_that_wait_also_when_another_process_takes_them_away() {
    let mut world = World::with_letters(Kind::File, 2).await;
    world.set("OPSHIP_SCHEDULE__EVERY", "5s");
    let agent = world.run();
    let browser = agent.browser().await;
    world.set("OPSHIP_ADMIN__LISTEN", browser.0);
    let waiting = |count: u64| {
        move |answer: &Answer| {
            let status: Status = serde_json::from_str(&answer.body).unwrap();
            status.feeds.iter().map(|feed| feed.dead_letters).sum::<u64>() == count
        }
    };
    browser.wait_for("/status.json", &[], SOON, waiting(2)).await;
    world.cli(&["dead-letters", "purge", &id(UUIDS[0]), "--yes"]).await.exits(0);
    browser.wait_for("/status.json", &[], SOON, waiting(1)).await;
    world.large_event(UUIDS[2], 8_000);
    browser.wait_for("/status.json", &[], SOON, waiting(2)).await;
    world.cli(&["dead-letters", "purge", "--all", "--yes"]).await.exits(0);
    browser.wait_for("/status.json", &[], SOON, waiting(0)).await;
    agent.stop().await.exits(0);
    let told: Status =
        serde_json::from_str(&world.cli(&["status", "--from-store", "--output", "json"]).await.stdout).unwrap();
    assert_eq!(told.feeds.iter().map(|feed| feed.dead_letters).sum::<u64>(), 0);
}

#[tokio::test]
async fn one_letter_is_shown_by_id_by_its_beginning_and_by_the_uuid_of_its_row() {
    let world = World::with_letters(Kind::File, 2).await;
    let whole = id(UUIDS[0]);
    for name in [whole.as_str(), &whole[..12], UUIDS[0]] {
        let shown = world.cli(&["dead-letters", "show", name]).await.exits(0).says(&[&whole, MARK, UUIDS[0]]);
        assert!(!shown.stdout.contains(UUIDS[1]) && !shown.stderr.contains(MARK), "the event stands on stdout alone");
    }
    let json = world.cli(&["dead-letters", "show", &whole, "--output", "json"]).await.exits(0).stdout;
    let letter: Value = serde_json::from_str(&json).unwrap();
    let event: Value = serde_json::from_str(letter["event"].as_str().unwrap()).unwrap();
    assert_eq!((&event["uuid"], &event["aux_info"]), (&json!(UUIDS[0]), &json!(MARK)));
    // Both uuids begin alike.
    world.cli(&["dead-letters", "show", &whole[..4]]).await.exits(64).says(&["2 letters", "more characters"]);
    world
        .cli(&["dead-letters", "show", "abc"])
        .await
        .exits(64)
        .says(&["abc is too short", "at least its first 4 characters"]);
}

/// Fault: one letter's document is torn, one is another event's, one is of an unknown stream. Shows: the list names each with its key, and the others stay usable.
#[tokio::test]
async fn an_unreadable_letter_is_listed_with_its_key_and_harms_no_other() {
    let world = World::with_letters(Kind::File, 1).await;
    let store = world.store().await;
    let good = Key::new(format!("dead-letters/{}/{}.json", feed(Stream::AuditEvents), id(UUIDS[0])));
    let bytes = store.get(&good).await.unwrap().unwrap().bytes;
    let misplaced = Key::new(format!("dead-letters/default/itemusages/{}.json", id(UUIDS[1])));
    let torn = Key::new("dead-letters/default/auditevents/00ff.json");
    let strange = Key::new("dead-letters/default/unknown/aa.json");
    for (key, bytes) in [(&torn, bytes.slice(..bytes.len() / 2)), (&misplaced, bytes.clone()), (&strange, bytes)] {
        store.put(key, bytes, Expect::Absent).await.unwrap();
    }
    let letters = world.letters().await;
    let of = |key: &Key| letters.iter().find(|letter| letter["key"] == key.as_str()).unwrap();
    assert_eq!(letters.len(), 4);
    assert_eq!(of(&good)["ok"], true);
    for (key, why) in [(&torn, "no dead letter"), (&misplaced, "another event"), (&strange, "another event")] {
        assert_eq!(of(key)["ok"], false);
        assert!(of(key)["error"].as_str().unwrap().contains(why), "{}", of(key));
    }
    world.cli(&["dead-letters", "list"]).await.exits(0).says(&["unreadable", torn.as_str(), misplaced.as_str()]);
    world.cli(&["dead-letters", "show", "00ff"]).await.exits(1).says(&[torn.as_str(), "purge"]);
    world.cli(&["dead-letters", "purge", "00ff", "--yes"]).await.exits(0).says(&["1 dead letter deleted"]);
    assert_eq!(world.letters().await.len(), 3);
}

#[tokio::test]
async fn letters_are_purged_by_id_by_age_or_all_and_only_when_that_was_confirmed() {
    let world = World::with_letters(Kind::File, 3).await;
    let left = async || world.letters().await.len();
    for args in [&["--all"][..], &[UUIDS[0]], &["--older-than", "0s"]] {
        let args = [&["dead-letters", "purge"], args].concat();
        world.cli(&args).await.exits(64).says(&["--yes"]);
    }
    world.cli(&["dead-letters", "purge", "--yes"]).await.exits(64);
    assert_eq!(left().await, 3);
    world
        .cli(&["dead-letters", "purge", "--older-than", "1h", "--yes"])
        .await
        .exits(0)
        .says(&["0 dead letters deleted"]);
    world.cli(&["dead-letters", "purge", UUIDS[0], "--yes"]).await.exits(0).says(&["1 dead letter deleted"]);
    assert_eq!(left().await, 2);
    let others = ["dead-letters", "purge", "--all", "--stream", "itemusages", "--yes"];
    world.cli(&others).await.exits(0).says(&["0 dead letters deleted"]);
    world.cli(&["dead-letters", "purge", "--all", "--yes"]).await.exits(0).says(&["2 dead letters deleted"]);
    assert_eq!(left().await, 0);
}
