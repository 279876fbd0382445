//! Changes to rooms as durable commands.

use std::rc::Rc;
use std::time::Duration;

use delivery::backoff::Backoff;
use delivery::commit::{self, Arbitration, Change, leave_delay};
use protocol::api::SubmitReply;
use protocol::log::Digest;
use protocol::refusal::Lasting;
use protocol::{Code, Epoch, Refusal, SubmitId, Timestamp};

use super::Device;
use super::state::{Action, Attempt, Command, RoomRow, Status};
use crate::bug::Bug;
use crate::ctx::Ctx;
use crate::names::{DevNo, RoomNo};
use crate::record::Event;
use crate::sealed::{Bundle, Group, Info, Package, encode};
use crate::wire::{Payload, Up};

/// How long an answer is waited for, in milliseconds.
const ANSWER_MS: u64 = 30_000;

impl Device {
    /// Its person wants a change.
    pub fn want(&mut self, cx: &mut Ctx, room: RoomNo, action: Action) {
        let now = self.now(cx);
        self.wanted(room, action, now, true);
        if self.commit(cx) {
            self.look(cx);
        }
    }

    fn wanted(&mut self, room: RoomNo, action: Action, at: Timestamp, asked: bool) {
        let position = self.rows().position + 1;
        let command = Command {
            position,
            room,
            action,
            change: Change::new(at),
            attempt: None,
            package: None,
            tries: 0,
            stored: false,
            asked,
        };
        if asked {
            self.events.push(Event::Wanted { device: self.no.0, room: room.0, position });
        }
        self.disk.write(move |s| {
            s.position = position;
            s.commands.insert(position, command.clone());
        });
    }

    /// Rooms that are held, which its person can join anew.
    pub fn held(&self) -> Vec<RoomNo> {
        let held = |r: &&RoomRow| matches!(r.status, Status::Held(_, alarm) if alarm != crate::record::Alarm::HeldByClock);
        self.rows().rooms.values().filter(held).map(|r| r.room).collect()
    }

    /// Its person joins a held room anew.
    pub fn rejoin(&mut self, cx: &mut Ctx, room: RoomNo) {
        self.disk.write(move |s| {
            if let Some(row) = s.rooms.get_mut(&room) {
                row.status = Status::Joining;
            }
            s.groups.remove(&room);
        });
        let now = self.now(cx);
        let all: Vec<Command> =
            self.rows().commands.values().filter(|c| c.room == room).cloned().collect();
        let waits = |c: &Command| matches!(c.change.state(), commit::State::Behind(_));
        for mut command in all.into_iter().filter(|c| c.attempt.is_some() || waits(c)) {
            (command.attempt, command.stored) = (None, false);
            command.change = Change::restore(command.change.losses(), commit::State::Build(now));
            self.save_command(command);
        }
        self.wanted(room, Action::Join, now, true);
        if self.commit(cx) {
            self.look(cx);
        }
    }

    /// Members of a room, as this device knows them.
    pub fn members(&self, room: RoomNo) -> Vec<DevNo> {
        let row = self.rows().rooms.get(&room);
        if row.is_none_or(|r| r.status != Status::Active) {
            return Vec::new();
        }
        let group = self.rows().groups.get(&room);
        group.map_or_else(Vec::new, |g| g.core.members.iter().copied().collect())
    }

    fn save_command(&mut self, command: Command) {
        let (position, room) = (command.position, command.room.0);
        let ended = match command.change.state() {
            commit::State::Done => Some(true),
            commit::State::Failed(_) => Some(false),
            _ => None,
        };
        let was = self.rows().commands.get(&position);
        let fresh = was.is_some_and(|c| {
            !matches!(c.change.state(), commit::State::Done | commit::State::Failed(_))
        });
        if let (Some(done), true, true) = (ended, fresh, command.asked) {
            self.events.push(Event::Ended { device: self.no.0, room, position, done });
        }
        self.disk.write(move |s| drop(s.commands.insert(position, command.clone())));
    }

