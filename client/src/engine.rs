//! The background work: connect, take in, hand over, carry out; and again, with a wait, whenever the network goes away.
//!
//! Everything that must survive is a row before anything waits for it, so this can be dropped at any point: what was
//! under way is found again in the rows.

mod commands;
mod link;
mod upkeep;

pub(crate) use upkeep::{expel, learn_devices, replenish};

use std::sync::Arc;
use std::time::Duration;

use delivery::backoff::{Backoff, uniform};
use protocol::api::{NodeInfo, ToDevice};
use protocol::{Code, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::event::{Alarm, AlarmKind, Event};
use crate::inner::Inner;
use crate::{Error, Result, stream};

/// How long the node may take to say hello.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// Runs until the client is stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut attempt = 0;
    loop {
        let mut window = None;
        let ended = tokio::select! {
            () = inner.stop.cancelled() => None,
            ended = session(&inner, &mut window) => Some(ended),
        };
        inner.core().await.set_online(false);
        let Some(ended) = ended else { return };
        let error = match ended {
            // The stream ended because the client was stopped.
            Ok(()) => return,
            Err(error) => error,
        };
        tracing::info!(code = error.code(), "the stream to the node is down");
        inner.tell(Event::Disconnected { cause: error.sentence() });
        if signed_out(&error) {
            inner.tell(Event::Alarm(Alarm {
                kind: AlarmKind::SignedOut,
                room: None,
                device: Some(inner.who.device.clone()),
                sentence: error.sentence(),
            }));
            return;
        }
        let jitter = inner.world.entropy.jitter();
        // Whoever was connected comes back within the window that the node set; whoever was not backs off, until
        // its user wants something.
        let (wait, soonest) = if let Some(window) = window {
            attempt = 0;
            let wait = uniform(window, jitter);
            (wait, wait)
        } else {
            attempt += 1;
            let floor = error.retry_after();
            let delay = |attempt| Backoff::STANDARD.delay(attempt, jitter, floor);
            (delay(attempt - 1), delay(0))
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = pause(&inner.wake, soonest, wait) => {}
        }
    }
}

/// Waits, but no longer than `soonest` once something has to go out: a person who writes after an outage does not
/// sit out a backoff of minutes. It buys one attempt per thing written, never against the node's `Retry-After`.
async fn pause(wake: &Notify, soonest: Duration, longest: Duration) {
    let begun = Instant::now();
    tokio::select! {
        () = tokio::time::sleep(longest) => {}
        () = wake.notified() => tokio::time::sleep_until(begun + soonest).await,
    }
}

fn signed_out(error: &Error) -> bool {
    matches!(error, Error::Refused(refusal) if refusal.code == Code::Unauthenticated)
}

/// One connection, from hello to its end. `window` is set once the node has let this device in.
async fn session(inner: &Inner, window: &mut Option<Duration>) -> Result<()> {
    let (mut incoming, outgoing) = stream::open(&inner.dialler, &inner.token).await?;
    let hello = tokio::time::timeout(HELLO_MAX, incoming.next())
        .await
        .map_err(|_| inner.dialler.node().unreachable(&"the node does not say hello"))??;
    let info = match hello {
        ToDevice::Hello(info) => info,
        ToDevice::Bye(refusal) => return Err(Error::Refused(refusal)),
        _ => return Err(Error::Answer { what: "the stream" }),
    };
    *window = Some(Duration::from_millis(info.reconnect_ms.into()));
    welcome(inner, &info).await?;
    inner.tell(Event::Connected);
    let link = link::Link::new(inner, incoming, outgoing);
    tokio::select! {
        ended = link.run() => ended,
        ended = commands::run(inner) => ended,
        ended = upkeep::run(inner) => ended,
    }
}

/// Takes in what the node says about itself.
async fn welcome(inner: &Inner, info: &NodeInfo) -> Result<()> {
    if info.domain != inner.who.node {
        return Err(Error::NodeKey { address: inner.dialler.node().shown() });
    }
    let mut core = inner.core().await;
    let known = core.read().await?.account().await?;
    let Some(mut account) = known else { return Err(Error::Corrupt { table: "account" }) };
    if account.incarnation.is_some_and(|known| known != info.incarnation) {
        core.node_restored().await?;
    }
    if account.incarnation != Some(info.incarnation) || account.hub_key != info.hub_key {
        account.incarnation = Some(info.incarnation);
        account.hub_key = info.hub_key;
        let mut work = core.begin().await?;
        work.tx.put_account(&account).await?;
        // Nobody has to be told, nothing has to be done.
        drop(work.commit().await?);
        core.hub_key = info.hub_key;
    }
    core.set_online(true);
    Ok(())
}

/// From now until `at`, for a timer.
fn until(now: Timestamp, at: Timestamp) -> Duration {
    at.since(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test]
    async fn what_a_person_writes_cuts_a_backoff_short_but_not_below_what_the_node_asked_for() {
        let (wake, begun) = (Notify::new(), Instant::now());
        let paused = pause(&wake, SHORT, LONG);
        let writes = async {
            tokio::time::sleep(SHORT / 5).await;
            wake.notify_one();
        };
        let both = async { tokio::join!(paused, writes) };
        assert!(tokio::time::timeout(LONG / 2, both).await.is_ok(), "it waited out the backoff");
        assert!(begun.elapsed() >= SHORT, "it came before the time the node set");
    }

    #[tokio::test]
    async fn without_anything_to_send_the_whole_backoff_is_waited() {
        let begun = Instant::now();
        pause(&Notify::new(), Duration::ZERO, SHORT).await;
        assert!(begun.elapsed() >= SHORT);
    }
}
