//! Scenes for the crash points: how the world stands when a fresh process begins the tick in which it is killed. Reading and delivery.

use crate::faults::Kind;
use crate::points::Scene;
use crate::sink::Outcome;
use crate::source::{Reply, status};
use crate::world::{HOUR, MINUTE, World};
use chrono::TimeDelta;
use opship::flow::Stream;
use opship::flow::retry::{Failure, Patience};
use opship::flow::words::Words;
use std::time::Duration;

pub(crate) const H: i64 = 3_600_000;

/// A process that does its work and ends.
pub(crate) async fn ticked(world: &mut World, events: usize) {
    world.add(events);
    world.start().good().await;
}

/// A tick, two hours, and events behind an event-order cursor: the late sweep alone finds them.
pub(crate) async fn with_late_events(world: &mut World, events: i64) {
    ticked(world, 3).await;
    tokio::time::sleep(2 * HOUR).await;
    (0..events).for_each(|minute| _ = world.add_at(-H - minute * 60_000, 0, ""));
}

/// The first requests of this kind are answered by `reply`.
fn first_pages(world: &World, mut times: u32, reply: fn() -> Reply) {
    world.on_page(move |_| {
        times = times.checked_sub(1)?;
        Some(reply())
    });
}

fn throttled() -> Reply {
    let (code, message) = (String::new(), Words::default());
    Reply::Fail(Failure::Status { status: 429, code, message, retry_after: Some(20 * Duration::from_secs(1)) })
}

/// The third row is refused like this whatever is beside it; its stub is taken.
pub(crate) fn refuses_the_third(world: &World, refusal: Outcome) -> String {
    let poison = world.add(4)[2].clone();
    world.poison(&poison, refusal);
    poison
}

