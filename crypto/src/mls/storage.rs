//! The MLS library's storage: a map of rows in memory that remembers which of them changed.
//!
//! One [`Storage`] holds one group, so the group id is no part of a row's key: a key is one letter, then what tells rows
//! of that kind apart. Values are CBOR behind one byte: [`WHOLE`], or [`CUT`] and the names of pieces that are rows of
//! their own, see [`pieces`].

mod library;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::pieces::{self, Name};
use crate::{Rows, WriteSet};

/// A row does not hold what it should, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// A value of ours does not encode.
    #[error("a row does not encode: {0}")]
    Encode(String),
    /// A stored value does not decode.
    #[error("row {row:?} is damaged: {why}")]
    Decode {
        /// The row's letter.
        row: char,
        /// What the decoder said.
        why: String,
    },
}

#[derive(Default)]
struct Inner {
    rows: Rows,
    changed: BTreeSet<Vec<u8>>,
}

/// In front of a value that follows.
const WHOLE: u8 = 0;
/// In front of the names of the value's pieces.
const CUT: u8 = 1;

/// Rows, and which of them changed.
#[derive(Default)]
pub(crate) struct Storage {
    inner: RefCell<Inner>,
    /// Whether large values stay whole: where everything is stored as one blob, pieces gain nothing.
    whole: bool,
}

impl Storage {
    /// Rows that are stored one by one.
    pub(crate) fn new(rows: Rows) -> Self {
        Self { inner: RefCell::new(Inner { rows, changed: BTreeSet::new() }), whole: false }
    }

    /// Rows that are stored together.
    pub(crate) fn one_blob(rows: Rows) -> Self {
        Self { whole: true, ..Self::new(rows) }
    }

    /// Everything that changed since the last call.
    pub(crate) fn take_writes(&self) -> WriteSet {
        let mut inner = self.inner.borrow_mut();
        let mut writes = WriteSet::default();
        for key in std::mem::take(&mut inner.changed) {
            match inner.rows.get(&key) {
                Some(value) => {
                    writes.put.insert(key, value.to_vec());
                }
                None => {
                    writes.delete.insert(key);
                }
            }
        }
        writes
    }

    pub(crate) fn into_rows(self) -> Rows {
        self.inner.into_inner().rows
    }

    /// Writes a row of our own, which the library does not know.
    pub(crate) fn put_raw(&self, key: Vec<u8>, value: Vec<u8>) {
        let inner = &mut *self.inner.borrow_mut();
        if inner.rows.get(&key) != Some(value.as_slice()) {
            inner.changed.insert(key.clone());
            inner.rows.put(key, value);
        }
    }

