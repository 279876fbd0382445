//! The client against a hub in memory: no network, so that every point between two steps can be tried as the point of a crash.

mod harness;
mod rooms;
