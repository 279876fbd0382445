//! The MLS library's storage: a map of rows in memory that remembers which of them changed.
//!
//! One [`Storage`] holds one group, so the group id is no part of a row's key: a key is one letter, then what tells rows
//! of that kind apart. Values are CBOR.

use std::cell::RefCell;
use std::collections::BTreeSet;

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

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

/// Rows, and which of them changed.
#[derive(Default)]
pub(crate) struct Storage(RefCell<Inner>);

impl Storage {
    pub(crate) fn new(rows: Rows) -> Self {
        Self(RefCell::new(Inner { rows, changed: BTreeSet::new() }))
    }

    /// Everything that changed since the last call.
    pub(crate) fn take_writes(&self) -> WriteSet {
        let mut inner = self.0.borrow_mut();
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
        self.0.into_inner().rows
    }

    /// Writes a row of our own, which the library does not know.
    pub(crate) fn put_raw(&self, key: Vec<u8>, value: Vec<u8>) {
        let inner = &mut *self.0.borrow_mut();
        if inner.rows.get(&key) != Some(value.as_slice()) {
            inner.changed.insert(key.clone());
            inner.rows.put(key, value);
        }
    }

    pub(crate) fn get_raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.borrow().rows.get(key).map(<[u8]>::to_vec)
    }

    pub(crate) fn delete_raw(&self, key: &[u8]) {
        let inner = &mut *self.0.borrow_mut();
        if inner.rows.remove(key) {
            inner.changed.insert(key.to_vec());
        }
    }

    /// Deletes every row of one kind.
    pub(crate) fn delete_kind(&self, kind: u8) {
        let keys: Vec<Vec<u8>> = {
            let inner = self.0.borrow();
            inner
                .rows
                .iter()
                .filter(|(k, _)| k.first() == Some(&kind))
                .map(|(k, _)| k.to_vec())
                .collect()
        };
        for key in keys {
            self.delete_raw(&key);
        }
    }

    /// Drops every row of one kind without a trace: they are stored elsewhere.
    pub(crate) fn forget_kind(&self, kind: u8) {
        self.delete_kind(kind);
        self.0.borrow_mut().changed.retain(|key| key.first() != Some(&kind));
    }

    fn put<V: Serialize>(&self, key: Vec<u8>, value: &V) -> Result<(), StorageError> {
        let value =
            minicbor_serde::to_vec(value).map_err(|e| StorageError::Encode(e.to_string()))?;
        self.put_raw(key, value);
        Ok(())
    }

    fn get<V: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<V>, StorageError> {
        let inner = self.0.borrow();
        let decode = |value| {
            minicbor_serde::from_slice(value).map_err(|e| StorageError::Decode {
                row: key.first().copied().map_or('?', char::from),
                why: e.to_string(),
            })
        };
        inner.rows.get(key).map(decode).transpose()
    }

    fn list<V: DeserializeOwned>(&self, key: &[u8]) -> Result<Vec<V>, StorageError> {
        Ok(self.get(key)?.unwrap_or_default())
    }
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
        self.delete_raw(&row);
        Ok(())
    }

    fn clear_proposal_queue<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(PROPOSAL_REFS));
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
        self.delete_raw(&key(kind::SIGNATURE_KEY, public)?);
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
        self.delete_raw(&key(kind::ENCRYPTION_KEY, public)?);
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
        self.delete_raw(&key(kind::EPOCH_KEYS, &(epoch, leaf))?);
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
        self.delete_raw(&key(kind::KEY_PACKAGE, reference)?);
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
        self.delete_raw(&key(kind::PSK, id)?);
        Ok(())
    }

    fn delete_application_export_tree<
        G: traits::GroupId<CURRENT_VERSION>,
        T: traits::ApplicationExportTree<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(EXPORT_TREE));
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
        self.delete_raw(only!(OWN_LEAF_NODES));
        Ok(())
    }

    fn delete_group_config<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(CONFIG));
        Ok(())
    }

    fn delete_tree<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), StorageError> {
        self.delete_raw(only!(TREE));
        Ok(())
    }

    fn delete_confirmation_tag<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(CONFIRMATION));
        Ok(())
    }

    fn delete_group_state<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(STATE));
        Ok(())
    }

    fn delete_context<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(CONTEXT));
        Ok(())
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(TRANSCRIPT));
        Ok(())
    }

    fn delete_message_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(MESSAGE_SECRETS));
        Ok(())
    }

    fn delete_all_resumption_psk_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(RESUMPTION));
        Ok(())
    }

    fn delete_own_leaf_index<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(OWN_LEAF));
        Ok(())
    }

    fn delete_group_epoch_secrets<G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        self.delete_raw(only!(EPOCH_SECRETS));
        Ok(())
    }
}
