//! `opship backfill`: a range before the position, beside the live feed, killed and resumed.
//!
//! `OPSHIP_BACKFILL_EVENTS=100000` raises the range that is killed five times from a few thousand events.

use crate::agent::{Agent, wait_until};
use crate::world::{Kind, World, history};
use opship::flow::Stream;
use opship::flow::checkpoint::Checkpoint;
use opship::sim::{Fault, Options, Refusal, Service, Target, What};
use serde_json::Value;
use std::time::{Duration, Instant};

both_stores! {
    a_backfill_killed_five_times_beside_the_live_feed_ships_each_event_and_every_copy_is_traceable
}

const KILLS: u64 = 5;
const SOON: Duration = Duration::from_secs(120);
/// Rows of a batch at most, hence copies per doubt.
const BATCH_ROWS: u64 = 500;
/// Feeds of a world.
const FEEDS: u64 = 3;
/// The live feed's timer, faster than the default of a minute: more ticks that may meet the backfill.
const EVERY: &str = "10s";
/// A feed that met the backfill at work looks again 5 s later at the latest: so many looks in a row, and so many of these ticks, fit into
/// a tick of a minute.
const BUSY_IN_A_ROW_MAX: usize = 11;
const SKIPPED_MAX: u64 = 5;

/// A world whose feeds began after its history, so that all of it lies before their positions.
async fn world_with_a_past(kind: Kind, options: Options) -> World {
    let mut world = World::behind_a_gate(kind, options).await;
    world.set("OPSHIP_SCHEDULE__LOOKBACK", "now").set("OPSHIP_DELIVERY__BATCH_ROWS_MAX", BATCH_ROWS);
    world
}

/// What of a checkpoint no backfill may move.
fn position(cp: &Checkpoint) -> String {
    let mut json = serde_json::to_value(cp).unwrap();
    for counted in ["seq", "write_id", "written_at", "totals", "in_doubt", "intent", "ledger"] {
        json.as_object_mut().unwrap().remove(counted);
    }
    json.to_string()
}

async fn positions(world: &World) -> Vec<String> {
    let mut positions = Vec::new();
    for stream in Stream::ALL {
        positions.push(position(&world.checkpoint(stream).await));
    }
    positions
}

/// The figures of a feed's line in JSON.
fn figures(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sum(lines: &[Value], name: &str) -> u64 {
    lines.iter().map(|line| line[name].as_u64().unwrap_or_else(|| panic!("{name} in {line}"))).sum()
}

/// How punctual the live feeds were, by their log.
#[derive(Debug, Default)]
struct Punctuality {
    /// Good ticks of all feeds.
    good: usize,
    /// Attempts that met the backfill at work: of all feeds, and the most in a row of one.
    busy: usize,
    busiest: usize,
    /// The most ticks skipped at once.
    skipped_most: u64,
}

fn punctuality(log: &str) -> Punctuality {
    let mut seen = Punctuality::default();
    for stream in Stream::ALL {
        let mut busy = 0;
        for line in log.lines().filter(|line| line.contains(&format!("default/{stream}"))) {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            match line["message"].as_str().unwrap_or_default() {
                text if text.starts_with("another process ships this feed") => {
                    (busy, seen.busy) = (busy + 1, seen.busy + 1);
                }
                "shipped" | "nothing new" => (busy, seen.good) = (0, seen.good + 1),
                _ => {}
            }
            seen.busiest = seen.busiest.max(busy);
            seen.skipped_most = seen.skipped_most.max(line["skipped"].as_u64().unwrap_or_default());
        }
    }
    seen
}

fn events() -> usize {
    std::env::var("OPSHIP_BACKFILL_EVENTS").map_or(6_000, |text| text.parse().unwrap())
}

fn live(world: &mut World) -> Agent {
    world.set("OPSHIP_SCHEDULE__EVERY", EVERY);
    let agent = world.start(&["run"]);
    world.unset("OPSHIP_SCHEDULE__EVERY");
    agent
}

/// Fault: a backfill beside `opship run` is killed (kill -9) five times. Shows: given again each time it finishes; each event of past and
/// present arrived; copies come from batches in doubt alone and stand in the ledger; the live feed was never more than a tick late.
async fn a_backfill_killed_five_times_beside_the_live_feed_ships_each_event_and_every_copy_is_traceable(kind: Kind) {
    let (events, begun) = (events(), Instant::now());
    let mut world =
        world_with_a_past(kind, Options { live_per_second: 6.0, rate_limits: false, ..history(events) }).await;
    world.sim.world().set_live(0.0);
    world.once().await.exits(0);
    assert_eq!(world.rows().len(), 0, "the past lies before every position");
    world.sim.world().set_live(6.0);
    let running = live(&mut world);
    let args = ["--output", "json", "backfill", "--from", "3d"];
    let step = events as u64 / (KILLS + 1);
    for kill in 1..=KILLS {
        let backfill = world.start(&args);
        let rows = || world.sim.world().compare().rows;
        let patience = SOON + Duration::from_millis(events as u64 * 10);
        wait_until("the backfill gets on", patience, || rows() >= step * kill).await;
        backfill.kill().await;
        // On blobs nobody can tell that the owner of an intent is dead: it expires.
        if kind == Kind::Blob {
            world.an_hour_passes();
        }
    }
    let last = world.start(&args);
    let done = last.end().await.exits(0);
    let lines = figures(&done.stdout);
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line["complete"] == true), "{}", done.stdout);
    assert!(done.stderr.contains("an unfinished backfill of this range was found"), "{}", done.stderr);

    world.sim.world().stop_generator();
    wait_until("the live events arrive", SOON, || world.sim.world().compare().lost == 0).await;
    let live = punctuality(&running.stderr());
    running.stop().await.exits(0);
    world.once().await.exits(0);
    let audit = world.audit().await;
    let (doubts, compared) = (audit.doubts(), &audit.compared);
    println!(
        "{kind:?}: {events} events, {KILLS} kills, {:.0} s: {} generated, {} rows, {} lost, {} copies, {doubts} doubts, {} untraceable; \
         {live:?}",
        begun.elapsed().as_secs_f64(),
        compared.generated,
        compared.rows,
        compared.lost,
        compared.duplicated,
        audit.untraceable(),
    );
    audit.assert_sound();
    assert!(doubts <= KILLS * FEEDS && compared.duplicated <= doubts * BATCH_ROWS, "{doubts} doubts, {compared:?}");
    assert!(audit.feeds.iter().all(|feed| feed.checkpoint.slot.in_doubt().gone == 0), "events called gone");
    assert!(live.good >= 3 && live.busiest <= BUSY_IN_A_ROW_MAX && live.skipped_most <= SKIPPED_MAX, "{live:?}");
    assert_eq!(world.store().await.list("backfill/").await.unwrap(), [], "a finished range leaves nothing behind");

    let again = figures(&world.cli(&args).await.exits(0).stdout);
    assert_eq!(sum(&again, "shipped"), 0);
    assert!(sum(&again, "known") >= events as u64);
}

