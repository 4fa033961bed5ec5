//! The steps of `check` about the store: what a SAS gives, whether it works, and what stands in it.

use super::network::{Clocks, Place, long};
use super::plural;
use super::source::Subject;
use super::step::{Finding, Pending, Plan};
use super::twins::told as twins_told;
use super::twins::{Subjects, twin, unread};
use crate::agent::chain;
use crate::cli::Exit;
use crate::config::{self, Config, Lookback};
use crate::flow::FeedId;
use crate::flow::checkpoint::{Checkpoint, Decoded, Fingerprints};
use crate::private::Standing;
use crate::store::checkpoints::{CheckpointError, Checkpoints, Loaded};
use crate::store::{Store, StoreError};
use crate::wire::{Ground, Outside, WireError};
use chrono::TimeDelta;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

/// A SAS that ends sooner is told.
const SAS_NOTED: TimeDelta = TimeDelta::days(7);
/// With less, the next segment or checkpoint may not be written.
const ROOM_LEAST: u64 = 64 << 20;
/// Less room than this is told: positions and ledger of a large account take less in their 121 days.
const ROOM_NOTED: u64 = 512 << 20;
const RENEW: &str = "put a SAS with sp=racwdl and sr=c into store.container_url, or remove it and give the identity in [azure] the \
    role \"Storage Blob Data Contributor\" on the container";

/// Where the position is kept.
pub(crate) struct Keeping {
    pub(crate) config: Arc<Config>,
    pub(crate) outside: Arc<Outside>,
}

impl Keeping {
    /// The address of a blob store.
    pub(crate) fn place(&self) -> Option<Place> {
        match &self.config.store {
            config::Store::AzureBlob { container } => {
                Some(Place::of("store", container.0.clone(), "store.container_url"))
            }
            config::Store::File { .. } | config::Store::Unset => None,
        }
    }

    pub(crate) fn is_by_identity(&self) -> bool {
        self.place().is_some() && self.outside.sas().is_none()
    }

    /// What the SAS says of itself.
    pub(crate) fn sas(&self, clocks: &Arc<Clocks>, connection: Option<&Pending>) -> Option<Pending> {
        let (sas, clocks) = (self.outside.sas()?, clocks.clone());
        Some(Plan::new("store", "SAS").after(connection).run(async move {
            let now = clocks.now();
            let day = |time: crate::flow::Time| time.format("%Y-%m-%dT%H:%MZ").to_string();
            if let Some(end) = sas.expires.filter(|end| *end <= now) {
                let said = format!("expired {} ago, on {}", long(now - end), day(end));
                return Finding::fail(Exit::Credentials, said, RENEW);
            }
            if let Some(start) = sas.starts.filter(|start| *start > now) {
                let said = format!("is not valid before {}", day(start));
                return Finding::fail(Exit::Credentials, said, RENEW);
            }
            let missing = sas.missing();
            if !missing.is_empty() {
                let given = sas.permissions.unwrap_or_default();
                let said = format!("gives no right to {} (sp={given})", missing.join(", "));
                return Finding::fail(Exit::Credentials, said, RENEW);
            }
            let rights = sas.permissions.map_or("rights by a stored access policy".into(), |sp| format!("rights {sp}"));
            match sas.expires {
                Some(end) if end - now < SAS_NOTED => {
                    Finding::warn(format!("{rights}, expires in {}, on {}", long(end - now), day(end)), RENEW)
                }
                Some(end) => Finding::ok(format!("{rights}, expires in {}, on {}", long(end - now), day(end))),
                None => Finding::ok(format!("{rights}, expiry by a stored access policy")),
            }
        }))
    }