    pub(super) fn owner(&self, id: &SubmitId) -> Option<u64> {
        let owns = |c: &&Command| c.attempt.as_ref().is_some_and(|a| a.id == *id);
        self.rows().commands.values().find(owns).map(|c| c.position)
    }

    /// Whether a message waits for a command before it.
    pub(super) fn holds_up(&self, cx: &Ctx, room: RoomNo, position: u64) -> bool {
        let now = self.now(cx);
        let holds = |c: &Command| match c.action {
            Action::Join => !matches!(c.change.next(now), commit::Step::Ended),
            Action::Add(_) | Action::Remove(_) => {
                c.tries == 0 && !c.stored && c.change.next(now) != commit::Step::Ended
            }
            Action::Renew | Action::Leave | Action::Settle => false,
        };
        self.rows().commands.range(..position).any(|(_, c)| c.room == room && holds(c))
    }

    /// Hands over handshakes that were built and are not on their way.
    pub(super) fn hand_over_commands(&mut self, cx: &mut Ctx) {
        let due: Vec<(RoomNo, Attempt)> = self
            .rows()
            .commands
            .values()
            .filter(|c| !c.stored)
            .filter_map(|c| c.attempt.clone().map(|a| (c.room, a)))
            .filter(|(_, a)| {
                !self.memory.sent.contains(&a.id) && !self.memory.again.contains_key(&a.id)
            })
            .collect();
        for (room, attempt) in due {
            self.memory.sent.insert(attempt.id);
            let payload = Payload::Handshake(attempt.bundle);
            self.send(cx, Up::Submit { id: attempt.id, room, payload });
        }
    }

    /// Carries commands as far as they go. When to look again; `None` when the device went down.
    pub(super) fn carry_out(&mut self, cx: &mut Ctx) -> Option<u64> {
        let mut next = u64::MAX;
        loop {
            let now = self.now(cx);
            let mut blocked: Vec<RoomNo> = self
                .rows()
                .commands
                .values()
                .filter(|c| c.attempt.is_some())
                .map(|c| c.room)
                .collect();
            let mut carry = None;
            for (position, command) in &self.rows().commands {
                if blocked.contains(&command.room) {
                    continue;
                }
                match command.change.next(now) {
                    commit::Step::Build => match self.memory.waiting.get(position) {
                        Some(until) if *until > cx.now => {
                            next = next.min(*until);
                            blocked.push(command.room);
                        }
                        _ => {
                            carry = Some(*position);
                            break;
                        }
                    },
                    commit::Step::WaitUntil(at) => next = next.min(self.until(cx, at)),
                    commit::Step::WaitForLog | commit::Step::Ended => {}
                }
                if command.action == Action::Join && command.change.next(now) != commit::Step::Ended
                {
                    blocked.push(command.room);
                }
            }
            let Some(position) = carry else { return Some(next) };
            if !self.advance(cx, position) {
                return None;
            }
            self.hand_over_commands(cx);
        }
    }

    /// Does what can be done for a command. False when the device went down.
    fn advance(&mut self, cx: &mut Ctx, position: u64) -> bool {
        let Some(command) = self.rows().commands.get(&position).cloned() else { return true };
        let room = command.room;
        let Some(row) = self.rows().rooms.get(&room).cloned() else { return true };
        match (&row.status, command.action) {
            (Status::Joining, Action::Join) => {
                if self.memory.online {
                    self.send(cx, Up::AskInfo { room, position });
                }
                self.memory.waiting.insert(position, cx.now + ANSWER_MS);
                return true;
            }
            (_, Action::Join) => self.done(command),
            (Status::Left, _) => self.fail(command, Code::NotFound.into()),
            (Status::Joining, _) => self.later(cx, command, None, Duration::from_secs(1)),
            (Status::Held(..), _) => {
                let refusal = Some(Code::Unavailable.into());
                self.later(cx, command, refusal, Duration::from_secs(30));
            }
            (Status::Active, _) => return self.build(cx, command),
        }
        self.commit(cx)
    }

