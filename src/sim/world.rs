//! The simulated outside world: its events, its clock, its troubles, and the record of what happened.

use super::accepted::{Accepted, Comparison};
use super::access::Access;
use super::archive::{Archive, Event};
use super::author::{Author, Draft};
use super::dice::Dice;
use super::fault::{Fault, FaultError};
use super::history::{Plan, delta};
use super::journal::{Entry, Journal};
use super::pace::Pace;
use super::seal::Seal;
use super::shelf::Shelf;
use super::strikes::Faults;
use super::vault::Vault;
use super::{Options, SimError};
use crate::flow::{EventId, Stream, Time};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When an appended event happened; it becomes visible at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Now,
    /// So long ago: a client that synchronised late.
    Late(Duration),
    /// At any time, the future included.
    At(Time),
}

/// State shared by the services, the generator and the test that watches them.
pub struct World {
    pub(super) options: Options,
    pub(super) seal: Seal,
    pub(super) access: Mutex<Access>,
    pub(super) vault: Mutex<Vault>,
    pub(super) accepted: Mutex<Accepted>,
    pub(super) events_pace: Mutex<Pace>,
    pub(super) ingestion_pace: Mutex<Pace>,
    pub(super) query_pace: Mutex<Pace>,
    pub(super) shelf: Mutex<Shelf>,
    pub(super) faults: Mutex<Faults>,
    journal: Mutex<Journal>,
    author: Author,
    archives: [(Stream, Mutex<Archive>); 3],
    started: Instant,
    born: Time,
    clock_offset_nanos: AtomicI64,
    live_per_second: Mutex<f64>,
    /// Number of the next live event. Begins with the date, so that a restarted world repeats no uuid.
    next_live: AtomicU64,
}

impl World {
    /// Writes the history; a fraction of a second for 200,000 events.
    pub(super) fn create(options: Options, host: String) -> Result<Self, SimError> {
        let out = options.rows_out.as_ref().map(|path| {
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
            opened.map_err(|source| SimError::RowsOut { path: path.clone(), source })
        });
        let out = out.transpose()?;
        let offset = options.clock_offset.num_nanoseconds().unwrap_or(0);
        let born = Utc::now() + TimeDelta::nanoseconds(offset);
        let account = Dice::of(options.seed, "account", 0).upper_id();
        let author = Author::new(options.seed, account.clone());
        let plan = Plan {
            seed: options.seed,
            order: options.order,
            events: options.history as u64,
            end: options.history_end.unwrap_or(born),
            span: options.history_span,
            late_share: options.late_share,
            late_max: options.late_max,
        };
        let archives = Stream::ALL.map(|stream| (stream, Mutex::new(plan.write(&author, stream))));
        Ok(Self {
            seal: Seal::new(options.seed),
            access: Mutex::new(Access::new(options.seed, account, host)),
            vault: Mutex::default(),
            accepted: Mutex::new(Accepted::new(out, options.keep_rows)),
            events_pace: Mutex::new(Pace::events()),
            ingestion_pace: Mutex::new(Pace::ingestion()),
            query_pace: Mutex::new(Pace::query()),
            shelf: Mutex::new(Shelf::new(options.seed, options.drop_share, options.ingestion_latency)),
            faults: Mutex::new(Faults::new(options.seed, options.faults.clone())),
            journal: Mutex::default(),
            author,
            archives,
            started: Instant::now(),
            born,
            clock_offset_nanos: AtomicI64::new(offset),
            live_per_second: Mutex::new(options.live_per_second),
            next_live: AtomicU64::new(born.timestamp_nanos_opt().unwrap_or(0).unsigned_abs()),
            options,
        })
    }

    /// The simulator's clock: what its `Date` headers say and its time limits follow.
    pub fn now(&self) -> Time {
        Utc::now() + TimeDelta::nanoseconds(self.clock_offset_nanos.load(Ordering::Relaxed))
    }

    /// Moves the simulator's clock, forward or back.
    pub fn shift_clock(&self, by: TimeDelta) {
        self.clock_offset_nanos.fetch_add(by.num_nanoseconds().unwrap_or(0), Ordering::Relaxed);
    }

