//! What a device submits next, and the state of each submission that a person sees. PROTOCOL §5.1.
//!
//! | state | fact | next state |
//! |---|---|---|
//! | queued | its turn | `Encrypt`, then `Submit` |
//! | queued, encrypted | handed to the network | sending |
//! | sending | accepted | accepted |
//! | sending | stored by our node for a foreign hub | stored |
//! | sending | reply lost, or "later" | queued, encrypted: the same bytes again |
//! | sending, stored | stale epoch, another commit first | queued, to be encrypted again under the same SubmitId |
//! | sending, stored | refused for good | failed |
//! | stored | our node was restored from a backup | queued, encrypted |
//! | any but read | the room's log shows it | accepted |
//! | accepted | every recipient's device has it | delivered |
//! | accepted, delivered | every recipient has read it | read |
//! | failed | a person retries it | queued |
//!
//! Order within a room is kept: one submission of a room is on its way without being accepted or stored; a failed one does not hold up the
//! others. There is no give-up count. Encrypting happens when the turn comes, not before, so that what waited offline is encrypted for the epoch of the day.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::api::{Accepted, SubmitReply};
use protocol::refusal::Lasting;
use protocol::{Code, Refusal, RoomId, SubmitId, Timestamp};

use crate::backoff::{self, Backoff};
use crate::commit;

mod item;

pub use item::{Item, State};

/// Submissions on their way at once, over all rooms.
pub const IN_FLIGHT: usize = 16;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Encrypt this one and save ciphertext and MLS state, then report with [`Outbox::encrypted`].
    Encrypt(SubmitId),
    /// Report with [`Outbox::sending`], save, then send the saved bytes.
    Submit(SubmitId),
    /// Nothing before this time.
    WaitUntil(Timestamp),
    /// Nothing until something happens.
    Idle,
}

/// The machine. Every fact returns the row to save, if it changed one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    entries: BTreeMap<SubmitId, Entry>,
    rooms: BTreeMap<RoomId, Lineup>,
    online: bool,
}

/// An item, and what need not outlive this process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    item: Item,
    /// Encryptions that an epoch overtook.
    rebuilds: u32,
    /// The node asked for time until then.
    not_before: Timestamp,
    /// The hub's refusal, when it came before our node's answer to the same attempt.
    early: Option<Refusal>,
}

/// What one room has to submit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lineup {
    queued: BTreeSet<(u64, SubmitId)>,
    sending: Option<SubmitId>,
}

impl Outbox {
    /// The machine as its rows have it, offline. What was being sent has an unknown outcome and is sent again as it is.
    #[must_use]
    pub fn new(items: impl IntoIterator<Item = Item>) -> Self {
        let mut outbox = Self::default();
        for item in items {
            outbox.insert(item);
        }
        outbox
    }

    /// A submission, as saved.
    #[must_use]
    pub fn get(&self, id: &SubmitId) -> Option<&Item> {
        self.entries.get(id).map(|e| &e.item)
    }

    /// The person did something: queue it. `None` when there is one of that name already.
    pub fn push(&mut self, id: SubmitId, room: RoomId, order: u64) -> Option<&Item> {
        if self.entries.contains_key(&id) {
            return None;
        }
        let (state, next_at) = (State::Queued, Timestamp::default());
        self.insert(Item { id, room, order, state, encrypted: false, attempts: 0, next_at })
    }

    /// What to do: of the rooms that have nothing on its way, the one whose turn came first.
    pub fn next(&self, now: Timestamp) -> Step {
        let on_its_way = self.rooms.values().filter(|r| r.sending.is_some()).count();
        if !self.online || on_its_way >= IN_FLIGHT {
            return Step::Idle;
        }
        let idle = self.rooms.values().filter(|r| r.sending.is_none());
        let first = |room: &Lineup| room.queued.first().and_then(|(_, id)| self.get(id));
        let turns: Vec<&Item> = idle.filter_map(first).collect();
        if let Some(item) = turns.iter().filter(|i| due(i.next_at, now)).min_by_key(|i| i.order) {
            return if item.encrypted { Step::Submit(item.id) } else { Step::Encrypt(item.id) };
        }
        turns.iter().map(|i| i.next_at).min().map_or(Step::Idle, Step::WaitUntil)
    }

