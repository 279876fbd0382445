//! Judges a run from its record alone.
//!
//! | rule | what it says |
//! |---|---|
//! | I1 | what has a place reaches every device that was in the room there, or that device is told of a gap |
//! | I2 | nothing is shown twice |
//! | I3 | one sender's messages are in the order that sender wrote them |
//! | I4 | devices with the same messages show the same timeline |
//! | I5 | numbers are gapless, times rise, and one number has one content |
//! | I6 | every lie is noticed, and nothing is reported when nobody lied |
//! | I7 | everybody in a room is in the same epoch, and each epoch has one commit |
//! | I8 | nobody comes in by the Welcome of a commit that lost |
//! | I9 | every queue is empty at the end |
//! | I10 | going down and coming back changes nothing |
//! | I11 | nothing is unreadable when everybody is honest |
//! | I12 | nobody gets what came before joining or after leaving |
//! | I16 | however often something is handed in, it has one effect |

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Alarm, Event, Fault, Place};

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
}

/// A device's stay in a room: what comes after `from`, up to `to`.
#[derive(Clone, Copy, Debug)]
struct Stay {
    from: Place,
    to: Option<Place>,
}

impl Stay {
    fn holds(&self, at: Place) -> bool {
        let after = self.from.life != at.life || self.from.seq < at.seq;
        after && self.to.is_none_or(|to| to.life != at.life || at.seq <= to.seq)
    }
}

