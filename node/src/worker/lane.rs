//! One lane: one log, one peer, one request at a time. What to do is decided by [`delivery::lane`]; this carries it out and writes it
//! down: the attempt before dialling, the result with everything that follows from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use delivery::breaker::Dial;
use delivery::lane::{Effect, Kind, Lane, Outcome as Result_, Parked, Step};
use delivery::reader::Reader;
use federation::{Outcome as Answer, Why};
use protocol::{Code, Domain, Refusal, Seq, Timestamp};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::peers::Line;
use super::{notify, uplink};
use crate::app::App;
use crate::error::{Error, Outcome, Stop};
use crate::store::Wake;
use crate::store::lanes;
use crate::store::logs::{self, Log, LogId, LogName};
use crate::store::peers as known;
use crate::store::readers::{self, Stay};

/// Tells a running lane that there may be more.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    again: AtomicBool,
    notify: Notify,
}

impl Signal {
    pub(super) fn again(&self) {
        self.again.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    pub(super) fn taken(&self) -> bool {
        self.again.swap(false, Ordering::AcqRel)
    }
}

/// Delivers until the peer has everything, the lane is parked, or the node stops.
pub(super) async fn run(app: &Arc<App>, log: LogId, peer: Domain, signal: &Signal) {
    let line = app.peers.line(&peer);
    let mut carrying = Carrying { app, log, peer: peer.clone(), line: &line };
    loop {
        signal.taken();
        let ended = tokio::select! {
            () = app.stop.cancelled() => Ok(()),
            ended = carrying.drain() => ended,
        };
        if let Err(stop) = ended {
            tracing::warn!(%peer, why = %stop.into_refusal(), "a lane stopped; the next sweep starts it again");
            signal.taken();
        }
        if app.running.end(log, &peer, signal) || app.stop.is_cancelled() {
            return;
        }
    }
}

struct Carrying<'a> {
    app: &'a Arc<App>,
    log: LogId,
    peer: Domain,
    line: &'a Line,
}

/// What a request carries and where it ends.
pub(super) enum Cargo {
    Entries(federation::client::Batch),
    Submission(Box<super::uplink::Request>),
}

