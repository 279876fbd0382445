//! What a commit does to the world around the room: members, readers, inboxes, followers. Runs in the transaction that gives the
//! commit its place, so that nobody is ever in the group and not a reader, or the reverse.

use std::collections::BTreeSet;

use delivery::reader::{Joined, Reader};
use delivery::room::Admitted;
use federation::headers::MemberChange;
use protocol::api::{InboxItem, Welcome};
use protocol::room::CommitFacts;
use protocol::{Code, Cursor, DeviceId, Domain, Refusal, RoomId, Seq};

use super::note::Note;
use crate::app::App;
use crate::error::Outcome;
use crate::inbox;
use crate::store::logs::LogId;
use crate::store::peers::{self, PeerState};
use crate::store::{StoreError, Tx, Wake, members, readers};

/// A commit with its place.
pub(super) struct Placed<'a> {
    pub(super) log: LogId,
    pub(super) room: &'a RoomId,
    pub(super) facts: &'a CommitFacts,
    pub(super) admitted: &'a Admitted,
}

impl Placed<'_> {
    fn commit(&self) -> Seq {
        self.admitted.entry.seq
    }

    /// Devices that go, without those that only change their leaf.
    fn leaving(&self) -> impl Iterator<Item = &DeviceId> {
        let facts = self.facts;
        let gone = facts.removed.iter().chain(&facts.left).chain(&facts.expelled);
        gone.filter(move |d| !(facts.external && facts.added.contains(d)))
    }

    /// Carries everything out; the note tells followers of their part.
    pub(super) async fn apply(&self, tx: &mut Tx, app: &App) -> Outcome<Note> {
        let mut note = Note::default();
        self.leave(tx, app, &mut note).await?;
        self.join(tx, app, &mut note).await?;
        Ok(note)
    }

    async fn leave(&self, tx: &mut Tx, app: &App, note: &mut Note) -> Result<(), StoreError> {
        let mut domains = BTreeSet::new();
        for device in self.leaving() {
            members::remove(tx, self.log, device).await?;
            if *device.domain() == app.domain {
                readers::end(tx, self.log, &device.clone().into(), self.commit()).await?;
                tx.wake(Wake::Device(device.clone()));
            } else {
                note.effect(MemberChange::Removed, device.clone(), self.commit());
                domains.insert(device.domain().clone());
            }
        }
        for domain in domains {
            let stays = self.facts.members.iter().any(|d| *d.domain() == domain);
            tx.wake(Wake::Peer(domain.clone()));
            if !stays {
                readers::end(tx, self.log, &domain.into(), self.commit()).await?;
            }
        }
        Ok(())
    }

    async fn join(&self, tx: &mut Tx, app: &App, note: &mut Note) -> Outcome<()> {
        let how = if self.facts.external { Joined::External } else { Joined::Welcome };
        let from = Reader::joined(self.commit(), how).from;
        let mut domains = BTreeSet::new();
        for device in &self.facts.added {
            let again = members::find(tx, self.log, device).await?.is_some();
            if !again && *device.domain() == app.domain {
                super::room_for_one(tx, device).await?;
            }
            members::add(tx, self.log, device, self.commit()).await?;
            if *device.domain() != app.domain {
                domains.insert(device.domain().clone());
            }
            if again {
                // It replaced its own leaf and goes on reading where it is: what it is owed stays owed.
                continue;
            }
            if *device.domain() == app.domain {
                readers::add(tx, self.log, &device.clone().into(), from).await?;
                tx.wake(Wake::Device(device.clone()));
            } else {
                note.effect(MemberChange::Joined, device.clone(), from);
            }
        }
        for domain in domains {
            self.follow(tx, domain).await?;
        }
        Ok(())
    }

    /// Makes a node a follower, from the commit on that brings its first device.
    async fn follow(&self, tx: &mut Tx, domain: Domain) -> Outcome<()> {
        let peer = peers::find(tx, &domain).await?;
        if peer.is_none_or(|p| p.state == PeerState::Blocked) {
            let detail = format!("{domain} is not a peer of the room's node.");
            return Err(Refusal::because(Code::UnknownPeer, detail).into());
        }
        tx.wake(Wake::Peer(domain.clone()));
        let reader = domain.into();
        let stays = readers::stays(tx, self.log, &reader).await?;
        if !stays.iter().any(|s| s.until.is_none()) {
            readers::add(tx, self.log, &reader, self.commit()).await?;
        }
        Ok(())
    }

    /// Hands the Welcome to our own devices; followers hand it to theirs.
    pub(super) async fn welcome(
        &self,
        tx: &mut Tx,
        app: &App,
        welcome: &crypto::hub::Welcome,
        tree: &[u8],
    ) -> Outcome<()> {
        let entry = &self.admitted.entry;
        let incarnation = self.admitted.head_after.incarnation;
        for (_, device) in welcome.to.iter().filter(|(_, d)| *d.domain() == app.domain) {
            let item = InboxItem::Welcome(Welcome {
                room: self.room.clone(),
                cursor: Cursor { incarnation, seq: entry.seq },
                chain: entry.chain,
                at: entry.at,
                welcome: welcome.message.clone(),
                tree: tree.to_vec(),
            });
            inbox::put(tx, device, &item, app.now()).await?;
        }
        Ok(())
    }
}
