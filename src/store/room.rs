//! Room on the disk for what will be appended: taken before it is needed, so that a full disk is met before a POST and not behind it.

use super::StoreError;
use super::disk::failed;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Takes `room` bytes from `at` on, the end of the file, without making it longer. The caller holds its lock.
pub(super) fn reserve(file: &File, path: &Path, at: u64, room: u64) -> Result<(), StoreError> {
    let failed = |cause| failed("reservation of room in", path, cause);
    // Room that lies behind the end is not held against the limit of this process; the append would be.
    let limit = getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|limit| at.saturating_add(room) > limit) {
        return Err(failed(io::Error::new(ErrorKind::FileTooLarge, "this process may not write files of that size")));
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, at, room) {
        Ok(()) => Ok(()),
        // This file system cannot: what can be written now has found room at least for the moment.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_and_cut(file, at, room).map_err(failed),
        Err(error) => Err(failed(error.into())),
    }
}

fn write_and_cut(file: &File, at: u64, room: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(room).map_err(io::Error::other)?];
    let written = file.write_all_at(&zeros, at).and_then(|()| file.sync_all());
    file.set_len(at).and(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_can_be_reserved_it_is_written_and_cut_back() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"whole").unwrap();
        let open = File::options().read(true).write(true).open(file.path()).unwrap();
        write_and_cut(&open, 5, 8192).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"whole");
    }

    #[test]
    fn room_that_is_not_there_is_refused_before_it_is_needed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = File::options().read(true).write(true).open(file.path()).unwrap();
        let refused = reserve(&open, file.path(), 0, 1 << 60).unwrap_err();
        assert!(matches!(refused, StoreError::Failed { .. }), "{refused:?}");
        assert_eq!(open.metadata().unwrap().len(), 0);
    }
}
