//! Messages on their way out.

use std::rc::Rc;

use delivery::outbox::{Item, State as Fate, Step};
use protocol::api::{Accepted, SubmitReply};
use protocol::log::Digest;
use protocol::{Cursor, MessageId, Refusal, SubmitId};

use super::state::{Content, MessageRow, RoomRow, Status, SubRow};
use super::{Device, place};
use crate::bug::Bug;
use crate::ctx::Ctx;
use crate::names::RoomNo;
use crate::record::{Event, short};
use crate::sealed::{Group, encode};
use crate::wire::{Payload, Up};

/// How long a message waits that cannot be encrypted yet, in milliseconds.
const POSTPONE: u64 = 2_000;
const SETTLE_AGAIN: std::time::Duration = std::time::Duration::from_mins(1);

impl Device {
    /// Rooms its person can write into.
    pub fn writable(&self) -> Vec<RoomNo> {
        let fine = |r: &&RoomRow| !matches!(r.status, Status::Left);
        self.rows().rooms.values().filter(fine).map(|r| r.room).collect()
    }

    /// Its person writes a message.
    pub fn write(&mut self, cx: &mut Ctx, room: RoomNo) {
        let Some(mut row) = self.rows().rooms.get(&room).cloned() else { return };
        let saved = row.counter;
        if cx.bug(Bug::CounterNotSaved) {
            row.counter = self.memory.counters.get(&room).copied().unwrap_or(0);
        }
        let content = Content {
            counter: row.counter + 1,
            prev: row.prev,
            seen: row.place.map(|p| (p.cursor, p.chain)),
            text: cx.number(),
        };
        let bytes: Rc<[u8]> = encode(&content).into();
        let digest = Digest::of_bytes(&bytes);
        let message = MessageId::from_bytes(*digest.as_bytes());
        let id = SubmitId::from_bytes(cx.chance.bytes16());
        (row.counter, row.prev) = (content.counter, Some(digest));
        if cx.bug(Bug::CounterNotSaved) {
            self.memory.counters.insert(room, row.counter);
            row.counter = saved;
        }
        let order = self.rows().position + 1;
        let item = Item {
            id,
            room: cx.names.room(room).clone(),
            order,
            state: Fate::Queued,
            encrypted: false,
            attempts: 0,
            next_at: protocol::Timestamp::default(),
        };
        let sub = SubRow { item, room, message, cipher: None };
        let shown = MessageRow {
            sender: self.no,
            counter: content.counter,
            content: digest,
            prev: content.prev,
            bytes,
            seq: None,
        };
        let me = self.no;
        self.disk.write(move |s| {
            s.position = order;
            s.rooms.insert(room, row.clone());
            s.items.insert(id, sub.clone());
            s.messages.insert((room, message), shown.clone());
            s.by_sender.entry((room, me, shown.counter)).or_default().push(message);
        });
        let (device, counter) = (self.no.0, content.counter);
        self.events.push(Event::Wrote {
            device,
            room: room.0,
            message: short(message.as_bytes()),
            counter,
        });
        if !self.commit(cx) {
            return;
        }
        self.memory.outbox.push(id, cx.names.room(room).clone(), order);
        self.look(cx);
    }

    /// Its person tries everything again that failed.
    pub fn retry(&mut self, cx: &mut Ctx) {
        let failed = |s: &&SubRow| matches!(s.item.state, Fate::Failed { .. });
        let all: Vec<SubRow> = self.rows().items.values().filter(failed).cloned().collect();
        for sub in all {
            let left = |r: &RoomRow| r.status == Status::Left;
            if self.rows().rooms.get(&sub.room).is_none_or(left) {
                continue;
            }
            self.memory.outbox.remove(&sub.item.id);
            if let Some(item) =
                self.memory.outbox.push(sub.item.id, sub.item.room, sub.item.order).cloned()
            {
                self.save_item(&item);
            }
        }
        if self.commit(cx) {
            self.look(cx);
        }
    }

    pub(super) fn save_item(&mut self, item: &Item) {
        let (id, item) = (item.id, item.clone());
        let row = self.rows().items.get(&id);
        let (room, message) = row.map_or((0, 0), |r| (r.room.0, short(r.message.as_bytes())));
        let device = self.no.0;
        match &item.state {
            Fate::Accepted(accepted) => {
                let place = place(&accepted.place);
                self.events.push(Event::Accepted { device, room, message, place });
            }
            Fate::Stored => self.events.push(Event::Stored { device, room, message }),
            Fate::Failed { refusal, .. } => {
                let code = refusal.code.as_str();
                self.events.push(Event::Failed { device, room, message, code });
            }
            _ => {}
        }
        let ended = matches!(
            item.state,
            Fate::Accepted(_) | Fate::Delivered(_) | Fate::Read(_) | Fate::Failed { .. }
        );
        self.disk.write(move |s| {
            if let Some(row) = s.items.get_mut(&id) {
                row.item = item.clone();
            }
        });
        if ended {
            self.memory.outbox.remove(&id);
        }
    }

