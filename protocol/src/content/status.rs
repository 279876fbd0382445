//! What became of messages at a receiver (draft-mahy-mimi-message-status-01).

use minicbor::encode::{Encoder, Write};

use super::cbor::{Decoder, Written};
use crate::tls::Malformed;
use crate::{MessageId, limit};

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
    /// In any order; at most [`limit::STATUS_ENTRIES`].
    pub statuses: Vec<(MessageId, Status)>,
}

impl StatusReport {
    /// The bytes to frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        self.write(&mut e).expect("writing to a Vec cannot fail");
        e.into_writer()
    }

    fn write<W: Write>(&self, e: &mut Encoder<W>) -> Written<W> {
        e.array(self.statuses.len() as u64)?;
        for (id, status) in &self.statuses {
            e.array(2)?.bytes(id.as_bytes())?.u8(status.code())?;
        }
        Ok(())
    }

    /// Reads exactly one report.
    ///
    /// # Errors
    /// When the bytes are not one, or pass a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut d = Decoder::new(bytes);
        let len = d.array()?;
        if len > limit::STATUS_ENTRIES as u64 {
            return Err(Malformed::over_limit("a report over its limit", 0));
        }
        let mut statuses = Vec::new();
        for _ in 0..len {
            d.array_exact(2)?;
            let id = MessageId::from_bytes(d.array_of()?);
            statuses.push((id, Status(d.number()?)));
        }
        d.finish()?;
        Ok(Self { statuses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_and_nothing_else_is_taken() {
        let id = MessageId::from_bytes([3; 32]);
        let report =
            StatusReport { statuses: vec![(id, Status::READ), (id, Status::from_code(200))] };
        let bytes = report.encode();
        assert_eq!(StatusReport::decode(&bytes).unwrap(), report);
        for cut in 0..bytes.len() {
            assert!(StatusReport::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(StatusReport::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert!(StatusReport::decode(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).is_err());
        let many = StatusReport { statuses: vec![(id, Status::READ); limit::STATUS_ENTRIES + 1] };
        assert!(StatusReport::decode(&many.encode()).is_err());
    }
}
