//! The clock of the host: wrong, jumping, in odd time zones, and out of all reason.

use crate::agent::wait_until;
use crate::world::{World, history};
use futures_util::future::join_all;
use opship::admin::status::Status;
use opship::flow::Stream;
use opship::sim::{Fault, Target, What, When};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
const YEAR: i64 = 365 * DAY;
const SOON: Duration = Duration::from_secs(60);

/// Fakes clock and names for the processes of a world (tests/support/host.c).
pub trait FakeHost {
    fn fake_host(&mut self) -> &mut Self;
}

impl FakeHost for World {
    fn fake_host(&mut self) -> &mut Self {
        self.set("LD_PRELOAD", library().display())
    }
}

/// Built once per test run.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/host.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&path).arg(source).arg("-ldl").status();
        assert!(built.unwrap().success(), "cc, which links the program too, could not build the fake host");
        (folder, path)
    });
    path
}

fn document(text: &str) -> Status {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

impl World {
    fn set_clock(&mut self, seconds: i64) -> &mut Self {
        let file = self.home.path().join("clock");
        // Never half a number: the process reads it at any time.
        let next = self.home.path().join("clock.next");
        std::fs::write(&next, seconds.to_string()).unwrap();
        std::fs::rename(next, &file).unwrap();
        self.fake_host().set("FAKE_CLOCK", file.display())
    }
}

/// Fault: a host clock a day off either way, in time zones with odd offsets and summer time. Shows: a run says how far and waits a minute for a second answer, then exit 0, everything arrives once, an event of now included, and no time is changed.
#[tokio::test]
async fn fm_15_a_host_clock_a_day_off_and_its_time_zone_change_nothing() {
    let cases = [(-DAY, "LINT-14"), (DAY, "NST3:30NDT,M3.2.0,M11.1.0"), (0, "LHST-10:30LHDT-11,M10.1.0,M4.1.0")];
    let each = cases.map(|(seconds, zone)| async move {
        let mut world = World::file(history(60)).await;
        world.set_clock(seconds).set("TZ", zone);
        if seconds != DAY {
            world.once().await.exits(0);
        }
        let now = world.sim.world().append(Stream::ItemUsages, When::Now);
        let ran = world.once().await.exits(0);
        world.row(&now);
        world.assert_exactly_once();
        assert!(ran.stderr.contains("Z\""), "the log is in UTC: {}", ran.stderr);
        let is_doubted = ran.stderr.contains("1 d behind this host's clock")
            || ran.stderr.contains("1 d ahead of this host's clock");
        assert_eq!(is_doubted, seconds != 0, "{}", ran.stderr);
    });
    join_all(each).await;
}

/// Fault: the host clock jumps a day back, then two days ahead, under a living process. Shows: it ticks on, everything arrives once.
#[tokio::test]
async fn fm_15_a_host_clock_that_jumps_under_a_living_process_stops_nothing() {
    let mut world = World::file(history(60)).await;
    world.set_clock(0);
    let agent = world.run();
    // It has heard 1Password's time while its own was right: afterwards no clock on the wall counts.
    wait_until("it ships", SOON, || world.sim.world().compare().lost == 0).await;
    for seconds in [-DAY, DAY] {
        world.set_clock(seconds);
        let event = world.sim.world().append(Stream::AuditEvents, When::Now);
        wait_until("an event arrives after the jump", SOON, || {
            world.sim.world().delivered(Stream::AuditEvents, &event) == 1
        })
        .await;
    }
    wait_until("everything arrives", SOON, || world.sim.world().compare().lost == 0).await;
    agent.stop().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: a host clock that goes an hour ahead and back, two minutes back, forty days back, while ticks come by `schedule.cron`. Shows: events of after each step arrive within a minute, readiness and liveness hold, no age comes from the future.
#[tokio::test]
async fn fm_47_a_host_clock_set_back_does_not_stop_the_ticks_of_a_cron_text() {
    let mut world = World::file(history(60)).await;
    world.set_clock(0).set("OPSHIP_SCHEDULE__CRON", "* * * * * *");
    let agent = world.start(&["run"]);
    let browser = agent.browser().await;
    browser.is_ready().await;
    for seconds in [HOUR, 0, -120, -40 * DAY] {
        world.set_clock(seconds);
        let event = world.sim.world().append(Stream::AuditEvents, When::Now);
        wait_until("an event arrives after the step", SOON, || {
            world.sim.world().delivered(Stream::AuditEvents, &event) == 1
        })
        .await;
        let tick = browser.status().await.feeds[0].last_good;
        browser.wait_for("/status.json", &[], SOON, |answer| document(&answer.body).feeds[0].last_good > tick).await;
        for path in ["/readyz", "/livez"] {
            assert_eq!((browser.get(path).await.status, path), (200, path), "{seconds} s");
        }
        let status = browser.status().await;
        for feed in &status.feeds {
            let at = [feed.last_good, feed.since, status.started];
            assert!(at.iter().flatten().all(|at| *at <= status.now), "{seconds} s: {at:?} at {}", status.now);
            assert!(feed.lag_seconds.is_some_and(|lag| lag < SOON.as_secs()), "{seconds} s: {feed:?}");
            assert!(feed.next_tick.is_none_or(|next| next <= status.now + SOON), "{seconds} s: {feed:?}");
        }
    }
    wait_until("everything arrives", SOON, || world.sim.world().compare().lost == 0).await;
    agent.stop().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: the servers' clocks jump a day back, then two days ahead, between runs. Shows: exit 0 each time, after a second answer that agrees, everything arrives once.
#[tokio::test]
async fn fm_15_clocks_of_the_servers_that_jump_lose_nothing() {
    let world = World::file(history(60)).await;
    world.once().await.exits(0);
    for days in [-1, 2] {
        world.sim.world().shift_clock(chrono::TimeDelta::days(days));
        Stream::ALL.into_iter().for_each(|stream| _ = world.sim.world().append(stream, When::Now));
        world.once().await.exits(0);
    }
    world.assert_exactly_once();
}

/// Fault: a first start whose introspection alone says a time 400 days ahead; a run of a cap shorter than the wait. Shows: `once` says so and ships all 40 events, stopped early it exits 1.
#[tokio::test]
async fn fm_46_one_wrong_time_at_the_first_start_is_waited_out() {
    let ahead = |world: &World, count| {
        world.fault(Fault { count: Some(count), ..Fault::new(Target::Introspect, What::WrongDate { days: 400 }) });
    };
    let whole = async {
        let world = World::file(history(40)).await;
        ahead(&world, 1);
        let ran = world.once().await.exits(0);
        assert!(ran.stderr.contains("400 d ahead of this host's clock"), "{}", ran.stderr);
        world.assert_exactly_once();
    };
    let cut = async {
        let world = World::file(history(40)).await;
        ahead(&world, 9);
        world.cli(&["once", "--max-duration", "2s"]).await.exits(1).says(&["1Password's clock says"]);
        assert_eq!(world.rows().len(), 0);
    };
    tokio::join!(whole, cut);
}

/// Fault: a host clock before 1970, and one after 2262. Shows: the start is refused with exit 1 and the remedy, nobody is asked, no panic; with the right clock everything arrives once.
#[tokio::test]
async fn fm_45_a_host_clock_out_of_all_reason_refuses_the_start() {
    let mut world = World::file(history(30)).await;
    for years in [-70, 300] {
        world.set_clock(years * YEAR);
        for command in ["once", "run", "check"] {
            world.cli(&[command]).await.exits(1).says(&["the clock of this host", "set it"]);
        }
    }
    assert_eq!(world.sim.world().journal().len(), 0);
    world.set_clock(0);
    world.once().await.exits(0);
    world.assert_exactly_once();
}
