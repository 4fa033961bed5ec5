//! Writes synthetic events: every field of both API versions, straight into bytes.

use super::dice::Dice;
use super::vocabulary as words;
use super::vocabulary::Aux;
use crate::flow::{Stream, Time};
use chrono::{Datelike, TimeDelta, Timelike};
use std::ops::Range;

/// People in the account.
const PEOPLE: u64 = 48;
/// Vaults in the account.
const VAULTS: u64 = 24;

/// Events are within 1677 and 2262, so that reckoning around them stays inside the calendar. Odder times take a raw item.
const EARLIEST: Time = Time::from_timestamp_nanos(i64::MIN + DAY_NANOS);
const LATEST: Time = Time::from_timestamp_nanos(i64::MAX - DAY_NANOS);
const DAY_NANOS: i64 = 86_400_000_000_000;

/// What an event is to be; the rest follows from the seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft<'a> {
    pub(super) stream: Stream,
    /// Keeps the ids of history and live events apart.
    pub(super) label: &'a str,
    pub(super) number: u64,
    pub(super) at: Time,
    /// Length of an extra text in a field that a user controls; 0 for none.
    pub(super) text_bytes: usize,
}

/// An event as it was appended to the buffer.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) uuid: String,
    /// The timestamp as written: fraction digits are cut.
    pub(super) at: Time,
    /// Spans, counted from the event's first byte, that version 1 of the API does not have.
    pub(super) only_v2: [Range<u32>; 2],
}

/// The account whose events are written.
pub(super) struct Author {
    seed: u64,
    account: String,
    /// `{"uuid":..,"name":..,"email":..` without the closing brace.
    people: Vec<(String, String)>,
    clients: Vec<String>,
    places: Vec<(&'static str, String)>,
    vaults: Vec<String>,
}

impl Author {
    pub(super) fn new(seed: u64, account: String) -> Self {
        let clients = words::DEVICES.iter().map(|(app, platform, version, os, os_version)| {
            format!(
                r#""app_name":"{app}","app_version":"81040{:03}","platform_name":"{platform}","platform_version":"{version}","os_name":"{os}","os_version":"{os_version}""#,
                os_version.len()
            )
        });
        let places = words::PLACES.iter().map(|(country, region, city, latitude, longitude)| {
            let place = format!(
                r#"{{"country":"{country}","region":"{region}","city":"{city}","latitude":{latitude},"longitude":{longitude}}}"#
            );
            (*country, place)
        });
        Self {
            seed,
            account,
            people: (0..PEOPLE).map(|n| person(seed, n)).collect(),
            clients: clients.collect(),
            places: places.collect(),
            vaults: (0..VAULTS).map(|n| Dice::of(seed, "vault", n).lower_id()).collect(),
        }
    }

