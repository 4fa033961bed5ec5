//! Two entries of the configuration that are one 1Password account, told by their tokens: where an introduction names nobody, and when tokens
//! move from entry to entry.

use crate::link::Link;
use crate::source::Order;
use crate::twins::feed;
use crate::world::World;
use opship::flow::identity::{Identity, TokenHash};
use opship::store::owners::{Claim, Owners};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Fault: two entries with one token; the introduction of the first, or of the second, names no account. Shows: who began ships, the other is refused, also when the first is named later or no more.
#[tokio::test(start_paused = true)]
async fn fm_51_an_entry_whose_introduction_failed_is_told_by_its_token() {
    for names in [[None, Some("ACCOUNT")], [Some("ACCOUNT"), None]] {
        let mut world = World::new(Order::Insertion);
        let say = |world: &World, name: Option<&str>| world.state().source.account_uuid = name.map(Into::into);
        world.add(3);
        say(&world, names[0]);
        world.start().good().await;
        for name in [names[1], names[0], names[1]] {
            say(&world, name);
            world.start_as("second").refused().await;
            world.add(2);
            world.start().good().await;
        }
        world.assert_nothing_of("second");
        world.each_event_has_one_row();
    }
}

/// Fault: an entry gets a token of another account, which is accepted with `checkpoint adopt`; later another entry takes the first account. Shows: it ships; what the first entry ships is its own still.
#[tokio::test(start_paused = true)]
async fn fm_51_an_entry_that_is_another_account_now_stands_in_nobodys_way() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    world.start().good().await;
    let be = |world: &World, account: &str, token: &'static str| {
        let mut state = world.state();
        (state.source.account_uuid, state.source.token) = (Some(account.into()), token);
    };
    let first = world.state().source.account_uuid.clone().expect("named");
    be(&world, "ANOTHER", "the token of another");
    let mut process = world.start();
    process.bad().await;
    process.feed.as_mut().expect("alive").adopt_here().await.expect("adopted");
    process.good().await;
    be(&world, &first, "the token of this account");
    world.start_as("second").good().await;
    be(&world, "ANOTHER", "the token of another");
    world.start().good().await;
    world.start_as("third").refused().await;
}

/// Fault: two entries of one account with two tokens start together; the refused one is removed, and its token goes into the other. Shows: the owner of the account ships with it.
#[tokio::test(start_paused = true)]
async fn fm_51_a_token_that_a_refused_entry_had_serves_the_owner() {
    for seed in 0..20 {
        let world = World::seeded(Order::Insertion, seed);
        world.state().latency_ms_max = 20;
        let owners = Owners::new(Arc::new(Link::new(world.state.clone())), BTreeSet::new());
        let claim = |entry: &str, token: &str, named: bool| {
            let (feed, token) = (feed(entry, world.stream), TokenHash::of(token));
            let account = if named { Identity::Named("A".into()) } else { Identity::Unnamed(token.clone()) };
            Claim { feed, account, token: Some(token), sink: "d".into() }
        };
        let now = world.state().now();
        let (one, other) = (claim("one", "1", true), claim("other", "2", true));
        let ends = tokio::join!(owners.claim(&one, now), owners.claim(&other, now));
        let ends = [ends.0, ends.1].map(|end| end.expect("no fault"));
        assert_eq!(ends.iter().filter(|twin| twin.is_none()).count(), 1, "seed {seed}: {ends:?}");
        let (owner, token) = if ends[0].is_none() { ("one", "2") } else { ("other", "1") };
        for named in [true, false] {
            assert_eq!(owners.claim(&claim(owner, token, named), now).await.expect("no fault"), None, "seed {seed}");
        }
        // Of two that begin together, one named and one not, one ships.
        let (nameless, named) = (claim("x", "3", false), claim("y", "3", true));
        let named = Claim { account: Identity::Named("B".into()), ..named };
        let ends = tokio::join!(owners.claim(&nameless, now), owners.claim(&named, now));
        let ends = [ends.0, ends.1].map(|end| end.expect("no fault"));
        assert_eq!(ends.iter().filter(|twin| twin.is_none()).count(), 1, "seed {seed}: {ends:?}");
    }
}
