//! The systemd units: clean, hardened, alike, and read the way systemd reads them.

use crate::world::{World, history};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const SERVICE: &str = "opship.service";
pub const ONCE: &str = "opship-once.service";
const TIMER: &str = "opship.timer";
/// In tenths; what must reach the internet gets down to 11.
const EXPOSURE_MAX: &str = "15";

pub struct Unit(Vec<(String, String)>);

impl Unit {
    pub fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(packaged(name)).unwrap();
        assert!(!text.contains("\\\n"), "{name}: one setting, one line");
        let settings =
            text.lines().filter(|line| !line.starts_with(['#', '[', ' '])).filter_map(|line| line.split_once('='));
        Self(settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    pub fn all<'u>(&'u self, key: &str) -> impl Iterator<Item = &'u str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn one(&self, key: &str) -> &str {
        let found: Vec<_> = self.all(key).collect();
        assert_eq!(found.len(), 1, "{key}: {found:?}");
        found[0]
    }
}

/// What the packages install.
pub fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd").join(name)
}

#[track_caller]
pub fn systemd_analyze(args: &[&str]) -> Output {
    let ran = Command::new("systemd-analyze").arg("--no-pager").args(args).output();
    ran.unwrap_or_else(|error| panic!("systemd-analyze: {error}: scripts/systemd installs it"))
}

/// `systemd-analyze verify` of all units, the program being where it was built; `spoil` may change the text of each.
fn verified(spoil: impl Fn(String) -> String) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let text = std::fs::read_to_string(packaged(name)).unwrap();
        let text = spoil(text).replace("/usr/bin/opship", env!("CARGO_BIN_EXE_opship"));
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let units = [SERVICE, ONCE, TIMER].map(copy);
    systemd_analyze(&["verify", &units[0], &units[1], &units[2]])
}

