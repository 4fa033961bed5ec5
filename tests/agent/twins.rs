//! Two entries of the configuration that are one 1Password account: one ships, the other is refused, whatever became of the store.

use crate::dice::Dice;
use crate::faults::Kind;
use crate::log::Log;
use crate::source::{BOTH, Order};
use crate::store::{Blob, Fault, Op};
use crate::world::{CHECKPOINT, MINUTE, Process, World};
use opship::agent::{Trouble, Waiting};
use opship::flow::checkpoint::{Checkpoint, Decoded, Fingerprints};
use opship::flow::{AccountName, FeedId, Stream};
use opship::store::owners::{Rival, Twin};
use std::time::Duration;

const OWNERS: &str = "owners/";

impl World {
    /// The documents that say who ships what, by key.
    pub(crate) fn owners(&self) -> Vec<(String, Blob)> {
        let state = self.state();
        let blobs = state.store.blobs.iter().filter(|(name, _)| name.starts_with(OWNERS));
        blobs.map(|(name, blob)| (name.clone(), blob.clone())).collect()
    }

    /// As a store of a version that wrote no such documents.
    pub(crate) fn forget_owners(&self) {
        self.state().store.blobs.retain(|name, _| !name.starts_with(OWNERS));
    }

    fn configure(&mut self, entries: &[&str]) {
        self.configured = entries.iter().map(|entry| feed(entry, self.stream)).collect();
    }

    /// Nothing stands under the name of this entry but what it shows of its health.
    pub(crate) fn assert_nothing_of(&self, entry: &str) {
        let state = self.state();
        let of_it = |name: &&String| name.split('/').nth(1) == Some(entry);
        assert_eq!(state.store.blobs.keys().find(of_it), None, "a refused entry left something");
    }

    /// Another checkpoint under this name, as a program without owners would have left it.
    fn checkpoint_of(&self, entry: &str, shipped: u64, change: impl FnOnce(&mut Checkpoint)) {
        let mut cp = self.checkpoint();
        (cp.account, cp.totals.shipped, cp.totals.read) = (name(entry), shipped, shipped);
        change(&mut cp);
        let key = format!("checkpoints/{entry}/{}.json", self.stream);
        let bytes = cp.encode().expect("JSON");
        self.state().store.set(&key, bytes);
    }
}

fn name(text: &str) -> AccountName {
    AccountName::parse(text).expect("a legal name")
}

pub(crate) fn feed(entry: &str, stream: Stream) -> FeedId {
    FeedId { account: name(entry), stream }
}

impl Process {
    /// A tick that must be refused because of another entry.
    pub(crate) async fn refused(&mut self) -> Twin {
        match self.bad().await {
            Trouble::Twin(twin) => *twin,
            other => panic!("{other}"),
        }
    }
}

/// Fault: two entries with tokens of one account, in both cursor orders. Shows: the second is refused with both names and the remedy, reads no page, posts nothing, writes nothing; each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_51_a_second_entry_of_one_account_is_refused_with_both_names() {
    for order in BOTH {
        let mut world = World::new(order);
        world.configure(&["default", "second"]);
        world.add(6);
        let (mut first, mut second) = (world.start(), world.start_as("second"));
        first.good().await;
        for _ in 0..3 {
            let (asked, effects) = (world.requests().len(), world.state().effects());
            let trouble = second.bad().await;
            let said = trouble.to_string();
            assert!(
                ["accounts.default", "accounts.second", "itemusages", "remove one"]
                    .iter()
                    .all(|word| said.contains(word)),
                "{said}"
            );
            assert_eq!((trouble.waiting(), trouble.pause()), (Waiting::Person, Duration::from_secs(300)));
            assert_eq!((world.requests().len(), world.state().effects()), (asked, effects));
            world.add(3);
            first.good().await;
        }
        world.assert_nothing_of("second");
        world.each_event_has_one_row();
        world.is_sound();
    }
}

