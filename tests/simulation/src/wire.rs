//! Frames between a device and its node.

use std::rc::Rc;

use protocol::api::{Entries, SubmitReply};
use protocol::{Cursor, Incarnation, SubmitId, Timestamp};

use crate::names::{DevNo, RoomNo};
use crate::sealed::{Info, Package, Welcome};

/// A log as a device names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Log {
    Inbox,
    Room(RoomNo),
}

/// What is submitted; the digest of it is what a repetition must equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A message.
    App(Rc<[u8]>),
    /// A [`crate::sealed::Bundle`].
    Handshake(Rc<[u8]>),
}

/// From a device.
#[derive(Clone, Debug)]
pub enum Up {
    Ack(Log, Cursor),
    Submit {
        id: SubmitId,
        room: RoomNo,
        payload: Payload,
    },
    Rewind(Log),
    Ping(Timestamp),
    /// One of this device's packages, for a room.
    Claim {
        of: DevNo,
        position: u64,
    },
    /// What it takes to come into a room by itself.
    AskInfo {
        room: RoomNo,
        position: u64,
    },
}

/// To a device.
#[derive(Clone, Debug)]
pub enum Down {
    Hello(Incarnation),
    Entries(Log, Rc<Entries>),
    Items(Incarnation, Vec<(protocol::Seq, Rc<Item>)>, Option<protocol::api::Gap>),
    Reply(SubmitId, SubmitReply),
    Pong(Timestamp, Timestamp),
    Claimed { position: u64, package: Option<Package> },
    Told { position: u64, info: Option<Info> },
}

/// An item of an inbox.
#[derive(Clone, Debug)]
pub enum Item {
    Welcome { welcome: Welcome, cursor: Cursor, chain: protocol::log::Chain },
    Outcome(protocol::api::Outcome),
}
