//! The canary: the secrets of a world, searched for in every spelling wherever its processes could have left them.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use flate2::Compression;
use flate2::write::GzEncoder;
use memchr::memmem;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Where a world keeps the secrets that its processes are to read: the one folder that is not searched.
pub const SECRETS_FOLDER: &str = "secrets";

#[derive(Clone, Debug)]
pub struct Canary(Vec<String>);

impl Canary {
    pub fn new(secrets: &[String]) -> Self {
        let mut spellings: Vec<String> = secrets.iter().flat_map(|secret| spellings(secret)).collect();
        spellings.sort();
        spellings.dedup();
        Self(spellings)
    }

    /// The spelling that stands in these bytes.
    pub fn found(&self, bytes: &[u8]) -> Option<&str> {
        self.0.iter().map(String::as_str).find(|spelling| memmem::find(bytes, spelling.as_bytes()).is_some())
    }

    /// The first file below `folder` whose name or content holds a secret.
    pub fn found_below(&self, folder: &Path) -> Option<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| !path.ends_with(SECRETS_FOLDER)).find_map(|path| {
            if self.found(path.as_os_str().as_encoded_bytes()).is_some() {
                return Some(path);
            }
            if path.is_dir() {
                return self.found_below(&path);
            }
            // Files that go meanwhile, locks and temporary ones, are no findings.
            let holds = |bytes: Vec<u8>| self.found(&bytes).or_else(|| self.found(&unzipped(&bytes))).is_some();
            std::fs::read(&path).is_ok_and(holds).then_some(path)
        })
    }
}

/// What a gzip file holds; nothing of any other.
fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let is_gzip = bytes.starts_with(&[0x1f, 0x8b]);
    // A torn end hides nothing of what stands before it.
    let _ = is_gzip.then(|| flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text));
    text
}

/// As it is, URL-encoded, in hexadecimal, and in both alphabets of base64 wherever it stands in the encoded text.
fn spellings(secret: &str) -> Vec<String> {
    assert!(secret.len() >= 8, "a secret this short would be found everywhere");
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut spellings = vec![secret.to_owned(), url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(), hex];
    for before in 0..3 {
        let bytes = [&vec![0; before], secret.as_bytes()].concat();
        // Characters that hold bits of the neighbours are no part of the spelling.
        let (from, to) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        spellings.extend([&BASE64_STANDARD, &BASE64_URL_SAFE].map(|base64| base64.encode(&bytes)[from..to].to_owned()));
    }
    spellings
}

/// Fault: a secret is planted in a file as it is, URL-encoded, in base64 and in a gzip archive. Shows: the search finds each, and nothing in a clean folder.
#[test]
fn fm_42_the_search_finds_a_secret_in_every_spelling_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "canary~secret/of+some:length";
    let canary = Canary::new(&[secret.to_owned()]);
    let below = folder.path().join("a/b");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::create_dir(folder.path().join(SECRETS_FOLDER)).unwrap();
    std::fs::write(folder.path().join(SECRETS_FOLDER).join("token"), secret).unwrap();
    std::fs::write(below.join("clean"), "canary~secret/of+some").unwrap();
    assert_eq!(canary.found_below(folder.path()), None);
    for planted in [
        format!("log line with {secret} inside"),
        "?sig=canary%7Esecret%2Fof%2Bsome%3Alength&".to_owned(),
        BASE64_STANDARD.encode(secret),
        BASE64_STANDARD.encode(format!("u:{secret}@")),
        BASE64_URL_SAFE.encode(format!("user:{secret}")),
    ] {
        let file = below.join("planted");
        std::fs::write(&file, &planted).unwrap();
        assert_eq!(canary.found_below(folder.path()), Some(file.clone()), "{planted}");
        std::fs::remove_file(file).unwrap();
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(format!("in an archive: {secret}").as_bytes()).unwrap();
    let file = below.join("planted.tar.gz");
    std::fs::write(&file, packed.finish().unwrap()).unwrap();
    assert_eq!(canary.found_below(folder.path()), Some(file));
}
