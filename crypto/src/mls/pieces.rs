//! Large values cut into pieces where their content says so, so that a small change writes a few pieces and not the whole.
//!
//! The library stores a tree, or the message keys of all kept epochs, as one value each: hundreds of kilobytes in a room of
//! hundreds, of which one message changes a few dozen bytes, often shifting the rest. A cut is made where a hash over the
//! last 64 bytes ends in zeros, so cuts move with the content and pieces behind a change stay what they were.

use sha2::{Digest as _, Sha256};

/// Values up to this size stay whole.
pub(super) const WHOLE_BYTES: usize = 8 * 1024;
/// No piece but the last is smaller.
const PIECE_BYTES_MIN: usize = 1024;
/// No piece is larger.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// Twelve bits: a cut every 4 KiB on average, behind the minimum.
const MASK: u64 = 0xfff << 52;

/// Bytes of a piece's name.
pub(super) const NAME_BYTES: usize = 16;
/// A piece's name: its SHA-256, cut.
pub(super) type Name = [u8; NAME_BYTES];

pub(super) fn name(piece: &[u8]) -> Name {
    let mut name = Name::default();
    for (to, from) in name.iter_mut().zip(Sha256::digest(piece)) {
        *to = from;
    }
    name
}

/// The pieces of `value`, in order.
pub(super) fn cut(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = value;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, tail) = rest.split_at_checked(length(rest))?;
        rest = tail;
        Some(piece)
    })
}

/// The length of the first piece.
fn length(value: &[u8]) -> usize {
    let mut hash: u64 = 0;
    for (at, byte) in value.iter().enumerate().take(PIECE_BYTES_MAX) {
        // Each shift pushes a byte's share out after 64 steps.
        hash = (hash << 1).wrapping_add(gear(*byte));
        if at + 1 >= PIECE_BYTES_MIN && hash & MASK == 0 {
            return at + 1;
        }
    }
    value.len().min(PIECE_BYTES_MAX)
}

/// A fixed random-looking number per byte.
fn gear(byte: u8) -> u64 {
    static GEAR: [u64; 256] = table();
    GEAR.get(usize::from(byte)).copied().unwrap_or_default()
}

/// SplitMix64 from 1 on. Stored values depend on it: never change it.
const fn table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state: u64 = 1;
    let mut i = 0;
    #[expect(clippy::indexing_slicing, reason = "iterators are not const, and i < 256")]
    while i < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = z ^ (z >> 31);
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use protocol::Entropy as _;

    use super::*;
    use crate::testing::TestEntropy;

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        TestEntropy::default().fill(&mut out);
        out
    }

    #[test]
    fn pieces_make_the_value_again_and_keep_to_their_sizes() {
        for value in [Vec::new(), vec![7; 100_000], noise(1), noise(300_000)] {
            let pieces: Vec<&[u8]> = cut(&value).collect();
            assert_eq!(pieces.concat(), value);
            assert!(pieces.iter().all(|p| p.len() <= PIECE_BYTES_MAX));
            let count = pieces.len().saturating_sub(1);
            assert!(pieces.iter().take(count).all(|p| p.len() >= PIECE_BYTES_MIN));
        }
    }

    #[test]
    fn a_few_bytes_more_or_less_change_a_few_pieces() {
        let value = noise(300_000);
        let names = |value: &[u8]| -> BTreeSet<Name> { cut(value).map(name).collect() };
        let before = names(&value);
        assert!(before.len() > 40, "{}", before.len());
        for at in (0..value.len()).step_by(9_973) {
            let mut longer = value.clone();
            longer.splice(at..at, *b"inserted");
            let mut shorter = value.clone();
            shorter.drain(at..(at + 3).min(value.len()));
            for after in [names(&longer), names(&shorter)] {
                let fresh = after.difference(&before).count();
                assert!(fresh <= 4, "{fresh} new pieces after a change at {at}");
            }
        }
    }
}
