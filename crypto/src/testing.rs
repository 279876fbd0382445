//! What the unit tests of this crate share.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::Entropy;
use sha2::{Digest as _, Sha256};

/// Predictable bytes that never repeat.
#[derive(Default)]
pub(crate) struct TestEntropy(AtomicU64);

impl Entropy for TestEntropy {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let n = self.0.fetch_add(1, Ordering::Relaxed);
            let block = Sha256::digest(n.to_be_bytes());
            for (byte, from) in chunk.iter_mut().zip(block) {
                *byte = from;
            }
        }
    }
}
