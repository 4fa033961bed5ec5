//! The four servers that opship talks to, each in turn replaced by one that means no good.

use crate::agent::Ran;
use crate::raw::{Raw, Wire, closed};
use crate::weight::peak;
use crate::world::{Kind, World, azurite, history};
use flate2::{Compression, write::GzEncoder};
use futures_util::future::join_all;
use opship::flow::Stream;
use opship::sim::{Fault, Options, PageFault, Service, Target, What};
use std::io::Write;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

const MEBI: u64 = 1024;
/// What a process may take whatever it is sent.
const PEAK_KIB_MAX: u64 = 150 * MEBI;
const SAS: &str = "sv=2022-11-02&sig=canary-signature";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Source,
    Identity,
    Sink,
    Store,
}

impl Edge {
    pub const ALL: [Self; 4] = [Self::Source, Self::Identity, Self::Sink, Self::Store];

    /// An answer and an error; of the rule's good answer nobody reads a body.
    const fn statuses(self) -> &'static [&'static str] {
        match self {
            Self::Sink => &["500 Broken"],
            Self::Source | Self::Identity | Self::Store => &["200 OK", "500 Broken"],
        }
    }
}

impl World {
    /// From now on `edge` is the server at `base`.
    pub fn point(&mut self, edge: Edge, base: &str) -> &mut Self {
        match edge {
            Edge::Source => self.set("OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL", base),
            Edge::Identity => self.set("IDENTITY_ENDPOINT", format!("{base}/msi/token")),
            Edge::Sink => self.set("OPSHIP_SINK__ENDPOINT", base),
            Edge::Store => self
                .secret("canary-signature")
                .set("OPSHIP_STORE__KIND", "azure-blob")
                .unset("OPSHIP_STORE__PATH")
                .set("OPSHIP_STORE__CONTAINER_URL", format!("{base}/account/test?{SAS}")),
        }
    }

    /// The right servers again: those of the simulator, and a folder.
    pub fn heal(&mut self) {
        let base = self.sim.base_url().to_owned();
        let state = self.home.path().join("state").display().to_string();
        [Edge::Source, Edge::Identity, Edge::Sink].into_iter().for_each(|edge| _ = self.point(edge, &base));
        self.unset("OPSHIP_STORE__CONTAINER_URL").set("OPSHIP_STORE__KIND", "file").set("OPSHIP_STORE__PATH", state);
    }

    /// A run with the wrong server for `edge` fails and ships nothing; one with the right servers ships everything once.
    pub async fn fails_and_heals(&mut self, edge: Edge, base: &str) -> Ran {
        let ran = self.point(edge, base).once().await.exits(1);
        assert_eq!(self.rows().len(), 0, "{edge:?}");
        self.heal();
        self.once().await.exits(0);
        self.assert_exactly_once();
        ran
    }
}

/// Fault: 301, 307 or 308 to another host from source, identity endpoint, rule or blob store. Shows: that host gets no connection, exit 1; afterwards everything arrives once.
#[tokio::test]
async fn fm_37_a_redirect_is_followed_by_no_edge() {
    let other = Raw::always(None, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for status in [301, 307, 308] {
        let each = Edge::ALL.map(|edge| {
            let location = other.url();
            async move {
                let answer = format!("HTTP/1.1 {status} X\r\nlocation: {location}/there\r\ncontent-length: 0\r\n\r\n");
                let redirecting = Raw::always(None, answer).await;
                World::file(history(30)).await.fails_and_heals(edge, &redirecting.url()).await;
                assert!(!redirecting.heads().is_empty(), "{edge:?} was asked");
            }
        });
        join_all(each).await;
    }
    assert_eq!(other.connections(), 0);
}

fn gzip_bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&vec![0; 1 << 20]).unwrap();
    // Gzip members in a row are one body: 1 GiB of zeros.
    let members = encoder.finish().unwrap().repeat(1024);
    let date = "date: Sun, 22 Nov 2026 10:00:00 GMT";
    let head = format!("{date}\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", members.len());
    [head.as_bytes(), &members].concat()
}

/// Fault: 1 GiB of zeros, gzipped, as answer and as error of each server. Shows: exit 1, the process never takes 150 MiB; afterwards everything arrives once.
#[tokio::test]
async fn fm_35_a_gzip_bomb_from_any_server_fits_in_memory() {
    let bomb = &gzip_bomb();
    let each = cases().map(|(edge, status)| async move {
        let answer = [format!("HTTP/1.1 {status}\r\n").as_bytes(), bomb].concat();
        bounded(edge, &Raw::always(None, answer).await, status).await;
    });
    join_all(each).await;
}

/// Fault: a chunked body without an end, as answer and as error of each server. Shows: exit 1, the process never takes 150 MiB; afterwards everything arrives once.
#[tokio::test]
async fn fm_35_an_endless_body_from_any_server_fits_in_memory() {
    let each = cases().map(|(edge, status)| async move {
        bounded(edge, &endless(status).await, status).await;
    });
    join_all(each).await;
}

fn cases() -> impl Iterator<Item = (Edge, &'static str)> {
    Edge::ALL.into_iter().flat_map(|edge| edge.statuses().iter().map(move |status| (edge, *status)))
}

