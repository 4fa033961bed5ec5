//! Connections that cannot be taken: told once with the remedy, and never in a tight loop.

use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Pause after a failed accept: the connection still waits, so that the next one would fail at once.
const PAUSE: Duration = Duration::from_millis(500);
/// What lasts is told again so often.
const TOLD_AGAIN: Duration = Duration::from_secs(600);

/// How accepting has gone.
pub(super) struct Accepts {
    listen: SocketAddr,
    failing: Option<Failing>,
}

struct Failing {
    code: Option<i32>,
    since: Instant,
    told: Instant,
}

/// What to do before the next one is accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    Pause(Duration),
}

impl Accepts {
    pub(super) fn new(listen: SocketAddr) -> Self {
        Self { listen, failing: None }
    }

    /// `error`: how the last accept failed, if it did.
    pub(super) fn judge(&mut self, error: Option<io::Error>) -> Next {
        let Some(error) = error else {
            if let Some(failing) = self.failing.take() {
                let after_s = failing.since.elapsed().as_secs();
                tracing::info!(after_s, "the admin server takes connections again");
            }
            return Next::Go;
        };
        if is_of_the_client(&error) {
            return Next::Go;
        }
        let (code, now) = (error.raw_os_error(), Instant::now());
        let failing = self.failing.as_ref().filter(|failing| failing.code == code);
        if failing.is_none_or(|failing| now.duration_since(failing.told) >= TOLD_AGAIN) {
            let listen = self.listen;
            let (remedy, since) = (remedy(&error), self.failing.as_ref().map_or(now, |failing| failing.since));
            tracing::warn!(%listen, %error, remedy, "the admin server cannot take a connection: pages and probes may not answer");
            self.failing = Some(Failing { code, since, told: now });
        }
        Next::Pause(PAUSE)
    }
}

/// The client was gone before it was taken.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn remedy(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            "this process has no file descriptor left: raise its limit of open files (LimitNOFILE= of a unit, ulimit -n, --ulimit nofile= of a container)"
        }
        Some(Errno::NFILE) => "the host has no file descriptor left: end what holds them, or raise fs.file-max",
        Some(Errno::NOBUFS | Errno::NOMEM) => "the host is short of memory: give it more, or end what needs it",
        _ => "look at the network of this host; shipping goes on",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(errno: Errno) -> Option<io::Error> {
        Some(errno.into())
    }

    #[test]
    fn only_what_lasts_makes_a_pause() {
        let mut accepts = Accepts::new("127.0.0.1:1".parse().unwrap());
        for errno in [Errno::CONNABORTED, Errno::INTR, Errno::CONNRESET] {
            assert_eq!(accepts.judge(failed(errno)), Next::Go, "{errno:?}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(accepts.judge(failed(errno)), Next::Pause(PAUSE), "{errno:?}");
        }
        assert_eq!((accepts.judge(None), accepts.failing.is_none()), (Next::Go, true));
    }

    #[test]
    fn the_remedy_fits_the_cause() {
        let remedy = |errno: Errno| remedy(&errno.into());
        assert!(remedy(Errno::MFILE).contains("LimitNOFILE") && remedy(Errno::NFILE).contains("fs.file-max"));
        assert!(remedy(Errno::NOMEM).contains("memory") && remedy(Errno::NETDOWN).contains("network"));
    }
}
