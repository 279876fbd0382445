//! One stream: what comes is taken in and acknowledged, what waits is handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::api::{Entries, LogRef, Ping, Pong, Reply, Submit, ToDevice, ToNode};
use protocol::{SubmitId, Timestamp};
use tokio::time::{Instant, sleep_until};

use super::until;
use crate::inner::Inner;
use crate::sender::{self, Out};
use crate::stream::{Incoming, Outgoing};
use crate::{Error, Result, RoomStatus, command, receiver};

/// How often the clock is compared and the connection proved alive.
const PING: Duration = Duration::from_secs(30);
/// A node that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Looks for something to send at least this often, whatever the timers say.
const IDLE_MAX: Duration = Duration::from_mins(1);
/// The same log is not asked for again more often than this.
const REWIND_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Link<'a> {
    inner: &'a Inner,
    incoming: Incoming,
    out: Outgoing,
    /// Handshakes that were handed over on this stream and not refused for now.
    sent: BTreeSet<SubmitId>,
    /// When to hand a handshake over again.
    again: BTreeMap<SubmitId, Timestamp>,
    /// When to ask for a log again.
    rewinds: BTreeMap<LogRef, Timestamp>,
    rewound: BTreeMap<LogRef, Timestamp>,
    heard: Instant,
}

impl<'a> Link<'a> {
    pub(super) fn new(inner: &'a Inner, incoming: Incoming, out: Outgoing) -> Self {
        Self {
            inner,
            incoming,
            out,
            sent: BTreeSet::new(),
            again: BTreeMap::new(),
            rewinds: BTreeMap::new(),
            rewound: BTreeMap::new(),
            heard: now(),
        }
    }

    /// Runs until the client is stopped.
    ///
    /// # Errors
    /// Whatever ended the stream.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut ping = now();
        let mut look = now();
        loop {
            tokio::select! {
                () = self.inner.stop.cancelled() => {
                    self.out.close().await;
                    return Ok(());
                }
                frame = self.incoming.next() => {
                    self.heard = now();
                    self.frame(frame?).await?;
                }
                () = self.inner.wake.notified() => look = now(),
                () = sleep_until(look) => look = now() + self.hand_over().await?,
                () = sleep_until(ping) => {
                    ping = now() + PING;
                    self.ping().await?;
                }
            }
        }
    }

    async fn frame(&mut self, frame: ToDevice) -> Result<()> {
        match frame {
            ToDevice::Entries(entries) => {
                self.entries(entries).await?;
                self.inner.took_in();
                Ok(())
            }
            ToDevice::Reply(reply) => self.reply(reply).await,
            ToDevice::Pong(pong) => self.pong(pong).await,
            ToDevice::Bye(refusal) => Err(Error::Refused(refusal)),
            ToDevice::Hello(_) => Ok(()),
        }
    }

    /// Takes entries in, and acknowledges them once they are on disk.
    async fn entries(&mut self, entries: Entries) -> Result<()> {
        let log = entries.log.clone();
        let applied = self.inner.work(async |work| receiver::apply(work, entries).await).await;
        let taken = match applied {
            Ok(taken) => taken,
            // A fault of ours in one room: the others go on.
            Err(e @ (Error::Crypto(_) | Error::Corrupt { .. })) => {
                tracing::error!(cause = %e, "entries could not be taken in");
                return self.inner.work(async |work| receiver::broken(work, &log, e).await).await;
            }
            Err(e) => return Err(e),
        };
        if let Some(ack) = taken.ack {
            self.out.send(&ToNode::Ack(ack)).await?;
        }
        for log in taken.rewind {
            self.rewind(log);
        }
        if taken.again {
            self.sent.clear();
            self.inner.wake.notify_one();
        }
        if taken.replenish {
            self.inner.replenish.notify_one();
        }
        Ok(())
    }

    fn rewind(&mut self, log: LogRef) {
        let now = self.inner.world.clock.now();
        let at = self.rewound.get(&log).map_or(now, |last| now.max(last.after(REWIND_EVERY)));
        self.rewinds.insert(log, at);
        self.inner.wake.notify_one();
    }

    async fn reply(&mut self, reply: Reply) -> Result<()> {
        let Reply { submit_id, reply } = reply;
        let again = self
            .inner
            .work(async |work| match command::owns(work.commands, &submit_id) {
                Some(position) => command::answered(work, position, reply).await,
                None => sender::replied(work, &submit_id, reply).await.map(|()| None),
            })
            .await?;
        if let Some(wait) = again {
            self.sent.remove(&submit_id);
            self.again.insert(submit_id, self.inner.world.clock.now().after(wait));
        }
        self.inner.wake.notify_one();
        Ok(())
    }

    async fn pong(&mut self, pong: Pong) -> Result<()> {
        let received = self.inner.world.clock.now();
        let sent = Timestamp::from_ms(pong.token);
        self.inner.core().await.calibration.pong(sent, pong.now, received);
        Ok(())
    }

    async fn ping(&mut self) -> Result<()> {
        if self.heard.elapsed() > SILENCE_MAX {
            return Err(self.inner.dialler.node().unreachable(&"the node went silent"));
        }
        let token = self.inner.world.clock.now().ms();
        self.out.send(&ToNode::Ping(Ping { token })).await?;
        // What was held may fit by now: a clock that was set, an identity that was accepted.
        let rooms = self.inner.core().await.read().await?.rooms().await?;
        for row in rooms {
            // Entries for a leaf that was given up are not asked for by anybody else, and hold up those for the new one.
            if matches!(row.status, RoomStatus::Held { .. } | RoomStatus::Joining) {
                self.rewind(LogRef::Room(row.room));
            }
        }
        Ok(())
    }

    /// Hands over everything that is due; how long until there is more.
    async fn hand_over(&mut self) -> Result<Duration> {
        let now = self.inner.world.clock.now();
        let due: Vec<LogRef> =
            self.rewinds.iter().filter(|(_, at)| **at <= now).map(|(l, _)| l.clone()).collect();
        for log in due {
            self.rewinds.remove(&log);
            self.rewound.insert(log.clone(), now);
            self.out.send(&ToNode::Rewind(log)).await?;
        }
        self.again.retain(|_, at| *at > now);
        for submit in self.handshakes().await? {
            self.sent.insert(submit.submit_id);
            self.out.send(&ToNode::Submit(submit)).await?;
        }
        let mut next = now.after(IDLE_MAX);
        loop {
            match self.inner.work(async |work| sender::step(work).await).await? {
                Out::Submit(submit) => self.out.send(&ToNode::Submit(submit)).await?,
                Out::WaitUntil(at) => {
                    next = next.min(at);
                    break;
                }
                Out::Idle => break,
            }
        }
        let timers = self.again.values().chain(self.rewinds.values());
        let next = timers.fold(next, |next, at| next.min(*at));
        Ok(until(self.inner.world.clock.now(), next))
    }

    /// Handshakes that were built and are not on their way on this stream.
    async fn handshakes(&self) -> Result<Vec<Submit>> {
        let mut core = self.inner.core().await;
        let commands = core.commands().await?;
        Ok(commands
            .values()
            .filter(|c| !c.stored)
            .filter_map(|c| c.attempt.as_ref().map(|attempt| (c, attempt)))
            .filter(|(_, a)| !self.sent.contains(&a.submit_id))
            .filter(|(_, a)| !self.again.contains_key(&a.submit_id))
            .map(|(command, attempt)| Submit {
                submit_id: attempt.submit_id,
                room: command.room.clone(),
                payload: attempt.payload(),
            })
            .collect())
    }
}

fn now() -> Instant {
    Instant::now()
}
