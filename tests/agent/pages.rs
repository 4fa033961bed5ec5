//! Answers that look like pages and are none: they move nothing, and what they hide is asked for again.

use crate::log::Log;
use crate::source::{BOTH, Envelope, Order, Reply};
use crate::world::{HOUR, MINUTE, World};
use opship::agent::Trouble;
use opship::flow::checkpoint::Which;
use opship::source::PageRequest;

/// The `nth` such request is answered in this envelope, or each from it on.
fn answered_in(world: &World, envelope: Envelope, nth: u32, for_ever: bool) {
    let mut asked = 0;
    world.on_page(move |_| {
        asked += 1;
        (asked == nth || for_ever && asked > nth).then_some(Reply::Envelope(envelope))
    });
}

/// Fault: a page without items, with items under another name, twice, or without its other keys, at each request of a tick. Shows: asked for again at once, nothing is lost; for ever: the tick is trouble, and no position is ahead of the table.
#[tokio::test(start_paused = true)]
async fn fm_50_what_looks_like_a_page_and_is_none_moves_nothing() {
    for order in BOTH {
        for (envelope, nth) in Envelope::ALL.into_iter().flat_map(|envelope| (1..6).map(move |nth| (envelope, nth))) {
            for for_ever in [false, true] {
                let mut world = World::new(order);
                world.state().is_watched = true;
                world.state().source.page_max = 3;
                world.add(8);
                answered_in(&world, envelope, nth, for_ever);
                let mut process = world.start();
                let outcome = process.tick().await.expect("alive");
                match (for_ever, outcome) {
                    (false, outcome) => _ = outcome.unwrap_or_else(|trouble| panic!("{envelope:?} {nth}: {trouble}")),
                    (true, Err(Trouble::Malformed(_))) => {}
                    (true, other) => panic!("{envelope:?} {nth}: {other:?}"),
                }
                world.is_sound();
                world.heal();
                tokio::time::sleep(MINUTE).await;
                process.good().await;
                world.each_event_has_one_row();
            }
        }
    }
}

/// Fault: at its end the cursor is answered without items. Shows: told once, the tick is good and the position stays; the same answer to a window, or with another cursor, is a failed request, and no sweep ends on it.
#[tokio::test(start_paused = true)]
async fn fm_50_a_cursor_may_end_without_items_and_a_sweep_never_does() {
    let (log, mut world) = (Log::listen(), World::new(Order::Insertion));
    world.add(5);
    let mut process = world.start();
    process.good().await;
    let stood = world.checkpoint().cursor.expect("a cursor");
    let bare = |cursor: &str| Some(Reply::Body(format!(r#"{{"cursor":"{cursor}","has_more":false}}"#)));
    for _ in 0..3 {
        world.on_page(move |request| match request {
            PageRequest::Continue(cursor) => bare(cursor.as_str()),
            PageRequest::Reset { .. } | PageRequest::Window { .. } => None,
        });
        tokio::time::sleep(MINUTE).await;
        process.good().await;
        assert_eq!(world.checkpoint().cursor.as_ref(), Some(&stood));
    }
    assert_eq!(log.said("leaves the list of items out").len(), 1);
    world.heal();
    world.add(2);
    process.good().await;
    world.each_event_has_one_row();

    world.on_page(move |request| match request {
        PageRequest::Window { .. } => bare("cursor-9"),
        PageRequest::Continue(_) | PageRequest::Reset { .. } => None,
    });
    let marks = world.checkpoint().sweep_mark;
    tokio::time::sleep(2 * HOUR).await;
    world.add(1);
    assert!(matches!(process.bad().await, Trouble::Malformed(_)));
    let cp = world.checkpoint();
    assert!(cp.sweep_mark == marks && cp.overlap_sweep.is_some(), "the {:?} sweep did not end: {cp:?}", Which::Overlap);
}