    /// Hands over what is due. When to look again; `None` when the device went down.
    pub(super) fn hand_over(&mut self, cx: &mut Ctx) -> Option<u64> {
        loop {
            match self.memory.outbox.next(self.now(cx)) {
                Step::Idle => return Some(u64::MAX),
                Step::WaitUntil(at) => return Some(self.until(cx, at)),
                Step::Submit(id) => {
                    let row = self.rows().items.get(&id).cloned()?;
                    self.memory.outbox.sending(&id);
                    let mut cipher = row.cipher.unwrap_or_else(|| Rc::from(&[][..]));
                    if cx.bug(Bug::EncryptedAgain)
                        && let Some(bytes) = self.cipher(cx, row.room, &row.message)
                    {
                        cipher = bytes;
                    }
                    if !self.commit(cx) {
                        return None;
                    }
                    self.submit(cx, id, row.room, Payload::App(cipher));
                }
                Step::Encrypt(id) => {
                    if !self.encrypt(cx, id) {
                        return None;
                    }
                }
            }
        }
    }

    fn submit(&self, cx: &mut Ctx, id: SubmitId, room: RoomNo, payload: Payload) {
        let id = if cx.bug(Bug::IdMintedAgain) {
            // The answer finds its way back nevertheless: the last eight bytes are the name.
            let mut bytes = *id.as_bytes();
            bytes[..4].copy_from_slice(&cx.chance.jitter().to_be_bytes());
            SubmitId::from_bytes(bytes)
        } else {
            id
        };
        self.send(cx, Up::Submit { id, room, payload });
    }

    /// The name under which the outbox knows it.
    fn named(&self, cx: &Ctx, id: SubmitId) -> SubmitId {
        if !cx.bug(Bug::IdMintedAgain) {
            return id;
        }
        let tail = &id.as_bytes()[4..];
        self.rows().items.keys().find(|k| k.as_bytes()[4..] == *tail).copied().unwrap_or(id)
    }

    fn cipher(&mut self, cx: &mut Ctx, room: RoomNo, message: &MessageId) -> Option<Rc<[u8]>> {
        let bytes = self.rows().messages.get(&(room, *message))?.bytes.clone();
        let mut group: Group = (**self.rows().groups.get(&room)?).clone();
        let guard = cx.chance.draw();
        let cipher: Rc<[u8]> = group.encrypt(&bytes, guard)?.into();
        let group = Rc::new(group);
        self.disk.write(move |s| drop(s.groups.insert(room, Rc::clone(&group))));
        Some(cipher)
    }

    /// Encrypts a message, writes down what leaves, and hands it over. False when the device went down.
    fn encrypt(&mut self, cx: &mut Ctx, id: SubmitId) -> bool {
        let Some(sub) = self.rows().items.get(&id).cloned() else { return true };
        let room = sub.room;
        let row = self.rows().rooms.get(&room);
        let ready = row.is_some_and(|r| matches!(r.status, Status::Active | Status::Held(..)));
        let epoch = self.rows().groups.get(&room).map_or(0, |g| g.core.epoch);
        let behind = self.memory.behind.get(&room).is_some_and(|at| epoch < *at);
        if !ready || behind || self.holds_up(cx, room, sub.item.order) {
            self.postpone(cx, id);
            return true;
        }
        self.memory.behind.remove(&room);
        let Some(cipher) = self.cipher(cx, room, &sub.message) else {
            if let Some(group) = self.rows().groups.get(&room).cloned() {
                self.settle(cx, room, &group, SETTLE_AGAIN);
            }
            self.postpone(cx, id);
            return true;
        };
        self.memory.outbox.encrypted(&id);
        let item = self.memory.outbox.sending(&id).cloned();
        if cx.bug(Bug::CiphertextNotSaved) {
            self.submit(cx, id, room, Payload::App(Rc::clone(&cipher)));
        }
        let saved = Rc::clone(&cipher);
        self.disk.write(move |s| {
            if let Some(row) = s.items.get_mut(&id) {
                row.cipher = Some(Rc::clone(&saved));
                if let Some(item) = &item {
                    row.item = item.clone();
                }
            }
        });
        if !self.commit(cx) {
            return false;
        }
        if !cx.bug(Bug::CiphertextNotSaved) {
            self.submit(cx, id, room, Payload::App(cipher));
        }
        true
    }

