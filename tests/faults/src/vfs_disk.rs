//! A disk that remembers every change since it was new, and that fails when told to.
//!
//! | fault | what SQLite sees | what the disk holds then |
//! |---|---|---|
//! | [`Disk::fail_sync`] | `SQLITE_IOERR_FSYNC`, once | as Linux does: what was to be synced counts as clean from now on, and no later sync writes it |
//! | [`Disk::lie`] | success | nothing of it is safe: a bug to plant |
//! | [`Disk::limit`] | a short write and `SQLITE_FULL` when files would grow beyond it | the part that fitted |
//! | [`Disk::fail_write`] | a short write and `SQLITE_IOERR_WRITE`, once | half of it |
//! | [`Disk::stall`] | a sync that takes long, once | as usual |

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tests::Outcome;

use crate::vfs;

/// One file, whatever it is called: deleted and made again it is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inode(u64);

/// A change, in the order in which SQLite made them.
#[derive(Clone, Debug)]
pub enum Event {
    /// The folder names a new file.
    Create {
        /// Its name.
        name: String,
        /// Which.
        inode: Inode,
    },
    /// The folder no longer names it.
    Delete {
        /// Its name.
        name: String,
    },
    /// What the folder names is safe.
    FolderSync,
    /// Bytes were written.
    Write {
        /// Where.
        inode: Inode,
        /// From which byte on.
        offset: u64,
        /// Which.
        data: Vec<u8>,
    },
    /// The file was cut.
    Truncate {
        /// Which.
        inode: Inode,
        /// Its new length in bytes.
        size: u64,
    },
    /// All changes of the file before `upto` are safe.
    Sync {
        /// Which.
        inode: Inode,
        /// Number of an event.
        upto: usize,
    },
    /// They are not, and never will be by a later sync.
    SyncFailed {
        /// Which.
        inode: Inode,
        /// Number of an event.
        upto: usize,
    },
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The database file.
    Database,
    /// The write-ahead log.
    Wal,
    /// A rollback journal, or anything else.
    Journal,
}

/// A file that SQLite has open.
#[derive(Debug)]
pub(crate) struct Opened {
    inode: Inode,
    class: Class,
    /// Its first sync syncs the folder too, as the system's file system does for logs and journals it made.
    unnamed: bool,
}

/// Why the disk did not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Full,
    Write,
    Sync,
}

/// How much of a write the disk took.
pub(crate) struct Taken {
    pub(crate) bytes: usize,
    pub(crate) denied: Option<Denied>,
}

/// How often each fault happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Syncs that did nothing and said that they had.
    pub lies: u64,
    /// Writes for which there was no room.
    pub full: u64,
    /// Writes that failed half way.
    pub failed_writes: u64,
    /// Syncs that took long.
    pub stalls: u64,
}

/// Which kinds of files a lie is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Syncs of the write-ahead log do nothing.
    Wal,
    /// Syncs of the database file do nothing.
    Database,
    /// Names of files are never safe.
    Folder,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    names: BTreeMap<String, Inode>,
    sizes: BTreeMap<Inode, u64>,
    inodes: u64,
    syncs: u64,
    fail_sync: Option<u64>,
    fail_write: Option<u64>,
    lie: Option<Lie>,
    room: Option<u64>,
    stall: Option<Duration>,
    injected: Injected,
}

/// A disk for the files of one folder. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    name: Arc<str>,
    /// Only files in here are on it.
    folder: Option<Arc<Path>>,
    state: Arc<Mutex<State>>,
}

impl Disk {
    /// A disk of its own, registered with SQLite. What it needs to be one stays in memory until the process ends.
    ///
    /// # Errors
    /// When SQLite refuses it.
    pub fn new() -> Outcome<Self> {
        let disk = Self::unregistered(None);
        vfs::register(&disk, false)?;
        Ok(disk)
    }

    /// A disk under every database in `folder` that this process opens from now on without naming another.
    ///
    /// # Errors
    /// When SQLite refuses it.
    pub fn under(folder: &Path) -> Outcome<Self> {
        let disk = Self::unregistered(Some(folder.canonicalize()?.into()));
        vfs::register(&disk, true)?;
        Ok(disk)
    }

    fn unregistered(folder: Option<Arc<Path>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("waxwing-faults-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { name: name.into(), folder, state: Arc::default() }
    }

    /// Whether a file is on this disk.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        self.folder.as_ref().is_none_or(|folder| path.starts_with(folder))
    }

    /// The name under which SQLite knows it.
    #[must_use]
    pub fn vfs(&self) -> &str {
        &self.name
    }

    /// How many changes there were.
    #[must_use]
    pub fn moment(&self) -> usize {
        self.state().events.len()
    }

