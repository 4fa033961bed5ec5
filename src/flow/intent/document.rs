//! The slot as a document, and what others may read of an intent.

use super::{BatchKind, Draft, INTENT_TTL, Intent, Slot, State};
use crate::flow::checkpoint::Unknown;
use crate::flow::map::sha256_hex;
use crate::flow::totals::{Doubt, InDoubt};
use crate::flow::{EventId, EventKey, Hour, Time};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

impl Intent {
    pub(super) fn new(seq: u64, attempt: u32, draft: Draft<'_>) -> Self {
        let mut by_hour: BTreeMap<Hour, Vec<EventId>> = BTreeMap::new();
        for (key, _) in &draft.rows {
            by_hour.entry(key.hour).or_default().push(key.id);
        }
        by_hour.values_mut().for_each(|ids| ids.sort_unstable());
        let bytes = |ids: &[EventId]| ids.iter().flat_map(|id| id.0).collect::<Vec<u8>>();
        let mut text = format!("{}\n{seq}\n", draft.stream).into_bytes();
        by_hour.values().for_each(|ids| text.extend(bytes(ids)));
        let times = || draft.rows.iter().filter_map(|(_, timestamp)| *timestamp);
        Self {
            batch_id: sha256_hex(&text).chars().take(32).collect(),
            kind: draft.kind,
            ids: by_hour.iter().map(|(hour, ids)| (hour.to_string(), BASE64_STANDARD.encode(bytes(ids)))).collect(),
            from: times().min(),
            to: times().max(),
            owner: draft.owner.to_owned(),
            attempt,
            recoveries: 0,
            suspect: None,
            ttl_s: INTENT_TTL.as_secs(),
            advance: draft.advance,
            unknown: Unknown::new(),
        }
    }

    pub(super) fn doubt(&self, rows: u64, why: String, at: Time) -> Doubt {
        Doubt { batch_id: self.batch_id.clone(), rows, attempt: self.attempt, why, at, unknown: Unknown::new() }
    }

    /// 32 hex digits.
    pub fn batch_id(&self) -> &str {
        &self.batch_id
    }

    pub fn batch_id_bytes(&self) -> [u8; 16] {
        u128::from_str_radix(&self.batch_id, 16).unwrap_or_default().to_be_bytes()
    }

    pub const fn kind(&self) -> BatchKind {
        self.kind
    }

    /// Earliest and latest event timestamp; none when no timestamp could be read.
    pub const fn times(&self) -> (Option<Time>, Option<Time>) {
        (self.from, self.to)
    }

    /// Names the process that posts it.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// POSTs of this batch so far that may have been accepted, and the one under way.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How often the batch was taken over after a crash or a tick that gave up: paces the recoveries.
    pub const fn recoveries(&self) -> u32 {
        self.recoveries
    }

    /// How long it keeps other processes from posting, behind each write.
    pub fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl_s).max(INTENT_TTL)
    }

    pub fn refusals_of(&self, id: EventId) -> u32 {
        let suspect = self.suspect.as_ref().filter(|suspect| suspect.id == id.to_string());
        suspect.map_or(0, |suspect| suspect.refusals)
    }

    /// Whether all of these are events of the batch.
    pub(super) fn names(&self, rows: &[(EventKey, Option<Time>)]) -> bool {
        let keys: HashSet<EventKey> = self.keys().into_iter().collect();
        rows.iter().all(|(key, _)| keys.contains(key))
    }

    /// The events of the batch; what cannot be read is left out (the checksum makes that impossible for our own writing).
    pub fn keys(&self) -> Vec<EventKey> {
        let mut keys = Vec::new();
        for (hour, ids) in &self.ids {
            let Some(hour) = Hour::parse(hour) else { continue };
            let bytes = BASE64_STANDARD.decode(ids).unwrap_or_default();
            keys.extend(bytes.as_chunks::<16>().0.iter().map(|id| EventKey { hour, id: EventId(*id) }));
        }
        keys
    }
}

/// The fields of a slot in the document, as they are written.
#[derive(Serialize)]
struct Written<'a> {
    seq: u64,
    intent: Option<&'a Intent>,
    in_doubt: &'a InDoubt,
}

/// The same, as they are read.
#[derive(Deserialize)]
struct Read {
    seq: u64,
    intent: Option<Intent>,
    #[serde(default)]
    in_doubt: InDoubt,
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written { seq: self.seq, intent: self.intent(), in_doubt: &self.in_doubt }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { seq, intent, in_doubt } = Read::deserialize(deserializer)?;
        let state = intent.map_or(State::Idle, |intent| State::Found(intent.into()));
        Ok(Self { seq, state, in_doubt })
    }
}

/// As stored: what a process knows beyond the document is no difference.
impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        (self.seq, self.intent(), &self.in_doubt) == (other.seq, other.intent(), &other.in_doubt)
    }
}