    fn build(&mut self, cx: &mut Ctx, command: Command) -> bool {
        let room = command.room;
        let Some(group) = self.rows().groups.get(&room) else { return true };
        let members = &group.core.members;
        let mut group: Group = (**group).clone();
        match command.action {
            Action::Join => self.done(command),
            Action::Add(device) if members.contains(&device) => self.done(command),
            Action::Remove(device) if !members.contains(&device) => self.done(command),
            Action::Settle if group.leaving.is_empty() => self.done(command),
            Action::Leave if members.len() < 2 => self.fail(command, Code::NotAllowed.into()),
            Action::Add(of) if command.package.is_none() => {
                if self.memory.online {
                    self.send(cx, Up::Claim { of, position: command.position });
                }
                self.memory.waiting.insert(command.position, cx.now + ANSWER_MS);
                return true;
            }
            Action::Leave => {
                if group.leaving.contains(&self.no) {
                    self.done(command);
                } else {
                    let bundle = group.leave();
                    let epoch = group.core.epoch;
                    self.built(cx, command, &bundle, epoch);
                }
            }
            Action::Add(_) | Action::Remove(_) | Action::Renew | Action::Settle => {
                if group.leaving.contains(&self.no) {
                    // Somebody else commits that; this device has nothing to say any more.
                    self.later(cx, command, None, Duration::from_secs(1));
                    return self.commit(cx);
                }
                let adds = command.package.into_iter().collect();
                let removes = match command.action {
                    Action::Remove(device) if group.leaving.contains(&device) => Vec::new(),
                    Action::Remove(device) => vec![device],
                    _ => Vec::new(),
                };
                let epoch = group.core.epoch;
                let bundle = group.commit(adds, removes, cx.chance.draw());
                self.built(cx, command, &bundle, epoch);
                if cx.bug(Bug::MergedEarly)
                    && let Some((digest, core)) = group.pending.take()
                {
                    group.advance(*core);
                    self.epoch(room, &group, Some(&digest));
                }
                let group = Rc::new(group);
                self.disk.write(move |s| drop(s.groups.insert(room, Rc::clone(&group))));
            }
        }
        self.reconsider(cx);
        self.commit(cx)
    }

    fn built(&mut self, cx: &mut Ctx, mut command: Command, bundle: &Bundle, epoch: u64) {
        let digest = Digest::of_bytes(&bundle.message);
        command.change.built(Epoch::new(epoch), digest);
        let id = SubmitId::from_bytes(cx.chance.bytes16());
        command.attempt = Some(Attempt { id, bundle: encode(bundle).into() });
        self.save_command(command);
    }

    fn done(&mut self, mut command: Command) {
        command.change = Change::restore(command.change.losses(), commit::State::Done);
        command.attempt = None;
        self.save_command(command);
    }

    fn fail(&mut self, mut command: Command, refusal: Refusal) {
        command.change = Change::restore(command.change.losses(), commit::State::Failed(refusal));
        command.attempt = None;
        self.save_command(command);
    }

    fn later(&mut self, cx: &Ctx, mut command: Command, why: Option<Refusal>, wait: Duration) {
        let at = self.now(cx).after(wait);
        command.change = Change::restore(command.change.losses(), commit::State::Build(at));
        if why.is_some() {
            command.tries = command.tries.saturating_add(1);
        }
        self.save_command(command);
        self.reconsider(cx);
    }

