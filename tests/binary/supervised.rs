//! The program as systemd starts it: the units' own command lines, the packaged configuration, a credential, a notify socket.

use crate::agent::Agent;
use crate::units::{ONCE, SERVICE, Unit, packaged};
use crate::world::{World, history};
use opship::sim::{Fault, Refusal, Target, What};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixDatagram;

const EVENTS: usize = 90;
const SOON: Duration = Duration::from_secs(60);

/// A host on which a unit is installed.
pub struct Host {
    pub world: World,
    unit: Unit,
    /// systemd's end.
    notified: UnixDatagram,
    /// As the unit's process gets it.
    pub environment: BTreeMap<String, String>,
}

impl Host {
    pub async fn with(name: &str) -> Self {
        let world = World::file(history(EVENTS)).await;
        let unit = Unit::read(name);
        let home = world.home.path();
        let (credential, _) = unit.one("LoadCredential").split_once(':').unwrap();
        // As systemd leaves it: mode 0400, and no line end of its own.
        let credential = world.secret_file(credential, &world.sim.token());
        std::fs::set_permissions(&credential, PermissionsExt::from_mode(0o400)).unwrap();
        let credentials = credential.parent().unwrap().display().to_string();
        let sim = world.sim.environment().into_iter().filter(|(name, _)| name.starts_with("IDENTITY_"));
        // Where every systemd from 247 on puts them.
        let place = format!("/run/credentials/{name}");
        let set = unit.all("Environment").map(|setting| setting.replace(&place, &credentials));
        let set = set.map(|setting| setting.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap());
        let mut environment: BTreeMap<String, String> = set.chain(sim).collect();
        let socket = home.join("notify");
        for (name, value) in [
            ("CREDENTIALS_DIRECTORY", credentials),
            ("STATE_DIRECTORY", home.join("state").display().to_string()),
            ("NOTIFY_SOCKET", socket.display().to_string()),
        ] {
            environment.insert(name.into(), value);
        }
        let notified = UnixDatagram::bind(&socket).unwrap();
        let host = Self { world, unit, notified, environment };
        std::fs::write(host.config(), host.configuration()).unwrap();
        host
    }

    fn config(&self) -> PathBuf {
        self.world.home.path().join("config.toml")
    }

    /// The packaged one, its blanks filled in, and what the simulator needs.
    fn configuration(&self) -> String {
        let (sim, packaged) = (&self.world.sim, std::fs::read_to_string(packaged("config.toml")).unwrap());
        let (base, rule) = (sim.base_url(), sim.world().dcr_immutable_id());
        let state = self.world.home.path().join("state").display().to_string();
        let mut text = packaged;
        for (blank, filled) in [
            ("[sink]", format!("events_url = \"{base}\"\n\n[sink]")),
            ("# endpoint = \"https://NAME.REGION-1.ingest.monitor.azure.com\"", format!("endpoint = \"{base}\"")),
            ("# dcr_immutable_id = \"dcr-00000000000000000000000000000000\"", format!("dcr_immutable_id = \"{rule}\"")),
            ("\"/var/lib/opship\"", format!("\"{state}\"")),
        ] {
            assert_eq!(text.matches(blank).count(), 1, "{blank}");
            text = text.replace(blank, &filled);
        }
        text + "[schedule]\nevery = \"1s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[delivery]\nallow_insecure_loopback = true\n"
    }

    /// The arguments behind ExecStart's program, the configuration being where this test has it.
    fn arguments(&self) -> Vec<String> {
        let mut words = self.unit.one("ExecStart").split_whitespace();
        assert_eq!(words.next(), Some("/usr/bin/opship"));
        let config = self.config().display().to_string();
        words.map(|word| word.replace("/etc/opship/config.toml", &config)).collect()
    }

    pub fn starts(&self) -> Agent {
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.runs(&arguments)
    }

    pub fn runs(&self, arguments: &[&str]) -> Agent {
        let environment = self.environment.clone();
        Agent::start(self.world.home.path(), arguments, environment, self.world.canary())
    }

    /// The next thing that systemd hears. It may be shown to everyone, so no secret is in it.
    #[track_caller]
    fn hears(&self) -> impl Future<Output = String> {
        let place = std::panic::Location::caller();
        async move {
            let mut buffer = [0; 4096];
            let heard = tokio::time::timeout(SOON, self.notified.recv(&mut buffer)).await;
            let length = heard.unwrap_or_else(|_| panic!("{place}: nothing was said in time")).unwrap();
            assert_eq!(self.world.canary().found(&buffer[..length]), None);
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        }
    }

    /// Everything until this is said, it included.
    pub async fn hears_until(&self, last: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|said| said != last) {
            heard.push(self.hears().await);
        }
        heard
    }

    /// What is left in the socket.
    fn was_told(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let rest = std::iter::from_fn(|| self.notified.try_recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()));
        rest.map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    }
}

const WELL: &str = "STATUS=All is well: 3 feeds ship.";

#[tokio::test]
async fn the_service_says_that_it_runs_how_it_is_that_it_lives_and_that_it_ends_and_ships() {
    let mut host = Host::with(SERVICE).await;
    let within = Duration::from_secs(6);
    host.environment.insert("WATCHDOG_USEC".into(), within.as_micros().to_string());
    let agent = host.starts();
    let first = host.hears_until("READY=1").await;
    assert!(first.iter().any(|said| said.ends_with("are starting: no tick has been completed yet.")), "{first:?}");
    host.hears_until(WELL).await;
    assert_eq!(host.world.rows().len(), EVENTS, "all is well when everything was shipped");

    host.hears_until("WATCHDOG=1").await;
    for _ in 0..2 {
        let since = Instant::now();
        assert_eq!(host.hears_until("WATCHDOG=1").await.len(), 1, "nothing else has changed");
        let away = since.elapsed();
        assert!(away > within / 4 && away < within, "{away:?}");
    }

    agent.terminate();
    let last = host.hears_until("STOPPING=1").await;
    assert!(last.iter().all(|said| said != "READY=1" && said != WELL), "{last:?}");
    let ended = agent.end().await.exits(0).says(&["drained; every position is saved"]);
    assert!(!ended.stderr.contains("chmod"), "a credential of mode 0400 is as it should be: {}", ended.stderr);
    host.world.assert_exactly_once();
}

