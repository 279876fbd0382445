//! KeyPackages of this device, public part and private keys.

use crypto::keypackage::{Made, Use};
use crypto::{KeyPackageRef, Rows, Suite};
use minicbor::bytes::ByteVec;
use protocol::Timestamp;
use sqlx::Row as _;

use super::{Tx, fixed, int, nat};
use crate::{Error, Result};

const TABLE: &str = "key_package";

/// A KeyPackage to upload.
#[derive(Clone, Debug)]
pub(crate) struct KeyPackageRow {
    pub(crate) reference: KeyPackageRef,
    pub(crate) what: Use,
    pub(crate) public: Vec<u8>,
}

impl Tx<'_> {
    /// Writes a fresh package, before the node hears of it.
    pub(crate) async fn add_key_package(
        &mut self,
        suite: Suite,
        what: Use,
        made: &Made,
        now: Timestamp,
    ) -> Result<()> {
        let rows: Vec<(ByteVec, ByteVec)> =
            made.private.iter().map(|(k, v)| (k.to_vec().into(), v.to_vec().into())).collect();
        let reference = made.reference.as_bytes().as_slice();
        sqlx::query(
            "INSERT INTO key_package
                 (reference, suite, last_resort, made_ms, not_after_ms, uploaded, public, sealed)
             VALUES ($1, $2, $3, $4, $5, 0, $6, $7)",
        )
        .bind(reference)
        .bind(i64::from(suite.code()))
        .bind(i64::from(what == Use::LastResort))
        .bind(int(now.ms()))
        .bind(int(made.not_after.ms()))
        .bind(self.sealer.seal("key_package public", reference, &made.public))
        .bind(self.sealer.put(TABLE, reference, &rows))
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Packages that the node may not have yet and that live until `alive` at least, the oldest first.
    pub(crate) async fn key_packages_to_upload(
        &mut self,
        alive: Timestamp,
        max: u32,
    ) -> Result<Vec<KeyPackageRow>> {
        let rows = sqlx::query(
            "SELECT reference, last_resort, public FROM key_package WHERE uploaded = 0 AND not_after_ms >= $1
             ORDER BY made_ms, reference LIMIT $2",
        )
        .bind(int(alive.ms()))
        .bind(max)
        .fetch_all(self.conn())
        .await?;
        rows.iter()
            .map(|r| {
                let last_resort = r.try_get::<i64, _>("last_resort")? == 1;
                let reference: [u8; 32] = fixed(r.try_get("reference")?, TABLE)?;
                let public =
                    self.sealer.open("key_package public", &reference, r.try_get("public")?)?;
                Ok(KeyPackageRow {
                    reference: KeyPackageRef::from_bytes(reference),
                    what: if last_resort { Use::LastResort } else { Use::Once },
                    public: public.to_vec(),
                })
            })
            .collect()
    }

    /// The node has it.
    pub(crate) async fn key_package_uploaded(&mut self, reference: &KeyPackageRef) -> Result<()> {
        sqlx::query("UPDATE key_package SET uploaded = 1 WHERE reference = $1")
            .bind(reference.as_bytes().as_slice())
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// When the newest last-resort package of a suite was made.
    pub(crate) async fn last_resort_made(&mut self, suite: Suite) -> Result<Option<Timestamp>> {
        let (made,): (Option<i64>,) = sqlx::query_as(
            "SELECT MAX(made_ms) FROM key_package WHERE suite = $1 AND last_resort = 1",
        )
        .bind(i64::from(suite.code()))
        .fetch_one(self.conn())
        .await?;
        made.map(|n| nat(n, TABLE).map(Timestamp::from_ms)).transpose()
    }

    /// The private keys of a package and whether it may be used again.
    pub(crate) async fn key_package(
        &mut self,
        reference: &KeyPackageRef,
    ) -> Result<Option<(Rows, Use)>> {
        let key = reference.as_bytes().as_slice();
        let row = sqlx::query("SELECT last_resort, sealed FROM key_package WHERE reference = $1")
            .bind(key)
            .fetch_optional(self.conn())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let rows: Vec<(ByteVec, ByteVec)> = self.sealer.get(TABLE, key, row.try_get("sealed")?)?;
        let rows = rows.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        let last_resort = row.try_get::<i64, _>("last_resort")? == 1;
        Ok(Some((rows, if last_resort { Use::LastResort } else { Use::Once })))
    }

    /// Forgets the private keys of a package: it was used.
    pub(crate) async fn drop_key_package(&mut self, reference: &KeyPackageRef) -> Result<()> {
        sqlx::query("DELETE FROM key_package WHERE reference = $1")
            .bind(reference.as_bytes().as_slice())
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Forgets packages that nobody can use any more; how many.
    pub(crate) async fn drop_expired_key_packages(&mut self, now: Timestamp) -> Result<u64> {
        let done = sqlx::query("DELETE FROM key_package WHERE not_after_ms < $1")
            .bind(int(now.ms()))
            .execute(self.conn())
            .await?;
        Ok(done.rows_affected())
    }
}

/// Where a suite's number on the wire is not one of ours.
pub(crate) fn suite(code: u16) -> Result<Suite> {
    Suite::from_code(code).ok_or(Error::Corrupt { table: "room" })
}
