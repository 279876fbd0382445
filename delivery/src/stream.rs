//! Which log of a device's stream is served next: the inbox first, then the rooms in turn.
//!
//! Rule: the inbox whenever it has something, because a Welcome in it opens a room; otherwise the next room in order after the one served last.
//! Each log has its own window ([`crate::reader::window`]); together they are bounded by [`OUTSTANDING`], so that a device in two thousand rooms
//! does not make the node hold a window of each.

use std::collections::BTreeMap;

use protocol::Seq;
use protocol::api::LogRef;

use crate::reader::{LogEnds, Reader, Window};

/// Entries sent and not acknowledged, over all logs of a stream.
pub const OUTSTANDING: u64 = 4_096;

/// One log of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Served {
    reader: Reader,
    ends: LogEnds,
    sent: Seq,
}

/// The machine of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    logs: BTreeMap<LogRef, Served>,
    last: Option<LogRef>,
}

impl Stream {
    /// Serves `log` from its reader's cursor on, or takes in how reader and log stand now. Call it at the start, when the log grew, when
    /// the reader acknowledged, and when it was removed.
    pub fn update(&mut self, log: LogRef, reader: Reader, ends: LogEnds) {
        let _ = (log, reader, ends);
        todo!()
    }

    /// Everything up to `sent` is on the wire.
    pub fn sent(&mut self, log: &LogRef, sent: Seq) {
        let _ = (log, sent);
        todo!()
    }

    /// The device wants `log` again from its cursor on.
    pub fn rewind(&mut self, log: &LogRef) {
        let _ = log;
        todo!()
    }

    /// Serves `log` no more.
    pub fn remove(&mut self, log: &LogRef) {
        self.logs.remove(log);
    }

    /// What to send next; `None` when there is nothing until an [`Stream::update`].
    #[must_use]
    pub fn next(&mut self) -> Option<(LogRef, Window)> {
        let _ = &self.last;
        todo!()
    }
}
