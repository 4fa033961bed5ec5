//! What a command ships beside the live feed: ranges read again, events picked by id. Nothing of the position moves.

use crate::oracle::ledger;
use crate::source::{BOTH, Order};
use crate::world::{HOUR, MINUTE, Process, World};
use opship::agent::reading::range::{Range, RangePage};
use opship::agent::{Drained, Tick, Trouble};
use opship::config::Lookback;
use opship::flow::Time;
use opship::flow::checkpoint::Checkpoint;
use opship::flow::intent::BatchKind;
use opship::flow::retry::Patience;
use opship::source::{Lane, PageRequest};

pub(crate) const DAY: i64 = 86_400_000;
pub(crate) const TICK: Tick<'static> =
    Tick { patience: Patience::RUN, standby_max: std::time::Duration::ZERO, late_gives_way: &|| false };

/// A feed that began an hour ago, with `old` events before its floor.
async fn with_old_events(order: Order, old: i64) -> World {
    let mut world = World::new(order);
    world.settings.lookback = Lookback::Back(HOUR);
    (0..old).for_each(|n| _ = world.add_at(-3 * DAY - n * 60_000, -DAY, ""));
    world.add(3);
    world.start().good().await;
    tokio::time::sleep(MINUTE).await;
    world
}

/// Ten days, a little less than up to now.
fn ten_days(world: &World) -> Range {
    let now: Time = world.state().now();
    Range::new(now - chrono::TimeDelta::days(10), now, None)
}

async fn pages(process: &mut Process, mut range: Range) -> Vec<RangePage> {
    let feed = process.feed.as_mut().expect("alive");
    let mut pages = Vec::new();
    while !range.is_done {
        pages.push(feed.read_range(&mut range, Lane::Backfill, TICK).await.expect("a page"));
    }
    pages
}

/// Everything but what is counted and who wrote.
pub(crate) fn position(cp: &Checkpoint) -> String {
    let mut json = serde_json::to_value(cp).expect("json");
    for counted in ["seq", "write_id", "written_at", "totals", "in_doubt", "ledger"] {
        json.as_object_mut().expect("an object").remove(counted);
    }
    json.to_string()
}

