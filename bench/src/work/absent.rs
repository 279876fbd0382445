//! Messages to somebody who is away; then that device comes and takes them in.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::gather::{self, Present};
use crate::letter::Person;
use crate::link::Event;
use crate::process::{self, Usage};
use crate::{Outcome, failed};

/// A sender has so many messages under way that the server has not confirmed.
const WINDOW: usize = 32;
/// Nothing comes for so long: what is missing is missing.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// What one half of the work gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Half {
    /// How long it took.
    pub seconds: f64,
    /// What the servers used.
    pub server: Usage,
    /// What this process used.
    pub load: Usage,
}

/// What it gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Absent {
    /// Messages confirmed.
    pub count: u64,
    /// Handing in.
    pub enqueue: Half,
    /// Taking in.
    pub drain: Half,
    /// Confirmed, and never came.
    pub lost: u64,
    /// Came more than once.
    pub doubled: u64,
    /// Came before an earlier one of the same sender.
    pub disordered: u64,
}

/// Does both halves.
///
/// # Errors
/// When the server refuses anything.
pub async fn run(senders: Vec<Person>, absent: Person, roots: &[u32]) -> Outcome<Absent> {
    let count: usize = senders.iter().map(|p| p.letters.len()).sum();
    let enqueue = hand_in_all(senders, roots).await?;
    // What the server still does behind the answers belongs to neither half.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut found = drain(absent, count, roots).await?;
    found.count = u64::try_from(count)?;
    found.enqueue = enqueue;
    Ok(found)
}

/// Hands everything in, and waits until all of it is confirmed.
///
/// # Errors
/// When the server refuses anything.
pub async fn hand_in_all(senders: Vec<Person>, roots: &[u32]) -> Outcome<Half> {
    let present = gather::all(senders).await?;
    let begun = begin(roots);
    let tasks: Vec<_> = present.into_iter().map(|p| tokio::spawn(hand_in(p))).collect();
    for task in tasks {
        task.await??;
    }
    Ok(begun.end(roots))
}

struct Begun(Instant, Usage, Usage);

fn begin(roots: &[u32]) -> Begun {
    Begun(Instant::now(), process::usage(roots), process::own())
}

impl Begun {
    fn end(&self, roots: &[u32]) -> Half {
        Half {
            seconds: self.0.elapsed().as_secs_f64(),
            server: process::usage(roots).since(self.1),
            load: process::own().since(self.2),
        }
    }
}

async fn hand_in(mut sender: Present) -> Outcome<()> {
    let mut under_way = 0_usize;
    for letter in &sender.letters {
        while under_way >= WINDOW {
            under_way -= usize::from(confirmed(&mut sender.link).await?);
        }
        sender.link.send(letter).await?;
        under_way += 1;
    }
    while under_way > 0 {
        under_way -= usize::from(confirmed(&mut sender.link).await?);
    }
    Ok(())
}

async fn confirmed(link: &mut crate::link::Link) -> Outcome<bool> {
    match timeout(Duration::from_mins(2), link.next()).await {
        Ok(event) => Ok(matches!(event?, Event::Accepted(_))),
        Err(_) => failed("the server confirms nothing any more"),
    }
}

async fn drain(absent: Person, count: usize, roots: &[u32]) -> Outcome<Absent> {
    let mut found = Absent::default();
    let mut newest: HashMap<u32, u32> = HashMap::new();
    let mut seen = std::collections::HashSet::with_capacity(count);
    let begun = begin(roots);
    let mut link = absent.account.connect(absent.seals).await?;
    while seen.len() < count {
        let Ok(event) = timeout(GIVEN_UP, link.next()).await else { break };
        let Event::Delivered(tag) = event? else { continue };
        if !seen.insert(tag) {
            found.doubled += 1;
            continue;
        }
        let before = newest.insert(tag.sender, tag.number);
        found.disordered += u64::from(before.is_some_and(|before| before > tag.number));
    }
    found.drain = begun.end(roots);
    found.lost = u64::try_from(count - seen.len())?;
    Ok(found)
}
