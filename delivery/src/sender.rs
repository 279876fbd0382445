//! What a message's own header proves about its sender and its hub. PROTOCOL §7.5.
//!
//! Rule: among the known messages of one device in one room, each is compared with its neighbours by counter, so that what is found depends on the set and not on
//! the order of arrival. Findings are values to show; nothing is hidden or dropped because of one.

use protocol::MessageId;
use protocol::log::Chain;

/// What a message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its sender's own number for it.
    pub counter: u64,
    /// The hash of its content.
    pub id: MessageId,
    /// The hash of its sender's previous content, as it claims.
    pub prev: Option<MessageId>,
}

/// The known messages of the same sender next to a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// The one with the highest lower counter.
    pub before: Option<Header>,
    /// Another one with the same counter.
    pub same: Option<Header>,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Messages of its sender between the one before and this one are missing.
    Missing {
        /// The first missing counter.
        first: u64,
        /// The last missing counter.
        last: u64,
    },
    /// Its sender has used this counter for another message.
    Repeated,
    /// It does not follow on the one before: its sender, or somebody in its name, wrote two histories.
    Broken,
    /// Its sender was shown another history of the room than this device: the hub forks.
    Forked,
}

/// Compares a message with its neighbours, and the place in the room's log that its sender saw last with our own.
#[must_use]
pub fn check(message: &Header, neighbours: &Neighbours, seen: Seen) -> Vec<Finding> {
    let _ = (message, neighbours, seen);
    todo!()
}

/// How the history that a sender saw compares with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The same, up to there.
    Same,
    /// We do not have that entry (any more), or the sender said nothing.
    Unknown,
    /// Another one.
    Other,
}

impl Seen {
    /// Compares the chain that a sender saw at some seq with the one that we saw there.
    #[must_use]
    pub fn compare(theirs: &Chain, ours: Option<&Chain>) -> Self {
        match ours {
            None => Self::Unknown,
            Some(ours) if ours == theirs => Self::Same,
            Some(_) => Self::Other,
        }
    }
}
