//! What anybody could see from outside, in order, with a hash over all of it: the only thing the checker reads.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// A place in a log: the life (its first eight bytes) and the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub life: u64,
    pub seq: u64,
}

/// What kind of alarm a device raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    Chain,
    Fork,
    Header,
    Held,
    /// Held because a clock is wrong.
    HeldByClock,
    Undecryptable,
    Repeated,
    Restored,
    Missed,
}

/// A fault that was injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    Lost,
    Doubled,
    Delayed,
    Cut,
    Reset,
    NodeCrash,
    DeviceCrash,
    SyncError,
    DiskFull,
    DiskSlow,
    ClockJump,
    Restore,
    Refusal,
    Expiry,
    Lie,
}

/// An event. Rooms, devices and nodes by number; contents, ids and digests by their first eight bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A person wrote a message; it is durable on the device.
    Wrote { device: u8, room: u8, message: u64, counter: u64 },
    /// A device was told that its message has a place.
    Accepted { device: u8, room: u8, message: u64, place: Place },
    /// A device was told that its own node keeps its message.
    Stored { device: u8, room: u8, message: u64 },
    /// A device's message failed.
    Failed { device: u8, room: u8, message: u64, code: &'static str },
    /// A device shows a message.
    Shown { device: u8, room: u8, message: u64, sender: u8, counter: u64, place: Place },
    /// A device was sent an entry of a room's log.
    Pushed { device: u8, room: u8, place: Place },
    /// A device took in an entry of a room's log.
    Taken { device: u8, room: u8, place: Place, digest: u64, at: u64, message: Option<u64> },
    /// A device came into a room: it reads what comes after the place.
    Entered { device: u8, room: u8, place: Place, commit: Option<u64> },
    /// A device is out of a room since the entry at the place.
    Out { device: u8, room: u8, place: Place },
    /// A device was told that entries are gone.
    Gap { device: u8, room: u8, first: u64, last: u64, expired: bool },
    /// A device raised an alarm.
    Alarm { device: u8, room: Option<u8>, kind: Alarm },
    /// A device is in another epoch.
    Epoch { device: u8, room: u8, epoch: u64, commit: Option<u64>, authenticator: u64, tree: u64 },
    /// A person wants a change to a room.
    Wanted { device: u8, room: u8, position: u64 },
    /// It was carried out, or the person is told why not.
    Ended { device: u8, room: u8, position: u64, done: bool },
    /// A lane stands still for good.
    Parked { node: u8, room: u8, code: &'static str },
    /// A fault.
    Injected { fault: Fault, whom: u8 },
    /// A node lives another life since it was restored; its backup ended here.
    Restored { node: u8 },
    /// Some node is dishonest in this run.
    Liar { node: u8 },
    /// The end of the storm.
    Calm,
    /// Only a hub, a follower and two devices were up for a while: how far each of the two is.
    Pair { room: u8, device: u8, head: Place, at: Place, epoch: u64, authenticator: u64 },
    /// At the end: a device's timeline of a room, with whether a gap is shown before a message, and whether it is late.
    Timeline { device: u8, room: u8, round: u8, messages: Vec<(u64, u8, u64, bool)> },
    /// At the end: how far a device is in a room.
    Final {
        device: u8,
        room: u8,
        round: u8,
        inside: bool,
        at: Place,
        head: Place,
        epoch: u64,
        authenticator: u64,
        tree: u64,
    },
    /// At the end: the hub counts a device among a room's members.
    Member { device: u8, room: u8 },
    /// At the end: something that should be empty is not.
    Left { what: &'static str, whom: u8, count: u64 },
}

/// See the module.
pub struct Recorder {
    events: Vec<(u64, Event)>,
    hash: DefaultHasher,
    faults: std::collections::BTreeMap<Fault, u64>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            hash: DefaultHasher::new(),
            faults: std::collections::BTreeMap::new(),
        }
    }
}

impl Recorder {
    /// Writes down.
    pub fn note(&mut self, now: u64, event: Event) {
        (now, &event).hash(&mut self.hash);
        if let Event::Injected { fault, .. } = event {
            *self.faults.entry(fault).or_default() += 1;
        }
        self.events.push((now, event));
    }

    /// Everything so far.
    #[must_use]
    pub fn events(&self) -> &[(u64, Event)] {
        &self.events
    }

    /// The hash over everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// Faults by kind.
    #[must_use]
    pub const fn faults(&self) -> &std::collections::BTreeMap<Fault, u64> {
        &self.faults
    }
}

/// The first eight bytes.
#[must_use]
pub fn short(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}
