//! Becoming peers with one line. PROTOCOL §9.3.
//!
//! ```text
//! A  operator: a `peer` line with A's key and a secret; A keeps SHA-256(secret) and the end of its validity
//! B  operator pastes it; B pins A's key and calls `POST /v1/pair` over TLS pinned to it, with its own certificates:
//!      PairRequest { domain, host, port, secret }
//! A  decides (`accept`), pins the key of B's certificate, answers PairAnswer { proof }
//! B  checks the proof
//! ```
//!
//! The secret travels only inside TLS to the key that the line names, and A keeps only its hash, so neither a stolen database nor
//! a network in between yields a line that works. B's proof is the secret itself; A's is a hash over it and everything agreed on.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use protocol::invite::Line;
use protocol::log::Digest;
use protocol::{Code, Domain, Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use crate::verify::Claim;
use crate::{Peer, Reach};

/// The longest body of either message.
pub const BODY_BYTES: usize = 4096;

/// A host name or address in text.
const HOST_BYTES: usize = 255;

/// What B asks. JSON; the secret in base64url.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairRequest {
    /// B's domain; its certificate and `From` say the same.
    pub domain: Domain,
    /// Where B is reached: host name or address.
    pub host: String,
    /// And the port.
    pub port: u16,
    /// The line's secret.
    secret: String,
}

impl std::fmt::Debug for PairRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PairRequest({} at {}:{}, …)", self.domain, self.host, self.port)
    }
}

/// What A answers. JSON; the proof in base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairAnswer {
    /// A's domain.
    pub domain: Domain,
    /// A hash over the secret and both sides' names and keys.
    proof: String,
}

/// A line that A made, as A remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Until when it works.
    pub expires: Timestamp,
    /// Which peer used it.
    pub used_by: Option<Domain>,
}

/// What A does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Paired {
    /// Add the peer and mark the line as used by it, in one transaction; then answer.
    New(Peer),
    /// The same peer asks again, because the answer was lost: just answer.
    Again,
}

impl PairRequest {
    /// What B, named `domain` and reached at `host:port`, sends to the node of `line`.
    ///
    /// # Errors
    /// [`Code::Invalid`] when `host` cannot be dialled.
    pub fn new(line: &Line, domain: &Domain, host: &str, port: u16) -> Result<Self, Refusal> {
        let secret = B64.encode(line.secret);
        let request = Self { domain: domain.clone(), host: host.to_owned(), port, secret };
        request.check_address()?;
        Ok(request)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`Code::TooLarge`] over [`BODY_BYTES`], [`Code::Malformed`] when it is not such a request, [`Code::Invalid`] when its host
    /// or port cannot be dialled.
    pub fn decode(body: &[u8]) -> Result<Self, Refusal> {
        let request: Self = decode(body)?;
        request.secret()?;
        request.check_address()?;
        Ok(request)
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and a number are JSON")
    }

    /// What A looks its offer up by: the hash of the secret.
    ///
    /// # Errors
    /// [`Code::Malformed`] when the secret is not 32 bytes in base64url.
    pub fn offer_key(&self) -> Result<Digest, Refusal> {
        self.secret().map(|secret| Digest::of_bytes(&secret))
    }

    fn secret(&self) -> Result<[u8; 32], Refusal> {
        let bytes = if self.secret.len() <= 64 { B64.decode(&self.secret).ok() } else { None };
        bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| {
            Refusal::because(Code::Malformed, "The secret is not 32 bytes in base64url.")
        })
    }

    fn check_address(&self) -> Result<(), Refusal> {
        let host = &self.host;
        let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
        if host.is_empty() || host.len() > HOST_BYTES || !plain || self.port == 0 {
            let detail = "The host must be a name or an address, and the port a number from 1 on.";
            return Err(Refusal::because(Code::Invalid, detail));
        }
        Ok(())
    }
}

impl PairAnswer {
    /// What A, named `us` with the key `our_key`, answers to `claim`.
    ///
    /// # Errors
    /// [`Code::Malformed`] when the request's secret cannot be read.
    pub fn new(
        us: &Domain,
        our_key: &[u8; 32],
        claim: &Claim,
        request: &PairRequest,
    ) -> Result<Self, Refusal> {
        let proof =
            proof(&request.secret()?, (us, our_key), (claim.domain(), claim.node_key()), request);
        Ok(Self { domain: us.clone(), proof })
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`Code::TooLarge`] over [`BODY_BYTES`], [`Code::Malformed`] when it is not such an answer.
    pub fn decode(body: &[u8]) -> Result<Self, Refusal> {
        decode(body)
    }