impl Carrying<'_> {
    async fn drain(&mut self) -> Outcome<()> {
        let Some((log, stay, row)) = self.load().await? else { return Ok(()) };
        let kind = match log.name {
            LogName::Room(_) => Kind::Notify,
            LogName::Uplink(_) => Kind::Uplink,
            LogName::Replica(_) | LogName::Inbox(_) => return Ok(()),
        };
        let mut lane = Lane::new(kind, row.row(&stay), last(&log, &stay), self.app.now());
        let mut contacts = self.line.contacts.subscribe();
        let mut results = self.line.results.subscribe();
        loop {
            match lane.next(self.app.now()) {
                Step::Idle => {
                    let Some((log, now, _)) = self.load().await? else { return Ok(()) };
                    if now.from != stay.from || lane.row().parked.is_some() {
                        return Ok(());
                    }
                    if lane.row().cursor >= last(&log, &now) {
                        return Ok(());
                    }
                    lane.grown(last(&log, &now));
                }
                Step::WaitUntil(at) => {
                    tokio::select! {
                        () = sleep(at.since(self.app.now()).min(NAP)) => {}
                        _ = contacts.changed() => lane.contact(self.app.now()),
                    }
                }
                Step::Send { after, count } => {
                    // Only what a lane may send now asks for a place, so a waiting one holds up nobody.
                    let Ok(place) = self.line.slots.acquire().await else { return Ok(()) };
                    let time = match self.line.dial(self.app.now()) {
                        Dial::Now => {
                            if self.send(&mut lane, &stay, after, count).await? {
                                continue;
                            }
                            return Ok(());
                        }
                        Dial::At(at) => at.since(self.app.now()).min(NAP),
                        Dial::AfterProbe => NAP,
                    };
                    drop(place);
                    tokio::select! {
                        () = sleep(time) => {}
                        // An error means that the line is gone, and then the nap ends the wait.
                        Ok(()) = results.changed() => {}
                    }
                }
            }
        }
    }

    /// The log, the stay that is served now, and how its delivery went so far.
    async fn load(&self) -> Outcome<Option<(Log, Stay, lanes::Lane)>> {
        let mut tx = self.app.store.snapshot().await?;
        let log = logs::get(&mut tx, self.log).await?;
        let stays = readers::stays(&mut tx, self.log, &self.peer.clone().into()).await?;
        let over = |s: &Stay| Reader::done(&(*s).into());
        let Some(stay) = stays.into_iter().find(|s| !over(s)) else { return Ok(None) };
        let row = lanes::find(&mut tx, self.log, &self.peer).await?;
        Ok(Some((log, stay, row)))
    }

    /// Sends what comes next; says whether the stay goes on.
    async fn send(&self, lane: &mut Lane, stay: &Stay, after: Seq, count: usize) -> Outcome<bool> {
        let mut tx = self.app.store.snapshot().await?;
        // An operator may have blocked or removed it since: then nothing goes to it, on open connections neither.
        let Some(peer) = known::find(&mut tx, &self.peer).await?.and_then(known::Peer::open) else {
            self.app.federation.forget(&self.peer);
            return Ok(false);
        };
        let log = logs::get(&mut tx, self.log).await?;
        let until = last(&log, stay);
        let cargo = match &log.name {
            LogName::Uplink(_) => uplink::load(&mut tx, &log, after).await?,
            _ => notify::load(&mut tx, &log, &self.peer, (after, until), count).await?,
        };
        drop(tx);
        let Some((cargo, to)) = cargo else {
            if matches!(log.name, LogName::Room(_)) && until < log.tail {
                self.pass_over(&log, until).await?;
                return Ok(false);
            }
            return Err(Stop::Failed(Error::Damaged("a log without the entries it counts")));
        };
        let started = lane.attempt_started(to, self.app.now(), self.app.entropy.jitter()).clone();
        self.write_attempt(&started).await?;
        let (outcome, error) = self.dial(&peer, &log, &cargo, (stay.from, to)).await;
        let now = self.app.now();
        let effect = lane.on_result(outcome, now, self.app.entropy.jitter());
        self.log_effect(&log, &effect, error.as_deref());
        self.write_result(&log, lane, &cargo, (effect, error), now).await?;
        Ok(true)
    }

    /// Ends a stay whose rest expired before the peer took it: there is nothing left to send, and the peer's next stay must not wait
    /// behind it.
    async fn pass_over(&self, log: &Log, until: Seq) -> Outcome<()> {
        tracing::warn!(peer = %self.peer, lane = log.id.get(), "the last entries for a peer expired before it took them");
        let (log, peer) = (log.id, self.peer.clone());
        self.app
            .store
            .write(move |tx| {
                Box::pin(async move {
                    if readers::advance(tx, log, &peer.clone().into(), until).await? {
                        tx.wake(Wake::Peer(peer));
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn dial(
        &self,
        peer: &federation::Peer,
        log: &Log,
        cargo: &Cargo,
        (from, to): (Seq, Seq),
    ) -> (Result_, Option<String>) {
        let Some(room) = log.name.room() else { return (Result_::Unknown, None) };
        match cargo {
            Cargo::Entries(batch) => {
                let answer = self.app.federation.notify(peer, room, batch).await;
                self.learn(&answer);
                match answer {
                    Answer::Done(done) => (notify::result(done, to, from), None),
                    other => not_done(&other),
                }
            }
            Cargo::Submission(request) => {
                let answer = uplink::hand_over(&self.app.federation, peer, room, request).await;
                self.learn(&answer);
                match answer {
                    Answer::Done(Ok(())) => (Result_::Accepted(to), None),
                    Answer::Done(Err(refusal)) => {
                        let error = refusal.to_string();
                        (Result_::Refused(refusal), Some(error))
                    }
                    other => not_done(&other),
                }
            }
        }
    }

    fn learn<T>(&self, answer: &Answer<T>) {
        self.line.learn(answer, self.app.now(), self.app.entropy.jitter());
    }

    fn log_effect(&self, log: &Log, effect: &Effect, error: Option<&str>) {
        let (peer, lane) = (&self.peer, log.id.get());
        match effect {
            Effect::Advanced => tracing::debug!(%peer, lane, "delivered"),
            Effect::Again => tracing::info!(%peer, lane, error, "not delivered; it is tried again"),
            Effect::Settled(parked) => {
                tracing::info!(%peer, lane, refusal = %parked.refusal.code, "the hub refused a submission; its device is told");
            }
            Effect::Parked => {
                tracing::error!(%peer, lane, error, "a lane is parked: the peer does not take this room's next entry");
            }
            Effect::Alarm(refusal) => {
                tracing::error!(%peer, lane, %refusal, "the peer takes nothing from this node; somebody must look");
            }
        }
    }

    async fn write_attempt(&self, row: &delivery::lane::Row) -> Outcome<()> {
        let (log, peer, row) = (self.log, self.peer.clone(), row.clone());
        self.app
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let before = lanes::find(tx, log, &peer).await?;
                    let lane = lanes::Lane {
                        attempts: row.attempts,
                        next_at: row.next_at,
                        parked: row.parked,
                        ..before
                    };
                    Ok(lanes::save(tx, log, &peer, &lane).await?)
                })
            })
            .await
    }

    async fn write_result(
        &self,
        log: &Log,
        lane: &Lane,
        cargo: &Cargo,
        (effect, error): (Effect, Option<String>),
        now: Timestamp,
    ) -> Outcome<()> {
        let row = lane.row().clone();
        let (log, peer, app) = (log.clone(), self.peer.clone(), self.app.clone());
        let submission = match cargo {
            Cargo::Submission(request) => Some(request.kept()),
            Cargo::Entries(_) => None,
        };
        self.app
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let before = lanes::find(tx, log.id, &peer).await?;
                    match &error {
                        Some(error) => known::failed(tx, &peer, error).await?,
                        None if before.last_error.is_some() => {
                            known::contact(tx, &peer, now).await?;
                        }
                        None => {}
                    }
                    let moved = matches!(effect, Effect::Advanced | Effect::Settled(_));
                    let state = lanes::Lane {
                        attempts: row.attempts,
                        next_at: row.next_at,
                        parked: row.parked,
                        last_error: error.or(if moved { None } else { before.last_error }),
                        last_ok: if moved { Some(now) } else { before.last_ok },
                    };
                    lanes::save(tx, log.id, &peer, &state).await?;
                    if moved {
                        readers::advance(tx, log.id, &peer.into(), row.cursor).await?;
                    }
                    if let Some(kept) = submission {
                        if moved {
                            // What the hub has answered waits no more, and must not count against the bound.
                            let log = logs::get(tx, log.id).await?;
                            logs::trim(tx, &log, row.cursor).await?;
                        }
                        match effect {
                            Effect::Settled(Parked { refusal, .. }) => {
                                uplink::refused(tx, &kept, refusal, now).await?;
                            }
                            Effect::Advanced => uplink::accepted(tx, &app, &kept, now).await?,
                            Effect::Parked | Effect::Alarm(_) | Effect::Again => {}
                        }
                    }
                    Ok(())
                })
            })
            .await
    }
}

