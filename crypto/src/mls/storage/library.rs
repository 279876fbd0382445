//! The functions that the MLS library calls to read and write its rows.

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};

use super::{Storage, StorageError, key, kind};

/// The key of the one row of a kind.
macro_rules! only {
    ($kind:ident) => {
        &[kind::$kind]
    };
}

/// A value of which a group has one.
macro_rules! one {
    (write $name:ident: $kind:ident, $type:ident) => {
        fn $name<G: traits::GroupId<CURRENT_VERSION>, T: traits::$type<CURRENT_VERSION>>(
            &self,
            _: &G,
            value: &T,
        ) -> Result<(), StorageError> {
            self.put(only!($kind).to_vec(), value)
        }
    };
    (read $name:ident: $kind:ident, $type:ident) => {
        fn $name<G: traits::GroupId<CURRENT_VERSION>, T: traits::$type<CURRENT_VERSION>>(
            &self,
            _: &G,
        ) -> Result<Option<T>, StorageError> {
            self.get(only!($kind))
        }
    };
    (delete $name:ident: $kind:ident) => {
        fn $name<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), StorageError> {
            self.delete(only!($kind));
            Ok(())
        }
    };
}

impl StorageProvider<CURRENT_VERSION> for Storage {
    type Error = StorageError;

    one!(write write_mls_join_config: CONFIG, MlsGroupJoinConfig);
    one!(write write_tree: TREE, TreeSync);
    one!(write write_interim_transcript_hash: TRANSCRIPT, InterimTranscriptHash);
    one!(write write_context: CONTEXT, GroupContext);
    one!(write write_confirmation_tag: CONFIRMATION, ConfirmationTag);
    one!(write write_message_secrets: MESSAGE_SECRETS, MessageSecrets);
    one!(write write_resumption_psk_store: RESUMPTION, ResumptionPskStore);
    one!(write write_own_leaf_index: OWN_LEAF, LeafNodeIndex);
    one!(write write_group_epoch_secrets: EPOCH_SECRETS, GroupEpochSecrets);
    one!(write write_application_export_tree: EXPORT_TREE, ApplicationExportTree);
    one!(read mls_group_join_config: CONFIG, MlsGroupJoinConfig);
    one!(read tree: TREE, TreeSync);
    one!(read group_context: CONTEXT, GroupContext);
    one!(read interim_transcript_hash: TRANSCRIPT, InterimTranscriptHash);
    one!(read confirmation_tag: CONFIRMATION, ConfirmationTag);
    one!(read message_secrets: MESSAGE_SECRETS, MessageSecrets);
    one!(read resumption_psk_store: RESUMPTION, ResumptionPskStore);
    one!(read own_leaf_index: OWN_LEAF, LeafNodeIndex);
    one!(read group_epoch_secrets: EPOCH_SECRETS, GroupEpochSecrets);
    one!(read application_export_tree: EXPORT_TREE, ApplicationExportTree);
    one!(delete delete_own_leaf_nodes: OWN_LEAF_NODES);
    one!(delete delete_group_config: CONFIG);
    one!(delete delete_tree: TREE);
    one!(delete delete_confirmation_tag: CONFIRMATION);
    one!(delete delete_group_state: STATE);
    one!(delete delete_context: CONTEXT);
    one!(delete delete_interim_transcript_hash: TRANSCRIPT);
    one!(delete delete_message_secrets: MESSAGE_SECRETS);
    one!(delete delete_all_resumption_psk_secrets: RESUMPTION);
    one!(delete delete_own_leaf_index: OWN_LEAF);
    one!(delete delete_group_epoch_secrets: EPOCH_SECRETS);

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
        if queue.is_empty() {
            self.delete(only!(PROPOSAL_REFS));
        } else {
            self.put(only!(PROPOSAL_REFS).to_vec(), &queue)?;
        }
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

    fn group_state<T: traits::GroupState<CURRENT_VERSION>, G: traits::GroupId<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<Option<T>, StorageError> {
        self.get(only!(STATE))
    }
}
