//! The data directory belongs to one running node at a time: two would each run their own lanes and wake only their own streams.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;

/// Held while a node runs on a data directory; let go when dropped, by a kill as well.
#[derive(Debug)]
pub(crate) struct Held(
    #[expect(dead_code, reason = "the lock lives as long as the file is open")] File,
);

impl Held {
    /// Takes the data directory, at once or after whoever only looked at it.
    ///
    /// # Errors
    /// [`Error::Running`] when a node runs on it; when the lock file cannot be made.
    pub(crate) async fn take(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join(FILE);
        let failed = |e: io::Error| Error::io(format!("{} cannot be locked", path.display()))(e);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
        Err(Error::Running(data_dir.to_owned()))
    }
}

const FILE: &str = "lock";
/// [`address`] holds the lock for a moment; a node that runs holds it for good.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// Where the node that runs on a data directory listens; none when there is none. One that was killed leaves its address behind, but
/// not its lock.
pub(crate) fn address(data_dir: &Path) -> Option<SocketAddr> {
    let address = std::fs::read_to_string(data_dir.join("address")).ok()?.trim().parse().ok()?;
    // Shared, and let go at once: looking makes nothing and keeps nobody out.
    let lock = File::open(data_dir.join(FILE)).ok()?;
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)).then_some(address)
}
