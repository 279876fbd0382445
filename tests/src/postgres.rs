//! A schema of its own for each test that runs a node on PostgreSQL.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::Outcome;
use crate::trouble::During as _;

/// Where the tests' PostgreSQL is; `cargo xtask test` sets it.
pub const VARIABLE: &str = "WAXWING_POSTGRES";

/// An address that leads into a new, empty schema; none when there is no PostgreSQL.
///
/// # Errors
/// When there is one and it does not answer.
pub async fn schema(name: &str) -> Outcome<Option<String>> {
    let Some(url) = std::env::var_os(VARIABLE).and_then(|v| v.into_string().ok()) else {
        return Ok(None);
    };
    let schema = format!("waxwing_{name}_{}", std::process::id());
    let options: PgConnectOptions = url.parse()?;
    let mut db = options.connect().await.during(VARIABLE)?;
    sqlx::query("SELECT set_config('waxwing.schema', $1, false)")
        .bind(&schema)
        .execute(&mut db)
        .await?;
    sqlx::raw_sql(
        "DO $$ BEGIN
            EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', current_setting('waxwing.schema'));
            EXECUTE format('CREATE SCHEMA %I', current_setting('waxwing.schema'));
         END $$",
    )
    .execute(&mut db)
    .await?;
    db.close().await?;
    let mark = if url.contains('?') { '&' } else { '?' };
    Ok(Some(format!("{url}{mark}options[search_path]={schema}")))
}
