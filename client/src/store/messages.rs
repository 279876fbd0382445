//! Timelines: every message once, in the order of PROTOCOL §7.6.

use std::collections::BTreeMap;

use delivery::sender::{self, Finding, Header, Neighbours, Seen};
use delivery::timeline;
use protocol::log::Digest;
use protocol::{DeviceId, MessageId, Seq, SubmitId, Timestamp};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::rooms::RoomNo;
use super::{Tx, fixed, int, nat};
use crate::room::MessageKey;
use crate::{Error, Flag, Result};

/// The seq of a message that has no place yet: behind everything that has one.
pub(crate) const PENDING: Seq = Seq::new(i64::MAX as u64);

const TABLE: &str = "message";
const COLUMNS: [(i64, Flag); 4] =
    [(1, Flag::GapBefore), (2, Flag::Repeat), (4, Flag::BrokenChain), (8, Flag::Fork)];

/// A message for the timeline.
#[derive(Clone, Debug)]
pub(crate) struct NewMessage {
    pub(crate) device: DeviceId,
    pub(crate) counter: u64,
    /// The hash of the content before it, as its sender claims.
    pub(crate) prev: Option<[u8; 32]>,
    pub(crate) message_id: MessageId,
    /// [`PENDING`] for a message of this device that just was written.
    pub(crate) seq: Seq,
    pub(crate) at: Option<Timestamp>,
    pub(crate) written: Timestamp,
    /// How the history its sender saw compares with ours.
    pub(crate) seen: Seen,
    /// The submission, when this device wrote it.
    pub(crate) submit_id: Option<SubmitId>,
    pub(crate) content: Vec<u8>,
}

/// A message as the timeline has it.
#[derive(Clone, Debug)]
pub(crate) struct MessageRow {
    pub(crate) key: MessageKey,
    pub(crate) device: DeviceId,
    pub(crate) message_id: MessageId,
    pub(crate) submit_id: Option<SubmitId>,
    pub(crate) at: Option<Timestamp>,
    pub(crate) written: Timestamp,
    pub(crate) flags: Vec<Flag>,
    pub(crate) content: Vec<u8>,
}

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It is new.
    New,
    /// It was there already.
    Known,
}

/// The place that a message of this device got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo {
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
}