/// Fault: two entries of one account start at the same moment on an empty store. Shows: exactly one ships, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_51_of_two_that_start_together_exactly_one_ships() {
    let mut winners = std::collections::BTreeSet::new();
    for seed in 0..30 {
        let mut world = World::seeded(Order::Insertion, seed);
        world.state().latency_ms_max = 20;
        world.add(6);
        let (mut one, mut other) = (world.start_as("one"), world.start_as("other"));
        let (of_one, of_other) = tokio::join!(one.tick(), other.tick());
        let ends = [of_one, of_other].map(|end| end.expect("no crash"));
        assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1, "seed {seed}: {ends:?}");
        assert!(ends.iter().any(|end| matches!(end, Err(Trouble::Twin(_)))), "seed {seed}: {ends:?}");
        winners.insert(ends[0].is_ok());
        let rows = world.rows();
        assert_eq!(rows, 6, "seed {seed}");
        assert_eq!(world.owners().len(), 2, "of the account and of its token");
    }
    assert_eq!(winners.len(), 2, "the race goes both ways");
}

/// Fault: a second entry for another stream, a second destination, another account. Shows: all are legal, each has an owner of its own.
#[tokio::test(start_paused = true)]
async fn fm_51_other_streams_destinations_and_accounts_are_nobodys_twins() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.start().good().await;
    world.stream = Stream::AuditEvents;
    world.start_as("second").good().await;
    world.stream = Stream::ItemUsages;
    world.state().sink.place = "dcr-other/Custom-OnePasswordEventLogs_CL".into();
    world.start_as("third").good().await;
    world.state().source.account_uuid = Some("ANOTHER".into());
    world.state().source.token = "the token of another";
    world.start_as("fourth").good().await;
    assert_eq!(world.owners().len(), 8, "of each, and of its token");
    assert_eq!(world.rows(), 12);
}

/// Fault: an account that neither the API nor the token names, in two entries with the same token. Shows: it is one account, the second is refused; a WARN tells once that nothing names it.
#[tokio::test(start_paused = true)]
async fn fm_51_the_same_token_is_one_account_without_being_named() {
    let mut world = World::new(Order::Insertion);
    world.state().source.account_uuid = None;
    world.add(3);
    let log = Log::listen();
    let mut first = world.start();
    first.good().await;
    first.good().await;
    assert_eq!(log.said("which account this is").len(), 1);
    world.start_as("second").refused().await;
    world.each_event_has_one_row();
    // Named by now: the checkpoint learns it, and the twin is one by its uuid.
    world.state().source.account_uuid = Some("ACCOUNT".into());
    world.add(3);
    world.start().good().await;
    world.start_as("second").refused().await;
    // Named no more: what was known once stays.
    world.state().source.account_uuid = None;
    world.start().good().await;
    assert_eq!(world.owners().len(), 2);
    world.each_event_has_one_row();
}

/// Fault: a store of an earlier version, in which two entries have shipped. Shows: what has shipped most owns, by name where nothing was shipped; who has been silent for a day stops nobody.
#[tokio::test(start_paused = true)]
async fn fm_51_in_an_older_store_the_checkpoints_decide() {
    for (shipped, silent, owner) in [(5, false, "default"), (7, false, "aaa"), (6, false, "aaa"), (7, true, "default")]
    {
        let mut world = World::new(Order::Insertion);
        world.add(6);
        world.start().good().await;
        world.forget_owners();
        world.checkpoint_of("aaa", shipped, |_| {});
        if silent {
            tokio::time::sleep(Duration::from_secs(86_401)).await;
            let bytes = world.stored_bytes().expect("a checkpoint");
            world.state().store.set(CHECKPOINT, bytes);
        }
        let entries = ["default", "aaa"];
        for entry in entries {
            let end = world.start_as(entry).tick().await.expect("no crash");
            assert_eq!(end.is_ok(), entry == owner, "{shipped} {silent} {entry}: {end:?}");
        }
    }
    // Nothing shipped yet by either: the first by name.
    let mut world = World::new(Order::Insertion);
    world.start().good().await;
    world.forget_owners();
    world.checkpoint_of("aaa", 0, |_| {});
    world.start().refused().await;
    world.start_as("aaa").good().await;
}