    pub(crate) fn get_raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.borrow().rows.get(key).map(<[u8]>::to_vec)
    }

    pub(crate) fn delete_raw(&self, key: &[u8]) {
        let inner = &mut *self.inner.borrow_mut();
        if inner.rows.remove(key) {
            inner.changed.insert(key.to_vec());
        }
    }

    /// Drops every row of one kind without a trace: they are stored elsewhere. For kinds that stay whole.
    pub(crate) fn forget_kind(&self, kind: u8) {
        self.delete_kind(kind);
        self.inner.borrow_mut().changed.retain(|key| key.first() != Some(&kind));
    }

    fn delete_kind(&self, kind: u8) {
        let keys: Vec<Vec<u8>> = {
            let inner = self.inner.borrow();
            let of_kind = inner.rows.iter().filter(|(k, _)| k.first() == Some(&kind));
            of_kind.map(|(k, _)| k.to_vec()).collect()
        };
        for key in keys {
            self.delete(&key);
        }
    }

    fn delete(&self, key: &[u8]) {
        for name in self.names(key) {
            self.delete_raw(&piece_key(key, &name));
        }
        self.delete_raw(key);
    }

    /// The names of a value's pieces; none when it is whole or not there.
    fn names(&self, key: &[u8]) -> Vec<Name> {
        let inner = self.inner.borrow();
        match inner.rows.get(key).and_then(<[u8]>::split_first) {
            Some((&CUT, names)) => names.as_chunks().0.to_vec(),
            _ => Vec::new(),
        }
    }

    fn put<V: Serialize>(&self, key: Vec<u8>, value: &V) -> Result<(), StorageError> {
        let value =
            minicbor_serde::to_vec(value).map_err(|e| StorageError::Encode(e.to_string()))?;
        let old = self.names(&key);
        if self.whole || value.len() <= pieces::WHOLE_BYTES {
            self.put_raw(key.clone(), [&[WHOLE], value.as_slice()].concat());
            for name in old {
                self.delete_raw(&piece_key(&key, &name));
            }
            return Ok(());
        }
        let mut row = vec![CUT];
        let mut new = BTreeSet::new();
        for piece in pieces::cut(&value) {
            let name = pieces::name(piece);
            row.extend(name);
            if new.insert(name) {
                self.put_raw(piece_key(&key, &name), piece.to_vec());
            }
        }
        for name in old.iter().filter(|name| !new.contains(*name)) {
            self.delete_raw(&piece_key(&key, name));
        }
        self.put_raw(key, row);
        Ok(())
    }

    fn get<V: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<V>, StorageError> {
        let damaged = |why: String| StorageError::Decode {
            row: key.first().copied().map_or('?', char::from),
            why,
        };
        let inner = self.inner.borrow();
        let Some(row) = inner.rows.get(key) else { return Ok(None) };
        let value = match row.split_first() {
            Some((&WHOLE, value)) => Cow::Borrowed(value),
            Some((&CUT, names)) => {
                let mut value = Vec::new();
                for name in names.as_chunks().0 {
                    let piece = inner.rows.get(&piece_key(key, name));
                    value.extend_from_slice(
                        piece.ok_or_else(|| damaged("a piece is missing".into()))?,
                    );
                }
                Cow::Owned(value)
            }
            _ => return Err(damaged("unknown form".into())),
        };
        minicbor_serde::from_slice(&value).map(Some).map_err(|e| damaged(e.to_string()))
    }

    fn list<V: DeserializeOwned>(&self, key: &[u8]) -> Result<Vec<V>, StorageError> {
        Ok(self.get(key)?.unwrap_or_default())
    }
}

/// The key of a piece: a value's pieces are its own, so that deleting one takes nothing from another.
fn piece_key(key: &[u8], name: &Name) -> Vec<u8> {
    let owner = pieces::name(key);
    [&[kind::PIECE], owner.as_slice(), name.as_slice()].concat()
}

/// Longer ids are hashed.
const KEY_ID_BYTES: usize = 64;

fn key<K: Serialize>(kind: u8, id: &K) -> Result<Vec<u8>, StorageError> {
    let id = minicbor_serde::to_vec(id).map_err(|e| StorageError::Encode(e.to_string()))?;
    let mut key = vec![kind];
    if id.len() <= KEY_ID_BYTES {
        key.extend(id);
    } else {
        // Post-quantum public keys are over a kilobyte.
        key.extend(Sha256::digest(&id));
    }
    Ok(key)
}

/// The letters. They are stored: never reuse one.
mod kind {

