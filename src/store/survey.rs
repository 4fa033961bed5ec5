//! What a directory is worth as a store, found out without leaving anything in it.
//!
//! A directory that no agent has used yet is not opened: the lock file that this makes would belong to whoever looks, who is often not the
//! user that the agent will run as.

use super::disk::LOCK;
use super::file::FileStore;
use super::{Store, StoreError};
use crate::private::{Standing, Unfit};
use std::fs;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// The directory is there.
    pub exists: bool,
    /// Who may replace or delete what is in it. That others may list it is no harm: every file and folder inside is its owner's alone.
    pub standing: Option<Standing>,
    /// Of its file system, or of that on which it would be made.
    pub free_bytes: Option<u64>,
}

/// Looks at the directory and its file system.
pub fn ground(path: &Path) -> Ground {
    let standing = if path.is_dir() { Standing::of(path).ok() } else { None };
    let room = rustix::fs::statvfs(nearest(path)).ok();
    Ground {
        exists: standing.is_some(),
        standing,
        free_bytes: room.map(|room| room.f_bavail.saturating_mul(room.f_frsize)),
    }
}

/// Refuses a folder in which another user may put positions and ledgers in place of ours: events would be skipped, or shipped again.
pub(super) fn demand_fit(attempted: &'static str, path: &Path) -> Result<(), StoreError> {
    let standing = Standing::of(path).map_err(|cause| super::disk::failed(attempted, path, cause))?;
    let (why, remedy) = match standing.unfit() {
        None => return Ok(()),
        Some(Unfit::OfAnother { owner }) => (
            format!("the folder belongs to user {owner}, neither to the user that runs opship nor to root"),
            "run opship as that user, or chown the folder and what is in it to the one that runs opship",
        ),
        Some(Unfit::OpenToAll { mode }) => (
            format!(
                "every user may replace or delete what is in the folder (mode {mode:04o}), and it is no mount point"
            ),
            "chmod the folder to 0700: it holds the positions and the ledger",
        ),
    };
    Err(StoreError::Refused {
        attempted,
        on: path.display().to_string(),
        remedy: remedy.into(),
        cause: Some(why.into()),
    })
}

/// Whether an agent has kept its position here.
pub fn is_used(path: &Path) -> bool {
    path.join(LOCK).exists()
}

/// Proves a directory that no agent has used yet: in a folder of its own, inside it or where it would be made, removed afterwards.
///
/// # Errors
/// As [`FileStore::open`] and [`Store::probe`], told of `path` itself.
pub async fn rehearse(path: &Path) -> Result<String, StoreError> {
    let scratch = nearest(path).join(format!("opship-check-{}", uuid::Uuid::new_v4().simple()));
    let proved = async {
        if path.is_dir() {
            demand_fit("use of", path)?;
        }
        FileStore::open(&scratch).await?.probe().await
    };
    let proved = proved.await;
    // Best effort, and nothing but what was just made.
    let _ = fs::remove_dir_all(&scratch);
    let place = path.display().to_string();
    match proved {
        Ok(proved) => Ok(proved.replace(&scratch.display().to_string(), &place)),
        Err(StoreError::Refused { attempted, remedy, cause, .. }) => {
            Err(StoreError::Refused { attempted, on: place, remedy, cause })
        }
        Err(StoreError::Failed { attempted, cause, .. }) => Err(StoreError::Failed { attempted, on: place, cause }),
        Err(error) => Err(error),
    }
}

/// The directory, else the part of its path that exists.
fn nearest(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.ancestors().find(|part| part.symlink_metadata().is_ok()).map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(path: &Path) -> usize {
        fs::read_dir(path).unwrap().count()
    }

    #[tokio::test]
    async fn a_rehearsal_leaves_nothing_behind_wherever_it_was() {
        let home = tempfile::tempdir().unwrap();
        for path in [home.path().to_owned(), home.path().join("state"), home.path().join("a/b/state")] {
            let proved = rehearse(&path).await.unwrap();
            assert!(proved.starts_with(&format!("{}: read, write", path.display())), "{proved}");
            assert_eq!((listed(home.path()), is_used(&path)), (0, false));
        }
        let ground = ground(&home.path().join("a/b"));
        assert!(!ground.exists && ground.free_bytes > Some(0), "{ground:?}");
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_named_and_no_scratch_folder() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state");
        fs::write(&path, "").unwrap();
        let error = rehearse(&path).await.unwrap_err().to_string();
        assert!(error.contains("must name a directory") && error.contains("state refused"), "{error}");
    }
}
