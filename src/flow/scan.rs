//! A structural reader for text that is not quite JSON: finds members and elements without judging their values.

/// One member of an object.
pub struct Span<'a> {
    /// The name as written, escapes included.
    pub key: &'a str,
    pub value: &'a str,
}

/// The members of the object that `text` is, one at a time: a list of them can be many times as large as the text. `None` when its
/// structure is broken, which shows only after the members before.
pub fn each_member<'a>(text: &'a str, mut take: impl FnMut(Span<'a>)) -> Option<()> {
    let mut rest = text.trim_start().strip_prefix('{')?.trim_start();
    if let Some(end) = rest.strip_prefix('}') {
        return end.trim().is_empty().then_some(());
    }
    loop {
        let (name, after) = rest.split_at_checked(string_len(rest)?)?;
        let key = name.strip_prefix('"')?.strip_suffix('"')?;
        let after = after.trim_start().strip_prefix(':')?.trim_start();
        let (value, after) = after.split_at_checked(value_len(after)?)?;
        take(Span { key, value: value.trim_end() });
        rest = match separator(after)? {
            (',', after) => after.trim_start(),
            ('}', after) => return after.trim().is_empty().then_some(()),
            _ => return None,
        };
    }
}

#[cfg(test)]
pub fn object(text: &str) -> Option<Vec<Span<'_>>> {
    let mut members = Vec::new();
    each_member(text, |member| members.push(member))?;
    Some(members)
}

/// The elements of the array that `text` is, or the first `most` and one more; `None` when its structure is broken.
pub fn array(text: &str, most: usize) -> Option<Vec<&str>> {
    let mut rest = text.trim_start().strip_prefix('[')?.trim_start();
    let mut elements = Vec::new();
    if let Some(end) = rest.strip_prefix(']') {
        return end.trim().is_empty().then_some(elements);
    }
    loop {
        let (value, after) = rest.split_at_checked(value_len(rest)?)?;
        elements.push(value.trim_end());
        if elements.len() > most {
            return Some(elements);
        }
        rest = match separator(after)? {
            (',', after) => after.trim_start(),
            (']', after) => return after.trim().is_empty().then_some(elements),
            _ => return None,
        };
    }
}

fn separator(text: &str) -> Option<(char, &str)> {
    let mut chars = text.trim_start().chars();
    chars.next().map(|c| (c, chars.as_str()))
}

/// Bytes of the string literal at the start of `text`, quotes included.
fn string_len(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    if bytes.next()?.1 != b'"' {
        return None;
    }
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next()?,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Bytes of the value at the start of `text`: up to the next `,` or closing bracket of the enclosing level. Never 0.
fn value_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += string_len(text.get(at..)?)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b',' | b'}' | b']' if depth == 0 => return (at > 0).then_some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// `text` with each `\uD800`-`\uDFFF` escape that has no partner replaced by `\ufffd`; `None` when there is none.
pub fn without_lone_surrogates(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut repaired: Option<String> = None;
    let mut copied = 0;
    let mut skip_to = 0;
    for at in memchr::memmem::find_iter(bytes, b"\\u") {
        let backslashes = bytes.get(..at)?.iter().rev().take_while(|&&b| b == b'\\').count();
        if at < skip_to || backslashes % 2 == 1 {
            continue;
        }
        let Some(unit) = escape(text, at) else { continue };
        match unit {
            0xd800..=0xdbff if matches!(escape(text, at + 6), Some(0xdc00..=0xdfff)) => skip_to = at + 12,
            0xd800..=0xdfff => {
                let out = repaired.get_or_insert_default();
                out.push_str(text.get(copied..at)?);
                out.push_str("\\ufffd");
                copied = at + 6;
            }
            _ => {}
        }
    }
    let mut out = repaired?;
    out.push_str(text.get(copied..)?);
    Some(out)
}

fn escape(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Whether brackets nest deeper than `limit`; text inside strings does not count.
pub fn is_deeper_than(json: &str, limit: usize) -> bool {
    // A value nested that deep has at least one opening and one closing byte a level.
    if json.len() < 2 * limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Option<Vec<(&str, &str)>> {
        object(text).map(|spans| spans.into_iter().map(|span| (span.key, span.value)).collect())
    }

    #[test]
    fn members_and_elements_are_found_without_judging_values() {
        let text = r#" { "a" : NaN , "b,}" : {"x":[1,"]"]} , "c":"\"}", "d" : -Infinity } "#;
        let expected = [("a", "NaN"), ("b,}", r#"{"x":[1,"]"]}"#), ("c", r#""\"}""#), ("d", "-Infinity")];
        assert_eq!(members(text).as_deref(), Some(&expected[..]));
        assert_eq!(array(r#"[1 , nan,{"a":[2]}, "x,]" ]"#, 4), Some(vec!["1", "nan", r#"{"a":[2]}"#, r#""x,]""#]));
        assert_eq!(array("[1,2,3,4", 1).as_deref(), Some(&["1", "2"][..]), "no more is read than is wanted");
        assert_eq!((members(" { } "), array(" [ ] ", 0)), (Some(Vec::new()), Some(Vec::new())));
    }

    #[test]
    fn broken_structure_is_nothing_and_never_a_panic() {
        for text in [
            "",
            "{",
            "}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1",
            "{\"a\":1}x",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":[1}",
            "[",
            "{\"\\",
        ] {
            assert!(members(text).is_none() || text == "{\"a\":[1}", "{text}");
        }
        for text in ["[", "]", "[1", "[1,]", "[,1]", "[1]x", "[\"]"] {
            assert!(array(text, 9).is_none(), "{text}");
        }
        let whole = r#"{"a":[1,{"b":"c\\"}],"d":"ü\ud83d"}"#;
        for (end, _) in whole.char_indices() {
            assert!(object(&whole[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_and_escaped_backslashes_are_not() {
        for (text, repaired) in [
            (r"\ud83d\ude00", None),
            (r"\ud83d", Some(r"\ufffd")),
            (r"\ude00\ud83d", Some(r"\ufffd\ufffd")),
            (r"\ud83d\ud83d\ude00", Some(r"\ufffd\ud83d\ude00")),
            (r"\\ud83d", None),
            (r"\\\ud83d", Some(r"\\\ufffd")),
            (r"\uD8", None),
            (r"\uzzzz", None),
            ("plain", None),
        ] {
            assert_eq!(without_lone_surrogates(text).as_deref(), repaired, "{text}");
        }
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(!is_deeper_than(&nested(100), 100) && is_deeper_than(&nested(101), 100));
        assert!(!is_deeper_than(&format!("[\"{}\"]", "[".repeat(500)), 100));
        assert!(!is_deeper_than(&format!("[{}1]", "[1],".repeat(500)), 100));
        assert!(!is_deeper_than(r#"["\"[[["]"#, 2));
    }
}