    /// Its ciphertext is saved.
    pub fn encrypted(&mut self, id: &SubmitId) -> Option<&Item> {
        let item = &mut self.entries.get_mut(id)?.item;
        if item.state != State::Queued || item.encrypted {
            return None;
        }
        item.encrypted = true;
        Some(item)
    }

    /// It cannot be encrypted now (its room is catching up or being rejoined): not before `until`.
    pub fn postpone(&mut self, id: &SubmitId, until: Timestamp) -> Option<&Item> {
        let item = &mut self.entries.get_mut(id)?.item;
        if item.state != State::Queued {
            return None;
        }
        item.next_at = until;
        Some(item)
    }

    /// Its bytes are about to leave.
    pub fn sending(&mut self, id: &SubmitId) -> Option<&Item> {
        let item = &mut self.entries.get_mut(id)?.item;
        let free = self.rooms.get(&item.room).is_none_or(|room| room.sending.is_none());
        if item.state != State::Queued || !item.encrypted || !free {
            return None;
        }
        item.attempts = item.attempts.saturating_add(1);
        self.set(id, State::Sending)
    }

    /// The node answered the attempt under way.
    pub fn replied(
        &mut self,
        id: &SubmitId,
        reply: SubmitReply,
        now: Timestamp,
        jitter: u32,
    ) -> Option<&Item> {
        match reply {
            SubmitReply::Accepted(accepted) => self.shown(id, accepted),
            SubmitReply::Refused(refusal) => {
                self.under_way(id)?.early = None;
                self.refused(id, refusal, now, jitter)
            }
            SubmitReply::Stored => {
                let entry = self.under_way(id)?;
                entry.item.attempts = 0;
                match entry.early.take() {
                    Some(refusal) => self.refused(id, refusal, now, jitter),
                    None => self.set(id, State::Stored),
                }
            }
        }
    }

    /// No answer came to the attempt under way: it may have been carried out or not.
    pub fn lost(&mut self, id: &SubmitId, now: Timestamp, jitter: u32) -> Option<&Item> {
        let entry = self.under_way(id)?;
        match entry.early.take() {
            Some(refusal) => self.refused(id, refusal, now, jitter),
            None => self.later(id, None, now, jitter),
        }
    }

    /// The hub refused what our node had stored (an `Outcome` in the inbox). When that overtakes the node's own answer, it takes effect with the answer.
    pub fn outcome(
        &mut self,
        id: &SubmitId,
        refusal: Refusal,
        now: Timestamp,
        jitter: u32,
    ) -> Option<&Item> {
        let entry = self.entries.get_mut(id)?;
        match entry.item.state {
            State::Stored => self.refused(id, refusal, now, jitter),
            // The answer that it was stored got lost.
            State::Queued if entry.item.encrypted => self.refused(id, refusal, now, jitter),
            State::Sending => {
                entry.early = Some(refusal);
                None
            }
            State::Queued
            | State::Accepted(_)
            | State::Delivered(_)
            | State::Read(_)
            | State::Failed { .. } => None,
        }
    }

    /// The room's log shows it, whatever we thought.
    pub fn shown(&mut self, id: &SubmitId, accepted: Accepted) -> Option<&Item> {
        let entry = self.entries.get_mut(id)?;
        match entry.item.state {
            State::Accepted(_) | State::Delivered(_) | State::Read(_) => None,
            State::Queued | State::Sending | State::Stored | State::Failed { .. } => {
                entry.early = None;
                entry.item.attempts = 0;
                self.set(id, State::Accepted(accepted))
            }
        }
    }

