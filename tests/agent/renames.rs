//! A feed under another name: everything it has goes with it, whatever happens on the way.

use crate::link::Link;
use crate::source::{BOTH, Order};
use crate::store::{Fault, TTL};
use crate::world::{CHECKPOINT, World, alive};
use opship::agent::Trouble;
use opship::flow::{AccountName, FeedId};
use opship::store::dead_letters::{DeadLetter, DeadLetters};
use opship::store::rename::{Moved, Rename, RenameError, rename_health};
use std::sync::Arc;

type Outcome = Result<Option<Moved>, RenameError>;

impl World {
    fn named(&self, entry: &str) -> FeedId {
        FeedId { account: AccountName::parse(entry).expect("a legal name"), stream: self.stream }
    }

    /// `None`: the process died in it, at its `k`-th wait.
    async fn rename_dying_at(&self, k: u64) -> Option<Outcome> {
        let link = Link::new(self.state.clone());
        link.die_at_wait(k);
        let (from, to, now) = (self.named("default"), self.named("renamed"), self.state().now());
        let rename = Rename::new(Arc::new(link.clone()), "renamer".into(), &from, &to, now);
        alive(&link, rename.run()).await
    }

    async fn rename(&self) -> Outcome {
        self.rename_dying_at(u64::MAX).await.expect("no crash")
    }

    fn keys(&self) -> Vec<String> {
        self.state().store.blobs.keys().cloned().collect()
    }

    /// A feed that has shipped over some hours, with a letter and what is left of a damaged checkpoint.
    async fn with_a_past(order: Order) -> Self {
        let mut world = Self::new(order);
        let hours = 3_600_000;
        for age in 0..9 {
            world.add_at(-age * hours, 0, "");
        }
        world.start().good().await;
        let letter = br#"{"feed":"default/itemusages","id":"X","hour":"odd","why":"w","at":"2026-11-22T10:00:00Z","event":"{}"}"#;
        world.state().store.set("dead-letters/default/itemusages/X.json", letter.to_vec());
        world.state().store.set("dead-letters/default/itemusages/Y.json", b"no letter".to_vec());
        world.state().store.set("checkpoints/default/itemusages.corrupt-0", b"{".to_vec());
        world
    }

    /// All went to the new name, and both names know it.
    async fn assert_renamed(&mut self) {
        self.add(3);
        self.start_as("renamed").good().await;
        assert!(matches!(self.start().bad().await, Trouble::Twin(_)));
        self.assert_nothing_of("default");
        self.each_event_has_one_row();
        self.is_sound();
        let store = Link::new(self.state.clone());
        let letters = DeadLetters::new(Arc::new(store));
        let entries = letters.entries().await.expect("a store");
        assert_eq!(entries.len(), 2);
        let letter: DeadLetter = letters.read(&entries[0]).await.expect("a letter that stands in its place");
        assert_eq!(letter.feed, "renamed/itemusages");
        assert!(self.keys().contains(&"checkpoints/renamed/itemusages.corrupt-0".to_owned()));
    }
}

/// Fault: an entry gets another name in the configuration. Shows: position, ledger, letters and leftovers go with it by one command, no event is shipped again, the old name is refused.
#[tokio::test(start_paused = true)]
async fn fm_51_a_rename_moves_everything_and_ships_nothing_again() {
    for order in BOTH {
        let mut world = World::with_a_past(order).await;
        let before = world.checkpoint();
        assert!(matches!(world.start_as("renamed").bad().await, Trouble::Twin(_)));
        let moved = world.rename().await.expect("moved").expect("something");
        assert_eq!((moved.shipped, moved.letters), (Some(9), 2));
        assert!(moved.segments >= 9, "{moved:?}");
        let state = world.state().store.blobs["checkpoints/renamed/itemusages.json"].bytes.clone();
        let after = String::from_utf8(state).expect("text");
        assert!(after.contains(&before.cursor.expect("a cursor").as_str().to_owned()));
        world.assert_renamed().await;
        assert_eq!(world.rename().await.expect("nothing to do"), None);
    }
}