impl Tx<'_> {
    /// Takes a message in. One that is known keeps the lower of its two seqs.
    pub(crate) async fn add_message(&mut self, no: RoomNo, new: &NewMessage) -> Result<Inserted> {
        let device = self.device_no(&new.device).await?;
        let known = sqlx::query("SELECT seq FROM message WHERE room = $1 AND message_id = $2")
            .bind(no.0)
            .bind(new.message_id.as_bytes().as_slice())
            .fetch_optional(self.conn())
            .await?;
        if let Some(row) = known {
            let seq = Seq::new(nat(row.try_get("seq")?, TABLE)?);
            if new.seq < seq {
                let echo = Echo { seq: new.seq, at: new.at.unwrap_or(new.written) };
                self.place_message(no, &new.message_id, echo).await?;
            }
            return Ok(Inserted::Known);
        }
        let anchor = self.anchor(no, device, new.counter, new.seq).await?;
        let hash = *Digest::of_bytes(&new.content).as_bytes();
        let header = Header {
            counter: new.counter,
            content: Digest::from_bytes(hash),
            prev: new.prev.map(Digest::from_bytes),
        };
        let neighbours = self.neighbours(no, device, &header).await?;
        let flags = bits(&sender::check(&header, &neighbours, new.seen));
        let row_key = message_key(no, &new.message_id);
        sqlx::query(
            "INSERT INTO message (room, device, counter, seq, anchor, message_id, at_ms, written_ms,
                 content, prev, flags, submit_id, sealed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(no.0)
        .bind(device)
        .bind(int(new.counter))
        .bind(int(new.seq.get()))
        .bind(int(anchor.get()))
        .bind(new.message_id.as_bytes().as_slice())
        .bind(new.at.map(|t| int(t.ms())))
        .bind(int(new.written.ms()))
        .bind(hash.as_slice())
        .bind(new.prev.map(|p| p.to_vec()))
        .bind(flags)
        .bind(new.submit_id.map(|s| s.as_bytes().to_vec()))
        .bind(self.sealer.seal(TABLE, &row_key, &new.content))
        .execute(self.conn())
        .await?;
        self.pull_forward(no, device, new.counter, anchor).await?;
        self.check_next(no, device, new.counter).await?;
        Ok(Inserted::New)
    }

    /// Gives a message its place in the room's log.
    pub(crate) async fn place_message(
        &mut self,
        no: RoomNo,
        message_id: &MessageId,
        echo: Echo,
    ) -> Result<()> {
        let row = sqlx::query(
            "UPDATE message SET seq = $3, at_ms = $4, anchor = MIN(anchor, $3)
             WHERE room = $1 AND message_id = $2 AND seq > $3 RETURNING device, counter, anchor",
        )
        .bind(no.0)
        .bind(message_id.as_bytes().as_slice())
        .bind(int(echo.seq.get()))
        .bind(int(echo.at.ms()))
        .fetch_optional(self.conn())
        .await?;
        let Some(row) = row else { return Ok(()) };
        let counter = nat(row.try_get("counter")?, TABLE)?;
        let anchor = Seq::new(nat(row.try_get("anchor")?, TABLE)?);
        self.pull_forward(no, row.try_get("device")?, counter, anchor).await
    }

    /// Anchors never fall as a device's counters rise, so the next counter's anchor is the least of all that follow.
    async fn anchor(&mut self, no: RoomNo, device: i64, counter: u64, seq: Seq) -> Result<Seq> {
        let least: Option<(i64,)> = sqlx::query_as(
            "SELECT anchor FROM message WHERE room = $1 AND device = $2 AND counter >= $3
             ORDER BY counter LIMIT 1",
        )
        .bind(no.0)
        .bind(device)
        .bind(int(counter))
        .fetch_optional(self.conn())
        .await?;
        let least = least.map(|(n,)| nat(n, TABLE).map(Seq::new)).transpose()?;
        Ok(timeline::place(counter, seq, least).anchor)
    }

    /// Messages that their sender wrote before this one are not shown after it. As anchors never fall, those that have
    /// to move are the last before it: the search goes back as far as there is something to move and no further.
    async fn pull_forward(
        &mut self,
        no: RoomNo,
        device: i64,
        counter: u64,
        anchor: Seq,
    ) -> Result<()> {
        sqlx::query(
            "UPDATE message SET anchor = $4
             WHERE room = $1 AND device = $2 AND counter <= $3 AND anchor > $4
               AND counter > COALESCE(
                 (SELECT counter FROM message
                  WHERE room = $1 AND device = $2 AND counter < $3 AND anchor <= $4
                  ORDER BY counter DESC LIMIT 1), -1)",
        )
        .bind(no.0)
        .bind(device)
        .bind(int(counter))
        .bind(int(anchor.get()))
        .execute(self.conn())
        .await?;
        Ok(())
    }

    async fn neighbours(&mut self, no: RoomNo, device: i64, of: &Header) -> Result<Neighbours> {
        let before = sqlx::query(
            "SELECT counter, content, prev FROM message
             WHERE room = $1 AND device = $2 AND counter < $3 ORDER BY counter DESC LIMIT 1",
        )
        .bind(no.0)
        .bind(device)
        .bind(int(of.counter))
        .fetch_optional(self.conn())
        .await?;
        let same = sqlx::query(
            "SELECT counter, content, prev FROM message
             WHERE room = $1 AND device = $2 AND counter = $3 AND content <> $4 LIMIT 1",
        )
        .bind(no.0)
        .bind(device)
        .bind(int(of.counter))
        .bind(of.content.as_bytes().as_slice())
        .fetch_optional(self.conn())
        .await?;
        let header = |row: Option<SqliteRow>| row.as_ref().map(header).transpose();
        Ok(Neighbours { before: header(before)?, same: header(same)? })
    }

    /// What is odd about a message depends on the one before it, so a newcomer changes what its successor shows.
    async fn check_next(&mut self, no: RoomNo, device: i64, counter: u64) -> Result<()> {
        let next = sqlx::query(
            "SELECT counter, content, prev, flags, message_id FROM message
             WHERE room = $1 AND device = $2 AND counter > $3 ORDER BY counter LIMIT 1",
        )
        .bind(no.0)
        .bind(device)
        .bind(int(counter))
        .fetch_optional(self.conn())
        .await?;
        let Some(row) = next else { return Ok(()) };
        let of = header(&row)?;
        let neighbours = self.neighbours(no, device, &of).await?;
        // What its sender saw of the room was compared when it came.
        let forked = row.try_get::<i64, _>("flags")? & 8;
        let flags = bits(&sender::check(&of, &neighbours, Seen::Unknown)) | forked;
        sqlx::query("UPDATE message SET flags = $3 WHERE room = $1 AND message_id = $2")
            .bind(no.0)
            .bind(row.try_get::<Vec<u8>, _>("message_id")?)
            .bind(flags)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// One message.
    pub(crate) async fn message(
        &mut self,
        no: RoomNo,
        message_id: &MessageId,
    ) -> Result<Option<MessageRow>> {
        let rows = sqlx::query(
            "SELECT m.anchor, m.counter, m.seq, m.message_id, m.at_ms, m.written_ms, m.flags,
                 m.submit_id, m.sealed, d.tag, d.sealed AS device_sealed
             FROM message m JOIN device d ON d.id = m.device
             WHERE m.room = $1 AND m.message_id = $2",
        )
        .bind(no.0)
        .bind(message_id.as_bytes().as_slice())
        .fetch_all(self.conn())
        .await?;
        Ok(self.message_rows(no, &rows)?.pop())
    }

    /// The first `max` messages after `after`, in order.
    pub(crate) async fn timeline(
        &mut self,
        no: RoomNo,
        after: Option<MessageKey>,
        max: u32,
    ) -> Result<Vec<MessageRow>> {
        let after = after.unwrap_or(MessageKey { anchor: 0, counter: 0, seq: 0 });
        let rows = sqlx::query(
            "SELECT m.anchor, m.counter, m.seq, m.message_id, m.at_ms, m.written_ms, m.flags,
                 m.submit_id, m.sealed, d.tag, d.sealed AS device_sealed
             FROM message m JOIN device d ON d.id = m.device
             WHERE m.room = $1 AND (m.anchor, m.counter, m.seq) > ($2, $3, $4)
             ORDER BY m.anchor, m.counter, m.seq LIMIT $5",
        )
        .bind(no.0)
        .bind(int(after.anchor))
        .bind(int(after.counter))
        .bind(int(after.seq))
        .bind(max)
        .fetch_all(self.conn())
        .await?;
        self.message_rows(no, &rows)
    }

    /// The last `max` messages, in order.
    pub(crate) async fn latest(&mut self, no: RoomNo, max: u32) -> Result<Vec<MessageRow>> {
        let rows = sqlx::query(
            "SELECT m.anchor, m.counter, m.seq, m.message_id, m.at_ms, m.written_ms, m.flags,
                 m.submit_id, m.sealed, d.tag, d.sealed AS device_sealed
             FROM message m JOIN device d ON d.id = m.device
             WHERE m.room = $1
             ORDER BY m.anchor DESC, m.counter DESC, m.seq DESC LIMIT $2",
        )
        .bind(no.0)
        .bind(max)
        .fetch_all(self.conn())
        .await?;
        let mut rows = self.message_rows(no, &rows)?;
        rows.reverse();
        Ok(rows)
    }

    fn message_rows(&self, no: RoomNo, rows: &[SqliteRow]) -> Result<Vec<MessageRow>> {
        let mut devices: BTreeMap<Vec<u8>, DeviceId> = BTreeMap::new();
        rows.iter()
            .map(|r| {
                let tag: Vec<u8> = r.try_get("tag")?;
                let device = if let Some(device) = devices.get(&tag) {
                    device.clone()
                } else {
                    let sealed = r.try_get("device_sealed")?;
                    let device: DeviceId = self.sealer.get("device", &tag, sealed)?;
                    devices.insert(tag, device.clone());
                    device
                };
                self.message_row(no, r, device)
            })
            .collect()
    }

    fn message_row(&self, no: RoomNo, row: &SqliteRow, device: DeviceId) -> Result<MessageRow> {
        let message_id = MessageId::from_bytes(fixed(row.try_get("message_id")?, TABLE)?);
        let submit_id: Option<Vec<u8>> = row.try_get("submit_id")?;
        let set: i64 = row.try_get("flags")?;
        let ms = |n: i64| nat(n, TABLE).map(Timestamp::from_ms);
        let content =
            self.sealer.open(TABLE, &message_key(no, &message_id), row.try_get("sealed")?)?;
        Ok(MessageRow {
            key: MessageKey {
                anchor: nat(row.try_get("anchor")?, TABLE)?,
                counter: nat(row.try_get("counter")?, TABLE)?,
                seq: nat(row.try_get("seq")?, TABLE)?,
            },
            device,
            message_id,
            submit_id: submit_id
                .map(|s| SubmitId::from_slice(&s).ok_or(Error::Corrupt { table: TABLE }))
                .transpose()?,
            at: row.try_get::<Option<i64>, _>("at_ms")?.map(ms).transpose()?,
            written: ms(row.try_get("written_ms")?)?,
            flags: COLUMNS.iter().filter(|(bit, _)| set & bit != 0).map(|(_, f)| *f).collect(),
            content: content.to_vec(),
        })
    }
}

fn message_key(no: RoomNo, message_id: &MessageId) -> Vec<u8> {
    [no.0.to_be_bytes().as_slice(), message_id.as_bytes()].concat()
}

fn header(row: &SqliteRow) -> Result<Header> {
    let prev: Option<Vec<u8>> = row.try_get("prev")?;
    Ok(Header {
        counter: nat(row.try_get("counter")?, TABLE)?,
        content: Digest::from_bytes(fixed(row.try_get("content")?, TABLE)?),
        prev: prev.map(|p| fixed(&p, TABLE).map(Digest::from_bytes)).transpose()?,
    })
}

fn bits(findings: &[Finding]) -> i64 {
    findings.iter().fold(0, |bits, finding| {
        bits | match finding {
            Finding::Missing { .. } => 1,
            Finding::Repeated => 2,
            Finding::Broken => 4,
            Finding::Forked => 8,
        }
    })
}
