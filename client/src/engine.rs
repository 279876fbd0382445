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
        // Whoever was connected comes back within the window that the node set; whoever was not backs off.
        let wait = if let Some(window) = window {
            attempt = 0;
            uniform(window, jitter)
        } else {
            attempt += 1;
            Backoff::STANDARD.delay(attempt - 1, jitter, error.retry_after())
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
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
