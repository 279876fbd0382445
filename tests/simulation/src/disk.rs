//! A simulated disk: rows with transactions, of which a crash loses none, some or all that were not synced.
//!
//! Writers see what they wrote; readers see what is synced. A transaction is the list of its writes, each of which sets rows to fixed values, so
//! that carrying out a prefix of the journal twice gives the same state.

use std::collections::VecDeque;
use std::rc::Rc;

/// A write: sets rows.
pub type Write<S> = Rc<dyn Fn(&mut S)>;

/// See the module.
pub struct Disk<S> {
    live: S,
    synced: S,
    open: Vec<Write<S>>,
    journal: VecDeque<Vec<Write<S>>>,
}

impl<S: Clone> Disk<S> {
    /// With these rows, all of them safe.
    pub fn new(rows: S) -> Self {
        Self { live: rows.clone(), synced: rows, open: Vec::new(), journal: VecDeque::new() }
    }

    /// What a writer sees.
    pub const fn live(&self) -> &S {
        &self.live
    }

    /// What a reader sees, and what certainly survives.
    pub const fn synced(&self) -> &S {
        &self.synced
    }

    /// Writes within the open transaction.
    pub fn write(&mut self, write: impl Fn(&mut S) + 'static) {
        write(&mut self.live);
        self.open.push(Rc::new(write));
    }

    /// Ends the transaction. It is safe once synced.
    pub fn commit(&mut self) {
        self.journal.push_back(std::mem::take(&mut self.open));
    }

    /// Transactions that are not safe.
    pub fn unsynced(&self) -> usize {
        self.journal.len()
    }

    /// Makes the `n` oldest transactions safe.
    pub fn sync(&mut self, n: usize) {
        for _ in 0..n {
            for write in self.journal.pop_front().unwrap_or_default() {
                write(&mut self.synced);
            }
        }
    }

    /// The power fails: the `keep` oldest unsynced transactions happen to be on the disk, the others are gone. Recovery may itself be cut
    /// short, so the journal is carried out twice.
    pub fn crash(&mut self, keep: usize) {
        for _ in 0..2 {
            for writes in self.journal.iter().take(keep) {
                for write in writes {
                    write(&mut self.synced);
                }
            }
        }
        self.open.clear();
        self.journal.clear();
        self.live = self.synced.clone();
    }

    /// Puts other rows there: a backup.
    pub fn restore(&mut self, rows: S) {
        self.open.clear();
        self.journal.clear();
        self.live = rows.clone();
        self.synced = rows;
    }
}
