//! MLS state as rows: loaded whole, worked on in memory, saved as a write-set together with everything it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The rows of one group, or the private rows of one KeyPackage. Keys are opaque, at most 128 bytes; values are secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rows(BTreeMap<Vec<u8>, Vec<u8>>);

impl Rows {
    /// The rows, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(k, v)| (k.as_slice(), v.as_slice()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice)
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        self.0.remove(key).is_some()
    }

    /// Writes what changed.
    pub fn apply(&mut self, writes: &WriteSet) {
        for key in &writes.delete {
            self.0.remove(key);
        }
        for (key, value) in &writes.put {
            self.0.insert(key.clone(), value.clone());
        }
    }
}

impl FromIterator<(Vec<u8>, Vec<u8>)> for Rows {
    fn from_iter<T: IntoIterator<Item = (Vec<u8>, Vec<u8>)>>(rows: T) -> Self {
        Self(rows.into_iter().collect())
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rows({})", self.0.len())
    }
}

/// What to write to bring the stored rows up to date. A key is never in both parts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// Rows to insert or replace.
    pub put: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Rows to delete.
    pub delete: BTreeSet<Vec<u8>>,
}

impl WriteSet {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty()
    }
}

impl fmt::Debug for WriteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteSet({} put, {} deleted)", self.put.len(), self.delete.len())
    }
}
