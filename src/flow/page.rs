//! decode: bytes of an answer -> the page that it is: where the next one begins, whether there is one, and its items.
//!
//! Whatever looks like a page but is none must not move a position: the events that it hides would never be asked for again.

use super::Cursor;
use super::decode::{Item, item};
use super::planted::{self, Bug};
use super::scan::{self, Span};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Items of a page at the most: the API gives 1,000. Its answer to a smaller limit may be rounded up, one with many more is no page.
pub const ITEMS_MAX: usize = 1_250;

/// What the source answered, still borrowing from its text.
#[derive(Debug)]
pub struct Page<'a> {
    pub items: Vec<Item<'a>>,
    pub cursor: Cursor,
    pub has_more: bool,
    /// It has no `items` at all: only as the end of a cursor ([`page_after`]).
    pub is_bare: bool,
}

/// An answer that is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no page of events: {0}")]
pub struct DecodeError(pub &'static str);

const NO_ITEMS: DecodeError = DecodeError("it has no items");
const TOO_MANY: DecodeError = DecodeError("it has more items than a page may have");

/// The body as text: a BOM is dropped, invalid UTF-8 and lone surrogates become U+FFFD. The flag says whether anything was replaced.
pub fn text(body: &[u8]) -> (Cow<'_, str>, bool) {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    let replaced = matches!(text, Cow::Owned(_));
    match scan::without_lone_surrogates(&text) {
        Some(repaired) => (Cow::Owned(repaired), true),
        None => (text, replaced),
    }
}

/// Decodes a page.
///
/// # Errors
/// No JSON object, or one in which `cursor`, `has_more` or `items` (a list or null) is missing, repeated or of another type, or that has
/// more than [`ITEMS_MAX`] items: the request failed, whatever its status was.
pub fn page(text: &str) -> Result<Page<'_>, DecodeError> {
    let envelope = envelope(text)?;
    if envelope.is_bare() && !planted::is(Bug::TakePageWithoutItems) {
        return Err(NO_ITEMS);
    }
    envelope.opened()
}

/// Decodes the answer to a cursor. One without `items` that returns the cursor that was sent and says that there is no more is its end:
/// it moves nothing, whatever it leaves out.
///
/// # Errors
/// As [`page`].
pub fn page_after<'a>(text: &'a str, sent: &Cursor) -> Result<Page<'a>, DecodeError> {
    let envelope = envelope(text)?;
    let is_the_end = !envelope.has_more && envelope.cursor == sent.as_str();
    if envelope.is_bare() && !is_the_end && !planted::is(Bug::TakePageWithoutItems) {
        return Err(NO_ITEMS);
    }
    envelope.opened()
}

/// A page around items that were not looked at.
struct Envelope<'a> {
    cursor: Cow<'a, str>,
    has_more: bool,
    /// None: there was no such key.
    items: Option<Vec<&'a str>>,
}

impl<'a> Envelope<'a> {
    fn is_bare(&self) -> bool {
        self.items.is_none()
    }

    fn opened(self) -> Result<Page<'a>, DecodeError> {
        let is_bare = self.is_bare();
        let cursor = Cursor::parse(self.cursor.into_owned());
        let cursor = cursor.ok_or(DecodeError("its cursor is empty or over 8 KiB"))?;
        let items = self.items.unwrap_or_default();
        if items.len() > ITEMS_MAX {
            return Err(TOO_MANY);
        }
        Ok(Page { items: items.into_iter().map(item).collect(), cursor, has_more: self.has_more, is_bare })
    }
}

/// The usual page. Anything out of the ordinary is an error here and looked at again by [`lenient`], which says what it is.
#[derive(Deserialize)]
struct Strict<'a> {
    #[serde(borrow)]
    cursor: Cow<'a, str>,
    has_more: bool,
    /// Null where a Go server has a nil slice.
    #[serde(borrow, deserialize_with = "raw_items")]
    items: Vec<&'a RawValue>,
}

fn envelope(text: &str) -> Result<Envelope<'_>, DecodeError> {
    let Ok(Strict { cursor, has_more, items }) = serde_json::from_str(text) else { return lenient(text) };
    Ok(Envelope { cursor, has_more, items: Some(items.into_iter().map(RawValue::get).collect()) })
}

/// A list or null; a list is read no further than it may be long.
fn raw_items<'de: 'a, 'a, D: Deserializer<'de>>(json: D) -> Result<Vec<&'a RawValue>, D::Error> {
    struct Items;
    impl<'de> Visitor<'de> for Items {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of events or null")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                if items.len() >= ITEMS_MAX {
                    return Err(A::Error::custom(TOO_MANY.0));
                }
                items.push(item);
            }
            Ok(items)
        }
    }
    json.deserialize_any(Items)
}

