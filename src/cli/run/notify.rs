//! What systemd hears of `opship run` (sd_notify): that it runs, that it lives, how it is in one line, that it ends.
//!
//! Nothing here waits and nothing here ends the agent. That is why it speaks through the standard library's socket: the crates for
//! this block while systemd is slow.

use crate::admin::public_summary;
use crate::agent::monitor::board::{Board, Moment};
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// The status line changes at most so often; what could not be said is tried again after as long.
const PAUSE: Duration = Duration::from_secs(1);
/// Pings are never closer than this, whatever is asked for.
const PING_PAUSE_MIN: Duration = Duration::from_millis(10);

/// What systemd asks for through the environment.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    socket: Option<OsString>,
    /// How long signs of life may be away.
    watchdog: Option<Duration>,
}

impl Wanted {
    /// `process`: the variables may stand there for another one.
    pub(crate) fn from(variable: impl Fn(&str) -> Option<OsString>, process: u32) -> Self {
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_for_us = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(process));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && is_for_us).map(Duration::from_micros);
        Self { socket: variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()), watchdog }
    }
}

/// Tells systemd how the agent is, for as long as this is polled; says nothing when systemd did not ask.
///
/// - READY once a tick has begun, or once the store could not be opened: `run` waits for it by itself, a restart would not help.
/// - WATCHDOG twice in the time that systemd allows, unless a feed hangs: what `/livez` tells.
pub(crate) async fn keep_telling(wanted: Wanted, board: &Board, stop: &CancellationToken) -> Infallible {
    let Some(line) = wanted.socket.and_then(|name| Line::open(&name)) else { return std::future::pending().await };
    let (mut telling, mut stopping) = (Telling { line, board, ready: false, status: String::new() }, false);
    let mut pings = wanted.watchdog.map(|within| {
        let mut pings = tokio::time::interval((within / 2).max(PING_PAUSE_MIN));
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pings
    });
    let mut news = board.news();
    loop {
        let all_said = telling.tell();
        // The first tick is told at once.
        let again = Instant::now() + if telling.ready { PAUSE } else { Duration::ZERO };
        tokio::select! {
            biased;
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                telling.line.say("STOPPING=1");
            }
            () = next(&mut pings) => if board.hung().is_empty() {
                telling.line.say("WATCHDOG=1");
            },
            () = changed(&mut news, again) => {}
            () = tokio::time::sleep(PAUSE), if !all_said => {}
        }
    }
}

struct Telling<'a> {
    line: Line,
    board: &'a Board,
    ready: bool,
    /// As last said.
    status: String,
}

impl Telling<'_> {
    /// Says what has changed; false when systemd did not take it.
    fn tell(&mut self) -> bool {
        let runs = self.board.obstacle().is_some() || self.board.views().any(|(_, view)| view.tick_began.is_some());
        if runs && !self.ready {
            self.ready = self.line.say("READY=1");
        }
        let status = public_summary(self.board, Moment::now());
        if status != self.status && self.line.say(&format!("STATUS={status}")) {
            self.status.clone_from(&status);
        }
        status == self.status && (self.ready || !runs)
    }
}

async fn next(pings: &mut Option<Interval>) {
    match pings {
        Some(pings) => _ = pings.tick().await,
        None => std::future::pending().await,
    }
}

/// The board has changed, and it is time to look.
async fn changed(news: &mut watch::Receiver<u64>, not_before: Instant) {
    tokio::time::sleep_until(not_before).await;
    if news.changed().await.is_err() {
        std::future::pending().await
    }
}

/// The way to systemd.
struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
    name: OsString,
    complained: bool,
}

impl Line {
    fn open(name: &OsStr) -> Option<Self> {
        let opened = address(name).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Self { socket, address, name: name.to_owned(), complained: false })
        });
        opened.inspect_err(|error| complain(name, error)).ok()
    }

    /// One datagram; false when it was not taken.
    fn say(&mut self, text: &str) -> bool {
        let sent = self.socket.send_to_addr(text.as_bytes(), &self.address);
        if let Err(error) = &sent
            && !self.complained
        {
            self.complained = true;
            complain(&self.name, error);
        }
        sent.is_ok()
    }
}

fn complain(name: &OsStr, error: &io::Error) {
    let name = Path::new(name).display();
    tracing::warn!(path = %name, %error, "systemd cannot be told how the agent is: it ships all the same, but systemd may start it anew");
}

