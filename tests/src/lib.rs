//! The harness: real node processes, real sockets, real databases, people with real clients, and faults in between.
//!
//! | module | holds |
//! |---|---|
//! | [`world`] | nodes, people and rooms of one test; shows the logs when it fails |
//! | [`node`] | one `waxwing-node` process: start, kill, stop, restart |
//! | [`device`] | one device of a person, driven in this process, and what it saw |
//! | [`command`] | the `waxwing` program |
//! | [`proxy`] | a TCP hop that can be cut, delayed, or made to lose a reply |
//! | [`ledger`] | what was sent and what each device shows, and the checker that compares them |
//! | [`chaos`] | SIGKILL and restart in the middle of traffic |
//! | [`scan`] | looks for a text in every byte that was stored or sent |
//! | [`seed`] | repeatable chance |

pub mod chaos;
pub mod command;
pub mod device;
pub mod folder;
pub mod ledger;
pub mod node;
pub mod proxy;
pub mod scan;
pub mod seed;
pub mod trouble;
pub mod world;

pub use trouble::{Outcome, Trouble};
