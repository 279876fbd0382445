//! The closed list of reasons to say no. A refusal is the other side's doing; it changes nothing and loses nothing.

use std::fmt;

use crate::Epoch;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $lasting:ident, $sentence:literal;)*) => {
        /// Why something was refused. PROTOCOL §3 lists the codes; they are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The code with this text.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|c| c.as_str() == text)
            }

            /// What happened, what it means and what to do, for a person.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }

            /// Whether the same request may succeed later.
            #[must_use]
            pub const fn lasting(self) -> Lasting {
                match self { $(Self::$name => Lasting::$lasting,)* }
            }
        }
    };
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// The same request is refused again.
    Permanent,
    /// The same request may succeed later.
    Transient,
}

codes! {
    /// The bytes are not what this endpoint takes.
    Malformed = "malformed", Permanent, "The request could not be read. It was not carried out; update the program that sent it.";
    /// A body, list or field is over its limit.
    TooLarge = "too-large", Permanent, "The request is larger than allowed. Nothing was stored; send something smaller.";
    /// No such endpoint or method.
    UnknownEndpoint = "unknown-endpoint", Permanent, "There is nothing at this address. The program may be newer than the node; update the node.";
    /// No token, or one that is not valid (any more).
    Unauthenticated = "unauthenticated", Permanent, "This device is not signed in, or its access was revoked. Link it again from another device.";
    /// Wrong name or password; which one is not said.
    WrongPassword = "wrong-password", Permanent, "The name or the password is wrong. Try again.";
    /// Not there, or not yours: the answer is the same.
    NotFound = "not-found", Permanent, "There is no such thing, or it is not yours to see.";
    /// Your role in the room does not allow this.
    NotAllowed = "not-allowed", Permanent, "Your role in this room does not allow that. Ask an admin of the room.";
    /// The invitation is used, expired or was never made.
    BadInvite = "bad-invite", Permanent, "This invitation is used up, expired or wrong. Ask for a new one.";
    /// Somebody has this name.
    NameTaken = "name-taken", Permanent, "This name is taken. Choose another one.";
    /// A name, password or text does not follow the rules.
    Invalid = "invalid", Permanent, "A value does not follow the rules; the detail says which.";
    /// A device certificate is missing, not signed by the user's identity, or for another device.
    BadCertificate = "bad-certificate", Permanent, "This device is not confirmed by its owner's identity. Link it again from one of your devices.";
    /// The same SubmitId came before with another body.
    Conflict = "conflict", Permanent, "This submission was sent before with other content. Nothing was changed.";
    /// The message was encrypted for an epoch that is over.
    StaleEpoch = "stale-epoch", Transient, "The room has moved on since this was encrypted. The client encrypts it again.";
    /// Another commit came first, or the commit is for an epoch that does not exist yet.
    WrongEpoch = "wrong-epoch", Transient, "Another change to the room came first. The client builds this one again.";
    /// A commit or proposal does not verify or breaks a rule of MLS.
    InvalidCommit = "invalid-commit", Permanent, "This change to the room is not valid. Nothing was changed; update the program that made it.";
    /// The commit leaves out a pending proposal.
    MissingProposal = "missing-proposal", Transient, "A pending change must be part of this one. The client builds it again.";
    /// A KeyPackage is expired, too short-lived or not valid.
    BadKeyPackage = "bad-key-package", Permanent, "A device's key package is not usable. Fetch a fresh one.";
    /// The user has no device with a usable KeyPackage.
    NoKeyPackages = "no-key-packages", Transient, "That person has no device that can be added now. Try again when one of their devices has been online.";
    /// Your quota is used up.
    RateLimited = "rate-limited", Transient, "Too many requests. Wait as long as the answer says and try again.";
    /// A queue is at its bound.
    QueueFull = "queue-full", Transient, "Too much is waiting already. Nothing was stored; try again later.";
    /// The node's disk is nearly full.
    DiskFull = "disk-full", Transient, "The node is nearly out of disk space and takes nothing new. What it holds is still delivered; its operator must free space.";
    /// The node cannot do this now.
    Unavailable = "unavailable", Transient, "The node cannot do this right now. Try again shortly.";
    /// The remote node cannot be reached.
    PeerUnreachable = "peer-unreachable", Transient, "The other organisation's node cannot be reached. Try again later.";
    /// The peer is not on the allow-list.
    UnknownPeer = "unknown-peer", Permanent, "The two organisations' nodes are not paired. Their operators can pair them with one line.";
    /// No client certificate, or one that does not verify.
    PeerCertificate = "peer-certificate", Permanent, "The peer's certificate is missing or not valid for its domain and pinned key.";
    /// `From`, the certificate and the URIs in the body do not name the same domain.
    DomainMismatch = "domain-mismatch", Permanent, "The certificate, the From header and the body name different domains.";
    /// Entries are missing before this one.
    SeqGap = "seq-gap", Transient, "Entries before this one are missing; send from the expected number on.";
    /// The chain over the log does not match: the hub showed different histories.
    ChainMismatch = "chain-mismatch", Permanent, "The hub's history of this room does not match what was shown before.";
    /// The cursor belongs to another life of the database.
    WrongIncarnation = "wrong-incarnation", Permanent, "The node's database was restored or replaced since. The client starts over from the node's present state.";
    /// The device speaks a version the node does not.
    UnknownVersion = "unknown-version", Permanent, "The node does not speak this version of the protocol. Update the older side.";
    /// Ours: a bug or a broken disk. The log has the cause.
    Internal = "internal", Transient, "Something went wrong inside the node. Nothing was stored; its operator finds the cause in the log.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One refusal: a code, what exactly, and when to come back. PROTOCOL §3.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What exactly, for a person; never holds somebody else's data. At most 1 KiB.
    pub detail: String,
    /// Milliseconds to wait before the next try.
    pub retry_after_ms: Option<u32>,
    /// The room's current epoch, with [`Code::StaleEpoch`] and [`Code::WrongEpoch`].
    pub epoch: Option<Epoch>,
}

