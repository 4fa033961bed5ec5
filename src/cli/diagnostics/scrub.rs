//! What must not leave with a support archive: the last line of defence behind texts that hold no secret by design.

use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

const HIDDEN: &str = "***";
/// A shorter secret would be found everywhere.
const SECRET_BYTES_MIN: usize = 8;
/// Shortest text after which `eyJ` begins a token.
const TOKEN_BYTES_MIN: usize = 20;
/// Characters that end a word.
const ENDS: &[char] =
    &['"', '\'', ',', ';', '(', ')', '<', '>', '{', '}', '/', '=', '?', '&', '|', '\\', '`', '\n', '\t', '\r', ' '];

/// Hides secrets by value, and by shape what looks like a token, a signature, a login, a mail address or a public IP address.
pub(crate) struct Scrub {
    secrets: Vec<String>,
}

impl Scrub {
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let encoded = |secret: &String| url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>();
        let long = secrets.into_iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN);
        let mut secrets: Vec<String> = long.flat_map(|secret| [encoded(&secret), secret]).collect();
        // A query before the signature in it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets }
    }

    /// The text without them, and how many there were. Lines of JSON stay JSON.
    pub(crate) fn text(&self, text: &str) -> (String, usize) {
        let (mut hidden, mut out) = (0, String::with_capacity(text.len()));
        for line in text.split_inclusive('\n') {
            let parsed = serde_json::from_str::<Value>(line).ok().filter(|value| value.is_object() || value.is_array());
            match parsed {
                Some(mut value) => {
                    self.value(&mut value, &mut hidden);
                    out.push_str(&value.to_string());
                    out.push_str(if line.ends_with('\n') { "\n" } else { "" });
                }
                None => out.push_str(&self.words(line, &mut hidden)),
            }
        }
        (out, hidden)
    }

    fn value(&self, value: &mut Value, hidden: &mut usize) {
        match value {
            Value::String(text) => *text = self.words(text, hidden),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item, hidden)),
            Value::Object(members) => {
                for (name, mut below) in std::mem::take(members) {
                    self.value(&mut below, hidden);
                    members.insert(self.words(&name, hidden), below);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn words(&self, text: &str, hidden: &mut usize) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            *hidden += text.matches(secret.as_str()).count();
            text = text.replace(secret.as_str(), HIDDEN);
        }
        let mut out = String::with_capacity(text.len());
        let (mut rest, mut before) = (text.as_str(), String::new());
        while !rest.is_empty() {
            // A signature holds what ends other words.
            let signature = ["sig", "signature"].contains(&before.as_str()) && out.ends_with('=');
            let end = rest.find(if signature { &['&', '"', ' ', '\n'] } else { ENDS });
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            let shown = match word {
                "" => None,
                HIDDEN => None,
                _ if signature || before == "bearer" => Some(HIDDEN.to_owned()),
                _ => masked(word),
            };
            *hidden += usize::from(shown.is_some());
            out.push_str(shown.as_deref().unwrap_or(word));
            if !word.is_empty() {
                before = word.to_lowercase();
            }
            let next = after.chars().next();
            out.extend(next);
            rest = after.get(next.map_or(0, char::len_utf8)..).unwrap_or_default();
        }
        out
    }
}

/// The word as it may be shown, if that is not itself.
fn masked(word: &str) -> Option<String> {
    let is_token = word.strip_prefix("eyJ").is_some_and(|rest| rest.len() >= TOKEN_BYTES_MIN);
    if is_token {
        return Some(HIDDEN.into());
    }
    if let Some((name, host)) = word.rsplit_once('@') {
        // A login before a host, or a mail address; `@Microsoft.KeyVault` is neither.
        return (!name.is_empty() && name != HIDDEN).then(|| match name.contains(':') {
            true => format!("{HIDDEN}@{host}"),
            false => HIDDEN.to_owned(),
        });
    }
    let bare = word.trim_end_matches(['.', ':']).trim_matches(['[', ']']);
    let address = bare.parse::<IpAddr>().ok().or_else(|| word.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.filter(|address| is_public(*address)).map(|_| HIDDEN.to_owned())
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_or_a_person_is_hidden_and_the_rest_is_not() {
        let scrub = Scrub::new(["a-known-secret".to_owned(), "short".to_owned()]);
        let token = format!("eyJ{}.x.y", "a".repeat(40));
        for (text, shown) in [
            ("by wendy.appleseed+x@example.com at 12:30:15", "by *** at 12:30:15"),
            ("https://u:canary@proxy.internal:3128/x", "https://***@proxy.internal:3128/x"),
            ("https://h/c?sv=2024&sig=ab%2Fc/d=&se=1", "https://h/c?sv=2024&sig=***&se=1"),
            ("https://h/c?sig=abc", "https://h/c?sig=***"),
            (format!("token {token}!").as_str(), "token ***"),
            ("Authorization: Bearer abcdef", "Authorization: Bearer ***"),
            (
                "from 81.2.69.142:443, then [2001:db8::7] and 10.0.0.1, 127.0.0.1:9464, ::1",
                "from ***, then *** and 10.0.0.1, 127.0.0.1:9464, ::1",
            ),
            ("the a-known-secret is short", "the *** is short"),
            (
                "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/op)",
                "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/op)",
            ),
            ("https://***@proxy:3128 and c?***", "https://***@proxy:3128 and c?***"),
            (
                "version 0.1.0, 2026-11-23T01:02:03.5Z, batch cc9dcc215ef24909e90116871b2a1c6e",
                "version 0.1.0, 2026-11-23T01:02:03.5Z, batch cc9dcc215ef24909e90116871b2a1c6e",
            ),
        ] {
            assert_eq!(scrub.text(text).0, shown);
        }
    }

    #[test]
    fn lines_of_json_stay_json_and_every_hit_is_counted() {
        let text = "{\"error\":\"a\\nalice@example.com\",\"n\":[1,\"81.2.69.142\"],\"bob@example.com\":null}\n{\"b\":true}\nplain bob@example.com";
        let (scrubbed, hidden) = Scrub::new([]).text(text);
        let lines: Vec<&str> = scrubbed.lines().collect();
        assert_eq!(lines, [r#"{"***":null,"error":"a\n***","n":[1,"***"]}"#, r#"{"b":true}"#, "plain ***"]);
        assert_eq!(hidden, 4);
    }
}
