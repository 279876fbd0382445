//! The MLS library's storage: a map of rows in memory that remembers which of them changed.
//!
//! One [`Storage`] holds one group, so the group id is no part of a row's key: a key is one letter, then what tells rows
//! of that kind apart. Values are CBOR behind one byte: [`WHOLE`], or [`CUT`] and the names of pieces that are rows of
//! their own, see [`pieces`].

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
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

/// The key of the one row of a kind.
macro_rules! only {
    ($kind:ident) => {
        &[kind::$kind]
    };
}

impl StorageProvider<CURRENT_VERSION> for Storage {
    type Error = StorageError;

    fn write_mls_join_config<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::MlsGroupJoinConfig<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        config: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(CONFIG).to_vec(), config)
    }

    fn write_tree<G: traits::GroupId<CURRENT_VERSION>, T: traits::TreeSync<CURRENT_VERSION>>(
        &self,
        _: &G,
        tree: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(TREE).to_vec(), tree)
    }

    fn write_interim_transcript_hash<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::InterimTranscriptHash<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        hash: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(TRANSCRIPT).to_vec(), hash)
    }

    fn write_context<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::GroupContext<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        context: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(CONTEXT).to_vec(), context)
    }

    fn write_confirmation_tag<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::ConfirmationTag<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        tag: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(CONFIRMATION).to_vec(), tag)
    }

    fn write_group_state<
        T: traits::GroupState<CURRENT_VERSION>,
        G: traits::GroupId<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        state: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(STATE).to_vec(), state)
    }

    fn write_message_secrets<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::MessageSecrets<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        secrets: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(MESSAGE_SECRETS).to_vec(), secrets)
    }

    fn write_resumption_psk_store<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::ResumptionPskStore<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        store: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(RESUMPTION).to_vec(), store)
    }

    fn write_own_leaf_index<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::LeafNodeIndex<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        leaf: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(OWN_LEAF).to_vec(), leaf)
    }

    fn write_group_epoch_secrets<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::GroupEpochSecrets<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        secrets: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(EPOCH_SECRETS).to_vec(), secrets)
    }

    fn write_application_export_tree<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::ApplicationExportTree<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        tree: &T,
    ) -> Result<(), StorageError> {
        self.put(only!(EXPORT_TREE).to_vec(), tree)
    }

    fn append_own_leaf_node<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::LeafNode<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        leaf: &T,
    ) -> Result<(), StorageError> {
        // Kept as a list of encoded leaves, so that appending needs no copy of the type.
        let mut list: Vec<Vec<u8>> = self.list(only!(OWN_LEAF_NODES))?;
        list.push(minicbor_serde::to_vec(leaf).map_err(|e| StorageError::Encode(e.to_string()))?);
        self.put(only!(OWN_LEAF_NODES).to_vec(), &list)
    }

    fn own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>, T: traits::LeafNode<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Vec<T>, StorageError> {
        let list: Vec<Vec<u8>> = self.list(only!(OWN_LEAF_NODES))?;
        let decode = |value: &Vec<u8>| {
            minicbor_serde::from_slice(value)
                .map_err(|e| StorageError::Decode { row: 'o', why: e.to_string() })
        };
        list.iter().map(decode).collect()
    }

    fn queue_proposal<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        T: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        reference: &R,
        proposal: &T,
    ) -> Result<(), StorageError> {
        // The queue holds the keys of the proposals' rows, in order.
        let row = key(kind::PROPOSAL, reference)?;
        self.put(row.clone(), &(reference, proposal))?;
        let mut queue: Vec<Vec<u8>> = self.list(only!(PROPOSAL_REFS))?;
        if !queue.contains(&row) {
            queue.push(row);
        }
        self.put(only!(PROPOSAL_REFS).to_vec(), &queue)
    }

    fn queued_proposal_refs<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Vec<R>, StorageError> {
        let queue: Vec<Vec<u8>> = self.list(only!(PROPOSAL_REFS))?;
        let decode = |row: &Vec<u8>| {
            minicbor_serde::from_slice(row.get(1..).unwrap_or_default())
                .map_err(|e| StorageError::Decode { row: 'q', why: e.to_string() })
        };
        queue.iter().map(decode).collect()
    }

    fn queued_proposals<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        T: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Vec<(R, T)>, StorageError> {
        let queue: Vec<Vec<u8>> = self.list(only!(PROPOSAL_REFS))?;
        let missing = || StorageError::Decode { row: 'p', why: "it is missing".to_owned() };
        queue.iter().map(|row| self.get(row)?.ok_or_else(missing)).collect()
    }

    fn remove_proposal<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        reference: &R,
    ) -> Result<(), StorageError> {
        let row = key(kind::PROPOSAL, reference)?;
        let mut queue: Vec<Vec<u8>> = self.list(only!(PROPOSAL_REFS))?;
        queue.retain(|r| *r != row);
        self.put(only!(PROPOSAL_REFS).to_vec(), &queue)?;
        self.delete(&row);
        Ok(())
    }

    fn clear_proposal_queue<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(PROPOSAL_REFS));
        self.delete_kind(kind::PROPOSAL);
        Ok(())
    }

    fn write_signature_key_pair<
        K: traits::SignaturePublicKey<CURRENT_VERSION>,
        T: traits::SignatureKeyPair<CURRENT_VERSION>,
    >(
        &self,
        public: &K,
        pair: &T,
    ) -> Result<(), StorageError> {
        self.put(key(kind::SIGNATURE_KEY, public)?, pair)
    }

    fn signature_key_pair<
        K: traits::SignaturePublicKey<CURRENT_VERSION>,
        T: traits::SignatureKeyPair<CURRENT_VERSION>,
    >(
        &self,
        public: &K,
    ) -> Result<Option<T>, StorageError> {
        self.get(&key(kind::SIGNATURE_KEY, public)?)
    }

    fn delete_signature_key_pair<K: traits::SignaturePublicKey<CURRENT_VERSION>>(
        &self,
        public: &K,
    ) -> Result<(), StorageError> {
        self.delete(&key(kind::SIGNATURE_KEY, public)?);
        Ok(())
    }

    fn write_encryption_key_pair<
        K: traits::EncryptionKey<CURRENT_VERSION>,
        T: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        public: &K,
        pair: &T,
    ) -> Result<(), StorageError> {
        self.put(key(kind::ENCRYPTION_KEY, public)?, pair)
    }

    fn encryption_key_pair<
        T: traits::HpkeKeyPair<CURRENT_VERSION>,
        K: traits::EncryptionKey<CURRENT_VERSION>,
    >(
        &self,
        public: &K,
    ) -> Result<Option<T>, StorageError> {
        self.get(&key(kind::ENCRYPTION_KEY, public)?)
    }

    fn delete_encryption_key_pair<K: traits::EncryptionKey<CURRENT_VERSION>>(
        &self,
        public: &K,
    ) -> Result<(), StorageError> {
        self.delete(&key(kind::ENCRYPTION_KEY, public)?);
        Ok(())
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
        T: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        epoch: &E,
        leaf: u32,
        pairs: &[T],
    ) -> Result<(), StorageError> {
        self.put(key(kind::EPOCH_KEYS, &(epoch, leaf))?, &pairs)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
        T: traits::HpkeKeyPair<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<Vec<T>, StorageError> {
        self.list(&key(kind::EPOCH_KEYS, &(epoch, leaf))?)
    }

    fn delete_encryption_epoch_key_pairs<
        G: traits::GroupId<CURRENT_VERSION>,
        E: traits::EpochKey<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<(), StorageError> {
        self.delete(&key(kind::EPOCH_KEYS, &(epoch, leaf))?);
        Ok(())
    }

    fn write_key_package<
        R: traits::HashReference<CURRENT_VERSION>,
        T: traits::KeyPackage<CURRENT_VERSION>,
    >(
        &self,
        reference: &R,
        package: &T,
    ) -> Result<(), StorageError> {
        self.put(key(kind::KEY_PACKAGE, reference)?, package)
    }

    fn key_package<
        R: traits::HashReference<CURRENT_VERSION>,
        T: traits::KeyPackage<CURRENT_VERSION>,
    >(
        &self,
        reference: &R,
    ) -> Result<Option<T>, StorageError> {
        self.get(&key(kind::KEY_PACKAGE, reference)?)
    }

    fn delete_key_package<R: traits::HashReference<CURRENT_VERSION>>(
        &self,
        reference: &R,
    ) -> Result<(), StorageError> {
        self.delete(&key(kind::KEY_PACKAGE, reference)?);
        Ok(())
    }

    fn write_psk<I: traits::PskId<CURRENT_VERSION>, T: traits::PskBundle<CURRENT_VERSION>>(
        &self,
        id: &I,
        psk: &T,
    ) -> Result<(), StorageError> {
        self.put(key(kind::PSK, id)?, psk)
    }

    fn psk<T: traits::PskBundle<CURRENT_VERSION>, I: traits::PskId<CURRENT_VERSION>>(
        &self,
        id: &I,
    ) -> Result<Option<T>, StorageError> {
        self.get(&key(kind::PSK, id)?)
    }

    fn delete_psk<I: traits::PskId<CURRENT_VERSION>>(&self, id: &I) -> Result<(), StorageError> {
        self.delete(&key(kind::PSK, id)?);
        Ok(())
    }

    fn delete_application_export_tree<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::ApplicationExportTree<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(EXPORT_TREE));
        Ok(())
    }

    fn mls_group_join_config<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::MlsGroupJoinConfig<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(CONFIG))
    }

    fn tree<G: traits::GroupId<CURRENT_VERSION>, T: traits::TreeSync<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(TREE))
    }

    fn group_context<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::GroupContext<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(CONTEXT))
    }

    fn interim_transcript_hash<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::InterimTranscriptHash<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(TRANSCRIPT))
    }

    fn confirmation_tag<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::ConfirmationTag<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(CONFIRMATION))
    }

    fn group_state<T: traits::GroupState<CURRENT_VERSION>, G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(STATE))
    }

    fn message_secrets<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::MessageSecrets<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(MESSAGE_SECRETS))
    }

    fn resumption_psk_store<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::ResumptionPskStore<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(RESUMPTION))
    }

    fn own_leaf_index<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::LeafNodeIndex<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(OWN_LEAF))
    }

    fn group_epoch_secrets<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::GroupEpochSecrets<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(EPOCH_SECRETS))
    }

    fn application_export_tree<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::ApplicationExportTree<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(EXPORT_TREE))
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(OWN_LEAF_NODES));
        Ok(())
    }

    fn delete_group_config<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(CONFIG));
        Ok(())
    }

    fn delete_tree<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), StorageError> {
        self.delete(only!(TREE));
        Ok(())
    }

    fn delete_confirmation_tag<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(CONFIRMATION));
        Ok(())
    }

    fn delete_group_state<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(STATE));
        Ok(())
    }

    fn delete_context<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(CONTEXT));
        Ok(())
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(TRANSCRIPT));
        Ok(())
    }

    fn delete_message_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(MESSAGE_SECRETS));
        Ok(())
    }

    fn delete_all_resumption_psk_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(RESUMPTION));
        Ok(())
    }

    fn delete_own_leaf_index<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(OWN_LEAF));
        Ok(())
    }

    fn delete_group_epoch_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete(only!(EPOCH_SECRETS));
        Ok(())
    }
}

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
        let mut kept = Kept::default();
        kept.storage.put(KEY.to_vec(), &1_u8).unwrap();
        kept.storage.delete(KEY);
        let writes = kept.storage.take_writes();
        assert!(writes.put.is_empty());
        assert!(kept.storage.take_writes().is_empty());
    }
}
