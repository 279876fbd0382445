//! One device of a person: a real client with its own store, driven in this process, and a record of what it said.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Client, Event, Message, RoomInfo, RoomOptions, RoomStatus, Running, Seal, Stage};
use protocol::{DeviceId, MessageId, RoomId, Seq, SubmitId, UserId};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::ledger::{Sent, Shown, Stay, View};
use crate::trouble::During as _;
use crate::{Outcome, Trouble};

/// A password that follows the rules.
pub const PASSWORD: &str = "correct horse battery";

/// Messages fetched at a time.
const PAGE: usize = 500;

/// A device.
pub struct Device {
    folder: PathBuf,
    seal: Seal,
    id: DeviceId,
    user: UserId,
    open: Option<Open>,
    record: Arc<Mutex<Record>>,
}

struct Open {
    client: Client,
    running: Running,
    recorder: JoinHandle<()>,
}

/// What a device said, over all its lives.
#[derive(Clone, Debug, Default)]
pub struct Record {
    announced: BTreeSet<MessageId>,
    /// Messages announced twice.
    pub doubles: Vec<MessageId>,
    /// Alarms and gaps.
    pub alarms: Vec<String>,
    /// Every state of every submission, in order.
    pub states: Vec<(SubmitId, Stage)>,
    /// Times the stream came up.
    pub connects: u32,
    /// Times the stream went down.
    pub disconnects: u32,
    /// What was sent.
    pub sent: Vec<Sent>,
}

