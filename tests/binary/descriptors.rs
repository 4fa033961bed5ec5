//! More feeds than file descriptors.

use crate::agent::{Agent, wait_until};
use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::{Options, Sim, When};
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(150);

/// 1Password accounts, each at a server of its own; all ship to the destination of the world.
struct Accounts(Vec<Sim>);

impl Accounts {
    async fn new(world: &mut World, count: u64) -> Self {
        world.set("OPSHIP_LOG__LEVEL", "info").set("OPSHIP_SCHEDULE__EVERY", "1s");
        world.unset("OPSHIP_ACCOUNTS__DEFAULT__TOKEN").unset("OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL");
        let mut sims = Vec::new();
        for number in 0..count {
            let sim = Sim::start(Options { seed: 1000 + number, ..Options::default() }).await.unwrap();
            let (token, place) = (sim.token(), sim.base_url().to_owned());
            world.secret(&token).set(&format!("TOKEN_{number}"), &token);
            world.set(&format!("OPSHIP_ACCOUNTS__A{number}__TOKEN"), format!("env:TOKEN_{number}"));
            world.set(&format!("OPSHIP_ACCOUNTS__A{number}__EVENTS_URL"), place);
            sims.push(sim);
        }
        Self(sims)
    }

    /// One event in each stream of each account; how many these are.
    fn have_news(&self) -> usize {
        for sim in &self.0 {
            Stream::ALL.into_iter().for_each(|stream| _ = sim.world().append(stream, When::Now));
        }
        self.0.len() * Stream::ALL.len()
    }
}

fn started(world: &World, limit: &str, args: &[&str]) -> Agent {
    let script = format!("ulimit {limit}; exec \"$@\"");
    world.start_by(&["bash", "-c", &script, "bash", env!("CARGO_BIN_EXE_opship")], args)
}

fn open_files(agent: &Agent) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", agent.id())).unwrap().count()
}

/// Ships news of each account so many times, and looks at the probe each time.
async fn ships_for(world: &World, agent: &Agent, accounts: &Accounts, rounds: usize) {
    let (browser, mut wanted) = (agent.browser().await, 0);
    for _ in 0..rounds {
        wanted += accounts.have_news();
        let distinct = || world.rows().iter().map(|row| row["uuid_s"].to_string()).collect::<BTreeSet<_>>().len();
        let mut peak = 0;
        wait_until("every account ships", SOON, || {
            peak = peak.max(open_files(agent));
            distinct() >= wanted
        })
        .await;
        println!("{peak} descriptors open at most");
        let answer = tokio::time::timeout(Duration::from_secs(5), browser.get("/livez")).await.expect("at once");
        assert_eq!(answer.body, "ok\n");
    }
}

/// Fault: 180 feeds at 60 servers under 128 descriptors. Shows: a warning with the remedy, by `check` too, each event arrives, `/livez` answers, no file fails to open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_67_feeds_beyond_the_descriptors_ship_all_the_same() {
    let mut world = World::file(history(0)).await;
    let accounts = Accounts::new(&mut world, 60).await;
    let looked = started(&world, "-n 128", &["check"]).end().await;
    let line = looked.stdout.lines().find(|line| line.contains("open files")).expect("a line");
    assert!(line.starts_with("WARN") && line.contains("180 feeds, and 128 files may be open here"), "{line}");
    let agent = started(&world, "-n 128", &["run"]);
    ships_for(&world, &agent, &accounts, 3).await;
    let log = agent.stderr();
    let warned: Vec<_> = log.lines().filter(|line| line.contains("fewer files may be open")).collect();
    assert!(warned.len() == 1 && warned[0].contains("LimitNOFILE") && warned[0].contains("1024"), "{warned:?}");
    assert!(!log.contains("Too many open files") && !log.contains("os error 24"), "{log}");
    agent.stop().await.exits(0);
}

/// Fault: a soft limit of 64 under a hard one of 4,096. Shows: the process raises it at its start, and warns of nothing.
#[tokio::test]
async fn fm_67_the_soft_limit_is_raised_to_the_hard_one() {
    let mut world = World::file(history(30)).await;
    world.set("OPSHIP_SCHEDULE__EVERY", "1s");
    let agent = started(&world, "-Sn 64; ulimit -Hn 4096", &["run"]);
    agent.browser().await.is_ready().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["4096", "4096"]);
    let ran = agent.stop().await.exits(0);
    assert!(!ran.stderr.contains("fewer files may be open"), "{ran:?}");
}
