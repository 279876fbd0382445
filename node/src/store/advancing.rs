//! Acknowledgements of connected devices: cursors that move, many in one statement. Whoever asks has decided by
//! [`delivery::reader::acknowledge`]; what changed meanwhile is looked at here.

use std::collections::BTreeMap;

use protocol::{DeviceId, Incarnation, Seq};
use tokio::sync::oneshot;

use super::logs::{self, LogId};
use super::packed::{self, Packed};
use super::readers;
use super::row::int;
use super::{Inner, StoreError, Tx};

/// A cursor that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// In which log.
    pub log: LogId,
    /// In which life of it: nothing moves in another one.
    pub incarnation: Incarnation,
    /// Of which stay.
    pub from: Seq,
    /// Whereto. A cursor never moves back, past the head, or past the stay's end.
    pub to: Seq,
}

pub(super) struct Pending {
    pub(super) device: DeviceId,
    pub(super) advances: Vec<Advance>,
    pub(super) reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Pending {
    pub(super) fn answer(self, committed: Result<(), StoreError>) {
        // Whoever asked may be gone; what was committed stays.
        drop(self.reply.send(committed));
    }
}

const ADVANCE: &str = concat!(
    "WITH RECURSIVE ",
    packed::records!("n", "?1"),
    ", moved(log_id, from_seq, cursor, reader, incarnation) AS MATERIALIZED (SELECT ",
    packed::number!("?2", 0, 7),
    ", ",
    packed::number!("?2", 1, 7),
    ", ",
    packed::number!("?2", 2, 7),
    ", ",
    packed::text!("?2", "?3", 3, 7),
    ", ",
    packed::bytes!("?2", "?3", 5, 7),
    " FROM n) UPDATE reader SET cursor = MIN(a.cursor, COALESCE(reader.until_seq, a.cursor)) \
     FROM moved a CROSS JOIN log l ON l.id = a.log_id AND l.incarnation = a.incarnation AND l.head >= a.cursor \
     WHERE reader.log_id = a.log_id AND reader.reader = a.reader AND reader.from_seq = a.from_seq \
     AND reader.cursor < MIN(a.cursor, COALESCE(reader.until_seq, a.cursor))"
);

/// Moves all of them.
pub(super) async fn run(tx: &mut Tx, pending: &[Pending]) -> Result<(), StoreError> {
    // Of two for the same stay, the further one.
    let mut furthest: BTreeMap<(LogId, &str, Seq), Advance> = BTreeMap::new();
    for Pending { device, advances, .. } in pending {
        for advance in advances {
            let place = (advance.log, device.as_str(), advance.from);
            let best = furthest.entry(place).or_insert(*advance);
            if best.to < advance.to {
                *best = *advance;
            }
        }
    }
    if furthest.is_empty() {
        return Ok(());
    }
    let mut packed = Packed::default();
    for ((log, device, from), advance) in &furthest {
        packed.record().number(log.get()).number(int(from.get())).number(int(advance.to.get()));
        packed.bytes(device.as_bytes()).bytes(advance.incarnation.as_bytes());
    }
    let Inner::Sqlite(c) = &mut tx.inner else { return Err(StoreError::Closed) };
    sqlx::query(ADVANCE)
        .bind(packed.count)
        .bind(packed.numbers)
        .bind(packed.heap)
        .execute(&mut **c)
        .await
        .map_err(|e| tx.failed(e))?;
    Ok(())
}

/// The same, one by one.
pub(super) async fn one_by_one(
    tx: &mut Tx,
    device: DeviceId,
    advances: Vec<Advance>,
) -> Result<(), StoreError> {
    let reader = device.into();
    for advance in advances {
        if logs::get(tx, advance.log).await?.incarnation == advance.incarnation {
            readers::advance(tx, advance.log, &reader, advance.to).await?;
        }
    }
    Ok(())
}
