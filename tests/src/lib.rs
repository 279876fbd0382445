//! The harness: real node processes, real sockets, real databases, people with real clients, and faults in between.
//!
//! | module | holds |
//! |---|---|
//! | [`world`] | nodes, people and rooms of one test; shows the logs when it fails |
//! | [`node`] | one `waxwing-node` process: start, kill, stop, restart |
//! | [`device`] | one device of a person, driven in this process, and what it saw |
//! | [`disk`] | a small disk that can be filled |
//! | [`command`] | the `waxwing` program |
//! | [`peer`] | a peer that says what it likes |
//! | [`postgres`] | a schema of its own for a node on PostgreSQL |
//! | [`proxy`] | a TCP hop that can be cut, delayed, or made to lose a reply |
//! | [`ledger`] | what was sent and what each device shows, and the checker that compares them |
//! | [`chaos`] | SIGKILL and restart in the middle of traffic |
//! | [`scan`] | looks for a text in every byte that was stored or sent |
//! | [`inspect`] | looks into a node's database |
//! | [`seed`] | repeatable chance |

pub mod chaos;
pub mod command;
pub mod device;
pub mod disk;
pub mod folder;
pub mod inspect;
pub mod ledger;
pub mod node;
pub mod peer;
pub mod postgres;
pub mod proxy;
pub mod scan;
pub mod seed;
pub mod trouble;
pub mod world;

use std::future::Future;
use std::task::Poll;

pub use trouble::{Outcome, Trouble};

/// Runs futures that borrow, side by side; their results in the same order.
pub async fn together<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        let mut waits = false;
        for (future, result) in &mut running {
            if result.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(done) => *result = Some(done),
                    Poll::Pending => waits = true,
                }
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}
