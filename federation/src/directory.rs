//! A node's list of endpoints, ours and a peer's. PROTOCOL §9.2.
