//! The node itself: its name and this life of its database.

use protocol::{Domain, Incarnation, Timestamp};

use super::row::{Column, execute, fetch_one, fetch_optional, int, ms};
use super::{StoreError, Tx};

/// The row of `node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub domain: Domain,
    /// This life of its database.
    pub incarnation: Incarnation,
    /// When the database was made.
    pub created: Timestamp,
}

type Row = (String, Vec<u8>, i64);

impl TryFrom<Row> for Node {
    type Error = StoreError;
    fn try_from((domain, incarnation, created): Row) -> Result<Self, StoreError> {
        let incarnation = Column("node", "incarnation").bytes(&incarnation)?;
        Ok(Self {
            domain: Column("node", "domain").parse(&domain)?,
            incarnation: Incarnation::from_bytes(incarnation),
            created: Column("node", "created_ms").time(created)?,
        })
    }
}

/// The node.
///
/// # Errors
/// When the database fails.
pub async fn load(tx: &mut Tx) -> Result<Node, StoreError> {
    fetch_one!(tx, Row, "SELECT domain, incarnation, created_ms FROM node WHERE id = 1")?.try_into()
}

/// Writes `fresh` unless there is a node already; returns what is there.
pub(super) async fn ensure(tx: &mut Tx, fresh: Node) -> Result<Node, StoreError> {
    let found =
        fetch_optional!(tx, Row, "SELECT domain, incarnation, created_ms FROM node WHERE id = 1")?;
    if let Some(found) = found {
        return found.try_into();
    }
    execute!(
        tx,
        "INSERT INTO node (id, domain, incarnation, created_ms, aged_ms) VALUES (1, $1, $2, $3, $3) ON CONFLICT (id) DO NOTHING",
        fresh.domain.as_str(),
        fresh.incarnation.as_bytes().as_slice(),
        ms(fresh.created)
    )?;
    load(tx).await
}

/// Begins a new life after a restore: every number this node gives from now on belongs to `incarnation`, so none of a former life is
/// taken for one of this. Readers keep their place in what was restored. The life's ticks go on from `ticks`. PROTOCOL §4.4.
///
/// # Errors
/// When the database fails.
pub async fn new_incarnation(
    tx: &mut Tx,
    incarnation: &Incarnation,
    ticks: u64,
) -> Result<(), StoreError> {
    let bytes = incarnation.as_bytes().as_slice();
    execute!(tx, "UPDATE node SET incarnation = $1, ticks = $2 WHERE id = 1", bytes, int(ticks))?;
    execute!(tx, "UPDATE log SET incarnation = $1 WHERE kind <> 'replica'", bytes)?;
    Ok(())
}

/// How long a life has lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Which.
    pub incarnation: Incarnation,
    /// How often it ticked.
    pub ticks: u64,
}

impl Life {
    fn from_columns((incarnation, ticks): (Vec<u8>, i64)) -> Result<Self, StoreError> {
        Ok(Self {
            incarnation: Incarnation::from_bytes(
                Column("node", "incarnation").bytes(&incarnation)?,
            ),
            ticks: Column("node", "ticks").number(ticks)?,
        })
    }
}

/// How long this life has lasted.
///
/// # Errors
/// When the database fails.
pub async fn life(tx: &mut Tx) -> Result<Life, StoreError> {
    let row = fetch_one!(tx, (Vec<u8>, i64), "SELECT incarnation, ticks FROM node WHERE id = 1")?;
    Life::from_columns(row)
}

/// Makes this life one tick longer.
///
/// # Errors
/// When the database fails.
pub async fn tick(tx: &mut Tx) -> Result<Life, StoreError> {
    execute!(tx, "UPDATE node SET ticks = ticks + 1 WHERE id = 1")?;
    life(tx).await
}

/// How far time had gone when this was last written. `delivery::age`.
///
/// # Errors
/// When the database fails.
pub async fn aged(tx: &mut Tx) -> Result<Timestamp, StoreError> {
    let (aged,) = fetch_one!(tx, (i64,), "SELECT aged_ms FROM node WHERE id = 1")?;
    Column("node", "aged_ms").time(aged)
}

/// Writes how far time has gone; another process of the node may have written more.
///
/// # Errors
/// When the database fails.
pub async fn grow_old(tx: &mut Tx, aged: Timestamp) -> Result<(), StoreError> {
    execute!(tx, "UPDATE node SET aged_ms = $1 WHERE id = 1 AND aged_ms < $1", ms(aged))?;
    Ok(())
}
