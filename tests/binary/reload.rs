//! Signals that are no request to end: SIGHUP reads again and tries now, the others change nothing.

use crate::agent::{Agent, wait_until};
use crate::world::{Kind, World, history};
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, RetryAfter, Service, Target, What};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Less than a feed waits by itself after a refused token, so that what comes within it was asked for.
const SOON: Duration = Duration::from_secs(60);
/// What others send to daemons for reasons of their own, and what a closed pipe and a size limit send.
const OTHERS: [Signal; 4] = [Signal::USR1, Signal::USR2, Signal::PIPE, Signal::XFSZ];
const READ_AGAIN: &str = "read again";

/// Whose token stands in a file.
fn with_a_token_file(world: &mut World) -> std::path::PathBuf {
    let file = world.secret_file("token", &world.sim.token());
    // The one that a rotation replaces must not be found either.
    let first = world.sim.token();
    world.secret(&first);
    world.set("OPSHIP_ACCOUNTS__DEFAULT__TOKEN", format!("file:{}", file.display())).unset("OP_EVENTS_TOKEN");
    file
}

fn has_asked(world: &World) -> bool {
    world.sim.world().journal().iter().any(|entry| matches!(entry.service, Service::Events(_)))
}

async fn hung_up(agent: &Agent) {
    let before = agent.stderr().matches(READ_AGAIN).count();
    agent.signal(Signal::HUP);
    wait_until("the signal is answered", SOON, || agent.stderr().matches(READ_AGAIN).count() > before).await;
}

/// Fault: SIGUSR1, SIGUSR2, SIGPIPE and SIGXFSZ reach `run` and `once`. Shows: both go on and ship everything once.
#[tokio::test]
async fn fm_72_user_signals_a_broken_pipe_and_a_size_limit_end_nothing() {
    let world = World::file(history(60)).await;
    world.fault(Fault::new(Target::Ingestion, What::Delay { ms: 2000 }));
    let agent = world.start(&["once"]);
    wait_until("it is at work", SOON, || has_asked(&world)).await;
    OTHERS.iter().for_each(|signal| agent.signal(*signal));
    agent.end().await.exits(0);
    world.assert_exactly_once();
    world.sim.world().clear_faults();

    world.sim.world().set_live(10.0);
    let agent = world.run();
    wait_until("it is at work", SOON, || world.rows().len() > 60).await;
    for signal in OTHERS {
        let rows = world.rows().len();
        agent.signal(signal);
        wait_until("more rows arrive", SOON, || world.rows().len() > rows).await;
    }
    agent.stop().await.exits(0);
}

/// Fault: what reads the log ends. Shows: the agent goes on and ships.
#[tokio::test]
async fn fm_72_a_log_that_nobody_reads_any_more_ends_nothing() {
    let mut world = World::file(history(60)).await;
    world.set("OPSHIP_SCHEDULE__EVERY", "1s").sim.world().set_live(10.0);
    let reader = "exec \"$@\" 2> >(head -n 1 > reader.txt)";
    let agent = world.start_by(&["bash", "-c", reader, "bash", env!("CARGO_BIN_EXE_opship")], &["run"]);
    let read = world.home.path().join("reader.txt");
    wait_until("the reader has read its line", SOON, || std::fs::read(&read).is_ok_and(|it| !it.is_empty())).await;
    let rows = world.rows().len();
    wait_until("rows arrive all the same", SOON, || world.rows().len() > rows + 60).await;
    agent.stop().await.exits(0);
}

/// Fault: a token is revoked and replaced in its file while its feeds wait for five minutes. Shows: SIGHUP takes the new one up at once and says so.
#[tokio::test]
async fn fm_72_a_hangup_takes_a_new_token_up_at_once() {
    let mut world = World::file(history(60)).await;
    let file = with_a_token_file(&mut world);
    world.sim.world().revoke_token();
    let agent = world.run();
    wait_until("each feed waits", SOON, || agent.stderr().matches("the tick did not complete").count() >= 3).await;
    std::fs::write(&file, world.sim.world().rotate_token()).unwrap();
    hung_up(&agent).await;
    wait_until("everything arrives", SOON, || world.rows().len() == 60).await;
    let ended = agent.stop().await.exits(0).says(&["accounts.default.token", "another one"]);
    assert_eq!(ended.stderr.matches("nothing has changed").count(), 0, "{}", ended.stderr);
    world.assert_exactly_once();
}

