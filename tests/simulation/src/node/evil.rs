//! A dishonest node: to some of its devices it shows another history of one room, as cleverly as it can.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use delivery::log::Head;
use protocol::log::EntryKind;

use super::state::{EntryRow, LogRow};
use crate::ctx::Ctx;
use crate::names::{DevNo, RoomNo};
use crate::sealed::{Wire, decode};

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// Leaves a message out, and makes numbers and chain fit.
    Drop,
    /// Leaves a message out, and leaves the chain as it is.
    DropRaw,
    /// Leaves several messages out at the end of what there is, and goes on.
    DropTail,
    /// Turns two messages around, and makes numbers and chain fit.
    Swap,
    /// Turns two messages around, and leaves the chain as it is.
    SwapRaw,
    /// Sends a message a second time, under a number of its own.
    Repeat,
    /// Changes a message.
    Alter,
    /// Slips a commit in that nobody made.
    Commit,
    /// Keeps a wish to leave back.
    Withhold,
}

impl Trick {
    /// Those with messages.
    pub const HISTORY: &'static [Self] = &[
        Self::Drop,
        Self::DropRaw,
        Self::DropTail,
        Self::Swap,
        Self::SwapRaw,
        Self::Repeat,
        Self::Alter,
    ];
    /// Those with handshakes.
    pub const HANDSHAKE: &'static [Self] = &[Self::Commit, Self::Withhold];
}

/// Whom it deceives, how.
#[derive(Clone, Debug)]
pub struct Lie {
    pub room: RoomNo,
    pub victims: BTreeSet<DevNo>,
    pub trick: Trick,
    /// Not before this time.
    pub from: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Evil {
    lie: Lie,
    views: BTreeMap<DevNo, View>,
}

/// What one victim is shown.
#[derive(Clone, Debug)]
struct View {
    log: LogRow,
    /// The last honest entry that it stands for.
    upto: u64,
    held: Vec<Rc<EntryRow>>,
    done: bool,
    left: u8,
}

/// What became of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Honest,
    /// The lie was told just now.
    Lied,
}

impl Evil {
    pub const fn new(lie: Lie) -> Self {
        Self { lie, views: BTreeMap::new() }
    }

    /// What a device is shown of a room, if that is not the truth.
    pub(super) fn view(&self, device: DevNo, room: RoomNo) -> Option<&LogRow> {
        if room != self.lie.room {
            return None;
        }
        self.views.get(&device).map(|v| &v.log)
    }

    /// Takes in how the room's log stands now.
    pub(super) fn look(&mut self, cx: &Ctx, device: DevNo, room: RoomNo, honest: &LogRow) -> Seen {
        if room != self.lie.room || !self.lie.victims.contains(&device) || cx.now < self.lie.from {
            return Seen::Honest;
        }
        let fresh = || View {
            log: honest.clone(),
            upto: honest.head.get(),
            held: Vec::new(),
            done: false,
            left: 1,
        };
        let view = self.views.entry(device).or_insert_with(&fresh);
        if !view.done && honest.tail.get() > view.upto + 1 {
            // It was away for so long that what it missed is gone.
            *view = fresh();
        }
        let before = view.done;
        let new: Vec<_> =
            honest.entries.range(view.upto + 1..).map(|(_, e)| Rc::clone(e)).collect();
        for entry in new {
            let follows = entry.seq == view.log.head.next();
            if !view.done && view.held.is_empty() && !follows {
                // Nobody here was reading for a while.
                *view = fresh();
                break;
            }
            view.upto = entry.seq.get();
            if honest.open(super::Who::Device(device)) {
                view.take(self.lie.trick, device, &entry);
            } else {
                view.push(entry.kind, &entry, None);
            }
        }
        if view.done && !before { Seen::Lied } else { Seen::Honest }
    }
}

impl View {
    fn take(&mut self, trick: Trick, victim: DevNo, entry: &Rc<EntryRow>) {
        let theirs =
            matches!(decode::<Wire>(&entry.body), Some(Wire::App(a)) if a.from != victim.0);
        if self.done {
            match trick {
                Trick::DropTail if theirs && self.left > 0 => self.left -= 1,
                Trick::DropRaw | Trick::SwapRaw => self.raw(entry),
                _ => self.push(entry.kind, entry, None),
            }
            return;
        }
        match trick {
            Trick::Drop | Trick::DropRaw | Trick::DropTail if theirs => self.done = true,
            Trick::Withhold if entry.kind == EntryKind::Proposal => self.done = true,
            Trick::Swap | Trick::SwapRaw if theirs => {
                self.held.push(Rc::clone(entry));
                if self.held.len() == 2 {
                    self.done = true;
                    for entry in std::mem::take(&mut self.held).iter().rev() {
                        if trick == Trick::SwapRaw {
                            self.raw(entry);
                        } else {
                            self.push(entry.kind, entry, None);
                        }
                    }
                }
            }
            Trick::Swap | Trick::SwapRaw if !self.held.is_empty() => {
                for entry in std::mem::take(&mut self.held) {
                    self.push(entry.kind, &entry, None);
                }
                self.push(entry.kind, entry, None);
            }
            Trick::Repeat if theirs => {
                self.push(entry.kind, entry, None);
                self.push(entry.kind, entry, None);
                self.done = true;
            }
            Trick::Alter if theirs => {
                let mut body = entry.body.to_vec();
                if let Some(last) = body.last_mut() {
                    *last ^= 1;
                }
                self.push(entry.kind, entry, Some(body.into()));
                self.done = true;
            }
            Trick::Commit if theirs => {
                if let Some(Wire::App(app)) = decode::<Wire>(&entry.body) {
                    let forged = forged(&app);
                    self.push(EntryKind::Commit, entry, Some(forged.into()));
                    self.done = true;
                }
                self.push(entry.kind, entry, None);
            }
            _ => self.push(entry.kind, entry, None),
        }
    }

    /// With a number and a chain that fit.
    fn push(&mut self, kind: EntryKind, entry: &Rc<EntryRow>, body: Option<Rc<[u8]>>) {
        let body = body.unwrap_or_else(|| Rc::clone(&entry.body));
        let at = entry.at.max(protocol::Timestamp::from_ms(self.log.last_at.ms() + 1));
        let end = Head { seq: self.log.head, chain: self.log.chain };
        let placed = end.append(kind, at, &body);
        let row = EntryRow {
            seq: placed.seq,
            at,
            kind,
            body,
            digest: placed.digest,
            chain: placed.chain,
            effects: Rc::from(&[][..]),
            kept: None,
        };
        self.log.append(Rc::new(row));
    }

    /// With a number that fits and the honest chain.
    fn raw(&mut self, entry: &Rc<EntryRow>) {
        let row = EntryRow { seq: self.log.head.next(), ..(**entry).clone() };
        self.log.append(Rc::new(row));
    }
}

fn forged(app: &crate::sealed::App) -> Vec<u8> {
    crate::sealed::encode(&Wire::Commit(crate::sealed::Commit {
        room: app.room,
        epoch: app.epoch,
        from: app.from,
        adds: Vec::new(),
        removes: Vec::new(),
        leaves: Vec::new(),
        external: false,
        salt: 1,
        tag: [7; 32],
    }))
}
