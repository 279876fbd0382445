//! Rooms, their MLS rows, devices met, pinned identities, places in the rooms' logs, gaps.

use crypto::{Rows, WriteSet};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use protocol::api::GapReason;
use protocol::log::{Chain, Digest};
use protocol::{Cursor, DeviceId, Incarnation, RoomId, Seq, Timestamp, UserId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Tx, fixed, int, nat};
use crate::{Error, Result, RoomStatus};

/// Places kept per room, to compare with what others saw.
const PLACES: u64 = 2_048;

/// A room's number in this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RoomNo(pub(super) i64);

impl RoomNo {
    fn key(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// A room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoomRow {
    pub(crate) no: RoomNo,
    pub(crate) room: RoomId,
    pub(crate) name: Option<String>,
    pub(crate) suite: u16,
    pub(crate) status: RoomStatus,
    /// How far this device has taken in the log; `None` before the first entry.
    pub(crate) place: Option<Place>,
    /// This device's last message number.
    pub(crate) counter: u64,
    /// The hash of that message's content.
    pub(crate) prev: Option<[u8; 32]>,
}

/// A place in a room's log and the chain there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) cursor: Cursor,
    pub(crate) chain: Chain,
}

#[derive(Encode, Decode)]
struct RoomSecret {
    #[n(0)]
    room: RoomId,
    #[n(1)]
    name: Option<String>,
    #[n(2)]
    suite: u16,
    #[n(3)]
    held: Option<(Seq, String)>,
}

/// A person's pinned identity key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PinRow {
    #[n(0)]
    pub(crate) user: UserId,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) key: [u8; 32],
    #[n(2)]
    pub(crate) since: Timestamp,
    /// Another key that this person showed later and nobody has accepted.
    #[n(3)]
    pub(crate) other: Option<ByteVec>,
}