/// Fault: SIGHUP while nothing has changed, then while the file is empty, then while it is gone. Shows: each is said with what to do, what was in use stays, all is shipped once.
#[tokio::test]
async fn fm_72_a_hangup_that_changes_nothing_says_so_and_keeps_what_is_in_use() {
    let mut world = World::file(history(60)).await;
    let file = with_a_token_file(&mut world);
    world.sim.world().set_live(10.0);
    let agent = world.run();
    wait_until("rows arrive", SOON, || world.rows().len() > 60).await;
    hung_up(&agent).await;
    assert!(agent.stderr().contains("nothing has changed"), "{}", agent.stderr());
    std::fs::write(&file, "").unwrap();
    hung_up(&agent).await;
    std::fs::remove_file(&file).unwrap();
    hung_up(&agent).await;
    let rows = world.rows().len();
    wait_until("rows arrive all the same", SOON, || world.rows().len() > rows + 20).await;
    world.sim.world().stop_generator();
    wait_until("everything arrives", SOON, || world.sim.world().compare().lost == 0).await;
    let ended = agent.stop().await.exits(0);
    ended.says(&["the file is empty", "there is no such file", "stays in use"]);
    world.assert_exactly_once();
}

/// Fault: SIGHUP while a token comes from a variable. Shows: that a variable needs a restart is said.
#[tokio::test]
async fn fm_72_a_hangup_says_that_a_variable_needs_a_restart() {
    let world = World::file(history(30)).await;
    let agent = world.run();
    wait_until("everything arrives", SOON, || world.rows().len() == 30).await;
    hung_up(&agent).await;
    agent.stop().await.exits(0).says(&["nothing has changed", "environment variable", "restart opship"]);
}

/// Fault: SIGHUP, again and again, while 1Password or Azure asks for a pause. Shows: nothing is asked before its Retry-After is over.
#[tokio::test]
async fn fm_72_a_hangup_never_shortens_what_a_service_asks_for() {
    const PAUSE: Duration = Duration::from_secs(8);
    // After a 403 or 404 the feed waits for a person, which is what SIGHUP cuts short.
    for (status, target, path) in [
        (429, Target::Stream(Stream::AuditEvents), "/auditevents"),
        (403, Target::Stream(Stream::AuditEvents), "/auditevents"),
        (429, Target::Ingestion, "/streams/"),
        (404, Target::Ingestion, "/streams/"),
    ] {
        let busy = Refusal { retry_after: Some(RetryAfter::Seconds(PAUSE.as_secs())), ..Refusal::status(status) };
        let mut world = World::file(history(60)).await;
        world.set("OPSHIP_ACCOUNTS__DEFAULT__STREAMS", "auditevents");
        world.fault(Fault::new(target, What::Status(busy)).times(1));
        let agent = world.run();
        let asked = || {
            let journal = world.sim.world().journal().into_iter();
            journal.filter(|entry| entry.path.contains(path)).map(|entry| entry.elapsed).collect::<Vec<_>>()
        };
        wait_until("the pause is asked for", SOON, || asked().len() == 1).await;
        while asked().len() < 2 {
            hung_up(&agent).await;
        }
        agent.stop().await.exits(0);
        let asked = asked();
        assert!(asked[1] - asked[0] >= PAUSE, "{status} {path}: {asked:?}");
    }
}

