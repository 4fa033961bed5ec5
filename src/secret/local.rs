//! Secrets of this machine: environment variables and files.

use super::{SecretError, SecretReader, SecretRef};
use parking_lot::Mutex;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest secret file: a certificate chain with its key has a few KiB.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Permission bits of a secret file that should be off: any of others, and writing by the group.
#[cfg(unix)]
const MODE_TOO_OPEN: u32 = 0o037;

type Variables = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Reads `env:` and `file:` references itself, each time anew, and hands `keyvault:` on.
pub struct LocalSecrets {
    variables: Variables,
    key_vault: Option<Arc<dyn SecretReader>>,
    /// Files whose permissions were complained about: once is enough.
    warned: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl LocalSecrets {
    /// Reads the variables of this process.
    pub fn new(key_vault: Option<Arc<dyn SecretReader>>) -> Self {
        Self::with_variables(|name| std::env::var(name).ok(), key_vault)
    }

    /// Reads variables by the given function.
    pub fn with_variables(
        variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        key_vault: Option<Arc<dyn SecretReader>>,
    ) -> Self {
        Self { variables: Box::new(variables), key_vault, warned: Arc::default() }
    }
}

#[async_trait::async_trait]
impl SecretReader for LocalSecrets {
    async fn read(&self, reference: &SecretRef) -> Result<SecretString, SecretError> {
        match reference {
            SecretRef::Env(name) => match (self.variables)(name).map(Zeroizing::new) {
                Some(text) => trimmed(&text).ok_or_else(|| refused(reference, "the environment variable is empty")),
                None => Err(refused(reference, "the environment variable is not set: set it, or correct its name")),
            },
            SecretRef::File(path) => {
                let (path, warned) = (path.clone(), Arc::clone(&self.warned));
                let read = tokio::task::spawn_blocking(move || read_file(&path, &warned)).await;
                read.map_err(|cause| failed(reference, "the reading thread ended", cause))?
            }
            SecretRef::KeyVault(_) => match &self.key_vault {
                Some(key_vault) => key_vault.read(reference).await,
                None => Err(refused(reference, "this command has no access to key vaults: use env: or file:")),
            },
        }
    }
}

fn read_file(path: &Path, warned: &Mutex<BTreeSet<PathBuf>>) -> Result<SecretString, SecretError> {
    let reference = SecretRef::File(path.to_owned());
    // asked before opening: to open a pipe that nobody writes would wait for ever
    let metadata = std::fs::metadata(path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => {
            failed(&reference, "there is no such file: mount it, or correct the path", cause)
        }
        _ => failed(&reference, "the file cannot be read: check its permissions", cause),
    })?;
    if !metadata.is_file() {
        return Err(refused(&reference, "it is not a regular file"));
    }
    warn_if_too_open(path, &metadata, warned);
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len().min(SECRET_BYTES_MAX) as usize + 1));
    std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|cause| failed(&reference, "the file cannot be read: check its permissions", cause))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(refused(&reference, "the file is larger than 64 KiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| refused(&reference, "the file is not UTF-8 text"))?;
    trimmed(text).ok_or_else(|| refused(&reference, "the file is empty"))
}

/// Without the line end that editors and `echo` leave; `None` when nothing is left.
fn trimmed(text: &str) -> Option<SecretString> {
    let text = text.trim_end_matches(['\r', '\n']);
    (!text.trim().is_empty()).then(|| SecretString::from(text))
}

/// A warning, not a refusal: Kubernetes mounts secrets as 0644 into the pod.
fn warn_if_too_open(path: &Path, metadata: &std::fs::Metadata, warned: &Mutex<BTreeSet<PathBuf>>) {
    let Some(mode) = too_open(metadata) else { return };
    if warned.lock().insert(path.to_owned()) {
        tracing::warn!(path = %path.display(), mode = format!("{mode:04o}"), "other users may read or replace the secret file: chmod it to 0640 or less");
    }
}

/// The permissions of a secret file that others may read or replace; `None` when nothing is wrong with them.
pub fn open_to_others(reference: &SecretRef) -> Option<u32> {
    let SecretRef::File(path) = reference else { return None };
    too_open(&std::fs::metadata(path).ok()?)
}

#[cfg(unix)]
fn too_open(metadata: &std::fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & MODE_TOO_OPEN != 0).then_some(mode)
}

#[cfg(not(unix))]
fn too_open(_: &std::fs::Metadata) -> Option<u32> {
    None
}

fn refused(reference: &SecretRef, why: &str) -> SecretError {
    SecretError { reference: reference.to_string(), why: why.to_owned(), remedy: None, cause: None }
}

fn failed(reference: &SecretRef, why: &str, cause: impl std::error::Error + Send + Sync + 'static) -> SecretError {
    SecretError { reference: reference.to_string(), why: why.to_owned(), remedy: None, cause: Some(Box::new(cause)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn secrets() -> LocalSecrets {
        let variables = |name: &str| match name {
            "TOKEN" => Some("CANARY\n".to_owned()),
            "EMPTY" => Some(" \n".to_owned()),
            _ => None,
        };
        LocalSecrets::with_variables(variables, None)
    }

    async fn read(reference: &str) -> Result<String, String> {
        let secret = secrets().read(&SecretRef::parse(reference).unwrap()).await;
        secret.map(|secret| secret.expose_secret().to_owned()).map_err(|err| err.to_string())
    }

    #[tokio::test]
    async fn a_variable_is_read_without_its_line_end() {
        assert_eq!(read("env:TOKEN").await.as_deref(), Ok("CANARY"));
        assert_eq!(
            read("env:TOKNE").await.unwrap_err(),
            "read the secret env:TOKNE: the environment variable is not set: set it, or correct its name"
        );
        assert!(read("env:EMPTY").await.unwrap_err().contains("is empty"));
    }

    #[tokio::test]
    async fn a_file_is_read_anew_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let (secrets, reference) = (secrets(), SecretRef::File(path.clone()));
        for content in ["one\r\n", "two", "line 1\nline 2\n\n"] {
            std::fs::write(&path, content).unwrap();
            let secret = secrets.read(&reference).await.unwrap();
            assert_eq!(secret.expose_secret(), content.trim_end());
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_a_secret_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let reference = format!("file:{}", path.display());
        assert!(read(&reference).await.unwrap_err().contains("there is no such file"));
        for (content, why) in [
            (Vec::new(), "is empty"),
            (b"\n\n".to_vec(), "is empty"),
            (vec![0xff, b'x'], "not UTF-8"),
            (vec![b'x'; SECRET_BYTES_MAX as usize + 1], "larger than 64 KiB"),
        ] {
            std::fs::write(&path, content).unwrap();
            let message = read(&reference).await.unwrap_err();
            assert!(message.contains(why) && message.contains(&reference), "{message}");
        }
        assert!(read(&format!("file:{}", dir.path().display())).await.unwrap_err().contains("regular file"));
    }

    #[tokio::test]
    async fn a_key_vault_reference_needs_its_reader() {
        let reference = "keyvault:https://v.vault.azure.net/secrets/op";
        assert!(read(reference).await.unwrap_err().contains("no access to key vaults"));
        let inner: Arc<dyn SecretReader> = Arc::new(LocalSecrets::with_variables(|_| None, None));
        let outer = LocalSecrets::with_variables(|_| None, Some(inner));
        assert!(outer.read(&SecretRef::parse(reference).unwrap()).await.is_err());
    }
}