/// A path, or with a leading `@` a name without a file.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Waiting;
    use crate::agent::monitor::board::{Notice, STILL_MAX};
    use crate::config::Timer;
    use crate::flow::{AccountName, FeedId, Stream};
    use std::sync::Arc;

    const WITHIN: Duration = Duration::from_secs(120);

    /// systemd's end of the line, and an agent that is told of in a task of its own.
    struct Scene {
        systemd: UnixDatagram,
        board: Arc<Board>,
        id: FeedId,
        stop: CancellationToken,
        _folder: tempfile::TempDir,
    }

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let id = FeedId { account: AccountName::parse("default").unwrap(), stream: Stream::AuditEvents };
        let board = Arc::new(Board::new([id.clone()], Timer::Every(Duration::from_secs(60))));
        let stop = CancellationToken::new();
        let scene = Scene { systemd, board, id, stop, _folder: folder };
        scene.told_by(Wanted { socket: Some(path.into()), watchdog: Some(WITHIN) });
        scene
    }

    impl Scene {
        fn told_by(&self, wanted: Wanted) {
            let (board, stop) = (self.board.clone(), self.stop.clone());
            tokio::spawn(async move { keep_telling(wanted, &board, &stop).await });
        }

        /// What was said since the last look, once `time` has passed.
        async fn hears_after(&self, time: Duration) -> Vec<String> {
            tokio::time::sleep(time).await;
            let mut buffer = [0; 4096];
            let said = std::iter::from_fn(|| self.systemd.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()));
            said.map(|bytes| String::from_utf8(bytes).unwrap()).collect()
        }

        /// Over so many pings' time; looked at often, since the kernel keeps only a few datagrams.
        async fn pings_over(&self, beats: u64) -> usize {
            let mut pings = 0;
            for _ in 0..beats {
                pings += self.hears_after(WITHIN / 2).await.iter().filter(|said| *said == "WATCHDOG=1").count();
            }
            pings
        }
    }

    const MOMENT: Duration = Duration::from_millis(1);
    const STARTING: &str = "STATUS=default/auditevents is starting: no tick has been completed yet.";

    #[tokio::test(start_paused = true)]
    async fn ready_is_said_when_the_first_tick_begins_and_not_before() {
        let scene = scene();
        assert_eq!(scene.hears_after(MOMENT).await, [STARTING, "WATCHDOG=1"]);
        assert_eq!(scene.hears_after(PAUSE * 10).await, [""; 0]);
        scene.board.panel(&scene.id).tick_began();
        assert_eq!(scene.hears_after(MOMENT).await, ["READY=1"]);
        scene.board.panel(&scene.id).tick_began();
        assert_eq!(scene.hears_after(PAUSE * 2).await, [""; 0], "once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_no_failed_start_and_the_status_keeps_the_words_of_others_to_itself() {
        let scene = scene();
        scene.hears_after(MOMENT).await;
        let what = "https://a.example/?sig=CANARY said CANARY".into();
        let notice = Notice { at: Moment::now(), times: 1, what, waiting: Waiting::Store, remedy: "CANARY".into() };
        scene.board.meets(Some(notice));
        let held_up =
            "STATUS=default/auditevents is held up and tries again by itself: waits for the store.".to_owned();
        assert_eq!(scene.hears_after(MOMENT).await, ["READY=1".to_owned(), held_up]);
        scene.board.meets(None);
        assert_eq!(scene.hears_after(PAUSE * 2).await, [STARTING]);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_come_twice_in_the_time_allowed_until_a_feed_hangs_and_again_when_it_moves() {
        let scene = scene();
        let panel = scene.board.panel(&scene.id);
        panel.tick_began();
        scene.hears_after(MOMENT).await;
        let beats = STILL_MAX.as_secs() / 60;
        assert_eq!(scene.pings_over(beats).await as u64, beats, "nothing hangs before its time");
        assert_eq!(scene.pings_over(100).await, 0, "the feed hangs: systemd is to end it");
        panel.tick_began();
        assert_eq!(scene.pings_over(2).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_said_once_and_pings_go_on_while_the_agent_drains() {
        let scene = scene();
        scene.board.panel(&scene.id).tick_began();
        scene.hears_after(MOMENT).await;
        scene.stop.cancel();
        assert_eq!(scene.hears_after(MOMENT).await, ["STOPPING=1"]);
        assert_eq!(scene.hears_after(WITHIN / 2).await, ["WATCHDOG=1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_systemd_could_not_take_is_said_later() {
        let scene = scene();
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        let path = scene._folder.path().join("notify");
        while filler.send_to(b"filler", &path).is_ok() {}
        scene.board.panel(&scene.id).tick_began();
        let heard = scene.hears_after(PAUSE * 3).await;
        assert!(heard.len() > 1 && heard.iter().all(|said| said == "filler"), "{heard:?}");
        let heard = scene.hears_after(PAUSE * 2).await;
        assert_eq!(heard, ["READY=1", STARTING]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_without_a_file_is_served_and_one_that_nobody_hears_harms_nothing() {
        let scene = scene();
        let name = format!("opship-test-{}", uuid::Uuid::new_v4());
        let address = address(OsStr::new(&format!("@{name}"))).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        systemd.set_nonblocking(true).unwrap();
        for name in [format!("@{name}"), "/nowhere/notify".into(), "x".repeat(200), "vsock:2:1".into()] {
            scene.told_by(Wanted { socket: Some(name.into()), watchdog: None });
        }
        tokio::time::sleep(PAUSE * 5).await;
        let mut buffer = [0; 4096];
        let length = systemd.recv(&mut buffer).unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..length]), Ok(STARTING));
        assert!(systemd.recv(&mut buffer).is_err(), "no watchdog was asked for");
    }

    #[test]
    fn the_environment_is_believed_only_as_far_as_it_is_meant_for_this_process() {
        let wanted = |variables: &[(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).into());
            let wanted = Wanted::from(find, 7);
            (wanted.socket.is_some(), wanted.watchdog.map(|time| time.as_micros()))
        };
        assert_eq!(wanted(&[]), (false, None));
        assert_eq!(wanted(&[("NOTIFY_SOCKET", "")]), (false, None));
        assert_eq!(wanted(&[("NOTIFY_SOCKET", "/s"), ("WATCHDOG_USEC", "3000000")]), (true, Some(3_000_000)));
        assert_eq!(wanted(&[("WATCHDOG_USEC", "5"), ("WATCHDOG_PID", "7")]), (false, Some(5)));
        for (usec, id) in [("5", "8"), ("0", "7"), ("-1", "7"), ("soon", "7")] {
            assert_eq!(wanted(&[("WATCHDOG_USEC", usec), ("WATCHDOG_PID", id)]).1, None, "{usec} {id}");
        }
    }
}