/// For a page that is no JSON because of one item (`NaN`, a bare word): split by structure alone.
fn lenient<'a>(text: &'a str) -> Result<Envelope<'a>, DecodeError> {
    const BROKEN: DecodeError = DecodeError("it is broken JSON");
    let (mut cursor, mut has_more, mut items) = (None, None, None);
    let mut take = |Span { key, value }: Span<'a>| -> Result<(), DecodeError> {
        match &*unescaped(key) {
            "cursor" => {
                let read = serde_json::from_str::<Cow<'_, str>>(value);
                let read = read.map_err(|_| DecodeError("its cursor is no text"))?;
                once(&mut cursor, read, "it has two cursors")?;
            }
            "has_more" => {
                let read = serde_json::from_str::<bool>(value);
                let read = read.map_err(|_| DecodeError("its has_more is neither true nor false"))?;
                once(&mut has_more, read, "it has has_more twice")?;
            }
            "items" => {
                let read = if value == "null" { Some(Vec::new()) } else { scan::array(value, ITEMS_MAX) };
                once(&mut items, read.ok_or(DecodeError("its items are no list"))?, "it has items twice")?;
            }
            _ => {}
        }
        Ok(())
    };
    let mut fault = None;
    scan::each_member(text, |member| fault = fault.take().or_else(|| take(member).err())).ok_or(BROKEN)?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    let cursor = cursor.ok_or(DecodeError("it has no cursor"))?;
    let has_more = has_more.ok_or(DecodeError("it has no has_more"))?;
    Ok(Envelope { cursor, has_more, items })
}

fn once<T>(place: &mut Option<T>, value: T, otherwise: &'static str) -> Result<(), DecodeError> {
    if place.replace(value).is_some() { Err(DecodeError(otherwise)) } else { Ok(()) }
}

/// A key as every JSON reader understands it: `it\u0065ms` is `items`.
fn unescaped(key: &str) -> Cow<'_, str> {
    if !key.contains('\\') {
        return Cow::Borrowed(key);
    }
    serde_json::from_str(&format!("\"{key}\"")).map_or(Cow::Borrowed(key), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault: answers under status 200 without, with another, with a mistyped or with two of `items`, `cursor`, `has_more`, and with 1,251 items. Shows: each is a failed request.
    #[test]
    fn fm_50_whatever_lacks_or_repeats_a_key_is_no_page() {
        let too_many = format!(r#"{{"cursor":"c","has_more":true,"items":[{}1]}}"#, "1,".repeat(ITEMS_MAX));
        for (text, what) in [
            ("{}", "no cursor"),
            (r#"{"cursor":"c1","has_more":true}"#, "no items"),
            (r#"{"cursor":"c1","has_more":true,"Items":[{"uuid":"A"}]}"#, "no items"),
            (r#"{"cursor":"c1","has_more":true,"events":[{"uuid":"A"}]}"#, "no items"),
            (r#"{"cursor":"c1","has_more":true,"items":[{"uuid":"A"}],"items":[]}"#, "items twice"),
            (r#"{"cursor":"c1","has_more":true,"items":[{"uuid":"A"}],"it\u0065ms":[]}"#, "items twice"),
            (r#"{"cursor":"c1","has_more":true,"items":[NaN],"it\u0065ms":[]}"#, "items twice"),
            (r#"{"cursor":"c1","cursor":"c2","has_more":true,"items":[]}"#, "two cursors"),
            (r#"{"cursor":"c1","has_more":true,"has_more":false,"items":[]}"#, "has_more twice"),
            (r#"{"cursor":"c1","has_more":true,"items":{"uuid":"A"}}"#, "no list"),
            (r#"{"cursor":"c1","has_more":true,"items":"A"}"#, "no list"),
            (r#"{"cursor":"c1","has_more":"true","items":[]}"#, "neither true nor false"),
            (r#"{"cursor":"c1","has_more":null,"items":[]}"#, "neither true nor false"),
            (r#"{"cursor":17,"has_more":true,"items":[]}"#, "no text"),
            (r#"{"cursor":null,"has_more":true,"items":[]}"#, "no text"),
            (r#"{"cursor":"","has_more":false,"items":[]}"#, "empty"),
            (r#"{"cursor":"c","items":[]}"#, "no has_more"),
            ("[1]", "broken"),
            ("", "broken"),
            ("{\"cursor\":\"c\",\"has_more\":true,\"items\":[{", "broken"),
            (&too_many, "more items"),
            (&too_many.replace("[1,", "[NaN,"), "more items"),
        ] {
            let error = page(text).expect_err(text);
            assert!(error.0.contains(what), "{text:.80}: {error}");
            let after = page_after(text, &Cursor::parse("sent".into()).unwrap());
            assert_eq!(after.expect_err(text), error);
        }
    }

    #[test]
    fn a_page_has_each_key_once_in_any_order_and_may_have_others() {
        let most = format!(r#"{{"items":[{}1],"has_more":true,"cursor":"c","more":1}}"#, "1,".repeat(ITEMS_MAX - 1));
        let page_of = |text: &str| page(text).map(|page| (page.items.len(), page.has_more, page.is_bare));
        assert_eq!(page_of(&most), Ok((ITEMS_MAX, true, false)));
        assert_eq!(page_of(&most.replace("[1,", "[NaN,")), Ok((ITEMS_MAX, true, false)));
        assert_eq!(page_of(r#"{"cursor":"c","has_more":false,"items":null}"#), Ok((0, false, false)));
        assert_eq!(page_of(r#"{"curs\u006fr":"c","has_more":false,"items":[1]}"#), Ok((1, false, false)));
    }

    #[test]
    fn a_cursor_may_end_without_items_where_it_stands() {
        let sent = Cursor::parse("c1".into()).unwrap();
        let end = page_after(r#"{"cursor":"c1","has_more":false}"#, &sent).unwrap();
        assert!(end.is_bare && end.items.is_empty() && end.cursor == sent);
        for text in [r#"{"cursor":"c1","has_more":true}"#, r#"{"cursor":"c2","has_more":false}"#] {
            assert_eq!(page_after(text, &sent).expect_err(text), NO_ITEMS);
        }
        assert!(page(r#"{"cursor":"c1","has_more":false}"#).is_err(), "nor is it the end of a window");
    }
}
