//! The simulator: nodes, devices, network, disks and clocks in one thread, on virtual time, from one seed.
//!
//! The decisions are those of `delivery`; around them stand shells that follow the node's and the client's step by step, on simulated disks. A
//! [`record`] holds what anybody could see from outside; [`check`] judges from it alone. Same seed, same hash of the record.

#![expect(missing_docs, reason = "fields and variants say themselves what they hold")]
#![expect(
    clippy::needless_pass_by_value,
    clippy::struct_field_names,
    clippy::too_many_arguments,
    clippy::struct_excessive_bools,
    clippy::trivially_copy_pass_by_ref,
    reason = "a simulator's own parts, shared by nobody"
)]
#![expect(clippy::indexing_slicing, reason = "numbers of a run are made together with its lists")]

pub mod bug;
pub mod chance;
pub mod check;
mod ctx;
mod device;
mod disk;
pub mod names;
mod node;
pub mod plan;
pub mod record;
mod sealed;
pub mod story;
mod wire;
pub mod world;
