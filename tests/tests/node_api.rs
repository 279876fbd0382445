//! The node over real TLS sockets, in this process: what devices and peers may and may not do. No SDK in between, so that a request
//! can be as wrong as an attacker's.

#[cfg(test)]
#[path = "node_api/accounts.rs"]
mod accounts;
#[cfg(test)]
#[path = "node_api/federation.rs"]
mod federation;
#[cfg(test)]
#[path = "node_api/requests.rs"]
mod requests;
#[cfg(test)]
#[path = "node_api/rooms.rs"]
mod rooms;
#[cfg(test)]
#[path = "node_api/streams.rs"]
mod streams;
#[cfg(test)]
#[path = "node_api/support.rs"]
mod support;