#[tokio::test]
async fn a_run_by_the_timer_ships_and_leaves_the_rest_to_the_next_and_then_the_service_goes_on_where_it_stood() {
    let mut host = Host::with(ONCE).await;
    for shipped in ["45 shipped", "0 shipped"] {
        host.starts().end().await.exits(0).says(&[shipped]);
        assert_eq!(host.world.rows().len(), EVENTS);
    }
    assert_eq!(host.was_told(), [""; 0], "a oneshot has nothing to say");
    host.unit = Unit::read(SERVICE);
    let agent = host.starts();
    host.hears_until(WELL).await;
    agent.stop().await.exits(0);
    host.world.assert_exactly_once();
}

/// Fault: the rule refuses the heartbeats while there is nothing to ship. Shows: systemd's status line stops saying that all is well.
#[tokio::test]
async fn fm_60_systemd_hears_that_the_health_rows_are_refused() {
    let host = Host::with(SERVICE).await;
    let agent = host.starts();
    host.hears_until(WELL).await;
    agent.stop().await.exits(0);
    host.was_told();
    host.world.fault(Fault::new(Target::Ingestion, What::Status(Refusal::status(403))));
    let agent = host.starts();
    host.hears_until("STATUS=All 3 feeds are held up and try again by themselves: waits for the destination.").await;
    agent.stop().await.exits(0);
    host.world.assert_exactly_once();
}

/// Fault: `systemctl reload`, as the unit has it, while the token is the copy that systemd made. Shows: the unit lives, says that a restart is needed, and promises no reload to systemd that it could not keep.
#[tokio::test]
async fn fm_72_a_reload_of_the_unit_says_that_a_credential_is_a_copy() {
    let host = Host::with(SERVICE).await;
    assert_eq!(host.unit.one("ExecReload"), "/bin/kill -HUP $MAINPID");
    let agent = host.starts();
    host.hears_until(WELL).await;
    agent.signal(rustix::process::Signal::HUP);
    crate::agent::wait_until("it is answered", SOON, || agent.stderr().contains("nothing has changed")).await;
    let ended = agent.stop().await.exits(0).says(&["accounts.default.token", "LoadCredential", "restart the unit"]);
    assert!(!ended.stderr.contains("the secret cannot be read"), "{}", ended.stderr);
    assert!(host.was_told().iter().all(|said| !said.contains("RELOADING")));
    host.world.assert_exactly_once();
}

#[tokio::test]
async fn a_socket_that_nobody_hears_costs_one_warning_and_no_event() {
    let mut host = Host::with(SERVICE).await;
    host.environment.insert("NOTIFY_SOCKET".into(), host.world.home.path().join("nobody").display().to_string());
    host.environment.insert("WATCHDOG_USEC".into(), "100000".into());
    let agent = host.starts();
    crate::agent::wait_until("a heartbeat", SOON, || host.world.heartbeats() > 0).await;
    let ended = agent.stop().await.exits(0);
    assert_eq!(ended.stderr.matches("systemd cannot be told").count(), 1, "{}", ended.stderr);
    host.world.assert_exactly_once();
}

/// The blanks of the packaged configuration are named, and systemd leaves it at that.
#[tokio::test]
async fn a_fresh_installation_says_which_settings_are_missing_and_is_not_started_over_and_over() {
    for (unit, command) in [(SERVICE, None), (ONCE, None), (SERVICE, Some("check"))] {
        let host = Host::with(unit).await;
        std::fs::copy(packaged("config.toml"), host.config()).unwrap();
        let config = host.config().display().to_string();
        let agent = command.map_or_else(|| host.starts(), |command| host.runs(&[command, "--config", &config]));
        agent.end().await.exits(64).says(&["sink.endpoint", "sink.dcr_immutable_id", "missing"]);
        assert_eq!(host.was_told(), [""; 0]);
        assert!(host.world.sim.world().journal().is_empty());
    }
    assert!(Unit::read(SERVICE).one("RestartPreventExitStatus").split(' ').any(|code| code == "64"));
}

/// The paths that the units and the packaged configuration name are those that systemd makes.
#[test]
fn units_and_configuration_speak_of_the_same_places() {
    let config: toml::Table = std::fs::read_to_string(packaged("config.toml")).unwrap().parse().unwrap();
    for name in [SERVICE, ONCE] {
        let unit = Unit::read(name);
        let state = Path::new("/var/lib").join(unit.one("StateDirectory"));
        assert_eq!(config["store"]["path"].as_str(), state.to_str());
        let settings = Path::new("/etc").join(unit.one("ConfigurationDirectory"));
        assert!(unit.one("ExecStart").ends_with(settings.join("config.toml").to_str().unwrap()));
        let (_, token) = unit.one("LoadCredential").split_once(':').unwrap();
        assert_eq!(Path::new(token).parent(), Some(&*settings));
        assert_eq!(config["accounts"]["default"]["token"].as_str(), Some(&*format!("file:{token}")));
    }
}