#[tokio::test]
async fn a_backfill_ships_what_is_missing_once_and_leaves_the_position_alone() {
    let world = world_with_a_past(Kind::File, history(600)).await;
    world.once().await.exits(0);
    let before = positions(&world).await;
    let posts = world.posts();

    let args = ["--output", "json", "backfill", "--from", "3d", "--dry-run"];
    let counted = figures(&world.cli(&args).await.exits(0).says(&["counting"]).stdout);
    assert_eq!((sum(&counted, "would_ship"), sum(&counted, "known"), sum(&counted, "read")), (600, 0, 600));
    assert_eq!((world.posts(), world.rows().len()), (posts, 0), "a dry run posts nothing");
    assert_eq!(world.store().await.list("backfill/").await.unwrap(), []);

    let one = ["backfill", "--from", "3d", "--stream", "itemusages"];
    let usages = world.sim.world().uuids(Stream::ItemUsages).len();
    let told = world.cli(&one).await.exits(0);
    told.says(&[
        "events older than 2 days",
        "TimeGenerated",
        &format!("default/itemusages: {usages} read, 0 known, {usages} shipped"),
    ]);
    assert_eq!(world.rows().len(), usages);

    world.cli(&["backfill", "--from", "3d"]).await.exits(0);
    world.assert_exactly_once();
    assert_eq!(positions(&world).await, before, "no cursor, watermark or mark moved");
    let counted = figures(&world.cli(&args).await.exits(0).stdout);
    assert_eq!((sum(&counted, "would_ship"), sum(&counted, "known")), (0, 600));
    world.once().await.exits(0).says(&["0 shipped"]);
    world.assert_exactly_once();
    assert_eq!(world.store().await.list("backfill/").await.unwrap(), []);
}

