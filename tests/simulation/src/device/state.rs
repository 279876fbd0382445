//! A device's rows.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use delivery::commit::Change;
use delivery::outbox::Item;
use minicbor::{Decode, Encode};
use protocol::log::{Chain, Digest};
use protocol::{Cursor, Incarnation, MessageId, Seq, SubmitId};

use crate::names::{DevNo, RoomNo};
use crate::sealed::{Group, Hash, Package};

/// A message's content, header included.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Content {
    #[n(0)]
    pub counter: u64,
    #[n(1)]
    pub prev: Option<Digest>,
    #[n(2)]
    pub seen: Option<(Cursor, Chain)>,
    #[n(3)]
    pub text: u64,
}

/// How far a room is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Active,
    Joining,
    Left,
    Held(Seq, crate::record::Alarm),
}

/// A place in a room's log, and the chain there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlace {
    pub cursor: Cursor,
    pub chain: Chain,
}

/// A room.
#[derive(Clone, Debug)]
pub struct RoomRow {
    pub room: RoomNo,
    pub status: Status,
    pub place: Option<LogPlace>,
    pub counter: u64,
    pub prev: Option<Digest>,
}

/// A message of this device on its way.
#[derive(Clone, Debug)]
pub struct SubRow {
    pub item: Item,
    pub room: RoomNo,
    pub message: MessageId,
    pub cipher: Option<Rc<[u8]>>,
}

/// A message of the timeline.
#[derive(Clone, Debug)]
pub struct MessageRow {
    pub sender: DevNo,
    pub counter: u64,
    pub content: Digest,
    pub prev: Option<Digest>,
    pub bytes: Rc<[u8]>,
    /// Its place, once it has one.
    pub seq: Option<Seq>,
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Add(DevNo),
    Remove(DevNo),
    Renew,
    Leave,
    Settle,
    Join,
}

/// A handshake that was built.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: SubmitId,
    pub bundle: Rc<[u8]>,
}

/// A change to a room that somebody wants.
#[derive(Clone, Debug)]
pub struct Command {
    pub position: u64,
    pub room: RoomNo,
    pub action: Action,
    pub change: Change,
    pub attempt: Option<Attempt>,
    pub package: Option<Package>,
    pub tries: u32,
    pub stored: bool,
    /// Whether a person asked for it.
    pub asked: bool,
}

/// Everything a device keeps.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub node: Option<Incarnation>,
    pub inbox: Option<Cursor>,
    pub position: u64,
    pub rooms: BTreeMap<RoomNo, RoomRow>,
    pub groups: BTreeMap<RoomNo, Rc<Group>>,
    pub items: BTreeMap<SubmitId, SubRow>,
    pub messages: BTreeMap<(RoomNo, MessageId), MessageRow>,
    pub by_sender: BTreeMap<(RoomNo, DevNo, u64), Vec<MessageId>>,
    /// Chains at places, and the bodies there.
    pub places: BTreeMap<(RoomNo, u64), Chain>,
    pub bodies: BTreeSet<(RoomNo, Hash)>,
    pub commands: BTreeMap<u64, Command>,
    pub packages: BTreeSet<u64>,
}