    /// Whether the store does what the agent relies on.
    pub(crate) fn works<'a>(&self, needs: impl IntoIterator<Item = &'a Pending>) -> Pending {
        let (config, outside) = (self.config.clone(), self.outside.clone());
        Plan::new("store", "").needs(needs).run(async move {
            let proved = match outside.store_as_it_is().await {
                Ok(Some(store)) => store.probe().await,
                Ok(None) => match outside.rehearse().await {
                    Some(proved) => proved,
                    None => return no_container(&config, &outside),
                },
                Err(WireError::Store(error)) => Err(error),
                Err(error) => return Finding::fail(Exit::Usage, chain(&error), "correct [store]"),
            };
            match proved {
                Ok(said) => grounded(said, outside.ground()),
                Err(error) => refused(&config, &error),
            }
        })
    }

    /// What stands in the store for an account.
    pub(crate) fn state(
        &self,
        subject: &Arc<Subject>,
        all: &Subjects,
        store: &Pending,
        accounts: &[Pending],
    ) -> Pending {
        let (config, outside, subject, all) = (self.config.clone(), self.outside.clone(), subject.clone(), all.clone());
        let plan = Plan::new("state", subject.name.as_str()).needs([store]).after(accounts);
        plan.run(async move {
            match outside.store_as_it_is().await {
                Ok(store) => match stood(store.as_ref(), &subject, &all, &outside, &config).await {
                    Ok(finding) => finding,
                    Err(CheckpointError::Store(error)) => refused(&config, &error),
                    Err(error) => unread(error),
                },
                Err(WireError::Store(error)) => refused(&config, &error),
                Err(error) => Finding::fail(Exit::Usage, chain(&error), "correct [store]"),
            }
        })
    }
}

/// What the folder itself adds to what was proved.
fn grounded(said: String, ground: Option<Ground>) -> Finding {
    let Some(Ground { exists, standing, free_bytes }) = ground else { return Finding::ok(said) };
    let said = if exists { said } else { format!("{said}; the folder is made by the first run") };
    match (standing, free_bytes) {
        (_, Some(free)) if free < ROOM_LEAST => Finding::fail(
            Exit::Failed,
            format!("{said}; only {} MiB are free", free >> 20),
            "free space on this file system: without room nothing is shipped",
        ),
        (_, Some(free)) if free < ROOM_NOTED => Finding::warn(
            format!("{said}; only {} MiB are free", free >> 20),
            "free space on this file system: without room nothing is shipped",
        ),
        (Some(standing), _) => Finding::ok(said + &shared(standing)),
        (None, _) => Finding::ok(said),
    }
}

/// Who else may change what is in the folder, where that is as it should be: an `emptyDir`, a volume with an `fsGroup`, a share.
fn shared(standing: Standing) -> String {
    let Standing { group, mode, is_mount_point, .. } = standing;
    let where_it_is = if is_mount_point { "; it is a mount point" } else { "" };
    if standing.is_open_to_all() {
        format!("{where_it_is}, and every user who reaches it may replace or delete what is in it (mode {mode:04o})")
    } else if standing.is_open_to_its_group() {
        format!("{where_it_is}; group {group} may replace or delete what is in it (mode {mode:04o})")
    } else {
        where_it_is.into()
    }
}

fn no_container(config: &Config, outside: &Outside) -> Finding {
    let place = match &config.store {
        config::Store::AzureBlob { container } => container.without_sas(),
        config::Store::File { .. } | config::Store::Unset => String::new(),
    };
    let said = format!("there is no container {place}");
    match outside.sas() {
        Some(sas) if !sas.of_account => Finding::fail(
            Exit::Usage,
            said,
            "create the container, or correct its name in store.container_url; a SAS of the container itself cannot create it",
        ),
        Some(_) | None => Finding::warn(
            said,
            "the first run creates it if it may (role \"Storage Blob Data Contributor\" on the storage account); if it should \
             be there already, correct its name in store.container_url",
        ),
    }
}