/// Fault: the rename is killed at any wait; afterwards either name is started, then the command is given again. Shows: at no time do both ship, the second run finishes it, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_51_a_rename_killed_anywhere_is_finished_by_the_next() {
    let mut deaths = 0;
    for first in ["default", "renamed"] {
        for k in 1.. {
            let mut world = World::with_a_past(Order::EventTime).await;
            let ended = world.rename_dying_at(k).await;
            world.add(2);
            let mut good = Vec::new();
            for entry in [first, "default", "renamed"] {
                match world.start_as(entry).tick().await.expect("no crash") {
                    Ok(_) => good.push(entry),
                    Err(Trouble::Twin(_)) => {}
                    Err(other) => panic!("{k} {entry}: {other}"),
                }
            }
            good.dedup();
            assert!(good.len() <= 1, "{k}: {good:?} ship");
            _ = world.rename().await.unwrap_or_else(|error| panic!("{k}, {good:?} shipped: {error}"));
            world.assert_renamed().await;
            if ended.is_some() {
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths > 100, "{deaths}");
}

/// Fault: any call of the store fails or loses its reply while a feed is renamed. Shows: the same command finishes it, each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_51_a_rename_over_a_failing_store_is_finished_by_the_next() {
    let mut failed = 0;
    for fault in [Fault::Fail, Fault::LoseReply, Fault::Tear] {
        for n in 1..90 {
            let mut world = World::with_a_past(Order::Insertion).await;
            let mut calls = 0;
            world.on_store(move |_, _| {
                calls += 1;
                (calls == n).then_some(fault)
            });
            failed += usize::from(world.rename().await.is_err());
            world.heal();
            world.rename().await.unwrap_or_else(|error| panic!("{n} {fault:?}: {error}"));
            world.assert_renamed().await;
        }
    }
    assert!(failed > 50, "{failed}");
}

