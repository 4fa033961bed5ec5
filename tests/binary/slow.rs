//! Servers that take their time: each test waits for a deadline of the program.

use crate::clock::FakeHost;
use crate::disk::full_after;
use crate::edges::Edge;
use crate::raw::Raw;
use crate::world::{World, history};
use futures_util::future::join_all;
use opship::sim::{Fault, Options, Service, Target, What};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Fault: the rule stores a batch and never answers, then it answers again, or not even an empty array. Shows: each request ends at its deadline of 60 s; the batch is posted again by the same run once an empty array is accepted, else exit 1 and by the next one; copies of one batch at most, all in the ledger.
#[tokio::test]
async fn fm_08_a_post_that_is_accepted_and_never_answered_is_settled_by_this_run_or_the_next() {
    let each = [(1, 0, 55..90), (2, 1, 110..150)].map(|(unanswered, code, seconds)| async move {
        let mut world = World::file(history(900)).await;
        world.set("OPSHIP_ACCOUNTS__DEFAULT__STREAMS", r#"["auditevents"]"#);
        world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).times(unanswered));
        let ran = world.once().await.exits(code).says(&["no answer"]);
        assert!(seconds.contains(&ran.took.as_secs()), "{:?}", ran.took);
        world.unset("OPSHIP_ACCOUNTS__DEFAULT__STREAMS").once().await.exits(0);
        let copies = world.assert_nothing_lost_and_copies_traceable().await;
        assert!(copies > 0 && copies <= 500, "{copies}");
    });
    join_all(each).await;
}

/// Fault: the disk is full when the ledger is to record what was accepted. Shows: exit 1; with room again nothing is lost, every copy is of a batch in doubt and in the ledger.
#[tokio::test]
async fn fm_26_without_room_for_the_ledger_the_batch_is_in_doubt_and_settled() {
    let one_segment = Duration::from_secs(600);
    let mut world = World::file(Options { history_span: one_segment, ..history(1500) }).await;
    world.set("OPSHIP_LOG__LEVEL", "error").set("OPSHIP_DELIVERY__BATCH_ROWS_MAX", "20");
    world.by_script(&full_after(4096), &["once"]).await.exits(1).says(&["free space"]);
    let before = world.rows().len();
    assert!(before > 100 && before < 1500, "{before} rows before the disk was full");
    world.once().await.exits(0);
    world.assert_nothing_lost_and_copies_traceable().await;
}

/// Fault: source, identity endpoint, rule or blob store send a byte every 20 s. Shows: the total deadline holds (exit 1 within 100 s; a rule is asked once more, with an empty array), nothing is shipped; afterwards everything arrives once.
#[tokio::test]
async fn fm_33_a_server_that_drips_is_bounded_by_the_total_deadline() {
    let each = Edge::ALL.map(|edge| async move {
        let loris = Raw::start(None, |mut wire| async move {
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}" {
                if wire.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
        })
        .await;
        let ran = World::file(history(30)).await.fails_and_heals(edge, &loris.url()).await;
        let longest = Duration::from_secs(if edge == Edge::Sink { 160 } else { 100 });
        assert!(ran.took < longest, "{edge:?}: {:?}", ran.took);
        assert!(!loris.heads().is_empty(), "{edge:?} was asked");
    });
    join_all(each).await;
}

/// Fault: a name server that leaves the first questions without an answer. Shows: the token speaks for itself after 10 s, the deadline of connecting holds (20 s), the same run goes on and ships everything once.
#[tokio::test]
async fn fm_30_a_name_server_that_never_answers_is_given_up_within_the_deadline() {
    let world = World::by_name("9").await;
    let ran = world.once().await.exits(0).says(&["could not connect", "localhost"]);
    assert!((20..75).contains(&ran.took.as_secs()), "{:?}", ran.took);
    world.assert_exactly_once();
}

/// Fault: NXDOMAIN for the hosts of source and rule. Shows: exit 1 naming the host, nothing is asked or shipped; afterwards everything arrives once.
#[tokio::test]
async fn fm_30_a_name_that_does_not_exist_is_tried_again_and_named() {
    let mut world = World::by_name("missing").await;
    let ran = world.once().await.exits(1).says(&["could not connect", "localhost", "trying again"]);
    assert!(ran.took < Duration::from_secs(70), "{:?}", ran.took);
    // The identity endpoint has an address: the trouble row got that far.
    let asked = world.sim.world().journal();
    assert!(asked.iter().all(|entry| entry.service == Service::Identity), "{asked:?}");
    world.unset("FAKE_NAMES").once().await.exits(0);
    world.assert_exactly_once();
}

impl World {
    /// Source and rule under a name instead of an address, and this fault of the name server.
    async fn by_name(fault: &str) -> Self {
        let mut world = Self::file(Options { tls: true, ..history(30) }).await;
        let ca = world.home.path().join("ca.pem");
        std::fs::write(&ca, world.sim.ca_pem().unwrap()).unwrap();
        let by_name = world.sim.base_url().replace("127.0.0.1", "localhost");
        world.point(Edge::Source, &by_name).point(Edge::Sink, &by_name).set("OPSHIP_HTTP__CA_FILE", ca.display());
        world.fake_host().set("FAKE_NAMES", fault);
        world
    }
}
