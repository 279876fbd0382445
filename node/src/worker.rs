//! What runs beside requests: lanes to peers, retention, the disk watch.
//!
//! | module | does |
//! |---|---|
//! | [`carrier`] | finds lanes with something to deliver and starts them |
//! | [`lane`] | delivers one log to one peer, one request at a time |
//! | [`notify`], [`uplink`] | the two kinds of request |
//! | [`peers`] | what is known of each peer now: up or silent, how many requests are in flight |
//! | [`relay`] | passes a device's question on to another node and waits for the answer |
//! | [`backfill`] | fetches what a replica misses |
//! | [`greet`] | says hello to peers after a start |
//! | [`expiry`] | retention and other ends of things; the disk watch |

pub(crate) mod backfill;
pub(crate) mod carrier;
pub(crate) mod expiry;
pub(crate) mod greet;
mod lane;
pub(crate) mod notify;
pub(crate) mod peers;
pub(crate) mod relay;
mod uplink;
