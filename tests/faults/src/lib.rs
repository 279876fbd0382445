//! Faults: what the disk, the power and the machine do to a node, on real databases and real processes.
//!
//! A run that injected no fault is a failed run: every test counts what it did and asserts that it was something.
//!
//! | module | holds |
//! |---|---|
//! | [`process`] | real nodes as processes, and what is done to them |
//! | [`vfs_disk`] | a disk under SQLite that remembers every change, and fails when told to |
//! | [`vfs_image`] | what it can hold after the power went |
//! | [`vfs_work`] | work on a store, and what was answered |
//! | [`vfs_check`] | looks for everything that was answered |

pub mod process;
mod vfs;
pub mod vfs_check;
pub mod vfs_disk;
pub mod vfs_image;
pub mod vfs_work;
