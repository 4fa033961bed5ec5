//! The system call filter of the units, applied by the kernel to the real program while it ships.
//!
//! Applied are the sets of calls, the address families and the ban on memory that is writable and executable, each refused as EPERM.

use crate::agent::{Agent, wait_until};
use crate::supervised::Host;
use crate::units::{ONCE, SERVICE, Unit, systemd_analyze};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const EPERM: u32 = 1;
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;

/// Every call of a set; sets are made of calls and sets.
fn calls_of(set: &str) -> BTreeSet<String> {
    let listed = systemd_analyze(&["syscall-filter", set]);
    assert!(listed.status.success(), "{set}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names = listed.lines().skip(1).map(str::trim).filter(|name| !name.is_empty() && !name.starts_with('#'));
    names.flat_map(|name| if name.starts_with('@') { calls_of(name) } else { [name.to_owned()].into() }).collect()
}

/// What a unit allows: the sets of its first line and `@default`, without those of its line with `~`.
fn allowed(unit: &Unit) -> BTreeSet<String> {
    let mut allowed = calls_of("@default");
    for line in unit.all("SystemCallFilter") {
        let (sets, without) = line.strip_prefix('~').map_or((line, false), |sets| (sets, true));
        for call in sets.split(' ').flat_map(calls_of) {
            if without { _ = allowed.remove(&call) } else { _ = allowed.insert(call) }
        }
    }
    allowed
}

/// The numbers of the calls that this machine's kernel has, as the C compiler knows them.
fn numbers() -> BTreeMap<String, i64> {
    let mut cc =
        Command::new("cc").args(["-dM", "-E", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cc.stdin.take().unwrap().write_all(b"#include <sys/syscall.h>\n").unwrap();
    let macros = String::from_utf8(cc.wait_with_output().unwrap().stdout).unwrap();
    let defined: BTreeMap<&str, &str> =
        macros.lines().filter_map(|line| line.strip_prefix("#define ")?.split_once(' ')).collect();
    let number = |text: &str| text.parse().ok().or_else(|| defined.get(text)?.parse().ok());
    let calls = defined.iter().filter_map(|(name, text)| Some((name.strip_prefix("__NR_")?.to_owned(), number(text)?)));
    calls.collect()
}

fn when(argument: u8, is: SeccompCmpOp, value: u64) -> SeccompRule {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value).unwrap()]).unwrap()
}

/// `but`: a call that is refused beyond what the unit says.
fn filter(unit: &Unit, but: Option<&str>) -> BpfProgram {
    let numbers = numbers();
    let family = |name: &str| match name {
        "AF_UNIX" => when(0, SeccompCmpOp::Eq, 1),
        "AF_INET" => when(0, SeccompCmpOp::Eq, 2),
        "AF_INET6" => when(0, SeccompCmpOp::Eq, 10),
        other => panic!("{other}: give its number here"),
    };
    assert_eq!((unit.one("MemoryDenyWriteExecute"), unit.one("SystemCallErrorNumber")), ("yes", "EPERM"));
    let rules = |call: &str| match call {
        "socket" => unit.one("RestrictAddressFamilies").split(' ').map(family).collect(),
        "mmap" => [PROT_WRITE, PROT_EXEC].map(|bit| when(2, SeccompCmpOp::MaskedEq(bit), 0)).into(),
        "mprotect" => vec![when(2, SeccompCmpOp::MaskedEq(PROT_EXEC), 0)],
        _ => Vec::new(),
    };
    let allowed = allowed(unit).into_iter().filter(|call| Some(call.as_str()) != but);
    let rules: BTreeMap<_, _> = allowed.filter_map(|call| Some((*numbers.get(&call)?, rules(&call)))).collect();
    assert!(rules.len() > 150, "{}", rules.len());
    let native = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(EPERM), SeccompAction::Allow, native);
    filter.unwrap().try_into().unwrap()
}

/// Starts a process in a thread that the filter is applied to: what it starts inherits it.
fn confined<T: Send>(filter: &BpfProgram, start: impl FnOnce() -> T + Send) -> T {
    let runtime = tokio::runtime::Handle::current();
    let thread = || {
        let _inside = runtime.enter();
        seccompiler::apply_filter(filter).unwrap();
        start()
    };
    std::thread::scope(|scope| scope.spawn(thread).join().unwrap())
}

fn is_confined(agent: &Agent) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    status.lines().any(|line| line == "Seccomp:\t2") && status.lines().any(|line| line == "NoNewPrivs:\t1")
}

#[tokio::test]
async fn the_service_ships_and_drains_under_its_filter() {
    let host = Host::with(SERVICE).await;
    let agent = confined(&filter(&Unit::read(SERVICE), None), || host.starts());
    host.hears_until("READY=1").await;
    assert!(is_confined(&agent));
    wait_until("a heartbeat", SOON, || host.world.heartbeats() > 0).await;
    agent.stop().await.exits(0).says(&["drained; every position is saved"]);
    host.world.assert_exactly_once();
}

/// Names are looked up by the C library, whose sockets are under the filter as well.
#[tokio::test]
async fn names_are_looked_up_under_the_filter() {
    let look_up = || Command::new("getent").args(["ahosts", "localhost"]).output().unwrap();
    let found = confined(&filter(&Unit::read(SERVICE), None), look_up);
    assert!(found.status.success() && !found.stdout.is_empty(), "{found:?}");
}

#[tokio::test]
async fn a_run_by_the_timer_and_a_check_succeed_under_the_filter() {
    let host = Host::with(ONCE).await;
    let filter = filter(&Unit::read(ONCE), None);
    confined(&filter, || host.starts()).end().await.exits(0);
    host.world.assert_exactly_once();
    let config = host.world.home.path().join("config.toml").display().to_string();
    let checked = confined(&filter, || host.runs(&["check", "--config", &config])).end().await;
    checked.exits(0);
}

/// The filter bites: without one call that shipping needs, nothing is shipped.
#[tokio::test]
async fn without_a_call_that_it_needs_the_program_ships_nothing() {
    for call in ["socket", "fsync", "flock"] {
        let host = Host::with(ONCE).await;
        let ended = confined(&filter(&Unit::read(ONCE), Some(call)), || host.starts()).end().await;
        assert_ne!(ended.code, Some(0), "{call}: {}", ended.stderr);
        assert!(host.world.rows().is_empty(), "{call}");
    }
}

/// And it bites where the argument of a call decides: memory that is written and then run, as Node needs it, and a socket of another family.
#[tokio::test]
async fn code_made_at_run_time_and_other_sockets_are_refused() {
    let filter = filter(&Unit::read(SERVICE), None);
    let node = || Command::new("node").args(["-e", "process.exit(7)"]).output().unwrap().status.code();
    assert_eq!(node(), Some(7));
    assert_ne!(confined(&filter, node), Some(7));
    let netlink = || {
        let script = "socket(my $s, 16, 3, 0) or die $!";
        String::from_utf8(Command::new("perl").args(["-e", script]).output().unwrap().stderr).unwrap()
    };
    assert_eq!(netlink(), "");
    assert!(confined(&filter, netlink).contains("not permitted"));
}
