//! Why an event becomes a dead letter, and that one did: in a tick, in recovery and in a replay.

use super::Delivery;
use crate::agent::trouble::{Trouble, chain};
use crate::flow::EventKey;
use crate::flow::retry::Failure;
use crate::sink::SinkError;
use serde_json::Value;

pub(crate) const ROW_REFUSED: &str = "the destination refuses the row";
pub(crate) const ROW_TOO_LARGE: &str = "the row is larger than a request may be";

/// A shorter word says nothing of the event, and many texts hold it.
const WORD_CHARS_MIN: usize = 4;

/// Why an event becomes a dead letter, with the answer that led to it; without what that answer repeats of the event.
pub(crate) fn in_full(why: &str, error: Option<&SinkError>, event: &str) -> String {
    let Some(error) = error else { return why.to_owned() };
    let answer = chain(error);
    let answer = match &error.failure {
        Failure::Status { message, .. } if !message.shown().is_empty() => {
            answer.replace(message.shown(), &without(event, message.shown()))
        }
        _ => answer,
    };
    format!("{why}: {answer}")
}

/// The text with `***` for each word that stands in a value of the event, whole or in part: an answer may be cut within a value.
fn without(event: &str, text: &str) -> String {
    let mut values = String::new();
    match serde_json::from_str(event) {
        Ok(event) => collect(&event, &mut values),
        Err(_) => values = event.to_lowercase(),
    }
    let is_end = |c: char| !c.is_alphanumeric() && !"@._+-".contains(c);
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        let is_of_event = bare.chars().count() >= WORD_CHARS_MIN && values.contains(&bare);
        shown.push_str(if is_of_event { "***" } else { word });
        let end = after.chars().next();
        shown.extend(end);
        rest = after.get(end.map_or(0, char::len_utf8)..).unwrap_or_default();
    }
    shown
}

/// What the event says, a value a line, in lower case; its keys are the names of columns.
fn collect(value: &Value, values: &mut String) {
    match value {
        Value::String(text) => values.extend([text.to_lowercase().as_str(), "\n"]),
        Value::Number(number) => values.extend([number.to_string().as_str(), "\n"]),
        Value::Array(items) => items.iter().for_each(|item| collect(item, values)),
        Value::Object(members) => members.values().for_each(|member| collect(member, values)),
        Value::Null | Value::Bool(_) => {}
    }
}

impl Delivery {
    /// Keeps an original: it is safe before its stub is posted.
    pub(crate) async fn keep_letter(&mut self, key: &EventKey, why: &str, original: &str) -> Result<(), Trouble> {
        self.dead_letters.keep(&self.given.id, key, why, original, self.given.date()).await?;
        tracing::error!(feed = %self.given.id, id = %key.id, why, remedy = "repair the cause, then `opship dead-letters replay` the id", "an event cannot be shipped whole: its stub is shipped, the original is a dead letter");
        Ok(())
    }

    /// Not even the smallest stub is taken: the row is not at fault, and will be shipped whole once the destination is repaired. A letter
    /// beside it would tell of a loss that is none.
    pub(crate) async fn withdraw_letter(&mut self, key: &EventKey) {
        self.stubbed_again.remove(key);
        match self.dead_letters.withdraw(&self.given.id, key).await {
            Ok(()) => {
                tracing::warn!(feed = %self.given.id, id = %key.id, "its stub is refused too: the event is no dead letter, it waits like the others")
            }
            Err(error) => {
                tracing::warn!(feed = %self.given.id, id = %key.id, error = %chain(&error), "a dead letter whose event waits was not taken back")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::words::{Shape, Words};

    const EVENT: &str = r#"{"uuid":"U2","details":{"name":"Wendy Appleseed"},"user":{"email":"Wendy@Example.com"},
        "client":{"ip_address":"203.0.113.9"},"location":{"latitude":43.6425}}"#;

    #[test]
    fn a_reason_has_the_answer_but_nothing_that_it_repeats_of_the_event() {
        let failure = |message: &str| {
            let (code, message) = ("InvalidPayload".to_owned(), Words::said(Shape::Azure, message));
            let failure = Failure::Status { status: 400, code, message, retry_after: None };
            SinkError { attempted: "post 1 rows".into(), on: "https://wendy.example".into(), failure, cause: None }
        };
        for (said, shown) in [
            ("column details is no text", "column details is no text"),
            ("no: \"wendy@example.com\" at 203.0.113.9, 43.6425.", "no: \"***\" at ***, ***"),
            ("bad name 'Wendy Appleseed' in wendy@exa", "bad name '*** ***' in ***"),
            ("Provided content length: 1048577 bytes", "Provided content length: 1048577 bytes"),
            ("", ""),
        ] {
            let expected =
                format!("refused: post 1 rows at https://wendy.example: answered 400 InvalidPayload: {shown}");
            let expected = expected.trim_end_matches(": ");
            assert_eq!(in_full("refused", Some(&failure(said)), EVENT), expected);
        }
        assert_eq!(in_full("too large", None, EVENT), "too large");
        assert_eq!(without("Wendy, no JSON", "by wendy"), "by ***", "of an item that is no JSON, every word counts");
    }
}