    /// How the group is set up.
    pub(super) const CONFIG: u8 = b'c';
    /// Own leaves of update proposals.
    pub(super) const OWN_LEAF_NODES: u8 = b'o';
    /// The queue of pending proposals.
    pub(super) const PROPOSAL_REFS: u8 = b'q';
    /// One pending proposal.
    pub(super) const PROPOSAL: u8 = b'p';
    /// The ratchet tree.
    pub(super) const TREE: u8 = b't';
    /// The interim transcript hash.
    pub(super) const TRANSCRIPT: u8 = b'i';
    /// The group context.
    pub(super) const CONTEXT: u8 = b'g';
    /// The confirmation tag.
    pub(super) const CONFIRMATION: u8 = b'f';
    /// Member, pending or out.
    pub(super) const STATE: u8 = b's';
    /// Message keys of this epoch and past ones.
    pub(super) const MESSAGE_SECRETS: u8 = b'm';
    /// Resumption secrets.
    pub(super) const RESUMPTION: u8 = b'r';
    /// Our leaf.
    pub(super) const OWN_LEAF: u8 = b'l';
    /// Secrets of the epoch.
    pub(super) const EPOCH_SECRETS: u8 = b'e';
    /// The application exporter.
    pub(super) const EXPORT_TREE: u8 = b'x';
    /// Unused: signature keys live elsewhere.
    pub(super) const SIGNATURE_KEY: u8 = b'k';
    /// An HPKE key pair.
    pub(super) const ENCRYPTION_KEY: u8 = b'h';
    /// HPKE key pairs of an epoch.
    pub(super) const EPOCH_KEYS: u8 = b'n';
    /// A KeyPackage with its private keys.
    pub(super) const KEY_PACKAGE: u8 = b'K';
    /// Unused: no pre-shared keys.
    pub(super) const PSK: u8 = b'P';
    /// A piece of a large value.
    pub(super) const PIECE: u8 = b'z';
}

/// The letter of KeyPackage rows.
pub(crate) const KEY_PACKAGE: u8 = kind::KEY_PACKAGE;

#[cfg(test)]
mod tests {
    use protocol::Entropy as _;

    use super::*;
    use crate::testing::TestEntropy;

    const KEY: &[u8] = b"m";

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        TestEntropy::default().fill(&mut out);
        out
    }

    /// A storage and what a caller has stored of it.
    #[derive(Default)]
    struct Kept {
        storage: Storage,
        stored: Rows,
    }

    impl Kept {
        /// Stores what changed and starts again from it. Gives the bytes written.
        fn restart(&mut self) -> usize {
            let writes = self.storage.take_writes();
            assert!(writes.put.keys().all(|key| !writes.delete.contains(key)));
            self.stored.apply(&writes);
            self.storage = Storage::new(self.stored.clone());
            writes.put.values().map(Vec::len).sum()
        }

        fn check(&mut self, value: &Vec<u8>) -> usize {
            self.storage.put(KEY.to_vec(), value).unwrap();
            let written = self.restart();
            assert_eq!(self.storage.get::<Vec<u8>>(KEY).unwrap().as_ref(), Some(value));
            written
        }
    }

    #[test]
    fn a_small_change_to_a_large_value_writes_little_and_leaves_nothing_behind() {
        let mut kept = Kept::default();
        let mut value = noise(200_000);
        let whole = kept.check(&value);
        assert!(whole > 200_000);
        assert_eq!(kept.check(&value), 0, "the same again writes nothing");
        value.splice(77_777..77_777, *b"more");
        let written = kept.check(&value);
        assert!(written < 60_000, "{written}");

        value.truncate(10);
        kept.check(&value);
        assert_eq!(kept.stored.len(), 1, "no piece is left over");
        kept.check(&noise(50_000));
        kept.storage.delete(KEY);
        kept.restart();
        assert!(kept.stored.is_empty());
    }

    #[test]
    fn pieces_belong_to_one_value_and_a_missing_one_is_noticed() {
        let mut kept = Kept::default();
        let value = noise(50_000);
        for key in [b"a", b"b"] {
            kept.storage.put(key.to_vec(), &value).unwrap();
        }
        kept.storage.delete(b"a");
        kept.restart();
        assert_eq!(kept.storage.get::<Vec<u8>>(b"b").unwrap(), Some(value));
        let piece = kept.stored.iter().find(|(k, _)| k.first() == Some(&kind::PIECE));
        let piece = piece.unwrap().0.to_vec();
        kept.storage.delete_raw(&piece);
        assert!(kept.storage.get::<Vec<u8>>(b"b").is_err());
    }

    #[test]
    fn what_was_written_and_deleted_between_two_saves_is_only_a_deletion() {
        let kept = Kept::default();
        kept.storage.put(KEY.to_vec(), &1_u8).unwrap();
        kept.storage.delete(KEY);
        let writes = kept.storage.take_writes();
        assert!(writes.put.is_empty());
        assert!(kept.storage.take_writes().is_empty());
    }
}
