//! A peer as the node's allow-list has it.

use protocol::Domain;

/// Which addresses a peer may be dialled at. PROTOCOL §9.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Only addresses of the public Internet: for a host that somebody else named.
    Public,
    /// Any address: an operator of ours named this host, or the peer called us from a private network itself.
    Anywhere,
}

/// One row of the allow-list: whom we talk to, where, and which key they must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The peer's name.
    pub domain: Domain,
    /// Its pinned Ed25519 key.
    pub node_key: [u8; 32],
    /// Host name or address to dial; an IPv6 address with or without brackets.
    pub host: String,
    /// Port to dial.
    pub port: u16,
    /// Where `host` may lead.
    pub reach: Reach,
}