#[tokio::test]
async fn a_wrong_range_a_feed_without_a_position_and_an_unknown_feed_are_refused_before_anything_is_done() {
    let world = world_with_a_past(Kind::File, history(90)).await;
    let no_position = ["default/itemusages has no position yet", "opship once"];
    world.cli(&["backfill", "--from", "3d"]).await.exits(1).says(&no_position);
    world.cli(&["backfill", "--from", "3d", "--dry-run"]).await.exits(1).says(&no_position);
    assert_eq!(world.store().await.list("checkpoints/").await.unwrap(), [], "nothing was created");
    world.once().await.exits(0);
    let posts = world.posts();
    for (args, expected) in [
        (&["--from", "2d", "--to", "3d"][..], "exchange them"),
        (&["--from", "130d"], "the earliest possible is"),
        (&["--from", "2199-01-01"], "lies in the future"),
        (&["--from", "soon"], "expected a time such as"),
        (&["--to", "1d"], "--from <TIME>"),
        (&["--from", "3d", "--stream", "itemuses"], "a stream is auditevents"),
        (&["--from", "3d", "--account", "other"], "no configured feed matches"),
    ] {
        let ran = world.cli(&[&["backfill"], args].concat()).await.exits(64).says(&[expected]);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
    assert_eq!(world.posts(), posts);
    world.cli(&["backfill", "--from", "3d", "--to", "2199-01-01"]).await.exits(0).says(&["the range ends now"]);
}

/// Fault: the destination refuses everything from the second batch on, then the token is revoked. Shows: exit 1 and 77 with what to do,
/// what was shipped stays shipped, the same command finishes.
#[tokio::test]
async fn a_backfill_that_fails_half_way_says_what_to_do_and_the_same_command_finishes_it() {
    let world = world_with_a_past(Kind::File, history(900)).await;
    world.once().await.exits(0);
    world.fault(Fault::new(Target::Ingestion, What::Status(Refusal::status(404))).from(3));
    let args = ["backfill", "--from", "3d"];
    world.cli(&args).await.exits(1).says(&[
        "404",
        "next: the data collection rule",
        "then the same command goes on",
        "ended at",
    ]);
    let rows = world.rows().len();
    assert!((1..900).contains(&rows), "{rows} rows");
    world.sim.world().clear_faults();
    world.sim.world().revoke_token();
    world.cli(&args).await.exits(77).says(&["401"]);
    world.sim.world().restore_token();
    // The range of the first run, and behind it what has come since: to the end that this run announces.
    let ran = world.cli(&args).await.exits(0);
    let to = ran.stderr.split(" to ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let ranges: Vec<_> = ran.stdout.lines().filter(|line| line.contains(" shipped, of ")).collect();
    assert!(!ranges.is_empty() && ranges.iter().all(|line| line.ends_with(&format!(" to {to}"))), "{ran:?}");
    world.assert_exactly_once();
    assert_eq!(world.store().await.list("backfill/").await.unwrap(), []);
}

/// Fault: SIGTERM in the middle. Shows: it ends in time with exit 1, says how to go on, and the next run does.
#[tokio::test]
async fn a_backfill_that_is_asked_to_end_says_how_to_go_on() {
    let world = world_with_a_past(Kind::File, history(900)).await;
    world.once().await.exits(0);
    world.fault(Fault::new(Target::Ingestion, What::Delay { ms: 300 }));
    let backfill = world.start(&["backfill", "--from", "3d"]);
    wait_until("it begins", SOON, || !world.rows().is_empty()).await;
    let ended = backfill.stop().await.exits(1).says(&["stopped", "then the same command goes on"]);
    assert!(ended.took < Duration::from_secs(25), "{:?}", ended.took);
    world.sim.world().clear_faults();
    world.cli(&["backfill", "--from", "3d"]).await.exits(0);
    world.assert_exactly_once();
}

/// Fault: the progress of an earlier run was damaged, or belongs to another destination. Shows: the range starts again, nothing twice.
#[tokio::test]
async fn damaged_progress_is_put_away_and_the_ledger_keeps_the_range_free_of_duplicates() {
    let world = world_with_a_past(Kind::File, history(900)).await;
    world.once().await.exits(0);
    world.fault(Fault::new(Target::Ingestion, What::Status(Refusal::status(404))).from(4));
    world.cli(&["backfill", "--from", "3d"]).await.exits(1);
    let store = world.store().await;
    let kept = store.list("backfill/").await.unwrap();
    assert!(!kept.is_empty());
    for entry in &kept {
        store.put(&entry.key, "{}".into(), opship::store::Expect::Anything).await.unwrap();
    }
    world.sim.world().clear_faults();
    world.cli(&["backfill", "--from", "3d"]).await.exits(0).says(&["the progress of a backfill is unreadable"]);
    world.assert_exactly_once();
    assert_eq!(store.list("backfill/").await.unwrap(), []);
}

#[tokio::test]
async fn a_backfill_takes_no_more_than_half_of_the_request_budget() {
    // Small pages: as many requests as the budget lets through in the first minute.
    let world = world_with_a_past(Kind::File, history(60)).await;
    world.once().await.exits(0);
    let from = world.sim.world().requests();
    // One window a day: 118 windows for each of three feeds.
    let backfill = world.start(&["backfill", "--from", "118d", "--dry-run"]);
    let reads = || {
        let journal = world.sim.world().journal_from(from);
        journal.iter().filter(|entry| matches!(entry.service, Service::Events(_))).count()
    };
    wait_until("half of the budget is used", SOON, || reads() >= 300).await;
    let stopped = backfill.stop().await;
    assert!(reads() <= 301, "{} requests", reads());
    stopped.exits(1);
}
