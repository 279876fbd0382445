//! All key material: MLS groups for devices, public group state for hubs, certificates, passwords, sealing at rest.
//!
//! Nothing here does I/O. Time and chance come in as arguments; MLS state comes in and goes out as rows.
//!
//! | module | holds |
//! |---|---|
//! | [`suite`] | the two MLS cipher suites a room can have |
//! | [`sign`] | Ed25519 under labels, the public keys of everybody |
//! | [`identity`] | identity keys, device keys and certificates, safety numbers, node keys |
//! | [`password`] | argon2id hashes of passwords |
//! | `pin` | a node's certificates, checked against its pinned key |
//! | [`token`] | bearer tokens and their hashes |
//! | [`seal`] | sealing at rest and for link offers |
//! | [`rows`] | MLS state as rows and write-sets |
//! | [`keypackage`] | making KeyPackages, and judging those of others |
//! | [`group`] | a device's view of a room: create, join, encrypt, receive, commit, leave |
//! | [`hub`] | a hub's view of a room: it follows, checks and never reads |
//! | [`key_material`] | signed requests for KeyPackages |
//! | [`group_info`] | signed requests for what an external joiner needs, and the sealed answer |

pub mod error;
pub mod group;
pub mod group_info;
pub mod hub;
pub mod identity;
pub mod key_material;
pub mod keypackage;
pub mod password;
#[cfg(not(target_family = "wasm"))]
pub mod pin;
pub mod rows;
pub mod seal;
pub mod sign;
pub mod suite;
pub mod token;

mod mls;
#[cfg(test)]
mod testing;

pub use error::Error;
pub use group::Group;
pub use hub::HubGroup;
pub use identity::{Certificate, DeviceIdentity, DeviceKey, IdentityKey, NodeKey, safety_number};
pub use keypackage::KeyPackageRef;
pub use rows::{Rows, WriteSet};
pub use sign::PublicKey;
pub use suite::Suite;