/// A store that does not do what it should.
fn refused(config: &Config, error: &StoreError) -> Finding {
    let of_blobs = matches!(config.store, config::Store::AzureBlob { .. });
    match error {
        StoreError::Refused { attempted: _, on, remedy, cause } => {
            let why = cause.as_deref().map(|cause| brief(&chain(cause))).unwrap_or_default();
            // The status and the code; Azure's own sentence names causes that are none.
            let why = if of_blobs { why.split(' ').take(3).collect::<Vec<_>>().join(" ") } else { why };
            let why = if why.is_empty() { why } else { format!(": {why}") };
            let exit = if of_blobs { Exit::Credentials } else { Exit::Failed };
            let kind = cause.as_deref().and_then(|cause| Some(cause.downcast_ref::<std::io::Error>()?.kind()));
            let said = match kind.filter(|_| !of_blobs) {
                Some(ErrorKind::NotADirectory | ErrorKind::AlreadyExists) => format!("{on}: it is no directory"),
                Some(ErrorKind::NotFound) => format!("{on}: it cannot be made{why}"),
                _ => format!("{on}: access was refused{why}"),
            };
            Finding::fail(exit, said, remedy.clone())
        }
        StoreError::Failed { attempted, on, cause } => {
            let (why, remedy) = match cause.source() {
                Some(system) if !of_blobs => (chain(system), cause.to_string()),
                _ => (brief(&chain(&**cause)), if of_blobs { BLOB_FAILED.into() } else { FILE_FAILED.into() }),
            };
            Finding::fail(Exit::Failed, format!("{on}: {} failed: {why}", act(attempted)), remedy)
        }
        StoreError::Unfit { .. } => Finding::fail(Exit::Failed, error.to_string(), StoreError::FIT),
        StoreError::Locked { .. } => Finding::fail(Exit::Failed, error.to_string(), StoreError::UNLOCK),
        StoreError::Conflict { .. } | StoreError::WrongPosition { .. } | StoreError::Full { .. } => {
            Finding::fail(Exit::Failed, error.to_string(), "check again: somebody else wrote at the same place")
        }
    }
}

const BLOB_FAILED: &str = "check that store.container_url names a container of a storage account for blobs, then again";
const FILE_FAILED: &str = "check the disk and its mount, or point store.path elsewhere";

/// "write of", "append to": what was tried, to be followed by what became of it.
fn act(attempted: &str) -> String {
    let act = attempted.trim_end_matches(" of").trim_end_matches(" to");
    format!("the {act}")
}

/// Without the request's number and time that Azure appends.
fn brief(text: &str) -> String {
    text.split("\\u{a}").next().unwrap_or(text).to_owned()
}

fn first_start(config: &Config) -> String {
    let from = match config.schedule.lookback {
        Lookback::Back(by) => format!("{} back", long(TimeDelta::from_std(by).unwrap_or_default())),
        Lookback::From(time) => format!("at {time}"),
        Lookback::Now => "with what happens from now on".into(),
    };
    format!("no position yet: the first run starts {from}")
}

