//! Retry-After and Date: whatever the header says, the wait is bounded; what is well-formed is believed to the second.

use axum::http;
use chrono::{TimeDelta, TimeZone, Utc};
use opship::flow::Time;
use opship::flow::retry::{RETRY_AFTER_MAX, retry_after};
use std::time::Duration;

/// The first line is `Retry-After`, the second `Date`.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (wait, date) = text.split_once('\n').unwrap_or((&text, ""));
    let now = date_header(date);
    let found = retry_after(wait, now);
    assert!(found.is_none_or(|found| found <= RETRY_AFTER_MAX));
    let digits = wait.trim();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let seconds =
            digits.trim_start_matches('0').parse().unwrap_or(if digits.trim_matches('0').is_empty() { 0 } else { 300 });
        assert_eq!(found, Some(Duration::from_secs(300.min(seconds))));
    }
    if now.is_none() && !digits.bytes().all(|b| b.is_ascii_digit()) {
        assert_eq!(found, None, "a date needs the answer's own");
    }
    a_date_is_believed_to_the_second(data);
}

/// What the `Date` of an answer is read as.
fn date_header(text: &str) -> Option<Time> {
    let value = http::HeaderValue::from_str(text).ok()?;
    let response = http::Response::builder().header("date", value).body("").ok()?;
    let found = opship::http::date_of(&reqwest::Response::from(response));
    if let Some(found) = found {
        assert_eq!(date_header_of(found), Some(found), "a date does not survive its own form");
    }
    found
}

fn date_header_of(date: Time) -> Option<Time> {
    // The form has four digits for the year.
    let text = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if text.len() != 29 {
        return Some(date);
    }
    // A leap second is the second before it, as far as whole seconds tell.
    let response = http::Response::builder().header("date", text).body("").ok()?;
    opship::http::date_of(&reqwest::Response::from(response))
        .map(|read| if read == date - sub(date) { date } else { read })
}

fn sub(date: Time) -> TimeDelta {
    TimeDelta::nanoseconds(i64::from(date.timestamp_subsec_nanos()))
}

/// The same bytes as two moments.
fn a_date_is_believed_to_the_second(data: &[u8]) {
    let Some((first, rest)) = data.split_first_chunk::<4>() else { return };
    let Some((second, _)) = rest.split_first_chunk::<2>() else { return };
    let now =
        Utc.timestamp_opt(i64::from(u32::from_le_bytes(*first)), 0).single().expect("in this century or the next");
    let ahead = i64::from(i16::from_le_bytes(*second));
    let text = (now + TimeDelta::seconds(ahead)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    assert_eq!(retry_after(&text, Some(now)), Some(Duration::from_secs(ahead.clamp(0, 300) as u64)), "{text} at {now}");
}