    /// A device of every recipient has it.
    pub fn delivered(&mut self, id: &SubmitId) -> Option<&Item> {
        match self.get(id)?.state {
            State::Accepted(accepted) => self.set(id, State::Delivered(accepted)),
            _ => None,
        }
    }

    /// Every recipient who says so has read it.
    pub fn read(&mut self, id: &SubmitId) -> Option<&Item> {
        match self.get(id)?.state {
            State::Accepted(accepted) | State::Delivered(accepted) => {
                self.set(id, State::Read(accepted))
            }
            _ => None,
        }
    }

    /// This device itself gives up one that is queued, for instance because its room is gone.
    pub fn fail(&mut self, id: &SubmitId, refusal: Refusal) -> Option<&Item> {
        if self.get(id)?.state != State::Queued {
            return None;
        }
        self.failed(id, refusal)
    }

    /// The person tries a failed one again: it is encrypted anew, at its old place in the order.
    pub fn retry(&mut self, id: &SubmitId, now: Timestamp) -> Option<&Item> {
        let entry = self.entries.get_mut(id)?;
        if !matches!(entry.item.state, State::Failed { .. }) {
            return None;
        }
        entry.rebuilds = 0;
        entry.item.attempts = 0;
        entry.item.next_at = now;
        self.set(id, State::Queued)
    }

    /// The person takes back one that has never left or has failed, or an ended one need not be kept here any more. `None` when it is on its way.
    /// The number that its content holds is then missing at every receiver: the room must get something under it, or be told.
    pub fn remove(&mut self, id: &SubmitId) -> Option<Item> {
        let item = self.get(id)?;
        match item.state {
            State::Sending | State::Stored => return None,
            State::Queued if item.encrypted && item.attempts > 0 => return None,
            State::Queued
            | State::Accepted(_)
            | State::Delivered(_)
            | State::Read(_)
            | State::Failed { .. } => {}
        }
        let entry = self.entries.remove(id)?;
        self.leave_lineup(&entry.item);
        Some(entry.item)
    }

    /// The connection to our node came up or went down. Up: everything is due, except where the node asked for time. Down: what was being sent has an unknown
    /// outcome and will be sent again as it is. Returns the rows whose state changed.
    pub fn online(&mut self, up: bool) -> Vec<Item> {
        self.online = up;
        if up {
            for entry in self.entries.values_mut() {
                entry.item.next_at = entry.item.next_at.min(entry.not_before);
            }
            return Vec::new();
        }
        let sending: Vec<SubmitId> = self.rooms.values().filter_map(|r| r.sending).collect();
        let ended = |id: &SubmitId| self.lost(id, Timestamp::default(), 0).cloned();
        sending.iter().filter_map(ended).collect()
    }

    /// Our node lives another life: what it had stored may be lost, so it is sent again as it is. Returns the rows that changed.
    pub fn node_restored(&mut self) -> Vec<Item> {
        self.stored_again(|_| true)
    }

    /// The hub of a room lives another life: what our node had handed to it may be lost there, so it is sent again as it is. Returns the
    /// rows that changed.
    pub fn hub_restored(&mut self, room: &RoomId) -> Vec<Item> {
        self.stored_again(|item| item.room == *room)
    }

    fn stored_again(&mut self, which: impl Fn(&Item) -> bool) -> Vec<Item> {
        let stored = self.entries.values().filter(|e| e.item.state == State::Stored);
        let stored: Vec<SubmitId> = stored.filter(|e| which(&e.item)).map(|e| e.item.id).collect();
        let again = |id: &SubmitId| {
            let item = &mut self.entries.get_mut(id)?.item;
            item.next_at = Timestamp::default();
            // It had left, and the hub may have it.
            item.attempts = item.attempts.max(1);
            self.set(id, State::Queued).cloned()
        };
        stored.iter().filter_map(again).collect()
    }

    fn insert(&mut self, mut item: Item) -> Option<&Item> {
        if item.state == State::Sending {
            item.state = State::Queued;
        }
        let (id, state) = (item.id, item.state.clone());
        let entry = Entry { item, rebuilds: 0, not_before: Timestamp::default(), early: None };
        self.entries.insert(id, entry);
        self.set(&id, state)
    }

