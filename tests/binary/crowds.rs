//! More connections to the admin server than it has places: who is answered all the same, and what is told.

use crate::agent::{Agent, wait_until};
use crate::browse::Browser;
use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::When;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(60);
/// As many connections as the server takes, the probes' own aside.
const PLACES: usize = 64;
/// Of any probe here, far below the deadlines that would set a place free by themselves.
const AT_ONCE: Duration = Duration::from_secs(5);

fn asks(browser: Browser, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", browser.0)
}

/// Asks for ever on connections that it keeps, and connects again when one is closed.
async fn nags(browser: Browser, answered: Arc<AtomicUsize>) {
    let request = asks(browser, "/livez");
    loop {
        let Ok(mut stream) = TcpStream::connect(browser.0).await else { continue };
        let mut answer = [0; 4096];
        while stream.write_all(request.as_bytes()).await.is_ok()
            && stream.read(&mut answer).await.is_ok_and(|length| length > 0)
        {
            answered.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn answers_at_once(browser: Browser, path: &str) -> u16 {
    let begun = Instant::now();
    let answer = tokio::time::timeout(AT_ONCE, browser.get(path)).await;
    answer.unwrap_or_else(|_| panic!("{path}: no answer after {:?}", begun.elapsed())).status
}

fn sockets(agent: &Agent) -> usize {
    let links = std::fs::read_dir(format!("/proc/{}/fd", agent.id())).unwrap();
    let links = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Fault: 64 clients without a token keep their connections and ask again each second. Shows: each probe is answered at once, and shipping goes on.
#[tokio::test]
async fn fm_67_kept_connections_do_not_starve_the_probes() {
    let world = World::file(history(30)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    let (mut crowd, answered) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..PLACES {
        crowd.spawn(nags(browser, answered.clone()));
    }
    wait_until("the crowd is there", SOON, || answered.load(Ordering::Relaxed) >= PLACES).await;
    for _ in 0..10 {
        for path in ["/livez", "/readyz"] {
            answers_at_once(browser, path).await;
        }
    }
    world.sim.world().append(Stream::AuditEvents, When::Now);
    wait_until("shipping goes on", SOON, || world.rows().len() == 31).await;
    crowd.shutdown().await;
    agent.stop().await.exits(0);
}

/// A client that asks for a hundred pages and takes none of them.
async fn greedy(browser: Browser) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(browser.0).await.unwrap();
    stream.write_all(asks(browser, "/").repeat(99).as_bytes()).await.unwrap();
    stream
}

/// Fault: every place is held by a client that does not take its answer. Shows: the probes are answered at once, others told to come later.
#[tokio::test]
async fn fm_67_busy_connections_leave_places_to_the_probes() {
    let world = World::file(history(30)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    let mut crowd = Vec::new();
    for _ in 0..PLACES {
        crowd.push(greedy(browser).await);
    }
    let begun = Instant::now();
    let crowded = loop {
        let answer = browser.get("/status.json").await;
        if answer.status == 503 {
            break answer;
        }
        // One who had not blocked yet made room for the question.
        assert!(begun.elapsed() < SOON, "{answer:?}");
        crowd.push(greedy(browser).await);
    };
    assert_eq!((crowded.header("retry-after"), crowded.header("connection")), (Some("15"), Some("close")));
    assert!(crowded.body.contains("ask again later"), "{crowded:?}");
    // More who say nothing than there are kept places.
    let mut silent = Vec::new();
    for _ in 0..PLACES {
        silent.push(TcpStream::connect(browser.0).await.unwrap());
        assert_eq!(answers_at_once(browser, "/livez").await, 200);
    }
    assert!(sockets(&agent) < 2 * PLACES, "{}", sockets(&agent));
    drop((crowd, silent));
    browser.wait_for("/status.json", &[], SOON, |answer| answer.status == 200).await;
    agent.stop().await.exits(0);
}

/// Fault: one client asks on and on by one connection. Shows: after a hundred answers it is told to close, and closed.
#[tokio::test]
async fn fm_67_a_connection_has_so_many_answers_and_no_more() {
    let world = World::file(history(0)).await;
    let agent = world.run();
    let browser = agent.browser().await;
    let mut stream = TcpStream::connect(browser.0).await.unwrap();
    stream.write_all(asks(browser, "/livez").repeat(120).as_bytes()).await.unwrap();
    let mut said = Vec::new();
    // It is reset where the server closes over what it did not read.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut said)).await.expect("it is closed");
    let said = String::from_utf8(said).unwrap();
    assert_eq!((said.matches("HTTP/1.1 200").count(), said.matches("connection: close").count()), (100, 1));
    agent.stop().await.exits(0);
}

fn limits(agent: &Agent, to: impl Fn(Rlimit) -> Rlimit) -> Rlimit {
    let id = Pid::from_raw(i32::try_from(agent.id()).unwrap());
    // Its own are as ours, but for the soft one, which it has raised.
    let ours = getrlimit(Resource::Nofile);
    prlimit(id, Resource::Nofile, to(ours)).unwrap()
}

/// Fault: no descriptor is left for a connection. Shows: a warning with the remedy, once; with descriptors again it answers, and says so.
#[tokio::test]
async fn fm_67_connections_that_cannot_be_taken_are_told_once() {
    let mut world = World::file(history(0)).await;
    world.set("OPSHIP_SCHEDULE__EVERY", "1h");
    let agent = world.start(&["run"]);
    let browser = agent.browser().await;
    browser.is_ready().await;
    let before = limits(&agent, |ours| Rlimit { current: Some(3), ..ours });
    assert_eq!(before.current, before.maximum, "it has raised its own limit");
    let mut waiting = TcpStream::connect(browser.0).await.unwrap();
    waiting.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let told = || agent.stderr().matches("the admin server cannot take a connection").count();
    wait_until("it is told", SOON, || told() == 1).await;
    assert!(agent.stderr().contains("LimitNOFILE"), "{}", agent.stderr());
    limits(&agent, |_| before);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
    assert_eq!(told(), 1);
    agent.stop().await.exits(0).says(&["takes connections again"]);
}
