//! `notify`: entries of a room's log, hub to follower (draft-ietf-mimi-protocol-06 section 5.5). PROTOCOL §9.7.

use super::bytes::{ApplicationBytes, CommitBytes, ProposalBytes, WelcomeMessageBytes};
use super::submit::Frank;
use super::update::{self, RatchetTreeOption};
use super::{body, field};
use crate::log::EntryKind;
use crate::mls::{ContentType, Message};
use crate::tls::{Malformed, Reader, Write};
use crate::{Seq, Timestamp, limit};

/// One entry of a room's log on its way to a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanoutMessage {
    /// When the hub accepted it.
    pub at: Timestamp,
    /// What it is.
    pub content: Fanout,
}

/// What a [`FanoutMessage`] carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fanout {
    /// An application message.
    Application {
        /// The message.
        message: ApplicationBytes,
        /// The hub's mark, if it makes any.
        frank: Option<Frank>,
    },
    /// A Welcome for devices of the follower.
    Welcome {
        /// The Welcome.
        welcome: WelcomeMessageBytes,
        /// The tree they join with.
        tree: RatchetTreeOption,
    },
    /// Proposals, as the bundle had them.
    Proposal {
        /// The first.
        first: ProposalBytes,
        /// More.
        more: Vec<ProposalBytes>,
    },
    /// A commit.
    Commit {
        /// The commit.
        commit: CommitBytes,
        /// The hub's own proposals for the epoch after it.
        external_proposals: Vec<ProposalBytes>,
    },
}

body!(FanoutMessage, limit::PEER_BODY_BYTES);

impl FanoutMessage {
    /// Several in a row: a body of `notify`.
    #[must_use]
    pub fn encode_batch(batch: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in batch {
            message.write(&mut out);
        }
        out
    }

    /// Reads a body of `notify`: one to [`limit::BATCH_ENTRIES`] messages.
    ///
    /// # Errors
    /// When one of them is not exact or passes a limit, when there are too many, or none.
    pub fn decode_batch(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        if bytes.len() > limit::PEER_BODY_BYTES {
            return Err(Malformed::over_limit("a body over its limit", limit::PEER_BODY_BYTES));
        }
        let mut r = Reader::new(bytes);
        let mut out = Vec::new();
        loop {
            if out.len() == limit::BATCH_ENTRIES {
                return Err(Malformed::over_limit("too many messages in one body", r.at()));
            }
            out.push(Self::read(&mut r)?);
            if r.is_empty() {
                return Ok(out);
            }
        }
    }

    /// The entries it stands for, in order: kind and body, one MLS message each (PROTOCOL §4.1). What goes along for one
    /// follower alone (marks, trees) is not part of them, so that every node computes the same digests.
    #[must_use]
    pub fn entries(&self) -> Vec<(EntryKind, &[u8])> {
        let (kind, first, more): (_, _, &[ProposalBytes]) = match &self.content {
            Fanout::Application { message, .. } => {
                (EntryKind::Application, message.as_slice(), &[])
            }
            Fanout::Welcome { welcome, .. } => (EntryKind::Welcome, welcome.as_slice(), &[]),
            Fanout::Proposal { first, more } => (EntryKind::Proposal, first.as_slice(), more),
            Fanout::Commit { commit, external_proposals } => {
                (EntryKind::Commit, commit.as_slice(), external_proposals)
            }
        };
        let more = more.iter().map(|p| (EntryKind::Proposal, p.as_slice()));
        std::iter::once((kind, first)).chain(more).collect()
    }

    /// The message for one entry, with the tree to send along if it is a Welcome.
    ///
    /// # Errors
    /// When the body is not of this kind, or the kind is never in a room's log.
    pub fn from_entry(
        kind: EntryKind,
        at: Timestamp,
        body: &[u8],
        tree: RatchetTreeOption,
    ) -> Result<Self, Malformed> {
        let content = match kind {
            EntryKind::Application => {
                Fanout::Application { message: ApplicationBytes::parse(body)?, frank: None }
            }
            EntryKind::Welcome => {
                Fanout::Welcome { welcome: WelcomeMessageBytes::parse(body)?, tree }
            }
            EntryKind::Proposal => {
                Fanout::Proposal { first: ProposalBytes::parse(body)?, more: Vec::new() }
            }
            EntryKind::Commit => {
                Fanout::Commit { commit: CommitBytes::parse(body)?, external_proposals: Vec::new() }
            }
            EntryKind::Item => {
                return Err(Malformed::new("an inbox item is not in a room's log", 0));
            }
        };
        Ok(Self { at, content })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.at.ms());
        match &self.content {
            Fanout::Application { message, frank } => {
                message.write(out);
                out.put_optional(frank.as_ref(), |out, frank| frank.write(out));
            }
            Fanout::Welcome { welcome, tree } => {
                welcome.write(out);
                tree.write(out);
            }
            Fanout::Proposal { first, more } => {
                first.write(out);
                out.put_list(more, |out, p| p.write(out));
            }
            Fanout::Commit { commit, external_proposals } => {
                commit.write(out);
                out.put_list(external_proposals, |out, p| p.write(out));
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let at = Timestamp::from_ms(r.u64()?);
        let (message, _) = Message::read(r.rest()).map_err(|m| m.moved(r.at()))?;
        let content = match message {
            Message::Frame(frame) => match frame.content_type {
                ContentType::Application => Fanout::Application {
                    message: ApplicationBytes::read(r)?,
                    frank: field::optional(r, Frank::read)?,
                },
                ContentType::Proposal => {
                    Fanout::Proposal { first: ProposalBytes::read(r)?, more: update::proposals(r)? }
                }
                ContentType::Commit => Fanout::Commit {
                    commit: CommitBytes::read(r)?,
                    external_proposals: update::proposals(r)?,
                },
            },
            Message::Welcome(_) => Fanout::Welcome {
                welcome: WelcomeMessageBytes::read(r)?,
                tree: RatchetTreeOption::read(r)?,
            },
            Message::GroupInfo(_) | Message::KeyPackage(_) => {
                return Err(r.fail("an MLS message that is never sent to followers"));
            }
        };
        Ok(Self { at, content })
    }
}

/// Asks the hub for entries that the follower missed; the answer is like a body of `notify`. PROTOCOL §9.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackfillRequest {
    /// Entries after this one.
    pub after: Seq,
    /// At most so many; capped by the hub.
    pub max: u32,
}

body!(BackfillRequest, 12);

impl BackfillRequest {
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.after.get());
        out.put_raw(&self.max.to_be_bytes());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { after: Seq::new(r.u64()?), max: r.u32()? })
    }
}