    /// The entry, if an attempt of it is under way.
    fn under_way(&mut self, id: &SubmitId) -> Option<&mut Entry> {
        self.entries.get_mut(id).filter(|e| e.item.state == State::Sending)
    }

    fn refused(
        &mut self,
        id: &SubmitId,
        refusal: Refusal,
        now: Timestamp,
        jitter: u32,
    ) -> Option<&Item> {
        match refusal.code {
            Code::StaleEpoch | Code::WrongEpoch | Code::MissingProposal => {
                self.encrypt_again(id, now, jitter)
            }
            code if code.lasting() == Lasting::Transient => {
                self.later(id, refusal.retry_after_ms, now, jitter)
            }
            _ => self.failed(id, refusal),
        }
    }

    /// The same bytes again, later.
    fn later(
        &mut self,
        id: &SubmitId,
        retry_after_ms: Option<u32>,
        now: Timestamp,
        jitter: u32,
    ) -> Option<&Item> {
        let entry = self.entries.get_mut(id)?;
        let floor = retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
        let attempt = entry.item.attempts.saturating_sub(1);
        entry.item.next_at = now.after(Backoff::STANDARD.delay(attempt, jitter, floor));
        entry.not_before =
            floor.map_or(Timestamp::default(), |f| now.after(f.min(backoff::FLOOR_MAX)));
        self.set(id, State::Queued)
    }

    /// An epoch overtook it. Being overtaken once is ordinary and costs no wait.
    fn encrypt_again(&mut self, id: &SubmitId, now: Timestamp, jitter: u32) -> Option<&Item> {
        let entry = self.entries.get_mut(id)?;
        let wait = commit::rebuild_delay(entry.rebuilds, jitter).unwrap_or_else(|| {
            let attempt = entry.rebuilds.saturating_sub(commit::ATTEMPTS);
            Backoff::STANDARD.delay(attempt, jitter, Some(commit::REBUILD_MAX))
        });
        entry.rebuilds = entry.rebuilds.saturating_add(1);
        entry.item.encrypted = false;
        entry.item.attempts = 0;
        entry.item.next_at = now.after(wait);
        self.set(id, State::Queued)
    }

    fn failed(&mut self, id: &SubmitId, refusal: Refusal) -> Option<&Item> {
        self.entries.get_mut(id)?.item.encrypted = false;
        let retryable = item::retryable(refusal.code);
        self.set(id, State::Failed { refusal, retryable })
    }

    fn set(&mut self, id: &SubmitId, state: State) -> Option<&Item> {
        let item = self.entries.get(id)?.item.clone();
        self.leave_lineup(&item);
        match state {
            State::Queued => {
                self.rooms.entry(item.room).or_default().queued.insert((item.order, *id));
            }
            State::Sending => self.rooms.entry(item.room).or_default().sending = Some(*id),
            State::Stored
            | State::Accepted(_)
            | State::Delivered(_)
            | State::Read(_)
            | State::Failed { .. } => {}
        }
        let entry = self.entries.get_mut(id)?;
        entry.item.state = state;
        Some(&entry.item)
    }

    fn leave_lineup(&mut self, item: &Item) {
        let Some(room) = self.rooms.get_mut(&item.room) else {
            return;
        };
        room.queued.remove(&(item.order, item.id));
        room.sending = room.sending.filter(|id| *id != item.id);
        if *room == Lineup::default() {
            self.rooms.remove(&item.room);
        }
    }
}

/// Whether its time has come, or lies further ahead than any wait: then the clock was set back.
fn due(at: Timestamp, now: Timestamp) -> bool {
    let longest = backoff::FLOOR_MAX + Backoff::STANDARD.cap;
    at.since(now).is_zero() || at.since(now) > longest
}

#[cfg(test)]
mod tests;