/// What was found of the feeds of one account.
#[derive(Default)]
struct Stand {
    positions: usize,
    newest: Option<Duration>,
    held: Vec<String>,
    open: Vec<String>,
    unreadable: Vec<String>,
    too_new: Vec<String>,
    foreign: Vec<(String, &'static str)>,
}

async fn stood(
    store: Option<&Arc<dyn Store>>,
    subject: &Subject,
    all: &Subjects,
    outside: &Outside,
    config: &Config,
) -> Result<Finding, CheckpointError> {
    if let Some(twin) = twin(subject, all, outside, store).await? {
        return Ok(twins_told(&twin));
    }
    let Some(store) = store else { return Ok(Finding::ok(first_start(config))) };
    let place = subject.source.as_ref().map(|source| source.place()).unwrap_or_default();
    let uuid = subject.who.get().and_then(|who| who.account_uuid.as_deref());
    let now = outside.sink_place().ok().map(|sink| Fingerprints::new(&place, uuid, &sink));
    let checkpoints = Checkpoints::new(store.clone(), "check".into());
    let mut stand = Stand::default();
    for stream in &subject.account.streams {
        let feed = FeedId { account: subject.name.clone(), stream: *stream };
        // Read, never loaded: loading puts an unreadable one aside.
        let Some(object) = store.get(&Checkpoints::key(&feed)).await? else { continue };
        stand.positions += 1;
        let age = object.age.unwrap_or_default();
        stand.newest = Some(stand.newest.map_or(age, |newest| newest.min(age)));
        match Checkpoint::decode(&object.bytes) {
            Decoded::Good(checkpoint) => {
                if let Some(now) = &now {
                    // Without a token read, nobody knows where this account lives.
                    let source_is_known = !place.is_empty();
                    stand.foreign.extend(
                        difference(&checkpoint.fingerprints, now, source_is_known)
                            .map(|what| (stream.to_string(), what)),
                    );
                }
                let open = checkpoint.slot.intent().is_some();
                let loaded = Loaded { checkpoint: *checkpoint, version: object.version, age, is_guessed: false };
                match checkpoints.held_by_other(&loaded).await {
                    Ok(Some(_)) => stand.held.push(stream.to_string()),
                    _ if open => stand.open.push(stream.to_string()),
                    _ => {}
                }
            }
            Decoded::Corrupt(why) => stand.unreadable.push(format!("{stream} ({why})")),
            Decoded::TooNew { writer, .. } => stand.too_new.push(format!("{stream} (by {writer})")),
        }
    }
    Ok(told(&stand, config))
}

fn difference(stored: &Fingerprints, now: &Fingerprints, source_is_known: bool) -> Option<&'static str> {
    match () {
        () if stored.sink != now.sink => Some("destination"),
        () if source_is_known && stored.source != now.source => Some("1Password address"),
        () if matches!((&stored.account, &now.account), (Some(then), Some(now)) if then != now) => {
            Some("1Password account")
        }
        () => None,
    }
}

fn told(stand: &Stand, config: &Config) -> Finding {
    let Some(newest) = stand.newest else { return Finding::ok(first_start(config)) };
    if let Some((_, what)) = stand.foreign.first() {
        let feeds: Vec<&str> = stand.foreign.iter().map(|(feed, _)| feed.as_str()).collect();
        return Finding::fail(
            Exit::Usage,
            format!("the position of {} belongs to another {what}", feeds.join(", ")),
            "if the change is meant, run `opship checkpoint adopt`; if not, put the former settings back, or point [store] at this \
             setup's own place",
        );
    }
    if !stand.too_new.is_empty() {
        let said = format!("a newer opship wrote the position of {}", stand.too_new.join(", "));
        return Finding::fail(Exit::Usage, said, "upgrade this program");
    }
    if !stand.unreadable.is_empty() {
        return Finding::warn(
            format!("the position of {} is unreadable", stand.unreadable.join(", ")),
            "nothing to do: the next run puts it aside and starts from the fallback copy; the ledger keeps that free of duplicates",
        );
    }
    let age = long(TimeDelta::from_std(newest).unwrap_or_default());
    let mut said = format!("{}, last written {age} ago", plural(stand.positions, "position"));
    if !stand.held.is_empty() {
        said.push_str(&format!("; another process ships {} now", stand.held.join(", ")));
    }
    if !stand.open.is_empty() {
        said.push_str(&format!(
            "; a batch of {} is open since its process ended: the next run settles it",
            stand.open.join(", ")
        ));
    }
    Finding::ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_almost_full_fails_and_one_that_soon_may_be_is_told() {
        for (free_mib, expected) in [(0, "fail"), (63, "fail"), (64, "warn"), (511, "warn"), (512, "ok")] {
            let ground = Ground { exists: true, standing: None, free_bytes: Some(free_mib << 20) };
            let finding = grounded("works".into(), Some(ground));
            assert_eq!(finding.status.name(), expected, "{free_mib} MiB");
        }
    }
}