/// Fault: the rule refuses the identity, is opened, and SIGHUP follows. Shows: the batch is posted at once, not a minute after the refusal.
#[tokio::test]
async fn fm_72_a_hangup_tries_a_destination_again_at_once() {
    let world = World::file(history(60)).await;
    let closed = Refusal { code: Some("OperationFailed".into()), ..Refusal::status(403) };
    world.fault(Fault::new(Target::Ingestion, What::Status(closed)));
    let agent = world.run();
    wait_until("each feed waits", SOON, || agent.stderr().matches("a batch was not accepted").count() >= 3).await;
    world.sim.world().clear_faults();
    let since = std::time::Instant::now();
    hung_up(&agent).await;
    wait_until("everything arrives", SOON, || world.rows().len() == 60).await;
    assert!(since.elapsed() < Duration::from_secs(40), "{:?}: by itself it waits for a minute", since.elapsed());
    agent.stop().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: SIGHUP, again and again, at a process that stands by for the open intents of a killed one. Shows: no POST before their time is over, and then none is lost.
#[tokio::test]
async fn fm_72_a_hangup_never_shortens_the_time_of_an_intent() {
    let world = World::behind_a_gate(Kind::Blob, history(60)).await;
    world.fault(Fault::new(Target::Ingestion, What::AcceptThenHang).times(3));
    let agent = world.start(&["once"]);
    wait_until("the POST of each feed hangs", SOON, || world.unanswered() == 3).await;
    agent.kill().await;
    let next = world.run();
    let looks = || next.stderr().matches("standing by").count();
    wait_until("each feed has looked", SOON, || looks() >= 3).await;
    let before = looks();
    while looks() < before + 3 {
        hung_up(&next).await;
    }
    assert_eq!(world.posts(), 3, "nothing is posted while another process may be at it");
    world.an_hour_passes();
    wait_until("the intents are taken over", SOON, || world.posts() >= 6).await;
    next.stop().await.exits(0);
    assert_eq!(world.assert_nothing_lost_and_copies_traceable().await, 60);
}

/// Fault: SIGHUP at a `once` without a terminal, as from a script that rotates logs. Shows: it ends when it is done.
#[tokio::test]
async fn fm_72_a_hangup_does_not_end_a_run_by_the_timer() {
    let world = World::file(history(60)).await;
    let slow = What::Delay { ms: 3000 };
    world.fault(Fault::new(Target::Ingestion, slow));
    let agent = world.start_by(&["setsid", env!("CARGO_BIN_EXE_opship")], &["once"]);
    wait_until("it is at work", SOON, || has_asked(&world)).await;
    agent.signal(Signal::HUP);
    agent.end().await.exits(0).says(&["shipped", "SIGHUP"]);
    world.assert_exactly_once();
}

/// Starts `opship ARGS` on a terminal of its own; the terminal is closed by dropping it.
fn on_a_terminal(world: &World, by: &str, args: &[&str]) -> (Agent, OwnedFd) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    // It leads what runs on the terminal, as a shell does; whoever runs these tests may have them ignore SIGHUP.
    let script = format!("exec < {name}; exec setsid --ctty env --default-signal=HUP {by} \"$@\"");
    (world.start_by(&["bash", "-c", &script, "bash", env!("CARGO_BIN_EXE_opship")], args), terminal)
}

/// Fault: the terminal on which `run` was started is closed. Shows: it ends in order, as its user expects, and everything is saved.
#[tokio::test]
async fn fm_72_a_closed_terminal_ends_what_was_started_on_it() {
    let world = World::file(history(60)).await;
    let (agent, terminal) = on_a_terminal(&world, "", &["run"]);
    wait_until("everything arrives", SOON, || world.rows().len() == 60).await;
    // Anybody else's SIGHUP is none of the terminal's.
    hung_up(&agent).await;
    drop(terminal);
    agent.end().await.exits(0).says(&["asked to end", "every position is saved"]);
    world.assert_exactly_once();
}

/// Fault: the terminal is closed on which `nohup opship run` was started. Shows: it goes on and ships.
#[tokio::test]
async fn fm_72_what_was_started_to_outlive_its_terminal_does() {
    let mut world = World::file(history(60)).await;
    world.set("OPSHIP_SCHEDULE__EVERY", "1s").sim.world().set_live(10.0);
    let (agent, terminal) = on_a_terminal(&world, "nohup", &["run"]);
    wait_until("it is at work", SOON, || world.rows().len() > 60).await;
    let before = agent.stderr().matches(READ_AGAIN).count();
    drop(terminal);
    wait_until("the terminal's end is heard", SOON, || agent.stderr().matches(READ_AGAIN).count() > before).await;
    let rows = world.rows().len();
    wait_until("rows arrive all the same", SOON, || world.rows().len() > rows).await;
    agent.stop().await.exits(0);
}