async fn endless(status: &'static str) -> Raw {
    let chunk = Arc::new([b"100000\r\n".as_slice(), &vec![b'0'; 1 << 20], b"\r\n"].concat());
    let date = "date: Sun, 22 Nov 2026 10:00:00 GMT";
    let head = Arc::new(format!("HTTP/1.1 {status}\r\n{date}\r\ntransfer-encoding: chunked\r\n\r\n"));
    let answer = move |mut wire: Box<dyn Wire>| {
        let (head, chunk) = (head.clone(), chunk.clone());
        async move {
            let mut sent = wire.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                sent = wire.write_all(&chunk).await;
            }
        }
    };
    Raw::start(None, answer).await
}

async fn bounded(edge: Edge, server: &Raw, status: &str) {
    let mut world = World::file(history(30)).await;
    let (peak, ran) = peak(world.point(edge, &server.url()).start(&["once"])).await;
    println!("{edge:?} {status}: {peak} KiB, {:?}", ran.took);
    assert!(peak > 1_000 && peak < PEAK_KIB_MAX, "{edge:?} {status}: {peak} KiB");
    assert!(!server.heads().is_empty());
    ran.exits(1);
    world.heal();
    world.once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: pages of a feed that never end. Shows: exit 1 saying that the answer is too large, below 150 MiB, the other feeds arrive; afterwards everything arrives once.
#[tokio::test]
async fn fm_35_pages_without_an_end_fit_in_memory() {
    let world = World::file(history(90)).await;
    world.fault(Fault::new(Target::Stream(Stream::AuditEvents), What::EndlessBody));
    let (peak, ran) = peak(world.start(&["once"])).await;
    assert!(peak > 1_000 && peak < PEAK_KIB_MAX, "{peak} KiB");
    ran.exits(1).says(&["larger than the body cap"]);
    assert_eq!(world.sim.world().missing(Stream::ItemUsages).len(), 0);
    world.sim.world().clear_faults();
    world.once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: a header of 1 MiB from source, identity endpoint or (once) rule, and pages with a cursor of 64 KiB. Shows: below 150 MiB, exit 1 while it lasts; afterwards nothing is lost and every copy is in the ledger.
#[tokio::test]
async fn fm_36_header_bombs_and_giant_cursors_are_refused_and_lose_nothing() {
    let bomb = What::HeaderBomb { bytes: 1 << 20 };
    let cursor = What::Page(PageFault::LongCursor { bytes: 64 * 1024 });
    let faults = [
        (Fault::new(Target::Events, bomb.clone()), 1),
        (Fault::new(Target::Identity, bomb.clone()), 1),
        (Fault::new(Target::Events, cursor), 1),
        (Fault::new(Target::Ingestion, bomb).times(1), 0),
    ];
    let each = faults.map(|(fault, code)| async move {
        let world = World::file(history(90)).await;
        world.fault(fault.clone());
        let (peak, ran) = peak(world.start(&["once"])).await;
        assert!(peak < PEAK_KIB_MAX, "{fault:?}: {peak} KiB");
        ran.exits(code);
        world.sim.world().clear_faults();
        world.once().await.exits(0);
        world.assert_nothing_lost_and_copies_traceable().await;
    });
    join_all(each).await;
}

/// Fault: the blob store refuses connections or answers 503 when the position is to be loaded. Shows: exit 1 naming the store, nothing is read or posted; with the store everything arrives once.
#[tokio::test]
async fn fm_22_without_its_store_nothing_is_read_or_posted() {
    let busy = Raw::always(None, "HTTP/1.1 503 Busy\r\nx-ms-error-code: ServerBusy\r\ncontent-length: 0\r\n\r\n").await;
    let good = azurite().await;
    let each = [format!("http://{}", closed()), busy.url()].map(|away| async move {
        let mut world = World::new(Kind::Blob, history(60)).await;
        let there = world.secrets().last().cloned();
        assert!(there.is_some(), "the SAS is a secret of this world");
        let container = good.container_sas_url(&format!("test-{}", uuid::Uuid::new_v4()));
        world.point(Edge::Store, &away);
        let ran = world.once().await.exits(1).says(&["store.container_url", "nothing was read or shipped"]);
        assert!(ran.took.as_secs() < 60, "{:?}", ran.took);
        let asked = world.sim.world().journal();
        assert!(asked.iter().all(|entry| entry.service == Service::Identity), "{asked:?}");
        world.set("OPSHIP_STORE__CONTAINER_URL", container);
        world.once().await.exits(0);
        world.assert_exactly_once();
    });
    join_all(each).await;
    assert!(!busy.heads().is_empty());
    assert!(busy.heads().iter().all(|head| head.contains("sig=canary-signature")));
}

/// Fault: the source's clock stands before 1970, then after 2262. Shows: no panic, everything arrives once, and so does an event after the clock is set right.
#[tokio::test]
async fn fm_45_a_source_with_an_impossible_clock_panics_nobody() {
    for years in [-60, 300] {
        let clock_offset = chrono::TimeDelta::days(years * 365);
        let world = World::file(Options { clock_offset, ..history(30) }).await;
        world.once().await.exits(0);
        world.assert_exactly_once();
        world.sim.world().shift_clock(-clock_offset);
        let now = world.sim.world().append(Stream::AuditEvents, opship::sim::When::Now);
        world.once().await.exits(0);
        world.row(&now);
    }
}