/// Fields that no row can carry together.
pub(crate) fn too_large() -> String {
    let fields = "session_uuid country category type actor_uuid actor_type actor_account_uuid action object_type object_uuid \
         aux_uuid aux_info vault_uuid item_uuid user_type user_account_uuid session client";
    let long = "x".repeat(60_000);
    fields.split(' ').map(|field| format!(r#","{field}":"{long}""#)).collect()
}

pub(crate) const READING: &[Scene] = &[
    Scene::of("one event", |world| {
        Box::pin(async {
            world.add(1);
        })
    }),
    Scene::of("an empty source", |_| Box::pin(async {})).idle(),
    Scene::of("several batches of one page", |world| {
        Box::pin(async {
            world.add(9);
        })
    }),
    Scene::of("several pages", |world| {
        Box::pin(async {
            world.state().source.page_max = 3;
            world.add(8);
        })
    }),
    Scene::of("new events since the last tick", |world| {
        Box::pin(async {
            ticked(world, 5).await;
            tokio::time::sleep(MINUTE).await;
            world.add(5);
        })
    }),
    Scene::of("nothing new since the last tick", |world| Box::pin(ticked(world, 5))).idle(),
    Scene::of("the overlap sweep finds events", |world| {
        Box::pin(async {
            ticked(world, 5).await;
            tokio::time::sleep(MINUTE).await;
            (1..4).for_each(|n| _ = world.add_at(-n * 70_000, 0, ""));
        })
    }),
    Scene::of("the late sweep finds events", |world| Box::pin(with_late_events(world, 3))),
    Scene::of("a late sweep of several pages", |world| {
        Box::pin(async {
            world.state().source.page_max = 3;
            with_late_events(world, 7).await;
        })
    }),
    Scene::of("a late sweep that gave way is resumed", |world| {
        Box::pin(async {
            world.state().source.page_max = 2;
            with_late_events(world, 6).await;
            world.start().tick_giving_way(&|| true).await.expect("alive").expect("good");
            world.add(2);
        })
    }),
    Scene::of("a rejected cursor", |world| {
        Box::pin(async {
            ticked(world, 6).await;
            world.state().source.reject_cursors();
            world.add(3);
        })
    }),
    Scene::of("the cursor of a resumed sweep is rejected", |world| {
        Box::pin(async {
            world.state().source.page_max = 2;
            with_late_events(world, 5).await;
            world.start().tick_giving_way(&|| true).await.expect("alive").expect("good");
            world.state().source.reject_cursors();
            world.add(1);
        })
    }),
    Scene::of("a repeated cursor", |world| {
        Box::pin(async {
            ticked(world, 3).await;
            world.state().source.page_max = 3;
            world.add(5);
            first_pages(world, 1, || Reply::SameCursor);
        })
    }),
    Scene::of("an empty page that says there is more", |world| {
        Box::pin(async {
            world.state().source.page_max = 3;
            ticked(world, 5).await;
            world.add(3);
            first_pages(world, 1, || Reply::Body(r#"{"cursor":"cursor-0","has_more":true,"items":[]}"#.into()));
        })
    }),
    Scene::of("an answer that is no page", |world| {
        Box::pin(async {
            world.add(3);
            first_pages(world, 2, || Reply::Body("{}".into()));
        })
    }),
    Scene::of("a source that cannot be reached twice", |world| {
        Box::pin(async {
            world.add(3);
            first_pages(world, 2, || Reply::Fail(Failure::NotConnected));
        })
    }),
    Scene::of("a source that is busy", |world| {
        Box::pin(async {
            world.add(3);
            first_pages(world, 1, throttled);
        })
    }),
    Scene::of("a source that is down for the whole tick", |world| {
        Box::pin(async {
            ticked(world, 3).await;
            world.add(3);
            world.on_page(|_| Some(Reply::Fail(status(503))));
        })
    })
    .idle(),
    Scene::of("a page over the body cap", |world| {
        Box::pin(async {
            world.state().source.limit_max = 200;
            world.add(5);
        })
    }),
    Scene::of("a cursor whose page grew over the body cap", |world| {
        Box::pin(async {
            ticked(world, 5).await;
            world.state().source.limit_max = 200;
            world.add(5);
        })
    }),
    Scene::of("filtered events", |world| {
        Box::pin(async {
            world.stream = Stream::AuditEvents;
            world.settings.drop_audit_actions = ["dropped".to_owned()].into();
            (0..6).for_each(|n| _ = world.add_at(-n, 0, if n % 2 == 0 { r#","action":"dropped""# } else { "" }));
        })
    })
    .unwatched(),
    Scene::of("the same uuid twice on each page", |world| {
        Box::pin(async {
            world.state().source.page_max = 3;
            world.add(5);
            world.on_page(|_| Some(Reply::ItemAgain));
        })
    }),
    Scene::of("the same uuid on two pages", |world| {
        Box::pin(async {
            world.state().source.page_max = 2;
            (0..3).for_each(|n| _ = world.add_at(-10 * 60_000 - n, 0, ""));
            let mut state = world.state();
            let mut again = state.source.events[0].clone();
            again.timestamp -= TimeDelta::milliseconds(50);
            again.visible_at += TimeDelta::milliseconds(1);
            state.source.events.push(again);
        })
    }),
    Scene::of("an event from the future", |world| {
        Box::pin(async {
            world.add_at(48 * H, 0, "");
            world.add(5);
        })
    }),
    Scene::of("events without a readable time", |world| {
        Box::pin(async {
            world.add(5);
            world.state().source.events.iter_mut().step_by(2).for_each(|event| event.is_odd = true);
        })
    }),
    Scene::of("events of many hours", |world| {
        Box::pin(async {
            (0..8).for_each(|hour| _ = world.add_at(-hour * H, 0, ""));
        })
    }),
    Scene::of("a source whose clock is ahead", |world| {
        Box::pin(async {
            world.patience = Patience::ONCE;
            world.state().source.skew = TimeDelta::hours(11);
            world.state().struck.by(Kind::SourceClockAhead);
            ticked(world, 3).await;
            world.state().source.skew = TimeDelta::zero();
            world.add(5);
        })
    }),
    Scene::of("a source whose clock is behind", |world| {
        Box::pin(async {
            world.patience = Patience::ONCE;
            ticked(world, 3).await;
            world.state().source.skew = -TimeDelta::hours(11);
            world.add(5);
        })
    }),
    Scene::of("an outage of five days", |world| {
        Box::pin(async {
            ticked(world, 3).await;
            world.add_at(2 * H, 5 * H, "");
            world.add_at(119 * H, 119 * H, "");
            tokio::time::sleep(120 * HOUR).await;
            world.state().source.reject_cursors();
            world.add(2);
        })
    }),
    Scene::of("a SIGTERM while reading", |world| {
        Box::pin(async {
            world.add(9);
        })
    })
    .stopped_at(21)
    .idle(),
];

pub(crate) const DELIVERY: &[Scene] = &[
    Scene::of("a SIGTERM between two batches", |world| {
        Box::pin(async {
            world.add(9);
        })
    })
    .stopped_at(36),
    Scene::of("a SIGTERM while a POST hangs", |world| {
        Box::pin(async {
            world.add(3);
            world.posts_end([Outcome::Hang { accepted: true }]);
        })
    })
    .stopped_at(32),
    Scene::of("the reply to a POST is lost", |world| {
        Box::pin(async {
            world.add(3);
            world.posts_end([Outcome::LoseReply]);
        })
    }),
    Scene::of("the replies to two POSTs are lost: a split in doubt", |world| {
        Box::pin(async {
            world.add(5);
            world.posts_end([Outcome::LoseReply, Outcome::LoseReply]);
        })
    }),
    Scene::of("the replies to three POSTs are lost", |world| {
        Box::pin(async {
            world.add(3);
            world.posts_end([Outcome::LoseReply, Outcome::LoseReply, Outcome::LoseReply]);
        })
    }),
    Scene::of("the connection breaks twice", |world| {
        Box::pin(async {
            world.add(5);
            world.posts_end([Outcome::Break, Outcome::Break]);
        })
    }),
    Scene::of("a lost reply and then a halt", |world| {
        Box::pin(async {
            world.add(5);
            world.posts_end([Outcome::LoseReply, Outcome::Refuse(404), Outcome::Refuse(404)]);
        })
    }),
    Scene::of("a halt of the destination", |world| {
        Box::pin(async {
            world.add(9);
            world.posts_end([Outcome::Accept, Outcome::Refuse(404), Outcome::Refuse(404)]);
        })
    }),
    Scene::of("a 413 that is split once", |world| {
        Box::pin(async {
            world.state().sink.rows_max = 2;
            world.add(5);
        })
    }),
    Scene::of("a 413 that is split down to single rows", |world| {
        Box::pin(async {
            world.state().sink.rows_max = 1;
            world.add(5);
        })
    }),
    Scene::of("a reply is lost in a split", |world| {
        Box::pin(async {
            world.add(4);
            world.posts_end([Outcome::Refuse(413), Outcome::LoseReply, Outcome::LoseReply]);
        })
    }),
    Scene::of("a destination that is busy for a second", |world| {
        Box::pin(async {
            world.add(5);
            world.posts_end([Outcome::Busy(Duration::from_secs(1))]);
        })
    }),
    Scene::of("a destination that is busy for longer than an intent lives", |world| {
        Box::pin(async {
            world.add(3);
            world.posts_end([Outcome::Busy(Duration::from_secs(250))]);
        })
    }),
    Scene::of("a role that is still spreading", |world| {
        Box::pin(async {
            world.add(3);
            world.posts_end([Outcome::Refuse(403), Outcome::Refuse(403)]);
        })
    }),
    Scene::of("a destination that is down for a while", |world| {
        Box::pin(async {
            world.add(5);
            world.posts_end([Outcome::Refuse(503), Outcome::Refuse(503)]);
        })
    }),
    Scene::of("a POST hangs and was accepted", |world| {
        Box::pin(async {
            world.add(5);
            world.posts_end([Outcome::Hang { accepted: true }]);
        })
    }),
    Scene::of("a POST hangs and was not accepted", |world| {
        Box::pin(async {
            world.add(5);
            world.posts_end([Outcome::Hang { accepted: false }]);
        })
    }),
    Scene::of("a row that is refused for its content", |world| {
        Box::pin(async {
            refuses_the_third(world, Outcome::RefuseAs(400, "InvalidPayload"));
        })
    }),
    Scene::of("a row that is larger than a request may be", |world| {
        Box::pin(async {
            world.add(1);
            world.add_at(-20 * 60_000, 0, &too_large());
        })
    }),
    Scene::of("a row that is refused for its size", |world| {
        Box::pin(async {
            refuses_the_third(world, Outcome::Refuse(413));
        })
    }),
    Scene::of("a row that a firewall refuses", |world| {
        Box::pin(async {
            refuses_the_third(world, Outcome::RefuseAs(403, ""));
        })
    }),
    Scene::of("a row that breaks every connection", |world| {
        Box::pin(async {
            refuses_the_third(world, Outcome::Break);
        })
    }),
    Scene::of("a first row that is answered by a 500", |world| {
        Box::pin(async {
            let uuids = world.add(3);
            world.poison(&uuids[2], Outcome::Refuse(500));
        })
    }),
    Scene::of("a destination that takes no row but an empty array", |world| {
        Box::pin(async {
            world.add(4);
            world.on_post(|_| Outcome::Refuse(406));
        })
    })
    .idle(),
];