async fn ship_unknown(process: &mut Process, pages: &[RangePage]) -> Drained {
    let mut all = Drained::default();
    for page in pages {
        let feed = process.feed.as_mut().expect("alive");
        feed.open(TICK).await.expect("open");
        let shipped = feed.ship_page(&page.body, TICK).await.expect("shipped");
        all.shipped += shipped.shipped;
        all.known += shipped.known;
        all.read += shipped.read;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_range_before_the_floor_is_shipped_once_and_moves_nothing() {
    for order in BOTH {
        let mut world = with_old_events(order, 25).await;
        let before = position(&world.checkpoint());
        let mut process = world.start();
        let read = pages(&mut process, ten_days(&world)).await;
        assert_eq!((read.len(), read.iter().map(|page| page.events.len()).sum::<usize>()), (3, 28));
        let lanes: Vec<_> = world.state().source.requests.iter().rev().take(3).map(|(_, lane)| *lane).collect();
        assert_eq!(lanes, [Lane::Backfill; 3]);
        let shipped = ship_unknown(&mut process, &read).await;
        assert_eq!((shipped.read, shipped.shipped, shipped.known), (28, 25, 3));
        assert_eq!(position(&world.checkpoint()), before, "no cursor, watermark or mark moved");
        let again = ship_unknown(&mut process, &read).await;
        assert_eq!((again.shipped, again.known), (0, 28));
        world.each_event_has_one_row();
        world.is_sound();
        assert!(ledger(&world).values().all(|attempt| *attempt == 1));
        assert_eq!(world.checkpoint().slot.in_doubt().batches, 0);
        world.start().good().await;
        world.each_event_has_one_row();
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_without_a_position_is_left_alone() {
    let mut world = World::new(Order::Insertion);
    world.add(3);
    let mut process = world.start();
    let refused = process.feed.as_mut().expect("alive").open(TICK).await.expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "default/itemusages has no position yet: start `opship run` or `opship once` first, then repeat this command"
    );
    assert!(world.state().store.blobs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_range_survives_a_rejected_cursor_a_page_over_the_body_cap_and_answers_that_are_no_page() {
    let mut world = with_old_events(Order::Insertion, 25).await;
    let mut process = world.start();
    let mut range = ten_days(&world);
    let feed = process.feed.as_mut().expect("alive");
    feed.read_range(&mut range, Lane::Backfill, TICK).await.expect("a page");
    world.state().source.reject_cursors();
    world.state().source.limit_max = 300;
    let mut malformed = 2;
    world.on_page(move |_| {
        malformed -= i32::from(malformed > 0);
        (malformed > 0).then(|| crate::source::Reply::Body("{}".into()))
    });
    let rest = pages(&mut process, range).await;
    assert_eq!(rest.iter().map(|page| page.events.len()).sum::<usize>(), 28, "from the start again");
    let windows = world.requests().into_iter().filter_map(|request| match request {
        PageRequest::Window { limit, .. } => Some(limit),
        _ => None,
    });
    assert_eq!(windows.collect::<Vec<_>>().split_off(1)[1..], [1000, 500, 250]);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_leads_nowhere_is_told_and_not_followed_for_ever() {
    let mut world = with_old_events(Order::Insertion, 25).await;
    let mut process = world.start();
    let mut range = ten_days(&world);
    let feed = process.feed.as_mut().expect("alive");
    feed.read_range(&mut range, Lane::Backfill, TICK).await.expect("a page");
    world.on_page(|_| Some(crate::source::Reply::SameCursor));
    let stuck = feed.read_range(&mut range, Lane::Backfill, TICK).await.expect_err("stuck");
    assert!(matches!(stuck, Trouble::Stuck(_)), "{stuck}");
    let mut n = 0;
    world.on_page(move |_| {
        n += 1;
        Some(crate::source::Reply::Body(format!(r#"{{"cursor":"empty-{n}","has_more":true,"items":[]}}"#)))
    });
    let asked = world.requests().len();
    let stuck = loop {
        match feed.read_range(&mut range, Lane::Backfill, TICK).await {
            Ok(_) => {}
            Err(trouble) => break trouble,
        }
    };
    assert!(matches!(stuck, Trouble::Stuck(_)), "{stuck}");
    assert_eq!(world.requests().len() - asked, 100);
}

/// Fault: kill -9 at every wait of pages before the floor. Shows: the live feed recovers what was open there; nothing is lost or called gone.
#[tokio::test(start_paused = true)]
async fn fm_39_a_crash_at_any_wait_of_a_backfilled_page_is_recovered_by_the_live_feed() {
    for order in BOTH {
        let mut recovered = 0;
        for k in 1.. {
            let mut world = with_old_events(order, 9).await;
            let mut process = world.start();
            let read = pages(&mut process, ten_days(&world)).await;
            let Some(died) = process.dies_at(k, read).await else { break };
            world.crashes += u64::from(died);
            let open = world.open_intent();
            assert!(open.as_ref().is_none_or(|intent| intent.kind() == BatchKind::Backfill));
            let owed = open.as_ref().map_or(0, |intent| intent.keys().len());
            recovered += usize::from(owed > 0);
            tokio::time::sleep(crate::store::TTL).await;
            world.start().good().await;
            assert!(world.open_intent().is_none() && world.checkpoint().slot.in_doubt().gone == 0);
            world.is_sound();
            let mut last = world.start();
            let read = pages(&mut last, ten_days(&world)).await;
            ship_unknown(&mut last, &read).await;
            let all = world.uuids();
            assert!(all.iter().all(|uuid| world.rows_of(uuid) > 0), "nothing is lost");
            world.is_sound();
        }
        assert!(recovered >= 8, "{recovered} crashes with an open intent");
    }
}

impl Process {
    /// Ships the pages and dies at its `k`-th wait. `None`: it ended before.
    async fn dies_at(&mut self, k: u64, pages: Vec<RangePage>) -> Option<bool> {
        self.link.die_at_wait(k);
        let link = self.link.clone();
        let shipping = link.dying_at_a_wait(ship_unknown(self, &pages));
        tokio::select! {
            biased;
            () = link.dead.cancelled() => Some(true),
            _ = shipping => None,
        }
    }
}
