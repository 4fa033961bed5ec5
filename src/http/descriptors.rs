//! File descriptors: how many this process may have, and how many of them are for whom.
//!
//! A process without a free one cannot open its store, answer a probe or look a name up, and connections that lie idle never give one
//! back in time. So outgoing connections leave some for everything else.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::Path;
use std::time::Duration;

/// Connections to the admin server that are kept for probes while all others are busy.
pub const PROBE_PLACES: usize = 8;
/// Connections to the admin server at a time, beside those.
const ADMIN_PLACES_MAX: usize = 64;
/// For files of the store, the sink and the log, and for name look-ups: each blocking thread has two or three open.
const FILES_MAX: usize = 48;
/// A feed reads a page, has another fetched and delivers a third, each on a connection of its own at worst.
const CONNECTIONS_PER_FEED: usize = 3;
/// An idle connection is closed after so long: before most servers close it.
const IDLE_MAX: Duration = Duration::from_secs(90);
/// The same where descriptors are short: longer than a feed works on one batch, shorter than a tick.
const IDLE_MAX_SHORT: Duration = Duration::from_secs(15);

/// Raises the soft limit of open files to the hard one: it is 1,024 on most hosts, for the sake of programs that use select(2).
///
/// Where that is not allowed the process goes on with what it has, and [`Demand::warn`] counts with that.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

fn limit() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// How many are open now. Unknown counts as none, that there is none left to look with as all.
pub(super) fn open() -> usize {
    let folder = ["/proc/self/fd", "/dev/fd"].into_iter().find(|path| Path::new(path).exists());
    match folder.map(std::fs::read_dir) {
        // One of them is for looking.
        Some(Ok(entries)) => entries.count().saturating_sub(1),
        Some(Err(error)) if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) => usize::MAX,
        Some(Err(_)) => 0,
        // Nothing can be opened any more, or this system has no such folder.
        None => 0,
    }
}

/// How many connections the admin server takes at a time, the probes' places aside.
pub fn admin_places() -> usize {
    Shares::now().admin
}

/// Who gets how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) limit: usize,
    admin: usize,
    /// An outgoing connection is opened only while fewer than so many are open, whatever for.
    pub(super) outgoing: usize,
}

impl Shares {
    pub(super) fn now() -> Self {
        Self::of(limit())
    }

    pub(super) fn of(limit: usize) -> Self {
        let admin = (limit / 8).clamp(2, ADMIN_PLACES_MAX);
        let kept = admin + PROBE_PLACES + FILES_MAX.min(limit / 8 * 3);
        Self { limit, admin, outgoing: limit.saturating_sub(kept).max(limit / 2) }
    }
}

/// What a configuration will want.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    pub feeds: usize,
    /// Different servers that may be spoken to.
    pub hosts: usize,
}

impl Demand {
    /// Of a command that asks a few servers one after the other.
    pub const SMALL: Self = Self { feeds: 1, hosts: 1 };

    /// A warning where the feeds would have to wait for one another's connections.
    pub fn warn(self) {
        if let Some(Shortage { limit, connections, remedy }) = self.shortage() {
            tracing::warn!(feeds = self.feeds, limit, connections, remedy, "{}", Shortage::WHAT);
        }
    }

    /// `None`: no feed waits for another's connections.
    pub fn shortage(self) -> Option<Shortage> {
        let Shares { limit, outgoing: connections, .. } = Shares::now();
        let enough = self.enough();
        let remedy = format!(
            "raise the limit of open files to {enough} (LimitNOFILE= of a unit, ulimit -n of a shell, --ulimit nofile= of a container)"
        );
        (self.feeds > connections).then_some(Shortage { limit, connections, remedy })
    }

    /// With so many nothing waits; a power of two, as such limits are.
    fn enough(self) -> usize {
        let kept = ADMIN_PLACES_MAX + PROBE_PLACES + FILES_MAX;
        self.feeds.saturating_mul(CONNECTIONS_PER_FEED).saturating_add(kept).next_power_of_two()
    }

    /// How many connections may lie idle per server, and how long.
    pub(super) fn idle(self) -> (usize, Duration) {
        self.idle_of(Shares::now())
    }

    fn idle_of(self, Shares { outgoing, .. }: Shares) -> (usize, Duration) {
        if self.feeds.saturating_mul(CONNECTIONS_PER_FEED) <= outgoing {
            return (usize::MAX, IDLE_MAX);
        }
        // All of them together leave half of the connections for those who need one now. None at all may be the answer.
        (outgoing / 2 / self.hosts.max(1), IDLE_MAX_SHORT)
    }
}

/// What fewer descriptors mean than the feeds want.
#[derive(Clone, Debug)]
pub struct Shortage {
    pub limit: usize,
    /// Outgoing ones at a time.
    pub connections: usize,
    pub remedy: String,
}

impl Shortage {
    pub const WHAT: &str = "fewer files may be open than all feeds need at once: they ship all the same, and wait for one another's connections";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_share_of_any_limit() {
        for limit in [16, 64, 128, 1024, 4096, 65_536, 1 << 30, usize::MAX] {
            let shares = Shares::of(limit);
            assert!(shares.admin >= 2 && shares.outgoing >= limit / 2 && shares.outgoing < limit, "{shares:?}");
        }
        let of = |limit| Shares::of(limit);
        assert_eq!((of(1024).outgoing, of(1024).admin), (904, 64));
        assert_eq!((of(128).outgoing, of(128).admin), (64, 16));
    }

    #[test]
    fn idle_connections_never_take_more_than_half() {
        let idle = |feeds, hosts, limit| Demand { feeds, hosts }.idle_of(Shares::of(limit));
        assert_eq!(idle(3, 8, 1024), (usize::MAX, IDLE_MAX));
        assert_eq!(idle(900, 8, 65_536), (usize::MAX, IDLE_MAX));
        assert_eq!(idle(900, 8, 1024), (56, IDLE_MAX_SHORT));
        assert_eq!(idle(900, 304, 1024), (1, IDLE_MAX_SHORT));
        assert_eq!(idle(180, 64, 128), (0, IDLE_MAX_SHORT));
    }

    #[test]
    fn the_limit_that_is_named_is_enough() {
        let demand = Demand { feeds: 900, hosts: 304 };
        assert_eq!(demand.enough(), 4096);
        assert_eq!(demand.idle_of(Shares::of(demand.enough())), (usize::MAX, IDLE_MAX));
    }

    #[test]
    fn open_files_are_counted() {
        let before = open();
        let held: Vec<_> = (0..5).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests of this process open and close theirs meanwhile.
        assert!(before > 2 && open() > 5 && held.len() == 5);
    }
}
