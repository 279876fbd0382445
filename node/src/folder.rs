//! The data directory belongs to one running node at a time: two would each run their own lanes and wake only their own streams.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::error::Error;

/// Held while a node runs on a data directory; let go when dropped, by a kill as well.
#[derive(Debug)]
pub(crate) struct Held(
    #[expect(dead_code, reason = "the lock lives as long as the file is open")] File,
);

impl Held {
    /// Takes the data directory.
    ///
    /// # Errors
    /// [`Error::Running`] when a node runs on it; when the lock file cannot be made.
    pub(crate) fn take(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join("lock");
        let failed = |e| Error::io(format!("{} cannot be locked", path.display()))(e);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Running(data_dir.to_owned())),
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }
}

/// Where the node that runs on a data directory listens; none when there is none. One that was killed leaves its address behind, but
/// not its lock.
pub(crate) fn address(data_dir: &Path) -> Option<SocketAddr> {
    let address = std::fs::read_to_string(data_dir.join("address")).ok()?.trim().parse().ok()?;
    match Held::take(data_dir) {
        Err(Error::Running(_)) => Some(address),
        Ok(_) | Err(_) => None,
    }
}