/// Fault: the feed is renamed while a process of the old name ships it. Shows: it is refused while an intent is open, else that process posts nothing more; each event has one row.
#[tokio::test(start_paused = true)]
async fn fm_51_a_process_of_the_old_name_ships_no_more_once_the_rename_has_begun() {
    let (mut held, mut moved) = (0, 0);
    for seed in 0..60 {
        let mut world = World::seeded(Order::Insertion, seed);
        world.state().latency_ms_max = 30;
        world.add(9);
        let mut old = world.start();
        old.good().await;
        world.add(9);
        let (_, ended) = tokio::join!(old.tick(), async {
            tokio::time::sleep(std::time::Duration::from_millis(seed * 7)).await;
            world.rename().await
        });
        match ended {
            Ok(_) => moved += 1,
            Err(RenameError::Held { .. }) => held += 1,
            Err(RenameError::Checkpoint(_)) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
        tokio::time::sleep(TTL).await;
        _ = old.tick().await;
        tokio::time::sleep(TTL).await;
        world.rename().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        world.start_as("renamed").good().await;
        assert!(matches!(old.bad().await, Trouble::Twin(_)), "seed {seed}");
        world.each_event_has_one_row();
        world.is_sound();
    }
    assert!(held > 3 && moved > 3, "{held} held, {moved} moved");
}

/// Fault: the process was killed with a batch in the air, then the entry was renamed. Shows: refused until the intent has aged, then the new name settles the batch; nothing is lost, copies are traced.
#[tokio::test(start_paused = true)]
async fn fm_51_a_batch_in_doubt_is_settled_under_the_new_name() {
    let mut open = 0;
    for k in 1..40 {
        let mut world = World::new(Order::Insertion);
        world.add(6);
        world.crash_at(k).await;
        if world.open_intent().is_none() {
            continue;
        }
        open += 1;
        assert!(matches!(world.rename().await, Err(RenameError::Held { .. })), "{k}");
        tokio::time::sleep(TTL).await;
        let moved = world.rename().await.expect("moved").expect("something");
        assert_eq!(moved.shipped, Some(shipped(&world)));
        // The intent is young again: a stalled owner gets its time.
        tokio::time::sleep(TTL).await;
        world.start_as("renamed").good().await;
        world.nothing_is_lost();
        world.is_sound();
    }
    assert!(open > 5, "{open}");
}

fn shipped(world: &World) -> u64 {
    use opship::flow::checkpoint::{Checkpoint, Decoded};
    let bytes = world.state().store.blobs["checkpoints/renamed/itemusages.json"].bytes.clone();
    match Checkpoint::decode(&bytes) {
        Decoded::Good(cp) => cp.totals.shipped,
        other => panic!("{other:?}"),
    }
}

/// Fault: the new name has a checkpoint, a copy of one or a ledger of its own, or another entry owns the stream. Shows: it is refused with the way out, nothing is changed, the old name ships on.
#[tokio::test(start_paused = true)]
async fn fm_51_a_rename_over_another_position_is_refused_and_changes_nothing() {
    let mut world = World::with_a_past(Order::Insertion).await;
    let mine = world.state().store.blobs[CHECKPOINT].bytes.clone();
    for (name, bytes) in [
        ("checkpoints/renamed/itemusages.json", mine.clone()),
        ("checkpoints/renamed/itemusages.json", b"{".to_vec()),
        ("checkpoints/renamed/itemusages.prev.json", mine),
        ("ledger/renamed/itemusages/s/2026112210", vec![1]),
    ] {
        world.state().store.set(name, bytes);
        let (keys, writes) = (world.keys(), world.state().store.writes);
        let error = world.rename().await.expect_err("refused").to_string();
        assert!(error.contains("renamed/itemusages has a position or a ledger of its own"), "{error}");
        assert!(error.contains("give accounts.default the token"), "{error}");
        let now = (world.keys(), world.state().store.writes);
        assert_eq!(now, (keys, writes), "{name}");
        world.state().store.blobs.remove(name);
    }
    // The position of a name that ships no more: somebody else owns the stream.
    let mine = world.state().store.blobs[CHECKPOINT].bytes.clone();
    world.forget_owners();
    world.state().store.blobs.retain(|name, _| !name.starts_with("checkpoints/default/itemusages."));
    world.start_as("another").good().await;
    world.state().store.set(CHECKPOINT, mine);
    let error = world.rename().await.expect_err("refused").to_string();
    assert!(error.contains("accounts.another ships itemusages of this account, not default"), "{error}");
}

/// Fault: a rename to one name was begun, another one is asked for; a name without anything is renamed. Shows: the first has to be finished, nothing is invented.
#[tokio::test(start_paused = true)]
async fn fm_51_a_rename_that_was_begun_is_finished_before_another() {
    let mut world = World::with_a_past(Order::Insertion).await;
    let (from, other, now) = (world.named("default"), world.named("other"), world.state().now());
    let mut k = 1;
    let link = Arc::new(Link::new(world.state.clone()));
    let rename = || Rename::new(link.clone(), "renamer".into(), &from, &other, now);
    loop {
        assert!(world.rename_dying_at(k).await.is_none(), "it was under way at some wait");
        let twin = world.start().tick().await.expect("no crash");
        if let Err(trouble @ Trouble::Twin(_)) = twin {
            assert!(trouble.to_string().contains("on its way to accounts.renamed"), "{trouble}");
            break;
        }
        k += 1;
    }
    let error = rename().run().await.expect_err("refused").to_string();
    assert!(error.contains("opship checkpoint rename default renamed --stream itemusages"), "{error}");
    world.rename().await.expect("moved");
    world.assert_renamed().await;
    assert_eq!(rename().run().await.expect("nothing to do"), None);
    rename_health(&*link, &from.account, &other.account).await.expect("nothing to do");
}
