//! checkpoint: what is read is what was written; anything else is called damaged, never taken for an empty one.

use opship::flow::checkpoint::{Checkpoint, Decoded};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub fn check(data: &[u8]) {
    round_trip(data);
    // Past the checksum, which no mutation finds: the bytes as the body of a document that is sealed rightly.
    let Ok(body) = std::str::from_utf8(data) else { return };
    let body = body.trim();
    if serde_json::from_str::<&serde_json::value::RawValue>(body).is_ok() {
        for (version, min_reader) in [(1, 1), (9, 1), (9, 2)] {
            let sealed = sealed(body, version, min_reader);
            let decoded = round_trip(sealed.as_bytes());
            match decoded {
                Decoded::Good(cp) => nothing_is_dropped(body, &cp),
                Decoded::TooNew { min_reader: asked, .. } => assert!(asked == 2 && min_reader == 2),
                Decoded::Corrupt(why) => assert!(why.contains("its body"), "sealed rightly, yet: {why}"),
            }
        }
    }
}

fn round_trip(bytes: &[u8]) -> Decoded {
    let decoded = Checkpoint::decode(bytes);
    match &decoded {
        Decoded::Good(cp) => {
            let again = cp.encode().expect("what was read can be written");
            match Checkpoint::decode(&again) {
                Decoded::Good(back) => assert_eq!(back, *cp, "a round trip changed the checkpoint"),
                other => panic!("what was written cannot be read: {other:?}"),
            }
        }
        Decoded::Corrupt(why) => assert!(!why.is_empty()),
        Decoded::TooNew { min_reader, .. } => assert!(*min_reader > 1),
    }
    decoded
}

/// The document around a body, as `docs/ARCHITECTURE.md` describes it.
fn sealed(body: &str, version: u32, min_reader: u32) -> String {
    let head = format!("opship-checkpoint\n{version}\n{min_reader}\nw\n");
    let sum: String = Sha256::digest(format!("{head}{body}")).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        r#"{{"format":"opship-checkpoint","version":{version},"min_reader":{min_reader},"writer":"w","checksum":"{sum}","body":{body}}}"#
    )
}

/// Members that this program does not know are those of a newer one: they come back.
fn nothing_is_dropped(body: &str, cp: &Checkpoint) {
    let (Ok(before), Ok(after)) = (serde_json::from_str::<Value>(body), serde_json::to_value(cp)) else { return };
    members_survive(&before, &after, "");
}

fn members_survive(before: &Value, after: &Value, path: &str) {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return };
    for (name, value) in before {
        let kept = after.get(name);
        assert!(kept.is_some(), "{path}/{name} was dropped");
        members_survive(value, kept.unwrap_or(&Value::Null), &format!("{path}/{name}"));
    }
}