    /// A package came, or none.
    pub(super) fn claimed(&mut self, cx: &mut Ctx, position: u64, package: Option<Package>) {
        self.memory.waiting.remove(&position);
        let Some(mut command) = self.rows().commands.get(&position).cloned() else { return };
        let waits =
            command.attempt.is_none() && matches!(command.change.state(), commit::State::Build(_));
        if !waits {
            return;
        }
        if package.is_some() {
            command.package = package;
            self.save_command(command);
        } else {
            let wait = Backoff::STANDARD.delay(command.tries, cx.chance.jitter(), None);
            self.later(cx, command, Some(Code::NoKeyPackages.into()), wait);
        }
        if self.commit(cx) {
            self.look(cx);
        }
    }

    /// What it takes to come in came, or nothing.
    pub(super) fn told(&mut self, cx: &mut Ctx, position: u64, info: Option<Info>) {
        self.memory.waiting.remove(&position);
        let Some(mut command) = self.rows().commands.get(&position).cloned() else { return };
        let waits =
            command.attempt.is_none() && matches!(command.change.state(), commit::State::Build(_));
        if !waits || command.action != Action::Join {
            return;
        }
        let room = command.room;
        if let Some(info) = info {
            let (group, bundle, digest) = Group::enter(self.no, room, &info, cx.chance.draw());
            command.change.built(Epoch::new(info.epoch), Digest::from_bytes(digest));
            let id = SubmitId::from_bytes(cx.chance.bytes16());
            command.attempt = Some(Attempt { id, bundle: encode(&bundle).into() });
            let group = Rc::new(group);
            self.disk.write(move |s| drop(s.groups.insert(room, Rc::clone(&group))));
            self.save_command(command);
        } else {
            // The hub does not have this person in the room any more.
            self.fail(command, Code::NotFound.into());
            if let Some(row) = self.rows().rooms.get(&room).cloned() {
                let nowhere = crate::record::Place { life: 0, seq: 0 };
                let place = row.place.map_or(nowhere, |p| super::place(&p.cursor));
                self.events.push(Event::Out { device: self.no.0, room: room.0, place });
                self.left(cx, row);
            }
        }
        if self.commit(cx) {
            self.look(cx);
        }
    }

    /// The node answered to a handshake.
    pub(super) fn answered(&mut self, cx: &mut Ctx, position: u64, reply: SubmitReply) {
        match reply {
            // The log tells the rest.
            SubmitReply::Accepted(_) => {}
            SubmitReply::Stored => {
                self.disk.write(move |s| {
                    if let Some(command) = s.commands.get_mut(&position) {
                        command.stored = true;
                    }
                });
                self.reconsider(cx);
            }
            SubmitReply::Refused(refusal) => self.refused_command(cx, position, refusal, None),
        }
    }

    /// A handshake was refused, now or late.
    pub(super) fn refused_command(
        &mut self,
        cx: &mut Ctx,
        position: u64,
        refusal: Refusal,
        payload: Option<&Digest>,
    ) {
        let Some(mut command) = self.rows().commands.get(&position).cloned() else { return };
        let Some(attempt) = command.attempt.clone() else { return };
        if payload.is_some_and(|p| *p != Digest::of_bytes(&attempt.bundle)) {
            return;
        }
        let refusal = match (refusal.code, command.action) {
            (Code::Conflict, Action::Leave) => Refusal { code: Code::WrongEpoch, ..refusal },
            _ => refusal,
        };
        let rebuild =
            matches!(refusal.code, Code::WrongEpoch | Code::StaleEpoch | Code::MissingProposal);
        if !rebuild && refusal.code.lasting() == Lasting::Transient {
            command.tries = command.tries.saturating_add(1);
            let floor = refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
            let wait = Backoff::STANDARD.delay(command.tries, cx.chance.jitter(), floor);
            command.stored = false;
            self.save_command(command);
            self.memory.sent.remove(&attempt.id);
            let ms = u64::try_from(wait.as_millis()).unwrap_or(0) + 1;
            self.memory.again.insert(attempt.id, cx.now + ms);
            return;
        }
        let now = self.now(cx);
        command.change.refused(refusal, now, cx.chance.jitter());
        let room = command.room;
        if command.action == Action::Join {
            if let commit::State::Behind(_) = command.change.state() {
                command.change =
                    Change::restore(command.change.losses(), commit::State::Build(now));
            }
            self.disk.write(move |s| drop(s.groups.remove(&room)));
        } else {
            self.disk.write(move |s| {
                if let Some(group) = s.groups.get_mut(&room) {
                    Rc::make_mut(group).pending = None;
                }
            });
        }
        (command.attempt, command.stored) = (None, false);
        self.save_command(command);
        self.reconsider(cx);
    }

