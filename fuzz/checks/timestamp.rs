//! Timestamps: a moment is read to the nanosecond, whatever its offset; a ledger hour survives its name.

use chrono::{FixedOffset, SecondsFormat, TimeZone, Utc};
use opship::flow::decode::timestamp;
use opship::flow::{Hour, Time};

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = timestamp(&text);
    if let Some(seconds) = plain_seconds(&text) {
        assert_eq!(read.map(|at| at.timestamp()), Some(seconds), "{text}");
    }
    if let Some(at) = read {
        survives(at);
    }
    an_hour_survives_its_name(Hour::of(read));
    if let Some(hour) = Hour::parse(&text) {
        assert_eq!(hour.to_string(), text);
    }
    if let Some((moment, rest)) = data.split_first_chunk::<8>() {
        let offset = rest.first_chunk::<2>().map_or(0, |two| i32::from(i16::from_le_bytes(*two)) % (24 * 60));
        any_offset_is_the_same_moment(Utc.timestamp_nanos(i64::from_le_bytes(*moment)), offset);
    }
}

fn survives(at: Time) {
    let text = at.to_rfc3339_opts(SecondsFormat::Nanos, true);
    // RFC 3339 has four digits for the year; an offset may lead out of them.
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        assert_eq!(timestamp(&text), Some(at), "{text}");
    }
}

fn an_hour_survives_its_name(hour: Hour) {
    assert_eq!(Hour::parse(&hour.to_string()), Some(hour));
    assert!(hour.start().is_none_or(|start| Hour::of(Some(start)) == hour));
}

fn any_offset_is_the_same_moment(at: Time, minutes: i32) {
    let offset = FixedOffset::east_opt(minutes * 60).expect("less than a day");
    for format in [SecondsFormat::Nanos, SecondsFormat::AutoSi] {
        let text = at.with_timezone(&offset).to_rfc3339_opts(format, false);
        assert_eq!(timestamp(&text), Some(at), "{text}");
    }
    let hour = Hour::of(Some(at));
    an_hour_survives_its_name(hour);
    assert_eq!(hour == Hour::Odd, !(2000..=2100).contains(&chrono::Datelike::year(&at)));
}

/// `YYYY-MM-DDThh:mm:ssZ` counted by hand: days since 1970 in the Gregorian calendar.
fn plain_seconds(text: &str) -> Option<i64> {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape != "0000-00-00T00:00:00Z" {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = |month: i64| match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_real =
        (1..=12).contains(&month) && (1..=length(month)).contains(&day) && hour < 24 && minute < 60 && second < 60;
    let days: i64 = if year >= 1970 {
        (1970..year).map(|year| 365 + i64::from(is_leap(year))).sum()
    } else {
        -(year..1970).map(|year| 365 + i64::from(is_leap(year))).sum::<i64>()
    };
    let days = days + (1..month).map(length).sum::<i64>() + day - 1;
    is_real.then_some(((days * 24 + hour) * 60 + minute) * 60 + second)
}