fn record(shared: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// Registers a new person with this as the first device, and goes online.
    ///
    /// # Errors
    /// As [`Client::register`].
    pub async fn register(folder: &Path, seal: Seal, line: &str, name: &str) -> Outcome<Self> {
        let device_name = format!("{name}'s first");
        let client =
            Client::register(folder, seal.clone(), line, name, PASSWORD, &device_name).await;
        Self::new(folder, seal, client.during(format!("register {name}"))?).await
    }

    /// Links a further device of this person, and goes online.
    ///
    /// # Errors
    /// As [`Client::link`].
    pub async fn link(&self, folder: &Path, seal: Seal) -> Outcome<Self> {
        let line = self.client()?.offer_link().await.during("offer a link")?;
        let client = Client::link(folder, seal.clone(), &line, PASSWORD, "further").await;
        Self::new(folder, seal, client.during("link a device")?).await
    }

    async fn new(folder: &Path, seal: Seal, client: Client) -> Outcome<Self> {
        let who = client.whoami();
        drop(client);
        let mut device = Self {
            folder: folder.to_owned(),
            seal,
            id: who.device,
            user: who.user,
            open: None,
            record: Arc::default(),
        };
        device.go_online().await?;
        Ok(device)
    }

    /// Takes over the folder of a device that exists, and goes online.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn reopen(folder: &Path, seal: Seal) -> Outcome<Self> {
        let client = Client::open(folder, seal.clone()).await?;
        Self::new(folder, seal, client).await
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn id(&self) -> &DeviceId {
        &self.id
    }

    /// Whose it is.
    #[must_use]
    pub const fn user(&self) -> &UserId {
        &self.user
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The client.
    ///
    /// # Errors
    /// When the device is off.
    pub fn client(&self) -> Outcome<&Client> {
        let open = self.open.as_ref().map(|o| &o.client);
        open.ok_or_else(|| Trouble::new(format!("{} is off", self.id)))
    }

    /// A copy of what it said so far.
    #[must_use]
    pub fn record(&self) -> Record {
        record(&self.record).clone()
    }

    /// Opens the store and starts the background work.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn go_online(&mut self) -> Outcome<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let client = self.opened().await?;
        let recorder = tokio::spawn(listen(client.events(), Arc::clone(&self.record)));
        let running = client.start();
        self.open = Some(Open { client, running, recorder });
        Ok(())
    }

    /// The lock of a former life may take a moment to go.
    async fn opened(&self) -> Outcome<Client> {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            match Client::open(&self.folder, self.seal.clone()).await {
                Err(client::Error::Locked(_)) if Instant::now() < end => {
                    sleep(Duration::from_millis(20)).await;
                }
                other => return other.during(format!("open {}", self.id)),
            }
        }
    }

    /// Ends everything and closes the store, as a person who quits the program.
    pub async fn go_offline(&mut self) {
        if let Some(open) = self.open.take() {
            open.running.shutdown().await;
            drop(open.client);
            if let Err(e) = open.recorder.await {
                eprintln!("the recorder of {}: {e}", self.id);
            }
        }
    }

    /// Off and on again.
    ///
    /// # Errors
    /// As [`Device::go_online`].
    pub async fn restart(&mut self) -> Outcome<()> {
        self.go_offline().await;
        self.go_online().await
    }

    /// Makes a room and waits until the node knows it.
    ///
    /// # Errors
    /// When that takes longer than 30 s.
    pub async fn create_room(&self, name: &str) -> Outcome<RoomId> {
        let options = RoomOptions { name: Some(name.to_owned()), post_quantum: false };
        let room = self.client()?.create_room(options).await.during("create a room")?;
        self.until_active(&room).await?;
        Ok(room)
    }

    /// Waits until it can read and write in the room; the state then.
    ///
    /// # Errors
    /// When that takes longer than 30 s.
    pub async fn until_active(&self, room: &RoomId) -> Outcome<RoomInfo> {
        let what = format!("{} active in {room}", self.id);
        eventually(Duration::from_secs(30), &what, async || {
            let info = self.room(room).await?;
            Ok(info.filter(|r| r.status == RoomStatus::Active))
        })
        .await
    }

    /// What it knows of the room.
    ///
    /// # Errors
    /// When the device is off.
    pub async fn room(&self, room: &RoomId) -> Outcome<Option<RoomInfo>> {
        Ok(self.client()?.rooms().await?.into_iter().find(|r| r.room == *room))
    }

    /// Adds somebody and waits until the hub has taken the commit; its place.
    ///
    /// # Errors
    /// When it fails or takes longer than 30 s.
    pub async fn invite(&self, room: &RoomId, user: &UserId) -> Outcome<Seq> {
        let id = self.client()?.invite(room, user).await?;
        self.until_accepted(&id, &format!("invite {user}")).await
    }

    /// Removes somebody and waits until the hub has taken the commit; its place.
    ///
    /// # Errors
    /// When it fails or takes longer than 30 s.
    pub async fn remove(&self, room: &RoomId, user: &UserId) -> Outcome<Seq> {
        let id = self.client()?.remove(room, user).await?;
        self.until_accepted(&id, &format!("remove {user}")).await
    }

    /// Waits until the hub has taken a submission; its place.
    ///
    /// # Errors
    /// When it fails or takes longer than 60 s.
    pub async fn until_accepted(&self, id: &SubmitId, what: &str) -> Outcome<Seq> {
        let patience = Duration::from_mins(1);
        let state = match self.client()?.wait(id, Stage::Accepted, patience).await {
            Err(client::Error::Timeout(_)) => {
                let state = self.client()?.state(id).await?;
                let record = self.record();
                return Trouble::is(format!(
                    "{what}: not accepted after {patience:?}: {state:?}; the room: {:?}; connected {} times, lost {} times; it said: {:?}",
                    self.client()?
                        .rooms()
                        .await?
                        .iter()
                        .map(|r| (&r.status, r.epoch, r.seq))
                        .collect::<Vec<_>>(),
                    record.connects,
                    record.disconnects,
                    record.alarms
                ));
            }
            other => other.during(what)?,
        };
        if let Some(failed) = state.failed {
            return Trouble::is(format!("{what}: {}: {}", failed.code, failed.sentence));
        }
        state.seq.ok_or_else(|| Trouble::new(format!("{what}: accepted without a place")))
    }

    /// Sends a text and notes it; returns when it is durable on the device.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send(&self, room: &RoomId, text: &str) -> Outcome<SubmitId> {
        let submit_id = self.client()?.send(room, text).await.during(format!("send {text:?}"))?;
        let (device, text) = (self.id.clone(), text.to_owned());
        record(&self.record).sent.push(Sent { device, submit_id, text, seq: None });
        Ok(submit_id)
    }

    /// The whole timeline of a room.
    ///
    /// # Errors
    /// As [`Client::timeline`].
    pub async fn timeline(&self, room: &RoomId) -> Outcome<Vec<Message>> {
        let client = self.client()?;
        let mut all = Vec::new();
        loop {
            let from = all.last().map(|m: &Message| m.key);
            let page = client.timeline(room, from, PAGE).await.during("read the timeline")?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// How many accepted messages its timeline has.
    ///
    /// # Errors
    /// As [`Client::timeline`].
    pub async fn count(&self, room: &RoomId) -> Outcome<usize> {
        Ok(self.timeline(room).await?.iter().filter(|m| m.seq.is_some()).count())
    }

    /// Waits until its timeline has so many accepted messages.
    ///
    /// # Errors
    /// When that takes longer than `limit`; says how many it has.
    pub async fn until_count(&self, room: &RoomId, n: usize, limit: Duration) -> Outcome<()> {
        let end = Instant::now() + limit;
        loop {
            let has = self.count(room).await?;
            if has >= n {
                return Ok(());
            }
            if Instant::now() > end {
                let said = self.record().alarms.join("; ");
                return Trouble::is(format!(
                    "{} has {has} of {n} messages after {limit:?}; its room: {:?}; it said: {said}",
                    self.id,
                    self.room(room).await?.map(|r| (r.status, r.epoch, r.seq)),
                ));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What it sent, with the places that the messages have by now.
    ///
    /// # Errors
    /// As [`Client::state`].
    pub async fn sent(&self) -> Outcome<Vec<Sent>> {
        self.look_at_sent(usize::MAX).await?;
        Ok(self.record().sent)
    }

    /// Looks up the places of messages that had none, until so many still have none; how many that are.
    async fn look_at_sent(&self, enough: usize) -> Outcome<usize> {
        let open: Vec<(usize, SubmitId)> = {
            let record = record(&self.record);
            let open = record.sent.iter().enumerate().filter(|(_, m)| m.seq.is_none());
            open.map(|(i, m)| (i, m.submit_id)).collect()
        };
        let mut without = 0;
        for (i, submit_id) in open {
            let state = self.client()?.state(&submit_id).await?;
            if let Some(message) = record(&self.record).sent.get_mut(i) {
                message.seq = state.seq.map(Seq::get);
            }
            without += usize::from(state.seq.is_none());
            if without >= enough {
                break;
            }
        }
        Ok(without)
    }

    /// Waits until everything it sent was accepted.
    ///
    /// # Errors
    /// When that takes longer than `limit`; says how many were not.
    pub async fn until_all_accepted(&self, limit: Duration) -> Outcome<()> {
        let end = Instant::now() + limit;
        while self.look_at_sent(1).await? > 0 {
            if Instant::now() > end {
                let without = self.look_at_sent(usize::MAX).await?;
                let sent = self.record().sent;
                let first = sent.iter().find(|m| m.seq.is_none()).during("a message")?;
                let state = self.client()?.state(&first.submit_id).await?;
                let rooms = self.client()?.rooms().await?;
                let rooms: Vec<_> = rooms.iter().map(|r| (&r.status, r.epoch, r.seq)).collect();
                return Trouble::is(format!(
                    "{}: {without} of {} messages are not accepted after {limit:?}; the first is {state:?}; the rooms: {rooms:?}; it said: {:?}",
                    self.id,
                    sent.len(),
                    self.record().alarms
                ));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// What it shows and said, for the checker.
    ///
    /// # Errors
    /// As [`Client::timeline`].
    pub async fn view(&self, room: &RoomId, stay: Stay) -> Outcome<View> {
        let timeline = self.timeline(room).await?.into_iter().map(shown).collect();
        let Record { alarms, doubles, .. } = self.record();
        Ok(View { device: self.id.clone(), stay, timeline, alarms, doubles })
    }
}

fn shown(m: Message) -> Shown {
    Shown {
        message_id: m.message_id,
        sender: m.device,
        counter: m.counter,
        text: m.text,
        seq: m.seq.map(Seq::get),
        flags: m.flags.iter().map(|f| f.as_str()).collect(),
    }
}

async fn listen(mut events: broadcast::Receiver<Event>, shared: Arc<Mutex<Record>>) {
    loop {
        match events.recv().await {
            Ok(event) => note(&mut record(&shared), event),
            // Too slow: what was missed is in the timeline, which is what counts.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn note(record: &mut Record, event: Event) {
    match event {
        Event::Message { message, .. } if !record.announced.insert(message.message_id) => {
            record.doubles.push(message.message_id);
        }
        Event::StateChanged { submit_id, state, .. } => {
            record.states.push((submit_id, state.stage));
        }
        Event::Gap { room, first, last, reason } => {
            record.alarms.push(format!("gap in {room}: {first} to {last}: {reason:?}"));
        }
        Event::Alarm(alarm) => {
            record.alarms.push(format!("{}: {}", alarm.kind.as_str(), alarm.sentence));
        }
        Event::Connected => record.connects += 1,
        Event::Disconnected { .. } => record.disconnects += 1,
        _ => {}
    }
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// When there is none within `limit`, or asking fails.
pub async fn eventually<T, F>(limit: Duration, what: &str, mut ask: F) -> Outcome<T>
where
    F: AsyncFnMut() -> Outcome<Option<T>>,
{
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() > end {
            return Trouble::is(format!("not within {limit:?}: {what}"));
        }
        sleep(Duration::from_millis(25)).await;
    }
}
