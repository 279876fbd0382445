//! A hub group at rest: one blob with a checksum.

use openmls::prelude::PublicGroup;
use protocol::mimi::GroupInfoBytes;
use protocol::{DeviceId, RoomId, Timestamp};
use sha2::{Digest as _, Sha256};
use tls_codec::{Deserialize as _, TlsDeserialize, TlsSerialize, TlsSize, VLBytes};

use super::{HubGroup, Pending, PendingKind};
use crate::mls::{Storage, settings, wire};
use crate::{Error, Rows};

const VERSION: u8 = 1;
/// SHA-256, cut: it finds damage, not malice.
const CHECKSUM_BYTES: usize = 8;

#[derive(TlsSerialize, TlsDeserialize, TlsSize)]
struct Stored {
    version: u8,
    room: VLBytes,
    group_info: VLBytes,
    pending: Vec<StoredPending>,
    rows: Vec<StoredRow>,
}

#[derive(Debug, TlsSerialize, TlsDeserialize, TlsSize)]
struct StoredPending {
    kind: u8,
    leaf: u32,
    device: VLBytes,
    at_ms: u64,
    message: VLBytes,
}

#[derive(Debug, TlsSerialize, TlsDeserialize, TlsSize)]
struct StoredRow {
    key: VLBytes,
    value: VLBytes,
}

impl HubGroup {
    /// The whole state, with a checksum.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let pending = |p: &Pending| StoredPending {
            kind: match p.kind {
                PendingKind::SelfRemove => 1,
                PendingKind::Remove => 2,
            },
            leaf: p.leaf,
            device: p.device.as_str().as_bytes().into(),
            at_ms: p.at.ms(),
            message: p.message.as_slice().into(),
        };
        let row = |(key, value): (&[u8], &[u8])| StoredRow { key: key.into(), value: value.into() };
        let mut bytes = wire::encode(&Stored {
            version: VERSION,
            room: self.room.as_str().as_bytes().into(),
            group_info: self.group_info.as_slice().into(),
            pending: self.pending.iter().map(pending).collect(),
            rows: self.rows.iter().map(row).collect(),
        });
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Loads what [`Self::to_bytes`] saved.
    ///
    /// # Errors
    /// [`Error::Damaged`], found by a checksum.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        const DAMAGED: Error = Error::Damaged("a hub group");
        let (mut body, sum) =
            bytes.split_at_checked(bytes.len().saturating_sub(CHECKSUM_BYTES)).ok_or(DAMAGED)?;
        if checksum(body) != sum {
            return Err(DAMAGED);
        }
        let stored = Stored::tls_deserialize(&mut body).map_err(|_| DAMAGED)?;
        if stored.version != VERSION || !body.is_empty() {
            return Err(DAMAGED);
        }
        let text = |bytes: &VLBytes| String::from_utf8(bytes.as_slice().to_vec()).ok();
        let room = text(&stored.room).and_then(|t| RoomId::parse(&t).ok()).ok_or(DAMAGED)?;
        let pending = |p: &StoredPending| {
            Some(Pending {
                kind: match p.kind {
                    1 => PendingKind::SelfRemove,
                    2 => PendingKind::Remove,
                    _ => return None,
                },
                leaf: p.leaf,
                device: text(&p.device).and_then(|t| DeviceId::parse(&t).ok())?,
                at: Timestamp::from_ms(p.at_ms),
                message: p.message.as_slice().to_vec(),
            })
        };
        let rows = stored.rows.into_iter().map(|row| (row.key.into(), row.value.into()));
        let storage = Storage::one_blob(rows.collect::<Rows>());
        Ok(Self {
            mls: load(&room, &storage)?,
            room,
            rows: storage.into_rows(),
            group_info: GroupInfoBytes::parse(stored.group_info.as_slice()).map_err(|_| DAMAGED)?,
            pending: stored.pending.iter().map(pending).collect::<Option<_>>().ok_or(DAMAGED)?,
        })
    }
}

pub(super) fn load(room: &RoomId, storage: &Storage) -> Result<PublicGroup, Error> {
    PublicGroup::load(storage, &settings::group_id(room))
        .map_err(|e| Error::Mls(e.to_string()))?
        .ok_or(Error::Damaged("a row of a hub group is missing"))
}

fn checksum(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).iter().take(CHECKSUM_BYTES).copied().collect()
}
