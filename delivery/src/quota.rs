//! Whether a queue takes one more: every queue is bounded in count and in bytes, and says so before it takes anything.
//!
//! Rule: `held + more` must be within the cap in both. What is taken is never dropped for space later.

use protocol::{Code, Refusal, limit};

/// How much, in both measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Amount {
    /// One of `bytes` bytes.
    #[must_use]
    pub const fn one(bytes: u64) -> Self {
        Self { count: 1, bytes }
    }
}

/// A queue's bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// The most it may hold.
    pub most: Amount,
    /// What it holds, in the plural, for the refusal's detail.
    pub what: &'static str,
    /// How it refuses: [`Code::QueueFull`] where waiting helps, [`Code::TooLarge`] where somebody must remove something.
    pub code: Code,
}

/// Submissions waiting for a foreign hub, per room.
pub const UPLINK: Cap = Cap {
    most: Amount { count: limit::UPLINK_ENTRIES, bytes: 512 * 1024 * 1024 },
    what: "submissions waiting for the room's hub",
    code: Code::QueueFull,
};
/// Submissions of one device that wait for foreign hubs, over all rooms.
pub const WAITING: Cap = Cap {
    most: Amount { count: 2_000, bytes: 64 * 1024 * 1024 },
    what: "submissions of this device waiting for other nodes",
    code: Code::QueueFull,
};
/// Those of them for rooms that the device is not in: joins, which only the hub can judge.
pub const JOINING: Cap = Cap {
    most: Amount { count: 16, bytes: u64::MAX },
    what: "joins of this device waiting for other nodes",
    code: Code::QueueFull,
};
/// Devices, per user, revoked ones not counted.
pub const DEVICES: Cap = Cap {
    most: Amount { count: limit::DEVICES_PER_USER as u64, bytes: u64::MAX },
    what: "devices of this user",
    code: Code::TooLarge,
};
/// Rooms, per device.
pub const ROOMS: Cap = Cap {
    most: Amount { count: limit::ROOMS_PER_DEVICE as u64, bytes: u64::MAX },
    what: "rooms of this device",
    code: Code::TooLarge,
};

/// Rooms that one peer orders and that are kept here: each new one is the peer's doing, so how many there may be is for an operator to say.
#[must_use]
pub const fn rooms_of_peer(most: u64) -> Cap {
    Cap {
        most: Amount { count: most, bytes: u64::MAX },
        what: "rooms of this peer here",
        code: Code::QueueFull,
    }
}

/// When to ask again after [`Code::QueueFull`], in milliseconds.
pub const FULL_RETRY_MS: u32 = 30_000;

impl Cap {
    /// Whether `more` may join what is `held`.
    ///
    /// # Errors
    /// The cap's code when it would not fit, with a time to wait if waiting helps.
    pub fn admit(&self, held: Amount, more: Amount) -> Result<(), Refusal> {
        let count = held.count.saturating_add(more.count);
        let bytes = held.bytes.saturating_add(more.bytes);
        if count <= self.most.count && bytes <= self.most.bytes {
            return Ok(());
        }
        let detail = format!("There are {} {} already; no more fit.", held.count, self.what);
        let refusal = Refusal::because(self.code, detail);
        Err(if self.code == Code::QueueFull {
            refusal.retry_after_ms(FULL_RETRY_MS)
        } else {
            refusal
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_bounded_in_count_and_in_bytes() {
        let cap =
            Cap { most: Amount { count: 3, bytes: 10 }, what: "things", code: Code::QueueFull };
        let held = |count, bytes| Amount { count, bytes };
        for (have, more, fits) in [
            (held(0, 0), held(3, 10), true),
            (held(2, 0), Amount::one(10), true),
            (held(3, 0), Amount::one(0), false),
            (held(0, 10), Amount::one(1), false),
            (held(0, 0), held(4, 0), false),
            (held(u64::MAX, u64::MAX), held(1, 1), false),
        ] {
            assert_eq!(cap.admit(have, more).is_ok(), fits, "{have:?} {more:?}");
        }
        let refusal = cap.admit(held(3, 0), Amount::one(1)).unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after_ms), (Code::QueueFull, Some(FULL_RETRY_MS)));
    }

    #[test]
    fn waiting_is_asked_for_only_where_it_helps() {
        let full = |cap: Cap| cap.admit(cap.most, Amount::one(1)).unwrap_err();
        for cap in [UPLINK, WAITING, rooms_of_peer(3)] {
            assert!(full(cap).retry_after_ms.is_some(), "{}", cap.what);
        }
        for cap in [DEVICES, ROOMS] {
            assert_eq!(full(cap).retry_after_ms, None, "{}", cap.what);
        }
    }
}