    /// The log shows our own commit.
    pub(super) fn merged(&mut self, cx: &Ctx, room: RoomNo) {
        let ours =
            |c: &&Command| c.room == room && c.attempt.is_some() && c.action != Action::Leave;
        if let Some(command) = self.rows().commands.values().find(ours).cloned() {
            self.done(command);
        }
        self.reconsider(cx);
    }

    /// What some commands of a room wanted has happened.
    pub(super) fn finish(&mut self, room: RoomNo, which: impl Fn(&Action) -> bool) {
        let ended = |c: &Command| {
            matches!(c.change.state(), commit::State::Done | commit::State::Failed(_))
        };
        let all: Vec<Command> = self
            .rows()
            .commands
            .values()
            .filter(|c| c.room == room && which(&c.action) && !ended(c))
            .cloned()
            .collect();
        for command in all {
            self.done(command);
        }
    }

    /// The log shows somebody else's commit of `epoch`.
    pub(super) fn lost_epoch(&mut self, cx: &mut Ctx, room: RoomNo, epoch: u64, digest: &Digest) {
        let all: Vec<Command> =
            self.rows().commands.values().filter(|c| c.room == room).cloned().collect();
        for mut command in all {
            let before = command.change.clone();
            let now = self.now(cx);
            match command.change.seen(Epoch::new(epoch), digest, now, cx.chance.jitter()) {
                Arbitration::Lost => (command.attempt, command.stored) = (None, false),
                Arbitration::Merge | Arbitration::Apply => {}
            }
            if command.change != before {
                self.save_command(command);
            }
        }
        self.reconsider(cx);
    }

    /// Somebody wants to go: a member who stays commits it.
    pub(super) fn settle(&mut self, cx: &mut Ctx, room: RoomNo, group: &Group, wait: Duration) {
        let stay = group.core.members.difference(&group.leaving);
        let staying: Vec<u32> = stay.map(|d| d.0.into()).collect();
        let jitter = cx.chance.jitter();
        let Some(delay) = leave_delay(self.no.0.into(), &staying, jitter) else { return };
        let wanted = |c: &Command| {
            c.room == room
                && c.action == Action::Settle
                && !matches!(c.change.state(), commit::State::Done | commit::State::Failed(_))
        };
        if !self.rows().commands.values().any(wanted) {
            let at = self.now(cx).after(wait + delay);
            self.wanted(room, Action::Settle, at, false);
        }
    }

    /// This device is out of a room.
    pub(super) fn left(&mut self, cx: &mut Ctx, mut row: RoomRow) {
        let room = row.room;
        row.status = Status::Left;
        self.disk.write(move |s| {
            s.rooms.insert(room, row.clone());
            s.groups.remove(&room);
        });
        let ended = |c: &Command| {
            matches!(c.change.state(), commit::State::Done | commit::State::Failed(_))
        };
        let all: Vec<Command> = self
            .rows()
            .commands
            .values()
            .filter(|c| c.room == room && !ended(c))
            .cloned()
            .collect();
        for command in all {
            match command.action {
                Action::Leave | Action::Renew | Action::Settle => self.done(command),
                _ => self.fail(command, Code::NotFound.into()),
            }
        }
        self.give_up(room, &Code::NotFound.into());
        self.reconsider(cx);
    }
}