    /// Appends a synthetic event and returns its uuid.
    pub fn append(&self, stream: Stream, when: When) -> String {
        self.append_large(stream, when, 0)
    }

    /// Appends a synthetic event with a text of so many bytes in a field that a user controls.
    pub fn append_large(&self, stream: Stream, when: When, text_bytes: usize) -> String {
        let now = self.now();
        let at = match when {
            When::Now => now,
            When::Late(by) => now - delta(by),
            When::At(at) => at,
        };
        let number = self.next_live.fetch_add(1, Ordering::Relaxed);
        let mut raw = Vec::new();
        let written = self.author.write(Draft { stream, label: "live", number, at, text_bytes }, &mut raw);
        let uuid = written.uuid.clone();
        let event =
            Event { raw: raw.into(), uuid: Some(written.uuid.into()), at: written.at, only_v2: written.only_v2 };
        self.archive(stream).insert(event);
        uuid
    }

    /// Appends an item byte for byte, whatever its shape, as of a time. A uuid is known to [`World::compare`] when it can be read.
    pub fn append_raw(&self, stream: Stream, at: Time, raw: impl Into<Bytes>) {
        let raw = raw.into();
        let item = serde_json::from_slice::<Value>(&raw).ok();
        let uuid = item.as_ref().and_then(|item| item.get("uuid")?.as_str()).map(Into::into);
        self.archive(stream).insert(Event { raw, uuid, at, only_v2: [0..0, 0..0] });
    }

    /// Appends an event that exists a second time, the same bytes. False when there is none with this uuid.
    pub fn append_again(&self, stream: Stream, uuid: &str) -> bool {
        let mut archive = self.archive(stream);
        let Some(event) = archive.find(uuid).cloned() else { return false };
        archive.insert(event);
        true
    }

    /// Sets how many live events come in a second, over all streams; 0 stops them.
    pub fn set_live(&self, per_second: f64) {
        *held(&self.live_per_second) = per_second.clamp(0.0, LIVE_PER_SECOND_MAX);
    }

    pub fn stop_generator(&self) {
        self.set_live(0.0);
    }

    pub(super) fn live_per_second(&self) -> f64 {
        *held(&self.live_per_second)
    }

    /// One live event as the options mix them.
    pub(super) fn append_live(&self, dice: &mut Dice) {
        let stream = match dice.below(10) {
            0..=4 => Stream::AuditEvents,
            5..=7 => Stream::ItemUsages,
            _ => Stream::SigninAttempts,
        };
        let late = dice.chance(self.options.late_share);
        self.append(stream, if late { When::Late(self.options.late_max.mul_f64(dice.share())) } else { When::Now });
    }

    /// Puts a fault in force.
    ///
    /// # Errors
    /// A fault that could never strike.
    pub fn add_fault(&self, fault: Fault) -> Result<(), FaultError> {
        Fault::check_all(std::slice::from_ref(&fault))?;
        held(&self.faults).add(fault);
        Ok(())
    }

    pub fn clear_faults(&self) {
        held(&self.faults).clear();
    }

    /// The events token in force, with every feature.
    pub fn token(&self) -> String {
        self.token_for(&Stream::ALL)
    }

    /// An events token with these features only.
    pub fn token_for(&self, features: &[Stream]) -> String {
        let expires = self.options.token_lifetime.map(|lifetime| self.born + delta(lifetime));
        held(&self.access).events_token(features, self.born, expires)
    }

    /// Refuses every events token, until [`World::restore_token`].
    pub fn revoke_token(&self) {
        held(&self.access).revoke();
    }

    pub fn restore_token(&self) {
        held(&self.access).restore();
    }

    /// Issues a new events token and refuses the older ones.
    pub fn rotate_token(&self) -> String {
        held(&self.access).rotate();
        self.token()
    }

    /// Refuses a stream to every token.
    pub fn remove_feature(&self, stream: Stream) {
        held(&self.access).remove_feature(stream);
    }

    pub fn restore_feature(&self, stream: Stream) {
        held(&self.access).restore_feature(stream);
    }

    /// Takes the role on the data collection rule away from the identity.
    pub fn revoke_role(&self) {
        held(&self.access).role_is_granted = false;
    }