impl Refusal {
    /// A refusal with the code's own sentence.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self { code, detail: code.sentence().to_owned(), retry_after_ms: None, epoch: None }
    }

    /// A refusal that says what exactly.
    #[must_use]
    pub fn because(code: Code, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > 1024 {
            let cut = (0..=1024).rev().find(|i| detail.is_char_boundary(*i)).unwrap_or(0);
            detail.truncate(cut);
        }
        Self { detail, ..Self::new(code) }
    }

    /// The same, with a time to wait.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u32) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// The same, with the current epoch.
    #[must_use]
    pub fn at_epoch(mut self, epoch: Epoch) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// The JSON body: `{"code", "message", "retry_after_ms"?, "epoch"?}`.
    #[must_use]
    pub fn to_body(&self) -> Body {
        Body {
            code: self.code.as_str().to_owned(),
            message: self.detail.clone(),
            retry_after_ms: self.retry_after_ms,
            epoch: self.epoch.map(Epoch::get),
        }
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

/// A refusal on the wire, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Body {
    /// See [`Code::as_str`].
    pub code: String,
    /// See [`Refusal::detail`].
    pub message: String,
    /// See [`Refusal::retry_after_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// See [`Refusal::epoch`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

impl Body {
    /// The refusal this says; a code from a newer version counts as [`Code::Unavailable`].
    #[must_use]
    pub fn into_refusal(self) -> Refusal {
        Refusal {
            code: Code::parse(&self.code).unwrap_or(Code::Unavailable),
            epoch: self.epoch.map(Epoch::new),
            retry_after_ms: self.retry_after_ms,
            ..Refusal::because(Code::Unavailable, self.message)
        }
    }
}

impl<C> minicbor::Encode<C> for Refusal {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(4)?.str(self.code.as_str())?.str(&self.detail)?;
        e.encode(self.retry_after_ms)?.encode(self.epoch)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Refusal {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let fields = d.array()?.filter(|n| *n >= 4);
        let further =
            fields.ok_or(minicbor::decode::Error::message("a refusal has four fields"))?;
        let code = Code::parse(d.str()?).unwrap_or(Code::Unavailable);
        let refusal = Self::because(code, d.str()?);
        let refusal = Self { retry_after_ms: d.decode()?, epoch: d.decode()?, ..refusal };
        // PROTOCOL §6.1: a reader ignores further fields. The end of the input ends this, whatever the length says.
        for _ in 4..further {
            d.skip()?;
        }
        Ok(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_round_trip() {
        for c in Code::ALL {
            assert_eq!(Code::parse(c.as_str()), Some(*c));
            assert!(c.sentence().ends_with('.'), "{c}");
        }
    }

    #[test]
    fn a_refusal_survives_both_encodings() {
        let r = Refusal::because(Code::StaleEpoch, "x").retry_after_ms(7).at_epoch(Epoch::new(3));
        assert_eq!(r.to_body().into_refusal(), r);
        let bytes = minicbor::to_vec(&r).unwrap();
        assert_eq!(minicbor::decode::<Refusal>(&bytes).unwrap(), r);
    }

    #[test]
    fn fields_of_a_newer_version_are_skipped() {
        let r = Refusal::because(Code::StaleEpoch, "x").at_epoch(Epoch::new(3));
        let bytes = minicbor::to_vec(&r).unwrap();
        // One and three more fields, one of them nested, and then the next value.
        for (fields, more) in [(5, &[7][..]), (7, &[0x82, 0x81, 1, 2, 0x61, b'a', 0xf6])] {
            let newer = [&[0x80 | fields], &bytes[1..], more, &[9]].concat();
            let mut d = minicbor::Decoder::new(&newer);
            assert_eq!(d.decode::<Refusal>().unwrap(), r);
            assert_eq!(d.position(), newer.len() - 1);
        }
        let three = [&[0x83], &bytes[1..]].concat();
        assert!(minicbor::decode::<Refusal>(&three).is_err());
        // A length that nothing follows ends at once.
        let endless =
            [&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &bytes[1..]].concat();
        assert!(minicbor::decode::<Refusal>(&endless).is_err());
    }
}