    /// All changes so far; the disk forgets them and can make no more images.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.state().events)
    }

    /// How many syncs there were, whatever became of them.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// How often each fault happened.
    #[must_use]
    pub fn injected(&self) -> Injected {
        self.state().injected
    }

    /// The `k`-th sync from now on fails: 1 is the next.
    pub fn fail_sync(&self, k: u64) {
        self.state().fail_sync = Some(k);
    }

    /// The `k`-th write from now on fails half way: 1 is the next.
    pub fn fail_write(&self, k: u64) {
        self.state().fail_write = Some(k);
    }

    /// From now on some syncs do nothing.
    pub fn lie(&self, lie: Lie) {
        self.state().lie = Some(lie);
    }

    /// Files may grow by so many bytes from now on, those freed meanwhile not counted; none is no limit.
    pub fn limit(&self, bytes: Option<u64>) {
        self.state().room = bytes;
    }

    /// The next sync takes so long.
    pub fn stall(&self, time: Duration) {
        self.state().stall = Some(time);
    }

    /// A panic elsewhere leaves the state whole: nothing here is changed in two steps.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a file of that name is there, before SQLite opens it. One that others made is taken over with what it holds.
    pub(crate) fn look(&self, path: &Path) -> bool {
        let Some(name) = name(path) else { return false };
        let mut state = self.state();
        if state.names.contains_key(&name) {
            return true;
        }
        // Nobody has it open through us yet, so that reading it here takes no locks from anybody.
        let Ok(data) = std::fs::read(path) else { return false };
        let inode = state.create(name);
        if !data.is_empty() {
            state.sizes.insert(inode, data.len() as u64);
            state.events.push(Event::Write { inode, offset: 0, data });
            let upto = state.events.len();
            state.events.push(Event::Sync { inode, upto });
            state.events.push(Event::FolderSync);
        }
        true
    }

    /// SQLite opened a file, and made it unless it `existed`.
    pub(crate) fn open(&self, path: &Path, class: Class, existed: bool) -> Opened {
        let name = name(path).unwrap_or_default();
        let mut state = self.state();
        let known = state.names.get(&name).copied();
        let inode = known.unwrap_or_else(|| state.create(name));
        Opened { inode, class, unnamed: !existed && class != Class::Database }
    }

    pub(crate) fn delete(&self, path: &Path, sync_folder: bool) {
        let mut state = self.state();
        let Some(name) = name(path) else { return };
        if let Some(inode) = state.names.remove(&name) {
            let freed = state.sizes.remove(&inode).unwrap_or(0);
            state.free(freed);
            state.events.push(Event::Delete { name });
        }
        if sync_folder {
            state.sync_folder();
        }
    }

    pub(crate) fn write(&self, file: &Opened, offset: u64, data: &[u8]) -> Taken {
        let mut state = self.state();
        let mut taken = Taken { bytes: data.len(), denied: None };
        if countdown(&mut state.fail_write) {
            state.injected.failed_writes += 1;
            taken = Taken { bytes: data.len() / 2, denied: Some(Denied::Write) };
        }
        let size = state.sizes.get(&file.inode).copied().unwrap_or(0);
        let growth = (offset + taken.bytes as u64).saturating_sub(size);
        if let Some(room) = state.room.filter(|room| *room < growth) {
            state.injected.full += 1;
            let missing = usize::try_from(growth - room).unwrap_or(usize::MAX);
            let fits = taken.bytes.saturating_sub(missing);
            taken = Taken { bytes: fits, denied: Some(Denied::Full) };
        }
        if let Some(part) = data.get(..taken.bytes).filter(|part| !part.is_empty()) {
            let end = offset + part.len() as u64;
            state.room = state.room.map(|room| room.saturating_sub(end.saturating_sub(size)));
            state.sizes.insert(file.inode, size.max(end));
            state.events.push(Event::Write { inode: file.inode, offset, data: part.to_vec() });
        }
        taken
    }

    pub(crate) fn truncate(&self, file: &Opened, size: u64) {
        let mut state = self.state();
        let before = state.sizes.insert(file.inode, size).unwrap_or(0);
        state.free(before.saturating_sub(size));
        state.events.push(Event::Truncate { inode: file.inode, size });
    }

    pub(crate) fn sync(&self, file: &mut Opened) -> Result<(), Denied> {
        let (inode, upto, fails, stall) = {
            let mut state = self.state();
            state.syncs += 1;
            let fails = countdown(&mut state.fail_sync);
            (file.inode, state.events.len(), fails, state.stall.take())
        };
        if let Some(time) = stall {
            // Others may read and write meanwhile. A thread of SQLite's, so nobody else is held up by the sleep.
            std::thread::sleep(time);
        }
        let mut state = self.state();
        state.injected.stalls += u64::from(stall.is_some());
        if fails {
            state.injected.failed_syncs += 1;
            state.events.push(Event::SyncFailed { inode, upto });
            return Err(Denied::Sync);
        }
        let lies = match state.lie {
            Some(Lie::Wal) => file.class == Class::Wal,
            Some(Lie::Database) => file.class == Class::Database,
            Some(Lie::Folder) | None => false,
        };
        if lies {
            state.injected.lies += 1;
        } else {
            state.events.push(Event::Sync { inode, upto });
        }
        if std::mem::take(&mut file.unnamed) {
            state.sync_folder();
        }
        Ok(())
    }
}

impl State {
    fn create(&mut self, name: String) -> Inode {
        self.inodes += 1;
        let inode = Inode(self.inodes);
        self.names.insert(name.clone(), inode);
        self.events.push(Event::Create { name, inode });
        inode
    }

    fn free(&mut self, bytes: u64) {
        self.room = self.room.map(|room| room + bytes);
    }

    fn sync_folder(&mut self) {
        if self.lie == Some(Lie::Folder) {
            self.injected.lies += 1;
        } else {
            self.events.push(Event::FolderSync);
        }
    }
}

fn name(path: &Path) -> Option<String> {
    path.file_name().and_then(|n| n.to_str()).map(str::to_owned)
}

/// Whether it is now.
fn countdown(left: &mut Option<u64>) -> bool {
    match left {
        Some(1) => {
            *left = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}