    pub fn grant_role(&self) {
        held(&self.access).role_is_granted = true;
    }

    /// The ingestion endpoint no longer takes the Azure tokens issued so far.
    pub fn revoke_azure_tokens(&self) {
        held(&self.access).revoke_azure();
    }

    /// The secret that a managed identity endpoint hands to its container.
    pub fn identity_header(&self) -> String {
        Dice::of(self.options.seed, "identity header", 0).lower_id()
    }

    pub fn tenant_id(&self) -> String {
        self.guid_of("tenant")
    }

    pub fn client_id(&self) -> String {
        self.guid_of("client")
    }

    pub(super) fn guid_of(&self, label: &str) -> String {
        guid(Dice::of(self.options.seed, label, 0))
    }

    /// What Microsoft Entra ID takes from [`World::client_id`].
    pub fn client_secret(&self) -> String {
        Dice::of(self.options.seed, "client secret", 0).lower_id()
    }

    pub fn dcr_immutable_id(&self) -> String {
        format!("dcr-{}", self.guid_of("rule").replace('-', ""))
    }

    /// The one stream that the rule declares.
    pub const fn stream_name(&self) -> &'static str {
        "Custom-OnePasswordEventLogs_CL"
    }

    /// The last requests, oldest first: the journal forgets older ones.
    pub fn journal(&self) -> Vec<Entry> {
        self.journal_from(0)
    }

    /// The requests from this number on.
    pub fn journal_from(&self, number: u64) -> Vec<Entry> {
        held(&self.journal).entries_from(number)
    }

    /// How many requests have come so far.
    pub fn requests(&self) -> u64 {
        held(&self.journal).next()
    }

    pub(super) fn record(&self, entry: Entry) {
        held(&self.journal).push(entry);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The uuids of a stream in the order they became visible, repeated ones included.
    pub fn uuids(&self, stream: Stream) -> Vec<String> {
        self.archive(stream).events().iter().filter_map(|event| event.uuid.as_deref().map(str::to_owned)).collect()
    }

    /// How often an event was accepted by the ingestion endpoint.
    pub fn delivered(&self, stream: Stream, uuid: &str) -> u32 {
        held(&self.accepted).copies(stream, uuid)
    }

    /// Events generated but not accepted.
    pub fn missing(&self, stream: Stream) -> Vec<String> {
        let uuids = self.uuids(stream);
        let accepted = held(&self.accepted);
        uuids.into_iter().filter(|uuid| accepted.copies(stream, uuid) == 0).collect()
    }

    /// The accepted rows as stored, when [`Options::keep_rows`] is set.
    pub fn rows(&self) -> Vec<Value> {
        held(&self.accepted).kept()
    }

    /// Generated against shipped.
    pub fn compare(&self) -> Comparison {
        self.compare_since(Time::MIN_UTC)
    }

    /// Generated against shipped; events older than `since` may be shipped or not.
    pub fn compare_since(&self, since: Time) -> Comparison {
        let (mut generated, mut nameless) = (HashMap::new(), 0);
        for stream in Stream::ALL {
            for event in self.archive(stream).events() {
                match &event.uuid {
                    Some(uuid) => *generated.entry((stream, EventId::of_uuid(uuid))).or_default() |= event.at >= since,
                    None => nameless += 1,
                }
            }
        }
        held(&self.accepted).compare(&generated, nameless)
    }

    #[expect(clippy::expect_used, reason = "the array has an entry for each of Stream::ALL")]
    pub(super) fn archive(&self, stream: Stream) -> MutexGuard<'_, Archive> {
        let mut archives = self.archives.iter();
        held(
            archives.find_map(|(of, archive)| (*of == stream).then_some(archive)).expect("every stream has an archive"),
        )
    }
}

/// More live events in a second would only measure the simulator.
const LIVE_PER_SECOND_MAX: f64 = 100_000.0;

/// Locks, also after a panic elsewhere: every change made under these locks is complete or harmless.
pub(super) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

fn guid(mut dice: Dice) -> String {
    uuid::Uuid::from_u64_pair(dice.roll(), dice.roll()).to_string()
}
