//! The account row, and the inbox's cursor.

use std::fmt;

use crypto::{Certificate, DeviceIdentity, DeviceKey, IdentityKey};
use minicbor::{Decode, Encode};
use protocol::{Cursor, DeviceId, Domain, Incarnation, Seq, UserId};
use sqlx::Row as _;

use super::{Tx, fixed, int, nat};
use crate::net::NodeAddress;
use crate::{Error, Result};

const TABLE: &str = "account";

/// The person, this device, its keys, its node. Made before the node hears of it, so that a lost answer loses no key.
#[derive(Clone, Encode, Decode)]
pub(crate) struct Account {
    #[n(0)]
    pub(crate) stage: Stage,
    #[n(1)]
    pub(crate) user: UserId,
    #[n(2)]
    pub(crate) device: DeviceId,
    #[n(3)]
    pub(crate) device_name: String,
    #[n(4)]
    domain: Domain,
    #[n(5)]
    host: String,
    #[n(6)]
    port: u16,
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    node_key: [u8; 32],
    #[n(8)]
    #[cbor(with = "minicbor::bytes")]
    identity: [u8; 32],
    #[n(9)]
    #[cbor(with = "minicbor::bytes")]
    key: [u8; 32],
    #[n(10)]
    #[cbor(with = "minicbor::bytes")]
    certificate: Vec<u8>,
    /// The bearer token, once signed in.
    #[n(11)]
    pub(crate) token: Option<String>,
    /// The life of the node's database when this device connected last.
    #[n(12)]
    pub(crate) incarnation: Option<Incarnation>,
    /// The key with which the node proposes removals in rooms it hubs.
    #[n(13)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) hub_key: [u8; 32],
}

/// How far signing in has come.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Stage {
    /// The keys exist; the node may or may not know them. The hash is of the line's secret.
    #[n(0)]
    Pending(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        [u8; 32],
    ),
    /// Signed in.
    #[n(1)]
    Ready,
}

/// What a new account is made of.
pub(crate) struct NewAccount {
    pub(crate) node: NodeAddress,
    pub(crate) hub_key: [u8; 32],
    pub(crate) device_name: String,
    pub(crate) identity: IdentityKey,
    pub(crate) device: DeviceIdentity,
}

impl Account {
    pub(crate) fn new(new: NewAccount, stage: Stage) -> Self {
        let NewAccount { node, hub_key, device_name, identity, device } = new;
        Self {
            stage,
            user: device.device().user(),
            device: device.device().clone(),
            device_name,
            domain: node.domain,
            host: node.host,
            port: node.port,
            node_key: node.node_key,
            identity: *identity.to_bytes(),
            key: *device.key().to_bytes(),
            certificate: device.certificate().as_bytes().to_vec(),
            token: None,
            incarnation: None,
            hub_key,
        }
    }

    pub(crate) fn node(&self) -> NodeAddress {
        NodeAddress {
            domain: self.domain.clone(),
            host: self.host.clone(),
            port: self.port,
            node_key: self.node_key,
        }
    }

    /// The person's identity key.
    pub(crate) fn identity(&self) -> IdentityKey {
        IdentityKey::from_bytes(&self.identity)
    }

    /// The device's certificate.
    pub(crate) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The device's key and certificate.
    pub(crate) fn device_identity(&self) -> Result<DeviceIdentity> {
        let certificate =
            Certificate::verify(&self.certificate).map_err(|_| Error::Corrupt { table: TABLE })?;
        DeviceIdentity::new(DeviceKey::from_bytes(&self.key), certificate)
            .map_err(|_| Error::Corrupt { table: TABLE })
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}, …)", self.device)
    }
}

impl Tx<'_> {
    /// The account, if there is one.
    pub(crate) async fn account(&mut self) -> Result<Option<Account>> {
        let row = sqlx::query("SELECT sealed FROM account WHERE id = 1")
            .fetch_optional(self.conn())
            .await?;
        row.map(|r| self.sealer.get(TABLE, b"1", r.try_get("sealed")?)).transpose()
    }

    /// Writes the account.
    pub(crate) async fn put_account(&mut self, account: &Account) -> Result<()> {
        let sealed = self.sealer.put(TABLE, b"1", account);
        sqlx::query(
            "INSERT INTO account (id, sealed) VALUES (1, $1)
             ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed",
        )
        .bind(sealed)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// How far the inbox was taken in; `None` before its first item.
    pub(crate) async fn inbox(&mut self) -> Result<Option<Cursor>> {
        let row = sqlx::query("SELECT incarnation, seq FROM inbox WHERE id = 1")
            .fetch_optional(self.conn())
            .await?;
        row.map(|r| {
            Ok(Cursor {
                incarnation: Incarnation::from_bytes(fixed(r.try_get("incarnation")?, "inbox")?),
                seq: Seq::new(nat(r.try_get("seq")?, "inbox")?),
            })
        })
        .transpose()
    }

    /// Writes how far the inbox was taken in.
    pub(crate) async fn put_inbox(&mut self, cursor: Cursor) -> Result<()> {
        sqlx::query(
            "INSERT INTO inbox (id, incarnation, seq) VALUES (1, $1, $2)
             ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, seq = excluded.seq",
        )
        .bind(cursor.incarnation.as_bytes().as_slice())
        .bind(int(cursor.seq.get()))
        .execute(self.conn())
        .await?;
        Ok(())
    }
}
