//! Files and folders that are the agent's own: nobody else reads them, nobody else may replace them, and the one who must use them later can.

use rustix::fs::{AtFlags, CWD, OFlags, StatxAttributes, StatxFlags, chownat, fchown, statx};
use rustix::process::{Gid, Uid, geteuid};
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Of every file, whatever the umask allows.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// How a file is opened that is written: never by way of a link, which may lead to another's file. A new one is its owner's alone.
pub fn file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(FILE_MODE).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Makes one folder inside another.
///
/// # Errors
/// There is one already, or it cannot be made.
pub fn make_folder(folder: &Path, heir: Option<Heir>) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER_MODE).create(folder)?;
    Heir::inherits_folder(heir, folder)
}

/// Makes a folder and what is missing above it. What root makes inside another user's folder is that user's.
///
/// # Errors
/// A part of the path is no folder, or cannot be made.
pub fn make_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|part| part.symlink_metadata().is_err()).collect();
    let above = folder.ancestors().nth(missing.len());
    let heir = above.and_then(|above| Heir::of(above, above));
    for part in missing.into_iter().rev() {
        match make_folder(part, heir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && part.is_dir() => {}
            made => made?,
        }
    }
    // What is there already may be a file.
    DirBuilder::new().recursive(true).create(folder)
}

/// Whether a file was not opened because its name is that of a link.
pub fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Who must be able to use what root makes in a folder: the user that the agent runs as. Root's own command would lock the agent out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heir {
    user: u32,
    group: u32,
}

impl Heir {
    /// None unless we are root: nobody else can give anything away. The owner of the folder, or, where root made the folder for a group
    /// (an `fsGroup`), of a file that the agent made in it.
    pub fn of(folder: &Path, made_by_the_agent: &Path) -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let owner = |found: Metadata| (found.uid() != 0).then_some(Self { user: found.uid(), group: found.gid() });
        let of_folder = std::fs::metadata(folder).ok().and_then(owner);
        of_folder.or_else(|| std::fs::symlink_metadata(made_by_the_agent).ok().and_then(owner))
    }

    /// Gives a file away that is root's, hence was just made by us or by an earlier command of root's. A second name of it may stand
    /// elsewhere: then it is left alone.
    ///
    /// # Errors
    /// Root without the right to give files away.
    pub fn inherits(heir: Option<Self>, file: &File) -> io::Result<()> {
        let Some(Self { user, group }) = heir else { return Ok(()) };
        let found = file.metadata()?;
        if found.uid() == 0 && found.is_file() && found.nlink() == 1 {
            fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
                .map_err(|error| not_given(error, user))?;
        }
        Ok(())
    }

    /// The same of a folder that we have just made.
    ///
    /// # Errors
    /// Root without the right to give folders away.
    pub fn inherits_folder(heir: Option<Self>, folder: &Path) -> io::Result<()> {
        let Some(Self { user, group }) = heir else { return Ok(()) };
        let (owner, group) = (Uid::from_raw(user), Gid::from_raw(group));
        let given = chownat(CWD, folder, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW);
        given.map_err(|error| not_given(error, user))
    }
}

/// In a container without CAP_CHOWN, for example.
fn not_given(error: rustix::io::Errno, user: u32) -> io::Error {
    let error = io::Error::from(error);
    let what = format!("root may not give what it makes to user {user} ({error}): run the command as that user");
    io::Error::new(error.kind(), what)
}

/// Who may change what is in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub owner: u32,
    pub group: u32,
    /// The permissions.
    pub mode: u32,
    /// A file system of its own, or a part of one put there: an `emptyDir`, a volume, a share. Whoever put it there decides who sees it.
    pub is_mount_point: bool,
}

/// Why a folder is no place for what nobody else may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    OfAnother { owner: u32 },
    OpenToAll { mode: u32 },
}

impl Standing {
    /// Of the folder behind every link.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let folder = std::fs::canonicalize(folder)?;
        let found = std::fs::metadata(&folder)?;
        let is_mount_point = is_mount_point(&folder, &found);
        Ok(Self { owner: found.uid(), group: found.gid(), mode: found.mode() & 0o7777, is_mount_point })
    }

    /// For root every folder is as good as its own.
    pub fn unfit(self) -> Option<Unfit> {
        self.unfit_for(geteuid().as_raw())
    }

    fn unfit_for(self, user: u32) -> Option<Unfit> {
        let Self { owner, mode, is_mount_point, .. } = self;
        if ![0, user].contains(&owner) && user != 0 {
            return Some(Unfit::OfAnother { owner });
        }
        (self.is_open_to_all() && !is_mount_point).then_some(Unfit::OpenToAll { mode })
    }

    pub fn is_open_to_all(self) -> bool {
        self.mode & 0o002 != 0
    }

    pub fn is_open_to_its_group(self) -> bool {
        self.mode & 0o020 != 0
    }
}

fn is_mount_point(folder: &Path, found: &Metadata) -> bool {
    // Since Linux 5.8 the kernel says so, also of a folder that was put elsewhere on the same file system.
    let told = statx(CWD, folder, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).ok();
    let mount_root = told.filter(|told| told.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT));
    if let Some(told) = mount_root {
        return told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    let above = folder.parent().and_then(|above| std::fs::metadata(above).ok());
    above.is_none_or(|above| above.dev() != found.dev())
}

/// From now on no other process of the same user may look into this one's memory, where secrets are, and no core file is made of it.
///
/// # Errors
/// The kernel refuses.
pub fn keep_memory_private() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// A name that no file has: whatever stands there is removed, be it a link.
///
/// # Errors
/// It cannot be removed.
pub fn clear(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_another_user_and_one_for_all_are_unfit() {
        let standing = |owner, mode, is_mount_point| Standing { owner, group: 65532, mode, is_mount_point };
        for (owner, mode, is_mount_point, unfit) in [
            (65532, 0o700, false, None),
            (65532, 0o2770, false, None),
            (0, 0o2770, true, None),
            (0, 0o777, true, None),
            (0, 0o1777, true, None),
            (0, 0o1777, false, Some(Unfit::OpenToAll { mode: 0o1777 })),
            (65532, 0o702, false, Some(Unfit::OpenToAll { mode: 0o702 })),
            (1000, 0o770, false, Some(Unfit::OfAnother { owner: 1000 })),
            (1000, 0o777, true, Some(Unfit::OfAnother { owner: 1000 })),
        ] {
            assert_eq!(standing(owner, mode, is_mount_point).unfit_for(65532), unfit, "{owner} {mode:o}");
        }
        assert_eq!(standing(1000, 0o700, false).unfit_for(0), None);
        assert!(standing(0, 0o777, false).unfit_for(0).is_some());
    }

    #[test]
    fn the_root_of_everything_is_a_mount_point_and_a_new_folder_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Standing::of(folder.path()).unwrap().is_mount_point);
        assert!(Standing::of(Path::new("/proc")).unwrap().is_mount_point);
    }
}
