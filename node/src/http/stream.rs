//! The stream's socket: a WebSocket, one CBOR value per binary message. PROTOCOL §6.8.
//!
//! Three tasks' worth of work in one loop: read a frame, answer it, push entries. Writing happens in a task of its own behind a
//! short queue, so that a device that does not read stops its own pushes and nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{FuturesOrdered, SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use protocol::api::{self, Ack, LogRef, Pong, Reply, Submit, SubmitReply, ToDevice, ToNode};
use protocol::{Code, Cursor, DeviceId, Refusal, SubmitId, limit};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::app::App;
use crate::error::{Outcome, Stop};
use crate::rooms;
use crate::store::Advance;
use crate::stream::{Feed, Ticket};
use crate::telemetry::Tag;
use crate::wake::Sleeper;

/// The largest frame of a device: a handshake bundle and its envelope.
pub(super) const FRAME_BYTES: usize = limit::BUNDLE_BYTES + 4096;

/// Frames waiting for the socket. Each is at most a batch, or one large entry.
const WRITES_WAITING: usize = 4;
/// Submissions of one stream under way.
const SUBMITS_AT_ONCE: usize = 64;
/// Answers waiting to be written, before the device's next frame is read.
const ANSWERS_WAITING: usize = 128;
/// How often the stream looks whether something was missed.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// `seen` is kept to the minute.
const SEEN_EVERY: Duration = Duration::from_mins(1);

/// The wait before the database is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

type Submitted = std::pin::Pin<Box<dyn Future<Output = (SubmitId, SubmitReply)> + Send>>;
type Acking = std::pin::Pin<Box<dyn Future<Output = Acked> + Send>>;

/// Acknowledgements that are durable, or refused.
struct Acked {
    /// Those that the stream decided about itself.
    moved: Vec<Advance>,
    /// The logs of the others.
    asked: Vec<LogRef>,
    result: Outcome<()>,
}

/// Serves a stream until either side ends it.
pub(super) async fn serve(app: Arc<App>, device: DeviceId, ticket: Ticket, socket: WebSocket) {
    let (sink, source) = socket.split();
    let (out, frames) = mpsc::channel(WRITES_WAITING);
    let writer = app.tasks.spawn(write(
        sink,
        frames,
        Duration::from_millis(app.config.limits.stream_write_ms),
    ));
    let reason = match Session::open(&app, device.clone(), out.clone()).await {
        Ok(session) => session.run(source, &ticket).await,
        Err(stop) => Some(stop.into_refusal()),
    };
    app.streams.closed(&device, &ticket);
    tracing::debug!(device = %Tag(device.as_str()), why = ?reason.as_ref().map(|r| r.code), "a stream ended");
    if let Some(reason) = reason {
        // The device may be gone already.
        let _gone = out.send(ToDevice::Bye(reason)).await;
    }
    drop(out);
    // The writer ends by itself: its queue is closed and each write has a deadline.
    let _ended = writer.await;
}

