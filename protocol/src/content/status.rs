//! What became of messages at a receiver (draft-mahy-mimi-message-status-01).

use crate::MessageId;
use crate::tls::Malformed;

/// What became of one message. Numbers this crate does not know are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Status(u8);

impl Status {
    /// Marked as not read.
    pub const UNREAD: Self = Self(0);
    /// On a device.
    pub const DELIVERED: Self = Self(1);
    /// Seen by the person.
    pub const READ: Self = Self(2);
    /// Vanished by its own wish.
    pub const EXPIRED: Self = Self(3);
    /// Deleted by the person.
    pub const DELETED: Self = Self(4);
    /// Hidden by the person.
    pub const HIDDEN: Self = Self(5);
    /// Could not be shown.
    pub const ERROR: Self = Self(6);

    /// The status with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        Self(code)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }
}

/// What became of several messages of one room; media type [`super::MESSAGE_STATUS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusReport {
    /// In any order; at most [`crate::limit::STATUS_ENTRIES`].
    pub statuses: Vec<(MessageId, Status)>,
}

impl StatusReport {
    /// The bytes to frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads exactly one report.
    ///
    /// # Errors
    /// When the bytes are not one, or pass a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let _ = bytes;
        todo!()
    }
}
