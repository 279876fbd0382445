//! Pairs in a closed loop, and SIGKILL in the middle: is what the server had confirmed there afterwards, and does it arrive?

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::sleep;

use super::gather::{self, Present};
use crate::letter::{Person, Seals, Tag};
use crate::link::{Account, Event, Link};
use crate::server::Server;
use crate::{Outcome, failed};

/// After the restart, what comes to one comes without such a pause.
const QUIET_EACH: Duration = Duration::from_millis(500);
/// A server that listens may not let people in yet.
const LET_IN_WITHIN: Duration = Duration::from_secs(30);

/// What it gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Killed {
    /// Messages that the server had confirmed before it was killed.
    pub confirmed: u64,
    /// Of these: not with the recipient after everybody came back, and in no archive.
    pub lost: u64,
    /// Of these: not with the recipient, in its archive at best.
    pub undelivered: u64,
    /// Until the server answered again.
    pub restart: Duration,
}

#[derive(Default)]
struct Heard {
    confirmed: BTreeSet<Tag>,
    delivered: BTreeSet<Tag>,
}

impl Heard {
    fn take(&mut self, event: Event) {
        match event {
            Event::Accepted(tag) => drop(self.confirmed.insert(tag)),
            Event::Delivered(tag) => drop(self.delivered.insert(tag)),
            Event::Other => {}
        }
    }
}

/// Lets the pairs talk for `time`, kills, starts again, lets everybody come back.
///
/// # Errors
/// When the server does not come back.
pub async fn run(server: &mut Server, pairs: Vec<[Person; 2]>, time: Duration) -> Outcome<Killed> {
    let people: Vec<Person> = pairs.into_iter().flatten().collect();
    let again: Vec<_> = people.iter().map(|p| (p.account.clone(), p.seals.clone())).collect();
    let mut present = gather::all(people).await?.into_iter();
    let mut tasks = Vec::new();
    while let (Some(one), Some(other)) = (present.next(), present.next()) {
        tasks.push(tokio::spawn(talk(one, other)));
    }
    sleep(time).await;
    server.kill().await;
    let mut heard = Heard::default();
    for task in tasks {
        let more = task.await?;
        heard.confirmed.extend(more.confirmed);
        heard.delivered.extend(more.delivered);
    }
    if heard.confirmed.is_empty() {
        return failed("nothing was confirmed before the kill: it proves nothing");
    }
    let restart = server.resume().await?;
    let mut kept = heard.delivered.clone();
    let again: Vec<_> = again.into_iter().map(|(a, seals)| look_again(a, seals)).collect();
    let mut again = futures_util::stream::iter(again).buffer_unordered(gather::AT_ONCE);
    while let Some(found) = again.next().await {
        let (events, archived) = found?;
        for event in events {
            heard.take(event);
        }
        kept.extend(archived);
    }
    drop(again);
    kept.extend(&heard.delivered);
    let missing = |from: &BTreeSet<Tag>| heard.confirmed.difference(from).count();
    Ok(Killed {
        confirmed: u64::try_from(heard.confirmed.len())?,
        lost: u64::try_from(missing(&kept))?,
        undelivered: u64::try_from(missing(&heard.delivered))?,
        restart,
    })
}

/// Comes back; what comes by itself, and what the archive has.
async fn look_again(account: Account, seals: Arc<Seals>) -> Outcome<(VecDeque<Event>, Vec<Tag>)> {
    let mut link = come_back(&account, seals).await?;
    let events = link.settle(QUIET_EACH).await?;
    let archived = match &mut link {
        Link::Xmpp(stream) => stream.archive().await?,
        Link::Waxwing(_) => Vec::new(),
    };
    Ok((events, archived))
}

async fn come_back(account: &Account, seals: Arc<Seals>) -> Outcome<Link> {
    let end = tokio::time::Instant::now() + LET_IN_WITHIN;
    loop {
        match account.connect(seals.clone()).await {
            Ok(link) => return Ok(link),
            Err(e) if tokio::time::Instant::now() > end => return Err(e),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Until the connection breaks.
async fn talk(mut one: Present, mut other: Present) -> Heard {
    let mut heard = Heard::default();
    // The end of the connections is what this waits for.
    drop(exchange(&mut one, &mut other, &mut heard).await);
    // What had come but was not looked at yet.
    for side in [&mut one, &mut other] {
        while let Ok(event) = side.link.next().await {
            heard.take(event);
        }
    }
    heard
}

async fn exchange(one: &mut Present, other: &mut Present, heard: &mut Heard) -> Outcome<()> {
    let mut next = (0_usize, 0_usize);
    say(one, &mut next.0).await?;
    say(other, &mut next.1).await?;
    loop {
        let (event, by_other) = tokio::select! {
            event = one.link.next() => (event?, true),
            event = other.link.next() => (event?, false),
        };
        heard.take(event);
        match (event, by_other) {
            (Event::Delivered(_), true) => say(other, &mut next.1).await?,
            (Event::Delivered(_), false) => say(one, &mut next.0).await?,
            (Event::Accepted(_) | Event::Other, _) => {}
        }
    }
}

async fn say(side: &mut Present, next: &mut usize) -> Outcome<()> {
    let Some(letter) = side.letters.get(*next) else { return Ok(()) };
    *next += 1;
    side.link.send(letter).await
}