/// What is gathered in one pass.
#[derive(Default)]
struct Facts {
    wrong: Vec<Violation>,
    faults: BTreeMap<Fault, u64>,
    stays: BTreeMap<(u8, u8), Vec<Stay>>,
    shown: BTreeMap<(u8, u8), BTreeSet<u64>>,
    counters: BTreeMap<(u8, u8, u8, u64), u64>,
    gaps: BTreeMap<(u8, u8), Vec<(u64, u64)>>,
    last: BTreeMap<(u8, u8), Place>,
    /// What each place holds: the digest, and the time.
    places: BTreeMap<(u8, Place), (u64, u64)>,
    bodies: BTreeMap<(u8, u64, u64), u64>,
    messages: BTreeMap<(u8, u64), BTreeSet<Place>>,
    accepted: BTreeSet<(u8, u64, Place)>,
    pushed: BTreeSet<(u8, u8, Place)>,
    commits: BTreeMap<(u8, u64), u64>,
    epochs: BTreeMap<(u8, u64), (u64, u64)>,
    left: Vec<(&'static str, u8, u64)>,
    liar: bool,
    lied: bool,
    /// Who was lied to and is still there to notice.
    victims: BTreeSet<u8>,
    noticed: bool,
    alarms: Vec<(u8, Alarm)>,
    failed: Vec<(u8, &'static str)>,
    finals: BTreeMap<(u8, u8), Vec<Event>>,
    members: BTreeSet<(u8, u8)>,
    timelines: BTreeMap<(u8, u8), Vec<Event>>,
    pairs: BTreeMap<u8, Vec<(Place, Place, u64, u64)>>,
    life: BTreeMap<u8, u64>,
}

/// What is wrong with a run.
#[must_use]
pub fn check(events: &[(u64, Event)]) -> Vec<Violation> {
    let mut facts = Facts::default();
    for (_, event) in events {
        facts.take(event);
    }
    if facts.lied {
        return facts.lies();
    }
    if facts.liar {
        // It held something back at most, which is its to do; but nobody may say that it lied.
        facts.wrong.clear();
        facts.alarmed();
        return facts.wrong;
    }
    facts.honest()
}

fn wrong(rule: &'static str, what: String) -> Violation {
    Violation { rule, what }
}

impl Facts {
    fn say(&mut self, rule: &'static str, what: String) {
        // The first of each rule tells; a thousand more do not.
        if self.wrong.iter().filter(|v| v.rule == rule).count() < 3 {
            self.wrong.push(wrong(rule, what));
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Injected { fault, whom } => {
                *self.faults.entry(*fault).or_default() += 1;
                if *fault == Fault::Lie {
                    self.lied = true;
                    self.victims.insert(whom.saturating_sub(100));
                }
            }
            Event::Alarm { device, kind, .. } => {
                self.alarms.push((*device, *kind));
                let tells = !matches!(kind, Alarm::HeldByClock | Alarm::Restored | Alarm::Missed);
                self.noticed |= self.lied && tells;
            }
            Event::Accepted { room, message, place, .. } => {
                self.accepted.insert((*room, *message, *place));
            }
            Event::Failed { device, code, .. } => self.failed.push((*device, code)),
            Event::Shown { device, room, message, sender, counter, .. } => {
                self.show((*device, *room), *message, (*sender, *counter));
            }
            Event::Pushed { device, room, place } => {
                self.pushed.insert((*device, *room, *place));
            }
            Event::Taken { device, room, place, digest, at, message } => {
                self.taken((*device, *room), *place, (*digest, *at), *message);
            }
            Event::Entered { .. } | Event::Out { .. } => self.stay(event),
            Event::Gap { device, room, first, last, .. } => {
                self.gaps.entry((*device, *room)).or_default().push((*first, *last));
            }
            Event::Epoch { device, room, epoch, commit, authenticator, tree } => {
                self.epoch((*device, *room), *epoch, *commit, (*authenticator, *tree));
            }
            Event::Parked { node, room, code } => {
                // After a restore somebody has to look; otherwise nothing may stand still.
                if !self.had(Fault::Restore) {
                    self.say("I9", format!("node {node} parked a lane of room {room}: {code}"));
                }
            }
            Event::Pair { room, head, at, epoch, authenticator, .. } => {
                let fact = (*head, *at, *epoch, *authenticator);
                self.pairs.entry(*room).or_default().push(fact);
            }
            Event::Timeline { device, room, .. } => {
                self.timelines.entry((*device, *room)).or_default().push(event.clone());
            }
            Event::Final { device, room, head, .. } => {
                self.life.insert(*room, head.life);
                self.finals.entry((*device, *room)).or_default().push(event.clone());
            }
            Event::Member { device, room } => {
                self.members.insert((*device, *room));
            }
            Event::Left { what, whom, count } => {
                self.left.push((what, *whom, *count));
            }
            Event::Liar { .. } => self.liar = true,
            Event::Wrote { .. }
            | Event::Stored { .. }
            | Event::Wanted { .. }
            | Event::Ended { .. }
            | Event::Restored { .. }
            | Event::Calm => {}
        }
    }

    fn stay(&mut self, event: &Event) {
        match event {
            Event::Entered { device, room, place, .. } => {
                let stays = self.stays.entry((*device, *room)).or_default();
                if let Some(open) = stays.last_mut().filter(|s| s.to.is_none()) {
                    open.to = Some(*place);
                }
                stays.push(Stay { from: *place, to: None });
                self.last.insert((*device, *room), *place);
            }
            Event::Out { device, room, place } => {
                self.victims.remove(device);
                if let Some(stay) = self.stays.entry((*device, *room)).or_default().last_mut() {
                    stay.to = Some(*place);
                }
            }
            _ => {}
        }
    }

    fn show(&mut self, key: (u8, u8), message: u64, (sender, counter): (u8, u64)) {
        let (device, room) = key;
        if !self.shown.entry(key).or_default().insert(message) {
            self.say("I2", format!("device {device} shows {message:x} of room {room} twice"));
        }
        let other = self.counters.insert((device, room, sender, counter), message);
        if other.is_some_and(|o| o != message) {
            let what = format!("device {device} shows two messages {counter} of device {sender}");
            self.say("I2", what);
        }
    }

    fn taken(&mut self, key: (u8, u8), at: Place, what: (u64, u64), message: Option<u64>) {
        let (device, room) = key;
        if let Some(last) = self.last.insert(key, at) {
            let gapless = last.life != at.life || last.seq + 1 == at.seq;
            let told = (last.seq + 1..at.seq).all(|seq| self.told(device, room, seq));
            let fine = gapless || told && last.seq < at.seq;
            if !fine {
                let what =
                    format!("device {device} took {} after {} of room {room}", at.seq, last.seq);
                self.say("I5", what);
            }
        }
        let known = *self.places.entry((room, at)).or_insert(what);
        if known.0 != what.0 {
            self.say("I5", format!("{} of room {room} has two contents", at.seq));
        } else if known.1 != what.1 {
            self.say("I5", format!("{} of room {room} has two times", at.seq));
        }
        let body = *self.bodies.entry((room, at.life, what.0)).or_insert(at.seq);
        if body != at.seq {
            let what = format!("room {room} holds the same bytes at {body} and {}", at.seq);
            self.say("I16", what);
        }
        if let Some(message) = message {
            let places = self.messages.entry((room, message)).or_default();
            places.insert(at);
            if places.iter().filter(|p| p.life == at.life).count() > 1 {
                self.say("I16", format!("message {message:x} of room {room} has two places"));
            }
        }
    }

    fn epoch(&mut self, key: (u8, u8), epoch: u64, commit: Option<u64>, now: (u64, u64)) {
        let (device, room) = key;
        if let Some(commit) = commit {
            let known = *self.commits.entry((room, epoch)).or_insert(commit);
            if known != commit {
                let what = format!(
                    "device {device} came to epoch {epoch} of room {room} by another commit"
                );
                self.say("I8", what);
            }
        }
        let known = *self.epochs.entry((room, epoch)).or_insert(now);
        if known != now {
            self.say("I7", format!("device {device} has another epoch {epoch} of room {room}"));
        }
    }

    fn had(&self, fault: Fault) -> bool {
        self.faults.contains_key(&fault)
    }

    /// Somebody lied: somebody must have said so.
    fn lies(mut self) -> Vec<Violation> {
        let gap = self.timelines.values().flatten().any(|t| match t {
            Event::Timeline { messages, .. } => messages.iter().any(|(_, _, _, gap)| *gap),
            _ => false,
        });
        self.wrong.clear();
        if !self.noticed && !gap && !self.victims.is_empty() {
            self.say("I6", "a lie was told and nobody noticed".to_owned());
        }
        self.wrong
    }

    fn honest(mut self) -> Vec<Violation> {
        let expired = self.had(Fault::Expiry) || self.had(Fault::Restore);
        for (what, whom, count) in std::mem::take(&mut self.left) {
            // A device whose own echo was too old, or lost with a restored hub, is never told that its message has a place.
            if !(expired && what == "outbox") {
                self.say("I9", format!("{count} in {what} of {whom} at the end"));
            }
        }
        self.alarmed();
        self.arrived();
        self.times();
        self.kept_out();
        self.timelines();
        self.invited();
        self.converged();
        if self.faults.values().sum::<u64>() == 0 {
            self.say("none", "no fault was injected".to_owned());
        }
        self.wrong
    }

    fn alarmed(&mut self) {
        let lost = self.had(Fault::Expiry) || self.had(Fault::Restore);
        for (device, kind) in std::mem::take(&mut self.alarms) {
            let fine = match kind {
                Alarm::HeldByClock => self.had(Fault::ClockJump),
                Alarm::Restored => self.had(Fault::Restore),
                Alarm::Missed => self.had(Fault::Expiry),
                Alarm::Held | Alarm::Undecryptable => lost,
                Alarm::Chain | Alarm::Fork | Alarm::Header | Alarm::Repeated => false,
            };
            let rule = if kind == Alarm::Undecryptable { "I11" } else { "I6" };
            if !fine {
                self.say(rule, format!("device {device} raised {kind:?} and everybody was honest"));
            }
        }
        if !lost && let Some((device, room)) = self.gaps.keys().next().copied() {
            self.say("I11", format!("device {device} was told of a gap in room {room}"));
        }
        for (device, code) in std::mem::take(&mut self.failed) {
            if code != "not-found" && !self.had(Fault::Refusal) {
                self.say("I16", format!("a message of device {device} failed: {code}"));
            }
        }
    }

    fn arrived(&mut self) {
        let restored = self.had(Fault::Restore);
        let mut all: Vec<(u8, u64, Place)> = self.accepted.iter().copied().collect();
        for ((room, message), places) in &self.messages {
            all.extend(places.iter().map(|p| (*room, *message, *p)));
        }
        for (room, message, place) in all {
            if self.life.get(&room).is_some_and(|life| *life != place.life) {
                // What a hub lost when it was restored is lost there.
                continue;
            }
            if restored && !self.messages.contains_key(&(room, message)) {
                continue;
            }
            let missing: Vec<u8> = self
                .stays
                .iter()
                .filter(|((_, r), stays)| *r == room && stays.iter().any(|s| s.holds(place)))
                .map(|((device, _), _)| *device)
                .filter(|d| !self.shown.get(&(*d, room)).is_some_and(|s| s.contains(&message)))
                .filter(|d| !self.told(*d, room, place.seq))
                .collect();
            for device in missing {
                let seq = place.seq;
                self.say(
                    "I1",
                    format!("device {device} never showed {message:x}, {seq} of room {room}"),
                );
            }
        }
    }

    fn told(&self, device: u8, room: u8, seq: u64) -> bool {
        let gaps = self.gaps.get(&(device, room));
        gaps.is_some_and(|g| g.iter().any(|(a, b)| *a <= seq && seq <= *b))
    }

    fn times(&mut self) {
        let mut last: Option<((u8, Place), u64)> = None;
        for (key, (_, at)) in std::mem::take(&mut self.places) {
            if let Some((before, was)) = last
                && before.0 == key.0
                && before.1.life == key.1.life
                && was >= at
            {
                self.say(
                    "I5",
                    format!("the time of {} in room {} does not rise", key.1.seq, key.0),
                );
            }
            last = Some((key, at));
        }
    }

    fn kept_out(&mut self) {
        if self.had(Fault::Restore) {
            return;
        }
        for (device, room, place) in std::mem::take(&mut self.pushed) {
            let stays = self.stays.get(&(device, room));
            if !stays.is_some_and(|s| s.iter().any(|s| s.holds(place))) {
                let seq = place.seq;
                self.say(
                    "I12",
                    format!("device {device} was sent {seq} of room {room}, where it was not"),
                );
            }
        }
    }

    fn timelines(&mut self) {
        let restored = self.had(Fault::Restore);
        let mut same: BTreeMap<(u8, BTreeSet<u64>), (u8, Vec<u64>)> = BTreeMap::new();
        for ((device, room), rounds) in std::mem::take(&mut self.timelines) {
            let lists: Vec<&Vec<(u64, u8, u64, bool)>> = rounds
                .iter()
                .filter_map(|t| {
                    if let Event::Timeline { messages, .. } = t { Some(messages) } else { None }
                })
                .collect();
            let Some(first) = lists.first() else { continue };
            if lists.iter().any(|l| l != first) {
                self.say(
                    "I10",
                    format!("device {device} shows room {room} otherwise after a start"),
                );
            }
            let mut last: BTreeMap<u8, u64> = BTreeMap::new();
            for (_, sender, counter, _) in *first {
                if last.insert(*sender, *counter).is_some_and(|before| before >= *counter) {
                    let what = format!("device {device} shows {counter} of {sender} out of order");
                    self.say("I3", what);
                }
            }
            let order: Vec<u64> = first.iter().map(|m| m.0).collect();
            let set: BTreeSet<u64> = order.iter().copied().collect();
            let (other, known) = same.entry((room, set)).or_insert((device, order.clone())).clone();
            // A restored hub gives some of what it lost a second place, and who was away knows only that one.
            if known != order && !restored {
                self.say(
                    "I4",
                    format!("devices {other} and {device} show room {room} differently"),
                );
            }
        }
    }

    /// Whoever the hub counts as a member knows it: no invitation got lost on its way.
    fn invited(&mut self) {
        if self.had(Fault::Expiry) || self.had(Fault::Restore) {
            return;
        }
        let inside = |e: &Event| matches!(e, Event::Final { inside: true, .. });
        for key in std::mem::take(&mut self.members) {
            if !self.finals.get(&key).is_some_and(|rounds| rounds.iter().any(inside)) {
                self.say("I7", format!("device {} does not know it is in room {}", key.0, key.1));
            }
        }
    }

    fn converged(&mut self) {
        let mut rooms: BTreeMap<u8, (u64, u64, u64)> = BTreeMap::new();
        for ((device, room), rounds) in std::mem::take(&mut self.finals) {
            let mut first = None;
            for event in rounds {
                let Event::Final { inside, at, head, epoch, authenticator, tree, .. } = event
                else {
                    continue;
                };
                let now = (inside, at, epoch, authenticator, tree);
                if *first.get_or_insert(now) != now {
                    self.say(
                        "I10",
                        format!("device {device} is elsewhere in room {room} after a start"),
                    );
                }
                if !inside {
                    continue;
                }
                if at != head {
                    let what =
                        format!("device {device} is at {}, room {room} at {}", at.seq, head.seq);
                    self.say("I9", what);
                }
                let known = *rooms.entry(room).or_insert((epoch, authenticator, tree));
                if known != (epoch, authenticator, tree) {
                    self.say("I7", format!("device {device} ends in another epoch of room {room}"));
                }
            }
        }
        // A follower hears of a restored hub's new life with the next entry only.
        let restored = self.had(Fault::Restore);
        let pairs = std::mem::take(&mut self.pairs);
        for (room, facts) in pairs.into_iter().filter(|_| !restored) {
            for (head, at, epoch, authenticator) in &facts {
                if head != at {
                    let what =
                        format!("two devices of room {room} stay at {} of {}", at.seq, head.seq);
                    self.say("S-11", what);
                }
                if facts.first().is_some_and(|f| (f.2, f.3) != (*epoch, *authenticator)) {
                    self.say("S-11", format!("two devices of room {room} are in two epochs"));
                }
            }
        }
    }
}
