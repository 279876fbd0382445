//! Node to node: who a peer is, how to reach it, and what is asked of it.
//!
//! Certificates are issued under a node's own key and checked against the pinned one ([`tls`], [`verify`]); a peer is dialled only
//! where its row says ([`dial`]); what was sent is either done, refused for good or to be tried again ([`Outcome`]), and that is
//! decided here, where the failure is seen. Nothing here stores anything: the node keeps peers, lanes and attempts.
//!
//! | module | holds |
//! |---|---|
//! | [`tls`] | the node's certificates, TLS settings of both ends |
//! | [`verify`] | a request's caller, proven: certificate, pin, `From`, the body's senders |
//! | [`headers`] | `From` and the `Fed-*` headers |
//! | [`endpoint`] | the paths a node serves to peers |
//! | [`directory`] | a node's list of endpoints, ours and a peer's |
//! | [`pairing`] | becoming peers with one line |
//! | [`dial`] | which addresses may be dialled |
//! | [`client`] | one connection per peer and the requests over it |

pub mod client;
pub mod dial;
pub mod directory;
pub mod endpoint;
pub mod headers;
mod outcome;
pub mod pairing;
mod peer;
pub mod tls;
pub mod verify;

pub use client::Client;
pub use crypto::pin::{PeerCertificate, PinError, Usage, verify_chain};
pub use outcome::{Outcome, Stage, Why};
pub use peer::{Peer, Reach};
