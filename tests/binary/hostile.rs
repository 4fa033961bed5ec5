//! Answers that are made to cost: memory, the threads that everybody shares, the pace of the account beside.

use crate::agent::{Agent, wait_until};
use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::{Fault, Options, Sim, Target, What, When};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
/// Of each hostile page; 64 MiB is the longest body that is read.
const PAGE_BYTES: usize = 40 * 1024 * 1024;
/// What the units allow the process is more than this.
const PEAK_KIB_MAX: u64 = 256 * 1024;

fn page(items: &str) -> String {
    format!(r#"{{"cursor":"c","has_more":false,"items":[{items}]}}"#)
}

/// One event with so many fields that nobody knows, and a last one that is no JSON.
fn wide_event() -> String {
    page(&format!("{{\"uuid\":\"W\",{}\"b\":NaN}}", "\"a\":0,".repeat(PAGE_BYTES / 6)))
}

/// One item that is a text of halves of characters: each has to be replaced.
fn half_characters() -> String {
    page(&format!("\"{}\"", "\\ud800".repeat(PAGE_BYTES / 6)))
}

/// A page with so many members beside its own, and an item that is no JSON.
fn wide_page() -> String {
    let members = "\"a\":0,".repeat(PAGE_BYTES / 6);
    format!("{{{members}\"cursor\":\"c\",\"has_more\":false,\"items\":[NaN]}}")
}

/// One event whose id is as long as a page may be.
fn long_id() -> String {
    page(&format!("{{\"uuid\":\"{}\"}}", "u".repeat(PAGE_BYTES)))
}

fn peak_kib(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().split(' ').next().unwrap().parse().unwrap()
}

impl World {
    /// An account whose every page is this.
    async fn beside(&mut self, number: u64, text: String) -> Sim {
        let sim = Sim::start(Options { seed: 2000 + number, ..Options::default() }).await.unwrap();
        sim.world().add_fault(Fault::new(Target::Stream(Stream::AuditEvents), What::Body { text })).unwrap();
        let (token, place) = (sim.token(), sim.base_url().to_owned());
        self.secret(&token).set(&format!("TOKEN_{number}"), &token);
        self.set(&format!("OPSHIP_ACCOUNTS__H{number}__TOKEN"), format!("env:TOKEN_{number}"));
        self.set(&format!("OPSHIP_ACCOUNTS__H{number}__STREAMS"), r#"["auditevents"]"#);
        self.set(&format!("OPSHIP_ACCOUNTS__H{number}__EVENTS_URL"), place);
        sim
    }
}

/// Fault: four accounts answer each page with 40 MiB made to cost. Shows: under 256 MiB, `/livez` answers at once, the good account beside ships at its pace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_66_hostile_pages_cost_neither_memory_nor_the_pace_of_others() {
    let mut world = World::file(history(30)).await;
    world.set("OPSHIP_LOG__LEVEL", "info");
    let texts = [wide_event(), half_characters(), wide_page(), long_id()];
    let mut hostile = Vec::new();
    for (number, text) in texts.into_iter().enumerate() {
        hostile.push(world.beside(number as u64, text).await);
    }
    let agent = world.run();
    let browser = agent.browser().await;
    let mut slowest = [Duration::ZERO; 2];
    // Each is asked again when its page is done with.
    let all_are_done = || {
        hostile.iter().all(|sim| {
            let journal = sim.world().journal();
            journal.iter().filter(|entry| entry.path.contains("auditevents")).count() >= 2
        })
    };
    let mut rounds = 0;
    while rounds < 5 || !all_are_done() {
        rounds += 1;
        assert!(rounds < 200, "the hostile pages are never done with");
        let begun = Instant::now();
        let uuid = world.sim.world().append(Stream::SigninAttempts, When::Now);
        wait_until("the good account ships", SOON, || !world.rows_of(&uuid).is_empty()).await;
        slowest[0] = slowest[0].max(begun.elapsed());
        let begun = Instant::now();
        assert_eq!(browser.get("/livez").await.body, "ok\n");
        slowest[1] = slowest[1].max(begun.elapsed());
    }
    println!("{} KiB at most, {slowest:?} in {rounds} rounds", peak_kib(&agent));
    assert!(peak_kib(&agent) < PEAK_KIB_MAX, "{} KiB", peak_kib(&agent));
    assert!(slowest[0] < Duration::from_secs(10) && slowest[1] < Duration::from_secs(2), "{slowest:?}");
    agent.stop().await.exits(0);
}
