//! A request's caller, proven: certificate domain = `From` = the domain of every sender in the body, under the pinned key.
//! PROTOCOL §9.1.
//!
//! ```text
//! Claim::of(certificate, headers, now)   who says so, with a certificate to match
//!   -> the node looks up the peer's row by `claim.domain()`
//! claim.confirm(row's key)               the key is the pinned one
//!   -> the node decodes the body
//! caller.vouch(body, senders)            nobody else's name is in it
//! ```
//!
//! All of it happens on every request: a connection proves nothing about the next request on it, and a peer that was removed or
//! re-pinned a second ago is out.

use http::HeaderMap;
use protocol::{Code, Domain, Refusal, Timestamp};

use crate::{PeerCertificate, headers};

/// A caller with a valid certificate and the same name in `From`. Its key is not yet known to be the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    domain: Domain,
    node_key: [u8; 32],
}

impl Claim {
    /// Reads who calls. `certificate` is what [`crate::tls::peer_certificate`] found when the connection was made.
    ///
    /// # Errors
    /// [`Code::PeerCertificate`] without a certificate or when it has expired since; [`Code::DomainMismatch`] when `From` is
    /// missing, malformed or of another domain.
    pub fn of(
        certificate: Option<&PeerCertificate>,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let because = |detail| Refusal::because(Code::PeerCertificate, detail);
        let certificate =
            certificate.ok_or_else(|| because("A peer must show its certificate."))?;
        if now > certificate.not_after {
            return Err(because(
                "The peer's certificate has expired since the connection was made.",
            ));
        }
        if headers::read_from(headers)? != certificate.domain {
            let detail = "The From header names another domain than the certificate.";
            return Err(Refusal::because(Code::DomainMismatch, detail));
        }
        Ok(Self { domain: certificate.domain.clone(), node_key: certificate.node_key })
    }

    /// The domain it claims: what to look the peer's row up by.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The key it proved to have.
    #[must_use]
    pub fn node_key(&self) -> &[u8; 32] {
        &self.node_key
    }

    /// Compares with the key pinned in the peer's row, read for this request.
    ///
    /// # Errors
    /// [`Code::UnknownPeer`] without a row; [`Code::PeerCertificate`] when the row has another key.
    pub fn confirm(self, pinned: Option<&[u8; 32]>) -> Result<Caller, Refusal> {
        let pinned = pinned.ok_or(Code::UnknownPeer)?;
        if *pinned == self.node_key {
            Ok(Caller { domain: self.domain })
        } else {
            let detail = "The peer's certificate is under another key than the pinned one. If the key was replaced, pair again.";
            Err(Refusal::because(Code::PeerCertificate, detail))
        }
    }
}

/// A paired peer that proved to be itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    domain: Domain,
}

impl Caller {
    /// Which peer.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Takes a body that speaks for nobody but the caller. `senders` are the domains of all the URIs in it that must be the
    /// caller's: `sendingUri`, `requestingUser`, the room's hub in a notify.
    ///
    /// # Errors
    /// [`Code::DomainMismatch`] when one of them is of another domain.
    pub fn vouch<'a, T>(
        self,
        body: T,
        senders: impl IntoIterator<Item = &'a Domain>,
    ) -> Result<Verified<T>, Refusal> {
        if senders.into_iter().all(|d| *d == self.domain) {
            Ok(Verified { caller: self, body })
        } else {
            let detail = "The body names a sender of another domain than the certificate.";
            Err(Refusal::because(Code::DomainMismatch, detail))
        }
    }
}

/// A body with a proven caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    caller: Caller,
    body: T,
}

impl<T> Verified<T> {
    /// Which peer sent it.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What it sent.
    #[must_use]
    pub fn body(&self) -> &T {
        &self.body
    }

    /// Both.
    #[must_use]
    pub fn into_parts(self) -> (Caller, T) {
        (self.caller, self.body)
    }
}
