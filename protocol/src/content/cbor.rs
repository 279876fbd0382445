//! Deterministic CBOR (RFC 8949 §4.2.1): a reader that takes nothing else, and extensions kept as they came.

use std::collections::BTreeMap;

use crate::tls::Malformed;

/// Extensions this crate does not know, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extensions(BTreeMap<Vec<u8>, Value>);

/// Key of an extension. Positive numbers belong to IANA, negative ones and texts are private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Between -(2^53-1) and 2^53-1.
    Number(i64),
    /// 1 to 255 bytes.
    Text(String),
}

/// One valid, deterministic CBOR item, at most four levels deep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(Vec<u8>);

impl Value {
    /// Checks and keeps an item.
    ///
    /// # Errors
    /// When it is not exactly one deterministic item, or too deep.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, Malformed> {
        let _: Vec<u8> = bytes.into();
        todo!()
    }

    /// The item's bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl Extensions {
    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Value> {
        let _ = (key, &self.0);
        todo!()
    }

    /// Sets the value under `key`.
    ///
    /// # Errors
    /// When the key is out of its bounds, or is 1, 2 or -1, which are fields of their own.
    pub fn insert(&mut self, key: &Key, value: Value) -> Result<(), Malformed> {
        let _ = (key, value);
        todo!()
    }
}
