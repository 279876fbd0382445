//! Our own side: a node as a process, people in its database, rooms with real MLS groups, streams.

pub mod api;
pub mod node;
pub mod people;
pub mod rooms;
pub mod seed;
pub mod socket;
pub mod stage;
