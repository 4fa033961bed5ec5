//! What a service said about a request that it did not answer as it should: raw for verdicts, cleaned for people.
//!
//! Whatever stands between us and a service can answer, and echo what was sent to it. So nothing of an answer is shown but the known
//! fields of known error shapes, and of those nothing that repeats a secret or a value of the request.

use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

/// Longest text of others that is shown.
pub const SHOWN_CHARS_MAX: usize = 512;
/// Longest text of others that is looked at.
const RAW_CHARS_MAX: usize = 4096;
/// Longest code of a service.
const CODE_BYTES_MAX: usize = 80;
/// Pieces of a hidden text from this length on are no accident.
const PIECE: usize = 12;
/// Shorter texts are hidden as a whole, from this length on.
const WHOLE_MIN: usize = 4;
/// How often an echo may be escaped over again and is still recognised.
const ESCAPED_MAX: usize = 3;
/// Of a body that is no JSON so much is looked at.
const TEXT_BYTES_MAX: usize = 64 * 1024;
const MASK: &str = "***";

/// Whose error shape an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"Error":{"Message"}}` or `{"status","message"}`.
    OnePassword,
    /// `{"error":{"code","message"}}` of Azure's services, and `{"statusCode","message"}` of the platform's identity endpoint.
    Azure,
    /// `{"error","error_description"}` of Entra ID and of the instance metadata service.
    Entra,
    /// `<Error><Code/><Message/></Error>` of Azure Storage.
    Storage,
}

/// The message of a refusal.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Words {
    shape: Option<Shape>,
    raw: String,
    shown: String,
}

impl Words {
    /// The message field of a known shape, without what it repeats of `hidden`.
    pub fn of(shape: Shape, message: &str, hidden: &Hidden<'_>) -> Self {
        let raw: String = message.chars().take(RAW_CHARS_MAX).collect();
        // Entra and Storage put an id and a time on lines of their own.
        let shown = hidden.masked(&raw).split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = one_line(&shown);
        Self { shape: Some(shape), raw, shown }
    }

    /// A message that repeats nothing.
    #[cfg(test)]
    pub fn said(shape: Shape, message: &str) -> Self {
        Self::of(shape, message, &Hidden::default())
    }

    /// Of an answer in no known shape: words of ours that say what it was.
    pub fn unknown(what: String) -> Self {
        Self { shape: None, raw: String::new(), shown: what }
    }

    /// None where the answer is in nobody's shape: it comes from something on the way.
    pub const fn shape(&self) -> Option<Shape> {
        self.shape
    }

    /// For verdicts alone.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    pub fn shown(&self) -> &str {
        &self.shown
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Words").field(&self.shape).field(&self.shown).finish()
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A code that is one: an identifier, and no piece of what is hidden. Anything else is none.
pub fn code(text: &str, hidden: &Hidden<'_>) -> String {
    let is_one = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let fits = text.len() <= CODE_BYTES_MAX && text.chars().all(is_one);
    let is_known = KNOWN_CODES.contains(&text);
    if fits && (is_known || hidden.masked(text) == text) { text.to_owned() } else { String::new() }
}

/// Codes that decide something; an event that holds such a word must not hide them.
const KNOWN_CODES: [&str; 12] = [
    "ContentLengthLimitExceeded",
    "InvalidPayload",
    "InvalidStream",
    "OperationFailed",
    "NotFound",
    "AuthorizationFailed",
    "InsufficientAccessError",
    "InvalidTokenError",
    "TokenExpired",
    "invalid_client",
    "invalid_request",
    "RecordsTimeRangeIsMoreThan30Minutes",
];

/// What must not come back out of an answer: secrets that went with the request, and its body.
#[derive(Clone, Copy, Default)]
pub struct Hidden<'a> {
    pub secrets: &'a [&'a str],
    /// JSON: each of its values is hidden, its keys are not.
    pub body: &'a [u8],
}

impl Hidden<'_> {
    /// The text with `***` for each piece of 12 characters that stands in a secret or in a value of the body, and for each shorter secret
    /// or value that stands in it whole; percent-encoded, escaped and in either case, too.
    pub fn masked(&self, text: &str) -> String {
        let readings = readings(text);
        let mut marked = vec![false; text.len()];
        let pieces: HashSet<&[char]> = readings.iter().flat_map(|reading| reading.chars.windows(PIECE)).collect();
        let mut found: HashSet<&[char]> = HashSet::new();
        self.each(&mut |value| {
            for known in self::readings(value) {
                if known.chars.len() >= PIECE {
                    found.extend(known.chars.windows(PIECE).filter_map(|piece| pieces.get(piece)));
                } else if known.chars.len() >= WHOLE_MIN {
                    readings.iter().for_each(|reading| reading.mark_words(&known.chars, &mut marked));
                }
            }
        });
        for reading in &readings {
            reading.mark(&found, &mut marked);
        }
        blacked(text, &marked)
    }

    fn each(&self, look: &mut impl FnMut(&str)) {
        self.secrets.iter().for_each(|secret| look(secret));
        // A batch is looked at row by row, because all of it as values would take several times its size.
        let rows = serde_json::from_slice::<Vec<&RawValue>>(self.body);
        let whole = || serde_json::from_slice::<&RawValue>(self.body).map(|value| vec![value]);
        match rows.or_else(|_| whole()) {
            Ok(parts) => {
                for part in parts {
                    let value: serde_json::Value = serde_json::from_str(part.get()).unwrap_or_default();
                    values(&value, look);
                }
            }
            Err(_) => look(&String::from_utf8_lossy(self.body.get(..TEXT_BYTES_MAX).unwrap_or(self.body))),
        }
    }
}

