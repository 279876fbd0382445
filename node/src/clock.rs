//! The system's clock and random source: the only place of the node that asks the system for either.

use std::time::UNIX_EPOCH;

use protocol::{Clock, Entropy, Timestamp};

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock of the node")]
    fn now(&self) -> Timestamp {
        // A clock before 1970 reads as the epoch: hub time is max(now, previous + 1), so nothing goes backwards.
        let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The machine's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "this is the one random source of the node")]
    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out)
            .expect("without randomness no key is safe: stopping is the only answer");
    }
}
