//! `notify`: entries of a room's log, hub to follower (draft-ietf-mimi-protocol-06 section 5.5). PROTOCOL §9.7.

use super::bytes::{ApplicationBytes, CommitBytes, ProposalBytes, WelcomeBytes};
use super::submit::Frank;
use super::update::{self, RatchetTreeOption};
use super::{body, field};
use crate::log::EntryKind;
use crate::mls::{ContentType, Message};
use crate::tls::{Malformed, Reader, Write};
use crate::{Timestamp, limit};

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
        /// The Welcome; on the wire it is an `MLSMessage`.
        welcome: WelcomeBytes,
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
        batch.iter().for_each(|message| message.write(&mut out));
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

    /// The entry's kind and body: its MLS messages in a row. What goes with it for one follower alone (franks, trees)
    /// is not part of it, so that every node computes the same digest. PROTOCOL §4.3.
    #[must_use]
    pub fn entry(&self) -> (EntryKind, Vec<u8>) {
        match &self.content {
            Fanout::Application { message, .. } => {
                (EntryKind::Application, message.as_slice().to_vec())
            }
            Fanout::Welcome { welcome, .. } => (EntryKind::Welcome, welcome.to_message()),
            Fanout::Proposal { first, more } => {
                (EntryKind::Proposal, in_a_row(first.as_slice(), more))
            }
            Fanout::Commit { commit, external_proposals } => {
                (EntryKind::Commit, in_a_row(commit.as_slice(), external_proposals))
            }
        }
    }

    /// The message for an entry, with the tree to send along if it is a Welcome.
    ///
    /// # Errors
    /// When the body is not what [`Self::entry`] gives for this kind.
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
                Fanout::Welcome { welcome: WelcomeBytes::from_message(body)?, tree }
            }
            EntryKind::Proposal => {
                let mut r = Reader::new(body);
                Fanout::Proposal { first: ProposalBytes::read(&mut r)?, more: rest(&mut r)? }
            }
            EntryKind::Commit => {
                let mut r = Reader::new(body);
                let commit = CommitBytes::read(&mut r)?;
                Fanout::Commit { commit, external_proposals: rest(&mut r)? }
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
                out.put_raw(&welcome.to_message());
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
            Message::Welcome(_) => {
                r.take(crate::mls::WELCOME_HEADER.len())?;
                let welcome = WelcomeBytes::read(r)?;
                Fanout::Welcome { welcome, tree: RatchetTreeOption::read(r)? }
            }
            Message::GroupInfo(_) | Message::KeyPackage(_) => {
                return Err(r.fail("an MLS message that is never sent to followers"));
            }
        };
        Ok(Self { at, content })
    }
}

fn in_a_row(first: &[u8], more: &[ProposalBytes]) -> Vec<u8> {
    let mut out = first.to_vec();
    more.iter().for_each(|p| p.write(&mut out));
    out
}

fn rest(r: &mut Reader<'_>) -> Result<Vec<ProposalBytes>, Malformed> {
    let mut out = Vec::new();
    while !r.is_empty() {
        if out.len() == limit::PROPOSALS_PER_BUNDLE {
            return Err(Malformed::over_limit("a list over its limit", r.at()));
        }
        out.push(ProposalBytes::read(r)?);
    }
    Ok(out)
}
