//! Who is who in a run: small numbers inside, the protocol's names where its machines want them.

use protocol::{DeviceId, Domain, RoomId, UserId};

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeNo(pub u8);
/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevNo(pub u8);
/// A room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomNo(pub u8);

/// See the module.
pub struct Names {
    nodes: usize,
    homes: Vec<NodeNo>,
    users: Vec<u8>,
    hubs: Vec<NodeNo>,
    devices: Vec<DeviceId>,
    rooms: Vec<RoomId>,
}

impl Names {
    /// `homes` says each device's node and user, `hubs` each room's hub.
    #[must_use]
    pub fn new(nodes: usize, homes: &[(NodeNo, u8)], hubs: &[NodeNo]) -> Self {
        let domain = |n: NodeNo| Domain::parse(&format!("n{}.example", n.0)).expect("a fine name");
        let device = |(i, (node, user)): (usize, &(NodeNo, u8))| {
            let user = UserId::new(&domain(*node), &format!("u{user}")).expect("a fine name");
            DeviceId::new(&user, &format!("d{i}")).expect("a fine name")
        };
        let room = |(i, hub): (usize, &NodeNo)| {
            RoomId::new(&domain(*hub), &format!("r{i}")).expect("a fine name")
        };
        Self {
            nodes,
            homes: homes.iter().map(|(node, _)| *node).collect(),
            users: homes.iter().map(|(_, user)| *user).collect(),
            hubs: hubs.to_vec(),
            devices: homes.iter().enumerate().map(device).collect(),
            rooms: hubs.iter().enumerate().map(room).collect(),
        }
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeNo> + use<> {
        (0..self.nodes).map(|n| NodeNo(u8::try_from(n).unwrap_or(u8::MAX)))
    }

    /// All devices.
    pub fn devices(&self) -> impl Iterator<Item = DevNo> + use<> {
        (0..self.homes.len()).map(|n| DevNo(u8::try_from(n).unwrap_or(u8::MAX)))
    }

    /// All rooms.
    pub fn rooms(&self) -> impl Iterator<Item = RoomNo> + use<> {
        (0..self.hubs.len()).map(|n| RoomNo(u8::try_from(n).unwrap_or(u8::MAX)))
    }

    /// The node a device belongs to.
    #[must_use]
    pub fn home(&self, device: DevNo) -> NodeNo {
        self.homes[usize::from(device.0)]
    }

    /// The person a device belongs to.
    #[must_use]
    pub fn user(&self, device: DevNo) -> u8 {
        self.users[usize::from(device.0)]
    }

    /// The node that orders a room.
    #[must_use]
    pub fn hub(&self, room: RoomNo) -> NodeNo {
        self.hubs[usize::from(room.0)]
    }

    /// As the protocol names it.
    #[must_use]
    pub fn device(&self, device: DevNo) -> &DeviceId {
        &self.devices[usize::from(device.0)]
    }

    /// As the protocol names it.
    #[must_use]
    pub fn room(&self, room: RoomNo) -> &RoomId {
        &self.rooms[usize::from(room.0)]
    }

    /// The room of that name.
    #[must_use]
    pub fn room_no(&self, room: &RoomId) -> RoomNo {
        let found = self.rooms.iter().position(|r| r == room).unwrap_or(0);
        RoomNo(u8::try_from(found).unwrap_or(0))
    }
}
