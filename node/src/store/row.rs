//! From rows to types of the domain and back. What does not fit was not written by us: [`StoreError::Corrupt`].

use std::str::FromStr;

use protocol::{Seq, Timestamp};

use super::StoreError;

/// Runs one body on whichever database the transaction is on: the same text, checked by the compiler for both.
macro_rules! on_tx {
    ($tx:expr, $conn:ident => $body:expr) => {
        match &mut $tx.inner {
            $crate::store::Inner::Sqlite(t) => {
                let $conn = &mut **t;
                $body
            }
            $crate::store::Inner::Postgres(t) => {
                let $conn = &mut **t;
                $body
            }
        }
    };
}

/// A change of SQLite, with what is due before it.
macro_rules! under_savepoint {
    ($due:expr, $sql:literal) => {
        match $due {
            $crate::store::savepoint::Due::None => $sql,
            $crate::store::savepoint::Due::First => concat!("SAVEPOINT job; ", $sql),
            $crate::store::savepoint::Due::Next => {
                concat!("RELEASE SAVEPOINT job; SAVEPOINT job; ", $sql)
            }
        }
    };
}

/// Runs a statement that changes something and says how many rows it touched.
///
/// The savepoint of a job is set by its first change. In SQLite it goes along with that change, because every round trip to the
/// connection's thread costs as much as a statement.
macro_rules! execute {
    ($tx:expr, $sql:literal $(, $bind:expr)* $(,)?) => {{
        let due = $tx.savepoint_due();
        let result = match &mut $tx.inner {
            $crate::store::Inner::Sqlite(c) => {
                let sql = $crate::store::row::under_savepoint!(due, $sql);
                $crate::store::savepoint::run(&mut **c, sqlx::query(sql)$(.bind($bind))*).await
            }
            $crate::store::Inner::Postgres(c) => {
                sqlx::query($sql)$(.bind($bind))*.execute(&mut **c).await.map(|r| r.rows_affected())
            }
        };
        result.map_err(|e| $tx.failed(e))
    }};
}

/// Whether a text only reads; the others need the job's savepoint.
pub(super) const fn reads(sql: &str) -> bool {
    matches!(sql.as_bytes(), [b'S', b'E', b'L', b'E', b'C', b'T', b' ', ..])
}

/// Runs a query for exactly one row.
macro_rules! fetch_one {
    ($tx:expr, $row:ty, $sql:literal $(, $bind:expr)* $(,)?) => {{
        const { assert!($crate::store::row::reads($sql), "use change_optional") };
        $crate::store::row::on_tx!($tx, c => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_one(c).await)
            .map_err(|e| $tx.failed(e))
    }};
}

/// Runs a query for a row that may be absent.
macro_rules! fetch_optional {
    ($tx:expr, $row:ty, $sql:literal $(, $bind:expr)* $(,)?) => {{
        const { assert!($crate::store::row::reads($sql), "use change_optional") };
        $crate::store::row::on_tx!($tx, c => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_optional(c).await)
            .map_err(|e| $tx.failed(e))
    }};
}

/// Runs a query for a bounded list.
macro_rules! fetch_all {
    ($tx:expr, $row:ty, $sql:literal $(, $bind:expr)* $(,)?) => {{
        const { assert!($crate::store::row::reads($sql), "use change_all") };
        $crate::store::row::on_tx!($tx, c => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_all(c).await)
            .map_err(|e| $tx.failed(e))
    }};
}

/// Runs a change that returns at most one row. The savepoint goes along as in `execute`.
macro_rules! change_optional {
    ($tx:expr, $row:ty, $sql:literal $(, $bind:expr)* $(,)?) => {{
        let due = $tx.savepoint_due();
        let result = match &mut $tx.inner {
            $crate::store::Inner::Sqlite(c) => {
                let sql = $crate::store::row::under_savepoint!(due, $sql);
                sqlx::query_as::<_, $row>(sql)$(.bind($bind))*.fetch_optional(&mut **c).await
            }
            $crate::store::Inner::Postgres(c) => {
                sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_optional(&mut **c).await
            }
        };
        result.map_err(|e| $tx.failed(e))
    }};
}

/// Runs a change that returns a bounded list.
macro_rules! change_all {
    ($tx:expr, $row:ty, $sql:literal $(, $bind:expr)* $(,)?) => {
        match $crate::store::savepoint::set($tx).await {
            Ok(()) => $crate::store::row::on_tx!($tx, c => sqlx::query_as::<_, $row>($sql)$(.bind($bind))*.fetch_all(c).await)
                .map_err(|e| $tx.failed(e)),
            Err(e) => Err(e),
        }
    };
}

/// A row as both databases give it: fields are columns of the same name.
macro_rules! row {
    ($vis:vis struct $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $vis struct $name { $($vis $field: $type),* }
        impl<'r, R: sqlx::Row> sqlx::FromRow<'r, R> for $name
        where
            &'static str: sqlx::ColumnIndex<R>,
            $($type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,)*
        {
            fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: row.try_get(stringify!($field))?),* })
            }
        }
    };
}

pub(super) use {
    change_all, change_optional, execute, fetch_all, fetch_one, fetch_optional, on_tx, row,
    under_savepoint,
};

/// Which column of which table, for the error.
#[derive(Clone, Copy)]
pub(super) struct Column(pub &'static str, pub &'static str);

impl Column {
    pub(super) fn corrupt(self) -> StoreError {
        StoreError::Corrupt { table: self.0, column: self.1 }
    }

    /// A name, parsed.
    pub(super) fn parse<T: FromStr>(self, text: &str) -> Result<T, StoreError> {
        text.parse().map_err(|_| self.corrupt())
    }

    /// A fixed number of bytes.
    pub(super) fn bytes<const N: usize>(self, bytes: &[u8]) -> Result<[u8; N], StoreError> {
        bytes.try_into().map_err(|_| self.corrupt())
    }

    /// Any number that fits.
    pub(super) fn number<T: TryFrom<i64>>(self, n: i64) -> Result<T, StoreError> {
        n.try_into().map_err(|_| self.corrupt())
    }

    pub(super) fn seq(self, n: i64) -> Result<Seq, StoreError> {
        self.number(n).map(Seq::new)
    }

    pub(super) fn time(self, ms: i64) -> Result<Timestamp, StoreError> {
        self.number(ms).map(Timestamp::from_ms)
    }

    pub(super) fn time_opt(self, ms: Option<i64>) -> Result<Option<Timestamp>, StoreError> {
        ms.map(|ms| self.time(ms)).transpose()
    }
}

/// A count or number for the database. Stops at the largest it can hold, which nothing of ours reaches.
pub(super) fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A time for the database.
pub(super) fn ms(at: Timestamp) -> i64 {
    int(at.ms())
}

/// A bound of a list for the database.
pub(super) fn limit(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