fn said(output: &Output) -> String {
    [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let clean = verified(|text| text);
    assert!(clean.status.success() && said(&clean).is_empty(), "{}", said(&clean));
}

#[test]
fn systemd_finds_a_misspelt_setting_a_type_that_is_none_and_a_program_that_is_missing() {
    for (right, wrong) in [
        ("StateDirectory=", "StateDir="),
        ("Type=notify", "Type=notifying"),
        ("/usr/bin/opship", "/usr/bin/opship-is-not-here"),
        ("OnCalendar=*:0/5", "OnCalendar=every now and then"),
    ] {
        let spoilt = verified(|text| text.replace(right, wrong));
        assert!(!said(&spoilt).is_empty(), "{wrong} was not found");
    }
}

#[test]
fn both_services_are_hardened_as_far_as_a_program_that_reaches_the_internet_can_be() {
    for name in [SERVICE, ONCE] {
        let path = packaged(name).display().to_string();
        let rated = systemd_analyze(&["security", "--offline=true", &format!("--threshold={EXPOSURE_MAX}"), &path]);
        assert!(rated.status.success(), "{}", said(&rated));
        assert!(said(&rated).contains("Overall exposure level"), "{}", said(&rated));
        let stricter = systemd_analyze(&["security", "--offline=true", "--threshold=5", &path]);
        assert!(!stricter.status.success(), "the threshold is looked at");
    }
}

#[test]
fn the_two_services_differ_only_in_how_they_run() {
    const THEIR_OWN: [&str; 11] = [
        "Description",
        "Type",
        "NotifyAccess",
        "ExecStart",
        "ExecReload",
        "WatchdogSec",
        "Restart",
        "RestartSec",
        "RestartPreventExitStatus",
        "TimeoutStartSec",
        "WantedBy",
    ];
    let of = |name| {
        let settings = Unit::read(name).0.into_iter();
        let of_both = |key: &str, value: &str| !THEIR_OWN.contains(&key) && value != TIMER;
        let settings = settings.filter(|(key, value)| of_both(key, value));
        // Each unit has a folder of credentials under its own name.
        settings.map(|(key, value)| (key, value.replace(&format!("/run/credentials/{name}/"), ""))).collect::<Vec<_>>()
    };
    assert!(of(SERVICE).len() > 30);
    assert_eq!(of(SERVICE), of(ONCE));
}

/// Fault: thousands of feeds in a unit. Shows: both units let them have a connection each, three times over.
#[test]
fn fm_67_the_units_have_descriptors_for_thousands_of_feeds() {
    for name in [SERVICE, ONCE] {
        let limit: usize = Unit::read(name).one("LimitNOFILE").parse().unwrap();
        assert!(limit >= 3 * 3 * 5000 && limit.is_power_of_two(), "{name}: {limit}");
    }
}

/// Fault: pages made to cost, in a unit. Shows: both units end a process that takes more than twice the memory that such pages can make it take.
#[test]
fn fm_66_the_units_bound_the_memory() {
    for name in [SERVICE, ONCE] {
        assert_eq!(Unit::read(name).one("MemoryMax"), "512M", "{name}");
    }
}

#[test]
fn the_timer_and_the_service_exclude_each_other_and_the_timer_comes_every_five_minutes() {
    let (timer, service) = (Unit::read(TIMER), Unit::read(SERVICE));
    assert_eq!((timer.one("Conflicts"), service.one("Conflicts")), (SERVICE, TIMER));
    assert_eq!(timer.one("Unit"), ONCE);
    assert!(Unit::read(ONCE).all("Conflicts").next().is_none(), "a run by hand must not stop the service");
    let from = "--base-time=2026-01-01 00:01:00 UTC";
    let calendar = systemd_analyze(&["calendar", from, "--iterations=3", timer.one("OnCalendar")]);
    assert!(calendar.status.success(), "{}", said(&calendar));
    for minute in ["00:05:00", "00:10:00", "00:15:00"] {
        assert!(said(&calendar).contains(minute), "{}", said(&calendar));
    }
}

/// What a person types or does when the script asks for it; `sudo` and `systemctl` are not for a test.
const PERSON: &str = r#"
sudo() { "$@"; }
systemctl() { echo "systemctl $*" >> "$ROOT/log"; }
sudoedit() { sed -i -e "s|^# endpoint = .*|endpoint = \"$BASE\"|" -e "s|^# dcr_immutable_id = .*|dcr_immutable_id = \"$RULE\"|" "$1"; }
"#;

/// The commands of the document, in a folder instead of `/`.
fn installed_as_documented(world: &World, root: &Path) {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/systemd.md")).unwrap();
    let (_, section) = document.split_once("## From the binary to a running unit").unwrap();
    let commands = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(commands.lines().count(), 5, "{commands}");
    let here = commands.replace("target/release/opship", env!("CARGO_BIN_EXE_opship"));
    let here = here.replace(" /etc/", " $ROOT/etc/").replace(" /usr/bin/", " $ROOT/usr/bin/");
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    let token = world.secret_file("typed", &format!("{}\n", world.sim.token()));
    let ran = Command::new("bash")
        .args(["-e", "-c", &[PERSON, &here].concat()])
        .envs([("ROOT", root.to_str().unwrap()), ("BASE", world.sim.base_url())])
        .env("RULE", world.sim.world().dcr_immutable_id())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::from(std::fs::File::open(token).unwrap()))
        .output()
        .unwrap();
    assert!(ran.status.success() && said(&ran).is_empty(), "{}", said(&ran));
}

#[tokio::test]
async fn the_five_commands_of_the_document_end_in_units_and_a_program_that_ships() {
    let (mut world, root) = (World::file(history(30)).await, tempfile::tempdir().unwrap());
    installed_as_documented(&world, root.path());
    let there = |path: &str| root.path().join(path);
    let mode = |path: &str| there(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("etc/opship/token"), mode("etc/opship/config.toml"), mode("usr/bin/opship")),
        (0o600, 0o644, 0o755)
    );
    for name in [SERVICE, ONCE, TIMER] {
        let unit = std::fs::read(there("etc/systemd/system").join(name)).unwrap();
        assert!(unit == std::fs::read(packaged(name)).unwrap(), "{name}");
    }
    let systemctl = std::fs::read_to_string(there("log")).unwrap();
    assert_eq!(systemctl, "systemctl daemon-reload\nsystemctl enable --now opship.service\n");

    for set_by_the_file in ["SINK__KIND", "SINK__ENDPOINT", "SINK__DCR_IMMUTABLE_ID", "SINK__STREAM", "STORE__KIND"] {
        world.unset(&format!("OPSHIP_{set_by_the_file}"));
    }
    world.set("OPSHIP_ACCOUNTS__DEFAULT__TOKEN", format!("file:{}", there("etc/opship/token").display()));
    let config = there("etc/opship/config.toml").display().to_string();
    let program = there("usr/bin/opship").display().to_string();
    for (command, says) in [("check", "ok"), ("once", "shipped")] {
        world.start_by(&[&program], &[command, "--config", &config]).end().await.exits(0).says(&[says]);
    }
    world.assert_exactly_once();
}
