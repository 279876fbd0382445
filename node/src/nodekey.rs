//! The node's two keys, each 32 secret bytes in a file that only the node may read: the node key, under which its
//! certificates are issued and which peers and devices pin, and the hub key, with which it speaks in its rooms.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use crypto::NodeKey;
use federation::tls::NodeIdentity;
use protocol::{Domain, Entropy, Timestamp};

use crate::error::Error;

/// The keys of a running node.
pub(crate) struct NodeKeys {
    node: NodeKey,
    hub: Arc<NodeKey>,
    identity: RwLock<Arc<NodeIdentity>>,
}

impl NodeKeys {
    /// Makes both keys in `data_dir`.
    ///
    /// # Errors
    /// When a file exists already or cannot be written.
    pub(crate) fn create(data_dir: &Path, entropy: &dyn Entropy) -> Result<(), Error> {
        for file in [node_file(data_dir), hub_file(data_dir)] {
            write_new(&file, &NodeKey::generate(entropy))?;
        }
        Ok(())
    }

    /// Reads both keys and issues the node's certificates.
    ///
    /// # Errors
    /// When a file is missing, damaged, or readable by others.
    pub(crate) fn load(
        data_dir: &Path,
        domain: &Domain,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let node = read(&node_file(data_dir))?;
        let hub = Arc::new(read(&hub_file(data_dir))?);
        let identity = RwLock::new(Arc::new(issue(&node, domain, entropy, now)?));
        Ok(Self { node, hub, identity })
    }

    /// The key with which the node proposes and answers as a hub.
    pub(crate) fn hub(&self) -> &Arc<NodeKey> {
        &self.hub
    }

    /// The certificates that the node shows.
    pub(crate) fn identity(&self) -> Arc<NodeIdentity> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Issues new certificates when the present ones run out; says whether it did.
    ///
    /// # Errors
    /// When the library refuses.
    pub(crate) fn renew(&self, entropy: &dyn Entropy, now: Timestamp) -> Result<bool, Error> {
        let present = self.identity();
        if !present.due(now) {
            return Ok(false);
        }
        let fresh = issue(&self.node, present.domain(), entropy, now)?;
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(true)
    }
}

/// A key file that is there already: the folder holds a node's data.
pub(crate) fn present(data_dir: &Path) -> Option<PathBuf> {
    [node_file(data_dir), hub_file(data_dir)].into_iter().find(|file| file.exists())
}

/// Takes back what [`NodeKeys::create`] made for a node that was not finished.
pub(crate) fn remove(data_dir: &Path) {
    for file in [node_file(data_dir), hub_file(data_dir)] {
        // It may not have come so far.
        let _none = std::fs::remove_file(file);
    }
}

/// The node's public key, read from its file without issuing anything.
pub(crate) fn public_key(data_dir: &Path) -> Result<[u8; 32], Error> {
    Ok(*read(&node_file(data_dir))?.public().as_bytes())
}

fn node_file(data_dir: &Path) -> PathBuf {
    data_dir.join("node.key")
}

fn hub_file(data_dir: &Path) -> PathBuf {
    data_dir.join("hub.key")
}

fn issue(
    node: &NodeKey,
    domain: &Domain,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Result<NodeIdentity, Error> {
    NodeIdentity::issue(domain, node, entropy, now).map_err(|e| Error::Keys(e.to_string()))
}

fn write_new(path: &Path, key: &NodeKey) -> Result<(), Error> {
    let failed = |e| Error::io(format!("{} cannot be made", path.display()))(e);
    let text = B64.encode(key.to_bytes().as_slice());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.write_all(format!("{text}\n").as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

fn read(path: &Path) -> Result<NodeKey, Error> {
    let failed = |e| Error::io(format!("{} cannot be read", path.display()))(e);
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let what =
            format!("{} can be read by others: chmod 600 it, or make a new node", path.display());
        return Err(Error::Keys(what));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let bytes: Option<[u8; 32]> = B64.decode(text.trim()).ok().and_then(|b| b.try_into().ok());
    let bytes = bytes.ok_or_else(|| Error::Keys(format!("{} is not a key", path.display())))?;
    Ok(NodeKey::from_bytes(&bytes))
}
