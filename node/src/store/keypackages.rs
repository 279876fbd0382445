//! KeyPackages: each is handed out once; the last resort of a suite again and again, when no other is left. PROTOCOL §6.4.

use protocol::{DeviceId, Timestamp, UserId};

use super::row::{Column, change_all, execute, fetch_all, fetch_optional, limit, ms};
use super::{StoreError, Tx, accounts};

/// How often a KeyPackage may be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Once.
    Once,
    /// Whenever no other is left.
    LastResort,
}

impl Use {
    const fn column(self) -> i64 {
        match self {
            Self::Once => 0,
            Self::LastResort => 1,
        }
    }

    fn from_column(n: i64) -> Result<Self, StoreError> {
        match n {
            0 => Ok(Self::Once),
            1 => Ok(Self::LastResort),
            _ => Err(Column("keypackage", "last_resort").corrupt()),
        }
    }
}

/// A KeyPackage on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPackage {
    /// The MLS `KeyPackageRef`.
    pub reference: Vec<u8>,
    /// Whose.
    pub device: DeviceId,
    /// The MLS cipher suite.
    pub suite: u16,
    /// The MLS `KeyPackage`.
    pub body: Vec<u8>,
    /// The end of its lifetime.
    pub not_after: Timestamp,
    /// How often it may be handed out.
    pub usage: Use,
}

/// Puts a KeyPackage on offer; once, however often it is uploaded, handed out meanwhile or not. A last resort takes the place of the
/// former one of its device and suite. Says whether it was new.
///
/// # Errors
/// When the database fails.
pub async fn add(tx: &mut Tx, package: &KeyPackage) -> Result<bool, StoreError> {
    let added = execute!(
        tx,
        "INSERT INTO keypackage (reference, device, suite, body, not_after_ms, last_resort, claimed_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, NULL) ON CONFLICT (reference) DO NOTHING",
        package.reference.as_slice(),
        package.device.as_str(),
        i64::from(package.suite),
        package.body.as_slice(),
        ms(package.not_after),
        package.usage.column()
    )?;
    if added > 0 && package.usage == Use::LastResort {
        execute!(
            tx,
            "DELETE FROM keypackage WHERE device = $1 AND suite = $2 AND last_resort = 1 AND reference <> $3",
            package.device.as_str(),
            i64::from(package.suite),
            package.reference.as_slice()
        )?;
    }
    Ok(added > 0)
}

type ClaimRow = (Vec<u8>, String, i64, Vec<u8>, i64, i64);

/// Hands out one KeyPackage for each device of `user` that has one of `suite` living until `alive_at` at least: a one-time one if there
/// is any, the one that ends soonest first. A device without any is not in the answer.
///
/// # Errors
/// When the database fails.
pub async fn claim(
    tx: &mut Tx,
    user: &UserId,
    suite: u16,
    alive_at: Timestamp,
    now: Timestamp,
) -> Result<Vec<KeyPackage>, StoreError> {
    // The lock keeps two processes from handing out the same package.
    match accounts::lock(tx, user).await? {
        Some(account) if account.suspended.is_none() => {}
        _ => return Ok(Vec::new()),
    }
    let rows = change_all!(
        tx,
        ClaimRow,
        "UPDATE keypackage SET claimed_ms = $4 WHERE reference IN (\
           SELECT reference FROM (\
             SELECT k.reference, ROW_NUMBER() OVER (PARTITION BY k.device ORDER BY k.last_resort, k.not_after_ms, k.reference) AS place \
             FROM device d JOIN keypackage k ON k.device = d.device \
             WHERE d.user_id = $1 AND d.revoked_ms IS NULL AND k.suite = $2 AND k.not_after_ms >= $3 \
             AND (k.last_resort = 1 OR k.claimed_ms IS NULL)) ranked \
           WHERE place = 1) \
         RETURNING reference, device, suite, body, not_after_ms, last_resort",
        user.as_str(),
        i64::from(suite),
        ms(alive_at),
        ms(now)
    )?;
    let mut packages = rows
        .into_iter()
        .map(|(reference, device, suite, body, not_after, last_resort)| {
            Ok(KeyPackage {
                reference,
                device: Column("keypackage", "device").parse(&device)?,
                suite: Column("keypackage", "suite").number(suite)?,
                body,
                not_after: Column("keypackage", "not_after_ms").time(not_after)?,
                usage: Use::from_column(last_resort)?,
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    packages.sort_by(|a, b| a.device.cmp(&b.device));
    Ok(packages)
}

/// One-time KeyPackages of a device that are still on offer and live until `alive_at` at least, by suite. A suite with none left is not in it.
///
/// # Errors
/// When the database fails.
pub async fn count(
    tx: &mut Tx,
    device: &DeviceId,
    alive_at: Timestamp,
) -> Result<Vec<(u16, u32)>, StoreError> {
    let rows = fetch_all!(
        tx,
        (i64, i64),
        "SELECT suite, COUNT(*) FROM keypackage WHERE device = $1 AND last_resort = 0 AND claimed_ms IS NULL AND not_after_ms >= $2 \
         GROUP BY suite ORDER BY suite",
        device.as_str(),
        ms(alive_at)
    )?;
    rows.into_iter()
        .map(|(suite, n)| {
            let suite = Column("keypackage", "suite").number(suite)?;
            Ok((suite, Column("keypackage", "reference").number(n)?))
        })
        .collect()
}

/// Whose KeyPackage it is, handed out or not: the device that a Welcome is for.
///
/// # Errors
/// When the database fails.
pub async fn device_of(tx: &mut Tx, reference: &[u8]) -> Result<Option<DeviceId>, StoreError> {
    let row = fetch_optional!(
        tx,
        (String,),
        "SELECT device FROM keypackage WHERE reference = $1",
        reference
    )?;
    row.map(|(device,)| Column("keypackage", "device").parse(&device)).transpose()
}

/// Forgets KeyPackages whose lifetime ended before `before`, at most `max`.
///
/// # Errors
/// When the database fails.
pub async fn purge(tx: &mut Tx, before: Timestamp, max: usize) -> Result<u64, StoreError> {
    execute!(
        tx,
        "DELETE FROM keypackage WHERE reference IN (SELECT reference FROM keypackage WHERE not_after_ms < $1 ORDER BY not_after_ms LIMIT $2)",
        ms(before),
        limit(max)
    )
}
