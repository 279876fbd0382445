//! How long to wait before the next attempt: full jitter, no give-up.
//!
//! Rule: `delay = floor + uniform(0, min(cap, base · 2^attempt))`. The floor is what the other side asked for with `Retry-After`. It
//! is added, not compared: everybody who was told the same time to wait would otherwise come back in the same instant.

use std::time::Duration;

/// The longest `Retry-After` that is believed: a hostile or broken peer must not stop a lane for good.
pub const FLOOR_MAX: Duration = Duration::from_secs(3600);

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
    pub const STANDARD: Self =
        Self { base: Duration::from_secs(1), cap: Duration::from_secs(5 * 60) };

    /// The wait after failed attempt number `attempt`, the first being 0. `jitter` is any number nobody can guess.
    /// `floor` is the other side's `Retry-After`; more than [`FLOOR_MAX`] counts as that.
    #[must_use]
    pub fn delay(&self, attempt: u32, jitter: u32, floor: Option<Duration>) -> Duration {
        let factor = 1u32.checked_shl(attempt).unwrap_or(u32::MAX);
        let bound = self.base.saturating_mul(factor).min(self.cap);
        floor.unwrap_or_default().min(FLOOR_MAX) + uniform(bound, jitter)
    }
}

/// A duration in `0..=bound`, in proportion to `jitter`.
#[must_use]
pub fn uniform(bound: Duration, jitter: u32) -> Duration {
    // Milliseconds are enough for a wait, and their product with a u32 fits u128 whatever the bound.
    let ms = bound.as_millis() * u128::from(jitter) / u128::from(u32::MAX);
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}