/// Fault: checkpoints of other accounts, streams and destinations, damaged ones and strange files beside it. Shows: none of them speaks for this account.
#[tokio::test(start_paused = true)]
async fn fm_51_checkpoints_of_others_decide_nothing() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.start().good().await;
    world.forget_owners();
    let theirs = |source: &str, account: Option<&str>, sink: &str| Fingerprints::new(source, account, sink);
    let ours = world.checkpoint().fingerprints.clone();
    world.checkpoint_of("aaa", 100, |cp| cp.fingerprints = theirs("s", Some("ANOTHER"), "d"));
    world.checkpoint_of("aab", 100, |cp| cp.fingerprints.sink = "0000000000000000".into());
    world.checkpoint_of("aac", 100, |cp| cp.fingerprints.account = None);
    world.checkpoint_of("aad", 100, |cp| cp.account = name("aae"));
    for key in ["checkpoints/aaf/itemusages.json", "checkpoints/aag/strange.json", "checkpoints/stray.json"] {
        world.state().store.set(key, b"{".to_vec());
    }
    assert!(ours.account.is_some());
    world.start().good().await;
    world.start_as("second").refused().await;
}

/// Fault: the owner's document is torn, deleted, of another key or brought back; at the same time the checkpoint is gone or damaged. Shows: it is decided by the checkpoints or their copies and written again, loudly where it was unreadable; the twin never ships.
#[tokio::test(start_paused = true)]
async fn fm_51_a_lost_or_damaged_document_lets_no_twin_in() {
    for damage in [None, Some("{\"torn"), Some("")] {
        for checkpoint_is in ["good", "gone", "torn"] {
            for first in ["default", "second"] {
                let mut world = World::new(Order::Insertion);
                world.add(6);
                world.start().good().await;
                let (key, good) = world.owners().remove(0);
                world.forget_owners();
                if let Some(damage) = damage {
                    world.state().store.set(&key, damage.into());
                }
                match checkpoint_is {
                    "gone" => _ = world.state().store.blobs.remove(CHECKPOINT),
                    "torn" => world.state().store.set(CHECKPOINT, b"{".to_vec()),
                    _ => {}
                }
                let log = Log::listen();
                for entry in [first, "default", "second"] {
                    let end = world.start_as(entry).tick().await.expect("no crash");
                    assert_eq!(end.is_ok(), entry == "default", "{damage:?} {checkpoint_is} {entry}: {end:?}");
                }
                let told = log.said("which entry ships this is unreadable");
                assert_eq!(told.len(), usize::from(damage.is_some()), "{damage:?}");
                assert!(told.iter().all(|line| line["level"] == "ERROR"));
                assert_eq!(world.owners().len(), 2);
                assert_eq!(world.owners()[0].1.bytes.len(), good.bytes.len());
                world.assert_nothing_of("second");
                world.each_event_has_one_row();
            }
        }
    }
}

/// Fault: a newer program wrote the owner's document. Shows: it is refused by name, nothing is read, posted or overwritten.
#[tokio::test(start_paused = true)]
async fn fm_51_a_document_for_newer_readers_is_left_alone() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.start().good().await;
    let (key, good) = world.owners().remove(0);
    let newer = crate::storage::for_newer_readers("opship-owner", &good.bytes);
    world.state().store.set(&key, newer.clone());
    for entry in ["default", "second"] {
        let (asked, effects) = (world.requests().len(), world.state().effects());
        let trouble = world.start_as(entry).bad().await;
        assert!(
            trouble.to_string().contains("upgrade this program") && trouble.to_string().contains(&key),
            "{trouble}"
        );
        assert_eq!((world.requests().len(), world.state().effects()), (asked, effects));
    }
    assert_eq!(world.owners()[0].1.bytes, newer);
}

/// Fault: the store fails or loses the reply at any step of the first ticks of two twins. Shows: whoever began ships alone, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_51_a_store_that_fails_at_any_step_lets_one_of_them_ship() {
    for n in 1..30 {
        for fault in [Fault::Fail, Fault::LoseReply] {
            let mut world = World::new(Order::Insertion);
            world.add(6);
            let mut calls = 0;
            world.on_store(move |_: Op, _| {
                calls += 1;
                (calls == n).then_some(fault)
            });
            let (mut first, mut second) = (world.start(), world.start_as("second"));
            _ = first.tick().await;
            _ = second.tick().await;
            world.heal();
            let ends = [first.tick().await, second.tick().await].map(|end| end.expect("no crash"));
            assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1, "{n} {fault:?}: {ends:?}");
            assert_eq!(world.rows(), 6, "{n} {fault:?}");
        }
    }
}

