//! Founding a room.

use openmls::group::MlsGroup;
use protocol::room::Participants;
use protocol::{Entropy, Timestamp};

use super::{Founded, Founding, Group, ours};
use crate::mls::{Provider, Storage, crypto, settings, wire};
use crate::{DeviceIdentity, Error};

impl Group {
    /// Founds a room with this device as its only member and its user as owner.
    ///
    /// # Errors
    /// Ours only.
    pub fn create(
        founding: &Founding,
        identity: DeviceIdentity,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Founded, Error> {
        let storage = Storage::default();
        let participants = Participants::founded_by(identity.device().user());
        let context = settings::context(&founding.room, &founding.hub_key, &participants)?;
        let mls = MlsGroup::new_with_group_id(
            &Provider::new(&storage, entropy),
            identity.key(),
            &settings::create(founding.suite, context, now),
            settings::group_id(&founding.room),
            identity.credential(),
        )
        .map_err(ours)?;
        let group_info = mls.export_group_info(crypto(), identity.key(), false).map_err(ours)?;
        Ok(Founded {
            group_info: wire::encode(&group_info),
            tree: wire::encode(&mls.export_ratchet_tree()),
            group: Self::new(founding.room.clone(), identity, mls, storage),
        })
    }
}