    /// Appends one event to `out`.
    pub(super) fn write(&self, draft: Draft<'_>, out: &mut Vec<u8>) -> Written {
        let first = out.len();
        let mut dice = Dice::of(self.seed ^ stream_salt(draft.stream), draft.label, draft.number);
        let uuid = dice.upper_id();
        let digits = if dice.chance(0.3) { dice.below(10) as u32 } else { 9 };
        let at = cut_fraction(draft.at.clamp(EARLIEST, LATEST), digits);
        let mut pen = Pen { out, first, dice, at };
        pen.text(&[r#"{"uuid":""#, &uuid, r#"","timestamp":""#]);
        pen.stamp();
        let only_v2 = match draft.stream {
            Stream::AuditEvents => self.audit_event(&mut pen, draft.text_bytes),
            Stream::ItemUsages => self.item_usage(&mut pen, draft.text_bytes),
            Stream::SigninAttempts => self.signin_attempt(&mut pen, draft.text_bytes),
        };
        Written { uuid, at, only_v2 }
    }

    fn audit_event(&self, pen: &mut Pen<'_>, text_bytes: usize) -> [Range<u32>; 2] {
        let (actor_uuid, actor) = self.someone(&mut pen.dice);
        pen.text(&[r#"","actor_uuid":""#, actor_uuid, r#"","actor_details":"#, actor, "}"]);
        let begin = pen.position();
        let guest = pen.dice.chance(0.05);
        pen.text(&[r#","actor_type":""#, if guest { "external_user" } else { "user" }, "\""]);
        if guest {
            let other = pen.dice.upper_id();
            pen.text(&[r#","actor_account_uuid":""#, &other, "\""]);
        }
        pen.text(&[r#","account_uuid":""#, &self.account, "\""]);
        let only_v2 = begin..pen.position();
        let (action, object, aux) = if pen.dice.chance(0.04) {
            (pen.dice.pick(words::AUDIT_ACTIONS), pen.dice.pick(words::AUDIT_OBJECTS), Aux::Nothing)
        } else {
            pen.dice.pick(words::AUDIT_KINDS)
        };
        pen.text(&[r#","action":""#, action, r#"","object_type":""#, object, "\""]);
        if object == "user" {
            let (uuid, details) = self.someone(&mut pen.dice);
            pen.text(&[r#","object_uuid":""#, uuid, r#"","object_details":"#, details, "}"]);
        } else {
            let uuid = if object == "items" { self.vault(&mut pen.dice).to_owned() } else { pen.dice.lower_id() };
            pen.text(&[r#","object_uuid":""#, &uuid, "\""]);
        }
        self.aux(pen, aux, text_bytes);
        pen.session();
        self.location(pen);
        pen.text(&["}"]);
        [only_v2, 0..0]
    }

    fn aux(&self, pen: &mut Pen<'_>, aux: Aux, text_bytes: usize) {
        let info = match aux {
            Aux::Nothing => None,
            Aux::Place => {
                let uuid =
                    if pen.dice.chance(0.5) { pen.dice.upper_id() } else { self.vault(&mut pen.dice).to_owned() };
                pen.text(&[r#","aux_uuid":""#, &uuid, "\""]);
                None
            }
            Aux::Changes => Some(pen.dice.pick(&["1", "2", "12", "1,0,3"])),
            Aux::Member | Aux::Owner => {
                let (uuid, details) = self.someone(&mut pen.dice);
                pen.text(&[r#","aux_id":"#]);
                // At the source the number has 64 bits; a few do not fit into the table's 32.
                let id = pen.dice.roll() >> if pen.dice.chance(0.01) { 1 } else { 36 };
                pen.number(id);
                pen.text(&[r#","aux_uuid":""#, uuid, r#"","aux_details":"#, details, "}"]);
                matches!(aux, Aux::Member).then(|| pen.dice.pick(&["A", "R"]))
            }
        };
        if text_bytes > 0 {
            pen.text(&[r#","aux_info":""#, &"x".repeat(text_bytes), "\""]);
        } else if let Some(info) = info {
            pen.text(&[r#","aux_info":""#, info, "\""]);
        }
    }

    fn item_usage(&self, pen: &mut Pen<'_>, text_bytes: usize) -> [Range<u32>; 2] {
        let vault = self.vault(&mut pen.dice);
        let item = pen.dice.lower_id();
        let action = pen.dice.pick(words::ITEM_ACTIONS);
        pen.text(&[r#"","used_version":"#]);
        let version = pen.dice.below(40);
        pen.number(version);
        pen.text(&[r#","vault_uuid":""#, vault, r#"","item_uuid":""#, &item, r#"","action":""#, action, "\""]);
        pen.text(&[r#","user":"#]);
        let user = self.user(pen);
        self.client(pen, text_bytes);
        self.location(pen);
        [user, self.end_with_account(pen)]
    }

    fn signin_attempt(&self, pen: &mut Pen<'_>, text_bytes: usize) -> [Range<u32>; 2] {
        let session = pen.dice.upper_id();
        let (country, place) = self.place(&mut pen.dice);
        let (category, kind) = if pen.dice.chance(0.85) {
            ("success", pen.dice.pick(words::SIGNIN_SUCCESSES))
        } else {
            pen.dice.pick(words::SIGNIN_TROUBLES)
        };
        pen.text(&[r#"","session_uuid":""#, &session, r#"","country":""#, country]);
        pen.text(&[r#"","category":""#, category, r#"","type":""#, kind, r#"","details":"#]);
        if text_bytes > 0 {
            pen.text(&[r#"{"value":""#, &"x".repeat(text_bytes), "\"}"]);
        } else if category.starts_with("firewall") {
            pen.text(&[r#"{"value":""#, country, "\"}"]);
        } else {
            pen.text(&["null"]);
        }
        pen.text(&[r#","target_user":"#]);
        let user = self.user(pen);
        self.client(pen, 0);
        if pen.dice.chance(0.9) {
            pen.text(&[r#","location":"#, place]);
        }
        [user, self.end_with_account(pen)]
    }

    /// A user object; returns the span that version 1 does not have.
    fn user(&self, pen: &mut Pen<'_>) -> Range<u32> {
        let (_, details) = self.someone(&mut pen.dice);
        pen.text(&[details]);
        let begin = pen.position();
        if pen.dice.chance(0.3) {
            let guest = pen.dice.chance(0.2);
            let home = if guest { pen.dice.upper_id() } else { self.account.clone() };
            let kind = if guest { "external_user" } else { "user" };
            pen.text(&[r#","user_type":""#, kind, r#"","user_account_uuid":""#, &home, "\""]);
        }
        let only_v2 = begin..pen.position();
        pen.text(&["}"]);
        only_v2
    }

    fn client(&self, pen: &mut Pen<'_>, text_bytes: usize) {
        let n = pen.dice.below(self.clients.len() as u64) as usize;
        let client = self.clients.get(n).map_or("", String::as_str);
        pen.text(&[r#","client":{"#]);
        if text_bytes > 0 {
            pen.text(&[r#""app_name":"1Password for Windows","platform_name":""#, &"x".repeat(text_bytes), "\""]);
        } else {
            pen.text(&[client]);
        }
        pen.text(&[r#","ip_address":""#]);
        pen.address();
        pen.text(&["\"}"]);
    }

    fn location(&self, pen: &mut Pen<'_>) {
        if pen.dice.chance(0.8) {
            let (_, place) = self.place(&mut pen.dice);
            pen.text(&[r#","location":"#, place]);
        }
    }

    fn end_with_account(&self, pen: &mut Pen<'_>) -> Range<u32> {
        let begin = pen.position();
        pen.text(&[r#","account_uuid":""#, &self.account, "\""]);
        let only_v2 = begin..pen.position();
        pen.text(&["}"]);
        only_v2
    }

    fn someone(&self, dice: &mut Dice) -> (&str, &str) {
        let n = dice.below(self.people.len() as u64) as usize;
        self.people.get(n).map_or(("", "{"), |(uuid, details)| (uuid, details))
    }

    fn vault(&self, dice: &mut Dice) -> &str {
        let n = dice.below(self.vaults.len() as u64) as usize;
        self.vaults.get(n).map_or("", String::as_str)
    }

    fn place(&self, dice: &mut Dice) -> (&'static str, &str) {
        let n = dice.below(self.places.len() as u64) as usize;
        self.places.get(n).map_or(("", "null"), |(country, place)| (country, place))
    }
}

/// Different streams of one seed have different events.
const fn stream_salt(stream: Stream) -> u64 {
    match stream {
        Stream::AuditEvents => 0x0a,
        Stream::ItemUsages => 0x17,
        Stream::SigninAttempts => 0x51,
    }
}

fn person(seed: u64, n: u64) -> (String, String) {
    let mut dice = Dice::of(seed, "person", n);
    let uuid = dice.upper_id();
    let (given, family) = (dice.pick(words::GIVEN_NAMES), dice.pick(words::FAMILY_NAMES));
    let details = format!(r#"{{"uuid":"{uuid}","name":"{given} {family}","email":"user{n:02}@example.com""#);
    (uuid, details)
}

fn cut_fraction(at: Time, digits: u32) -> Time {
    let unit = 10_u32.pow(9_u32.saturating_sub(digits));
    let nanos = at.nanosecond() % 1_000_000_000;
    at.with_nanosecond(nanos - nanos % unit).unwrap_or(at)
}

/// Where the event is written to, and its luck.
struct Pen<'a> {
    out: &'a mut Vec<u8>,
    first: usize,
    dice: Dice,
    at: Time,
}

impl Pen<'_> {
    fn text(&mut self, parts: &[&str]) {
        for part in parts {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    fn position(&self) -> u32 {
        u32::try_from(self.out.len() - self.first).unwrap_or(u32::MAX)
    }

    fn number(&mut self, n: u64) {
        self.text(&[&n.to_string()]);
    }

    fn padded(&mut self, n: u32, width: u32) {
        for place in (0..width).rev() {
            self.out.push(b'0' + (n / 10_u32.pow(place) % 10) as u8);
        }
    }

    /// RFC 3339 with trailing zeros of the fraction trimmed, as Go prints it; sometimes with an offset.
    fn stamp(&mut self) {
        let offset = self.dice.chance(0.02);
        let local = if offset { self.at - TimeDelta::hours(3) } else { self.at };
        self.date_and_time(local);
        self.text(&[if offset { "-03:00" } else { "Z" }]);
    }

    fn date_and_time(&mut self, at: Time) {
        self.padded(at.year().unsigned_abs(), 4);
        self.text(&["-"]);
        self.padded(at.month(), 2);
        self.text(&["-"]);
        self.padded(at.day(), 2);
        self.text(&["T"]);
        self.padded(at.hour(), 2);
        self.text(&[":"]);
        self.padded(at.minute(), 2);
        self.text(&[":"]);
        self.padded(at.second(), 2);
        let nanos = at.nanosecond() % 1_000_000_000;
        if nanos > 0 {
            self.text(&["."]);
            self.padded(nanos, 9);
            while self.out.last() == Some(&b'0') {
                self.out.pop();
            }
        }
    }

    fn address(&mut self) {
        let network = self.dice.pick(words::NETWORKS);
        let host = self.dice.below(250) + 1;
        self.text(&[network]);
        self.number(host);
    }

    fn session(&mut self) {
        let (uuid, device) = (self.dice.upper_id(), self.dice.lower_id());
        let login = cut_fraction(self.at - TimeDelta::seconds(self.dice.below(28_800) as i64), 0);
        self.text(&[r#","session":{"uuid":""#, &uuid, r#"","login_time":""#]);
        self.date_and_time(login);
        self.text(&[r#"Z","device_uuid":""#, &device, r#"","ip":""#]);
        self.address();
        self.text(&["\"}"]);
    }
}