    fn postpone(&mut self, cx: &Ctx, id: SubmitId) {
        let until = self.now(cx).after(std::time::Duration::from_millis(POSTPONE));
        self.memory.outbox.postpone(&id, until);
        self.memory.postponed.insert(id);
    }

    /// Something in a room changed: messages that could not be encrypted may try again.
    pub(super) fn reconsider(&mut self, cx: &Ctx) {
        let now = self.now(cx);
        for id in std::mem::take(&mut self.memory.postponed) {
            self.memory.outbox.postpone(&id, now);
        }
    }

    /// The node answered.
    pub(super) fn reply(&mut self, cx: &mut Ctx, id: SubmitId, reply: SubmitReply) {
        let id = self.named(cx, id);
        let owner = self.owner(&id);
        if let Some(position) = owner {
            self.answered(cx, position, reply);
        } else {
            let (now, jitter) = (self.now(cx), cx.chance.jitter());
            if let SubmitReply::Refused(refusal) = &reply {
                self.note_epoch(&id, refusal);
            }
            if let Some(item) = self.memory.outbox.replied(&id, reply, now, jitter).cloned() {
                self.place_item(cx, &item);
                self.save_item(&item);
            }
        }
        if self.commit(cx) {
            self.look(cx);
        }
    }

    fn note_epoch(&mut self, id: &SubmitId, refusal: &Refusal) {
        if let (Some(epoch), Some(row)) = (refusal.epoch, self.rows().items.get(id)) {
            let room = row.room;
            self.memory.behind.insert(room, epoch.get());
        }
    }

    /// The hub refused what our node had kept for it.
    pub(super) fn outcome(&mut self, cx: &mut Ctx, id: &SubmitId, refusal: Refusal) {
        let (now, jitter) = (self.now(cx), cx.chance.jitter());
        self.note_epoch(id, &refusal);
        if let Some(item) = self.memory.outbox.outcome(id, refusal, now, jitter).cloned() {
            self.save_item(&item);
        }
    }

    /// The room's log shows a message of this device.
    pub(super) fn shown_own(&mut self, cx: &Ctx, id: SubmitId, accepted: Accepted) {
        let Some(row) = self.rows().items.get(&id).cloned() else { return };
        let item = match self.memory.outbox.get(&id) {
            Some(_) => self.memory.outbox.shown(&id, accepted).cloned(),
            None => match row.item.state {
                Fate::Accepted(_) | Fate::Delivered(_) | Fate::Read(_) => None,
                _ => Some(Item { state: Fate::Accepted(accepted), ..row.item }),
            },
        };
        if let Some(item) = item {
            self.place_item(cx, &item);
            self.save_item(&item);
        }
    }

    fn place_item(&mut self, cx: &Ctx, item: &Item) {
        let Fate::Accepted(accepted) = &item.state else { return };
        let Some(row) = self.rows().items.get(&item.id) else { return };
        let (room, message, cursor) = (row.room, row.message, accepted.place);
        self.place_message(cx, room, message, cursor);
    }

    /// Puts a message where the hub put it; the first time it shows.
    pub(super) fn place_message(
        &mut self,
        cx: &Ctx,
        room: RoomNo,
        message: MessageId,
        cursor: Cursor,
    ) {
        let Some(row) = self.rows().messages.get(&(room, message)).cloned() else { return };
        let seq = cursor.seq;
        let sender = cx.names.device(row.sender).clone();
        let entry = delivery::timeline::Message { id: message, sender, counter: row.counter, seq };
        let _place = self.memory.timelines.entry(room).or_default().insert(&entry);
        if row.seq.is_none() {
            self.events.push(Event::Shown {
                device: self.no.0,
                room: room.0,
                message: short(message.as_bytes()),
                sender: row.sender.0,
                counter: row.counter,
                place: place(&cursor),
            });
        }
        let lowest = row.seq.map_or(seq, |old| old.min(seq));
        self.disk.write(move |s| {
            if let Some(row) = s.messages.get_mut(&(room, message)) {
                row.seq = Some(lowest);
            }
        });
    }

    /// Gives up what is still waiting to go into a room.
    pub(super) fn give_up(&mut self, room: RoomNo, why: &Refusal) {
        let ids: Vec<SubmitId> =
            self.rows().items.iter().filter(|(_, s)| s.room == room).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(item) = self.memory.outbox.fail(&id, why.clone()).cloned() {
                self.save_item(&item);
            }
        }
    }
}
