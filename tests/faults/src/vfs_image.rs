//! What a disk can hold after the power went: everything that was synced, and of the rest whatever happened to be written.
//!
//! | of what was not synced | an image may hold |
//! |---|---|
//! | a write | all, none or some of its sectors; now and then a sector that is half old and half new |
//! | a write that made the file longer | the length with zeros instead of the bytes |
//! | a cut | the file as long as before |
//! | a file made or deleted | the folder as it was |

use std::collections::BTreeMap;

use tests::seed::Seed;

use crate::vfs_disk::{Event, Inode};

/// What the files hold, by name.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Every file.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What was done to it.
    pub damage: Damage,
}

/// How much of what was not synced an image lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Writes and cuts that were not synced.
    pub unsynced: u64,
    /// Of them, how many are missing.
    pub missing: u64,
    /// Of them, how many are there in part.
    pub torn: u64,
    /// Names of files that were not safe and are as before.
    pub names: u64,
}

impl std::ops::AddAssign for Damage {
    fn add_assign(&mut self, other: Self) {
        self.unsynced += other.unsynced;
        self.missing += other.missing;
        self.torn += other.torn;
        self.names += other.names;
    }
}

/// Plays what was recorded up to a moment and makes images of it. It only goes forward.
pub struct Player<'e> {
    events: &'e [Event],
    moment: usize,
    files: BTreeMap<Inode, File>,
    /// The folder as it is for certain.
    folder: BTreeMap<String, Inode>,
    /// What was done to it since.
    unnamed: Vec<(String, Option<Inode>)>,
}

#[derive(Default)]
struct File {
    safe: Vec<u8>,
    pending: Vec<Pending>,
}

struct Pending {
    event: usize,
    change: Change,
    /// A sync of it failed: no later one makes it safe.
    forsaken: bool,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

/// What happens to the changes of one file that were not synced.
#[derive(Clone, Copy)]
enum Luck {
    None,
    All,
    /// Each change by itself, whole, by so many percent.
    Some(u64),
    /// Each sector by itself, by so many percent.
    Sectors(u64),
    /// The first ones, and a part of the next.
    First(usize),
    /// Only the last ones: the disk wrote them in another order.
    Last(usize),
}

impl<'e> Player<'e> {
    /// Before the first change.
    #[must_use]
    pub fn new(events: &'e [Event]) -> Self {
        Self {
            events,
            moment: 0,
            files: BTreeMap::new(),
            folder: BTreeMap::new(),
            unnamed: Vec::new(),
        }
    }

    /// Goes on until so many changes were made.
    pub fn advance(&mut self, moment: usize) {
        while self.moment < moment.min(self.events.len()) {
            if let Some(event) = self.events.get(self.moment) {
                self.play(event);
            }
            self.moment += 1;
        }
    }

    fn play(&mut self, event: &Event) {
        match event {
            Event::Create { name, inode } => {
                self.files.insert(*inode, File::default());
                self.unnamed.push((name.clone(), Some(*inode)));
            }
            Event::Delete { name } => self.unnamed.push((name.clone(), None)),
            Event::FolderSync => {
                for (name, inode) in std::mem::take(&mut self.unnamed) {
                    name_it(&mut self.folder, name, inode);
                }
                let (folder, files) = (&self.folder, &mut self.files);
                files.retain(|inode, _| folder.values().any(|named| named == inode));
            }
            Event::Write { inode, offset, data } => {
                let change = Change::Write(at(*offset), data.clone());
                self.pend(*inode, change);
            }
            Event::Truncate { inode, size } => self.pend(*inode, Change::Cut(at(*size))),
            Event::Sync { inode, upto } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.sync(*upto);
                }
            }
            Event::SyncFailed { inode, upto } => {
                for pending in self.files.get_mut(inode).into_iter().flat_map(|f| &mut f.pending) {
                    pending.forsaken |= pending.event < *upto;
                }
            }
        }
    }

    fn pend(&mut self, inode: Inode, change: Change) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.pending.push(Pending { event: self.moment, change, forsaken: false });
        }
    }

    /// How many changes are not safe now.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.files.values().map(|f| f.pending.len()).sum::<usize>() + self.unnamed.len()
    }

    /// One of the images that a crash now could leave.
    #[must_use]
    pub fn image(&self, chance: &mut Seed) -> Image {
        let mut image = Image::default();
        let mut folder = self.folder.clone();
        // A journal keeps the order of names; without one any may be missing.
        let ordered = chance.between(0, 1) == 0;
        let first = at(chance.between(0, self.unnamed.len() as u64));
        for (n, (name, inode)) in self.unnamed.iter().enumerate() {
            let there = if ordered { n < first } else { chance.between(0, 1) == 0 };
            if there {
                name_it(&mut folder, name.clone(), *inode);
            } else {
                image.damage.names += 1;
            }
        }
        let sector = if chance.between(0, 1) == 0 { 512 } else { 4_096 };
        let alike = chance.between(0, 1) == 0;
        let one_for_all = chance.branch();
        for (name, inode) in folder {
            let Some(file) = self.files.get(&inode) else { continue };
            let mut own = if alike { one_for_all.clone() } else { chance.branch() };
            let luck = Luck::draw(&mut own, file);
            let data = file.image(luck, sector, chance, &mut image.damage);
            image.files.insert(name, data);
        }
        image
    }

    /// The image that a killed program leaves behind: all of it.
    #[must_use]
    pub fn whole(&self) -> Image {
        let mut image = Image::default();
        let mut folder = self.folder.clone();
        for (name, inode) in &self.unnamed {
            name_it(&mut folder, name.clone(), *inode);
        }
        for (name, inode) in folder {
            let Some(file) = self.files.get(&inode) else { continue };
            let mut data = file.safe.clone();
            for pending in &file.pending {
                apply(&mut data, &pending.change);
            }
            image.files.insert(name, data);
        }
        image
    }
}

