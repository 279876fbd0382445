//! Every function of the node's store, on both databases.

mod commit;
mod harness;
mod logs;
mod people;
mod placing;
mod rooms;
mod schema;
mod traffic;
