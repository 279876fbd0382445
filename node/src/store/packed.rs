//! Many records for one statement of SQLite. A bound value costs as much as a small insert, so the records of a batch are bound together: as
//! numbers of equal width, hashes of equal length, and a heap of all other bytes. The statement cuts them apart.

use protocol::log::{Chain, Digest};

/// Digits of a number: those of the largest that SQLite has.
const DIGITS: usize = 19;

/// Records, each with the same fields in the same order.
#[derive(Default)]
pub(super) struct Packed {
    /// How many.
    pub(super) count: i64,
    /// Decimal, padded with zeros.
    pub(super) numbers: Vec<u8>,
    /// 32 bytes each.
    pub(super) hashes: Vec<u8>,
    /// What the numbers of a field of bytes point to.
    pub(super) heap: Vec<u8>,
}

impl Packed {
    /// The next record begins.
    pub(super) fn record(&mut self) -> &mut Self {
        self.count += 1;
        self
    }

    /// A field of the kind that [`number!`] reads. Never negative.
    pub(super) fn number(&mut self, n: i64) -> &mut Self {
        let mut digits = [b'0'; DIGITS];
        let mut rest = n.unsigned_abs();
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        self.numbers.extend_from_slice(&digits);
        self
    }

    /// A field of the kind that [`bytes!`] and [`text!`] read: two numbers.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(super::row::limit(self.heap.len())).number(super::row::limit(bytes.len()));
        self.heap.extend_from_slice(bytes);
        self
    }

    /// A field of the kind that [`hash!`] reads.
    pub(super) fn digest(&mut self, digest: &Digest) -> &mut Self {
        self.hashes.extend_from_slice(digest.as_bytes());
        self
    }

    /// The same.
    pub(super) fn chain(&mut self, chain: &Chain) -> &mut Self {
        self.hashes.extend_from_slice(chain.as_bytes());
        self
    }
}

/// A table `name(i)` with the numbers of the records, from 0, for `WITH RECURSIVE`; at least one.
macro_rules! records {
    ($name:literal, $count:literal) => {
        concat!(
            $name,
            "(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM ",
            $name,
            " WHERE i + 1 < ",
            $count,
            ")"
        )
    };
}

/// The number at `$at`, of `$of` numbers in a record.
macro_rules! number {
    ($numbers:literal, $at:literal, $of:literal) => {
        concat!(
            "CAST(substr(",
            $numbers,
            ", i * (",
            $of,
            " * 19) + (",
            $at,
            " * 19 + 1), 19) AS INTEGER)"
        )
    };
}

/// The hash at `$at`, of `$of` hashes in a record.
macro_rules! hash {
    ($hashes:literal, $at:literal, $of:literal) => {
        concat!("substr(", $hashes, ", i * (", $of, " * 32) + (", $at, " * 32 + 1), 32)")
    };
}

/// The bytes that the numbers at `$at` and after it point to.
macro_rules! bytes {
    ($numbers:literal, $heap:literal, $at:literal, $of:literal) => {
        concat!(
            "substr(",
            $heap,
            ", 1 + CAST(substr(",
            $numbers,
            ", i * (",
            $of,
            " * 19) + (",
            $at,
            " * 19 + 1), 19) AS INTEGER), CAST(substr(",
            $numbers,
            ", i * (",
            $of,
            " * 19) + (",
            $at,
            " * 19 + 20), 19) AS INTEGER))"
        )
    };
}

/// The same, as text.
macro_rules! text {
    ($numbers:literal, $heap:literal, $at:literal, $of:literal) => {
        concat!("CAST(", $crate::store::packed::bytes!($numbers, $heap, $at, $of), " AS TEXT)")
    };
}

pub(super) use {bytes, hash, number, records, text};

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    type Found = (i64, i64, Vec<u8>, String, Vec<u8>);

    #[tokio::test]
    async fn a_statement_finds_what_was_packed() {
        let mut packed = Packed::default();
        let hash = |n: u8| Digest::from_bytes([n; 32]);
        packed
            .record()
            .number(7)
            .bytes(b"")
            .bytes("grün".as_bytes())
            .digest(&hash(1))
            .digest(&hash(2));
        packed
            .record()
            .number(i64::MAX)
            .bytes(&[0, 255])
            .bytes(b"")
            .digest(&hash(3))
            .digest(&hash(4));
        packed.record().number(0).bytes(b"x").bytes(b"y").digest(&hash(5)).digest(&hash(6));
        let mut connection = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let found: Vec<Found> = sqlx::query_as(concat!(
            "WITH RECURSIVE ",
            records!("n", "?1"),
            " SELECT i, ",
            number!("?2", 0, 5),
            ", ",
            bytes!("?2", "?4", 1, 5),
            ", ",
            text!("?2", "?4", 3, 5),
            ", ",
            hash!("?3", 1, 2),
            " FROM n ORDER BY i"
        ))
        .bind(packed.count)
        .bind(packed.numbers)
        .bind(packed.hashes)
        .bind(packed.heap)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let expected: [Found; 3] = [
            (0, 7, Vec::new(), "grün".into(), vec![2; 32]),
            (1, i64::MAX, vec![0, 255], String::new(), vec![4; 32]),
            (2, 0, b"x".to_vec(), "y".into(), vec![6; 32]),
        ];
        assert_eq!(found, expected);
    }
}
