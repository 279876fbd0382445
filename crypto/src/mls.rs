//! The MLS library's surroundings: its cryptography, its randomness, its storage, its settings.

pub(crate) mod facts;
mod pieces;
pub(crate) mod provider;
pub(crate) mod settings;
pub(crate) mod storage;
pub(crate) mod wire;

pub(crate) use provider::{Provider, crypto};
pub(crate) use storage::Storage;
