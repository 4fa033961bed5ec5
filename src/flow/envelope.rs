//! The envelope of a stored document: what it is, who wrote it, who may read it, and a checksum over everything in it.

use super::map::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: String,
    version: u32,
    min_reader: u32,
    writer: String,
    checksum: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Envelope<'_> {
    fn sum(&self) -> String {
        let head = format!("{}\n{}\n{}\n{}\n", self.format, self.version, self.min_reader, self.writer);
        sha256_hex(&[head.as_bytes(), self.body.get().as_bytes()].concat())
    }
}

/// What a kind of document is called, the format that this program writes, and the oldest program that may read that.
#[derive(Clone, Copy)]
pub struct Kind {
    pub format: &'static str,
    pub version: u32,
    pub min_reader: u32,
}

/// What stands in an envelope.
#[derive(Debug)]
pub enum Opened<'a> {
    Body(&'a str),
    /// Torn, changed, empty or not ours; why.
    Corrupt(String),
    /// Written by a program whose format this one must not touch.
    TooNew {
        writer: String,
        min_reader: u32,
    },
}

impl Kind {
    /// # Errors
    /// JSON cannot hold the body.
    pub fn seal(self, body: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
        let body = serde_json::value::to_raw_value(body)?;
        let mut envelope = Envelope {
            format: self.format.into(),
            version: self.version,
            min_reader: self.min_reader,
            writer: concat!("opship/", env!("CARGO_PKG_VERSION")).to_owned(),
            checksum: String::new(),
            body: &body,
        };
        envelope.checksum = envelope.sum();
        serde_json::to_vec(&envelope)
    }

    pub fn open(self, bytes: &[u8]) -> Opened<'_> {
        let envelope: Envelope<'_> = match serde_json::from_slice(bytes) {
            Ok(envelope) => envelope,
            Err(error) => return Opened::Corrupt(format!("not a document of this program: {error}")),
        };
        if envelope.format != self.format {
            return Opened::Corrupt(format!("its format is not {}", self.format));
        }
        if envelope.checksum != envelope.sum() {
            return Opened::Corrupt("its checksum does not match".into());
        }
        if envelope.min_reader > self.version {
            return Opened::TooNew { writer: envelope.writer, min_reader: envelope.min_reader };
        }
        Opened::Body(envelope.body.get())
    }
}
