//! Entering a room by a Welcome.

use openmls::group::StagedWelcome;
use openmls::messages::Welcome;
use openmls::prelude::{MlsMessageBodyIn, RatchetTreeIn};
use protocol::{Code, Refusal, RoomId, limit};

use super::{Group, ours, theirs};
use crate::mls::{Provider, Storage, facts, settings, storage, wire};
use crate::{DeviceIdentity, Error, KeyPackageRef, Rows};

impl Group {
    /// Enters a room by a Welcome (`MLSMessage` bytes), with the tree the hub gave and the private rows of the KeyPackage
    /// that the Welcome is for. Every member's certificate is checked against its leaf; lifetimes are not, because a leaf
    /// that was valid when it came in stays (PROTOCOL §7.2).
    ///
    /// # Errors
    /// Refused when the Welcome is for another room or KeyPackage, does not fit the tree, or a member has no certificate.
    pub fn join(
        room: &RoomId,
        welcome: &[u8],
        tree: &[u8],
        key_package: &Rows,
        identity: DeviceIdentity,
    ) -> Result<Self, Error> {
        if tree.len() > limit::TREE_BYTES {
            return Err(Refusal::because(Code::TooLarge, "the tree is too large").into());
        }
        let tree: RatchetTreeIn = wire::decode("the tree", tree)?;
        let rows = Storage::new(key_package.clone());
        let provider = Provider::without_chance(&rows);
        let mls = StagedWelcome::build_from_welcome(&provider, &settings::join(), read(welcome)?)
            .map_err(theirs)?
            .with_ratchet_tree(tree)
            .skip_lifetime_validation()
            .build()
            .map_err(theirs)?
            .into_group(&provider)
            .map_err(ours)?;
        settings::check(room, mls.public_group().group_context())?;
        let roster = facts::verified_roster(mls.members())?;
        let own = roster.get(&mls.own_leaf_index().u32());
        if own.is_none_or(|c| c.key() != identity.certificate().key()) {
            return Err(
                Refusal::because(Code::InvalidCommit, "the leaf is not this device's").into()
            );
        }
        // The KeyPackage's keys belong to the caller; a last-resort one serves again.
        rows.forget_kind(storage::KEY_PACKAGE);
        Ok(Self::new(room.clone(), identity, mls, rows))
    }

    /// The KeyPackages that a Welcome (`MLSMessage` bytes) is for; to find which of our own to join with.
    ///
    /// # Errors
    /// Refused when it is not a Welcome.
    pub fn welcome_for(welcome: &[u8]) -> Result<Vec<KeyPackageRef>, Error> {
        let welcome = read(welcome)?;
        let reference = |r: &[u8]| KeyPackageRef::from_slice(r);
        Ok(welcome.secrets().iter().filter_map(|s| reference(s.new_member().as_slice())).collect())
    }
}

fn read(bytes: &[u8]) -> Result<Welcome, Refusal> {
    match wire::message(bytes)? {
        MlsMessageBodyIn::Welcome(welcome) => Ok(welcome),
        _ => Err(wire::malformed("the Welcome")),
    }
}