fn values(value: &serde_json::Value, look: &mut impl FnMut(&str)) {
    use serde_json::Value;
    // Words of closed lists say nothing of anybody, and the messages of services are made of them.
    let is_word = |text: &str| text.len() < PIECE && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match value {
        Value::String(text) if is_word(text) => {}
        Value::String(text) => look(text),
        Value::Number(number) => look(&number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| values(item, look)),
        Value::Object(members) => members.values().for_each(|member| values(member, look)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// A text in lower case with some escapes taken away, and where each character comes from.
struct Reading {
    chars: Vec<char>,
    from: Vec<Range<usize>>,
}

impl Reading {
    fn mark(&self, found: &HashSet<&[char]>, marked: &mut [bool]) {
        for (start, piece) in self.chars.windows(PIECE).enumerate() {
            if found.contains(piece) {
                self.mark_from(start, PIECE, marked);
            }
        }
    }

    /// Where the whole word stands between characters that are no part of one.
    fn mark_words(&self, word: &[char], marked: &mut [bool]) {
        let bounds = |at: Option<usize>| at.and_then(|at| self.chars.get(at)).is_none_or(|c| !c.is_alphanumeric());
        for (start, piece) in self.chars.windows(word.len()).enumerate() {
            if piece == word && bounds(start.checked_sub(1)) && bounds(Some(start + word.len())) {
                self.mark_from(start, word.len(), marked);
            }
        }
    }

    fn mark_from(&self, start: usize, length: usize, marked: &mut [bool]) {
        for place in self.from.iter().skip(start).take(length) {
            marked.get_mut(place.clone()).into_iter().flatten().for_each(|mark| *mark = true);
        }
    }

    /// The same with one layer of escapes taken away; none when there is none.
    fn unescaped(&self) -> Option<Self> {
        let (mut chars, mut from) = (Vec::with_capacity(self.chars.len()), Vec::with_capacity(self.from.len()));
        let mut at = 0;
        while let (Some(c), Some(place)) = (self.chars.get(at), self.from.get(at)) {
            let rest = self.chars.get(at..).unwrap_or_default();
            match escape(rest) {
                Some((decoded, length)) => {
                    let end = self.from.get(at + length - 1).map_or(place.end, |last| last.end);
                    for c in decoded {
                        chars.push(c);
                        from.push(place.start..end);
                    }
                    at += length;
                }
                None => {
                    chars.push(*c);
                    from.push(place.clone());
                    at += 1;
                }
            }
        }
        (chars != self.chars).then_some(Self { chars, from })
    }
}

/// A text as it stands, and with each layer of escapes taken away.
fn readings(text: &str) -> Vec<Reading> {
    let (mut chars, mut from) = (Vec::new(), Vec::new());
    for (at, c) in text.char_indices() {
        for lower in c.to_lowercase() {
            chars.push(lower);
            from.push(at..at + c.len_utf8());
        }
    }
    let mut readings = vec![Reading { chars, from }];
    while readings.len() <= ESCAPED_MAX
        && let Some(next) = readings.last().and_then(Reading::unescaped)
    {
        readings.push(next);
    }
    readings
}

/// The characters that an escape at the beginning stands for, and its length: percent-encoding, JSON, HTML.
fn escape(text: &[char]) -> Option<(Vec<char>, usize)> {
    let one = |c: char, length: usize| Some((vec![c], length));
    match text {
        ['%', ..] => percent(text),
        ['\\', 'u', digits @ ..] => {
            let hex: String = digits.iter().take(4).collect();
            let c = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == 4).and_then(char::from_u32)?;
            Some((c.to_lowercase().collect(), 6))
        }
        ['\\', c @ ('"' | '\\' | '/' | '\''), ..] => one(*c, 2),
        ['\\', 'n' | 'r' | 't', ..] => one(' ', 2),
        ['&', 'a', 'm', 'p', ';', ..] => one('&', 5),
        ['&', 'q', 'u', 'o', 't', ';', ..] => one('"', 6),
        ['&', 'l', 't', ';', ..] => one('<', 4),
        ['&', 'g', 't', ';', ..] => one('>', 4),
        ['&', '#', '3', '9', ';', ..] => one('\'', 5),
        _ => None,
    }
}

/// As many percent-encoded bytes as make up one text.
fn percent(text: &[char]) -> Option<(Vec<char>, usize)> {
    let byte = |triple: &[char]| match triple {
        ['%', high, low] => u8::from_str_radix(&format!("{high}{low}"), 16).ok(),
        _ => None,
    };
    let bytes: Vec<u8> = text.chunks(3).map_while(byte).take(4).collect();
    // The longest prefix that is a whole character.
    let whole = (1..=bytes.len()).find_map(|length| std::str::from_utf8(bytes.get(..length)?).ok())?;
    let c = whole.chars().next()?;
    Some((c.to_lowercase().collect(), c.len_utf8() * 3))
}

fn blacked(text: &str, marked: &[bool]) -> String {
    let (mut shown, mut is_black) = (String::with_capacity(text.len()), false);
    for (at, c) in text.char_indices() {
        let black = marked.get(at).copied().unwrap_or_default();
        match (black, is_black) {
            (true, false) => shown.push_str(MASK),
            (true, true) => {}
            (false, _) => shown.push(c),
        }
        is_black = black;
    }
    shown
}

/// What could forge or garble a line, or command a terminal: control and bidirectional characters, line and paragraph separators.
pub fn garbles(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Caps a foreign text and escapes what could forge or garble a log line: control and bidirectional characters, line and paragraph
/// separators.
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.trim().chars().take(SHOWN_CHARS_MAX) {
        if garbles(c) { line.extend(c.escape_unicode()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJhdWQiOlsiZXZlbnRzIl19.c2lnbmF0dXJl";

    fn masked(text: &str) -> String {
        let body =
            br#"[{"user_email_s":"Wendy@Example.com","name":"Wendy \"W\" App","action":"reveal","lat":43.6425}]"#;
        Hidden { secrets: &[TOKEN, "sv=2022&sig=a%2Bb%2Fcdefghij%3D"], body }.masked(text)
    }

    #[test]
    fn a_foreign_text_stays_on_its_line_whatever_breaks_or_turns_it() {
        let line = one_line(" a\nb\u{2028}c\u{2029}d\u{202e}e\u{61c}f\u{85}g ");
        assert_eq!(line, "a\\u{a}b\\u{2028}c\\u{2029}d\\u{202e}e\\u{61c}f\\u{85}g");
    }

    /// Fault: answers that echo a token, a SAS or a value of the request, whole, in part, in another case and escaped once or twice. Shows: none of it is left, and the words around it are.
    #[test]
    fn fm_65_an_echo_is_masked_in_every_spelling() {
        let percent: String = TOKEN.bytes().map(|b| format!("%{b:02X}")).collect();
        for (said, shown) in [
            (format!("bad Authorization: Bearer {TOKEN}"), "bad Authorization: Bearer ***"),
            (format!("bad {}...", &TOKEN[7..25]), "bad ***..."),
            (format!("bad {}", TOKEN.to_uppercase()), "bad ***"),
            (format!("bad {percent}!"), "bad ***!"),
            (format!("bad {}!", percent.replace('%', "%25")), "bad ***!"),
            ("at ?sig=a+b/cdefghij= now".into(), "at ?*** now"),
            ("at ?sig=a%2Bb%2Fcdefghij%3D now".into(), "at ?*** now"),
            ("wendy@example.com is none".into(), "*** is none"),
            ("wendy%40example.com is none".into(), "*** is none"),
            (r#"Wendy \"W\" App is none"#.into(), "*** is none"),
            ("Wendy &quot;W&quot; App is none".into(), "*** is none"),
            (r"\u0057endy@Example.com is none".into(), "*** is none"),
            ("at 43.6425, or 143.6425".into(), "at ***, or 143.6425"),
            ("column user_email_s of action reveal".into(), "column user_email_s of action reveal"),
            ("unfinished %e4%b".into(), "unfinished %e4%b"),
            ("é%C3%A9%C3".into(), "é%C3%A9%C3"),
        ] {
            assert_eq!(masked(&said), shown, "{said}");
        }
    }

    #[test]
    fn a_code_is_an_identifier_and_no_piece_of_what_is_hidden() {
        let hidden = Hidden { secrets: &["Planted.Secret"], body: br#"["InvalidPayload"]"# };
        for (said, kept) in [
            ("InvalidPayload", "InvalidPayload"),
            ("SomethingNew_1", "SomethingNew_1"),
            ("Planted.Secret", ""),
            ("two words", ""),
            ("a\nb", ""),
        ] {
            assert_eq!(code(said, &hidden), kept);
        }
        assert_eq!(code(&"x".repeat(81), &hidden), "");
    }

    #[test]
    fn what_is_raw_is_for_verdicts_alone() {
        let words = Words::of(Shape::Azure, &format!("no {TOKEN}"), &Hidden { secrets: &[TOKEN], body: b"" });
        assert_eq!((words.shown(), words.raw().len()), ("no ***", TOKEN.len() + 3));
        assert!(!format!("{words:?} {words}").contains("eyJ"));
        let long = Words::of(Shape::Azure, &"é".repeat(9000), &Hidden::default());
        assert_eq!((long.shown().chars().count(), long.raw().chars().count()), (512, 4096));
    }
}
