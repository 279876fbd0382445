//! The client against a hub in memory: no network, so that every point between two steps can be tried as the point of a crash.

mod crash;
pub(crate) mod harness;
mod hostile;
mod rooms;
mod schedule;
