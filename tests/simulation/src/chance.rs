//! Repeatable chance: everything a run draws comes from its one seed.

/// SplitMix64: small, good enough to shuffle with, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// What this seed gives.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % (high.saturating_sub(low) + 1)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { usize::try_from(self.draw() % n as u64).unwrap_or(0) }
    }

    /// True `per_million` times in a million.
    pub fn odds(&mut self, per_million: u64) -> bool {
        per_million > 0 && self.draw() % 1_000_000 < per_million
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// For waits.
    pub fn jitter(&mut self) -> u32 {
        u32::try_from(self.draw() >> 32).unwrap_or(0)
    }

    /// Sixteen bytes.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut out = [0; 16];
        let (a, b) = (self.draw().to_be_bytes(), self.draw().to_be_bytes());
        for (place, byte) in out.iter_mut().zip(a.into_iter().chain(b)) {
            *place = byte;
        }
        out
    }

    /// A chance of its own for a part of the run, so that parts do not disturb each other.
    #[must_use]
    pub fn branch(&mut self) -> Self {
        Self::new(self.draw())
    }
}