/// Fault: an entry was renamed in the configuration, the position was not. Shows: it is refused with the command that moves it, nothing is shipped again.
#[tokio::test(start_paused = true)]
async fn fm_51_a_renamed_entry_is_refused_with_the_command_that_moves_its_position() {
    let mut world = World::new(Order::Insertion);
    world.configure(&["renamed"]);
    world.add(3);
    world.start().good().await;
    let twin = world.start_as("renamed").refused().await;
    assert_eq!(twin.rival, Rival::Elsewhere);
    assert!(twin.remedy().contains("opship checkpoint rename default renamed"), "{}", twin.remedy());
    world.configured.insert(feed("default", Stream::AuditEvents));
    let twin = world.start_as("renamed").refused().await;
    assert!(twin.remedy().contains("rename default renamed --stream itemusages"), "{}", twin.remedy());
    world.each_event_has_one_row();
}

#[tokio::test(start_paused = true)]
async fn an_idle_tick_asks_for_no_owner_and_a_foreign_write_does() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    world.on_store(move |_, key| {
        count.fetch_add(usize::from(key.starts_with(OWNERS)), std::sync::atomic::Ordering::Relaxed);
        None
    });
    let looks = || asked.swap(0, std::sync::atomic::Ordering::Relaxed);
    let (mut one, mut replica) = (world.start(), world.start());
    one.good().await;
    assert_eq!(looks(), 5, "looked for and written, of the account and of its token");
    for _ in 0..5 {
        tokio::time::sleep(MINUTE).await;
        one.good().await;
    }
    assert_eq!(looks(), 0);
    replica.good().await;
    assert_eq!(looks(), 2);
    world.add(1);
    one.good().await;
    replica.good().await;
    replica.good().await;
    assert_eq!(looks(), 2, "the replica saw a foreign write, once");
}

/// What the document holds: the entry, the stream, fingerprints and a time.
#[tokio::test(start_paused = true)]
async fn the_document_names_no_uuid_and_no_token() {
    let mut world = World::new(Order::Insertion);
    world.start().good().await;
    let (key, blob) = world.owners().remove(0);
    let text = String::from_utf8(blob.bytes).expect("text");
    assert!(text.contains(r#""entry":"default""#) && text.contains(r#""stream":"itemusages""#), "{text}");
    assert!(!text.contains("ACCOUNT") && !key.contains("ACCOUNT"), "{key}: {text}");
    assert!(matches!(Checkpoint::decode(text.as_bytes()), Decoded::Corrupt(_)), "it is no checkpoint");
}

/// A second entry of the same account in a seeded run: it tries its luck now and then, and must never have any.
pub(crate) struct Intruder {
    dice: Dice,
    process: Option<Process>,
}

impl Intruder {
    /// One seed in eight has one. Dice of its own: the other runs stay as they were.
    pub(crate) fn of(seed: u64) -> Option<Self> {
        let mut dice = Dice::new(seed ^ 0x2e);
        dice.one_in(8).then_some(Self { dice, process: None })
    }

    /// Once the first entry has begun: before that it may lawfully be the second that ships.
    pub(crate) async fn try_its_luck(&mut self, world: &mut World) {
        let has_position =
            world.stored_bytes().is_some_and(|bytes| matches!(Checkpoint::decode(&bytes), Decoded::Good(_)));
        let is_known = world.owners().iter().any(|(_, blob)| blob.bytes.ends_with(b"}"));
        if !self.dice.one_in(3) || !(has_position || is_known) {
            return;
        }
        if has_position && self.dice.one_in(3) {
            self.lose_the_document(world);
        }
        let lives = self.process.take().filter(|process| process.feed.is_some() && !self.dice.one_in(4));
        let mut process = lives.unwrap_or_else(|| world.start_as("second"));
        if self.dice.one_in(4) {
            process.link.die_at_wait(1 + self.dice.below(16));
        }
        let begun = world.state().sink.begun;
        let end = process.tick().await;
        assert!(!matches!(end, Some(Ok(_))), "A: a second entry of the account shipped");
        assert_eq!(world.state().sink.begun, begun, "A: a second entry of the account posted");
        world.assert_nothing_of("second");
        world.state().struck.by(Kind::TwinEntry);
        self.process = Some(process);
    }

    fn lose_the_document(&mut self, world: &World) {
        let lost = world.owners();
        world.forget_owners();
        if self.dice.one_in(2) {
            lost.iter().for_each(|(key, _)| world.state().store.set(key, b"{\"format\":".to_vec()));
        }
    }
}