impl Tx<'_> {
    /// The room with this id.
    pub(crate) async fn room(&mut self, room: &RoomId) -> Result<Option<RoomRow>> {
        let tag = self.sealer.tag("room", room.as_str().as_bytes());
        let row = sqlx::query(
            "SELECT id, status, sealed, incarnation, seq, chain, counter, prev FROM room WHERE tag = $1",
        )
        .bind(tag.as_slice())
        .fetch_optional(self.conn())
        .await?;
        row.map(|r| self.room_row(&r)).transpose()
    }

    /// Every room, by number.
    pub(crate) async fn rooms(&mut self) -> Result<Vec<RoomRow>> {
        let rows = sqlx::query(
            "SELECT id, status, sealed, incarnation, seq, chain, counter, prev FROM room ORDER BY id",
        )
        .fetch_all(self.conn())
        .await?;
        rows.iter().map(|r| self.room_row(r)).collect()
    }

    fn room_row(&self, row: &SqliteRow) -> Result<RoomRow> {
        let no = RoomNo(row.try_get("id")?);
        let secret: RoomSecret = self.sealer.get("room", &no.key(), row.try_get("sealed")?)?;
        let status = match (row.try_get::<i64, _>("status")?, secret.held) {
            (0, _) => RoomStatus::Creating,
            (1, _) => RoomStatus::Joining,
            (2, _) => RoomStatus::Active,
            (3, Some((seq, reason))) => RoomStatus::Held { seq, reason },
            (4, _) => RoomStatus::Left,
            _ => return Err(Error::Corrupt { table: "room" }),
        };
        let incarnation: Option<Vec<u8>> = row.try_get("incarnation")?;
        let chain: Option<Vec<u8>> = row.try_get("chain")?;
        let seq = Seq::new(nat(row.try_get("seq")?, "room")?);
        let place = match (incarnation, chain) {
            (Some(incarnation), Some(chain)) => Some(Place {
                cursor: Cursor {
                    incarnation: Incarnation::from_bytes(fixed(&incarnation, "room")?),
                    seq,
                },
                chain: Chain::from_bytes(fixed(&chain, "room")?),
            }),
            _ => None,
        };
        let prev: Option<Vec<u8>> = row.try_get("prev")?;
        Ok(RoomRow {
            no,
            room: secret.room,
            name: secret.name,
            suite: secret.suite,
            status,
            place,
            counter: nat(row.try_get("counter")?, "room")?,
            prev: prev.map(|p| fixed(&p, "room")).transpose()?,
        })
    }

    /// Adds a room; the row as written.
    pub(crate) async fn add_room(
        &mut self,
        room: &RoomId,
        name: Option<String>,
        suite: u16,
        status: RoomStatus,
    ) -> Result<RoomRow> {
        let tag = self.sealer.tag("room", room.as_str().as_bytes());
        // The number goes into the seal's context, so it is chosen before the row is written.
        let (no,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(id), 0) + 1 FROM room")
            .fetch_one(self.conn())
            .await?;
        sqlx::query(
            "INSERT INTO room (id, tag, status, sealed, seq, counter) VALUES ($1, $2, 0, x'', 0, 0)",
        )
        .bind(no)
        .bind(tag.as_slice())
        .execute(self.conn())
        .await?;
        let row = RoomRow {
            no: RoomNo(no),
            room: room.clone(),
            name,
            suite,
            status,
            place: None,
            counter: 0,
            prev: None,
        };
        self.put_room(&row).await?;
        Ok(row)
    }

    /// Writes a room.
    pub(crate) async fn put_room(&mut self, row: &RoomRow) -> Result<()> {
        let (status, held) = match &row.status {
            RoomStatus::Creating => (0i64, None),
            RoomStatus::Joining => (1, None),
            RoomStatus::Active => (2, None),
            RoomStatus::Held { seq, reason } => (3, Some((*seq, reason.clone()))),
            RoomStatus::Left => (4, None),
        };
        let secret =
            RoomSecret { room: row.room.clone(), name: row.name.clone(), suite: row.suite, held };
        let sealed = self.sealer.put("room", &row.no.key(), &secret);
        let place = row.place;
        sqlx::query(
            "UPDATE room SET status = $2, sealed = $3, incarnation = $4, seq = $5, chain = $6,
                 counter = $7, prev = $8 WHERE id = $1",
        )
        .bind(row.no.0)
        .bind(status)
        .bind(sealed)
        .bind(place.map(|p| p.cursor.incarnation.as_bytes().to_vec()))
        .bind(place.map_or(0, |p| int(p.cursor.seq.get())))
        .bind(place.map(|p| p.chain.as_bytes().to_vec()))
        .bind(int(row.counter))
        .bind(row.prev.map(|p| p.to_vec()))
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// The MLS rows of a room; empty when it has none.
    pub(crate) async fn group_rows(&mut self, no: RoomNo) -> Result<Rows> {
        let rows = sqlx::query("SELECT tag, sealed FROM group_row WHERE room = $1")
            .bind(no.0)
            .fetch_all(self.conn())
            .await?;
        rows.iter()
            .map(|r| {
                let tag: Vec<u8> = r.try_get("tag")?;
                let (key, value): (ByteVec, ByteVec) =
                    self.sealer.get("group_row", &group_key(no, &tag), r.try_get("sealed")?)?;
                Ok((key.into(), value.into()))
            })
            .collect()
    }

    /// Writes what changed in a room's MLS state.
    pub(crate) async fn write_group(&mut self, no: RoomNo, writes: &WriteSet) -> Result<()> {
        for key in &writes.delete {
            let tag = self.sealer.tag("group_row", key);
            sqlx::query("DELETE FROM group_row WHERE room = $1 AND tag = $2")
                .bind(no.0)
                .bind(tag.as_slice())
                .execute(self.conn())
                .await?;
        }
        for (key, value) in &writes.put {
            let tag = self.sealer.tag("group_row", key);
            let pair = (ByteVec::from(key.clone()), ByteVec::from(value.clone()));
            let sealed = self.sealer.put("group_row", &group_key(no, &tag), &pair);
            sqlx::query(
                "INSERT INTO group_row (room, tag, sealed) VALUES ($1, $2, $3)
                 ON CONFLICT (room, tag) DO UPDATE SET sealed = excluded.sealed",
            )
            .bind(no.0)
            .bind(tag.as_slice())
            .bind(sealed)
            .execute(self.conn())
            .await?;
        }
        Ok(())
    }

    /// Drops a room's MLS state: this device is out, or never came in.
    pub(crate) async fn drop_group(&mut self, no: RoomNo) -> Result<()> {
        sqlx::query("DELETE FROM group_row WHERE room = $1")
            .bind(no.0)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// The number of a device, given on first use.
    pub(super) async fn device_no(&mut self, device: &DeviceId) -> Result<i64> {
        let tag = self.sealer.tag("device", device.as_str().as_bytes());
        let known = sqlx::query("SELECT id FROM device WHERE tag = $1")
            .bind(tag.as_slice())
            .fetch_optional(self.conn())
            .await?;
        if let Some(row) = known {
            return Ok(row.try_get("id")?);
        }
        let sealed = self.sealer.put("device", &tag, device);
        let (no,): (i64,) =
            sqlx::query_as("INSERT INTO device (tag, sealed) VALUES ($1, $2) RETURNING id")
                .bind(tag.as_slice())
                .bind(sealed)
                .fetch_one(self.conn())
                .await?;
        Ok(no)
    }

    /// The pinned identity of a person.
    pub(crate) async fn pin(&mut self, user: &UserId) -> Result<Option<PinRow>> {
        let tag = self.sealer.tag("pin", user.as_str().as_bytes());
        let row = sqlx::query("SELECT sealed FROM pin WHERE tag = $1")
            .bind(tag.as_slice())
            .fetch_optional(self.conn())
            .await?;
        row.map(|r| self.sealer.get("pin", &tag, r.try_get("sealed")?)).transpose()
    }

    /// Writes a pin.
    pub(crate) async fn put_pin(&mut self, pin: &PinRow) -> Result<()> {
        let tag = self.sealer.tag("pin", pin.user.as_str().as_bytes());
        let sealed = self.sealer.put("pin", &tag, pin);
        sqlx::query(
            "INSERT INTO pin (tag, sealed) VALUES ($1, $2)
             ON CONFLICT (tag) DO UPDATE SET sealed = excluded.sealed",
        )
        .bind(tag.as_slice())
        .bind(sealed)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Every pinned identity.
    pub(crate) async fn pins(&mut self) -> Result<Vec<PinRow>> {
        let rows = sqlx::query("SELECT tag, sealed FROM pin").fetch_all(self.conn()).await?;
        rows.iter()
            .map(|r| {
                let tag: Vec<u8> = r.try_get("tag")?;
                self.sealer.get("pin", &tag, r.try_get("sealed")?)
            })
            .collect()
    }

    /// Remembers an entry that was taken in, and forgets old ones.
    pub(crate) async fn add_place(
        &mut self,
        no: RoomNo,
        place: &Place,
        body: &Digest,
    ) -> Result<()> {
        let seq = place.cursor.seq.get();
        sqlx::query(
            "INSERT INTO place (room, seq, chain, body) VALUES ($1, $2, $3, $4)
             ON CONFLICT (room, seq) DO UPDATE SET chain = excluded.chain, body = excluded.body",
        )
        .bind(no.0)
        .bind(int(seq))
        .bind(place.chain.as_bytes().as_slice())
        .bind(body.as_bytes().as_slice())
        .execute(self.conn())
        .await?;
        if seq.is_multiple_of(64) {
            sqlx::query("DELETE FROM place WHERE room = $1 AND seq <= $2")
                .bind(no.0)
                .bind(int(seq.saturating_sub(PLACES)))
                .execute(self.conn())
                .await?;
        }
        Ok(())
    }

    /// The chain at an entry, if it was taken in and is still remembered.
    pub(crate) async fn chain_at(&mut self, no: RoomNo, seq: Seq) -> Result<Option<Chain>> {
        let row = sqlx::query("SELECT chain FROM place WHERE room = $1 AND seq = $2")
            .bind(no.0)
            .bind(int(seq.get()))
            .fetch_optional(self.conn())
            .await?;
        row.map(|r| Ok(Chain::from_bytes(fixed(r.try_get("chain")?, "place")?))).transpose()
    }

    /// Whether an entry with exactly this body was taken in before.
    pub(crate) async fn body_known(&mut self, no: RoomNo, body: &Digest) -> Result<bool> {
        let row = sqlx::query("SELECT 1 FROM place WHERE room = $1 AND body = $2 LIMIT 1")
            .bind(no.0)
            .bind(body.as_bytes().as_slice())
            .fetch_optional(self.conn())
            .await?;
        Ok(row.is_some())
    }

    /// Forgets the places of a room from `first` on: its hub lives another life and has something else there.
    pub(crate) async fn drop_places(&mut self, no: RoomNo, first: Seq) -> Result<()> {
        sqlx::query("DELETE FROM place WHERE room = $1 AND seq >= $2")
            .bind(no.0)
            .bind(int(first.get()))
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Remembers entries that cannot be shown; `None` is "cannot be decrypted here".
    pub(crate) async fn add_gap(
        &mut self,
        no: RoomNo,
        first: Seq,
        last: Seq,
        reason: Option<GapReason>,
    ) -> Result<()> {
        let reason = match reason {
            Some(GapReason::Expired) => 0i64,
            Some(GapReason::Lost) => 1,
            None => 2,
        };
        sqlx::query(
            "INSERT INTO gap (room, first, last, reason) VALUES ($1, $2, $3, $4)
             ON CONFLICT (room, first) DO NOTHING",
        )
        .bind(no.0)
        .bind(int(first.get()))
        .bind(int(last.get()))
        .bind(reason)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Entries of a room that cannot be shown, and why.
    pub(crate) async fn gaps(&mut self, no: RoomNo) -> Result<Vec<(Seq, Seq, Option<GapReason>)>> {
        let rows =
            sqlx::query("SELECT first, last, reason FROM gap WHERE room = $1 ORDER BY first")
                .bind(no.0)
                .fetch_all(self.conn())
                .await?;
        rows.iter()
            .map(|r| {
                let reason = match r.try_get::<i64, _>("reason")? {
                    0 => Some(GapReason::Expired),
                    1 => Some(GapReason::Lost),
                    _ => None,
                };
                let first = Seq::new(nat(r.try_get("first")?, "gap")?);
                Ok((first, Seq::new(nat(r.try_get("last")?, "gap")?), reason))
            })
            .collect()
    }
}

fn group_key(no: RoomNo, tag: &[u8]) -> Vec<u8> {
    [no.key().as_slice(), tag].concat()
}
