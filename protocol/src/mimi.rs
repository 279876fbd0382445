//! Node and node: the structs of draft-ietf-mimi-protocol-06, in the encoding that PROTOCOL §9.4 pins.
//!
//! Each struct has `encode` and `decode`. Decoding is exact (nothing may follow), bounded by [`crate::limit`], and gives
//! ids of the right kind: a room where a user belongs is refused. MLS structures stay bytes, whose kind and end were
//! checked ([`CommitBytes`] and its siblings), because only devices and the hub's group state look inside.
//!
//! | endpoint | request | answer |
//! |---|---|---|
//! | `keyMaterial` | [`KeyMaterialRequest`] | [`KeyMaterialResponse`] |
//! | `update` | [`HandshakeBundle`] | [`UpdateRoomResponse`] |
//! | `submitMessage` | [`SubmitMessageRequest`] | [`SubmitMessageResponse`] |
//! | `notify` | [`FanoutMessage`], several in a row | none |
//! | `groupInfo` | [`GroupInfoRequest`] | [`GroupInfoResponse`] |
//! | `backfill` | [`BackfillRequest`] | like a body of `notify` |
//! | directory | | [`Directory`], JSON |

mod bytes;
mod directory;
mod field;
mod group_info;
mod key_material;
mod notify;
mod submit;
mod update;

pub use bytes::{
    ApplicationBytes, CommitBytes, GroupInfoBytes, KeyPackageBytes, ProposalBytes, TreeBytes,
    WelcomeBytes, WelcomeMessageBytes,
};
pub use directory::{Directory, Extension, TemplateError, expand};
pub use field::{Capabilities, Credential};
pub use group_info::{
    ExternalSender, GroupInfoAnswer, GroupInfoRatchetTree, GroupInfoRequest, GroupInfoResponse,
    HpkeCiphertext, PendingProposal, SealedGroupInfo,
};
pub use key_material::{
    ClientKeyMaterial, ClientOutcome, KeyMaterialRequest, KeyMaterialResponse, KeyMaterialUserCode,
    RequiredCapabilities,
};
pub use notify::{BackfillRequest, Fanout, FanoutMessage};
pub use submit::{Frank, SubmitMessageRequest, SubmitMessageResponse, SubmitOutcome};
pub use update::{HandshakeBundle, RatchetTreeOption, UpdateOutcome, UpdateRoomResponse};

pub use crate::tls::Malformed;

/// `Content-Type` of every body but the directory's.
pub const CONTENT_TYPE: &str = "application/octet-stream";

/// Path of the directory.
pub const DIRECTORY_PATH: &str = "/.well-known/mimi-protocol-directory";

/// The `Protocol` byte: MLS 1.0, the only one there is.
const MLS10: u8 = 1;

/// Gives a type its public `encode` and `decode` from its private `write` and `read`.
macro_rules! body {
    ($name:ident, $max:expr) => {
        impl $name {
            /// The bytes on the wire.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                let mut out = Vec::new();
                self.write(&mut out);
                out
            }

            /// Reads exactly one.
            ///
            /// # Errors
            /// When the bytes are not one, hold a name of the wrong kind, or pass a limit of PROTOCOL §2.
            pub fn decode(bytes: &[u8]) -> Result<Self, crate::tls::Malformed> {
                if bytes.len() > $max {
                    return Err(crate::tls::Malformed::over_limit("a body over its limit", $max));
                }
                let mut r = crate::tls::Reader::new(bytes);
                let value = Self::read(&mut r)?;
                r.finish()?;
                Ok(value)
            }
        }
    };
}
use body;