async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut frames: mpsc::Receiver<ToDevice>,
    deadline: Duration,
) {
    while let Some(frame) = frames.recv().await {
        let message = Message::Binary(api::encode(&frame).into());
        match timeout(deadline, sink.send(message)).await {
            Ok(Ok(())) => {}
            // Gone, or it does not read: dropping the queue ends the session.
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let _closing = timeout(deadline, sink.close()).await;
}

/// What a frame leads to.
enum Taken {
    /// It was dealt with.
    Done,
    /// A log is wanted again.
    Rewind(LogRef),
    /// The device closed the stream.
    Closed,
}

struct Session {
    app: Arc<App>,
    device: DeviceId,
    feed: Feed,
    out: mpsc::Sender<ToDevice>,
    answers: VecDeque<ToDevice>,
    submits: FuturesOrdered<Submitted>,
    acks: BTreeMap<LogRef, Cursor>,
    acking: Option<Acking>,
}

impl Session {
    async fn open(app: &Arc<App>, device: DeviceId, out: mpsc::Sender<ToDevice>) -> Outcome<Self> {
        let feed = Feed::open(app.clone(), device.clone()).await?;
        let answers = VecDeque::from([ToDevice::Hello(app.info())]);
        Ok(Self {
            app: app.clone(),
            device,
            feed,
            out,
            answers,
            submits: FuturesOrdered::new(),
            acks: BTreeMap::new(),
            acking: None,
        })
    }

    /// Runs until the stream ends; says why, when the device can still be told.
    async fn run(mut self, mut source: SplitStream<WebSocket>, ticket: &Ticket) -> Option<Refusal> {
        let idle = Duration::from_millis(self.app.config.limits.stream_idle_ms);
        let mut ends = ticket.ended.clone();
        let out = self.out.clone();
        let sleeper = self.feed.sleeper();
        let mut heard = super::body::tokio_now();
        let mut look = tokio::time::interval(LOOK_AGAIN);
        let mut minute = tokio::time::interval(SEEN_EVERY);
        let stopping = self.app.stop.clone();
        let mut more = true;
        loop {
            let room = self.answers.len() < ANSWERS_WAITING && self.submits.len() < SUBMITS_AT_ONCE;
            let step = tokio::select! {
                biased;
                reason = ended(&mut ends) => return reason,
                () = stopping.cancelled() => return Some(Refusal::because(Code::Unavailable, "The node is stopping.")),
                Some((submit_id, reply)) = self.submits.next(), if !self.submits.is_empty() => {
                    self.answers.push_back(ToDevice::Reply(Reply { submit_id, reply }));
                    Ok(())
                }
                acked = acked(&mut self.acking) => {
                    self.acking = None;
                    more = true;
                    let done = self.acked(acked).await;
                    self.start_acks();
                    done
                }
                permit = out.reserve(), if more || !self.answers.is_empty() => {
                    // A closed queue means that the writer gave up.
                    let permit = permit.ok()?;
                    if let Some(answer) = self.answers.pop_front() {
                        permit.send(answer);
                        Ok(())
                    } else {
                        match self.feed.next().await {
                            Ok(Some(entries)) => { permit.send(ToDevice::Entries(entries)); Ok(()) }
                            Ok(None) => { more = false; Ok(()) }
                            Err(stop) => Err(stop),
                        }
                    }
                }
                news = sleeper.news() => { more = true; self.feed.take(news).await }
                frame = source.next(), if room => {
                    heard = super::body::tokio_now();
                    match frame {
                        Some(Ok(frame)) => match self.frame(frame) {
                            Ok(Taken::Done) => { more = true; Ok(()) }
                            Ok(Taken::Rewind(log)) => { more = true; self.feed.rewind(&log).await }
                            Ok(Taken::Closed) => return None,
                            Err(refusal) => return Some(refusal),
                        },
                        Some(Err(_)) | None => return None,
                    }
                }
                _ = look.tick() => { more = true; self.feed.reload().await }
                _ = minute.tick() => { self.seen(); Ok(()) }
                () = tokio::time::sleep_until(heard + idle) => {
                    return Some(Refusal::because(Code::Unavailable, "The stream was silent for too long."));
                }
            };
            if let Err(stop) = step
                && let Err(refusal) = survive(stop, &sleeper).await
            {
                return Some(refusal);
            }
        }
    }

    /// Takes a frame.
    fn frame(&mut self, frame: Message) -> Result<Taken, Refusal> {
        let bytes = match frame {
            Message::Binary(bytes) => bytes,
            Message::Ping(_) | Message::Pong(_) => return Ok(Taken::Done),
            Message::Close(_) => return Ok(Taken::Closed),
            Message::Text(_) => {
                return Err(Refusal::because(Code::Malformed, "Frames are binary."));
            }
        };
        match super::body::decode::<ToNode>(&bytes)? {
            ToNode::Ack(Ack { log, cursor }) => {
                // A later acknowledgement of the same log covers the earlier one.
                let newest = self.acks.entry(log).or_insert(cursor);
                if newest.incarnation != cursor.incarnation || newest.seq < cursor.seq {
                    *newest = cursor;
                }
                self.start_acks();
            }
            ToNode::Submit(submit) => self.submit(submit),
            ToNode::Ping(ping) => {
                let answer = Pong { token: ping.token, now: self.app.now() };
                self.answers.push_back(ToDevice::Pong(answer));
            }
            ToNode::Rewind(log) => return Ok(Taken::Rewind(log)),
        }
        Ok(Taken::Done)
    }

    fn submit(&mut self, submit: Submit) {
        let (app, device) = (self.app.clone(), self.device.clone());
        let submit_id = submit.submit_id;
        // Polled in order, so submissions reach the writer of the database in the order in which they came.
        self.submits.push_back(Box::pin(async move {
            (submit_id, rooms::submit(&app, &device, submit).await)
        }));
    }

    fn start_acks(&mut self) {
        if self.acking.is_some() || self.acks.is_empty() {
            return;
        }
        let (mut moved, mut others) = (Vec::new(), Vec::new());
        for (log, cursor) in std::mem::take(&mut self.acks) {
            let ack = Ack { log, cursor };
            match self.feed.advance(&ack) {
                Some(advance) => moved.push(advance),
                None => others.push(ack),
            }
        }
        let asked = others.iter().map(|a| a.log.clone()).collect();
        let (app, device) = (self.app.clone(), self.device.clone());
        self.acking = Some(Box::pin(async move {
            let result = acknowledge(&app, &device, moved.clone(), others).await;
            Acked { moved, asked, result }
        }));
    }

    async fn acked(&mut self, acked: Acked) -> Outcome<()> {
        match acked.result {
            Err(Stop::Refused(refusal)) if refusal.code != Code::NotFound => {
                return Err(refusal.into());
            }
            Err(Stop::Failed(error)) => return Err(Stop::Failed(error)),
            // A room that the device left for good has no cursor any more; the others moved.
            Ok(()) | Err(Stop::Refused(_)) => {}
        }
        self.feed.advanced(&acked.moved);
        self.feed.acknowledged(&acked.asked).await
    }

    fn seen(&self) {
        let (app, device) = (self.app.clone(), self.device.clone());
        self.app.tasks.spawn(async move { crate::devices::seen(&app, device).await });
    }
}

/// Whether the stream goes on after a failure; an error ends it, and is told.
async fn survive(stop: Stop, sleeper: &Sleeper) -> Result<(), Refusal> {
    let refusal = stop.into_refusal();
    if refusal.code != Code::Unavailable {
        return Err(refusal);
    }
    // The database is busy for a moment; then everything is looked at again, so that nothing is missed.
    tokio::time::sleep(BUSY_PAUSE).await;
    sleeper.reload();
    Ok(())
}

/// Waits until the stream must end, and says why.
async fn ended(ends: &mut watch::Receiver<Option<Refusal>>) -> Option<Refusal> {
    match ends.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone(),
        Err(_) => None,
    }
}

async fn acknowledge(
    app: &Arc<App>,
    device: &DeviceId,
    moved: Vec<Advance>,
    others: Vec<Ack>,
) -> Outcome<()> {
    if !moved.is_empty() {
        app.store.advance(device.clone(), moved).await?;
    }
    if !others.is_empty() {
        crate::reading::acknowledge(app, device, others).await?;
    }
    Ok(())
}

/// Waits for the acknowledgements under way; for ever when there are none.
async fn acked(acking: &mut Option<Acking>) -> Acked {
    match acking {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
