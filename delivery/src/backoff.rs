//! How long to wait before the next attempt: full jitter, no give-up.
//!
//! Rule: `delay = floor + uniform(0, min(cap, base · 2^attempt))`. The floor is what the other side asked for with `Retry-After`. It
//! is added, not compared: everybody who was told the same time to wait would otherwise come back in the same instant.

use std::time::Duration;

/// The longest `Retry-After` that is believed: a hostile or broken peer must not stop a lane for good.
pub const FLOOR_MAX: Duration = Duration::from_hours(1);

/// How an exponential backoff grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first delay.
    pub base: Duration,
    /// The bound of every delay.
    pub cap: Duration,
}

impl Backoff {
    /// Between nodes, and from a device to its node: 1 s, doubling, at most 5 min. PROTOCOL §9.6.
    pub const STANDARD: Self = Self { base: Duration::from_secs(1), cap: Duration::from_mins(5) };

    /// The wait after failed attempt number `attempt`, the first being 0. `jitter` is any number nobody can guess.
    /// `floor` is the other side's `Retry-After`; more than [`FLOOR_MAX`] counts as that.
    #[must_use]
    pub fn delay(&self, attempt: u32, jitter: u32, floor: Option<Duration>) -> Duration {
        let factor = 1u32.checked_shl(attempt).unwrap_or(u32::MAX);
        let bound = self.base.saturating_mul(factor).min(self.cap);
        floor.unwrap_or_default().min(FLOOR_MAX).saturating_add(uniform(bound, jitter))
    }
}

/// A duration in `0..=bound`, in proportion to `jitter`.
#[must_use]
pub fn uniform(bound: Duration, jitter: u32) -> Duration {
    // Milliseconds are enough for a wait, and their product with a u32 fits u128 whatever the bound.
    let ms = bound.as_millis() * u128::from(jitter) / u128::from(u32::MAX);
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let longest = |attempt| Backoff::STANDARD.delay(attempt, u32::MAX, None).as_secs();
        assert_eq!(
            (0..10).map(longest).collect::<Vec<_>>(),
            [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
        );
        assert_eq!(longest(u32::MAX), 300);
        assert_eq!(Backoff::STANDARD.delay(9, 0, None), Duration::ZERO, "full jitter");
        assert_eq!(Backoff::STANDARD.delay(9, u32::MAX / 2, None).as_secs(), 149, "in proportion");
    }

    proptest! {
        #[test]
        fn a_delay_is_never_below_what_was_asked_for_and_never_far_above(
            attempt: u32, jitter: u32, floor_ms: Option<u64>, base_ms: u64, cap_ms: u64,
        ) {
            let (base, cap) = (Duration::from_millis(base_ms), Duration::from_millis(cap_ms));
            let floor = floor_ms.map(Duration::from_millis);
            let delay = Backoff { base, cap }.delay(attempt, jitter, floor);
            let floor = floor.unwrap_or_default().min(FLOOR_MAX);
            prop_assert!(delay >= floor && delay <= floor.saturating_add(cap));
        }

        #[test]
        fn more_failures_never_mean_a_shorter_bound(attempt in 0u32..100, jitter: u32) {
            let delay = |n| Backoff::STANDARD.delay(n, jitter, None);
            prop_assert!(delay(attempt) <= delay(attempt + 1));
        }
    }
}
