//! People of this node and the invitations that let them register. PROTOCOL §6.2.

use protocol::{Timestamp, UserId};

use super::row::{Column, execute, fetch_all, fetch_optional, limit, ms, row};
use super::{Inner, StoreError, Tx};

/// A person of this node.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub user: UserId,
    /// Their Ed25519 identity key, as the first device brought it.
    pub identity_key: [u8; 32],
    /// argon2id, as a PHC string.
    pub password_hash: String,
    /// When they registered.
    pub created: Timestamp,
    /// When they were suspended.
    pub suspended: Option<Timestamp>,
}

// Not derived: a password hash has no business in a log.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("user", &self.user).finish_non_exhaustive()
    }
}

row! {
    struct AccountRow {
        user_id: String, identity_key: Vec<u8>, password_hash: String, created_ms: i64, suspended_ms: Option<i64>,
    }
}

impl TryFrom<AccountRow> for Account {
    type Error = StoreError;
    fn try_from(r: AccountRow) -> Result<Self, StoreError> {
        Ok(Self {
            user: Column("account", "user_id").parse(&r.user_id)?,
            identity_key: Column("account", "identity_key").bytes(&r.identity_key)?,
            password_hash: r.password_hash,
            created: Column("account", "created_ms").time(r.created_ms)?,
            suspended: Column("account", "suspended_ms").time_opt(r.suspended_ms)?,
        })
    }
}

/// Writes a new account. False, and nothing changed, when the name is taken.
///
/// # Errors
/// When the database fails.
pub async fn create(tx: &mut Tx, account: &Account) -> Result<bool, StoreError> {
    let made = execute!(
        tx,
        "INSERT INTO account (user_id, identity_key, password_hash, created_ms, suspended_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id) DO NOTHING",
        account.user.as_str(),
        account.identity_key.as_slice(),
        account.password_hash.as_str(),
        ms(account.created),
        account.suspended.map(ms)
    )?;
    Ok(made > 0)
}

/// The account of that name.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut Tx, user: &UserId) -> Result<Option<Account>, StoreError> {
    fetch_optional!(
        tx,
        AccountRow,
        "SELECT user_id, identity_key, password_hash, created_ms, suspended_ms FROM account WHERE user_id = $1",
        user.as_str()
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// The account of that name, for a change: whoever else wants to change it or its devices waits until the transaction ends.
///
/// # Errors
/// When the database fails.
pub async fn lock(tx: &mut Tx, user: &UserId) -> Result<Option<Account>, StoreError> {
    if matches!(tx.inner, Inner::Sqlite(_)) {
        return find(tx, user).await;
    }
    fetch_optional!(
        tx,
        AccountRow,
        "SELECT user_id, identity_key, password_hash, created_ms, suspended_ms FROM account WHERE user_id = $1 FOR UPDATE",
        user.as_str()
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// Accounts by name after `after`, at most `max`.
///
/// # Errors
/// When the database fails.
pub async fn list(
    tx: &mut Tx,
    after: Option<&UserId>,
    max: usize,
) -> Result<Vec<Account>, StoreError> {
    let rows = fetch_all!(
        tx,
        AccountRow,
        "SELECT user_id, identity_key, password_hash, created_ms, suspended_ms FROM account WHERE user_id > $1 ORDER BY user_id LIMIT $2",
        after.map_or("", UserId::as_str),
        limit(max)
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Replaces the password. False when there is no such account.
///
/// # Errors
/// When the database fails.
pub async fn set_password(
    tx: &mut Tx,
    user: &UserId,
    password_hash: &str,
) -> Result<bool, StoreError> {
    let changed = execute!(
        tx,
        "UPDATE account SET password_hash = $2 WHERE user_id = $1",
        user.as_str(),
        password_hash
    )?;
    Ok(changed > 0)
}

/// Suspends an account, or lets it in again. False when there is no such account.
///
/// # Errors
/// When the database fails.
pub async fn suspend(
    tx: &mut Tx,
    user: &UserId,
    since: Option<Timestamp>,
) -> Result<bool, StoreError> {
    let changed = execute!(
        tx,
        "UPDATE account SET suspended_ms = $2 WHERE user_id = $1",
        user.as_str(),
        since.map(ms)
    )?;
    Ok(changed > 0)
}

/// Writes an invitation to register, known by the SHA-256 of its secret.
///
/// # Errors
/// When the database fails.
pub async fn create_invite(
    tx: &mut Tx,
    hash: &[u8; 32],
    created: Timestamp,
    expires: Timestamp,
) -> Result<(), StoreError> {
    execute!(
        tx,
        "INSERT INTO invite (hash, created_ms, expires_ms, used_by) VALUES ($1, $2, $3, NULL)",
        hash.as_slice(),
        ms(created),
        ms(expires)
    )?;
    Ok(())
}

/// Takes an invitation for `user`. True once; later only for the same user, so that a lost reply can be repeated.
///
/// # Errors
/// When the database fails.
pub async fn take_invite(
    tx: &mut Tx,
    hash: &[u8; 32],
    user: &UserId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let taken = execute!(
        tx,
        "UPDATE invite SET used_by = $2 WHERE hash = $1 AND ((used_by IS NULL AND expires_ms > $3) OR used_by = $2)",
        hash.as_slice(),
        user.as_str(),
        ms(now)
    )?;
    Ok(taken > 0)
}

/// Forgets invitations that expired before `before`.
///
/// # Errors
/// When the database fails.
pub async fn purge_invites(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    execute!(tx, "DELETE FROM invite WHERE expires_ms < $1", ms(before))
}