impl Luck {
    fn draw(chance: &mut Seed, file: &File) -> Self {
        let n = file.pending.len() as u64;
        let percent = |chance: &mut Seed| match chance.between(0, 2) {
            0 => 10,
            1 => 50,
            _ => 90,
        };
        match chance.between(0, 6) {
            0 => Self::None,
            1 => Self::All,
            2 => Self::Some(percent(chance)),
            3 | 4 => Self::Sectors(percent(chance)),
            5 => Self::First(at(chance.between(0, n))),
            _ => Self::Last(at(chance.between(0, n.min(8)))),
        }
    }
}

impl File {
    fn sync(&mut self, upto: usize) {
        let mut safe: Vec<Change> = Vec::new();
        self.pending.retain(|pending| {
            let syncs = pending.event < upto && !pending.forsaken;
            if syncs {
                safe.push(pending.change.clone());
            }
            !syncs
        });
        for change in &safe {
            apply(&mut self.safe, change);
            // What came before a change that is safe can no longer undo it, whether or not it was written.
            for pending in self.pending.iter_mut().filter(|p| p.forsaken) {
                pending.yield_to(change);
            }
        }
    }

    fn image(&self, luck: Luck, sector: usize, chance: &mut Seed, damage: &mut Damage) -> Vec<u8> {
        let mut data = self.safe.clone();
        let count = self.pending.len();
        for (n, pending) in self.pending.iter().enumerate() {
            damage.unsynced += 1;
            let share = match luck {
                Luck::None => 0,
                Luck::All => 100,
                Luck::Some(percent) => 100 * u64::from(chance.between(1, 100) <= percent),
                Luck::Sectors(percent) => percent,
                Luck::First(first) if n == first => 50,
                Luck::First(first) => 100 * u64::from(n < first),
                Luck::Last(last) => 100 * u64::from(n + last >= count),
            };
            match (share, &pending.change) {
                (100, whole) => apply(&mut data, whole),
                (0, _) | (_, Change::Cut(_)) => damage.missing += 1,
                (share, Change::Write(offset, bytes)) => {
                    tear(&mut data, *offset, bytes, Tear { sector, share }, chance);
                    damage.torn += 1;
                }
            }
        }
        // The length is written apart from the bytes.
        if chance.between(0, 7) == 0 {
            let end = |p: &Pending| match &p.change {
                Change::Write(offset, bytes) => offset + bytes.len(),
                Change::Cut(_) => 0,
            };
            let longest = self.pending.iter().map(end).max().unwrap_or(0);
            if longest > data.len() {
                data.resize(longest, 0);
            }
        }
        data
    }
}

impl Pending {
    fn yield_to(&mut self, change: &Change) {
        match (&mut self.change, change) {
            (Change::Write(offset, bytes), Change::Write(start, safe)) => {
                for (byte, place) in bytes.iter_mut().zip(*offset..) {
                    let new = place.checked_sub(*start).and_then(|n| safe.get(n));
                    *byte = new.copied().unwrap_or(*byte);
                }
            }
            (Change::Write(offset, bytes), Change::Cut(size)) => {
                bytes.truncate(size.saturating_sub(*offset));
            }
            // A file that grew again after the cut stays as long as it then was.
            (Change::Cut(size), Change::Write(start, safe)) => {
                *size = (*size).max(start + safe.len());
            }
            (Change::Cut(size), Change::Cut(other)) => *size = (*size).max(*other),
        }
    }
}

#[derive(Clone, Copy)]
struct Tear {
    sector: usize,
    share: u64,
}

/// Writes some of the sectors that `bytes` at `offset` touch.
fn tear(data: &mut Vec<u8>, offset: usize, bytes: &[u8], how: Tear, chance: &mut Seed) {
    let mut from = 0;
    while from < bytes.len() {
        let room = how.sector - (offset + from) % how.sector;
        let piece = bytes.get(from..bytes.len().min(from + room)).unwrap_or_default();
        if chance.between(1, 100) <= how.share {
            // The power can go in the middle of a sector.
            let half = chance.between(0, 31) == 0;
            let part = if half { piece.get(..piece.len() / 2).unwrap_or_default() } else { piece };
            put(data, offset + from, part);
        }
        from += room;
    }
}

fn apply(data: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, bytes) => put(data, *offset, bytes),
        Change::Cut(size) => data.truncate(*size),
    }
}

fn put(data: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if bytes.is_empty() {
        return;
    }
    if data.len() < end {
        data.resize(end, 0);
    }
    if let Some(place) = data.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

fn name_it(folder: &mut BTreeMap<String, Inode>, name: String, inode: Option<Inode>) {
    match inode {
        Some(inode) => {
            folder.insert(name, inode);
        }
        None => {
            folder.remove(&name);
        }
    }
}

fn at(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
