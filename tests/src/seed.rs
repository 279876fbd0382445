//! Repeatable chance: every test prints its seed, and `SEED=<number>` repeats it.

/// SplitMix64: small, good enough to shuffle tests with, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Seed {
    state: u64,
    first: u64,
}

impl Seed {
    /// The seed in `SEED`, or this one; printed.
    #[must_use]
    pub fn from_environment(default: u64) -> Self {
        let given = std::env::var_os("SEED").and_then(|s| s.to_str().and_then(|s| s.parse().ok()));
        let seed = Self::new(given.unwrap_or(default));
        println!("seed: {} (SEED={} repeats it)", seed.first, seed.first);
        seed
    }

    /// This seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed, first: seed }
    }

    /// What it began with.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % (high.saturating_sub(low) + 1)
    }

    /// A seed of its own for a part of the test, so that parts do not disturb each other.
    #[must_use]
    pub fn branch(&mut self) -> Self {
        Self::new(self.draw())
    }
}
