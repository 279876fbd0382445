//! What nodes, devices and peers say to each other: ids, wire types, limits, refusals.
//!
//! Nothing here does I/O, reads a clock or rolls dice. Bytes become types in this crate and nowhere else, always
//! under the bounds of [`limit`], so that whoever holds one of these types knows that its size and shape were checked.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | names of users, devices, rooms, nodes; sequence numbers; cursors |
//! | [`time`] | timestamps and the injected clock and entropy |
//! | [`limit`] | every bound of the protocol, with its reason |
//! | [`refusal`] | the closed list of reasons to say no |
//! | [`log`] | entries, digests and the chain over them |
//! | [`room`] | participants, roles, what a commit changes |
//! | [`api`] | device and node: CBOR bodies and stream frames |
//! | [`invite`] | the one-line invitations for people and peers |
//! | [`mls`] | what an MLS message is and where it ends, without keys |
//! | [`mimi`] | node and node: the structs of the MIMI protocol |
//! | [`content`] | device and device, inside the encryption: MIMI content |

pub mod api;
pub mod content;
pub mod id;
pub mod invite;
pub mod limit;
pub mod log;
pub mod mimi;
pub mod mls;
pub mod refusal;
pub mod room;
pub mod time;
mod tls;

pub use id::{
    Cursor, DeviceId, Domain, Epoch, GroupId, Incarnation, MessageId, RoomId, Seq, SubmitId, UserId,
};
pub use refusal::{Code, Refusal};
pub use time::{Clock, Entropy, Timestamp};