fn last(log: &Log, stay: &Stay) -> Seq {
    stay.until.map_or(log.head, |until| until.min(log.head))
}

/// A request that was not carried out, as the lane sees it and as people read it.
fn not_done<T>(answer: &Answer<T>) -> (Result_, Option<String>) {
    match answer {
        Answer::Done(_) => (Result_::Unknown, None),
        Answer::Refused(refusal) => (Result_::Refused(refusal.clone()), Some(refusal.to_string())),
        Answer::Retry { why, retry_after } => {
            let wait = retry_after.and_then(|d| u32::try_from(d.as_millis()).ok());
            let result = match (why, wait) {
                (Why::Busy(refusal) | Why::Estranged(refusal), _) => Result_::Refused(Refusal {
                    retry_after_ms: wait.or(refusal.retry_after_ms),
                    ..refusal.clone()
                }),
                // Our side of the same: only people can mend it, so it must be heard and not pass for a network that is down.
                (why, _) if why.alarming() => Result_::Refused(Refusal {
                    retry_after_ms: wait,
                    ..Refusal::because(Code::PeerCertificate, why.to_string())
                }),
                (_, Some(ms)) => {
                    Result_::Refused(Refusal::new(Code::Unavailable).retry_after_ms(ms))
                }
                (_, None) => Result_::Unknown,
            };
            (result, Some(why.to_string()))
        }
    }
}

/// The longest a lane sleeps without looking at its clock again, which may have been set.
const NAP: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_people_can_mend_raises_an_alarm_and_keeps_everything() {
        let refused = |why| {
            let answer = Answer::<()>::Retry { why, retry_after: Some(Duration::from_secs(2)) };
            match not_done(&answer).0 {
                Result_::Refused(refusal) => refusal,
                other => panic!("{other:?}"),
            }
        };
        for kind in [Kind::Notify, Kind::Uplink] {
            let row = delivery::lane::Row::new(Seq::new(1));
            let mut lane = Lane::new(kind, row, Seq::new(1), Timestamp::from_ms(0));
            lane.attempt_started(Seq::new(1), Timestamp::from_ms(0), 0);
            let refusal = refused(Why::Certificate(federation::PinError::Expired));
            assert_eq!((refusal.code, refusal.retry_after_ms), (Code::PeerCertificate, Some(2000)));
            let effect = lane.on_result(Result_::Refused(refusal), Timestamp::from_ms(0), 0);
            assert!(matches!(effect, Effect::Alarm(_)), "{effect:?}");
            assert_eq!((lane.row().cursor, &lane.row().parked), (Seq::new(0), &None));
        }
        assert_eq!(refused(Why::Forbidden("inside".into())).code, Code::PeerCertificate);
        assert_eq!(refused(Why::Lost("cut".into())).code, Code::Unavailable);
    }
}
