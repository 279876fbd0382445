//! What goes with an entry to followers, kept beside it: what it does to devices, and the tree that a Welcome's joiners need.

use federation::headers::{MemberChange, MemberEffect};
use minicbor::{Decode, Encode};
use protocol::{DeviceId, Domain, Seq};

use crate::error::Error;

/// The note of an entry in this node's own encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Note {
    #[n(0)]
    effects: Vec<Effect>,
    /// With a Welcome: the ratchet tree after its commit.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    tree: Option<Vec<u8>>,
    /// With a Welcome: the nodes of its joiners, to whom the tree goes along.
    #[n(2)]
    joiners: Vec<Domain>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Effect {
    #[n(0)]
    joined: bool,
    #[n(1)]
    device: DeviceId,
    #[n(2)]
    at: Seq,
}

impl Note {
    /// Adds what happened to a device of another node.
    pub(crate) fn effect(&mut self, change: MemberChange, device: DeviceId, at: Seq) {
        self.effects.push(Effect { joined: change == MemberChange::Joined, device, at });
    }

    /// What happened to devices of `domain`.
    pub(crate) fn effects_on(&self, domain: &Domain) -> impl Iterator<Item = MemberEffect> {
        self.effects.iter().filter(move |e| e.device.domain() == domain).map(|e| MemberEffect {
            change: if e.joined { MemberChange::Joined } else { MemberChange::Removed },
            device: e.device.clone(),
            at: e.at,
        })
    }

    /// The note of a Welcome.
    pub(crate) fn of_welcome(tree: Vec<u8>, joiners: Vec<Domain>) -> Self {
        // Without a joiner elsewhere nobody will ask for the tree.
        let tree = (!joiners.is_empty()).then_some(tree);
        Self { effects: Vec::new(), tree, joiners }
    }

    /// The tree, if it goes to `peer`.
    pub(crate) fn tree_for(&self, peer: &Domain) -> Option<&[u8]> {
        self.tree.as_deref().filter(|_| self.joiners.contains(peer))
    }

    /// The bytes for the database; nothing when there is nothing to say.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        (*self != Self::default()).then(|| protocol::api::encode(self))
    }

    /// Reads a note back.
    ///
    /// # Errors
    /// When it is not ours.
    pub(crate) fn decode(bytes: Option<&[u8]>) -> Result<Self, Error> {
        bytes.map_or(Ok(Self::default()), |b| {
            protocol::api::decode(b).map_err(|_| Error::Damaged("the note of an entry"))
        })
    }
}
