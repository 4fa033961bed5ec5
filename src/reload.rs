//! What SIGHUP asks of `run`: secrets that are in use are read again, and feeds that wait try now.
//!
//! It is never a way around a wait that protects rows or a service: those who wait see to that.

use crate::secret::SecretRef;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// A secret in use that can be replaced while the process runs.
#[async_trait::async_trait]
pub trait Renew: Send + Sync {
    /// Reads it again.
    ///
    /// # Errors
    /// It cannot be read or used: what was in use stays in use.
    async fn renew(&self) -> Result<Renewed, Box<dyn std::error::Error + Send + Sync>>;

    /// Forgets a refusal: the operator asks for a try now.
    fn hurry(&self) {}
}

/// What reading again found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// Another secret than the one in use: it is in use from now on.
    Changed,
    Same,
}

/// The secrets in use, and the wish to try now.
pub struct Reload {
    secrets: Mutex<Vec<InUse>>,
    hurry: watch::Sender<u64>,
}

#[derive(Clone)]
struct InUse {
    /// The key of the configuration.
    setting: String,
    reference: SecretRef,
    holder: Arc<dyn Renew>,
}

impl Default for Reload {
    fn default() -> Self {
        Self { secrets: Mutex::default(), hurry: watch::Sender::new(0) }
    }
}

impl Reload {
    /// From now on this secret is read again when that is asked for.
    pub fn covers(&self, setting: String, reference: SecretRef, holder: Arc<dyn Renew>) {
        let mut secrets = self.secrets.lock();
        // A start that had to wait registers the same setting again.
        secrets.retain(|secret| secret.setting != setting);
        secrets.push(InUse { setting, reference, holder });
    }

    /// For who waits.
    pub fn hurry(&self) -> Hurry {
        Hurry(Some(self.hurry.subscribe()))
    }

    /// Reads everything again, and says only what has changed or cannot be read.
    pub async fn look_again(&self) {
        for secret in self.in_use() {
            secret.renew("correct it: it is read again by itself").await;
        }
    }

    fn in_use(&self) -> Vec<InUse> {
        self.secrets.lock().clone()
    }

    /// Reads everything again, says what has changed, then hurries those who wait.
    pub async fn now(&self) {
        let secrets = self.in_use();
        let (mut changed, mut same, mut unreadable) = (0_u32, Vec::new(), 0_u32);
        for secret in &secrets {
            secret.holder.hurry();
            match secret.renew("correct it, then send SIGHUP again").await {
                Some(Renewed::Changed) => changed += 1,
                Some(Renewed::Same) => same.push(secret),
                None => unreadable += 1,
            }
        }
        for secret in &same {
            if let Some(remedy) = needs_more(&secret.reference, std::env::var_os("CREDENTIALS_DIRECTORY").as_deref()) {
                let setting = secret.setting.as_str();
                tracing::info!(setting, remedy, "the secret is the same, and cannot change while this process runs");
            }
        }
        let same = same.len();
        if changed == 0 && unreadable == 0 {
            tracing::info!(same, "secrets were read again: nothing has changed; feeds that wait try now");
        } else {
            tracing::info!(changed, same, unreadable, "secrets were read again; feeds that wait try now");
        }
        self.hurry.send_modify(|times| *times += 1);
    }
}

impl InUse {
    /// Reads it again, and says if it is another one or cannot be read; then none.
    async fn renew(&self, remedy: &str) -> Option<Renewed> {
        let setting = self.setting.as_str();
        match self.holder.renew().await {
            Ok(renewed) => {
                if renewed == Renewed::Changed {
                    tracing::info!(setting, "the secret is another one: it is in use from now on");
                }
                Some(renewed)
            }
            Err(error) => {
                tracing::warn!(setting, error = %error, remedy, "the secret cannot be read or used: the one in use stays in use");
                None
            }
        }
    }
}

/// What a new secret needs beyond SIGHUP; none for what is read from where it is written.
fn needs_more(reference: &SecretRef, credentials: Option<&std::ffi::OsStr>) -> Option<&'static str> {
    match reference {
        SecretRef::Env(_) => Some(
            "an environment variable stays what it was at the start: restart opship after a change, or use file: or keyvault:",
        ),
        SecretRef::File(path) => {
            let copies = credentials.filter(|folder| !folder.is_empty()).map(Path::new);
            let is_copy = copies.is_some_and(|folder| path.starts_with(folder));
            is_copy.then_some(
                "the file is a copy that systemd made at the start (LoadCredential): restart the unit after a change",
            )
        }
        SecretRef::KeyVault(_) => None,
    }
}

/// The wish to try now, as one waiting feed hears it.
#[derive(Clone, Default)]
pub struct Hurry(Option<watch::Receiver<u64>>);

impl Hurry {
    /// What was asked for until now is being done.
    pub fn begin(&mut self) {
        if let Some(asked) = &mut self.0 {
            asked.mark_unchanged();
        }
    }

    /// Ends when somebody asks, or has asked since [`Hurry::begin`] or the last end; never where nobody can.
    pub async fn asked(&mut self) {
        let heard = match &mut self.0 {
            Some(asked) => asked.changed().await.is_ok(),
            None => false,
        };
        if !heard {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::time::Duration;

    #[test]
    fn a_variable_and_a_copy_of_systemd_s_need_a_restart() {
        let file = |path: &str| SecretRef::File(path.into());
        let copies = Some(OsStr::new("/run/credentials/opship.service"));
        let of = |reference: &SecretRef, copies| needs_more(reference, copies).unwrap_or_default();
        assert!(of(&SecretRef::Env("TOKEN".into()), copies).contains("restart opship"));
        assert!(of(&file("/run/credentials/opship.service/token"), copies).contains("LoadCredential"));
        for (path, copies) in [
            ("/run/credentials/opship.service/token", None),
            ("/run/credentials/opship.service/token", Some(OsStr::new(""))),
            ("/etc/opship/token", copies),
            ("/run/credentials/opship.service-2/token", copies),
        ] {
            assert_eq!(of(&file(path), copies), "", "{path}");
        }
        assert_eq!(of(&SecretRef::KeyVault("https://v.vault.azure.net/secrets/x".parse().unwrap()), copies), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_is_heard_once_by_each_and_not_at_all_where_nobody_can_have_one() {
        let heard = async |hurry: &mut Hurry| tokio::time::timeout(Duration::from_secs(1), hurry.asked()).await.is_ok();
        let reload = Reload::default();
        let (mut one, mut other, mut nobody) = (reload.hurry(), reload.hurry(), Hurry::default());
        assert!(!heard(&mut one).await);
        reload.now().await;
        other.begin();
        assert!(
            heard(&mut one).await && !heard(&mut one).await && !heard(&mut other).await && !heard(&mut nobody).await
        );
        drop(reload);
        assert!(!heard(&mut one).await);
    }
}
