//! Free space and the ballast: a file next to the database that is deleted when the disk is full, because a full disk also blocks
//! deletes. When to do what is decided by `delivery::disk`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::StoreError;

/// The least ballast that lets SQLite work a queue off: several full write-ahead logs.
pub const BALLAST_MIN_BYTES: u64 = 64 << 20;

/// Bytes of free space on the file system of `path` (a file or folder that exists) for a program without privileges.
///
/// # Errors
/// [`StoreError::File`] when the file system does not say.
pub fn free_bytes(path: &Path) -> Result<u64, StoreError> {
    let stat = rustix::fs::statvfs(path).map_err(|e| StoreError::file(path, e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The ballast file.
#[derive(Clone, Debug)]
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// The ballast of the database file `database`: `<name>.ballast` next to it, `bytes` long but at least [`BALLAST_MIN_BYTES`].
    #[must_use]
    pub fn beside(database: &Path, bytes: u64) -> Self {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push(".ballast");
        Self { path: database.with_file_name(name), bytes: bytes.max(BALLAST_MIN_BYTES) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How large it is when whole.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is there at full size.
    ///
    /// # Errors
    /// [`StoreError::File`] when it cannot be looked at.
    pub fn is_whole(&self) -> Result<bool, StoreError> {
        match self.path.metadata() {
            Ok(found) => Ok(found.len() >= self.bytes),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::file(&self.path, e)),
        }
    }

    /// Makes it, unless it is whole. Blocks while the disk writes: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`StoreError::Full`] when there is no room, and then nothing of it is left; [`StoreError::File`].
    pub fn build(&self) -> Result<(), StoreError> {
        if self.is_whole()? {
            return Ok(());
        }
        match self.fill() {
            Ok(()) => Ok(()),
            Err(e) => {
                self.free()?;
                let full = matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
                Err(if full { StoreError::Full } else { StoreError::file(&self.path, e) })
            }
        }
    }

    fn fill(&self) -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).open(&self.path)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes) {
            Ok(()) => {}
            // File systems without it get the bytes written out.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                write_out(&mut file, self.bytes)?;
            }
            Err(e) => return Err(e.into()),
        }
        file.sync_all()
    }

    /// Deletes it. It is fine if it is not there.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn free(&self) -> Result<(), StoreError> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::file(&self.path, e)),
            _ => Ok(()),
        }
    }
}

/// Not zeros, so that no file system stores them as nothing.
fn write_out(file: &mut File, bytes: u64) -> std::io::Result<()> {
    let block: Vec<u8> =
        (0_u32..16_384).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(block.get(..n).unwrap_or(&block))?;
        left -= n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_is_built_once_and_freed_whenever_asked() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::beside(&dir.path().join("node.db"), 0);
        assert!(ballast.path().ends_with("node.db.ballast"));
        assert!(!ballast.is_whole().unwrap());
        ballast.build().unwrap();
        ballast.build().unwrap();
        assert!(ballast.is_whole().unwrap());
        assert_eq!(ballast.path().metadata().unwrap().len(), BALLAST_MIN_BYTES);
        ballast.free().unwrap();
        ballast.free().unwrap();
        assert!(!ballast.is_whole().unwrap());
    }

    #[test]
    fn ballast_without_room_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::beside(&dir.path().join("node.db"), 1 << 60);
        assert!(ballast.build().is_err());
        assert!(!ballast.path().exists());
        assert!(free_bytes(dir.path()).unwrap() > 0);
    }

    #[test]
    fn the_written_out_ballast_has_its_size() {
        let mut file = tempfile::tempfile().unwrap();
        write_out(&mut file, 200_001).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 200_001);
    }
}