    /// The body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings are JSON")
    }

    /// Whether this is the answer of the node of `line` to `request` from us, who have the key `our_key`.
    ///
    /// # Errors
    /// [`Code::BadInvite`] when it is not.
    pub fn check(
        &self,
        line: &Line,
        our_key: &[u8; 32],
        request: &PairRequest,
    ) -> Result<(), Refusal> {
        let a = (&line.domain, &line.node_key);
        let expected = proof(&line.secret, a, (&request.domain, our_key), request);
        if self.domain == line.domain && self.proof == expected {
            Ok(())
        } else {
            Err(Refusal::because(
                Code::BadInvite,
                "The other node's answer does not prove that it made this line.",
            ))
        }
    }
}

/// Decides about a request that proved its certificate and `From` (`claim`). `offer` is what was found under
/// [`PairRequest::offer_key`]; `pinned` is the key under which its domain is a peer already.
///
/// The new peer's [`Reach`] is [`Reach::Public`]; raise it with [`Reach::seen_from`] the address that the request came from.
///
/// # Errors
/// [`Code::DomainMismatch`] when the request names another domain than the certificate, or ours; [`Code::BadInvite`] when there
/// is no such offer, or it has expired or was used by somebody else; [`Code::Conflict`] when the domain is a peer under another key.
pub fn accept(
    us: &Domain,
    claim: &Claim,
    request: &PairRequest,
    offer: Option<&Offer>,
    pinned: Option<&[u8; 32]>,
    now: Timestamp,
) -> Result<Paired, Refusal> {
    if request.domain != *claim.domain() || request.domain == *us {
        let detail = "The request must name the domain of its certificate, which is not ours.";
        return Err(Refusal::because(Code::DomainMismatch, detail));
    }
    let offer = offer.ok_or(Code::BadInvite)?;
    if let Some(domain) = &offer.used_by {
        let same = domain == claim.domain() && pinned == Some(claim.node_key());
        return if same { Ok(Paired::Again) } else { Err(Code::BadInvite.into()) };
    }
    if now > offer.expires {
        return Err(Code::BadInvite.into());
    }
    if pinned.is_some_and(|key| key != claim.node_key()) {
        let detail = "This domain is a peer already, under another key. Remove that peer first, then pair again.";
        return Err(Refusal::because(Code::Conflict, detail));
    }
    Ok(Paired::New(Peer {
        domain: request.domain.clone(),
        node_key: *claim.node_key(),
        host: request.host.clone(),
        port: request.port,
        reach: Reach::Public,
    }))
}

/// The peer that B pins when it has pasted `line`: its operator named the host, so it may be anywhere.
#[must_use]
pub fn peer_of_line(line: &Line) -> Peer {
    Peer {
        domain: line.domain.clone(),
        node_key: line.node_key,
        host: line.host.clone(),
        port: line.port,
        reach: Reach::Anywhere,
    }
}

fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    if body.len() > BODY_BYTES {
        return Err(Code::TooLarge.into());
    }
    serde_json::from_slice(body)
        .map_err(|e| Refusal::because(Code::Malformed, format!("Not a pairing message: {e}.")))
}

/// `SHA-256("waxwing pair 1" ‖ a ‖ b ‖ address ‖ secret)`, each part after its length; the secret comes last, so that nothing can
/// be appended to what is known.
fn proof(
    secret: &[u8; 32],
    a: (&Domain, &[u8; 32]),
    b: (&Domain, &[u8; 32]),
    request: &PairRequest,
) -> String {
    let mut bytes = b"waxwing pair 1".to_vec();
    let port = request.port.to_be_bytes();
    let parts: [&[u8]; 7] = [
        a.0.as_str().as_bytes(),
        a.1,
        b.0.as_str().as_bytes(),
        b.1,
        request.host.as_bytes(),
        &port,
        secret,
    ];
    for part in parts {
        bytes.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend(part);
    }
    B64.encode(Digest::of_bytes(&bytes).as_bytes())
}
