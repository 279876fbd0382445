//! Lets people sign in, many at a time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::Outcome;
use crate::letter::{Letter, Person, Seals};
use crate::link::{Account, Link};

/// So many sign in at the same time.
pub const AT_ONCE: usize = 64;
/// Nothing has come for so long: what was left over from before is over.
const QUIET: Duration = Duration::from_millis(400);

/// Somebody who is connected.
pub struct Present {
    /// The connection.
    pub link: Link,
    /// What to say.
    pub letters: Vec<Letter>,
}

/// Connects one, and takes in what was left over.
///
/// # Errors
/// When the server refuses.
pub async fn one(person: Person) -> Outcome<Present> {
    let mut link = person.account.connect(person.seals).await?;
    link.settle(QUIET).await?;
    Ok(Present { link, letters: person.letters })
}

/// Connects all, in order.
///
/// # Errors
/// When the server refuses anybody.
pub async fn all(people: Vec<Person>) -> Outcome<Vec<Present>> {
    futures_util::stream::iter(people.into_iter().map(one)).buffered(AT_ONCE).try_collect().await
}

/// Connects accounts that have nothing to say.
///
/// # Errors
/// When the server refuses anybody.
pub async fn links(accounts: &[Account]) -> Outcome<Vec<Link>> {
    let connect = |account: Account| async move { account.connect(Arc::<Seals>::default()).await };
    let connecting: Vec<_> = accounts.iter().cloned().map(connect).collect();
    futures_util::stream::iter(connecting).buffer_unordered(AT_ONCE).try_collect().await
}
